//! What a group has made durable, which memory then follows; or why it was not committed.

use super::reports::Reports;
use super::view::Leaf;
use crate::model::{Key, Timestamp};
use crate::proto::stability::Ledger;
use crate::store::expiry::DueChange;
use crate::store::feed::WindowChange;
use crate::store::{Causal, NodeMode, ReadError};

/// Why a group was not committed.
pub(super) enum CommitError {
    /// Nothing of it was written.
    Nothing(ReadError),
    /// Whether it was written is unknown until the store is opened again.
    Unknown(ReadError),
    /// Unknown, too, for want of a file descriptor, which opening the store again gives back: the
    /// group was written if the feed then holds the position `at`.
    NoDescriptor { error: ReadError, at: u64 },
}

/// The record of one key before and after a group.
pub(in crate::store) struct RecordDelta {
    pub key: Key,
    pub old: Option<Leaf>,
    pub new: Option<Leaf>,
}

/// What a group has made durable, and what memory must follow.
#[derive(Default)]
pub(in crate::store) struct Durable {
    pub deltas: Vec<RecordDelta>,
    pub feed: WindowChange,
    /// How many bytes the remembered requests take, where that changed.
    pub requests_bytes: Option<u64>,
    /// How many requests were forgotten before their window ended.
    pub forgotten: u64,
    /// Which reports of superseded writes there are, where that changed.
    pub reports: Option<Reports>,
    /// The new ones among them.
    pub superseded: Vec<Causal>,
    /// The ledger, where it changed.
    pub ledger: Option<Ledger>,
    /// The distance from steady to wall time, where it was written.
    pub distance: Option<i64>,
    /// The mode of the node, where it was written.
    pub mode: Option<NodeMode>,
    pub due_records: DueChange,
    pub due_requests: DueChange,
    /// The watermark, where it was advanced.
    pub watermark: Option<Timestamp>,
}

impl Durable {
    /// `count` requests are forgotten before their window ended; none is left from before `to`.
    pub fn forget_early(&mut self, count: u64, to: Timestamp) {
        self.forgotten += count;
        self.due_requests.sweep_to(to);
    }

    /// No record and no request before these instants is due any more.
    pub fn sweep_to(&mut self, records: Timestamp, requests: Timestamp) {
        self.due_records.sweep_to(records);
        self.due_requests.sweep_to(requests);
    }
}
