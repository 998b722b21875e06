//! Records that are held back: they lie so far ahead of a node's clock that it does not merge them
//! yet.
//!
//! A node merges a record once its *horizon*, its wall clock plus `sync.clock_drift_max`, has
//! reached the time at which the record is due. Otherwise a node with a wrong clock would win
//! against all others until their clocks have caught up. Must not know clocks: the horizon is an
//! argument.

use serde::{Deserialize, Serialize};

use super::{Header, Timestamp};

/// How many records are held back, and when the first of them is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    /// How many records.
    pub records: u64,
    /// The least horizon at which one of them is due; [`Timestamp::MAX`] when there is none.
    pub until: Timestamp,
}

impl Default for HeldBack {
    fn default() -> Self {
        Self { records: 0, until: Timestamp::MAX }
    }
}

impl HeldBack {
    /// Counts a record that is due at `due`.
    pub fn add(&mut self, due: Timestamp) {
        *self = self.and(Self { records: 1, until: due });
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let records = self.records.saturating_add(other.records);
        Self { records, until: self.until.min(other.until) }
    }

    /// Whether any record is held back.
    #[must_use]
    pub fn is_any(self) -> bool {
        self.records > 0
    }
}

impl Header {
    /// The least horizon of a node that merges the record: its timestamp and, once its bytes are
    /// `swept`, its end. A node that is ahead would otherwise end values early elsewhere.
    #[must_use]
    pub fn due(&self, swept: bool) -> Timestamp {
        let end = self.expires_at.filter(|_| swept).unwrap_or_default();
        self.version.timestamp.max(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_is_due_decides_until_when_records_are_held() {
        let mut held = HeldBack::default();
        assert!(!held.is_any());
        for due in [7, 3, 9] {
            held.add(Timestamp::saturating(due));
        }
        assert_eq!(held, HeldBack { records: 3, until: Timestamp::saturating(3) });
        assert_eq!(held.and(HeldBack::default()), held);
    }
}
