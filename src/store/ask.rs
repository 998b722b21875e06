//! What the store is asked, and what it answers.

use bytes::Bytes;
use uuid::Uuid;

use super::engine::EngineError;
use crate::model::{Condition, ContentType, Header, Key, Timestamp};

/// What a client asks to be written.
#[derive(Clone, Debug)]
pub enum Change {
    /// A value in the place of whatever is there.
    Put {
        /// The media type of the value.
        content_type: ContentType,
        /// The value.
        body: Bytes,
    },
    /// A tombstone in the place of a live value.
    Delete,
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
}

/// A write that was accepted and is durable.
#[derive(Clone, Debug)]
pub struct Written {
    /// The new record's header.
    pub header: Header,
    /// uuid and timestamp of the live value that it replaced, if there was one.
    pub previous: Option<(Uuid, Timestamp)>,
}

/// A live value, or a part of it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its header.
    pub header: Header,
    /// Its bytes, where they were asked for.
    pub body: Option<Bytes>,
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
    /// The write's timestamp would lie too far ahead of this node's clock.
    #[error("the current record's timestamp lies too far ahead of this node's clock")]
    ClockSkewed {
        /// How far ahead, in milliseconds.
        ahead_ms: u64,
    },
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
        Self::Engine(e.to_string())
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
