//! The bytes on the disk. No other file knows them.
//!
//! Every entry begins with a format byte. Decoding is bounded and answers with an error for any
//! bytes; golden bytes in the tests keep the format from changing by accident. What lies in the
//! meta family, and under which names, is listed in `meta_entries`.

use std::borrow::Cow;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::record::RecordHash;
use crate::model::{Content, Header, Key, Timestamp};
use crate::store::ReadError;

pub use super::meta_entries::{
    BOOTSTRAPPED, FEED_EPOCH, FORMAT, FORMER_IDS, IDENTITY, MEMBERS, REPORTS, REQUESTS_BYTES,
    REQUESTS_DISTANCE, SET_ASIDE, STABILITY, WATERMARK,
};

/// The version of the disk format as a whole, stored under [`FORMAT`] in the meta family.
pub const FORMAT_VERSION: u32 = 3;

/// The format byte of an entry of `records` and `history`.
const RECORD_V2: u8 = 2;
/// The format byte of meta entries and remembered requests.
const META_V1: u8 = 1;
/// The format byte of an entry of `feed` in which no change is reported as superseded.
const FEED_V1: u8 = 1;
/// The format byte of an entry of `feed` that names the reports of its superseded writes.
const FEED_V2: u8 = 2;

/// Bounds what decoding a header, a meta entry or an entry of the feed may allocate. None is
/// larger.
const DECODE_BYTES_MAX: usize = 1 << 20;
/// Bounds what decoding a remembered request may allocate: the contents of an answer, and headers.
const REQUEST_BYTES_MAX: usize = 256 << 20;

/// Where the value of a record lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Behind its header; empty for a tombstone.
    Inline(Bytes),
    /// In the family `values`.
    Apart,
    /// Nowhere: a sweep freed it after it expired. The record is dead at any time.
    Swept,
}

/// Facts about a record that only this node knows: neither hashed nor replicated.
#[expect(clippy::struct_excessive_bools, reason = "they are independent, and a byte on the disk")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// It displaced a record of equal timestamp on this node.
    pub displaced_twin: bool,
    /// A client may have chosen its uuid: one did on this node, or the record came from a peer.
    pub named: bool,
    /// A transaction of this node wrote it.
    pub in_txn: bool,
    /// It lost a merge against a write that did not know it, which was reported. Said of revisions.
    pub superseded: bool,
}

impl Marks {
    fn bits(self) -> u8 {
        let all = [self.displaced_twin, self.named, self.in_txn, self.superseded];
        (0..).zip(all).map(|(place, mark)| u8::from(mark) << place).sum()
    }

    fn of_bits(bits: u8) -> Option<Self> {
        let mark = |place: u8| bits >> place & 1 != 0;
        let [displaced_twin, named, in_txn, superseded] = [0, 1, 2, 3].map(mark);
        (bits < 16).then_some(Self { displaced_twin, named, in_txn, superseded })
    }
}

/// An entry of `records` or `history`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The header of the record.
    pub header: Header,
    /// The hash of the header.
    pub hash: RecordHash,
    /// What only this node knows of the record.
    pub marks: Marks,
    /// The numbers of the key's earlier revisions, `[first, next)`. Meaningful in `records` alone.
    pub revisions: (u64, u64),
    /// The value.
    pub body: Body,
}

/// [`Body`] without the bytes, as it is encoded.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum BodyPlace {
    Inline,
    Apart,
    Swept,
}

/// The encoded part of [`Stored`] that precedes the value.
#[derive(Serialize, Deserialize)]
struct StoredFront<'a> {
    hash: RecordHash,
    marks: u8,
    place: BodyPlace,
    revisions: (u64, u64),
    header: Cow<'a, Header>,
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<DECODE_BYTES_MAX>()
}

impl Stored {
    /// Encodes the entry: format byte, front, and the value where it lies inline.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let (place, inline): (_, &[u8]) = match &self.body {
            Body::Inline(bytes) => (BodyPlace::Inline, bytes),
            Body::Apart => (BodyPlace::Apart, &[]),
            Body::Swept => (BodyPlace::Swept, &[]),
        };
        let front = StoredFront {
            hash: self.hash,
            marks: self.marks.bits(),
            place,
            revisions: self.revisions,
            header: Cow::Borrowed(&self.header),
        };
        let mut bytes = Vec::with_capacity(256 + inline.len());
        encode_into(&mut bytes, RECORD_V2, &front);
        bytes.extend_from_slice(inline);
        Bytes::from(bytes)
    }

    /// Decodes an entry. `key` goes into the error alone.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] for bytes that are no entry.
    pub fn decode_for(key: &[u8], bytes: &Bytes) -> Result<Self, ReadError> {
        let (front, rest) = decode_front(key, bytes)?;
        let body = match front.place {
            BodyPlace::Inline => Body::Inline(bytes.slice(bytes.len() - rest..)),
            BodyPlace::Apart => Body::Apart,
            BodyPlace::Swept => Body::Swept,
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

    /// When it expired, if it has by `now` and was not swept.
    #[must_use]
    pub fn expired_at(&self, now: Timestamp) -> Option<Timestamp> {
        self.header.expires_at.filter(|at| *at <= now && self.body != Body::Swept)
    }

    /// Whether it counts as dead at any time: a tombstone, or swept.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.body == Body::Swept || self.header.content == Content::Tombstone
    }
}

/// Key in `values`: the record's key, NUL (which no key holds), the record's hash. No two records
/// share an entry.
#[must_use]
pub fn blob_key(key: &Key, hash: &RecordHash) -> Vec<u8> {
    [key.as_bytes(), &[0], hash].concat()
}

/// Key in `history`: the record's key, NUL, the number of the revision. Numbers only grow, so a
/// read never has to search past deleted entries.
#[must_use]
pub fn revision_key(key: &Key, number: u64) -> Vec<u8> {
    [key.as_bytes(), &[0], &number.to_be_bytes()].concat()
}

/// Key in `expiry` and `dead`: the instant, then the record's key.
#[must_use]
pub fn expiry_key(at: Timestamp, key: &Key) -> Vec<u8> {
    [&at.micros().to_be_bytes(), key.as_bytes()].concat()
}

/// Splits an index key into the instant it begins with and the rest.
#[must_use]
pub fn split_instant(entry: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (at, rest) = entry.split_first_chunk::<8>()?;
    Some((Timestamp::new(u64::from_be_bytes(*at)).ok()?, rest))
}

/// Key in `requests` of a remembered request.
#[must_use]
pub fn request_key(uuid: Uuid, key: &[u8]) -> Vec<u8> {
    [&[REQUESTS], uuid.as_bytes().as_slice(), key].concat()
}

/// Key in `requests` of the index by time of acceptance.
#[must_use]
pub fn request_time_key(at: Timestamp, uuid: Uuid, key: &[u8]) -> Vec<u8> {
    [&[REQUEST_TIMES], at.micros().to_be_bytes().as_slice(), uuid.as_bytes(), key].concat()
}

/// Where the requests that were accepted at `at` or later begin in the index by time of acceptance.
#[must_use]
pub fn request_times_from(at: Timestamp) -> Vec<u8> {
    [[REQUEST_TIMES].as_slice(), &at.micros().to_be_bytes()].concat()
}

/// Key in `superseded` of the report with this number.
#[must_use]
pub fn report_key(number: u64) -> Vec<u8> {
    [[REPORT_HEADERS].as_slice(), &number.to_be_bytes()].concat()
}

/// Key in `superseded` of the value that the write of this report had.
#[must_use]
pub fn report_value_key(number: u64) -> Vec<u8> {
    [[REPORT_VALUES].as_slice(), &number.to_be_bytes()].concat()
}

/// The number in a [`report_key`]; `None` for the key of a value.
#[must_use]
pub fn report_number(key: &[u8]) -> Option<u64> {
    let number = key.strip_prefix(&[REPORT_HEADERS])?;
    number.try_into().ok().map(u64::from_be_bytes)
}

/// The first byte in `superseded` of reports, which are small.
const REPORT_HEADERS: u8 = 0;
/// The first byte in `superseded` of values. They lie apart, so that a list of reports reads only
/// those of its page.
const REPORT_VALUES: u8 = 1;

/// The first byte in `requests` of remembered requests.
pub const REQUESTS: u8 = 0;
/// The first byte in `requests` of the index by time of acceptance.
pub const REQUEST_TIMES: u8 = 1;

/// One change of a record in an entry of `feed`.
#[derive(Debug, Serialize, Deserialize)]
pub struct FeedItem<'a> {
    /// The number of its [`Cause`](crate::store::feed::Cause).
    pub cause: u8,
    /// The key of the record.
    pub key: Cow<'a, str>,
    /// The new header of the record.
    pub header: Cow<'a, Header>,
}

/// Key in `feed`: the position of the entry's first change.
#[must_use]
pub fn feed_key(position: u64) -> [u8; 8] {
    position.to_be_bytes()
}

/// The position in a key of `feed`.
///
/// # Errors
/// [`ReadError::Damaged`] for bytes that are no such key.
pub fn feed_position(key: &[u8]) -> Result<u64, ReadError> {
    <[u8; 8]>::try_from(key).map(u64::from_be_bytes).map_err(|_| ReadError::Damaged {
        key: "feed".to_owned(),
        problem: "a position is not eight bytes".to_owned(),
    })
}

/// Encodes an entry of `feed`: changes at consecutive positions, and the numbers of the reports
/// among them.
#[must_use]
pub fn encode_feed(items: &[FeedItem<'_>], reports: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256 * items.len());
    if reports.is_empty() {
        encode_into(&mut bytes, FEED_V1, items);
    } else {
        encode_into(&mut bytes, FEED_V2, &(items, reports));
    }
    bytes
}

/// Decodes an entry of `feed`.
///
/// # Errors
/// [`ReadError::Damaged`] for bytes that are no such entry.
pub fn decode_feed(bytes: &[u8]) -> Result<(Vec<FeedItem<'static>>, Vec<u64>), ReadError> {
    let name = "an entry of the feed";
    if bytes.first() == Some(&FEED_V2) {
        return decode::<_, DECODE_BYTES_MAX>(name, FEED_V2, bytes);
    }
    Ok((decode::<_, DECODE_BYTES_MAX>(name, FEED_V1, bytes)?, Vec::new()))
}

fn decode_front<'a>(key: &[u8], bytes: &[u8]) -> Result<(StoredFront<'a>, usize), ReadError> {
    let damaged = |problem: String| ReadError::Damaged {
        key: String::from_utf8_lossy(key).into_owned(),
        problem,
    };
    let Some((&RECORD_V2, rest)) = bytes.split_first() else {
        return Err(damaged(format!("unknown format {:?}", bytes.first())));
    };
    let (front, used): (StoredFront<'_>, usize) =
        bincode::serde::decode_from_slice(rest, config()).map_err(|e| damaged(e.to_string()))?;
    if Marks::of_bits(front.marks).is_none() {
        return Err(damaged(format!("unknown marks {}", front.marks)));
    }
    Ok((front, rest.len() - used))
}

/// The part of an entry of `records` that digests, counts and listings need: all but the value.
pub struct Summary {
    /// The header of the record.
    pub header: Header,
    /// The hash of the header.
    pub hash: RecordHash,
    /// See [`Stored::is_dead`].
    pub is_dead: bool,
}

/// Decodes an entry of `records` without its value.
///
/// # Errors
/// [`ReadError::Damaged`] for bytes that are no entry.
pub fn decode_summary(key: &[u8], bytes: &[u8]) -> Result<Summary, ReadError> {
    let (front, _) = decode_front(key, bytes)?;
    let header = front.header.into_owned();
    let is_dead = front.place == BodyPlace::Swept || header.content == Content::Tombstone;
    Ok(Summary { header, hash: front.hash, is_dead })
}

/// Encodes a meta entry.
#[must_use]
pub fn encode_meta<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_into(&mut bytes, META_V1, value);
    bytes
}

/// Decodes a meta entry.
///
/// # Errors
/// [`ReadError::Damaged`] for bytes that are no such entry.
pub fn decode_meta<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, ReadError> {
    decode::<T, DECODE_BYTES_MAX>(&format!("meta/{name}"), META_V1, bytes)
}

/// Decodes a remembered request, which may be large.
///
/// # Errors
/// [`ReadError::Damaged`] for bytes that are no such thing.
pub fn decode_request<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ReadError> {
    decode::<T, REQUEST_BYTES_MAX>("a remembered request", META_V1, bytes)
}

#[expect(clippy::expect_used, reason = "encoding plain data into memory cannot fail")]
fn encode_into<T: Serialize + ?Sized>(bytes: &mut Vec<u8>, format: u8, value: &T) {
    bytes.push(format);
    let config = bincode::config::standard();
    bincode::serde::encode_into_std_write(value, bytes, config).expect("plain data");
}

fn decode<T: DeserializeOwned, const BYTES_MAX: usize>(
    name: &str,
    format: u8,
    bytes: &[u8],
) -> Result<T, ReadError> {
    let damaged = |problem: String| ReadError::Damaged { key: name.to_owned(), problem };
    let rest = match bytes.split_first() {
        Some((first, rest)) if *first == format => rest,
        _ => return Err(damaged(format!("unknown format {:?}", bytes.first()))),
    };
    let config = bincode::config::standard().with_limit::<BYTES_MAX>();
    let (value, used) =
        bincode::serde::decode_from_slice(rest, config).map_err(|e| damaged(e.to_string()))?;
    if used == rest.len() { Ok(value) } else { Err(damaged("trailing bytes".to_owned())) }
}
