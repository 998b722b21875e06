//! The only reader of wall time, monotonic time and entropy.
//!
//! Everything else is handed a [`Clock`], or the values it gave, so that the simulator can put
//! virtual time, a skewed wall clock and a seed in its place. Must not know what anybody does with
//! them.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

#[cfg(test)]
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::{SeedableRng, TryRng};
use tokio::time::Instant;
use uuid::Uuid;

use crate::model::Timestamp;

/// Where time and entropy come from.
pub trait Source: Send + Sync {
    /// Wall time, as this machine's clock tells it; it may step.
    fn now(&self) -> Timestamp;
    /// Fills `bytes` with entropy.
    fn fill(&self, bytes: &mut [u8]);
}

/// Wall time, monotonic time and entropy. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Source>);

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

struct System;

impl Source for System {
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of wall time")]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::ZERO.plus(since_epoch)
    }

    #[expect(clippy::expect_used, reason = "a machine without entropy cannot run TLS either")]
    fn fill(&self, bytes: &mut [u8]) {
        rand::rngs::SysRng.try_fill_bytes(bytes).expect("the system gives entropy");
    }
}

impl Clock {
    /// The machine's clock and entropy.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(System))
    }

    /// Another source, for the simulator.
    #[must_use]
    pub fn from_source(source: Arc<dyn Source>) -> Self {
        Self(source)
    }

    /// Wall time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.now()
    }

    /// Monotonic time now; it follows tokio's clock, so the simulator's virtual time too.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of monotonic time")]
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Random bytes.
    #[must_use]
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill(&mut bytes);
        bytes
    }

    /// A generator of its own, seeded from the entropy.
    #[must_use]
    pub fn rng(&self) -> StdRng {
        StdRng::from_seed(self.random())
    }

    /// A new UUID (version 7, RFC 9562: the time in its first 48 bits, 74 random ones).
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        let millis = self.now().micros() / 1000;
        uuid::Builder::from_unix_timestamp_millis(millis, &self.random()).into_uuid()
    }
}

/// A source for tests: a wall clock that stands where it is put, entropy from a seed.
#[cfg(test)]
#[derive(Debug)]
pub struct Fixed {
    now: std::sync::atomic::AtomicU64,
    rng: std::sync::Mutex<StdRng>,
}

#[cfg(test)]
impl Fixed {
    #[must_use]
    /// A clock at `now`, with entropy from `seed`.
    pub fn new(now: u64, seed: u64) -> Arc<Self> {
        let rng = std::sync::Mutex::new(StdRng::seed_from_u64(seed));
        Arc::new(Self { now: now.into(), rng })
    }

    /// Puts the wall clock to `now`.
    pub fn set(&self, now: u64) {
        self.now.store(now, std::sync::atomic::Ordering::SeqCst);
    }
}

#[cfg(test)]
impl Source for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::saturating(self.now.load(std::sync::atomic::Ordering::SeqCst))
    }
    fn fill(&self, bytes: &mut [u8]) {
        self.rng.lock().expect("not poisoned").fill_bytes(bytes);
    }
}
