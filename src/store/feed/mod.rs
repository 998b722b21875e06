//! The feed: every change of a record on this node, in the order in which it became durable.
//!
//! Each change has a position: positions of one epoch are consecutive, also across a restart. The
//! changes are written in the transaction that makes them, and stay on the disk within a bounded
//! window, so that a reader can go on after a restart of itself or of the node. Recent changes also
//! go through a bounded ring in memory; a [`FeedReader`] that falls behind it reads the window, or
//! learns that the window has passed it. A slow reader never holds up the writer.

mod reader;
mod window;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::broadcast;

use crate::model::{Header, Key};
pub use reader::{FeedReader, Missed};
pub(super) use window::{Window, WindowChange, block_entries};

/// Why a record changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A client of this node wrote it.
    Client,
    /// It came from a peer, and won the merge.
    Peer,
    /// Its time ended. The header is the one that the record had before.
    Expiry,
    /// It was a client's write of this node, and the change that follows took its place without
    /// knowing it. The header is that of the lost write.
    Superseded {
        /// The number of the report.
        report: u64,
    },
}

impl Cause {
    /// Its number on the disk, and that of its report.
    fn numbers(self) -> (u8, Option<u64>) {
        match self {
            Self::Client => (0, None),
            Self::Peer => (1, None),
            Self::Expiry => (2, None),
            Self::Superseded { report } => (3, Some(report)),
        }
    }

    /// The cause of this number; one with a report takes that from `reports`.
    fn of_number(number: u8, reports: &mut impl Iterator<Item = u64>) -> Option<Self> {
        match number {
            0 => Some(Self::Client),
            1 => Some(Self::Peer),
            2 => Some(Self::Expiry),
            3 => reports.next().map(|report| Self::Superseded { report }),
            _ => None,
        }
    }
}

/// A change that has no position yet.
#[derive(Clone, Debug)]
pub(super) struct Announcement {
    pub key: Key,
    pub header: Header,
    pub cause: Cause,
    pub body: Option<Bytes>,
}

/// One durable change of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedEntry {
    /// Where it stands in the feed.
    pub position: u64,
    /// The key of the record.
    pub key: Key,
    /// The header of the record after the change.
    pub header: Header,
    /// Why the record changed.
    pub cause: Cause,
    /// The value of a client's write, where it is small and the entry comes through the ring. Read
    /// others from the store.
    pub body: Option<Bytes>,
}

/// How far a reader has read: all changes up to and including `position`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedPosition {
    /// Positions of different epochs cannot be compared. An epoch ends when changes may have been
    /// lost that a reader has seen, when the node begins anew under another id, and when records
    /// are set aside, which no change says.
    pub epoch: u64,
    /// The position of the last change that was read; zero before the first.
    pub position: u64,
}

impl FeedPosition {
    /// Reads what [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, number) = text.split_once('-')?;
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        if epoch.len() != 16 || !epoch.bytes().all(is_hex) || !is_number {
            return None;
        }
        let epoch = u64::from_str_radix(epoch, 16).ok()?;
        Some(Self { epoch, position: number.parse().ok()? })
    }
}

impl fmt::Display for FeedPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.epoch, self.position)
    }
}

/// The ring in memory and the bookkeeping of the window on the disk.
#[derive(Debug)]
pub(super) struct Feed {
    ring: broadcast::Sender<Arc<FeedEntry>>,
    window: Mutex<Window>,
}

impl Feed {
    /// `ring_entries_max`: how many changes the ring holds for its slowest reader.
    pub fn new(window: Window, ring_entries_max: usize) -> Self {
        Self { ring: broadcast::Sender::new(ring_entries_max), window: Mutex::new(window) }
    }

    pub fn window(&self) -> std::sync::MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows a commit: moves the window, then hands the changes to the readers of the ring.
    pub fn publish(&self, change: WindowChange) {
        let entries = self.window().apply(change);
        for entry in entries {
            // an error says that nobody reads the ring
            let _ = self.ring.send(Arc::new(entry));
        }
    }

    pub fn subscribe(&self) -> broadcast::Receiver<Arc<FeedEntry>> {
        self.ring.subscribe()
    }
}
