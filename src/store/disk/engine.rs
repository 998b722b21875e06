//! The interface to a storage engine: all that the store needs of one.
//!
//! There are two: RocksDB, and one in memory for the simulator and for tests of everything above.
//! All writes come from the one writer, one transaction at a time.

use std::ops::ControlFlow;

use bytes::Bytes;

/// A key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// key -> header, with the value where it is small.
    Records,
    /// key, NUL, record hash -> a large value.
    Values,
    /// key, NUL, number -> an earlier record of the key, as it stood in `records`.
    History,
    /// instant, key -> nothing: the index of records that expire and were not swept.
    Expiry,
    /// instant, key -> nothing: the index of records that are dead or will be, by the least floor
    /// at which each goes.
    Dead,
    /// Remembered requests, and their index by time of acceptance.
    Requests,
    /// position -> changes of records: the window of the feed.
    Feed,
    /// Reports of superseded writes, and the values that these had.
    Superseded,
    /// The format, the node's identity, its members, and other single values.
    Meta,
}

impl Family {
    /// All families.
    pub const ALL: [Self; 9] = [
        Self::Records,
        Self::Values,
        Self::History,
        Self::Expiry,
        Self::Dead,
        Self::Requests,
        Self::Feed,
        Self::Superseded,
        Self::Meta,
    ];

    /// The name on the disk.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::Values => "values",
            Self::History => "history",
            Self::Expiry => "expiry",
            Self::Dead => "dead",
            Self::Requests => "requests",
            Self::Feed => "feed",
            Self::Superseded => "superseded",
            Self::Meta => "meta",
        }
    }
}

/// Why an engine failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Another process uses the directory. Nothing was changed.
    #[error("{path} is in use by another process; stop it, or give another node.data_dir")]
    Locked {
        /// The directory.
        path: String,
    },
    /// The disk is full. After a commit its outcome is unknown until the engine is opened again.
    #[error("there is no room on the disk: {0}")]
    Full(String),
    /// The process has no file descriptor left for a file of the data. Nothing was changed, unless
    /// a commit fails so.
    #[error("no file descriptor is left: {0}")]
    NoDescriptor(String),
    /// The engine is being opened again. Nothing was read or changed.
    #[error("storage is being opened again")]
    Reopening,
    /// Reading or writing failed. After a commit its outcome is unknown until the engine is opened
    /// again ([`Engine::reopen`]).
    #[error("storage failed: {0}")]
    Failed(String),
}

/// Visits the key and value of one entry of a scan.
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

    /// Keeps the engine open for a transaction: it is not reopened before this is dropped.
    ///
    /// # Errors
    /// When it is not open.
    fn opened(&self) -> Result<Box<dyn Opened + '_>, EngineError>;

    /// Closes the engine and opens it again, which settles what the disk holds after a failed
    /// commit. Reads meanwhile fail at once with [`EngineError::Reopening`], or with
    /// [`EngineError::Full`] when the disk is full. After an error reads may still work, and show
    /// the state from before; writes fail until this succeeds.
    ///
    /// # Errors
    /// When the disk is full or the engine fails.
    fn reopen(&self) -> Result<(), EngineError>;

    /// How many bytes are free on the disk; `None` where there is no disk, or it does not tell.
    ///
    /// # Errors
    /// When the directory of the data is gone, or another one is in its place.
    fn free_bytes(&self) -> Result<Option<u64>, EngineError> {
        Ok(None)
    }

    /// How many bytes the files of the data take; `None` where there are none.
    ///
    /// # Errors
    /// When the directory of the data cannot be read.
    fn used_bytes(&self) -> Result<Option<u64>, EngineError> {
        Ok(None)
    }
}

/// An engine that is kept open.
pub trait Opened {
    /// Begins a transaction.
    fn begin(&self) -> Box<dyn Transaction + '_>;
}

/// Reads and writes that take effect together or not at all. Dropped before its commit, it changes
/// nothing.
pub trait Transaction {
    /// Reads one entry, the transaction's own writes included, and claims it: the commit fails if
    /// another transaction changes it before.
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

    /// Makes all changes durable and visible.
    ///
    /// # Errors
    /// When the engine fails; whether the changes were made is then unknown.
    fn commit(self: Box<Self>) -> Result<(), EngineError>;
}
