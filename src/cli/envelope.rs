//! Envelopes as tables show them: in scans, histories and the reads of transactions.
//!
//! Shows fields that a node leaves out as `-`. Shortens content, and escapes what could control a
//! terminal.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::lines::{self, present};
use super::output::{self, printable};
use crate::model::Timestamp;

/// How much of a value a whole table shows.
const WIDE_CHARS_MAX: usize = 4096;

/// An envelope (a value with its version and metadata), or a revision, which has no `key`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Envelope<'a> {
    pub key: String,
    pub uuid: String,
    pub timestamp: u64,
    pub expires_at: Option<String>,
    /// True for a revision that records a delete.
    pub deleted: bool,
    origin: Option<String>,
    size: Option<u64>,
    content_type: Option<String>,
    #[serde(borrow, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
    omitted: bool,
}

/// How much of a value a table shows.
pub(super) fn preview_chars(wide: bool, narrow_max: usize) -> usize {
    if wide { WIDE_CHARS_MAX } else { narrow_max }
}

/// A time of RFC 3339; not `wide`: to the second.
pub(super) fn short_time(text: &str, wide: bool) -> String {
    match text.split_once('.') {
        Some((seconds, _)) if !wide && text.ends_with('Z') => format!("{seconds}Z"),
        _ => text.to_owned(),
    }
}

pub(super) fn or_dash(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}

impl Envelope<'_> {
    pub(super) fn origin(&self) -> String {
        or_dash(self.origin.as_deref())
    }

    pub(super) fn content_type(&self) -> String {
        or_dash(self.content_type.as_deref())
    }

    pub(super) fn expires(&self, wide: bool) -> String {
        short_time(self.expires_at.as_deref().unwrap_or("-"), wide)
    }

    pub(super) fn time(&self, wide: bool) -> String {
        short_time(&Timestamp::saturating(self.timestamp).rfc3339(), wide)
    }

    /// The size of the content; `-` for a delete.
    pub(super) fn size(&self) -> String {
        self.size.filter(|_| !self.deleted).map_or_else(|| or_dash(None), output::size)
    }

    /// The start of the content: at most `chars_max` characters, then `...` if there is more.
    /// Without content, the reason in parentheses.
    pub(super) fn preview(&self, chars_max: usize) -> String {
        let bytes = match (self.data, &self.data_base64) {
            _ if self.deleted => return "(deleted)".to_owned(),
            (Some(json), _) => json.get().as_bytes().to_vec(),
            (None, Some(text)) => lines::decode(text).unwrap_or_default(),
            (None, None) if self.omitted => return "(omitted)".to_owned(),
            (None, None) => return or_dash(None),
        };
        match std::str::from_utf8(&bytes) {
            Ok(text) => start(text, chars_max),
            Err(_) => "(not text)".to_owned(),
        }
    }
}

fn start(text: &str, chars_max: usize) -> String {
    let mut start = String::new();
    let mut left = chars_max;
    for c in text.chars() {
        let shown = printable(c.encode_utf8(&mut [0; 4]));
        match left.checked_sub(shown.chars().count()) {
            Some(rest) => left = rest,
            None => return start + "...",
        }
        start.push_str(&shown);
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(content: &str) -> String {
        let text = format!(r#"{{"uuid":"u","timestamp":7,"size":5{content}}}"#);
        let envelope: Envelope<'_> = serde_json::from_str(&text).unwrap();
        envelope.preview(40)
    }

    #[test]
    fn a_preview_is_short_and_says_why_content_is_missing() {
        for (content, shown) in [
            (r#","data_base64":"aGVsbG8=""#, "hello"),
            (r#","data_base64":"/w==""#, "(not text)"),
            (r#","data_base64":"G1szMW0=""#, "\\u{1b}[31m"),
            (r#","data": {"a" : [1.0e0]}"#, r#"{"a" : [1.0e0]}"#),
            (r#","data":null"#, "null"),
            (r#","omitted":true"#, "(omitted)"),
            (r#","deleted":true,"data_base64":"""#, "(deleted)"),
            ("", "-"),
        ] {
            assert_eq!(show(content), shown);
        }
        let exact = show(&format!(r#","data":"{}""#, "ü".repeat(38)));
        assert_eq!(exact.chars().count(), 40);
        let long = show(&format!(r#","data":"{}""#, "ü".repeat(39)));
        assert!(long.ends_with("ü...") && long.chars().count() == 43, "{long}");
        let escapes = show(r#","data_base64":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA""#);
        assert!(escapes.starts_with("\\u{0}\\u{0}") && escapes.ends_with("}..."), "{escapes}");
        assert_eq!(escapes.len(), 43);
    }

    #[test]
    fn missing_fields_are_shown_as_a_dash() {
        let nothing = Envelope::default();
        assert_eq!([nothing.origin(), nothing.size(), nothing.expires(true)], ["-", "-", "-"]);
        let deleted = Envelope { deleted: true, size: Some(0), ..Envelope::default() };
        assert_eq!(deleted.size(), "-");
    }
}
