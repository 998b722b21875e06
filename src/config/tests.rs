//! Layers, unknown keys and ranges of the configuration.

use super::layers::{FLAT_KEYS, OPTIONAL_KEYS};
use super::*;

const ALONE: &str = "clustering_enabled = false\n";

fn load(text: &str, env: &[(&str, &str)], sets: &[(&str, &str)]) -> Result<Config, String> {
    let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
    let env = env.iter().map(own).collect();
    let sets: Vec<_> = sets.iter().map(own).collect();
    let text = format!("{ALONE}{text}");
    Config::from_parts(Some((&text, "kvs.toml")), &env, &sets).map_err(|e| e.to_string())
}

#[test]
fn defaults_are_valid_and_every_optional_key_is_documented() {
    assert!(Config::defaults().is_ok());
    for key in OPTIONAL_KEYS {
        let name = key.rsplit('.').next().unwrap();
        assert!(DEFAULT_TOML.contains(&format!("\n# {name} = ")), "{key}");
    }
    for key in FLAT_KEYS {
        assert!(DEFAULT_TOML.contains(&format!("\n{key} = ")), "{key}");
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
        ("sync.interval", "soon", "is not a duration"),
        ("limits.value_bytes_max", "16777217", "out of range"),
        ("limits.body_memory_bytes_max", "1024", "out of range"),
        ("limits.answer_memory_bytes_max", "75497471", "use 75497472 to"),
        ("http.listen", "0.0.0.0:80", "http.insecure"),
        ("http.listen", "nowhere", "listen"),
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
