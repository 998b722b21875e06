//! Versions: which of two writes of a key wins.
//!
//! The order reads nothing but the two versions, so every node decides alike, whatever it knows of
//! the membership. The last step of the contract's order, the record hash, is taken in
//! [`merge`](super::merge()), which sees the records.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Timestamp;

/// The triple that names one write and orders it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// When its origin accepted it.
    pub timestamp: Timestamp,
    /// When the origin's data directory was made: the oldest-node rule.
    pub origin_joined_at: Timestamp,
    /// Its name, unique to the write.
    #[serde(with = "uuid::serde::compact")]
    pub uuid: Uuid,
}

impl Version {
    /// Bytes that sort as the versions do: greater bytes, greater version.
    #[must_use]
    pub fn sortable(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let (timestamp, rest) = bytes.split_at_mut(8);
        let (joined, uuid) = rest.split_at_mut(8);
        timestamp.copy_from_slice(&self.timestamp.micros().to_be_bytes());
        joined.copy_from_slice(&(!self.origin_joined_at.micros()).to_be_bytes());
        uuid.copy_from_slice(self.uuid.as_bytes());
        bytes
    }
}

impl Ord for Version {
    /// The greater timestamp; then the *smaller* `joined_at` (the oldest-node rule); then the
    /// greater uuid.
    fn cmp(&self, other: &Self) -> Ordering {
        self.timestamp
            .cmp(&other.timestamp)
            .then_with(|| other.origin_joined_at.cmp(&self.origin_joined_at))
            .then_with(|| self.uuid.cmp(&other.uuid))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_version() -> impl Strategy<Value = Version> {
        // few values, so that ties happen all the time
        (0..4_u64, 0..3_u64, 0..4_u128).prop_map(|(t, j, u)| Version {
            timestamp: Timestamp::saturating(t),
            origin_joined_at: Timestamp::saturating(j),
            uuid: Uuid::from_u128(u),
        })
    }

    #[test]
    fn the_older_node_wins_a_tie_of_timestamps() {
        let version = |timestamp, joined, uuid| Version {
            timestamp: Timestamp::saturating(timestamp),
            origin_joined_at: Timestamp::saturating(joined),
            uuid: Uuid::from_u128(uuid),
        };
        assert!(version(2, 9, 0) > version(1, 1, 9));
        assert!(version(1, 1, 0) > version(1, 2, 9));
        assert!(version(1, 1, 2) > version(1, 1, 1));
    }

    proptest! {
        #[test]
        fn bytes_sort_as_versions_do(a in any_version(), b in any_version()) {
            prop_assert_eq!(a.cmp(&b), a.sortable().cmp(&b.sortable()));
        }
    }
}
