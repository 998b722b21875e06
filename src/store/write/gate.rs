//! What the store takes now: nothing of clients in the mode `read_only`, and below the reserve of
//! the disk only what frees room.
//!
//! Asked by each decision, after a remembered request has got its answer: a retry changes nothing,
//! so no state of the node may refuse it.

use super::job::Job;
use super::view::View;
use crate::store::{Change, NodeMode, Operation, Shared, Store, Txn, Write, WriteError};

impl Store {
    /// Changes the mode. When this returns `Ok`, it is durable, and no later write is decided by
    /// the former one.
    ///
    /// # Errors
    /// When the node is stopping or storage failed.
    pub async fn set_mode(&self, mode: NodeMode) -> Result<(), WriteError> {
        self.submit(|reply| Job::SetMode { mode, reply }).await
    }
}

impl View<'_> {
    /// Refuses a client's write that the store does not take now.
    pub(super) fn admit_write(&self, write: &Write) -> Result<(), WriteError> {
        self.admit(std::iter::once(&write.change))
    }

    /// Refuses a client's transaction that may write what the store does not take now. One that
    /// only reads is taken at any time.
    pub(super) fn admit_txn(&self, txn: &Txn) -> Result<(), WriteError> {
        let changes = txn.success.iter().chain(&txn.failure).filter_map(|op| match op {
            Operation::Write(_, change) => Some(change),
            Operation::Get(_) => None,
        });
        self.admit(changes)
    }

    fn admit<'a>(&self, changes: impl Iterator<Item = &'a Change>) -> Result<(), WriteError> {
        if self.begins_anew {
            // it would be of an origin that counts no more
            return Err(WriteError::ShuttingDown);
        }
        let mut changes = changes.peekable();
        if self.shared.mode.is_leaving() && changes.peek().is_some() {
            return Err(WriteError::ShuttingDown);
        }
        if self.shared.mode.get() == NodeMode::ReadOnly && changes.peek().is_some() {
            return Err(WriteError::ReadOnly);
        }
        match self.shared.disk.low() {
            Some(low) if changes.any(|change| !matches!(change, Change::Delete)) => {
                Err(WriteError::StorageFull(low.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Refuses records of an export where a client's put would be refused.
    pub(super) fn admit_import(&self) -> Result<(), WriteError> {
        self.admit(std::iter::empty())?;
        match self.shared.mode.get() {
            NodeMode::ReadOnly => Err(WriteError::ReadOnly),
            NodeMode::Normal => self.shared.admit_merge(),
        }
    }
}

impl Shared {
    /// Refuses records from peers while merges are paused.
    pub(super) fn admit_merge(&self) -> Result<(), WriteError> {
        self.disk.low().map_or(Ok(()), |low| Err(WriteError::StorageFull(low.to_string())))
    }
}
