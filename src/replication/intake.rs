//! Keeps a node that is far behind from receiving the same records from several peers at once.
//!
//! Promises that at most one of the sessions that this node drives moves records at a time. While
//! that session brings much, peers that begin a session with this node are asked to wait. Sessions
//! that find no difference never wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// A session that has brought this many records makes other sessions wait.
const LARGE_SESSION_RECORDS: u64 = 1000;

/// Shared by all sessions of a node. Cheap to clone.
#[derive(Clone)]
pub(super) struct Intake {
    /// One permit: the turn.
    turn: Arc<Semaphore>,
    /// Whether the session that has the turn is large. False while nobody has it.
    large: Arc<AtomicBool>,
    /// Whether the node waits for its first data.
    syncing: watch::Receiver<bool>,
    /// One permit: the right to follow a source.
    follow: Arc<Semaphore>,
}

/// The right to move records in a session that this node drives. Dropping it passes it on.
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
    large: Arc<AtomicBool>,
}

impl Intake {
    /// `syncing` says whether the node waits for its first data.
    pub(super) fn new(syncing: watch::Receiver<bool>) -> Self {
        Self {
            turn: Arc::new(Semaphore::new(1)),
            large: Arc::default(),
            syncing,
            follow: Arc::new(Semaphore::new(1)),
        }
    }

    /// Whether a peer should wait before it begins a session that moves records.
    pub(super) fn is_busy(&self) -> bool {
        let moving = self.turn.available_permits() == 0;
        self.large.load(Ordering::Relaxed) || (moving && *self.syncing.borrow())
    }

    /// The right to follow a source, if this node follows none now. Held until it is dropped.
    pub(super) fn try_follow(&self) -> Option<OwnedSemaphorePermit> {
        self.follow.clone().try_acquire_owned().ok()
    }

    /// Whether this node follows a source now.
    pub(super) fn is_following(&self) -> bool {
        self.follow.available_permits() == 0
    }

    /// The turn, if it is free.
    pub(super) fn try_take(&self) -> Option<Turn> {
        let permit = self.turn.clone().try_acquire_owned().ok()?;
        Some(Turn { _permit: permit, large: self.large.clone() })
    }

    /// Waits for the turn.
    #[expect(clippy::expect_used, reason = "nothing closes the semaphore")]
    pub(super) async fn take(&self) -> Turn {
        let permit = self.turn.clone().acquire_owned().await.expect("an open semaphore");
        Turn { _permit: permit, large: self.large.clone() }
    }
}

impl Turn {
    /// Notes that the session has brought `records` so far.
    pub(super) fn has_brought(&self, records: u64) {
        if records >= LARGE_SESSION_RECORDS {
            self.large.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // before the permit is released, so that the next holder starts with false
        self.large.store(false, Ordering::Relaxed);
    }
}
