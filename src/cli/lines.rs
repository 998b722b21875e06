//! Reads the lines of an export, for an import: one JSON object per line.
//!
//! Keeps `data` as its exact text instead of parsing and formatting it, so that an import stores
//! the bytes that were exported. Bounds the length of a line.

use std::io::{self, BufRead, Read};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::model::{ContentType, Key, Timestamp};

/// The longest line: the largest value in base64, its key and its versions.
pub const LINE_BYTES_MAX: usize = 24 << 20;

/// A record to import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Key, before the import's `--prefix`.
    pub key: Key,
    /// Given, or else by the field that held the value: `data` is JSON, `data_base64` is bytes.
    pub content_type: ContentType,
    /// The exact bytes to store.
    pub value: Vec<u8>,
    /// The instant from which on it is dead; `None`: never.
    pub expires_at: Option<Timestamp>,
}

/// The fields of an envelope that an import uses; it ignores the others.
#[derive(Deserialize)]
struct Envelope<'a> {
    key: Key,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
    content_type: Option<ContentType>,
    expires_at: Option<String>,
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

impl Line {
    /// Parses one line, without its line end.
    ///
    /// # Errors
    /// What is wrong with the line, for the user.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let envelope: Envelope<'_> = serde_json::from_slice(line).map_err(|e| {
            let text = e.to_string();
            // drop the parser's line number: it counts from the start of this line
            let words = text.rsplit_once(" at line ").map_or(text.as_str(), |(words, _)| words);
            format!("{words} at column {}", e.column())
        })?;
        let (value, default_type) = match (envelope.data, envelope.data_base64) {
            (Some(json), None) => (json.get().as_bytes().to_vec(), ContentType::json()),
            (None, Some(text)) => {
                let bytes = decode(&text).map_err(|e| format!("bad data_base64: {e}"))?;
                (bytes, ContentType::octet_stream())
            }
            (Some(_), Some(_)) => return Err("both data and data_base64; remove one".to_owned()),
            (None, None) => return Err("neither data nor data_base64; add one".to_owned()),
        };
        let content_type = envelope.content_type.unwrap_or(default_type);
        let expires_at = envelope.expires_at.map(|text| {
            let time = Timestamp::from_rfc3339(&text);
            time.ok_or("bad expires_at; write it like 2026-11-25T23:00:00.000000Z")
        });
        Ok(Self { key: envelope.key, content_type, value, expires_at: expires_at.transpose()? })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn value(line: &str) -> Result<(String, String), String> {
        let line = Line::parse(line.as_bytes())?;
        let text = String::from_utf8(line.value).map_err(|e| e.to_string())?;
        Ok((line.content_type.to_string(), text))
    }

    #[test]
    fn data_keeps_its_exact_text() {
        for data in
            ["1.0e0", "18446744073709551617", "{ \"b\":1, \"a\" : \"\\u00fc\" }", "null", "\"\""]
        {
            let parsed = value(&format!(r#"{{"key":"k","data":{data},"size":9}}"#));
            assert_eq!(parsed, Ok(("application/json".to_owned(), data.to_owned())));
        }
    }

    #[test]
    fn a_whole_envelope_is_read_and_its_type_kept() {
        let line = r#"{"key":"a/ü","uuid":"u","timestamp":1,"origin":"o","origin_joined_at":1,
            "parent":null,"expires_at":null,"content_type":"text/plain","size":2,
            "data_base64":"aGk="}"#;
        let line = Line::parse(line.as_bytes()).unwrap();
        assert_eq!((line.key.as_str(), line.content_type.as_str()), ("a/ü", "text/plain"));
        assert_eq!((line.value.as_slice(), line.expires_at), (b"hi".as_slice(), None));
        let expiring = br#"{"key":"k","data":1,"expires_at":"2023-11-14T22:13:20.000001Z"}"#;
        let micros = Line::parse(expiring).unwrap().expires_at.map(Timestamp::micros);
        assert_eq!(micros, Some(1_700_000_000_000_001));
    }

    #[test]
    fn errors_name_the_problem() {
        for (line, words) in [
            ("", "EOF"),
            ("[1]", "invalid"),
            (r#"{"data":1}"#, "missing field `key`"),
            (r#"{"key":"a//b","data":1}"#, "empty segment"),
            (r#"{"key":"k"}"#, "neither data nor data_base64"),
            (r#"{"key":"k","data":null,"data_base64":""}"#, "both data and data_base64"),
            (r#"{"key":"k","data_base64":"a"}"#, "bad data_base64"),
            (r#"{"key":"k","data":1,"content_type":""}"#, "content type"),
            (r#"{"key":"k","data":1,"expires_at":"tomorrow"}"#, "bad expires_at"),
            (r#"{"key":"k","data":1,"expires_at":1700000000000000}"#, "expected a string"),
            (r#"{"key":"k","data":1,"data":2}"#, "duplicate field `data`"),
            (r#"{"key":"k","data":1} x"#, "trailing characters"),
        ] {
            let error = Line::parse(line.as_bytes()).expect_err(line);
            assert!(error.contains(words) && !error.contains(" at line "), "{line}: {error}");
        }
    }

    #[test]
    fn lines_are_counted_and_blank_ones_skipped() {
        let mut lines = Lines::new(b"a\n\n \r\nb\r\nlast".as_slice());
        for expected in [(b"a".as_slice(), 1), (b"b", 4), (b"last", 5)] {
            let line = lines.next_line().unwrap().map(<[u8]>::to_vec);
            assert_eq!((line.as_deref(), lines.number()), (Some(expected.0), expected.1));
        }
        assert!(lines.next_line().unwrap().is_none());
    }

    #[test]
    fn a_line_without_end_does_not_fill_the_memory() {
        let mut lines = Lines::new(io::BufReader::new(io::repeat(b'x')));
        let error = lines.next_line().expect_err("too long");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
