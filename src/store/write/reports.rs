//! The reports of superseded writes, as they are stored and counted.

use serde::{Deserialize, Serialize};

use crate::model::{Header, Key, Timestamp};
use crate::store::Causal;
use crate::store::disk::layout;

/// Which reports there are: the numbers `[first, next)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct Reports {
    pub first: u64,
    pub next: u64,
    /// What they take on the disk, keys and values, before compression.
    pub bytes: u64,
}

impl Default for Reports {
    fn default() -> Self {
        Self { first: 1, next: 1, bytes: 0 }
    }
}

/// A report on the disk. The value that the lost write had lies in an entry of its own.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::store) struct StoredReport {
    pub key: Key,
    /// When the merge took place, by the wall clock.
    pub at: Timestamp,
    pub causal: Causal,
    /// Whether the lost write was a part of a transaction, which has the same uuid.
    pub in_txn: bool,
    pub lost: Header,
    /// The record that took its place, if one did.
    pub winner: Option<Header>,
    /// Whether the value is kept. Not where it was damaged, or is empty.
    pub has_value: bool,
}

impl StoredReport {
    /// What a report takes on the disk: its entry, `report_bytes` long, and its value.
    pub fn cost(&self, number: u64, report_bytes: usize) -> u64 {
        let entry = (layout::report_key(number).len() + report_bytes) as u64;
        let value = layout::report_value_key(number).len() as u64 + self.lost.content.size();
        entry + if self.has_value { value } else { 0 }
    }
}
