//! The requests that the store takes, and its answers.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::engine::EngineError;
use super::feed::FeedPosition;
use crate::model::{Condition, Content, ContentType, Header, HeldBack, Key, NodeId, Timestamp};
use crate::proto::stability::Floor;

/// The lifetime of a new value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Lifetime {
    /// It lives until it is replaced.
    #[default]
    Unbounded,
    /// It expires when the live value that it replaces would have; without one, it lives until it
    /// is replaced.
    Keep,
    /// It expires this long after the write.
    For(Duration),
}

/// The change of one key that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Change {
    /// Puts a value, whether or not the key has one.
    Put {
        /// Type, size and hash of the value.
        content: Content,
        /// The value.
        #[serde(skip)]
        body: Bytes,
        /// When it expires.
        lifetime: Lifetime,
    },
    /// Replaces a live value by a tombstone.
    Delete,
}

impl Change {
    /// Puts `body`, and hashes it: about 1 ms for each MiB.
    #[must_use]
    pub fn put(content_type: ContentType, body: Bytes, lifetime: Lifetime) -> Self {
        Self::Put { content: Content::value(content_type, &body), body, lifetime }
    }
}

/// A client's write of one key.
#[derive(Clone, Debug)]
pub struct Write {
    /// The key to write.
    pub key: Key,
    /// The change to make.
    pub change: Change,
    /// All must hold, or the write is refused. Decided in one step with the write.
    pub conditions: Vec<Condition>,
    /// The uuid that the client gives the write; it becomes the version's. While it is remembered,
    /// the same write under the same uuid is made once and gets the same answer.
    pub uuid: Option<Uuid>,
}

/// A write that was accepted and is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The new record's header.
    pub header: Header,
    /// Uuid and timestamp of the live value that it replaced, if there was one.
    pub previous: Option<(Uuid, Timestamp)>,
}

/// Writes and reads that are decided in one step: all or nothing.
#[derive(Clone, Debug)]
pub struct Txn {
    /// The conditions, each on its key.
    pub compare: Vec<(Key, Condition)>,
    /// The operations when all conditions hold, in order. No key may be written twice.
    pub success: Vec<Operation>,
    /// The operations when one does not hold, in order. No key may be written twice.
    pub failure: Vec<Operation>,
    /// The uuid that the client gives it, as in [`Write::uuid`]. All its writes share it.
    pub uuid: Option<Uuid>,
    /// How many bytes of content its reads may give together; beyond, the transaction is refused. A
    /// retry is refused, too, where the first answer held more that this node still keeps.
    pub content_bytes_max: usize,
}

/// One operation of a transaction. It sees the effects of those before it.
#[derive(Clone, Debug, Serialize)]
pub enum Operation {
    /// Changes a key. Deleting one without a live value changes nothing and succeeds.
    Write(Key, Change),
    /// Reads the live value of a key.
    Get(Key),
}

impl Operation {
    /// The key that it changes or reads.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Write(key, _) | Self::Get(key) => key,
        }
    }
}

/// A transaction that was accepted and is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnDone {
    /// The indexes in [`Txn::compare`] of the conditions that did not hold, ascending. Where there
    /// are none, the operations of `success` were made, else those of `failure`.
    pub failed: Vec<u32>,
    /// The result of each operation, in order.
    pub results: Vec<OperationResult>,
}

impl TxnDone {
    /// How many bytes of content the results hold.
    #[must_use]
    pub fn content_bytes(&self) -> usize {
        self.results.iter().map(OperationResult::content_bytes).sum()
    }
}

/// The result of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationResult {
    /// A value was put; uuid and timestamp of its version.
    Put(Uuid, Timestamp),
    /// Whether there was a live value to delete.
    Deleted(bool),
    /// The live value, if there is one. Its bytes are missing in the answer to a retry where this
    /// node no longer keeps them.
    Got(Option<Box<Entry>>),
}

impl OperationResult {
    /// How many bytes of content it holds.
    #[must_use]
    pub fn content_bytes(&self) -> usize {
        match self {
            Self::Got(Some(entry)) => entry.content_bytes(),
            Self::Got(None) | Self::Put(..) | Self::Deleted(_) => 0,
        }
    }
}

/// A live value, with or without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The header of its record.
    pub header: Header,
    /// Its bytes, where they were asked for.
    pub body: Option<Bytes>,
}

impl Entry {
    /// How many bytes of content it holds.
    #[must_use]
    pub fn content_bytes(&self) -> usize {
        self.body.as_ref().map_or(0, Bytes::len)
    }
}

/// A record of a key as this node saw it, current or earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Its header. That of a tombstone says that the key was deleted.
    pub header: Header,
    /// Its bytes, empty for a tombstone. `None` where they are larger than asked for, or were freed
    /// after they expired.
    pub body: Option<Bytes>,
    /// What became of it.
    pub outcome: Outcome,
    /// The uuid of the write that replaced it.
    pub by: Option<Uuid>,
}

impl Revision {
    /// How many bytes of content it holds.
    #[must_use]
    pub fn content_bytes(&self) -> usize {
        self.body.as_ref().map_or(0, Bytes::len)
    }
}

/// What became of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is what the key has now; also said of a tombstone.
    Current,
    /// Another write replaced it.
    Replaced,
    /// It lost a merge against a write that did not know it, which this node has reported.
    Superseded,
    /// It expired, before any other write replaced it.
    Expired,
}

/// A report: a client's write on this node lost a merge against a write that did not know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superseded {
    /// The key of both.
    pub key: Key,
    /// When this node merged them, by its clock.
    pub at: Timestamp,
    /// Whether it is certain that the winner did not know the lost write.
    pub causal: Causal,
    /// The uuid of the transaction that the lost write was a part of, if it was.
    pub txn: Option<Uuid>,
    /// The lost write; its bytes are missing only where the disk had damaged them.
    pub lost: Entry,
    /// The write that took its place, if one did; its bytes are missing above
    /// [`CURRENT_BYTES_MAX`], and where this node no longer keeps that version.
    pub winner: Option<Entry>,
}

impl Superseded {
    /// How many bytes of content it holds.
    #[must_use]
    pub fn content_bytes(&self) -> usize {
        self.lost.content_bytes() + self.winner.as_ref().map_or(0, Entry::content_bytes)
    }
}

/// What a lost write and its winner have to do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Causal {
    /// Neither knew the other.
    Concurrent,
    /// The list of what the winner knew was cut: it may have known the lost write.
    Unknown,
}

impl Causal {
    /// Its name in answers and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Concurrent => "concurrent",
            Self::Unknown => "unknown",
        }
    }
}

/// A page of the reports of superseded writes.
#[derive(Clone, Debug)]
pub struct SupersededPage {
    /// In the order of the merges.
    pub items: Vec<Superseded>,
    /// Where the next page begins, also after the latest report.
    pub next: FeedPosition,
    /// Whether reports may be missing before or between these: older ones are dropped for room.
    pub truncated: bool,
}

/// Why a write was refused. Unless a variant says otherwise, nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A condition does not hold.
    #[error("the condition does not hold")]
    PreconditionFailed {
        /// The live value at the moment of the decision, with its bytes up to
        /// [`CURRENT_BYTES_MAX`].
        current: Option<Box<Entry>>,
    },
    /// There is no live value to delete.
    #[error("no live value")]
    NotFound,
    /// The client's uuid is taken: by another request that is still remembered, by a version of the
    /// key that this node gave it to, or by the version that the request expects.
    #[error("the uuid belongs to another request")]
    OtherRequest,
    /// The table of remembered requests is full of such as are too young to be forgotten.
    #[error("too many requests are remembered")]
    RequestsFull,
    /// The reads of a transaction give more than [`Txn::content_bytes_max`], or its conditions look
    /// into more than [`Settings::compared_bytes_max`](super::Settings::compared_bytes_max).
    #[error("the contents are too large together")]
    ContentTooLarge,
    /// The write's timestamp would lie too far ahead of this node's clock.
    #[error("the current record's timestamp lies too far ahead of this node's clock")]
    ClockSkewed {
        /// How far ahead, in milliseconds.
        ahead_ms: u64,
        /// The node that wrote the record in the way, if there is one.
        origin: Option<NodeId>,
    },
    /// The mode of this node is [`NodeMode::ReadOnly`](super::NodeMode::ReadOnly).
    #[error("the mode of this node is read_only")]
    ReadOnly,
    /// The disk is full. The node accepts writes again by itself once there is room.
    #[error("the disk is full, and nothing was written: {0}")]
    StorageFull(String),
    /// The node is stopping.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// Reading failed before the decision.
    #[error("storage failed, and nothing was written: {0}")]
    Failed(ReadError),
    /// Storage failed during the commit: the write may or may not have happened.
    #[error("storage failed, and whether the write took place is unknown: {0}")]
    OutcomeUnknown(String),
}

/// Why a read failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The engine failed.
    #[error("storage failed: {0}")]
    Engine(String),
    /// The process has no file descriptor left to open a file of the data.
    #[error("no file descriptor is left: {0}")]
    NoDescriptor(String),
    /// Storage failed earlier, and is being opened again.
    #[error("storage is being opened again")]
    Reopening,
    /// Storage cannot be opened until there is room on the disk.
    #[error("there is no room on the disk: {0}")]
    Full(String),
    /// The disk holds other bytes than were written.
    #[error("the record of key {key:?} is damaged: {problem}")]
    Damaged {
        /// The key of the record, as far as it is readable, or what else was read.
        key: String,
        /// What is wrong.
        problem: String,
    },
}

impl From<EngineError> for ReadError {
    fn from(e: EngineError) -> Self {
        match e {
            EngineError::Full(error) => Self::Full(error),
            EngineError::NoDescriptor(error) => Self::NoDescriptor(error),
            EngineError::Reopening => Self::Reopening,
            EngineError::Failed(error) => Self::Engine(error),
            EngineError::Locked { .. } => Self::Engine(e.to_string()),
        }
    }
}

/// What a step of collection did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collected {
    /// How many dead records left.
    pub records: u64,
    /// The floor after the step.
    pub floor: Floor,
    /// Whether the floor is to rise further.
    pub more: bool,
}

/// How a batch of records from a peer was merged: each is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Records that were new, or replaced an older one.
    pub replaced: u64,
    /// Records that this node held already, or that lost against a newer one.
    pub kept: u64,
    /// Nothing was merged: the session that brought the records has ended, or their bearer is no
    /// member any more.
    pub ended: bool,
    /// Records that would have been taken, but lie at or below the floor: all that counts there was
    /// here already.
    pub below_floor: u64,
    /// Records that lie too far ahead of this node's clock, or whose bytes were swept too early for
    /// it: neither merged nor stored before their time comes. They bar the claim of a session.
    pub held: HeldBack,
}

/// The largest value, in bytes, that comes with a refusal.
pub const CURRENT_BYTES_MAX: u64 = 64 << 10;

/// A page of a scan.
#[derive(Clone, Debug)]
pub struct Page {
    /// Live values in key order.
    pub items: Vec<(Key, Entry)>,
    /// The last key that was visited, when more may follow; `None` at the end. Values that expire
    /// while the page is read are visited and left out, so a page may be short, or empty, and not
    /// the last.
    pub next: Option<Key>,
}

/// How many records there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Live values.
    pub keys: u64,
    /// Dead records.
    pub tombstones: u64,
}
