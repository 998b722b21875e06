//! Keys of the configuration and the layers they come from: which exist, which one was meant.

use config::{File, FileFormat, Map, Value, ValueKind};

use super::{ConfigError, DEFAULT_TOML};

/// Keys that have no default.
pub(super) const OPTIONAL_KEYS: [&str; 6] =
    ["gossip.advertise", "gossip.key_file", "peer.advertise", "peer.ca", "peer.cert", "peer.key"];

/// Flat keys: those outside of any table.
pub(super) const FLAT_KEYS: [&str; 4] =
    ["cas_enabled", "clustering_enabled", "revision_history_depth", "revision_history_enabled"];

/// `KVS_HTTP__LISTEN` is `http.listen` and `KVS_CAS_ENABLED` is `cas_enabled`; other variables are
/// not ours to judge.
pub(super) fn env_key(name: &str) -> Option<String> {
    let name = name.strip_prefix("KVS_")?.to_ascii_lowercase();
    match name.split_once("__") {
        Some((table, key)) => Some(format!("{table}.{key}")),
        None => FLAT_KEYS.contains(&name.as_str()).then_some(name),
    }
}

/// A value from the environment or the command line: TOML where it is that, else the text itself.
pub(super) fn literal(text: &str) -> Value {
    let parsed = format!("x = {text}");
    config::Config::builder()
        .add_source(File::from_str(&parsed, FileFormat::Toml))
        .build()
        .and_then(|c| c.get::<Value>("x"))
        .unwrap_or_else(|_| Value::from(text))
}

pub(super) fn known_keys() -> Result<Vec<String>, ConfigError> {
    let defaults = config::Config::builder()
        .add_source(File::from_str(DEFAULT_TOML, FileFormat::Toml))
        .build()
        .map_err(|e| ConfigError::Invalid(e.to_string()))?;
    let mut known = flatten(&defaults.cache);
    known.extend(OPTIONAL_KEYS.map(str::to_owned));
    Ok(known)
}

/// The dotted names of all leaves.
pub(super) fn flatten(value: &Value) -> Vec<String> {
    fn walk(table: &Map<String, Value>, path: &str, names: &mut Vec<String>) {
        for (name, value) in table {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match &value.kind {
                ValueKind::Table(inner) => walk(inner, &path, names),
                _ => names.push(path),
            }
        }
    }
    let mut names = Vec::new();
    if let ValueKind::Table(table) = &value.kind {
        walk(table, "", &mut names);
    }
    names.sort();
    names
}

pub(super) fn check_known(
    keys: &[String],
    known: &[String],
    place: &str,
) -> Result<(), ConfigError> {
    let Some(key) = keys.iter().find(|key| !known.contains(key)) else { return Ok(()) };
    let alike = |known: &str| {
        let last = |k: &str| k.rsplit('.').next().unwrap_or_default().to_owned();
        strsim::jaro_winkler(known, key).max(strsim::jaro_winkler(&last(known), &last(key)))
    };
    let nearest = known.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    Err(ConfigError::UnknownKey {
        key: key.clone(),
        place: place.to_owned(),
        nearest: nearest.cloned().unwrap_or_default(),
    })
}
