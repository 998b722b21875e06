//! Reads the lines of an export, for an import: one JSON object per line.
//!
//! Keeps `data` as its exact text instead of parsing and formatting it, so that an import stores
//! the bytes that were exported. Refuses a member that it does not know, because what the member
//! asks for would be left undone in silence. Bounds the length of a line.

use std::io::{self, BufRead, Read};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::ttl::Ttl;
use crate::model::{ContentType, Key, Timestamp};

/// The longest line: the largest value in base64, its key and its versions.
pub const LINE_BYTES_MAX: usize = 24 << 20;
/// The longest line that says where an export ends.
const END_BYTES_MAX: usize = 64;

/// A record to import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Key, before the import's `--prefix`.
    pub key: Key,
    /// Given, or else by the field that held the value: `data` is JSON, `data_base64` is bytes.
    pub content_type: ContentType,
    /// The exact bytes to store.
    pub value: Vec<u8>,
    /// When it ends.
    pub life: Lifetime,
}

/// When an imported record ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Never.
    Endless,
    /// At this instant, as an export says.
    Until(Timestamp),
    /// As the `ttl` of a write says: counted from the import.
    Ttl(Ttl),
}

/// A line of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A record to store.
    Record(Line),
    /// The end of an export, which tells how many records came before it.
    End(u64),
}

/// The members of an envelope, of which an import uses some, and `ttl`. Versions are left behind:
/// an import makes ordinary writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    key: Key,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
    content_type: Option<ContentType>,
    expires_at: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    ttl: Option<&'a RawValue>,
    omitted: Option<bool>,
    #[serde(rename = "uuid")]
    _uuid: Option<IgnoredAny>,
    #[serde(rename = "timestamp")]
    _timestamp: Option<IgnoredAny>,
    #[serde(rename = "origin")]
    _origin: Option<IgnoredAny>,
    #[serde(rename = "origin_joined_at")]
    _origin_joined_at: Option<IgnoredAny>,
    #[serde(rename = "parent")]
    _parent: Option<IgnoredAny>,
    #[serde(rename = "size")]
    _size: Option<IgnoredAny>,
}

/// The last line of an export.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    end: bool,
    items: u64,
}

/// The members that an import uses, and other words for them, for the error that names the one
/// which was meant.
const MEMBERS: [(&str, &[&str]); 6] = [
    ("key", &["name", "path", "id", "k"]),
    ("data", &["value", "val", "v", "json", "content", "body", "text"]),
    ("data_base64", &["base64", "value_base64", "bytes"]),
    ("content_type", &["type", "mime", "media_type", "flags"]),
    ("expires_at", &["expires", "expiry", "expiration", "until"]),
    ("ttl", &["lifetime", "lease", "max_age"]),
];

/// The number of records before the end of an export, if `line` says that it is the end.
pub(super) fn end_of_export(line: &[u8]) -> Option<u64> {
    // cheap, because it is asked of every line
    let may_be = line.trim_ascii_start().starts_with(b"{") && line.len() <= END_BYTES_MAX;
    let end: End = may_be.then(|| serde_json::from_slice(line).ok()).flatten()?;
    end.end.then_some(end.items)
}

/// Reads a field that is present, even `null`: JSON `null` is a value like any other.
pub(super) fn present<'de: 'a, 'a, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// Decodes base64 as the API writes it (RFC 4648 section 4, padded).
pub(super) fn decode(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    BASE64_STANDARD.decode(text)
}

impl Parsed {
    /// Parses one line, without its line end.
    ///
    /// # Errors
    /// What is wrong with the line, for the user.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        match end_of_export(line) {
            Some(items) => Ok(Self::End(items)),
            None => Line::parse(line).map(Self::Record),
        }
    }
}

impl Line {
    /// Parses the envelope of a record, without its line end.
    ///
    /// # Errors
    /// What is wrong with the line, for the user.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        if !line.trim_ascii_start().starts_with(b"{") {
            return Err("a line is one JSON object, such as {\"key\":\"a\",\"data\":1}".to_owned());
        }
        let envelope: Envelope<'_> = serde_json::from_slice(line).map_err(|e| explain(&e))?;
        let (value, default_type) = match (envelope.data, envelope.data_base64) {
            (Some(json), None) => (json.get().as_bytes().to_vec(), ContentType::json()),
            (None, Some(text)) => {
                let bytes = decode(&text).map_err(|e| format!("bad data_base64: {e}"))?;
                (bytes, ContentType::octet_stream())
            }
            (Some(_), Some(_)) => return Err("both data and data_base64; remove one".to_owned()),
            (None, None) if envelope.omitted == Some(true) => {
                return Err("its content was left out (\"omitted\"); export it whole".to_owned());
            }
            (None, None) => return Err("neither data nor data_base64; add one".to_owned()),
        };
        let content_type = envelope.content_type.unwrap_or(default_type);
        let lifetime = lifetime(envelope.expires_at.as_deref(), envelope.ttl)?;
        Ok(Self { key: envelope.key, content_type, value, life: lifetime })
    }
}

fn lifetime(expires_at: Option<&str>, ttl: Option<&RawValue>) -> Result<Lifetime, String> {
    let ttl = ttl.map(RawValue::get).filter(|text| *text != "null");
    match (expires_at, ttl) {
        (None, None) => Ok(Lifetime::Endless),
        (Some(_), Some(_)) => Err("both expires_at and ttl; remove one".to_owned()),
        (Some(text), None) => Timestamp::from_rfc3339(text)
            .map(Lifetime::Until)
            .ok_or("bad expires_at; write it like 2026-11-25T23:00:00.000000Z".to_owned()),
        (None, Some(json)) => {
            // a whole number of seconds, or text
            let text = serde_json::from_str::<String>(json);
            let ttl = Ttl::parse(text.as_deref().unwrap_or(json));
            ttl.map(Lifetime::Ttl).map_err(|e| format!("bad ttl: {e}"))
        }
    }
}

/// The parser's error, for the user.
fn explain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if let Some(rest) = text.strip_prefix("unknown field `")
        && let Some((name, _)) = rest.split_once('`')
    {
        let given = name.to_ascii_lowercase().replace('-', "_");
        let alike = |known: &str| strsim::jaro_winkler(known, &given);
        let meant = MEMBERS.iter().find(|(_, words)| words.contains(&given.as_str()));
        let near = MEMBERS.iter().max_by(|(a, _), (b, _)| alike(a).total_cmp(&alike(b)));
        let nearest = meant.or(near).map_or("key", |(member, _)| *member);
        return format!("unknown member `{name}`; did you mean `{nearest}`? Correct or remove it");
    }
    // drop the parser's line number: it counts from the start of this line
    let words = text.rsplit_once(" at line ").map_or(text.as_str(), |(words, _)| words);
    format!("{words} at column {}", error.column())
}

/// Reads a stream line by line.
pub struct Lines<R> {
    from: R,
    buffer: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// Reads lines from `from`.
    pub fn new(from: R) -> Self {
        Self { from, buffer: Vec::new(), number: 0 }
    }

    /// The number of the latest line, from 1, blank lines included.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Reads the next line that is not blank, trimmed; `None` at the end of the stream.
    ///
    /// # Errors
    /// Errors of the stream, and `InvalidData` for a line above [`LINE_BYTES_MAX`].
    pub fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            self.buffer.clear();
            self.number += 1;
            let mut bounded = (&mut self.from).take(LINE_BYTES_MAX as u64 + 1);
            if bounded.read_until(b'\n', &mut self.buffer)? == 0 {
                return Ok(None);
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                let text = format!("the line is longer than {} MiB", LINE_BYTES_MAX >> 20);
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            if !self.buffer.trim_ascii().is_empty() {
                return Ok(Some(self.buffer.trim_ascii()));
            }
        }
    }
}
