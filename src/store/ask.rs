//! What the store is asked, and what it answers.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::engine::EngineError;
use crate::model::{Condition, Content, ContentType, Header, Key, Timestamp};

/// How long a value is to live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Lifetime {
    /// Until it is replaced.
    #[default]
    Unbounded,
    /// As long as the live value that it replaces would have; without one, until it is replaced.
    Keep,
    /// So long from the moment of the write.
    For(Duration),
}

/// What a client asks to be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Change {
    /// A value in the place of whatever is there.
    Put {
        /// What describes the value.
        content: Content,
        /// The value.
        #[serde(skip)]
        body: Bytes,
        /// How long it is to live.
        lifetime: Lifetime,
    },
    /// A tombstone in the place of a live value.
    Delete,
}

impl Change {
    /// Puts `body`. Hashes it, which takes its time where it is large.
    #[must_use]
    pub fn put(content_type: ContentType, body: Bytes, lifetime: Lifetime) -> Self {
        Self::Put { content: Content::value(content_type, &body), body, lifetime }
    }
}

/// One conditional or plain write of a client.
#[derive(Clone, Debug)]
pub struct Write {
    /// The key.
    pub key: Key,
    /// What to do with it.
    pub change: Change,
    /// All of them must hold, decided in one step with the write.
    pub conditions: Vec<Condition>,
    /// The client's name for this write, which becomes its version's uuid: the same write under the
    /// same name is done once, and answered alike as long as the name is remembered.
    pub uuid: Option<Uuid>,
}

/// A write that was accepted and is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The new record's header.
    pub header: Header,
    /// uuid and timestamp of the live value that it replaced, if there was one.
    pub previous: Option<(Uuid, Timestamp)>,
}

/// Several writes and reads that are decided in one step: all or nothing.
#[derive(Clone, Debug)]
pub struct Txn {
    /// What is compared, each on its own.
    pub compare: Vec<(Key, Condition)>,
    /// What is done in order when all hold. No key may be written twice.
    pub success: Vec<Operation>,
    /// What is done in order when one does not. No key may be written twice.
    pub failure: Vec<Operation>,
    /// The client's name for it, as in [`Write::uuid`]. All its writes have one uuid.
    pub uuid: Option<Uuid>,
    /// How many bytes of content its reads may give together; beyond, nothing is done. A retry may
    /// be refused for it, too, and be sent again with more.
    pub content_bytes_max: usize,
}

/// One operation of a transaction. It sees those before it.
#[derive(Clone, Debug, Serialize)]
pub enum Operation {
    /// Writes; deleting a key without a live value changes nothing and is no failure.
    Write(Key, Change),
    /// Reads.
    Get(Key),
}

impl Operation {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Write(key, _) | Self::Get(key) => key,
        }
    }
}

/// A transaction that took place and is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnDone {
    /// Places in [`Txn::compare`] of what did not hold, ascending. When it is empty, the operations
    /// of `success` were done, else those of `failure`.
    pub failed: Vec<u32>,
    /// What each operation gave, in their order.
    pub results: Vec<OperationResult>,
}

impl TxnDone {
    /// How many bytes of content its reads gave.
    #[must_use]
    pub fn content_bytes(&self) -> usize {
        self.results.iter().map(OperationResult::content_bytes).sum()
    }
}

/// What an operation gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationResult {
    /// A value was put; the new version's uuid and timestamp.
    Put(Uuid, Timestamp),
    /// Whether there was a live value to delete.
    Deleted(bool),
    /// The live value with its bytes, if there is one.
    Got(Option<Box<Entry>>),
}

impl OperationResult {
    /// How many bytes of content it gave.
    #[must_use]
    pub fn content_bytes(&self) -> usize {
        match self {
            Self::Got(Some(entry)) => entry.content_bytes(),
            Self::Got(None) | Self::Put(..) | Self::Deleted(_) => 0,
        }
    }
}

/// A live value, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its header.
    pub header: Header,
    /// Its bytes, where they were asked for.
    pub body: Option<Bytes>,
}

impl Entry {
    /// How many bytes of content came along.
    #[must_use]
    pub fn content_bytes(&self) -> usize {
        self.body.as_ref().map_or(0, Bytes::len)
    }
}

/// A record of a key as this node saw it, current or earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Its header; a tombstone's content says that the key was deleted.
    pub header: Header,
    /// Its bytes: those of a tombstone are empty, `None` where they are larger than was asked for
    /// or were freed when they expired.
    pub body: Option<Bytes>,
    /// How it ended.
    pub outcome: Outcome,
    /// The uuid of the write that took its place.
    pub by: Option<Uuid>,
}

impl Revision {
    /// How many bytes of content came along.
    #[must_use]
    pub fn content_bytes(&self) -> usize {
        self.body.as_ref().map_or(0, Bytes::len)
    }
}

/// How a revision ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has not: it is what the key has now, a tombstone included.
    Current,
    /// Another write took its place.
    Replaced,
    /// It expired, before another write took its place if one did.
    Expired,
}

/// A write that was not accepted. Unless said otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A condition does not hold; here is the live current value, its bytes up to
    /// [`CURRENT_BYTES_MAX`].
    #[error("the condition does not hold")]
    PreconditionFailed {
        /// The live current value at the moment of the decision.
        current: Option<Box<Entry>>,
    },
    /// There is no live value to delete.
    #[error("no live value")]
    NotFound,
    /// The uuid is that of another request that was accepted not long ago, of a version of the key
    /// that this node has, or the one that the request expects.
    #[error("the uuid belongs to another request")]
    OtherRequest,
    /// No further request can be remembered for its retries until older ones are forgotten.
    #[error("too many requests are remembered")]
    RequestsFull,
    /// The reads of a transaction give more than [`Txn::content_bytes_max`], or its compares look
    /// into more than [`Settings::compared_bytes_max`](super::Settings::compared_bytes_max).
    #[error("the contents are too large together")]
    ContentTooLarge,
    /// The write's timestamp would lie too far ahead of this node's clock.
    #[error("the current record's timestamp lies too far ahead of this node's clock")]
    ClockSkewed {
        /// How far ahead, in milliseconds.
        ahead_ms: u64,
    },
    /// There is no room on the disk. The node takes writes again by itself when there is.
    #[error("the disk is full, and nothing was written: {0}")]
    StorageFull(String),
    /// The node is stopping.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// Reading what the decision rests on failed.
    #[error("storage failed, and nothing was written: {0}")]
    Failed(ReadError),
    /// Storage failed; whether the write took place is unknown.
    #[error("storage failed, and whether the write took place is unknown: {0}")]
    OutcomeUnknown(String),
}

/// Reading failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The engine could not read.
    #[error("storage failed: {0}")]
    Engine(String),
    /// Storage failed, and is being opened again.
    #[error("storage is being opened again")]
    Reopening,
    /// Nothing can be read until there is room on the disk.
    #[error("there is no room on the disk: {0}")]
    Full(String),
    /// What is on the disk is not what was written there.
    #[error("the record of key {key:?} is damaged: {problem}")]
    Damaged {
        /// Its key, as far as it can be shown.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl From<EngineError> for ReadError {
    fn from(e: EngineError) -> Self {
        match e {
            EngineError::Full(error) => Self::Full(error),
            EngineError::Reopening => Self::Reopening,
            EngineError::Failed(error) => Self::Engine(error),
            EngineError::Locked { .. } => Self::Engine(e.to_string()),
        }
    }
}

/// What became of a batch of records from a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Records that took the place of an older one or of none.
    pub replaced: u64,
    /// Records that were already here, or lost against a newer one.
    pub kept: u64,
}

/// Up to this size the current value is given with a refusal.
pub const CURRENT_BYTES_MAX: u64 = 64 << 10;

/// A page of a scan.
#[derive(Clone, Debug)]
pub struct Page {
    /// Live values in key order.
    pub items: Vec<(Key, Entry)>,
    /// The last key that was visited when there may be more after it; `None` at the end. A value
    /// that died while the page was read is visited and is no item, so a page may be short, or
    /// empty, and not be the last.
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
