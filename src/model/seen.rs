//! Which earlier writes a write knew: for each origin, the last timestamp in the line of writes
//! that ends with it.
//!
//! A key with one writer has one entry. The list is bounded. Of the entries cut off it remembers
//! only the greatest timestamp, so the answer to "did this write know that one?" is *yes*, *no* or,
//! only after a cut, *unknown*. Must not know which nodes are members.

use serde::{Deserialize, Serialize};

use super::{NodeId, Timestamp};

/// The most entries that a record carries.
pub const SEEN_ENTRIES_MAX: usize = 16;

/// For each origin the last timestamp in a record's line of writes.
///
/// Invariants: at most [`SEEN_ENTRIES_MAX`] entries, strictly ascending by origin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct Seen {
    entries: Vec<(NodeId, Timestamp)>,
    /// The greatest timestamp among the entries cut off; zero when none was.
    cut_through: Timestamp,
}

/// The serialized form, which decoding checks.
#[derive(Serialize, Deserialize)]
struct Parts(Vec<(NodeId, Timestamp)>, Timestamp);

/// Whether a write knew another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knew {
    /// It did: it follows the other in one line of writes.
    Yes,
    /// It did not: the two are concurrent, or the other came later.
    No,
    /// The list cannot say: the entry could be one of those cut off.
    Unknown,
}

impl Seen {
    /// The list of a new write by `origin` at `timestamp` that replaces a record with the list
    /// `replaced`; dead records count as replaced too.
    #[must_use]
    pub fn after_write(replaced: Option<&Self>, origin: NodeId, timestamp: Timestamp) -> Self {
        let mut seen = replaced.cloned().unwrap_or_default();
        match seen.entries.binary_search_by_key(&origin, |(o, _)| *o) {
            Ok(at) => {
                if let Some(entry) = seen.entries.get_mut(at) {
                    entry.1 = entry.1.max(timestamp);
                }
            }
            Err(at) => seen.entries.insert(at, (origin, timestamp)),
        }
        if seen.entries.len() > SEEN_ENTRIES_MAX {
            seen.cut_oldest(origin);
        }
        seen
    }

    /// The list of a write of `origin` at `timestamp` of which nobody says any more what it knew:
    /// it knew itself, and of each earlier write the answer is unknown.
    #[must_use]
    pub fn of_unknown_line(origin: NodeId, timestamp: Timestamp) -> Self {
        let cut_through = timestamp.minus(std::time::Duration::from_micros(1));
        Self { entries: vec![(origin, timestamp)], cut_through }
    }

    /// Cuts off the entry with the least timestamp, except that of `keep`.
    fn cut_oldest(&mut self, keep: NodeId) {
        let oldest = self.entries.iter().filter(|(o, _)| *o != keep).map(|(o, t)| (*t, *o)).min();
        if let Some((timestamp, origin)) = oldest {
            self.entries.retain(|(o, _)| *o != origin);
            self.cut_through = self.cut_through.max(timestamp);
        }
    }

    /// Whether the write with this list knew the write of `origin` at `timestamp`.
    #[must_use]
    pub fn knew(&self, origin: NodeId, timestamp: Timestamp) -> Knew {
        match self.entries.binary_search_by_key(&origin, |(o, _)| *o) {
            Ok(at) if self.entries.get(at).is_some_and(|(_, t)| *t >= timestamp) => Knew::Yes,
            Err(_) if timestamp <= self.cut_through => Knew::Unknown,
            Ok(_) | Err(_) => Knew::No,
        }
    }

    /// The entries, ascending by origin.
    #[must_use]
    pub fn entries(&self) -> &[(NodeId, Timestamp)] {
        &self.entries
    }

    /// The greatest timestamp among the entries cut off; zero when none was.
    #[must_use]
    pub fn cut_through(&self) -> Timestamp {
        self.cut_through
    }
}

/// A decoded list is too long or out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`seen` must hold at most {SEEN_ENTRIES_MAX} entries in ascending order of their origin")]
pub struct SeenError;

impl TryFrom<Parts> for Seen {
    type Error = SeenError;
    fn try_from(Parts(entries, cut_through): Parts) -> Result<Self, SeenError> {
        let ascending = entries.is_sorted_by(|a, b| a.0 < b.0);
        if entries.len() > SEEN_ENTRIES_MAX || !ascending {
            return Err(SeenError);
        }
        Ok(Self { entries, cut_through })
    }
}

impl From<Seen> for Parts {
    fn from(seen: Seen) -> Self {
        Self(seen.entries, seen.cut_through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn node(n: u8) -> NodeId {
        NodeId::from_u128(u128::from(n))
    }

    proptest! {
        #[test]
        fn a_line_of_writes_is_known_exactly_until_it_is_cut(
            writers in proptest::collection::vec(0..24_u8, 1..80)
        ) {
            let mut seen: Option<Seen> = None;
            let mut last = BTreeMap::new();
            for (at, writer) in writers.iter().enumerate() {
                let timestamp = Timestamp::saturating(at as u64 + 1);
                let next = Seen::after_write(seen.as_ref(), node(*writer), timestamp);
                last.insert(*writer, timestamp);
                prop_assert!(next.entries().len() <= SEEN_ENTRIES_MAX);
                prop_assert_eq!(next.knew(node(*writer), timestamp), Knew::Yes);
                for (writer, timestamp) in &last {
                    prop_assert_ne!(next.knew(node(*writer), *timestamp), Knew::No);
                    let later = next.knew(node(*writer), timestamp.plus(
                        std::time::Duration::from_secs(1)));
                    prop_assert_eq!(later, Knew::No);
                }
                if last.len() <= SEEN_ENTRIES_MAX {
                    prop_assert_eq!(next.cut_through(), Timestamp::ZERO);
                }
                seen = Some(next);
            }
        }
    }

    #[test]
    fn a_list_from_outside_is_checked() {
        let entry = |n| (node(n), Timestamp::ZERO);
        assert!(Seen::try_from(Parts(vec![entry(1), entry(2)], Timestamp::ZERO)).is_ok());
        assert!(Seen::try_from(Parts(vec![entry(2), entry(1)], Timestamp::ZERO)).is_err());
        assert!(Seen::try_from(Parts(vec![entry(1), entry(1)], Timestamp::ZERO)).is_err());
        let long = (0..17).map(entry).collect();
        assert!(Seen::try_from(Parts(long, Timestamp::ZERO)).is_err());
    }
}
