//! The bytes on the wire between peers: the one file that knows them.
//!
//! A frame is a format byte, a compression byte and a message in bincode. Decoding is bounded and
//! gives an error for any bytes; golden bytes in the tests keep the format from changing by
//! accident.

use std::io::Read;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::digest::{ShortId, Sum};
use super::list::list;
use crate::model::member::Report;
use crate::model::{Header, Key, Record};

/// The largest frame before compression: one record of the largest value, with room for its header.
pub const FRAME_BYTES_MAX: usize = 17 << 20;
/// The format of this version's frames.
const FORMAT_V1: u8 = 1;
/// Frames shorter than this are not worth compressing.
const COMPRESS_BYTES_MIN: usize = 512;
/// The level of zstd: the fastest that still pays on text.
const COMPRESS_LEVEL: i32 = 1;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// A record on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireRecord {
    /// Its key.
    pub key: Key,
    /// Its header.
    pub header: Header,
    /// Its bytes.
    pub body: Bytes,
}

/// A range of keys, `[from, to)`; `to` = `None` means the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first byte string inside.
    pub from: Bytes,
    /// The first byte string after it.
    pub to: Option<Bytes>,
}

/// One block of the answering side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// The short name of the key that starts it; of no meaning in the first child of a range, which
    /// starts where the range does.
    pub short: u32,
    /// How many records it holds.
    pub count: u64,
    /// The low half of its sum.
    pub low: [u8; 16],
}

/// What the answering side has in a range that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Piece {
    /// Its blocks of a level.
    Children {
        /// The level, at least that which was asked for.
        level: u8,
        /// The blocks, in key order.
        #[serde(deserialize_with = "list")]
        children: Vec<Child>,
    },
    /// The records themselves, where they are few.
    Ids(#[serde(deserialize_with = "list")] Vec<ShortId>),
}

/// A range whose records are to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The range.
    pub range: Range,
    /// Records by their short ids.
    #[serde(deserialize_with = "list")]
    pub ids: Vec<ShortId>,
    /// Which records are meant.
    pub mode: Mode,
}

/// Which records of a range are to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Just the listed ones.
    Only,
    /// All but the listed ones; and which of those the answering side has not is to be told.
    AllBut,
    /// The same, in the rest of a range of which it was told already.
    AllButAgain,
}

/// What the answering side gives of a wanted range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Records, in key order.
    #[serde(deserialize_with = "list")]
    pub records: Vec<WireRecord>,
    /// Indexes into the ids of the request: those that the answering side has not.
    #[serde(deserialize_with = "list")]
    pub unknown: Vec<u32>,
    /// Where the answer stopped because it was full; the rest is to be asked for again.
    pub resume: Option<Bytes>,
}

/// What the driving side of a session asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Opens the session.
    Begin {
        /// What the driving side has.
        report: Report,
        /// Its root.
        root: Sum,
    },
    /// Blocks of ranges, each with the level to cut it at.
    Cut(#[serde(deserialize_with = "list")] Vec<(Range, u8)>),
    /// Records of ranges.
    Want(#[serde(deserialize_with = "list")] Vec<Wanted>),
    /// Records that the answering side has not.
    Give(#[serde(deserialize_with = "list")] Vec<WireRecord>),
    /// Ends the session.
    End(Report),
}

/// What the answering side of a session answers, in the order of the requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// To [`Request::Begin`].
    Begun {
        /// What the answering side has.
        report: Report,
        /// Its root.
        root: Sum,
    },
    /// To [`Request::Cut`], a piece for each range asked for.
    Pieces(#[serde(deserialize_with = "list")] Vec<Piece>),
    /// To [`Request::Want`]; fewer ranges than asked for when the frame was full.
    Given(#[serde(deserialize_with = "list")] Vec<Given>),
    /// To [`Request::Give`]: all of them are durable.
    Taken,
    /// To [`Request::End`].
    Ended(Report),
    /// The answering side cannot go on; in plain words.
    Failed(String),
    /// To [`Request::Begin`] where the roots differ: the answering side is taking in much from
    /// another peer, and most of it would come twice.
    Busy,
}

/// What goes over a push stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Push {
    /// Fresh writes of the sending node.
    Records(#[serde(deserialize_with = "list")] Vec<WireRecord>),
    /// What the sending node has.
    Report(Report),
}

/// What a record's header usually takes. One with 16 origins and a long content type takes up to
/// four times as much, for which a frame has room enough beyond the records' own limit.
const HEADER_BYTES: usize = 256;
/// The largest window that a packed frame may ask for, as a power of two: 16 MiB. Level 1 uses
/// less.
const WINDOW_LOG_MAX: u32 = 24;

/// About how many bytes a record takes in a frame.
#[must_use]
pub fn record_bytes(key_bytes: usize, value_bytes: u64) -> usize {
    let value_bytes = usize::try_from(value_bytes).unwrap_or(usize::MAX);
    value_bytes.saturating_add(key_bytes).saturating_add(HEADER_BYTES)
}

/// Bytes that are no frame. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a frame of this version: {0}")]
pub struct WireError(pub String);

/// Encodes a message, compressed where that pays.
#[must_use]
#[expect(clippy::expect_used, reason = "encoding plain data into memory cannot fail")]
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let config = bincode::config::standard();
    let mut frame = vec![FORMAT_V1, PLAIN];
    bincode::serde::encode_into_std_write(message, &mut frame, config).expect("plain data");
    if frame.len() < COMPRESS_BYTES_MIN {
        return frame;
    }
    let plain = frame.get(2..).unwrap_or_default();
    match zstd::bulk::compress(plain, COMPRESS_LEVEL) {
        Ok(packed) if packed.len() < plain.len() - plain.len() / 8 => {
            let mut frame = vec![FORMAT_V1, ZSTD];
            frame.extend_from_slice(&packed);
            frame
        }
        _ => frame,
    }
}

/// Decodes a message; what it would unpack to is bounded by [`FRAME_BYTES_MAX`].
///
/// # Errors
/// For any bytes that [`encode`] does not make.
pub fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, WireError> {
    let error = |text: &dyn std::fmt::Display| WireError(text.to_string());
    let unpacked;
    let plain = match frame {
        [FORMAT_V1, PLAIN, plain @ ..] => plain,
        [FORMAT_V1, ZSTD, packed @ ..] => {
            unpacked = unpack(packed).map_err(|e| error(&e))?;
            &unpacked
        }
        [FORMAT_V1, other, ..] => return Err(error(&format_args!("compression {other}"))),
        [other, ..] => return Err(error(&format_args!("format {other}"))),
        [] => return Err(error(&"empty")),
    };
    let config = bincode::config::standard().with_limit::<{ FRAME_BYTES_MAX + (1 << 20) }>();
    let (message, used) =
        bincode::serde::decode_from_slice(plain, config).map_err(|e| error(&e))?;
    if used == plain.len() { Ok(message) } else { Err(error(&"trailing bytes")) }
}

fn unpack(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    let mut decoder = zstd::stream::read::Decoder::new(packed)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    decoder.take(FRAME_BYTES_MAX as u64 + 1).read_to_end(&mut plain)?;
    if plain.len() > FRAME_BYTES_MAX {
        return Err(std::io::Error::other("unpacks to more than a frame may hold"));
    }
    Ok(plain)
}

impl WireRecord {
    /// Makes one of a key and its record.
    #[must_use]
    pub fn new(key: Key, record: Record) -> Self {
        Self { key, header: record.header, body: record.body }
    }

    /// The key and its record, when the bytes are those that the header names, or are gone as those
    /// of an expired record may be.
    ///
    /// # Errors
    /// When they are not.
    pub fn checked(self) -> Result<(Key, Record), WireError> {
        let record = Record { header: self.header, body: self.body };
        if record.is_whole() || record.is_swept() {
            Ok((self.key, record))
        } else {
            Err(WireError(format!("the record of `{}` has other bytes than it names", self.key)))
        }
    }

    /// About how many bytes it takes in a frame.
    #[must_use]
    pub fn size(&self) -> usize {
        record_bytes(self.key.as_bytes().len(), self.body.len() as u64)
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
