//! Layers, unknown keys and ranges of the configuration.

use super::layers::OPTIONAL_KEYS;
use super::*;

const ALONE: &str = "clustering_enabled = false\n";

fn examine(text: &str, env: &[(&str, &str)], sets: &[(&str, &str)]) -> Examined {
    let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
    let env = env.iter().map(own).collect();
    let sets: Vec<_> = sets.iter().map(own).collect();
    let text = format!("{ALONE}{text}");
    load::examine(Some((&text, "kvs.toml")), &env, &sets).unwrap()
}

fn load(text: &str, env: &[(&str, &str)], sets: &[(&str, &str)]) -> Result<Config, String> {
    examine(text, env, sets).valid().map_err(|e| e.to_string())
}

#[test]
fn defaults_are_valid_and_every_optional_key_is_documented() {
    assert!(Config::defaults().is_ok());
    for key in OPTIONAL_KEYS {
        let name = key.rsplit('.').next().unwrap();
        assert!(DEFAULT_TOML.contains(&format!("\n# {name} = ")), "{key}");
    }
}

#[test]
fn environment_wins_over_the_file_and_set_over_both() {
    let file = "[http]\nlisten = \"127.0.0.1:1\"\n[sync]\ninterval = \"7s\"";
    let env = [("KVS_HTTP__LISTEN", "127.0.0.1:2"), ("KVS_URL", "x"), ("KVS_CAS_ENABLED", "false")];
    let config = load(file, &env, &[]).unwrap();
    assert_eq!(config.http.listen.port(), 2);
    assert_eq!(config.sync.interval, Duration::from_secs(7));
    assert!(!config.cas_enabled);
    let config =
        load(file, &env, &[("http.listen", "127.0.0.1:3"), ("sync.interval", "9")]).unwrap();
    assert_eq!(config.http.listen.port(), 3);
    assert_eq!(config.sync.interval, Duration::from_secs(9));
    let seeds = load("", &[], &[("gossip.seeds", "[\"a:1\", \"b:2\"]")]).unwrap().gossip.seeds;
    assert_eq!(seeds, ["a:1", "b:2"]);
}

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    let error = load("[sync]\nintervall = \"1s\"", &[], &[]).unwrap_err();
    assert!(
        error.contains("`sync.intervall` in kvs.toml; did you mean `sync.interval`?"),
        "{error}"
    );
    let error = load("", &[], &[("interval", "1s")]).unwrap_err();
    assert!(error.contains("did you mean `sync.interval`?"), "{error}");
    let error = load("", &[("KVS_HTTP__LISTN", "x")], &[]).unwrap_err();
    assert!(error.contains("KVS_HTTP__LISTN") && error.contains("`http.listen`"), "{error}");
}

#[test]
fn ranges_and_pairs_are_checked() {
    for (key, value, part) in [
        ("sync.interval", "99ms", "sync.interval: 99ms is out of range"),
        ("sync.interval", "soon", "sync.interval in --set: `soon` is not a duration"),
        ("limits.value_bytes_max", "16777217", "out of range"),
        ("limits.body_memory_bytes_max", "1024", "out of range"),
        ("limits.answer_memory_bytes_max", "75497471", "use 75497472 to"),
        ("http.listen", "0.0.0.0:80", "http.insecure"),
        ("http.listen", "nowhere", "http.listen in --set: `nowhere` has no port"),
        ("node.name", "a b", "node.name"),
        ("http.hosts", "[\"*.example\"]", "is not a host"),
        ("http.hosts", "[\"https://a\"]", "is not a host"),
        ("http.origins", "[\"null\"]", "every page of the web"),
        ("http.origins", "[\"https://a/\"]", "without a path"),
        ("limits.idle_timeout", "999ms", "limits.idle_timeout"),
        ("storage.durability", "maybe", "use \"sync\" or \"os\""),
        ("clustering_enabled", "true", "gossip.key_file"),
    ] {
        let error = load("", &[], &[(key, value)]).unwrap_err();
        assert!(error.contains(part), "{key}={value}: {error}");
    }
    assert!(load("", &[], &[("http.listen", "0.0.0.0:80"), ("http.insecure", "true")]).is_ok());
}

#[test]
fn the_type_of_a_key_decides_how_its_value_is_read() {
    let name = |env: &str| load("", &[("KVS_NODE__NAME", env)], &[]).map(|c| c.node.name);
    for text in ["12e3", "12", "true", "0x10", "1_000", "1979-05-27"] {
        let read = name(text).map_err(|e| e.contains("letters"));
        // what is no name is refused as a name, not changed into another one
        assert!(read == Ok(text.to_owned()) || read == Err(true), "{text}: {read:?}");
    }
    assert_eq!(name("12e3").as_deref(), Ok("12e3"));
    let path = |text: &str| load("", &[], &[("node.data_dir", text)]).map(|c| c.node.data_dir);
    for text in ["1.50", "[a]", "false", "2026", "a=b", "a # b"] {
        assert_eq!(path(text), Ok(PathBuf::from(text)));
    }
    assert_eq!(path("\"a b\""), Ok(PathBuf::from("a b")), "quotes of TOML are taken, too");
    for (key, value, part) in [
        ("sync.push", "1", "`1` is no bool; write true or false"),
        ("limits.connections_max", "12e3", "`12e3` is no whole number"),
        ("limits.connections_max", "64k", "`64k` is no whole number"),
        ("gossip.seeds", "[1, 2]", "is no list; write it like a:1,b:1"),
        ("gossip.seeds", "[a:1]", "is no list"),
    ] {
        let error = load("", &[], &[(key, value)]).unwrap_err();
        assert!(error.contains(part) && error.starts_with(key), "{key}={value}: {error}");
    }
    assert!(!load("", &[], &[("sync.push", "False")]).unwrap().sync.push);
    let number = load("", &[], &[("limits.connections_max", "1_000")]).unwrap();
    assert_eq!(number.limits.connections_max, 1000);
}

#[test]
fn a_file_writes_each_type_in_its_own_form() {
    for (text, part) in [
        ("[node]\nname = 12e3", "node.name in kvs.toml: is no text; write it in quotes"),
        ("[node]\nname = true", "is no text"),
        ("[http]\ninsecure = 1", "`1` is no bool"),
        ("[limits]\nconnections_max = 1.5", "`1.5` is no whole number"),
        ("[sync]\ninterval = 1.5", "`1.5` is no duration"),
        ("[gossip]\nseeds = [1]", "is no list of texts"),
        ("[gossip]\nseeds = 1", "is no list of texts"),
        ("http = 1", "`http` is a table; write its keys below `[http]`"),
        ("[[http]]\nlisten = \"127.0.0.1:1\"", "`http` is a table"),
        ("[node]\nname = 12", "`12` is no text; write it in quotes: \"12\""),
        ("[htpp]", "unknown key `htpp` in kvs.toml; did you mean the table `[http]`?"),
    ] {
        let error = load(text, &[], &[]).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
    let text =
        "[sync]\ninterval = 7\n[limits]\nconnections_max = \"12\"\n[gossip]\nseeds = \"a:1\"";
    let config = load(text, &[], &[]).unwrap();
    assert_eq!((config.sync.interval.as_secs(), config.limits.connections_max), (7, 12));
    assert_eq!(config.gossip.seeds, ["a:1"]);
    let broken = load::examine(Some(("a = 1\n[node\n", "kvs.toml")), &BTreeMap::new(), &[]);
    let error = broken.unwrap_err().to_string();
    assert!(error.starts_with("kvs.toml, line 2: ") && !error.contains('\n'), "{error}");
}

#[test]
fn lists_have_a_plain_form_and_an_empty_value_is_none() {
    let seeds = |env: &str| load("", &[("KVS_GOSSIP__SEEDS", env)], &[]).unwrap().gossip.seeds;
    assert_eq!(seeds("a:1"), ["a:1"]);
    assert_eq!(seeds("a:1, b:2,"), ["a:1", "b:2"]);
    assert_eq!(seeds("[\"a:1\", \"b:2\"]"), ["a:1", "b:2"]);
    assert!(seeds("[]").is_empty());
    let file = "[gossip]\nseeds = [\"a:1\"]\n[limits]\nconnections_max = 5";
    let empty =
        [("KVS_GOSSIP__SEEDS", ""), ("KVS_LIMITS__CONNECTIONS_MAX", ""), ("KVS_HTTP__LISTEN", "")];
    let config = load(file, &empty, &[("node.name", "")]).unwrap();
    assert_eq!((config.gossip.seeds.len(), config.limits.connections_max), (1, 5));
    assert_eq!((config.node.name.as_str(), config.http.listen.port()), ("n1", 8080));
}

#[test]
fn all_faults_are_listed() {
    let text =
        "[HTTP]\nlisten = \"x\"\n[sync]\ninterval = \"soon\"\npush = 3\n[node]\nname = \"a b\"";
    let found =
        examine(text, &[("KVS_HTTP__LISTEN", "::1:80")], &[("limits.value_bytes_max", "0")]);
    let faults: Vec<_> = found.faults.iter().map(ToString::to_string).collect();
    for part in [
        "`HTTP.listen` in kvs.toml; did you mean `http.listen`?",
        "sync.interval in kvs.toml: `soon`",
        "sync.push in kvs.toml: `3` is no bool",
        "http.listen in the environment (KVS_HTTP__LISTEN): `::1:80` has more than one `:`",
        "node.name: ",
        "limits.value_bytes_max: 0 is out of range",
    ] {
        assert!(faults.iter().any(|fault| fault.contains(part)), "{part}: {faults:#?}");
    }
    assert_eq!(faults.len(), 6, "{faults:#?}");
    let overridden = load("[sync]\ninterval = \"soon\"", &[], &[("sync.interval", "1s")]);
    assert!(overridden.is_ok(), "{overridden:?}");
    let error = found.valid().unwrap_err().to_string();
    assert_eq!(error.lines().count(), 6, "each on a line of its own");
}

#[test]
fn the_nearest_key_is_nearest_as_a_whole_path() {
    for (key, advice) in [
        ("HTTP.listen", "did you mean `http.listen`?"),
        ("http.Listen", "did you mean `http.listen`?"),
        ("http.lsiten", "did you mean `http.listen`?"),
        ("htpp.listen", "did you mean `http.listen`?"),
        ("peers.listen", "did you mean `peer.listen`?"),
        ("gossip.seed", "did you mean `gossip.seeds`?"),
        ("gossip.key-file", "did you mean `gossip.key_file`?"),
        ("storage.data_dir", "did you mean `node.data_dir`?"),
        ("listen", "did you mean `gossip.listen` or `http.listen` or `peer.listen`?"),
        ("seeds", "did you mean `gossip.seeds`?"),
        ("cas-enabled", "did you mean `cas_enabled`?"),
        ("clustering", "did you mean `clustering_enabled`?"),
        ("http", "`http` is a table"),
    ] {
        let error = load("", &[], &[(key, "x")]).unwrap_err();
        assert!(error.contains(advice), "{key}: {error}");
    }
}

#[test]
fn variables_that_look_like_misspelt_keys_are_warned_of() {
    for (name, meant) in [
        ("KVS_HTTP_LISTEN", Some("KVS_HTTP__LISTEN")),
        ("KVS_NODE_DATA_DIR", Some("KVS_NODE__DATA_DIR")),
        ("KVS_DATA_DIR", Some("KVS_NODE__DATA_DIR")),
        ("KVS_LISTEN", Some("KVS_HTTP__LISTEN")),
        ("KVS_CAS_ENABLE", Some("KVS_CAS_ENABLED")),
        ("KVS_GOSSIP_SEED", Some("KVS_GOSSIP__SEEDS")),
        ("KVS_LOGS", Some("KVS_LOG")),
        ("KVS_URI", Some("KVS_URL")),
        // Kubernetes sets these for a service named `kvs`
        ("KVS_PORT", None),
        ("KVS_SERVICE_HOST", None),
        ("KVS_SERVICE_PORT_HTTP", None),
        ("KVS_PORT_8080_TCP_ADDR", None),
        ("KVS_LOG", None),
        ("KVS_TOKEN_FILE", None),
        ("KVS_TEST_BIN", None),
        ("OTHER_HTTP_LISTEN", None),
    ] {
        let found = examine("", &[(name, "127.0.0.1:1")], &[]);
        assert!(found.faults.is_empty(), "{name}: {:?}", found.faults);
        assert_eq!(found.config.http.listen.port(), 8080, "{name} sets nothing");
        match meant {
            Some(meant) => assert!(
                found.warnings[0].contains(name)
                    && found.warnings[0].contains(&format!("{meant}?")),
                "{:?}",
                found.warnings
            ),
            None => assert!(found.warnings.is_empty(), "{:?}", found.warnings),
        }
    }
}

#[test]
fn every_key_tells_where_its_value_comes_from() {
    let found = examine(
        "[sync]\ninterval = \"7s\"",
        &[("KVS_CAS_ENABLED", "false")],
        &[("gossip.seeds", "a:1")],
    );
    let of = |key: &str| {
        let found = found.keys.iter().find(|found| found.key == key).unwrap();
        (found.value.as_ref().map(ToString::to_string), found.place.as_deref())
    };
    assert_eq!(of("sync.interval"), (Some("\"7s\"".into()), Some("kvs.toml")));
    assert_eq!(
        of("cas_enabled"),
        (Some("false".into()), Some("the environment (KVS_CAS_ENABLED)"))
    );
    assert_eq!(of("gossip.seeds"), (Some("[\"a:1\"]".into()), Some("--set")));
    assert_eq!(of("http.listen").1, None);
    assert_eq!(of("peer.ca"), (None, None));
}

#[test]
fn listen_addresses_may_be_names() {
    let config =
        load("", &[], &[("http.listen", "localhost:1"), ("peer.advertise", "localhost:2")]);
    let config = config.unwrap();
    assert!(config.http.listen.ip().is_loopback() && config.peer.advertise.is_some());
    let error = load("", &[], &[("peer.advertise", "localhost:0")]).unwrap_err();
    assert!(error.contains("port 0"), "{error}");
}
