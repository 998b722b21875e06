//! Mistakes at the command line and in configurations: each text names value, place, cause and
//! cure.
//!
//! `cargo test --test it cli::mistakes -- --nocapture` shows all texts.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use kvs::clock::{Clock, Source};
use kvs::model::Timestamp;
use kvs::peer::certificate;

use crate::support::Site;
use crate::support::command::{binary, clean, finish, kvs, kvs_with};

/// A mistake: the command line in words, its standard input, and what the text must contain.
type CommandMistake = (&'static [&'static str], &'static str, &'static [&'static str]);

#[test]
fn mistakes_at_the_command_line_are_named_with_their_cure() {
    let mistakes: &[CommandMistake] = &[
        // commands and options
        (&["delete", "k"], "", &["'delete'", "'del'"]),
        (&["ls"], "", &["'ls'", "'scan'"]),
        (&["nodes"], "", &["'members'"]),
        (&["start"], "", &["'serve'"]),
        (&["exprot"], "", &["'exprot'", "'export'"]),
        (&["put", "k", "v", "--tll", "1s"], "", &["'--tll'", "'--ttl'"]),
        (&["put", "k", "v", "--token", "t"], "", &["'--token'"]),
        (&["cas", "k", "v"], "", &["--expect-uuid", "--expect-absent"]),
        (&["serve"], "", &["--config", "--dev"]),
        (&["serve", "--dev", "--set", "http.listen"], "", &["KEY=VALUE"]),
        (&["serve", "--dev", "--set", "node.data_dir=/x"], "", &["node.data_dir", "--config"]),
        (&["serve", "--config", "/no/kvs.toml"], "", &["/no/kvs.toml", "cannot read"]),
        // keys, values and durations
        (&["get", "/a"], "", &["/a", "remove the leading"]),
        (&["get", "a//b"], "", &["a//b", "empty segment"]),
        (&["put", "k", "v", "--ttl", "1w"], "", &["`1w` is not a duration", "ms, s, m, h or d"]),
        (&["put", "k", "@/no/file"], "", &["/no/file", "standard input"]),
        (&["put", "k", "{", "--json"], "", &["not JSON", "leave out --json"]),
        (&["cas", "k", "v", "--expect-timestamp", "now"], "", &["microseconds"]),
        (
            &["history", "k", "--restore", "yesterday"],
            "",
            &["'yesterday'", "--restore", "is no uuid"],
        ),
        (&["txn", "-"], "{\"compare\": [}", &["not acceptable JSON", "nothing was sent"]),
        // addresses
        (
            &["--url", "127.0.0.1:8080", "get", "k"],
            "",
            &["`127.0.0.1:8080`", "use one like http://"],
        ),
        (
            &["--url", "localhost:8080", "get", "k"],
            "",
            &["`localhost:8080`", "use one like http://"],
        ),
        (&["--url", "https://h", "get", "k"], "", &["https", "does not speak"]),
        (&["--url", "http://127.0.0.1:1", "get", "k"], "", &["cannot reach", "kvs serve", "--url"]),
        // imports
        (&["import", "/no/dir"], "", &["/no/dir", "cannot read"]),
        (&["import", "-"], "{\"key\":\"a\"}", &["line 1", "neither data nor data_base64"]),
        (
            &["import", "-"],
            "{\"key\":\"a\",\"data\":1,\"tll\":1}",
            &["`tll`", "did you mean `ttl`?"],
        ),
        (&["import", "-"], "{\"Key\":\"a\",\"data\":1}", &["`Key`", "did you mean `key`?"]),
        (&["import", "-"], "{\"key\":\"a\",\"value\":1}", &["`value`", "did you mean `data`?"]),
        (&["import", "-"], "[1]", &["line 1", "one JSON object"]),
        // certificates
        (&["cert", "node", "n1", "--dir", "/no/dir"], "", &["/no/dir", "kvs cert ca --dir"]),
        (&["cert", "show", "/no/file"], "", &["/no/file", "cannot read"]),
        (&["config", "check", "/no/file"], "", &["/no/file", "cannot read"]),
    ];
    for (line, input, words) in mistakes {
        let said = kvs_with(line.iter(), input.as_bytes());
        println!("$ kvs {}\n{}", line.join(" "), said.err);
        assert!(said.code >= 2 && said.out.is_empty(), "{line:?}: {said:?}");
        for word in *words {
            assert!(said.err.contains(word), "{line:?}: {word:?} is missing: {}", said.err);
        }
        // and as JSON for programs
        let json = kvs_with(["-o", "json"].iter().chain(line.iter()), input.as_bytes());
        assert_eq!((json.code, json.out.len()), (said.code, 0), "{line:?}: {json:?}");
        let error: serde_json::Value = serde_json::from_str(&json.err).expect(&json.err);
        assert!(error["code"].is_string() && error["detail"].is_string(), "{error}");
        assert_eq!(error["exit_status"], said.code, "{error}");
    }
}

/// Runs `kvs config check` on a file with this text.
fn check(text: &str, variables: &[(&str, &str)]) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("kvs.toml");
    fs::write(&file, text).expect("written");
    let mut command = clean(binary());
    command.envs(variables.iter().copied()).args(["config", "check"]).arg(&file);
    let said = finish(command, b"").expect(2);
    said.err.replace(file.to_str().expect("text"), "kvs.toml")
}

#[test]
fn mistakes_in_a_configuration_are_named_with_their_cure() {
    let alone = "clustering_enabled = false\n";
    let mistakes: &[(&str, &[&str])] = &[
        ("[HTTP]\nlisten = \"127.0.0.1:1\"", &["`HTTP.listen`", "did you mean `http.listen`?"]),
        ("[htpp]\nlisten = \"127.0.0.1:1\"", &["`htpp.listen`", "did you mean `http.listen`?"]),
        ("[http]\nlissten = \"127.0.0.1:1\"", &["`http.lissten`", "`http.listen`"]),
        ("[htpp]", &["unknown key `htpp`", "`[http]`"]),
        ("listen = \"127.0.0.1:1\"", &["`listen`", "`http.listen`", "`peer.listen`"]),
        ("http = \"127.0.0.1:1\"", &["`http` is a table", "`[http]`"]),
        ("[http]\nlisten = 8080", &["http.listen", "`8080` is no text", "quotes"]),
        ("[http]\nlisten = \"8080\"", &["http.listen", "no host", "127.0.0.1:8080"]),
        ("[http]\nlisten = \":8080\"", &["no host", "0.0.0.0:8080 for all"]),
        ("[http]\nlisten = \"localhost\"", &["no port", "localhost:PORT"]),
        ("[http]\nlisten = \"http://127.0.0.1:1\"", &["is a URL", "`127.0.0.1:1`"]),
        ("[http]\nlisten = \"::1:8080\"", &["in brackets, like `[::1]:8080`"]),
        ("[http]\nlisten = \"127.0.0.1:99999\"", &["`99999`", "up to 65535"]),
        ("[http]\nlisten = \"10.0.0.256:1\"", &["`10.0.0.256`", "no IPv4 address"]),
        ("[http]\nlisten = \"0.0.0.0:8080\"", &["http.listen", "http.insecure = true"]),
        ("[http]\ninsecure = \"yes\"", &["http.insecure", "`yes` is no bool", "true or false"]),
        ("[node]\nname = 12e3", &["node.name", "write it in quotes"]),
        ("[node]\nname = \"a b\"", &["node.name", "letters, digits"]),
        ("[node]\ndata_dir = \"/dev/null\"", &["/dev/null", "is not a directory"]),
        ("[sync]\ninterval = \"10 s\"", &["sync.interval", "`10 s` is not a duration"]),
        ("[sync]\ninterval = \"1ms\"", &["sync.interval: 1ms is out of range; use 100ms to 1d"]),
        ("[storage]\ncache_bytes = \"64MiB\"", &["`64MiB` is no whole number"]),
        ("[storage]\ndurability = \"fsync\"", &["`fsync`", "use \"sync\" or \"os\""]),
        ("[limits]\nconnections_max = 0", &["limits.connections_max: 0 is out of range; use 1 to"]),
        ("[node\n", &["kvs.toml, line 2", "correct the TOML"]),
        ("[node]\nname = \"a\"\nname = \"b\"", &["kvs.toml, line", "duplicate"]),
    ];
    for (text, words) in mistakes {
        let said = check(&format!("{alone}{text}"), &[]);
        println!("{text}\n{said}");
        assert_eq!(said.lines().count(), 1, "{text}: {said}");
        for word in *words {
            assert!(said.contains(word), "{text}: {word:?} is missing: {said}");
        }
    }
    let cluster = "[gossip]\nkey_file = \"/no/key\"\n[peer]\nca = \"/no/ca\"\ncert = \"/no/c\"\n\
                   key = \"/no/k\"\n";
    for (seed, words) in [
        ("udp://a:1", "leave out `udp://`: `a:1`"),
        (" a:1", "contains a space"),
        ("::1:7946", "in brackets"),
        ("a", "write a:PORT"),
        ("a:0", "port 0"),
    ] {
        let said = check(cluster, &[("KVS_GOSSIP__SEEDS", &format!("[\"{seed}\"]"))]);
        let line = said.lines().find(|line| line.contains("gossip.seeds")).expect(&said);
        println!("a seed `{seed}`\n{line}");
        assert!(line.contains(words) && line.contains(&format!("`{seed}`")), "{line}");
    }
    for (name, value, words) in [
        ("KVS_HTTP__LISTN", "x", "`http.listn` in the environment (KVS_HTTP__LISTN)"),
        ("KVS_SYNC__PUSH", "1", "sync.push in the environment (KVS_SYNC__PUSH): `1` is no bool"),
    ] {
        let said = check(alone, &[(name, value)]);
        println!("{name}={value}\n{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn a_variable_with_one_underscore_is_named_and_sets_nothing() {
    let mut command = clean(binary());
    command.env("KVS_HTTP_LISTEN", "0.0.0.0:1").args(["config", "show"]);
    command.env("KVS_CLUSTERING_ENABLED", "false").env("KVS_NODE__NAME", "12e3");
    command.env("KVS_GOSSIP__SEEDS", "a:1,b:2").env("KVS_SYNC__INTERVAL", "");
    let said = finish(command, b"").expect(0);
    assert!(said.err.contains("KVS_HTTP_LISTEN sets nothing; did you mean KVS_HTTP__LISTEN?"));
    let text = said.text();
    for line in [
        "listen = \"127.0.0.1:8080\"",
        "name = \"12e3\"",
        "seeds = [\"a:1\", \"b:2\"]",
        "interval = \"10s\"",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(text.contains("# the environment (KVS_NODE__NAME)"), "{text}");
}

/// A clock that stands still.
struct Then(u64);

impl Source for Then {
    fn now(&self) -> Timestamp {
        Timestamp::saturating(self.0)
    }

    fn fill(&self, bytes: &mut [u8]) {
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::try_from(n % 251).expect("less than 251");
        }
    }
}

/// A certificate authority and a node's certificate, made `at` this time.
fn certificates_made_at(at: u64, dir: &Path) {
    let clock = Clock::from_source(Arc::new(Then(at)));
    let (ca, ca_key) = certificate::make_ca(&clock).expect("an authority");
    let (cert, key) = certificate::make_node(&clock, &ca, &ca_key, "n1", &[]).expect("a node's");
    for (name, text) in [("old-ca.pem", ca), ("old-n1.pem", cert), ("old-n1-key.pem", key)] {
        fs::write(dir.join(name), text).expect("written");
    }
}

#[tokio::test]
async fn a_check_opens_the_files_and_lists_all_that_is_wrong() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::clustered();
    site.certify("n2");
    let shared = site.file("");
    // in 2020, so that they ended in 2022
    certificates_made_at(1_577_836_800_000_000, Path::new(&shared));
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    fs::write(site.file("locked.pem"), encrypted).expect("written");
    let place = site.place("n1", &[]);
    place.write_config();
    let file = place.config_file();
    let file = file.to_str().expect("text");
    let check = |sets: &[(&str, String)]| {
        let sets =
            sets.iter().flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]);
        let line = ["config", "check", file].map(str::to_owned);
        kvs(line.into_iter().chain(sets))
    };
    assert!(check(&[]).expect(0).err.is_empty(), "nothing is wrong");
    let none = || site.file("none");
    for (sets, words) in [
        (vec![("peer.cert", none())], &["none: No such file", "kvs cert node n1"][..]),
        (vec![("peer.ca", none())], &["none: No such file", "copy the cluster's"]),
        (vec![("gossip.key_file", none())], &["gossip.key_file", "copy the file of another node"]),
        (vec![("peer.key", site.file("n2-key.pem"))], &["n2-key.pem", "is not the key of"]),
        (
            vec![("peer.key", site.file("locked.pem"))],
            &["encrypted with a passphrase", "openssl pkey"],
        ),
        (vec![("peer.key", site.file("n1.pem"))], &["it is a certificate"]),
        (vec![("peer.cert", site.file("n1-key.pem"))], &["it is a private key"]),
        (vec![("peer.cert", site.file("secret"))], &["it is a cluster's secret file"]),
        (vec![("node.name", "n2".to_owned())], &["does not carry node.name `n2`"]),
        (
            vec![
                ("peer.ca", site.file("old-ca.pem")),
                ("peer.cert", site.file("old-n1.pem")),
                ("peer.key", site.file("old-n1-key.pem")),
            ],
            &["old-n1.pem: expired at 20"],
        ),
        (vec![("gossip.key_file", site.file("n1.pem"))], &["not a cluster secret file"]),
    ] {
        let said = check(&sets).expect(2);
        println!("{}", said.err);
        let faults = said.err.lines().filter(|line| !line.starts_with("kvs: warning: "));
        assert_eq!(faults.count(), 1, "{}", said.err);
        for word in words {
            assert!(said.err.contains(word), "{word}: {}", said.err);
        }
    }
    // all at once, of the values and of the files
    let many = [
        ("peer.cert", none()),
        ("peer.key", site.file("n1.pem")),
        ("gossip.key_file", none()),
        ("gossip.seeds", "udp://a:1,b".to_owned()),
        ("sync.interval", "soon".to_owned()),
    ];
    let said = check(&many).expect(2);
    println!("{}", said.err);
    let faults = said.err.lines().filter(|line| !line.starts_with("kvs: warning: "));
    assert_eq!(faults.count(), 6, "{}", said.err);
    // what a stranger can read is warned of
    let secret = site.file("secret");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).expect("set");
    let said = check(&[]).expect(0);
    assert!(said.err.contains("warning: ") && said.err.contains("chmod 600"), "{}", said.err);
}
