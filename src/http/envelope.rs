//! The ENVELOPE of the contract: a live value with all that is known of it, as JSON.
//!
//! Content is shown as JSON where its type says JSON and the bytes are acceptable JSON (as the API
//! itself would take them), verbatim; else in base64. Nothing is parsed into a tree.

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::model::{Content, Header, Key, Timestamp, json};
use crate::store::{CURRENT_BYTES_MAX, Entry};

/// One value as answers show it; the order of the fields is the contract's.
#[derive(Serialize)]
pub(super) struct Envelope<'a> {
    key: &'a str,
    uuid: Uuid,
    timestamp: Timestamp,
    origin: Uuid,
    origin_joined_at: String,
    parent: Option<Uuid>,
    expires_at: Option<String>,
    content_type: &'a str,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<Base64<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted: Option<bool>,
}

/// Bytes that are shown in base64, written straight to where the text goes.
struct Base64<'a>(&'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&Base64Display::new(self.0, &STANDARD))
    }
}

/// How many times the size of its content an envelope takes: the content, and the text of it.
pub(super) const MEMORY_FACTOR: usize = 3;

/// About how long the text of an envelope gets whose content has `bytes`.
pub(super) fn text_bytes(bytes: usize) -> usize {
    bytes / 3 * 4 + 1024
}

impl<'a> Envelope<'a> {
    /// The envelope without content.
    pub(super) fn bare(key: &'a Key, header: &'a Header) -> Self {
        let (content_type, size) = match &header.content {
            Content::Value { content_type, size, .. } => (content_type.as_str(), *size),
            // the store gives live values only; a tombstone would be shown as an empty one
            Content::Tombstone => ("application/octet-stream", 0),
        };
        Self {
            key: key.as_str(),
            uuid: header.version.uuid,
            timestamp: header.version.timestamp,
            origin: header.origin.uuid(),
            origin_joined_at: header.version.origin_joined_at.rfc3339(),
            parent: header.parent,
            expires_at: header.expires_at.map(Timestamp::rfc3339),
            content_type,
            size,
            data: None,
            data_base64: None,
            omitted: None,
        }
    }

    /// The envelope with content, where the entry carries it.
    pub(super) fn of(key: &'a Key, entry: &'a Entry) -> Self {
        let mut envelope = Self::bare(key, &entry.header);
        if let Some(body) = &entry.body {
            let is_json = match &entry.header.content {
                Content::Value { content_type, .. } => content_type.is_json(),
                Content::Tombstone => false,
            };
            envelope.data = if is_json { verbatim(body) } else { None };
            if envelope.data.is_none() {
                envelope.data_base64 = Some(Base64(body));
            }
        }
        envelope
    }

    /// The envelope that goes with a failed condition: content up to a bound, else `omitted`.
    pub(super) fn of_current(key: &'a Key, entry: &'a Entry) -> Self {
        if entry.body.is_some() && entry.header.content.size() <= CURRENT_BYTES_MAX {
            return Self::of(key, entry);
        }
        Self { omitted: Some(true), ..Self::bare(key, &entry.header) }
    }

    /// Writes it as one line: line breaks can stand only between the tokens of `data`, where a
    /// space means the same.
    pub(super) fn write_line(&self, to: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let from = to.len();
        serde_json::to_writer(&mut *to, self)?;
        for byte in to.iter_mut().skip(from) {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        to.push(b'\n');
        Ok(())
    }
}

/// The bytes as JSON text, if they are.
fn verbatim(body: &[u8]) -> Option<&RawValue> {
    json::check(body).ok()?;
    serde_json::from_slice(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ContentType, NodeId, Seen, Version};
    use bytes::Bytes;

    fn entry(content_type: &str, body: &'static [u8]) -> Entry {
        let header = Header {
            version: Version {
                timestamp: Timestamp::saturating(1_700_000_000_000_001),
                origin_joined_at: Timestamp::saturating(1_600_000_000_000_000),
                uuid: Uuid::from_u128(5),
            },
            origin: NodeId::from_u128(7),
            parent: None,
            seen: Seen::default(),
            expires_at: None,
            content: Content::value(ContentType::parse(content_type).unwrap(), body),
        };
        Entry { header, body: Some(Bytes::from_static(body)) }
    }

    fn text(entry: &Entry) -> String {
        let key = Key::parse("a/b").unwrap();
        serde_json::to_string(&Envelope::of(&key, entry)).unwrap()
    }

    #[test]
    fn the_fields_come_in_the_order_of_the_contract_and_data_verbatim() {
        let expected = concat!(
            r#"{"key":"a/b","uuid":"00000000-0000-0000-0000-000000000005","#,
            r#""timestamp":1700000000000001,"origin":"00000000-0000-0000-0000-000000000007","#,
            r#""origin_joined_at":"2020-09-13T12:26:40.000000Z","parent":null,"expires_at":null,"#,
            r#""content_type":"application/json","size":12,"data":{"a" : 1.0 }}"#,
        );
        assert_eq!(text(&entry("application/json", br#"{"a" : 1.0 }"#)), expected);
        assert!(text(&entry("application/json", b"null")).ends_with(r#""data":null}"#));
    }

    #[test]
    fn what_is_no_json_is_base64() {
        for (content_type, body) in [
            ("text/plain", &b"1"[..]),
            ("application/json", b"{"),
            ("application/json", b""),
            ("application/json", br#"{"a":1,"a":2}"#),
            ("application/json", b"\"\xff\""),
        ] {
            let text = text(&entry(content_type, body));
            assert!(text.contains("data_base64") && !text.contains("\"data\""), "{text}");
        }
        assert!(text(&entry("text/plain", b"hi")).ends_with(r#""data_base64":"aGk="}"#));
    }

    #[test]
    fn a_large_current_value_is_omitted() {
        let key = Key::parse("k").unwrap();
        let mut large = entry("application/json", b"1");
        large.body = None;
        let text = serde_json::to_string(&Envelope::of_current(&key, &large)).unwrap();
        assert!(text.ends_with(r#""omitted":true}"#), "{text}");
    }

    #[test]
    fn a_line_is_one_line() {
        let (key, entry) = (Key::parse("k").unwrap(), entry("application/json", b"[\r\n1,\n2]"));
        let mut line = Vec::new();
        Envelope::of(&key, &entry).write_line(&mut line).unwrap();
        let first = line.iter().position(|b| *b == b'\n');
        assert_eq!(first, Some(line.len() - 1));
        let back: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(back["data"].as_array().map(Vec::len), Some(2));
    }
}
