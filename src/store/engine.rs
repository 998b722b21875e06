//! What the store needs of a storage engine, and nothing more.
//!
//! Two engines exist: RocksDB, and one in memory for the simulator and for tests of everything
//! above. All writes come from the one writer, one transaction at a time.

use std::ops::ControlFlow;

use bytes::Bytes;

/// A key space of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// key -> header, with the value where it is small.
    Records,
    /// key, NUL, record hash -> a large value.
    Values,
    /// key, NUL, number -> an earlier record of the key, as it stood in `records`.
    History,
    /// instant, key -> nothing: when the record of the key expires, unless it was swept.
    Expiry,
    /// The requests that are remembered, and when they were accepted.
    Requests,
    /// The node's identity, its members, the format.
    Meta,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Records, Self::Values, Self::History, Self::Expiry, Self::Requests, Self::Meta];

    /// Its name on disk.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::Values => "values",
            Self::History => "history",
            Self::Expiry => "expiry",
            Self::Requests => "requests",
            Self::Meta => "meta",
        }
    }
}

/// Why an engine could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The directory is in use by another process. Nothing was changed.
    #[error("{path} is in use by another process; stop it, or give another node.data_dir")]
    Locked {
        /// The directory.
        path: String,
    },
    /// There is no room on the disk. After a failed commit its outcome is unknown all the same.
    #[error("there is no room on the disk: {0}")]
    Full(String),
    /// It is being opened again. It was not even asked.
    #[error("storage is being opened again")]
    Reopening,
    /// Reading or writing failed. After a failed commit its outcome is unknown until the engine is
    /// opened again ([`Engine::reopen`]).
    #[error("storage failed: {0}")]
    Failed(String),
}

/// Visits one entry of a scan: key and value.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// A transactional, ordered key-value engine.
pub trait Engine: Send + Sync + 'static {
    /// Reads one entry.
    ///
    /// # Errors
    /// When the engine fails.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// Visits the entries of `[from, to)` in key order, as they stood when the scan began; `to` =
    /// `None` means the end.
    ///
    /// # Errors
    /// When the engine fails.
    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError>;

    /// Keeps the engine open, for a transaction: it is not opened again before this is dropped.
    ///
    /// # Errors
    /// When it is not open.
    fn opened(&self) -> Result<Box<dyn Opened + '_>, EngineError>;

    /// Closes what is open and opens it again, so that what is on the disk is found out and what
    /// failed before holds up nothing any more. Reads meanwhile fail at once, with
    /// [`EngineError::Reopening`] or, for want of room, [`EngineError::Full`]. When this fails,
    /// reads may go on to show what they did before; writes fail until it has succeeded.
    ///
    /// # Errors
    /// When there is no room, or the engine fails.
    fn reopen(&self) -> Result<(), EngineError>;
}

/// An engine that stays open.
pub trait Opened {
    /// Begins a transaction.
    fn begin(&self) -> Box<dyn Transaction + '_>;
}

/// Reads and writes that take effect together or not at all. Dropped without a commit, it changes
/// nothing.
pub trait Transaction {
    /// Reads one entry, with the transaction's own writes seen, and claims it: should anybody else
    /// change it before the commit, the commit fails.
    ///
    /// # Errors
    /// When the engine fails.
    fn get_for_update(&mut self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// Writes one entry.
    ///
    /// # Errors
    /// When the engine fails.
    fn put(&mut self, family: Family, key: &[u8], value: &[u8]) -> Result<(), EngineError>;

    /// Removes one entry.
    ///
    /// # Errors
    /// When the engine fails.
    fn delete(&mut self, family: Family, key: &[u8]) -> Result<(), EngineError>;

    /// Makes it all durable and visible.
    ///
    /// # Errors
    /// When the engine fails; whether anything was written is then unknown.
    fn commit(self: Box<Self>) -> Result<(), EngineError>;
}
