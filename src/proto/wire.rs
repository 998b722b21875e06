//! The bytes of the frames between peers.
//!
//! A frame is a format byte, a compression byte and a message in bincode. Promises: decoding gives
//! a message or an error for any bytes, and its memory is bounded. Golden bytes in the tests keep
//! the format from changing by accident. Must not know streams, nor what the messages do.

use std::io::Read;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::digest::{ShortId, Sum};
use super::list::list;
use super::stability::{DurableSet, Introduction, LastWord, Offer, SessionBegin, StableTold};
use crate::model::member::Report;
use crate::model::{Header, HeldBack, Key, Record, Timestamp};

/// The most bytes of a frame before compression: a record with the largest value and its header.
pub const FRAME_BYTES_MAX: usize = 17 << 20;
/// The format of the frames of this version.
const FORMAT_V1: u8 = 1;
/// Frames shorter than this stay plain: compressing them saves too little.
const COMPRESS_BYTES_MIN: usize = 512;
/// The compression level of zstd: the fastest one that still shrinks text well.
const COMPRESS_LEVEL: i32 = 1;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// A record with its key, as frames carry it. Decoding does not compare the body with the header:
/// call [`WireRecord::checked`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireRecord {
    /// The key of the record.
    pub key: Key,
    /// Everything about the record but the bytes of its value.
    pub header: Header,
    /// The bytes of the value; empty when there is none, or when the record has expired.
    pub body: Bytes,
}

/// A range of keys, `[from, to)`; `to` = `None` means the end. Any bytes, also upside down: a range
/// comes from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first byte string inside.
    pub from: Bytes,
    /// The first byte string behind it.
    pub to: Option<Bytes>,
}

/// A block of the responder, or several neighbours joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// The short name of the key that starts it. Ignored in the first child of a range, which
    /// starts where the range does.
    pub short: u32,
    /// How many records it holds.
    pub count: u64,
    /// The low half of its sum, little-endian.
    pub low: [u8; 16],
}

/// A range as the responder cuts it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CutRange {
    /// Its blocks.
    Children {
        /// The level of the cut: at least the level asked for, if the responder's tree is that
        /// high.
        level: u8,
        /// The blocks, in key order.
        #[serde(deserialize_with = "list")]
        children: Vec<Child>,
    },
    /// The short ids of its records, in key order, when there are few.
    Ids(#[serde(deserialize_with = "list")] Vec<ShortId>),
}

/// A record that its holder leaves out of the session, because it lies beyond the horizon of the
/// other side, which would hold it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withheld {
    /// The key of the record.
    pub key: Key,
    /// The timestamp of its version.
    pub timestamp: Timestamp,
    /// The least horizon at which the other side merges it.
    pub due: Timestamp,
}

/// A range whose records the responder shall send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The range that holds the records.
    pub range: Range,
    /// The short ids that `mode` refers to.
    #[serde(deserialize_with = "list")]
    pub ids: Vec<ShortId>,
    /// Which records of the range to send.
    pub mode: Mode,
    /// Records of the range that the initiator leaves out: the responder's older ones of the same
    /// keys need not be sent, since they would lose.
    #[serde(deserialize_with = "list")]
    pub withheld: Vec<Withheld>,
}

/// Which records of a range to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Those with the listed ids. The responder also reports the ids that it lacks, because it has
    /// replaced their records since it listed them.
    Only,
    /// All except those with the listed ids. The responder also reports the ids that it lacks.
    AllBut,
    /// Like `AllBut`, for the rest of a range, without the report, which came with its first part.
    AllButAgain,
}

/// The records that the responder sends of a wanted range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// The records, in key order.
    #[serde(deserialize_with = "list")]
    pub records: Vec<WireRecord>,
    /// The ids that the responder lacks, as indexes into those of the request; with
    /// [`Mode::Only`] none before the range is at its end.
    #[serde(deserialize_with = "list")]
    pub unknown: Vec<u32>,
    /// Those of the wanted records that the responder leaves out.
    #[serde(deserialize_with = "list")]
    pub withheld: Vec<Withheld>,
    /// The key at which a full frame ended the response; ask again for the range from there.
    pub resume: Option<Bytes>,
}

/// A message of the initiator of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Begins the session.
    Begin {
        /// The initiator's report about its store.
        report: Report,
        /// The initiator's root.
        root: Sum,
    },
    /// Asks for the blocks of ranges, each cut at the level beside it.
    Cut(#[serde(deserialize_with = "list")] Vec<(Range, u8)>),
    /// Asks for records.
    Want(#[serde(deserialize_with = "list")] Vec<Wanted>),
    /// Sends records that the responder lacks.
    Give(#[serde(deserialize_with = "list")] Vec<WireRecord>),
    /// Ends the session.
    End {
        /// The initiator's report about its store.
        report: Report,
        /// The records that one of the sides holds back from the other's, as the session found.
        held: HeldBack,
    },
}

/// A message of the responder of a session: one to each request, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// To [`Request::Begin`].
    Begun {
        /// The responder's report about its store.
        report: Report,
        /// The responder's root.
        root: Sum,
    },
    /// To [`Request::Cut`], one for each range, in their order.
    Pieces(#[serde(deserialize_with = "list")] Vec<CutRange>),
    /// To [`Request::Want`], one for each range, in their order; fewer when the frame was full.
    Given(#[serde(deserialize_with = "list")] Vec<Given>),
    /// To [`Request::Give`]: all records are durable, but for those that the responder holds back.
    Taken(HeldBack),
    /// To [`Request::End`].
    Ended(Report),
    /// To any request: the responder cannot go on, and why, for people.
    Failed(String),
    /// To [`Request::Begin`] where the roots differ: the responder receives many records from
    /// another peer, and most of this session's would come twice.
    Busy,
    /// To [`Request::Give`]: the responder merges nothing for a while, and why, for people. It took
    /// none of the records.
    Paused(String),
}

/// What the initiator of a session sends, each answered with one [`SessionAnswer`], in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// A message of the comparison.
    Compare(Request),
    /// Who it is. The first message of each session.
    Open(Introduction),
    /// What it tells before the comparison, where both are counted.
    Tell(SessionBegin),
    /// Its last word: all that it gives was given.
    Close(LastWord),
    /// Asks for what a newcomer follows.
    Follow,
    /// Asks to be counted: the comparison that followed the last offer has ended.
    Count,
}

/// What the responder of a session answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionAnswer {
    /// To [`Ask::Compare`]; [`Response::Failed`] to any message.
    Compared(Response),
    /// To [`Ask::Open`].
    Opened(Introduction),
    /// To [`Ask::Tell`].
    Told(SessionBegin),
    /// To [`Ask::Close`].
    Closed(LastWord),
    /// To [`Ask::Follow`]; to [`Ask::Count`], when the responder told something new meanwhile: the
    /// newcomer goes over it once more.
    Offered(Offer),
    /// To [`Ask::Count`]: the durable set with the newcomer in it.
    Counted(DurableSet),
}

/// A message of a push stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Push {
    /// Fresh writes of the sender.
    Records(#[serde(deserialize_with = "list")] Vec<WireRecord>),
    /// The sender's report about its store.
    Report(Report),
    /// Who the sender is. The first message of each stream.
    Hello(Introduction),
    /// The sender's stable.
    Stable(StableTold),
}

/// A message of the receiver of a push stream: one to each [`Push::Records`], in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PushAnswer {
    /// Its records are durable.
    Durable,
    /// None of its records were taken, or some are held back; a session is to bring them.
    NotTaken,
}

/// The usual size of a record's header. One with 16 origins and a long content type takes up to
/// four times as much; a frame has room for that beyond the limit of its records.
const HEADER_BYTES: usize = 256;
/// The largest window that a compressed frame can demand, as a power of two: 16 MiB. Level 1 uses
/// less.
const WINDOW_LOG_MAX: u32 = 24;

/// About how many bytes a record takes in a frame.
#[must_use]
pub fn record_bytes(key_bytes: usize, value_bytes: u64) -> usize {
    let value_bytes = usize::try_from(value_bytes).unwrap_or(usize::MAX);
    value_bytes.saturating_add(key_bytes).saturating_add(HEADER_BYTES)
}

/// Bytes that are not a frame, or a record whose body is not the one that its header names. The
/// text says why. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a frame of this version: {0}")]
pub struct WireError(pub String);

/// Encodes a message, compressed when that saves at least an eighth.
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

/// Decodes a message from a frame of at most [`FRAME_BYTES_MAX`] bytes after decompression.
///
/// # Errors
/// For all bytes that [`encode`] does not make from a message of this type.
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
        return Err(std::io::Error::other("decompresses to more than a frame can hold"));
    }
    Ok(plain)
}

impl WireRecord {
    /// A record in the form of the wire.
    #[must_use]
    pub fn new(key: Key, record: Record) -> Self {
        Self { key, header: record.header, body: record.body }
    }

    /// The key and the record, if the body has the bytes that the header names, or none where the
    /// record can expire.
    ///
    /// # Errors
    /// When the body has other bytes: it was damaged or forged on the way.
    pub fn checked(self) -> Result<(Key, Record), WireError> {
        let record = Record { header: self.header, body: self.body };
        if record.is_whole() || record.is_swept() {
            Ok((self.key, record))
        } else {
            Err(WireError(format!(
                "the value of the record `{}` does not match its hash",
                self.key
            )))
        }
    }

    /// About how many bytes the record takes in a frame.
    #[must_use]
    pub fn size(&self) -> usize {
        record_bytes(self.key.as_bytes().len(), self.body.len() as u64)
    }
}

impl Withheld {
    /// The record of `key` in place of which this stands in a frame.
    #[must_use]
    pub fn new(key: Key, record: &Record) -> Self {
        let header = &record.header;
        Self { key, timestamp: header.version.timestamp, due: header.due(record.is_swept()) }
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
