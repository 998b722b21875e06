//! The layers of the configuration: the known keys with their types, and how each layer names them
//! and writes their values.
//!
//! Promises that the type of a key decides how its value is read, and never what the value looks
//! like: a name such as `12e3` stays a name. Must not know what the keys mean or which values are
//! valid.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::error::ConfigError;
use crate::model::duration;

/// The defaults with their documentation, as `kvs config default` prints them.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// Keys without a default, all of them text. `default.toml` shows them in comments.
pub(super) const OPTIONAL_KEYS: [&str; 6] =
    ["gossip.advertise", "gossip.key_file", "peer.advertise", "peer.ca", "peer.cert", "peer.key"];

/// Variables that are no keys of the configuration.
const OTHER_VARIABLES: [&str; 5] = ["KVS_LOG", "KVS_URL", "KVS_TOKEN", "KVS_TOKEN_FILE", "KVS_CA"];

/// How alike a variable must be to what it is taken for, in changes of a letter.
const MISSPELT_CHANGES_MAX: usize = 2;

/// The type of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyType {
    Flag,
    Number,
    Text,
    /// Text that a whole number may stand for, without quotes: seconds.
    Span,
    /// A list of texts.
    List,
}

/// The dotted names of all keys with their types, those without a default included.
pub(super) fn known_keys(defaults: &Table) -> BTreeMap<String, KeyType> {
    let type_of = |value: &Value| match value {
        Value::Boolean(_) => KeyType::Flag,
        Value::Integer(_) => KeyType::Number,
        Value::Array(_) => KeyType::List,
        Value::String(text) if duration::parse(text).is_ok() => KeyType::Span,
        _ => KeyType::Text,
    };
    let found = flatten(defaults).into_iter().map(|(key, value)| (key, type_of(value)));
    found.chain(OPTIONAL_KEYS.map(|key| (key.to_owned(), KeyType::Text))).collect()
}

/// The key that an environment variable sets: `KVS_HTTP__LISTEN` is `http.listen`, and
/// `KVS_CAS_ENABLED` is `cas_enabled`, a key outside any table. `None` for other variables, which
/// may belong to other programs or, like `KVS_URL`, to the client.
pub(super) fn env_key(name: &str, known: &BTreeMap<String, KeyType>) -> Option<String> {
    let name = name.strip_prefix("KVS_")?.to_ascii_lowercase();
    match name.split_once("__") {
        Some((table, key)) => Some(format!("{table}.{key}")),
        None => known.contains_key(&name).then_some(name),
    }
}

/// What the variable `name`, which sets nothing, looks like: the variable that was meant.
pub(super) fn meant_variable(name: &str, known: &BTreeMap<String, KeyType>) -> Option<String> {
    if OTHER_VARIABLES.contains(&name) || env_key(name, known).is_some() {
        return None;
    }
    let plain = |text: &str| text.to_ascii_lowercase().replace(['.', '_', '-'], "");
    let given = plain(name.strip_prefix("KVS_")?);
    let variable = |key: &String| format!("KVS_{}", key.to_ascii_uppercase().replace('.', "__"));
    let last = |key: &str| plain(key.rsplit('.').next().unwrap_or_default());
    let same = known.keys().filter(|key| last(key) == given);
    if let Some(key) = same.min_by_key(|key| !key.starts_with("http.")) {
        return Some(variable(key));
    }
    let keys = known.keys().map(|key| (plain(key), variable(key)));
    let others = OTHER_VARIABLES.map(|other| (plain(other.trim_start_matches("KVS_")), other));
    let others = others.map(|(text, other)| (text, other.to_owned()));
    let changes = |text: &str| strsim::osa_distance(text, &given);
    // a short word is like many others
    let close = |text: &str| changes(text) <= MISSPELT_CHANGES_MAX.min(text.len() / 3);
    let all = keys.chain(others).filter(|(text, _)| close(text));
    all.min_by_key(|(text, _)| changes(text)).map(|(_, variable)| variable)
}

/// Reads a value from the environment or the command line, which write all types as text.
///
/// # Errors
/// What is wrong with the text and how to write it.
pub(super) fn from_text(key_type: KeyType, text: &str) -> Result<Value, String> {
    match key_type {
        KeyType::Flag => match text.to_ascii_lowercase().as_str() {
            "true" => Ok(true.into()),
            "false" => Ok(false.into()),
            _ => Err(format!("`{text}` is no bool; write true or false")),
        },
        KeyType::Number => {
            let number = text.replace('_', "").parse::<i64>().map(Value::from);
            number.map_err(|_| format!("`{text}` is no whole number; write one, such as 1024"))
        }
        KeyType::Text | KeyType::Span => Ok(unquoted(text).into()),
        KeyType::List if text.starts_with('[') => {
            let parsed = format!("x = {text}").parse::<Table>().ok();
            let list = parsed.and_then(|mut table| table.remove("x"));
            let list = list.filter(is_list_of_texts);
            list.ok_or_else(|| format!("`{text}` is no list; write it like a:1,b:1"))
        }
        KeyType::List => {
            let items = text.split(',').map(|item| unquoted(item.trim()));
            Ok(items.filter(|item| !item.is_empty()).map(Value::from).collect::<Vec<_>>().into())
        }
    }
}

/// Reads a value from a file, where a type has a form of its own; text may stand for any type.
///
/// # Errors
/// What is wrong with the value and how to write it.
pub(super) fn from_file(key_type: KeyType, value: Value) -> Result<Value, String> {
    let shown = value.to_string();
    match (key_type, value) {
        (KeyType::Text | KeyType::Span, Value::String(text)) => Ok(text.into()),
        (_, Value::String(text)) => from_text(key_type, &text),
        (KeyType::Span, Value::Integer(seconds)) => Ok(seconds.to_string().into()),
        (KeyType::Flag, Value::Boolean(flag)) => Ok(flag.into()),
        (KeyType::Number, Value::Integer(number)) => Ok(number.into()),
        (KeyType::List, list) if is_list_of_texts(&list) => Ok(list),
        (KeyType::Flag, _) => Err(format!("`{shown}` is no bool; write true or false")),
        (KeyType::Number, _) => {
            Err(format!("`{shown}` is no whole number; write one, such as 1024"))
        }
        (KeyType::Span, _) => Err(format!("`{shown}` is no duration; write one, such as \"10s\"")),
        (KeyType::Text, Value::Integer(_)) => {
            Err(format!("`{shown}` is no text; write it in quotes: \"{shown}\""))
        }
        // the parser has changed how it was written, so it is not repeated
        (KeyType::Text, _) => Err("is no text; write it in quotes, as in \"n1\"".to_owned()),
        (KeyType::List, _) => Err(format!("`{shown}` is no list of texts; write one: [\"a:1\"]")),
    }
}

fn is_list_of_texts(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.iter().all(Value::is_str))
}

/// Text without the quotes that TOML needs and other places do not.
fn unquoted(text: &str) -> String {
    let quoted = text.len() > 1 && text.starts_with('"') && text.ends_with('"');
    let parsed = quoted.then(|| format!("x = {text}").parse::<Table>().ok()).flatten();
    let inner = parsed.and_then(|table| Some(table.get("x")?.as_str()?.to_owned()));
    inner.unwrap_or_else(|| text.to_owned())
}

/// The dotted names of all values in a table, sorted. An empty table counts as a value.
pub(super) fn flatten(table: &Table) -> Vec<(String, &Value)> {
    fn walk<'a>(table: &'a Table, path: &str, found: &mut Vec<(String, &'a Value)>) {
        for (name, value) in table {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match value {
                Value::Table(inner) if !inner.is_empty() => walk(inner, &path, found),
                _ => found.push((path, value)),
            }
        }
    }
    let mut found = Vec::new();
    walk(table, "", &mut found);
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found
}

/// Sets the value of a dotted key.
pub(super) fn set(table: &mut Table, key: &str, value: Value) {
    let Some((outer, inner)) = key.split_once('.') else {
        table.insert(key.to_owned(), value);
        return;
    };
    let entry = table.entry(outer).or_insert_with(|| Table::new().into());
    if let Value::Table(table) = entry {
        set(table, inner, value);
    }
}

/// Whether `name` is a table of known keys.
pub(super) fn is_table(name: &str, known: &BTreeMap<String, KeyType>) -> bool {
    known.keys().any(|key| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// The error for an empty table, unless its name is that of a table of known keys.
pub(super) fn unknown_table(
    name: &str,
    known: &BTreeMap<String, KeyType>,
    place: &str,
) -> Option<ConfigError> {
    if is_table(name, known) {
        return None;
    }
    let alike = |table: &str| strsim::jaro_winkler(table, &name.to_ascii_lowercase());
    let tables = known.keys().filter_map(|key| Some(key.rsplit_once('.')?.0));
    let nearest = tables.max_by(|a, b| alike(a).total_cmp(&alike(b))).unwrap_or_default();
    Some(ConfigError::UnknownKey {
        key: name.to_owned(),
        place: place.to_owned(),
        advice: format!("did you mean the table `[{nearest}]`?"),
    })
}

/// The error for a key that is not in `known`: it names the nearest key that is.
pub(super) fn unknown(key: &str, known: &BTreeMap<String, KeyType>, place: &str) -> ConfigError {
    let advice = if is_table(key, known) {
        format!("`{key}` is a table; write its keys below `[{key}]`, or as `{key}.KEY`")
    } else {
        format!("did you mean {}?", nearest(key, known))
    };
    ConfigError::UnknownKey { key: key.to_owned(), place: place.to_owned(), advice }
}

/// The known keys nearest to `key`, in quotes: nearest as a whole path; and for a key without its
/// table, all that end alike.
fn nearest(key: &str, known: &BTreeMap<String, KeyType>) -> String {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let given = plain(key);
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let same: Vec<_> = known.keys().filter(|key| last(key) == given).collect();
    if !same.is_empty() {
        return same.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(" or ");
    }
    let alike = |known: &str| {
        let whole = strsim::normalized_damerau_levenshtein(known, &given);
        // the table may be the mistake, or be missing
        let end = strsim::normalized_damerau_levenshtein(&last(known), &last(&given));
        let end_weight = if given.contains('.') { 0.5 } else { 0.9 };
        whole.max(end * end_weight)
    };
    let best = known.keys().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    format!("`{}`", best.map(String::as_str).unwrap_or_default())
}
