//! The clock that expiry is judged by, and its watermark on the disk.
//!
//! A value that a client has seen expire stays expired: the clock never runs backwards by more
//! than the configured bound, neither while the node runs nor across a restart. For that the
//! *watermark*, a time up to which expiry has been reported, is made durable before anybody learns
//! of an expiry that it does not cover yet. Knows nothing of engines; the writer persists the
//! watermark.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::model::Timestamp;
use crate::store::disk::layout::Stored;

/// Turns wall time into the time that expiry is judged by.
///
/// Invariant: the watermark is on the disk, and at most the latest time that was handed out, unless
/// the wall clock stepped back beyond the bound; then the watermark in memory is zero and
/// [`Self::must_persist`] holds until a group has written a new one.
#[derive(Debug)]
pub(in crate::store) struct ExpiryClock {
    /// The latest time that [`Self::now`] returned.
    latest: AtomicU64,
    watermark: AtomicU64,
    /// The wall clock stepped back beyond the bound: the watermark on the disk is void.
    is_void: AtomicBool,
    step_back_max: Duration,
}

impl ExpiryClock {
    /// `watermark` is what the disk holds; zero where it holds none.
    pub fn new(watermark: Timestamp, step_back_max: Duration) -> Self {
        let micros = watermark.micros();
        Self {
            latest: micros.into(),
            watermark: micros.into(),
            is_void: false.into(),
            step_back_max,
        }
    }

    /// The time to judge by when the wall clock shows `wall`: never earlier than before, unless the
    /// wall clock stepped back by more than the bound. It was wrong before, then, and is followed.
    pub fn now(&self, wall: Timestamp) -> Timestamp {
        let latest = self.latest.fetch_max(wall.micros(), Ordering::Relaxed);
        let latest = Timestamp::saturating(latest);
        if latest.since(wall) <= self.step_back_max {
            return latest.max(wall);
        }
        self.watermark.store(0, Ordering::Relaxed);
        self.latest.store(wall.micros(), Ordering::Relaxed);
        self.is_void.store(true, Ordering::Relaxed);
        wall
    }

    /// Whether the next group must write the watermark even if it changes nothing else.
    pub fn must_persist(&self) -> bool {
        self.is_void.load(Ordering::Relaxed)
    }

    /// Whether the durable watermark covers an expiry at `at`.
    pub fn covers(&self, at: Timestamp) -> bool {
        at.micros() <= self.watermark.load(Ordering::Relaxed)
    }

    /// Whether `stored` has expired at `now`, and nothing on the disk says so yet: neither a sweep
    /// nor the watermark.
    pub fn is_uncovered(&self, stored: &Stored, now: Timestamp) -> bool {
        stored.expired_at(now).is_some_and(|at| !self.covers(at))
    }

    /// Records that a group made the watermark `time` durable.
    pub fn advance(&self, time: Timestamp) {
        // a step back since then has made it void already
        if time.micros() <= self.latest.load(Ordering::Relaxed) {
            self.watermark.fetch_max(time.micros(), Ordering::Relaxed);
            self.is_void.store(false, Ordering::Relaxed);
        }
    }
}
