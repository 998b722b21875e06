//! Virtual time with a wall clock that may be off and may be set, and entropy from the seed.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use kvs::clock::Source;
use kvs::model::Timestamp;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::Instant;

/// What the time is when a simulation begins: January 2027.
const EPOCH_US: i64 = 1_800_000_000_000_000;

/// The clock of one node.
pub struct SimClock {
    start: Instant,
    skew_us: AtomicI64,
    rng: Mutex<StdRng>,
}

impl SimClock {
    pub fn new(start: Instant, skew_us: i64, rng: StdRng) -> Arc<Self> {
        Arc::new(Self { start, skew_us: skew_us.into(), rng: Mutex::new(rng) })
    }

    /// Sets the wall clock forward or back.
    pub fn step(&self, by_us: i64) {
        self.skew_us.fetch_add(by_us, Ordering::Relaxed);
    }
}

impl Source for SimClock {
    fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.start.elapsed().as_micros()).expect("no long run");
        let now = EPOCH_US + elapsed + self.skew_us.load(Ordering::Relaxed);
        Timestamp::saturating(u64::try_from(now).unwrap_or_default())
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.rng.lock().expect("one thread").fill_bytes(bytes);
    }
}
