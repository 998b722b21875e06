//! Refuses a name that an operation does not know, and says which one was probably meant.

use crate::http::answer::error::Error;
use crate::model::shown;

/// Below this similarity a suggestion would mislead.
const ALIKE_MIN: f64 = 0.8;

/// Names that users of other systems try, and what they mean here. Of several meanings the first
/// that the operation knows applies.
const ALIASES: &[(&[&str], &[&str])] = &[
    (&["value", "val", "v", "body", "json", "new", "object", "document"], &["data"]),
    (&["content", "contents", "payload", "include_values", "with_values"], &["data", "values"]),
    (&["base64", "bytes", "binary", "raw", "data_b64", "value_base64"], &["data_base64"]),
    (&["expect", "if", "old", "prev", "previous", "current", "condition"], &["expected"]),
    (&["lease", "expires", "expiry", "expires_at", "expires_in", "timeout", "lifetime"], &["ttl"]),
    (&["max_age", "ex", "px", "ttl_seconds", "ttl_ms", "duration"], &["ttl"]),
    (&["type", "mime", "mime_type", "media_type"], &["content_type"]),
    (&["version", "etag", "id", "if_match", "revision", "rev", "index"], &["uuid"]),
    (&["request_id", "idempotency_key"], &["uuid"]),
    (&["time", "ts", "modified", "modify_index"], &["timestamp"]),
    (&["not_exists", "missing", "none", "if_absent", "create", "nx"], &["absent"]),
    (&["present", "exist", "xx"], &["exists"]),
    (&["if", "conditions", "compares", "checks", "when"], &["compare"]),
    (&["ops", "operations", "then", "do", "writes", "actions", "puts"], &["success"]),
    (&["else", "otherwise", "on_failure"], &["failure"]),
    (&["set", "write", "insert", "update", "upsert"], &["put"]),
    (&["remove", "del", "unset"], &["delete"]),
    (&["read", "fetch", "query"], &["get"]),
    (&["name", "path"], &["key"]),
    (&["cursor", "next", "start", "start_after", "offset", "from", "page", "since"], &["after"]),
    (&["count", "max", "n", "size", "page_size", "first", "max_keys"], &["limit"]),
    (&["full", "with_content", "recurse", "data"], &["values"]),
    (&["envelope", "meta", "metadata", "output", "as"], &["format"]),
    (&["verbatim", "lossless"], &["exact"]),
    (&["uuid", "timestamp", "absent", "exists", "data", "data_base64"], &["expected"]),
];

/// What a meaning needs besides its name.
const NOTES: &[(&str, &str)] = &[
    ("data", "any JSON; `data_base64` takes other bytes"),
    ("data_base64", "bytes in base64; `data` takes JSON"),
    ("expected", "what the key must hold, as in `{\"absent\": true}` or `{\"uuid\": \"...\"}`"),
    ("ttl", "a time to live, as in `10s`"),
    ("uuid", "as an answer shows it, or new for each request where it names one"),
    ("after", "the `next` of an earlier page"),
];

/// Names that no operation has, and what to do instead.
const HINTS: &[(&[&str], &str)] = &[
    (&["key"], "the key stands in the path"),
    (&["prefix"], "the prefix stands in the path"),
    (&["cas", "if_match"], "send the ETag in If-Match, or use POST /cas/{key}"),
    (&["wait", "watch"], "this version answers at once; ask again"),
    (&["pretty", "raw"], "values come as they were stored; leave it out"),
    (&["flags", "acquire", "release", "session", "dc", "consistent", "stale"], "leave it out"),
    (&["token", "auth", "api_key"], "this version takes no tokens; leave it out"),
];

/// `unknown_field` for `name`, with the one of the `known` names that was probably meant.
pub(crate) fn unknown_field(name: &str, known: impl IntoIterator<Item = &'static str>) -> Error {
    let known: Vec<_> = known.into_iter().collect();
    let plain = plain(name);
    let nearest = same(&plain, &known).or_else(|| alias(&plain, &known));
    let nearest = nearest.or_else(|| alike(&plain, &known));
    let hint = match nearest {
        Some(nearest) => NOTES.iter().find(|(name, _)| *name == nearest).map(|(_, note)| *note),
        None => HINTS.iter().find(|(names, _)| names.contains(&&*plain)).map(|(_, hint)| *hint),
    };
    Error::UnknownField { name: shown(name), nearest, hint, known }
}

/// A name in lower case with underscores, as all names here are.
fn plain(name: &str) -> String {
    let (mut plain, mut before) = (String::new(), '_');
    for c in name.chars().take(64) {
        if c.is_ascii_uppercase() && before.is_ascii_lowercase() {
            plain.push('_');
        }
        plain.push(if c == '-' { '_' } else { c.to_ascii_lowercase() });
        before = c;
    }
    plain
}

fn same(plain: &str, known: &[&'static str]) -> Option<&'static str> {
    known.iter().copied().find(|known| *known == plain)
}

fn alias(plain: &str, known: &[&'static str]) -> Option<&'static str> {
    let aliases = ALIASES.iter().filter(|(names, _)| names.contains(&plain));
    let mut meanings = aliases.flat_map(|(_, meanings)| meanings.iter().copied());
    meanings.find(|meaning| known.contains(meaning))
}

fn alike(plain: &str, known: &[&'static str]) -> Option<&'static str> {
    let alike = |known: &&'static str| (strsim::jaro_winkler(known, plain), *known);
    most_alike(known.iter().map(alike))
}

/// The most alike of what is rated from 0 to 1; none if nothing is alike enough to be meant.
pub(crate) fn most_alike<T>(rated: impl Iterator<Item = (f64, T)>) -> Option<T> {
    let nearest = rated.max_by(|(a, _), (b, _)| a.total_cmp(b));
    nearest.filter(|(likeness, _)| *likeness >= ALIKE_MIN).map(|(_, meant)| meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
        match unknown_field(name, known.iter().copied()) {
            Error::UnknownField { nearest, .. } => nearest,
            error => panic!("{error:?}"),
        }
    }

    #[test]
    fn the_nearest_name_is_suggested_if_one_is_alike() {
        let known = ["limit", "after", "values"];
        for (name, meant) in [
            ("value", Some("values")),
            ("LIMITS", Some("limit")),
            ("vlaues", Some("values")),
            ("x", None),
            ("owner", None),
        ] {
            assert_eq!(nearest(name, &known), meant, "{name}");
        }
    }

    #[test]
    fn names_of_other_systems_and_spellings_are_understood() {
        let swap = ["expected", "data", "data_base64", "delete", "content_type", "ttl", "uuid"];
        for (name, meant) in [
            ("value", "data"),
            ("Value", "data"),
            ("contentType", "content_type"),
            ("Content-Type", "content_type"),
            ("dataBase64", "data_base64"),
            ("expect", "expected"),
            ("absent", "expected"),
            ("lease", "ttl"),
            ("requestId", "uuid"),
            ("remove", "delete"),
        ] {
            assert_eq!(nearest(name, &swap), Some(meant), "{name}");
        }
        assert_eq!(nearest("if", &["compare", "success", "failure"]), Some("compare"));
    }
}
