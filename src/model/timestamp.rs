//! Timestamps: integer microseconds since the Unix epoch, below 2^53.
//!
//! The bound keeps timestamps exact in JSON numbers (RFC 8259, section 6); each constructor checks
//! it. Must not read a clock.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Microseconds since the Unix epoch, from [`Timestamp::ZERO`] to [`Timestamp::MAX`].
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Timestamp(u64);

/// A number of microseconds beyond [`Timestamp::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a timestamp is a whole number of microseconds below 2^53, not {0}")]
pub struct TimestampError(pub u64);

impl Timestamp {
    /// The greatest timestamp: 2^53 - 1, in the year 2255.
    pub const MAX: Self = Self((1 << 53) - 1);
    /// The Unix epoch.
    pub const ZERO: Self = Self(0);

    /// The timestamp `micros` microseconds after the epoch.
    ///
    /// # Errors
    /// When `micros` is 2^53 or more.
    pub fn new(micros: u64) -> Result<Self, TimestampError> {
        if micros <= Self::MAX.0 { Ok(Self(micros)) } else { Err(TimestampError(micros)) }
    }

    /// The timestamp `micros` microseconds after the epoch, at most [`Self::MAX`].
    #[must_use]
    pub fn saturating(micros: u64) -> Self {
        Self(micros.min(Self::MAX.0))
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub fn micros(self) -> u64 {
        self.0
    }

    /// The timestamp one microsecond later, at most [`Self::MAX`].
    #[must_use]
    pub fn next(self) -> Self {
        Self::saturating(self.0 + 1)
    }

    /// The timestamp `span` later, at most [`Self::MAX`].
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Self::saturating(self.0.saturating_add(micros))
    }

    /// The timestamp `span` earlier, not before the epoch.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(micros))
    }

    /// The time from `earlier` to this timestamp; zero when it is not later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// RFC 3339 in UTC with six decimals, the form of `at` and `*_at` in the API.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let micros = i64::try_from(self.0).unwrap_or(i64::MAX);
        jiff::Timestamp::from_microsecond(micros)
            .map_or_else(|_| self.0.to_string(), |t| format!("{t:.6}"))
    }

    /// Parses RFC 3339, as [`Self::rfc3339`] writes it or in any other offset; `None` for other
    /// texts and for times out of range. Digits below a microsecond are dropped.
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
    fn rfc3339_has_six_decimals_and_parses_back() {
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
    fn no_constructor_exceeds_the_bound() {
        assert!(Timestamp::new(1 << 53).is_err());
        assert_eq!(Timestamp::MAX.next(), Timestamp::MAX);
        assert_eq!(Timestamp::MAX.plus(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::ZERO.since(Timestamp::MAX), Duration::ZERO);
    }
}
