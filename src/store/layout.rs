//! The bytes on the disk: the one file that knows them.
//!
//! Every entry begins with a format byte. Decoding is bounded and gives an error for any bytes;
//! golden bytes in the tests keep the format from changing by accident.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ReadError;
use crate::model::record::RecordHash;
use crate::model::{Content, Header, Key, Timestamp};

/// The version of the disk format as a whole, kept under [`FORMAT`] in the meta family.
pub const FORMAT_VERSION: u32 = 2;
/// The meta entry that holds the format version, four bytes little endian.
pub const FORMAT: &str = "format";
/// The meta entry that holds the [`Identity`](super::identity::Identity).
pub const IDENTITY: &str = "identity";
/// The meta entry that says that this node had its first data; absent until then.
pub const BOOTSTRAPPED: &str = "bootstrapped";
/// The meta entry that holds the members that were ever met.
pub const MEMBERS: &str = "members";
/// The meta entry that holds the greatest time by which a value was told to be over, or swept.
pub const JUDGED: &str = "judged";
/// The meta entry that holds how many bytes the remembered requests take.
pub const REQUESTS_BYTES: &str = "requests_bytes";

/// The format byte of an entry of `records` and `history`.
const RECORD_V2: u8 = 2;
/// The format byte of meta entries and remembered requests.
const META_V1: u8 = 1;

/// More than any header or meta entry takes; bounds what decoding may allocate.
const DECODE_BYTES_MAX: usize = 1 << 20;
/// More than any remembered request takes: the contents of an answer, and its headers.
const REQUEST_BYTES_MAX: usize = 256 << 20;

/// Where the value of a record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// With its header; empty for a tombstone.
    Inline(Bytes),
    /// In `values`.
    Apart,
    /// Nowhere: it was freed after it expired. Such a record is dead whatever the clock says.
    Swept,
}

/// What this node alone knows of a record: it is neither hashed nor replicated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Whether it displaced one of equal timestamp here.
    pub displaced_twin: bool,
    /// Whether a client may have given its uuid: it did so here, or the record came from a peer.
    pub named: bool,
}

impl Marks {
    fn bits(self) -> u8 {
        u8::from(self.displaced_twin) | u8::from(self.named) << 1
    }

    fn of_bits(bits: u8) -> Option<Self> {
        let known = bits < 4;
        known.then_some(Self { displaced_twin: bits & 1 != 0, named: bits & 2 != 0 })
    }
}

/// What an entry of `records` or `history` holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The header of the record.
    pub header: Header,
    /// Its hash.
    pub hash: RecordHash,
    /// What this node alone knows of the record.
    pub marks: Marks,
    /// The numbers of the key's earlier revisions, `[first, next)`. Counts in `records` alone.
    pub revisions: (u64, u64),
    /// The value.
    pub body: Body,
}

/// Where the value is, as it is written.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Place {
    Inline,
    Apart,
    Swept,
}

/// Everything of an entry of `records` that is not the value itself.
#[derive(Serialize, Deserialize)]
struct Front<'a> {
    hash: RecordHash,
    marks: u8,
    place: Place,
    revisions: (u64, u64),
    header: std::borrow::Cow<'a, Header>,
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<DECODE_BYTES_MAX>()
}

impl Stored {
    /// The entry's bytes: format, front, and the value where it is small.
    #[must_use]
    #[expect(clippy::expect_used, reason = "encoding plain data into memory cannot fail")]
    pub fn encode(&self) -> Bytes {
        let (place, inline): (_, &[u8]) = match &self.body {
            Body::Inline(bytes) => (Place::Inline, bytes),
            Body::Apart => (Place::Apart, &[]),
            Body::Swept => (Place::Swept, &[]),
        };
        let front = Front {
            hash: self.hash,
            marks: self.marks.bits(),
            place,
            revisions: self.revisions,
            header: std::borrow::Cow::Borrowed(&self.header),
        };
        let mut bytes = Vec::with_capacity(256 + inline.len());
        bytes.push(RECORD_V2);
        let config = bincode::config::standard();
        bincode::serde::encode_into_std_write(&front, &mut bytes, config).expect("plain data");
        bytes.extend_from_slice(inline);
        Bytes::from(bytes)
    }

    /// Reads an entry; `key` is for the error alone.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] for bytes that are no entry.
    pub fn decode_for(key: &[u8], bytes: &Bytes) -> Result<Self, ReadError> {
        let (front, rest) = decode_front(key, bytes)?;
        let body = match front.place {
            Place::Inline => Body::Inline(bytes.slice(bytes.len() - rest..)),
            Place::Apart => Body::Apart,
            Place::Swept => Body::Swept,
        };
        Ok(Self {
            header: front.header.into_owned(),
            hash: front.hash,
            marks: Marks::of_bits(front.marks).unwrap_or_default(),
            revisions: front.revisions,
            body,
        })
    }

    /// Whether there is a value to read at `now`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.body != Body::Swept && self.header.is_live(now)
    }

    /// Since when it is dead by its time alone, if it is.
    #[must_use]
    pub fn died(&self, now: Timestamp) -> Option<Timestamp> {
        self.header.expires_at.filter(|at| *at <= now && self.body != Body::Swept)
    }

    /// Whether it is counted as dead: whatever the time, it has no value any more.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.body == Body::Swept || self.header.content == Content::Tombstone
    }
}

/// Where in `values` the value of a record is: key, NUL (which no key holds), the record's hash. So
/// no two records share one.
#[must_use]
pub fn blob_key(key: &Key, hash: &RecordHash) -> Vec<u8> {
    [key.as_bytes(), &[0], hash].concat()
}

/// Where in `history` a revision is: key, NUL, its number. Numbers only grow, so nothing is ever
/// searched for among what was deleted.
#[must_use]
pub fn revision_key(key: &Key, number: u64) -> Vec<u8> {
    [key.as_bytes(), &[0], &number.to_be_bytes()].concat()
}

/// Where in `expiry` a record is noted: the instant, then its key.
#[must_use]
pub fn expiry_key(at: Timestamp, key: &Key) -> Vec<u8> {
    [&at.micros().to_be_bytes(), key.as_bytes()].concat()
}

/// The instant and the rest of an entry that begins with one.
#[must_use]
pub fn split_instant(entry: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (at, rest) = entry.split_first_chunk::<8>()?;
    Some((Timestamp::new(u64::from_be_bytes(*at)).ok()?, rest))
}

/// Where in `requests` the memory of a request is.
#[must_use]
pub fn request_key(uuid: Uuid, key: &[u8]) -> Vec<u8> {
    [&[REQUESTS], uuid.as_bytes().as_slice(), key].concat()
}

/// Where in `requests` it is noted when it was accepted, to be found in that order.
#[must_use]
pub fn request_time_key(at: Timestamp, uuid: Uuid, key: &[u8]) -> Vec<u8> {
    [&[REQUEST_TIMES], at.micros().to_be_bytes().as_slice(), uuid.as_bytes(), key].concat()
}

/// The first byte of the memory of requests.
const REQUESTS: u8 = 0;
/// The first byte of the times at which requests were accepted.
pub const REQUEST_TIMES: u8 = 1;

fn decode_front<'a>(key: &[u8], bytes: &[u8]) -> Result<(Front<'a>, usize), ReadError> {
    let damaged = |problem: String| ReadError::Damaged {
        key: String::from_utf8_lossy(key).into_owned(),
        problem,
    };
    let Some((&RECORD_V2, rest)) = bytes.split_first() else {
        return Err(damaged(format!("unknown format {:?}", bytes.first())));
    };
    let (front, used): (Front<'_>, usize) =
        bincode::serde::decode_from_slice(rest, config()).map_err(|e| damaged(e.to_string()))?;
    if Marks::of_bits(front.marks).is_none() {
        return Err(damaged(format!("unknown marks {}", front.marks)));
    }
    Ok((front, rest.len() - used))
}

/// What digests, counts and listings need of an entry: everything but the value.
pub struct Summary {
    /// The header of the record.
    pub header: Header,
    /// Its hash.
    pub hash: RecordHash,
    /// See [`Stored::is_dead`].
    pub is_dead: bool,
}

/// Reads an entry of `records` without its value.
///
/// # Errors
/// [`ReadError::Damaged`] for bytes that are no entry.
pub fn decode_summary(key: &[u8], bytes: &[u8]) -> Result<Summary, ReadError> {
    let (front, _) = decode_front(key, bytes)?;
    let header = front.header.into_owned();
    let is_dead = front.place == Place::Swept || header.content == Content::Tombstone;
    Ok(Summary { header, hash: front.hash, is_dead })
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
pub fn decode_meta<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, ReadError> {
    decode::<T, DECODE_BYTES_MAX>(&format!("meta/{name}"), bytes)
}

/// Reads what is remembered of a request, which may be large.
///
/// # Errors
/// [`ReadError::Damaged`] for bytes that are no such thing.
pub fn decode_request<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ReadError> {
    decode::<T, REQUEST_BYTES_MAX>("a remembered request", bytes)
}

fn decode<T: DeserializeOwned, const BYTES_MAX: usize>(
    name: &str,
    bytes: &[u8],
) -> Result<T, ReadError> {
    let damaged = |problem: String| ReadError::Damaged { key: name.to_owned(), problem };
    let Some((&META_V1, rest)) = bytes.split_first() else {
        return Err(damaged(format!("unknown format {:?}", bytes.first())));
    };
    let config = bincode::config::standard().with_limit::<BYTES_MAX>();
    let (value, used) =
        bincode::serde::decode_from_slice(rest, config).map_err(|e| damaged(e.to_string()))?;
    if used == rest.len() { Ok(value) } else { Err(damaged("trailing bytes".to_owned())) }
}
