//! The ENVELOPE of the contract: a live value with all that is known of it, as JSON.
//!
//! Content is shown as JSON where its type says JSON, the bytes are acceptable JSON (as the API
//! itself would take them) and the reader gets exactly these bytes back; else in base64, because
//! white space around a JSON text, and line breaks where an envelope is one line, would be lost.
//! Nothing is parsed into a tree.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
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
    data_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted: Option<bool>,
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
        Self::with_content(key, entry, verbatim)
    }

    /// The same, fit for one line: JSON that has line breaks comes in base64.
    pub(super) fn of_line(key: &'a Key, entry: &'a Entry) -> Self {
        Self::with_content(key, entry, |body| {
            verbatim(body).filter(|json| !json.get().contains(['\n', '\r']))
        })
    }

    fn with_content(
        key: &'a Key,
        entry: &'a Entry,
        as_json: impl FnOnce(&'a [u8]) -> Option<&'a RawValue>,
    ) -> Self {
        let mut envelope = Self::bare(key, &entry.header);
        if let Some(body) = &entry.body {
            let is_json = match &entry.header.content {
                Content::Value { content_type, .. } => content_type.is_json(),
                Content::Tombstone => false,
            };
            envelope.data = if is_json { as_json(body) } else { None };
            if envelope.data.is_none() {
                envelope.data_base64 = Some(STANDARD.encode(body));
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

    /// Writes it and a line break. Made by [`Self::of_line`], it has no other.
    pub(super) fn write_line(&self, to: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        serde_json::to_writer(&mut *to, self)?;
        to.push(b'\n');
        Ok(())
    }
}

/// The bytes as JSON text, if they are, and nothing but it: without white space around.
fn verbatim(body: &[u8]) -> Option<&RawValue> {
    json::check(body).ok()?;
    let text: &RawValue = serde_json::from_slice(body).ok()?;
    (text.get().len() == body.len()).then_some(text)
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
    fn white_space_around_json_is_kept_in_base64() {
        for body in [&b" 1"[..], b"1\n", b"\t{}", b"[]\r\n", b" null "] {
            let text = text(&entry("application/json", body));
            let encoded = STANDARD.encode(body);
            assert!(text.ends_with(&format!(r#""data_base64":"{encoded}"}}"#)), "{text}");
        }
        // white space inside survives, line breaks too
        let text = text(&entry("application/json", b"[1,\n 2]"));
        assert!(text.ends_with("\"data\":[1,\n 2]}"), "{text}");
    }

    #[test]
    fn a_line_is_one_line_and_loses_nothing() {
        #[derive(serde::Deserialize)]
        struct Shown<'a> {
            #[serde(borrow)]
            data: Option<&'a RawValue>,
            data_base64: Option<String>,
        }
        let key = Key::parse("k").unwrap();
        for body in [&b"[\r\n1,\n2]"[..], b"{\"a\":\r1}", b"[1, 2]", b"\"\\n\"", b"1\n", b""] {
            let entry = entry("application/json", body);
            let mut line = Vec::new();
            Envelope::of_line(&key, &entry).write_line(&mut line).unwrap();
            let end = line.iter().position(|b| matches!(b, b'\n' | b'\r'));
            assert_eq!(end, Some(line.len() - 1));
            let shown: Shown<'_> = serde_json::from_slice(&line).unwrap();
            let back = match (shown.data, shown.data_base64) {
                (Some(json), None) => json.get().as_bytes().to_vec(),
                (None, Some(text)) => STANDARD.decode(text).unwrap(),
                both => panic!("{both:?}"),
            };
            assert_eq!(back, body);
        }
    }
}
