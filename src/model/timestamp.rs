//! Timestamps: integer microseconds since the Unix epoch, below 2^53.
//!
//! The bound lets a timestamp pass through JSON numbers unharmed (RFC 8259, section 6) and is
//! checked by every constructor. Reading the clock is not done here.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Microseconds since the Unix epoch.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Timestamp(u64);

/// A number that is not a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a timestamp is a whole number of microseconds below 2^53, not {0}")]
pub struct TimestampError(pub u64);

impl Timestamp {
    /// The greatest timestamp: 2^53 - 1.
    pub const MAX: Self = Self((1 << 53) - 1);
    /// The Unix epoch.
    pub const ZERO: Self = Self(0);

    /// Checks the bound.
    ///
    /// # Errors
    /// When `micros` is 2^53 or more.
    pub fn new(micros: u64) -> Result<Self, TimestampError> {
        if micros <= Self::MAX.0 { Ok(Self(micros)) } else { Err(TimestampError(micros)) }
    }

    /// The nearest timestamp to `micros`: the greatest one where it lies above.
    #[must_use]
    pub fn saturating(micros: u64) -> Self {
        Self(micros.min(Self::MAX.0))
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub fn micros(self) -> u64 {
        self.0
    }

    /// The next timestamp; the greatest one stays.
    #[must_use]
    pub fn next(self) -> Self {
        Self::saturating(self.0 + 1)
    }

    /// This instant and `span` later, at most [`Self::MAX`].
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Self::saturating(self.0.saturating_add(micros))
    }

    /// This instant and `span` earlier, not before the epoch.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(micros))
    }

    /// How long after `earlier` this is; zero when it is not after.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// RFC 3339 in UTC with six decimals, the form of `at` and `*_at` in answers.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let micros = i64::try_from(self.0).unwrap_or(i64::MAX);
        jiff::Timestamp::from_microsecond(micros)
            .map_or_else(|_| self.0.to_string(), |t| format!("{t:.6}"))
    }

    /// Reads RFC 3339 as [`Self::rfc3339`] writes it; `None` for anything that is not such a time
    /// or lies before the epoch.
    #[must_use]
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let time: jiff::Timestamp = text.parse().ok()?;
        Self::new(u64::try_from(time.as_microsecond()).ok()?).ok()
    }
}

impl TryFrom<u64> for Timestamp {
    type Error = TimestampError;
    fn try_from(micros: u64) -> Result<Self, TimestampError> {
        Self::new(micros)
    }
}

impl From<Timestamp> for u64 {
    fn from(t: Timestamp) -> Self {
        t.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_decimals_always_and_both_ways() {
        let t = Timestamp::saturating(1_700_000_000_000_000);
        assert_eq!(t.rfc3339(), "2023-11-14T22:13:20.000000Z");
        assert_eq!(t.next().rfc3339(), "2023-11-14T22:13:20.000001Z");
        for t in [Timestamp::ZERO, t.next(), Timestamp::MAX] {
            assert_eq!(Timestamp::from_rfc3339(&t.rfc3339()), Some(t), "{t}");
        }
        assert_eq!(Timestamp::from_rfc3339("1969-12-31T23:59:59Z"), None);
        assert_eq!(Timestamp::from_rfc3339("yesterday"), None);
    }

    #[test]
    fn the_bound_is_kept_everywhere() {
        assert!(Timestamp::new(1 << 53).is_err());
        assert_eq!(Timestamp::MAX.next(), Timestamp::MAX);
        assert_eq!(Timestamp::MAX.plus(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::ZERO.since(Timestamp::MAX), Duration::ZERO);
    }
}
