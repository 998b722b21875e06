//! Recovery after storage has failed: the writer opens the store again, as often as it takes, and
//! refuses all jobs until that succeeds.
//!
//! The clients of a group whose commit failed are told that its outcome is unknown. If it turns out
//! to be on the disk, it is readable, in the digest and in the feed's window, and a session brings
//! it to the peers.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::error::TryRecvError;

use super::durable::CommitError;
use super::job::Job;
use super::writer::Writer;
use crate::store::disk::layout;
use crate::store::expiry::DueChange;
use crate::store::read::digest::Tree;
use crate::store::{ReadError, WriteError};

/// The pause after the first failed attempt, and the longest. Each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The pause while a record is damaged: opening the store again mends nothing.
const PAUSE_DAMAGED: Duration = Duration::from_secs(60);
/// How long a job waits at most for its refusal while the writer's thread pauses.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A lasting failure of storage.
struct Trouble {
    /// The reason of the latest attempt.
    why: ReadError,
    /// The pause after the next failed attempt.
    pause: Duration,
}

impl Trouble {
    /// Logs it once.
    fn new(why: ReadError) -> Self {
        let trouble = Self { why, pause: PAUSE_MIN };
        trouble.log();
        trouble
    }

    fn log(&self) {
        let why = &self.why;
        if self.is_full() {
            tracing::error!(%why, "the disk is full: free space; writes are refused until then");
        } else {
            tracing::error!(%why, "storage failed: reopening it; writes are refused until then");
        }
    }

    fn is_full(&self) -> bool {
        matches!(self.why, ReadError::Full(_))
    }

    /// Takes the reason of a failed attempt; gives the pause until the next.
    fn attempt_failed(&mut self, why: ReadError) -> Duration {
        let was_full = self.is_full();
        self.why = why;
        if self.is_full() != was_full {
            self.log();
        }
        if matches!(self.why, ReadError::Damaged { .. }) {
            return PAUSE_DAMAGED;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        pause
    }

    fn refuse(&self, job: Job) {
        job.refuse(match &self.why {
            ReadError::Full(why) => WriteError::StorageFull(why.clone()),
            why => WriteError::Failed(why.clone()),
        });
    }
}

impl Writer {
    /// Returns when the store is open again, or no handle to it is left. Blocks the thread.
    pub(super) fn recover_blocking(&mut self, why: ReadError) {
        let mut trouble = Trouble::new(why);
        while let Some(pause) = self.attempt(&mut trouble) {
            let until = self.shared.clock.instant() + pause;
            loop {
                match self.queue.try_recv() {
                    Ok(job) => trouble.refuse(job),
                    Err(TryRecvError::Disconnected) => return,
                    Err(TryRecvError::Empty) if self.shared.clock.instant() >= until => break,
                    Err(TryRecvError::Empty) => std::thread::sleep(LOOK_AGAIN),
                }
            }
        }
    }

    /// As [`Self::recover_blocking`], for a task.
    pub(super) async fn recover(&mut self, why: ReadError) {
        let mut trouble = Trouble::new(why);
        while let Some(pause) = self.attempt(&mut trouble) {
            let until = self.shared.clock.instant() + pause;
            while let Ok(asked) = tokio::time::timeout_at(until, self.queue.recv()).await {
                match asked {
                    Some(job) => trouble.refuse(job),
                    None => return,
                }
            }
        }
    }

    /// Tries to open the store again; gives the pause until the next attempt where that fails.
    fn attempt(&self, trouble: &mut Trouble) -> Option<Duration> {
        self.shared.disk.set_recovering(Some(&trouble.why));
        match self.reopen() {
            Ok(()) => {
                self.shared.disk.set_recovering(None);
                tracing::info!("storage is open again; writes are accepted");
                None
            }
            Err(why) => {
                self.shared.disk.set_recovering(Some(&why));
                Some(trouble.attempt_failed(why))
            }
        }
    }

    /// Finds out whether a group was written for which no file descriptor was left: opens the store
    /// again, once. Only what stays unknown calls for a recovery.
    pub(super) fn find_out(&self, error: CommitError) -> CommitError {
        let CommitError::NoDescriptor { error, at } = error else { return error };
        match self.reopen() {
            Ok(()) if self.shared.feed.window().next_position() <= at => {
                tracing::warn!(%error, "a group of writes was refused, and nothing was written");
                CommitError::Nothing(error)
            }
            // it is written, or the disk cannot tell yet
            Ok(()) | Err(_) => CommitError::Unknown(error),
        }
    }

    /// Opens the engine again and rebuilds from it what memory holds. A damaged or unreadable
    /// record counts as a failure of storage: data that is not known to be whole takes no writes.
    fn reopen(&self) -> Result<(), ReadError> {
        let engine = self.shared.engine.as_ref();
        engine.reopen()?;
        self.shared.look_at_disk()?;
        let key = self.shared.tree().element_key();
        let tree = Tree::build(engine, key)?;
        self.shared.mode.load(engine)?;
        let requests_bytes: Option<u64> = crate::store::meta(engine, layout::REQUESTS_BYTES)?;
        self.shared.requests_bytes.store(requests_bytes.unwrap_or_default(), Ordering::Relaxed);
        self.shared.set_reports(crate::store::meta(engine, layout::REPORTS)?.unwrap_or_default());
        let ledger = super::ledger::load(engine, &self.shared.identity)?;
        self.shared.ledger.send_replace(Arc::new(ledger));
        // the group of unknown outcome may have added entries to the indexes and to the feed
        self.shared.due.apply(DueChange::restart(), DueChange::restart());
        self.shared.feed.window().load(engine)?;
        *self.shared.tree.write().unwrap_or_else(PoisonError::into_inner) = tree;
        self.count_records();
        Ok(())
    }
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
