//! The bytes on the disk: the one file that knows them.
//!
//! Every entry begins with a format byte. Decoding is bounded and gives an error for any bytes;
//! golden bytes in the tests keep the format from changing by accident.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::ReadError;
use crate::model::record::RecordHash;
use crate::model::{Content, Header, Key};

/// The version of the disk format as a whole, kept under [`FORMAT`] in the meta family.
pub const FORMAT_VERSION: u32 = 1;
/// The meta entry that holds the format version, four bytes little endian.
pub const FORMAT: &str = "format";
/// The meta entry that holds the [`Identity`](super::identity::Identity).
pub const IDENTITY: &str = "identity";
/// The meta entry that says that this node had its first data; absent until then.
pub const BOOTSTRAPPED: &str = "bootstrapped";
/// The meta entry that holds the members that were ever met.
pub const MEMBERS: &str = "members";

/// The format byte of an entry of `records`.
const RECORD_V1: u8 = 1;
/// The format byte of identity and members.
const META_V1: u8 = 1;

/// More than any header or meta entry takes; bounds what decoding may allocate.
const DECODE_BYTES_MAX: usize = 1 << 20;

/// What an entry of `records` holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The header of the record.
    pub header: Header,
    /// Whether the record displaced one of equal timestamp on this node. Not part of the record: it
    /// is neither hashed nor replicated.
    pub displaced_twin: bool,
    /// The value where it is small, else `None`; empty for a tombstone.
    pub body: Option<Bytes>,
}

/// Everything of an entry of `records` that is not the value itself.
#[derive(Serialize, Deserialize)]
struct Front<'a> {
    hash: RecordHash,
    displaced_twin: bool,
    apart: bool,
    header: std::borrow::Cow<'a, Header>,
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<DECODE_BYTES_MAX>()
}

impl Stored {
    /// The entry's bytes: format, front, and the value where it is small.
    #[must_use]
    #[expect(clippy::expect_used, reason = "encoding plain data into memory cannot fail")]
    pub fn encode(&self, hash: &RecordHash) -> Vec<u8> {
        let front = Front {
            hash: *hash,
            displaced_twin: self.displaced_twin,
            apart: self.body.is_none(),
            header: std::borrow::Cow::Borrowed(&self.header),
        };
        let mut bytes = vec![RECORD_V1];
        let config = bincode::config::standard();
        bincode::serde::encode_into_std_write(&front, &mut bytes, config).expect("plain data");
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }

    /// Reads an entry; `key` is for the error alone.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] for bytes that are no entry.
    pub fn decode_for(key: &[u8], bytes: &Bytes) -> Result<Self, ReadError> {
        let (front, rest) = decode_front(key, bytes)?;
        let body = (!front.apart).then(|| bytes.slice(bytes.len() - rest..));
        Ok(Self { header: front.header.into_owned(), displaced_twin: front.displaced_twin, body })
    }
}

/// Where in `values` the value of `header` is: key, NUL (which no key holds), the value's hash.
#[must_use]
pub fn blob_key(key: &Key, header: &Header) -> Vec<u8> {
    let mut at = key.as_bytes().to_vec();
    at.push(0);
    if let Content::Value { hash, .. } = &header.content {
        at.extend_from_slice(hash);
    }
    at
}

fn decode_front<'a>(key: &[u8], bytes: &[u8]) -> Result<(Front<'a>, usize), ReadError> {
    let damaged = |problem: String| ReadError::Damaged {
        key: String::from_utf8_lossy(key).into_owned(),
        problem,
    };
    let Some((&RECORD_V1, rest)) = bytes.split_first() else {
        return Err(damaged(format!("unknown format {:?}", bytes.first())));
    };
    let (front, used): (Front<'_>, usize) =
        bincode::serde::decode_from_slice(rest, config()).map_err(|e| damaged(e.to_string()))?;
    Ok((front, rest.len() - used))
}

/// The header and the stored record hash of an entry, for digests and scans that need no value.
///
/// # Errors
/// [`ReadError::Damaged`] for bytes that are no entry.
pub fn decode_header(key: &[u8], bytes: &[u8]) -> Result<(Header, RecordHash), ReadError> {
    let (front, _) = decode_front(key, bytes)?;
    Ok((front.header.into_owned(), front.hash))
}

/// The bytes of a meta entry.
#[must_use]
#[expect(clippy::expect_used, reason = "encoding plain data into memory cannot fail")]
pub fn encode_meta<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = vec![META_V1];
    let config = bincode::config::standard();
    bincode::serde::encode_into_std_write(value, &mut bytes, config).expect("plain data");
    bytes
}

/// Reads a meta entry.
///
/// # Errors
/// [`ReadError::Damaged`] for bytes that are no such entry.
pub fn decode_meta<T: serde::de::DeserializeOwned>(
    name: &str,
    bytes: &[u8],
) -> Result<T, ReadError> {
    let damaged = |problem: String| ReadError::Damaged { key: format!("meta/{name}"), problem };
    let Some((&META_V1, rest)) = bytes.split_first() else {
        return Err(damaged(format!("unknown format {:?}", bytes.first())));
    };
    let (value, used) =
        bincode::serde::decode_from_slice(rest, config()).map_err(|e| damaged(e.to_string()))?;
    if used == rest.len() { Ok(value) } else { Err(damaged("trailing bytes".to_owned())) }
}
