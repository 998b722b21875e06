//! The auditor: stands outside of the nodes and knows every write that was acknowledged.

use std::collections::BTreeMap;

use kvs::model::{Header, Key, Version};
use uuid::Uuid;

/// What became of the writes of clients.
#[derive(Default)]
pub struct Audit {
    /// The greatest acknowledged version of each key.
    greatest: BTreeMap<Key, Version>,
    /// All acknowledged writes: uuid to key.
    acked: BTreeMap<Uuid, Key>,
    /// Writes under way when their node crashed, by key: nobody knows whether they took place.
    unknown: BTreeMap<Key, u64>,
    /// Swaps that succeeded: which version was swapped, on which node, and by which write.
    swapped: BTreeMap<(Uuid, usize), Uuid>,
}

impl Audit {
    /// A node acknowledged a write.
    pub fn acknowledged(&mut self, key: &Key, header: &Header) {
        let version = header.version;
        let known = self.acked.insert(version.uuid, key.clone());
        assert_eq!(known, None, "two writes with one uuid");
        let greatest = self.greatest.entry(key.clone()).or_insert(version);
        *greatest = version.max(*greatest);
    }

    /// A swap that expected the version `expected` succeeded on a node. No other may on that node;
    /// on another node, one may.
    pub fn swapped(&mut self, expected: Uuid, node: usize, won: Uuid) {
        let before = self.swapped.insert((expected, node), won);
        assert_eq!(before, None, "two swaps of {expected} succeeded on node {node}");
    }

    pub fn outcome_unknown(&mut self, key: &Key) {
        *self.unknown.entry(key.clone()).or_default() += 1;
    }

    pub fn count(&self) -> u64 {
        self.acked.len() as u64
    }

    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.greatest.keys()
    }

    /// What a node holds for a key: `at_the_end`, when all have met, it must be the greatest write;
    /// before, it must be a write that somebody made.
    pub fn check(&self, key: &Key, held: Option<&Header>, at_the_end: bool) {
        let greatest = self.greatest.get(key);
        let Some(held) = held else {
            assert!(!at_the_end || greatest.is_none(), "{key}: an acknowledged write is gone");
            return;
        };
        let from_a_client = self.acked.get(&held.version.uuid) == Some(key);
        let perhaps = self.unknown.contains_key(key);
        assert!(from_a_client || perhaps, "{key}: {held:?} was written by nobody");
        if at_the_end && let Some(greatest) = greatest {
            assert!(held.version >= *greatest, "{key}: {held:?} stands, {greatest:?} was lost");
        }
    }
}
