//! The only reader of wall time, monotonic time and entropy.
//!
//! All other code takes a [`Clock`], or values from one, so that the simulator can substitute
//! virtual time, a skewed wall clock and seeded entropy. Must not know what the values are for.

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

/// A source of wall time and entropy.
pub trait Source: Send + Sync {
    /// Wall time. It may step forward or back between two calls.
    fn now(&self) -> Timestamp;
    /// Fills `bytes` with entropy fit for keys and nonces.
    fn fill(&self, bytes: &mut [u8]);
    /// Monotonic time, which no setting of the wall clock moves.
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of monotonic time")]
    fn instant(&self) -> Instant {
        Instant::now()
    }
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
        rand::rngs::SysRng.try_fill_bytes(bytes).expect("entropy of the operating system");
    }
}

impl Clock {
    /// The clock and entropy of this machine.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(System))
    }

    /// A clock over another source, for the simulator and for tests.
    #[must_use]
    pub fn from_source(source: Arc<dyn Source>) -> Self {
        Self(source)
    }

    /// Wall time now, in microseconds since 1970. It may step.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.now()
    }

    /// Monotonic time now. It follows tokio's clock, so it is virtual where a runtime has paused
    /// that.
    #[must_use]
    pub fn instant(&self) -> Instant {
        self.0.instant()
    }

    /// `N` random bytes, fit for keys and nonces.
    #[must_use]
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill(&mut bytes);
        bytes
    }

    /// An independent generator with a seed from the entropy. For choices that need no secrecy.
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

/// A source for tests: the wall clock moves only by [`Self::set`] and [`Self::pass`], and a seed
/// gives the entropy.
#[cfg(test)]
#[derive(Debug)]
pub struct Fixed {
    now: std::sync::atomic::AtomicU64,
    /// How many microseconds have passed by [`Self::pass`].
    passed: std::sync::atomic::AtomicU64,
    /// Where monotonic time stands but for [`Self::pass`].
    stands: Option<Instant>,
    rng: std::sync::Mutex<StdRng>,
}

#[cfg(test)]
impl Fixed {
    #[must_use]
    /// A source at `now` microseconds since 1970.
    pub fn new(now: u64, seed: u64) -> Arc<Self> {
        Arc::new(Self::with(now, seed, None))
    }

    /// As [`Self::new`], and monotonic time stands still, too.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of monotonic time")]
    pub fn still(now: u64, seed: u64) -> Arc<Self> {
        Arc::new(Self::with(now, seed, Some(Instant::now())))
    }

    fn with(now: u64, seed: u64, stands: Option<Instant>) -> Self {
        let rng = std::sync::Mutex::new(StdRng::seed_from_u64(seed));
        Self { now: now.into(), passed: 0.into(), stands, rng }
    }

    /// Sets the wall clock to `now` microseconds since 1970; no time passes.
    pub fn set(&self, now: u64) {
        self.now.store(now, std::sync::atomic::Ordering::SeqCst);
    }

    /// Lets time pass: both clocks go on.
    pub fn pass(&self, span: std::time::Duration) {
        let micros = u64::try_from(span.as_micros()).expect("a short span");
        self.now.fetch_add(micros, std::sync::atomic::Ordering::SeqCst);
        self.passed.fetch_add(micros, std::sync::atomic::Ordering::SeqCst);
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
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of monotonic time")]
    fn instant(&self) -> Instant {
        let passed = self.passed.load(std::sync::atomic::Ordering::SeqCst);
        self.stands.unwrap_or_else(Instant::now) + std::time::Duration::from_micros(passed)
    }
}
