//! Records: what a store holds for a key.
//!
//! A [`Header`] is everything but the bytes of the value. It names those bytes by length and hash,
//! so the record hash, the merge and the digest need the header alone. A [`Record`] is a header
//! with its bytes. Whether a record has expired depends on the instant that the caller passes. Must
//! not know the layout on disk.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{NodeId, Seen, Timestamp, Version};

/// The longest content type, in bytes.
pub const CONTENT_TYPE_BYTES_MAX: usize = 256;

/// The hash of a whole record: the last step of the order of versions, and the part of an element
/// of the digest that says which record a key has.
pub type RecordHash = [u8; 32];

/// A media type as the client sent it: 1 to 256 bytes of visible ASCII and inner spaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentType(Arc<str>);

/// A text that cannot be a content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a content type has 1 to {CONTENT_TYPE_BYTES_MAX} bytes of visible ASCII and spaces")]
pub struct ContentTypeError;

impl ContentType {
    /// The content type that `text` names. The text needs no structure beyond its characters.
    ///
    /// # Errors
    /// When it is empty, too long, starts or ends with a space, or holds a byte that is not visible
    /// ASCII.
    pub fn parse(text: &str) -> Result<Self, ContentTypeError> {
        let fits = (1..=CONTENT_TYPE_BYTES_MAX).contains(&text.len());
        let visible = text.bytes().all(|b| (b' '..=b'~').contains(&b));
        if fits && visible && text.trim() == text {
            Ok(Self(Arc::from(text)))
        } else {
            Err(ContentTypeError)
        }
    }

    /// `application/octet-stream`, the type of a value that a client sends without one.
    #[must_use]
    pub fn octet_stream() -> Self {
        Self(Arc::from("application/octet-stream"))
    }

    /// `application/json`.
    #[must_use]
    pub fn json() -> Self {
        Self(Arc::from("application/json"))
    }

    /// The type as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `application/json` or a `+json` type (RFC 6839), with any parameters.
    #[must_use]
    pub fn is_json(&self) -> bool {
        let essence = self.0.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        essence == "application/json" || essence.ends_with("+json")
    }
}

impl TryFrom<String> for ContentType {
    type Error = ContentTypeError;
    fn try_from(text: String) -> Result<Self, ContentTypeError> {
        Self::parse(&text)
    }
}

impl From<ContentType> for String {
    fn from(content_type: ContentType) -> Self {
        content_type.as_str().to_owned()
    }
}

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The result of a write: a value, or the absence of one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Content {
    /// The write deleted the key.
    Tombstone,
    /// The write gave the key a value.
    Value {
        /// The media type of the value.
        content_type: ContentType,
        /// The length of the value in bytes.
        size: u64,
        /// The BLAKE3 hash of the value.
        hash: [u8; 32],
    },
}

impl Content {
    /// The content that names the value `bytes`.
    #[must_use]
    pub fn value(content_type: ContentType, bytes: &[u8]) -> Self {
        Self::Value { content_type, size: bytes.len() as u64, hash: blake3::hash(bytes).into() }
    }

    /// The length of the value in bytes; zero for a tombstone.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Tombstone => 0,
            Self::Value { size, .. } => *size,
        }
    }
}

/// Everything about a record but the bytes of its value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Header {
    /// Names the write and orders it among the writes of its key.
    pub version: Version,
    /// The node that accepted the write from a client.
    pub origin: NodeId,
    /// The uuid of the write that this one replaced on its origin; `None` when there was none.
    #[serde(with = "optional_uuid")]
    pub parent: Option<Uuid>,
    /// The earlier writes that this one knew.
    pub seen: Seen,
    /// The instant from which the record is dead; `None` when it does not expire.
    pub expires_at: Option<Timestamp>,
    /// The value or the tombstone.
    pub content: Content,
}

/// Serializes an optional uuid as 16 bytes, without the length that serde would put before them.
mod optional_uuid {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use uuid::Uuid;

    #[expect(clippy::ref_option, reason = "the signature that serde's `with` demands")]
    pub fn serialize<S: Serializer>(uuid: &Option<Uuid>, to: S) -> Result<S::Ok, S::Error> {
        uuid.as_ref().map(Uuid::as_bytes).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Uuid>, D::Error> {
        Ok(Option::<[u8; 16]>::deserialize(from)?.map(Uuid::from_bytes))
    }
}

impl Header {
    /// Whether the record has a value to read at `now`: it is no tombstone and has not expired.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        matches!(self.content, Content::Value { .. }) && self.expires_at.is_none_or(|at| now < at)
    }

    /// The record hash: BLAKE3 over all fields, each of fixed width or behind its length, so that
    /// different headers never hash the same bytes.
    #[must_use]
    pub fn hash(&self) -> RecordHash {
        let mut hasher = blake3::Hasher::new_derive_key("kvs 2026-11 record hash v1");
        let number = |hasher: &mut blake3::Hasher, n: u64| {
            hasher.update(&n.to_le_bytes());
        };
        number(&mut hasher, self.version.timestamp.micros());
        number(&mut hasher, self.version.origin_joined_at.micros());
        hasher.update(self.version.uuid.as_bytes());
        hasher.update(self.origin.as_bytes());
        hasher.update(&[u8::from(self.parent.is_some())]);
        hasher.update(self.parent.unwrap_or_default().as_bytes());
        number(&mut hasher, self.seen.entries().len() as u64);
        for (origin, timestamp) in self.seen.entries() {
            hasher.update(origin.as_bytes());
            number(&mut hasher, timestamp.micros());
        }
        number(&mut hasher, self.seen.cut_through().micros());
        hasher.update(&[u8::from(self.expires_at.is_some())]);
        number(&mut hasher, self.expires_at.unwrap_or_default().micros());
        match &self.content {
            Content::Tombstone => {
                hasher.update(&[0]);
            }
            Content::Value { content_type, size, hash } => {
                hasher.update(&[1]);
                number(&mut hasher, content_type.as_str().len() as u64);
                hasher.update(content_type.as_str().as_bytes());
                number(&mut hasher, *size);
                hasher.update(hash);
            }
        }
        hasher.finalize().into()
    }
}

/// A header with the bytes of its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Everything but the bytes.
    pub header: Header,
    /// The bytes of the value; empty for a tombstone and after a sweep.
    pub body: Bytes,
}

impl Record {
    /// Whether the bytes of the value are gone although the header names some, as a node that
    /// sweeps expired records leaves them. Only a record that can expire counts.
    #[must_use]
    pub fn is_swept(&self) -> bool {
        let expires = self.header.expires_at.is_some();
        expires && self.body.is_empty() && self.header.content.size() > 0
    }

    /// Whether the body has the bytes that the header names. Check it before merging a record from
    /// a peer.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        match &self.header.content {
            Content::Tombstone => self.body.is_empty(),
            Content::Value { size, hash, .. } => {
                *size == self.body.len() as u64 && blake3::hash(&self.body) == *hash
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::version::tests::any_version;
    use proptest::prelude::*;

    pub(crate) fn any_header() -> impl Strategy<Value = Header> {
        let content = prop_oneof![
            Just(Content::Tombstone),
            (0..3_u8).prop_map(|b| Content::value(ContentType::octet_stream(), &[b])),
            Just(Content::value(ContentType::json(), b"1")),
        ];
        (any_version(), 0..3_u128, content, proptest::option::of(0..3_u64)).prop_map(
            |(version, origin, content, expires)| Header {
                version,
                origin: NodeId::from_u128(origin),
                parent: None,
                seen: Seen::after_write(None, NodeId::from_u128(origin), version.timestamp),
                expires_at: expires.map(Timestamp::saturating),
                content,
            },
        )
    }

    fn sample() -> Header {
        let origin = NodeId::from_u128(7);
        let timestamp = Timestamp::saturating(1_700_000_000_000_000);
        Header {
            version: Version {
                timestamp,
                origin_joined_at: Timestamp::saturating(1_600_000_000_000_000),
                uuid: Uuid::from_u128(0x0123_4567_89ab_cdef),
            },
            origin,
            parent: Some(Uuid::from_u128(1)),
            seen: Seen::after_write(None, origin, timestamp),
            expires_at: Some(Timestamp::saturating(5)),
            content: Content::value(ContentType::json(), b"{}"),
        }
    }

    #[test]
    fn every_field_moves_the_hash() {
        let base = sample();
        let mut others = vec![base.clone(); 13];
        others[0].version.timestamp = Timestamp::ZERO;
        others[1].version.origin_joined_at = Timestamp::ZERO;
        others[2].version.uuid = Uuid::nil();
        others[3].origin = NodeId::from_u128(8);
        others[4].parent = None;
        others[5].seen = Seen::default();
        others[6].expires_at = None;
        others[7].content = Content::Tombstone;
        others[8].content = Content::value(ContentType::octet_stream(), b"{}");
        others[9].content = Content::value(ContentType::json(), b"[]");
        others[10].parent = Some(Uuid::from_u128(2));
        others[11].expires_at = Some(Timestamp::saturating(6));
        let of_equal_length = ContentType::parse("application/jsox").unwrap();
        others[12].content = Content::value(of_equal_length, b"{}");
        others.push(base);
        let hashes: std::collections::BTreeSet<_> = others.iter().map(Header::hash).collect();
        assert_eq!(hashes.len(), others.len());
    }

    #[test]
    fn the_hash_is_pinned() {
        let hex = blake3::Hash::from(sample().hash()).to_hex();
        assert_eq!(hex.as_str(), GOLDEN, "a change of the hash splits every mixed cluster");
    }

    const GOLDEN: &str = "466e609f75a889e987f9306e8d3ad551ee1c5f1b094ddb5990afadfd662cc291";

    #[test]
    fn a_record_is_dead_from_the_instant_of_its_expiry() {
        let header = sample();
        assert!(header.is_live(Timestamp::saturating(4)));
        assert!(!header.is_live(Timestamp::saturating(5)));
        let tombstone = Header { content: Content::Tombstone, expires_at: None, ..header };
        assert!(!tombstone.is_live(Timestamp::ZERO));
    }

    #[test]
    fn a_record_with_other_bytes_is_not_whole() {
        let header = sample();
        let record =
            |body: &'static [u8]| Record { header: header.clone(), body: Bytes::from_static(body) };
        assert!(record(b"{}").is_whole());
        assert!(!record(b"[]").is_whole() && !record(b"{} ").is_whole());
    }

    #[test]
    fn content_types_are_checked() {
        assert!(ContentType::parse("text/plain; charset=utf-8").is_ok());
        for bad in ["", " text/plain", "a\nb", "ü", &"x".repeat(257)] {
            assert!(ContentType::parse(bad).is_err(), "{bad:?}");
        }
        assert!(ContentType::parse("application/problem+json;x=1").is_ok_and(|t| t.is_json()));
    }
}
