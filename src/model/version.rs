//! Versions: which of two writes of a key wins.
//!
//! The order depends on the two versions alone, so every node decides alike, whichever members it
//! knows. The record hash, the last step of the contract's order, is compared in
//! [`merge`](super::merge()), which has the records.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Timestamp;

/// Names one write, and orders it among the writes of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// When the origin accepted the write, by the origin's clock.
    pub timestamp: Timestamp,
    /// When the data directory of the origin was made, for the oldest-node rule.
    pub origin_joined_at: Timestamp,
    /// Unique to the write.
    #[serde(with = "uuid::serde::compact")]
    pub uuid: Uuid,
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
        // Few values, so that ties are common.
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

    /// The order of the contract as an order of bytes.
    fn sortable(version: &Version) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&version.timestamp.micros().to_be_bytes());
        bytes[8..16].copy_from_slice(&(!version.origin_joined_at.micros()).to_be_bytes());
        bytes[16..].copy_from_slice(version.uuid.as_bytes());
        bytes
    }

    proptest! {
        #[test]
        fn versions_order_as_their_sortable_bytes_do(a in any_version(), b in any_version()) {
            prop_assert_eq!(a.cmp(&b), sortable(&a).cmp(&sortable(&b)));
        }
    }
}
