//! Virtual time with a wall clock that can be wrong and can be set, and entropy from the seed.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kvs::clock::Source;
use kvs::model::Timestamp;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::Instant;

/// The time at which each simulation begins: January 2027.
const EPOCH_US: i64 = 1_800_000_000_000_000;

/// The clock of one node.
pub struct SimClock {
    start: Instant,
    skew_us: AtomicI64,
    /// The latest time that it showed before it was set.
    latest_us: AtomicI64,
    /// The sum of all settings, forward and back.
    stepped_us: AtomicU64,
    rng: Mutex<StdRng>,
}

impl SimClock {
    pub fn new(start: Instant, skew_us: i64, rng: StdRng) -> Arc<Self> {
        Arc::new(Self {
            start,
            skew_us: skew_us.into(),
            latest_us: 0.into(),
            stepped_us: 0.into(),
            rng: Mutex::new(rng),
        })
    }

    /// Sets the wall clock forward or back.
    pub fn step(&self, by_us: i64) {
        self.latest_us.fetch_max(self.now_us(), Ordering::Relaxed);
        self.skew_us.fetch_add(by_us, Ordering::Relaxed);
        self.stepped_us.fetch_add(by_us.unsigned_abs(), Ordering::Relaxed);
    }

    /// Sets the wall clock to `to`, or to the true time if that is later, plus `off_us`.
    pub fn set_right(&self, to: Timestamp, off_us: i64) {
        let to_us = i64::try_from(to.micros()).expect("below 2^53").max(self.true_us());
        self.step(to_us + off_us - self.now_us());
    }

    /// The latest time that a node can have read here.
    pub fn latest(&self) -> Timestamp {
        timestamp(self.latest_us.load(Ordering::Relaxed).max(self.now_us()))
    }

    /// The sum of all settings so far, forward and back.
    pub fn stepped(&self) -> Duration {
        Duration::from_micros(self.stepped_us.load(Ordering::Relaxed))
    }

    fn true_us(&self) -> i64 {
        EPOCH_US + i64::try_from(self.start.elapsed().as_micros()).expect("short runs")
    }

    fn now_us(&self) -> i64 {
        self.true_us() + self.skew_us.load(Ordering::Relaxed)
    }
}

fn timestamp(us: i64) -> Timestamp {
    Timestamp::saturating(u64::try_from(us).unwrap_or_default())
}

impl Source for SimClock {
    fn now(&self) -> Timestamp {
        timestamp(self.now_us())
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.rng.lock().expect("one thread").fill_bytes(bytes);
    }
}
