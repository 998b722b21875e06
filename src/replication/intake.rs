//! Keeps a node that is far behind from taking in the same records from several peers at once.
//!
//! Of the sessions that this node drives, one at a time moves records; and while it takes in much,
//! it asks others that would begin one to wait. Sessions that find nothing different are never held
//! up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// A session that has brought this many records is a large one.
const MUCH_RECORDS: u64 = 1000;

/// Shared by all sessions of a node; cheap to clone.
#[derive(Clone)]
pub(super) struct Intake {
    turn: Arc<Semaphore>,
    much: Arc<AtomicBool>,
    syncing: watch::Receiver<bool>,
}

/// The right to move records in a session that this node drives.
pub(super) struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
    much: Arc<AtomicBool>,
}

impl Intake {
    /// `syncing`: whether the node waits for its first data.
    pub(super) fn new(syncing: watch::Receiver<bool>) -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), much: Arc::default(), syncing }
    }

    /// Whether others should wait before they begin a session that moves records.
    pub(super) fn is_busy(&self) -> bool {
        let moving = self.turn.available_permits() == 0;
        self.much.load(Ordering::Relaxed) || (moving && *self.syncing.borrow())
    }

    /// The turn, when it is free.
    pub(super) fn try_take(&self) -> Option<Turn> {
        let permit = self.turn.clone().try_acquire_owned().ok()?;
        Some(Turn { _permit: Some(permit), much: self.much.clone() })
    }

    /// Waits for the turn.
    pub(super) async fn take(&self) -> Turn {
        // the semaphore is never closed
        let permit = self.turn.clone().acquire_owned().await.ok();
        Turn { _permit: permit, much: self.much.clone() }
    }
}

impl Turn {
    /// The session has brought `records` so far.
    pub(super) fn has_brought(&self, records: u64) {
        if records >= MUCH_RECORDS {
            self.much.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.much.store(false, Ordering::Relaxed);
    }
}
