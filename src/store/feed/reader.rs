//! A reader that goes on where the ring has passed it.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::{FeedEntry, FeedPosition};
use crate::store::Store;

/// How many changes are read from the disk at a time.
const READ_ENTRIES: usize = 1024;

/// Changes that a reader can no longer get: the window has passed it, or cannot be read, or another
/// epoch has begun. It must read the records themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// How many changes, at least.
    pub entries: u64,
}

/// Reads all changes in order, from the moment when it was made: those of the ring, and where it
/// fell behind the ring, those of the window on the disk.
///
/// [`Self::next`] waits; [`Self::try_next`] gives what is in memory. After [`Missed`] the reader
/// goes on with the changes from then on.
pub struct FeedReader {
    store: Store,
    ring: broadcast::Receiver<Arc<FeedEntry>>,
    /// How far changes were given out.
    position: FeedPosition,
    /// Changes that were read from the disk and not given out yet.
    backlog: VecDeque<Arc<FeedEntry>>,
    /// Whether the ring has passed `position`, so that the disk must be read.
    is_behind: bool,
}

impl Store {
    /// A reader of all changes from now on.
    #[must_use]
    pub fn read_feed_from_now(&self) -> FeedReader {
        // in this order, so that no change lies between the two
        let ring = self.shared.feed.subscribe();
        let position = self.feed_position();
        let (store, backlog) = (self.clone(), VecDeque::new());
        FeedReader { store, ring, position, backlog, is_behind: false }
    }
}

impl FeedReader {
    /// The next change. Waits for ever once the store is closed.
    ///
    /// # Errors
    /// [`Missed`], when changes are lost to this reader.
    pub async fn next(&mut self) -> Result<Arc<FeedEntry>, Missed> {
        loop {
            if let Some(entry) = self.try_next() {
                return Ok(entry);
            }
            if self.is_behind {
                self.catch_up().await?;
                continue;
            }
            match self.ring.recv().await {
                Ok(entry) => {
                    if let Some(entry) = self.take(entry) {
                        return Ok(entry);
                    }
                }
                Err(RecvError::Lagged(_)) => self.is_behind = true,
                // the reader's store holds the sending side
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// The next change, if it is in memory.
    pub fn try_next(&mut self) -> Option<Arc<FeedEntry>> {
        if let Some(entry) = self.backlog.pop_front() {
            return Some(self.give(entry));
        }
        while !self.is_behind {
            match self.ring.try_recv() {
                Ok(entry) => {
                    if let Some(entry) = self.take(entry) {
                        return Some(entry);
                    }
                }
                Err(TryRecvError::Lagged(_)) => self.is_behind = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        None
    }

    /// Gives an entry of the ring if it is the next one. One that was read from the disk already is
    /// passed over; one after a gap says that the disk must be read.
    fn take(&mut self, entry: Arc<FeedEntry>) -> Option<Arc<FeedEntry>> {
        match entry.position.cmp(&(self.position.position + 1)) {
            Ordering::Less => None,
            // records that left without a change would else go unnoticed
            Ordering::Equal if self.store.feed_position().epoch != self.position.epoch => {
                self.is_behind = true;
                None
            }
            Ordering::Equal => Some(self.give(entry)),
            Ordering::Greater => {
                self.is_behind = true;
                None
            }
        }
    }

    fn give(&mut self, entry: Arc<FeedEntry>) -> Arc<FeedEntry> {
        self.position.position = entry.position;
        entry
    }

    /// Reads changes from the disk, after a gap in the ring.
    async fn catch_up(&mut self) -> Result<(), Missed> {
        let after = self.position;
        let read = self.store.blocking(move |store| store.read_feed(after, READ_ENTRIES)).await;
        let entries = match read {
            Ok(Some(entries)) => entries,
            Ok(None) => return Err(self.miss()),
            Err(error) => {
                tracing::warn!(%error, "cannot read the feed; its readers will read the records");
                return Err(self.miss());
            }
        };
        self.backlog = entries.into_iter().map(Arc::new).collect();
        self.is_behind = false;
        Ok(())
    }

    fn miss(&mut self) -> Missed {
        let latest = self.store.feed_position();
        let entries = latest.position.saturating_sub(self.position.position);
        (self.position, self.is_behind) = (latest, false);
        Missed { entries }
    }
}
