//! The layers of the configuration: the known keys, and how each layer names them.
//!
//! Must not know what the keys mean or which values are valid.

use config::{File, FileFormat, Map, Value, ValueKind};

use super::error::ConfigError;

/// The defaults with their documentation, as `kvs config default` prints them.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// Keys without a default. `default.toml` shows them in comments.
pub(super) const OPTIONAL_KEYS: [&str; 6] =
    ["gossip.advertise", "gossip.key_file", "peer.advertise", "peer.ca", "peer.cert", "peer.key"];

/// Keys outside any table.
pub(super) const FLAT_KEYS: [&str; 4] =
    ["cas_enabled", "clustering_enabled", "revision_history_depth", "revision_history_enabled"];

/// The key that an environment variable sets: `KVS_HTTP__LISTEN` is `http.listen` and
/// `KVS_CAS_ENABLED` is `cas_enabled`. `None` for other variables, which may belong to other
/// programs or, like `KVS_URL`, to the client.
pub(super) fn env_key(name: &str) -> Option<String> {
    let name = name.strip_prefix("KVS_")?.to_ascii_lowercase();
    match name.split_once("__") {
        Some((table, key)) => Some(format!("{table}.{key}")),
        None => FLAT_KEYS.contains(&name.as_str()).then_some(name),
    }
}

/// A value from the environment or the command line. Text that is not TOML is a string.
pub(super) fn literal(text: &str) -> Value {
    let parsed = format!("x = {text}");
    config::Config::builder()
        .add_source(File::from_str(&parsed, FileFormat::Toml))
        .build()
        .and_then(|c| c.get::<Value>("x"))
        .unwrap_or_else(|_| Value::from(text))
}

/// The dotted names of all keys, those without a default included.
pub(super) fn known_keys() -> Result<Vec<String>, ConfigError> {
    let defaults = config::Config::builder()
        .add_source(File::from_str(DEFAULT_TOML, FileFormat::Toml))
        .build()
        .map_err(|e| ConfigError::Invalid(e.to_string()))?;
    let mut known = flatten(&defaults.cache);
    known.extend(OPTIONAL_KEYS.map(str::to_owned));
    Ok(known)
}

/// The dotted names of all values in a table, sorted.
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

/// Rejects the first of `keys` that is not in `known`, and suggests the nearest key that is.
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
