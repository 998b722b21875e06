//! The envelope: a live value with its version, as JSON.
//!
//! Content is shown as JSON where its type says JSON and the API would accept the bytes as JSON,
//! otherwise in base64. As JSON it loses the white space around it, and in a line, where line
//! breaks between tokens become spaces, its layout; a reader that asks for exact content gets
//! base64 wherever that would be so. Nothing is parsed into a tree.

use std::borrow::Cow;
use std::io;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::schema::{AnySchema, Base64Schema, KeySchema, MicrosSchema, MomentSchema};
use crate::model::{Content, ContentType, Header, Key, Record, Timestamp, json};
use crate::store::{CURRENT_BYTES_MAX, Entry};

/// A live value as answers show it, its members in the order of the contract.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Envelope<'a> {
    #[schemars(with = "KeySchema")]
    key: &'a str,
    uuid: Uuid,
    #[schemars(with = "MicrosSchema")]
    timestamp: Timestamp,
    /// The node that accepted the write.
    origin: Uuid,
    #[schemars(with = "MomentSchema")]
    origin_joined_at: String,
    /// The version that the write replaced on its origin.
    parent: Option<Uuid>,
    #[schemars(with = "Option<MomentSchema>")]
    expires_at: Option<String>,
    content_type: &'a str,
    /// Of the value, in bytes.
    size: u64,
    /// The value, where it is JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AnySchema")]
    data: Option<Cow<'a, RawValue>>,
    /// The value, where it is not shown as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Base64Schema")]
    data_base64: Option<Base64<'a>>,
    /// `true` where the value is too large to be shown, or this node no longer keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    omitted: Option<bool>,
}

/// The record of a value or of a delete.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum AnyEnvelope<'a> {
    Value(Box<Envelope<'a>>),
    Deleted(DeletedEnvelope<'a>),
}

/// A delete as answers show it.
#[derive(Serialize, JsonSchema)]
pub(crate) struct DeletedEnvelope<'a> {
    #[schemars(with = "KeySchema")]
    key: &'a str,
    uuid: Uuid,
    #[schemars(with = "MicrosSchema")]
    timestamp: Timestamp,
    /// The node that accepted the delete.
    origin: Uuid,
    #[schemars(with = "MomentSchema")]
    origin_joined_at: String,
    /// The version that the delete replaced on its origin.
    parent: Option<Uuid>,
    /// `true`.
    deleted: bool,
}

impl<'a> AnyEnvelope<'a> {
    /// The envelope with content; a value without its bytes is shown as `omitted`.
    pub(crate) fn of(key: &'a Key, entry: &'a Entry, form: ContentForm) -> Self {
        let header = &entry.header;
        if matches!(header.content, Content::Value { .. }) {
            return Self::Value(Box::new(Envelope::of_read(key, entry, form)));
        }
        Self::Deleted(DeletedEnvelope {
            key: key.as_str(),
            uuid: header.version.uuid,
            timestamp: header.version.timestamp,
            origin: header.origin.uuid(),
            origin_joined_at: header.version.origin_joined_at.rfc3339(),
            parent: header.parent,
            deleted: true,
        })
    }
}

/// Appends a line with a record, as an export has it; tombstones are shown as deletes.
pub(crate) fn write_record_line(key: &Key, record: &Record, to: &mut Vec<u8>) -> io::Result<()> {
    let entry = Entry { header: record.header.clone(), body: Some(record.body.clone()) };
    let line = match &record.header.content {
        Content::Value { .. } => {
            AnyEnvelope::Value(Box::new(Envelope::of_line(key, &entry, ContentForm::Exact)))
        }
        Content::Tombstone => AnyEnvelope::of(key, &entry, ContentForm::Exact),
    };
    serde_json::to_writer(&mut *to, &line)?;
    to.push(b'\n');
    Ok(())
}

/// How content is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ContentForm {
    /// As JSON where it is JSON.
    #[default]
    Readable,
    /// As JSON only where its text gives the same bytes back.
    Exact,
}

/// Bytes that serialize as base64, straight into the text.
pub(crate) struct Base64<'a>(&'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&Base64Display::new(self.0, &STANDARD))
    }
}

impl<'a> Envelope<'a> {
    /// The envelope without content.
    pub(crate) fn bare(key: &'a Key, header: &'a Header) -> Self {
        let (content_type, size) = match &header.content {
            Content::Value { content_type, size, .. } => (content_type.as_str(), *size),
            // unreachable while the store gives live values only
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

    /// The envelope with content, if the entry carries its bytes.
    pub(crate) fn of(key: &'a Key, entry: &'a Entry, form: ContentForm) -> Self {
        Self::with_content(key, entry, |body| json_text(body, form).map(Cow::Borrowed))
    }

    /// The envelope with content on one line.
    pub(crate) fn of_line(key: &'a Key, entry: &'a Entry, form: ContentForm) -> Self {
        Self::with_content(key, entry, |body| one_line(json_text(body, form)?, form))
    }

    fn with_content(
        key: &'a Key,
        entry: &'a Entry,
        as_json: impl FnOnce(&'a [u8]) -> Option<Cow<'a, RawValue>>,
    ) -> Self {
        let mut envelope = Self::bare(key, &entry.header);
        if let (Content::Value { content_type, .. }, Some(body)) =
            (&entry.header.content, &entry.body)
        {
            (envelope.data, envelope.data_base64) = shown(content_type, body, as_json);
        }
        envelope
    }

    /// The envelope of a refusal: content up to [`CURRENT_BYTES_MAX`], else `omitted`.
    pub(crate) fn of_current(key: &'a Key, entry: &'a Entry, form: ContentForm) -> Self {
        if entry.body.is_some() && entry.header.content.size() <= CURRENT_BYTES_MAX {
            return Self::of(key, entry, form);
        }
        Self { omitted: Some(true), ..Self::bare(key, &entry.header) }
    }

    /// The envelope of what a transaction read: content, or `omitted` in the answer to a retry
    /// where this node no longer keeps it.
    pub(crate) fn of_read(key: &'a Key, entry: &'a Entry, form: ContentForm) -> Self {
        let omitted = entry.body.is_none().then_some(true);
        Self { omitted, ..Self::of(key, entry, form) }
    }

    /// Appends the envelope and a line break. An envelope of [`Self::of_line`] contains no other.
    pub(crate) fn write_line(&self, to: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        serde_json::to_writer(&mut *to, self)?;
        to.push(b'\n');
        Ok(())
    }
}

/// Content as `data` or as `data_base64`; exactly one is `Some`.
pub(crate) fn content<'a>(
    content_type: &ContentType,
    body: &'a [u8],
    form: ContentForm,
) -> (Option<Cow<'a, RawValue>>, Option<Base64<'a>>) {
    shown(content_type, body, |body| json_text(body, form).map(Cow::Borrowed))
}

fn shown<'a>(
    content_type: &ContentType,
    body: &'a [u8],
    as_json: impl FnOnce(&'a [u8]) -> Option<Cow<'a, RawValue>>,
) -> (Option<Cow<'a, RawValue>>, Option<Base64<'a>>) {
    let json = if content_type.is_json() { as_json(body) } else { None };
    let base64 = json.is_none().then_some(Base64(body));
    (json, base64)
}

/// The bytes as JSON text without the white space around it, if they are acceptable JSON. In the
/// exact form there must be none.
fn json_text(body: &[u8], form: ContentForm) -> Option<&RawValue> {
    json::check(body).ok()?;
    let text: &RawValue = serde_json::from_slice(body).ok()?;
    let is_all = text.get().len() == body.len();
    (is_all || form == ContentForm::Readable).then_some(text)
}

/// A JSON text on one line. Its strings hold no line breaks, so that all are between tokens. In the
/// exact form there must be none.
fn one_line(text: &RawValue, form: ContentForm) -> Option<Cow<'_, RawValue>> {
    const BREAKS: [char; 2] = ['\n', '\r'];
    if !text.get().contains(BREAKS) {
        return Some(Cow::Borrowed(text));
    }
    if form == ContentForm::Exact {
        return None;
    }
    RawValue::from_string(text.get().replace(BREAKS, " ")).ok().map(Cow::Owned)
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;
