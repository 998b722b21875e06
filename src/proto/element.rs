//! Elements and sums: what a record adds to a digest, and the place of its key in the tree.
//!
//! All hashes are keyed with a secret of the cluster, so that nobody outside of it can choose keys
//! or values that collide or unbalance the tree. Must not know blocks.

use serde::{Deserialize, Serialize};

use crate::model::record::RecordHash;

/// The zero bits of a hash that count as one level: an expected fan-out of 16.
const LEVEL_BITS: u32 = 4;
/// The highest level. At this fan-out it is reached with 16^12 records, more than any store holds.
pub(super) const LEVEL_MAX: u8 = 12;

/// What a record adds to a digest: the keyed hash of its key and its record hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element(pub(super) [u8; 32]);

/// An element cut to eight bytes, which names a record, as it is now, in a listing.
pub type ShortId = [u8; 8];

impl Element {
    /// The first eight bytes.
    #[must_use]
    pub fn short(&self) -> ShortId {
        let mut short = [0; 8];
        short.iter_mut().zip(self.0).for_each(|(to, from)| *to = from);
        short
    }
}

/// A sum of elements mod 2^256, and how many they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    pub(super) words: [u64; 4],
    /// The number of elements.
    pub count: u64,
}

impl Sum {
    /// Adds or subtracts 256-bit numbers word by word, with a carry.
    fn step(&mut self, other: &[u64; 4], op: fn(u64, u64) -> (u64, bool)) {
        let mut carry = false;
        for (word, other) in self.words.iter_mut().zip(other) {
            let (sum, over) = op(*word, *other);
            let (sum, over_by_carry) = op(sum, u64::from(carry));
            *word = sum;
            carry = over || over_by_carry;
        }
    }

    /// Adds to the count or subtracts from it.
    #[expect(clippy::expect_used, reason = "a count that wraps means that the digest is wrong")]
    fn recount(&mut self, op: fn(u64, u64) -> Option<u64>, change: u64) {
        self.count = op(self.count, change).expect("the count of a sum wraps");
    }

    /// Adds an element.
    pub fn add(&mut self, element: &Element) {
        self.step(&words(&element.0), u64::overflowing_add);
        self.recount(u64::checked_add, 1);
    }

    /// Removes an element that was added before.
    ///
    /// # Panics
    /// When the sum has no elements.
    pub fn remove(&mut self, element: &Element) {
        self.step(&words(&element.0), u64::overflowing_sub);
        self.recount(u64::checked_sub, 1);
    }

    /// Adds all elements of `other`.
    ///
    /// # Panics
    /// When the count overflows: never for sums of this node's records. A sum from the wire can
    /// have any count, so it must not come here.
    pub fn add_sum(&mut self, other: &Self) {
        self.step(&other.words, u64::overflowing_add);
        self.recount(u64::checked_add, other.count);
    }

    /// Removes all elements of `other`, which were added before.
    ///
    /// # Panics
    /// When `other` has more elements.
    pub(super) fn remove_sum(&mut self, other: &Self) {
        self.step(&other.words, u64::overflowing_sub);
        self.recount(u64::checked_sub, other.count);
    }

    /// The low 128 bits. They add up like whole sums, with wrapping.
    #[must_use]
    pub fn low(&self) -> u128 {
        let [a, b, ..] = self.words;
        u128::from(a) | (u128::from(b) << 64)
    }

    /// A hash of the sum: equal for equal sets of records in a cluster. For people and reports, so
    /// it must stay the same between versions.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("kvs 2026-11 fingerprint v1");
        for word in self.words {
            hasher.update(&word.to_le_bytes());
        }
        hasher.update(&self.count.to_le_bytes());
        hasher.finalize().into()
    }
}

fn words(bytes: &[u8; 32]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = chunk.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte));
    }
    words
}

/// The place of a key in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The highest level on which the key starts a block; 0 when it starts none.
    pub level: u8,
    /// Names the key among the boundaries of a range. Two keys can have the same.
    pub short: u32,
}

/// The keys of the hashes that make elements and places.
#[derive(Clone)]
pub struct ElementKey {
    element: [u8; 32],
    place: [u8; 32],
    level_bits: u32,
}

impl ElementKey {
    /// Derives the keys from the cluster's digest key.
    #[must_use]
    pub fn new(digest_key: &[u8; 32]) -> Self {
        Self::with_level_bits(digest_key, LEVEL_BITS)
    }

    /// Like [`Self::new`] with a fan-out of 2 to the power of `level_bits`, which is at least 1:
    /// tests use a small one to get many levels.
    #[must_use]
    pub fn with_level_bits(digest_key: &[u8; 32], level_bits: u32) -> Self {
        Self {
            element: blake3::derive_key("kvs 2026-11 digest element v1", digest_key),
            place: blake3::derive_key("kvs 2026-11 digest place v1", digest_key),
            level_bits,
        }
    }

    /// The element of the record with this key and record hash.
    #[must_use]
    pub fn element(&self, key: &[u8], hash: &RecordHash) -> Element {
        let mut hasher = blake3::Hasher::new_keyed(&self.element);
        hasher.update(hash);
        hasher.update(key);
        Element(hasher.finalize().into())
    }

    /// The place of a key in the tree.
    #[must_use]
    pub fn place(&self, key: &[u8]) -> Place {
        let hash: [u8; 32] = blake3::keyed_hash(&self.place, key).into();
        let [bits, short, ..] = words(&hash);
        let level = (bits.trailing_zeros() / self.level_bits).min(u32::from(LEVEL_MAX));
        let [a, b, c, d, ..] = short.to_le_bytes();
        Place {
            level: u8::try_from(level).unwrap_or(LEVEL_MAX),
            short: u32::from_le_bytes([a, b, c, d]),
        }
    }
}
