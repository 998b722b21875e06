//! The ENVELOPE of the contract: a live value with all that is known of it, as JSON.
//!
//! Content is shown as JSON where its type says JSON, the bytes are acceptable JSON (as the API
//! itself would take them) and the reader gets exactly these bytes back; else in base64, because
//! white space around a JSON text, and line breaks where an envelope is one line, would be lost.
//! Nothing is parsed into a tree.

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::model::{Content, ContentType, Header, Key, Timestamp, json};
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
pub(super) struct Base64<'a>(&'a [u8]);

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
        if let (Content::Value { content_type, .. }, Some(body)) =
            (&entry.header.content, &entry.body)
        {
            (envelope.data, envelope.data_base64) = shown(content_type, body, as_json);
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

/// Content in the one form that shows it: JSON, or base64.
pub(super) fn content<'a>(
    content_type: &ContentType,
    body: &'a [u8],
) -> (Option<&'a RawValue>, Option<Base64<'a>>) {
    shown(content_type, body, verbatim)
}

fn shown<'a>(
    content_type: &ContentType,
    body: &'a [u8],
    as_json: impl FnOnce(&'a [u8]) -> Option<&'a RawValue>,
) -> (Option<&'a RawValue>, Option<Base64<'a>>) {
    let json = if content_type.is_json() { as_json(body) } else { None };
    (json, json.is_none().then_some(Base64(body)))
}

/// The bytes as JSON text, if they are, and nothing but it: without white space around.
fn verbatim(body: &[u8]) -> Option<&RawValue> {
    json::check(body).ok()?;
    let text: &RawValue = serde_json::from_slice(body).ok()?;
    (text.get().len() == body.len()).then_some(text)
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;
