//! What the writer does after storage failed: it opens the store again and finds out what was
//! written, over and over until that succeeds, and refuses meanwhile whatever it is asked.
//!
//! Nothing is told of a group whose commit failed, neither to the feed nor to those who wait. If it
//! turns out that it is there, it is readable and in the digest, and peers get it by a session.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc::error::TryRecvError;

use super::tree::Tree;
use super::writer::{Job, Writer};
use super::{ReadError, WriteError, layout};

/// The pause after the first attempt that failed, and the longest; each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The pause while a record is damaged: opening it again mends nothing, a new disk may.
const PAUSE_DAMAGED: Duration = Duration::from_secs(60);
/// How long a job waits for its refusal where the writer has a thread of its own.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A failure of storage that lasts.
struct Trouble {
    /// The latest reason.
    why: ReadError,
    /// The pause after the next attempt, should it fail.
    pause: Duration,
}

impl Trouble {
    /// Says so once.
    fn new(why: ReadError) -> Self {
        let trouble = Self { why, pause: PAUSE_MIN };
        trouble.tell();
        trouble
    }

    fn tell(&self) {
        let why = &self.why;
        if self.is_full() {
            tracing::error!(%why, "the disk is full; writes are refused until there is room");
        } else {
            tracing::error!(%why, "storage failed; writes are refused until it is open again");
        }
    }

    fn is_full(&self) -> bool {
        matches!(self.why, ReadError::Full(_))
    }

    /// Takes the reason of an attempt that failed; gives the pause until the next one.
    fn goes_on(&mut self, why: ReadError) -> Duration {
        let was_full = self.is_full();
        self.why = why;
        if self.is_full() != was_full {
            self.tell();
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
    /// Returns when the store is open again, or nobody has a handle to it any more.
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

    /// The same as a task.
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

    /// Opens the store again; gives the pause until the next attempt where that fails.
    fn attempt(&self, trouble: &mut Trouble) -> Option<Duration> {
        self.shared.recovers.store(true, Ordering::Relaxed);
        match self.reopen() {
            Ok(()) => {
                self.shared.recovers.store(false, Ordering::Relaxed);
                tracing::info!("storage is open again, and takes writes");
                None
            }
            Err(why) => Some(trouble.goes_on(why)),
        }
    }

    /// Opens the engine again and builds from it whatever is kept beside it. A record that is
    /// damaged, or cannot be read, is a failure of storage too: what is not known to be whole takes
    /// no writes.
    fn reopen(&self) -> Result<(), ReadError> {
        let engine = self.shared.engine.as_ref();
        engine.reopen()?;
        let key = self.shared.tree().element_key();
        let tree = Tree::build(engine, key)?;
        let requests_bytes: Option<u64> = super::meta(engine, layout::REQUESTS_BYTES)?;
        self.shared.requests_bytes.store(requests_bytes.unwrap_or_default(), Ordering::Relaxed);
        // what is due may have been noted without a word
        self.shared.due.follow((Some(0), Some(0)), (None, None));
        *self.shared.tree.write().unwrap_or_else(PoisonError::into_inner) = tree;
        self.count_records();
        Ok(())
    }
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
