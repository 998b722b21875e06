//! The digest of a set of records: a tree over key order that knows the sum of every range of keys.
//!
//! The keys themselves choose the block boundaries: a key starts a block of level L when its keyed
//! hash ends in enough zero bits. So the tree depends on the set alone, not on the order of
//! changes, and two replicas cut alike without agreeing on anything but the cluster's secret.
//!
//! A block holds the sum of its elements (keyed hashes of key and record, mod 2^256) and their
//! count. Sums can be undone: a change subtracts the old element and adds the new one. (Bellare and
//! Micciancio, "A New Paradigm for Collision-Free Hashing", 1997; XOR would cancel too easily.)
//!
//! The tree holds blocks only. Where it needs the sum of a part of a level 1 block, its caller
//! reads the records of that range; it must not know where they are stored.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::element::LEVEL_MAX;
pub use super::element::{Element, ElementKey, Place, ShortId, Sum};
use crate::model::record::RecordHash;

/// The change of one key. At least one of `old` and `new` is given.
#[derive(Clone, Debug)]
pub struct Delta {
    /// The changed key, never empty.
    pub key: Box<[u8]>,
    /// The element that the digest holds for the key; `None` when it holds none.
    pub old: Option<Element>,
    /// The element that replaces it; `None` when the record leaves the digest.
    pub new: Option<Element>,
}

/// The start and the sum of a block, or of the part of a block that lies in a range.
pub type Piece = (Box<[u8]>, Sum);

type Blocks = BTreeMap<Box<[u8]>, Sum>;

/// The blocks of all levels above the records.
///
/// Invariants:
/// - each level has a block that starts at the empty key; each other block starts at a held key of
///   at least that level, and each such key starts one;
/// - so a boundary of a level is one on all levels below, and the highest level has a boundary
///   besides the empty key;
/// - a block is the sum of the blocks of the level below inside it; the blocks of a level add up to
///   the root.
pub struct Digest {
    /// At index i the blocks of level i + 1.
    levels: Vec<Blocks>,
    root: Sum,
    key: ElementKey,
}

/// Reads the sum of the records in `[from, to)`, where `to` = `None` means the end of all keys.
pub type ReadLeaf<'a, E> = dyn FnMut(&[u8], Option<&[u8]>) -> Result<Sum, E> + 'a;

impl Digest {
    /// The digest of no records.
    #[must_use]
    pub fn new(key: ElementKey) -> Self {
        Self { levels: Vec::new(), root: Sum::default(), key }
    }

    /// Adds a record whose key is greater than all keys added before: builds a digest from a scan.
    ///
    /// # Panics
    /// When the key is empty, or not greater than the last boundary.
    pub fn append(&mut self, key: &[u8], element: &Element) {
        assert!(!key.is_empty(), "no record has an empty key");
        let place = self.key.place(key);
        self.grow(place.level);
        self.root.add(element);
        for (level, blocks) in (1..).zip(&mut self.levels) {
            let last = blocks.last_key_value().map(|(start, _)| &**start);
            assert!(last < Some(key), "keys are appended in ascending order");
            if level <= place.level {
                blocks.insert(key.into(), Sum::default());
            }
            block_of(blocks, key).add(element);
        }
    }

    /// Makes levels up to `level` exist; a new one is a single block.
    fn grow(&mut self, level: u8) {
        while self.levels.len() < usize::from(level) {
            self.levels.push(BTreeMap::from([(Box::default(), self.root)]));
        }
    }

    /// Applies changes of distinct keys, which `read_leaf` must show already.
    ///
    /// # Errors
    /// When a leaf cannot be read. Blocks are missing then, though all sums agree: build the digest
    /// again from a scan.
    ///
    /// # Panics
    /// When a delta has neither `old` nor `new`, two have one key, or one contradicts the tree: the
    /// caller lost track of a record.
    pub fn apply<E>(&mut self, deltas: &[Delta], read_leaf: &mut ReadLeaf<'_, E>) -> Result<(), E> {
        let mut deltas: Vec<&Delta> = deltas.iter().collect();
        deltas.sort_unstable_by(|a, b| b.key.cmp(&a.key));
        assert!(deltas.is_sorted_by(|a, b| a.key > b.key), "two deltas change one key");
        // All sums first, so that the tree agrees with the records that splits read.
        for delta in &deltas {
            self.change_sums(delta);
        }
        for delta in deltas.iter().filter(|delta| delta.new.is_none()) {
            self.merge(&delta.key);
        }
        // In descending order, so that no part of a leaf is read twice.
        let mut joined = deltas.iter().filter(|delta| delta.old.is_none());
        let split = joined.try_for_each(|delta| self.split(&delta.key, read_leaf));
        while self.levels.last().is_some_and(|blocks| blocks.len() == 1) {
            self.levels.pop();
        }
        split
    }

    /// Changes the root and the block of the key on each level.
    fn change_sums(&mut self, delta: &Delta) {
        assert!(!delta.key.is_empty(), "no record has an empty key");
        assert!(delta.old.is_some() || delta.new.is_some(), "a delta changes nothing");
        let blocks = self.levels.iter_mut().map(|blocks| block_of(blocks, &delta.key));
        for sum in blocks.chain([&mut self.root]) {
            if let Some(old) = &delta.old {
                sum.remove(old);
            }
            if let Some(new) = &delta.new {
                sum.add(new);
            }
        }
    }

    /// Joins the blocks that start at `key`, which has left, with those on their left.
    #[expect(clippy::expect_used, reason = "a held key starts a block on each of its levels")]
    fn merge(&mut self, key: &[u8]) {
        let level = usize::from(self.key.place(key).level);
        assert!(level <= self.levels.len(), "a key leaves that the digest does not hold");
        for blocks in self.levels.iter_mut().take(level) {
            let rest = blocks.remove(key).expect("a key leaves that the digest does not hold");
            block_of(blocks, key).add_sum(&rest);
        }
    }

    /// Starts blocks at `key`, which is new, on all of its levels.
    fn split<E>(&mut self, key: &[u8], read_leaf: &mut ReadLeaf<'_, E>) -> Result<(), E> {
        let level = self.key.place(key).level;
        self.grow(level);
        for level in 1..=level {
            let end = self.next_boundary(level, key);
            // `key` already starts a block on the level below: only level 1 reads records.
            let right = self.sum_from(level - 1, key, end.as_deref(), read_leaf)?;
            let blocks = self.blocks_of_mut(level);
            block_of(blocks, key).remove_sum(&right);
            let twin = blocks.insert(key.into(), right);
            assert_eq!(twin, None, "a key joins that the digest holds already");
        }
        Ok(())
    }

    #[expect(clippy::expect_used, reason = "callers make the level exist first")]
    fn blocks_of_mut(&mut self, level: u8) -> &mut Blocks {
        self.levels.get_mut(usize::from(level) - 1).expect("the level exists")
    }

    fn blocks_of(&self, level: u8) -> Option<&Blocks> {
        self.levels.get(usize::from(level).checked_sub(1)?)
    }

    fn next_boundary(&self, level: u8, key: &[u8]) -> Option<Box<[u8]>> {
        let above = (Bound::Excluded(key), Bound::Unbounded);
        self.blocks_of(level)?.range::<[u8], _>(above).next().map(|(start, _)| start.clone())
    }

    /// The sum of all records.
    #[must_use]
    pub fn root(&self) -> Sum {
        self.root
    }

    /// The highest level that has blocks; 0 when no held key is a boundary.
    #[must_use]
    pub fn height(&self) -> u8 {
        u8::try_from(self.levels.len()).unwrap_or(LEVEL_MAX)
    }

    /// The sum of the records in `[from, to)`. Reads at most the leaves at the two ends.
    ///
    /// # Errors
    /// When a leaf cannot be read.
    pub fn sum<E>(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        read_leaf: &mut ReadLeaf<'_, E>,
    ) -> Result<Sum, E> {
        if from.is_empty() && to.is_none() {
            return Ok(self.root);
        }
        self.sum_from(self.height(), from, to, read_leaf)
    }

    /// The sum of `[from, to)` from blocks of `level` and, at the two ends, of lower levels.
    fn sum_from<E>(
        &self,
        level: u8,
        from: &[u8],
        to: Option<&[u8]>,
        read_leaf: &mut ReadLeaf<'_, E>,
    ) -> Result<Sum, E> {
        if to.is_some_and(|to| to <= from) {
            return Ok(Sum::default());
        }
        // A level above the highest has no blocks; reading a leaf instead would read all records.
        let level = level.min(self.height());
        let Some(blocks) = self.blocks_of(level) else { return read_leaf(from, to) };
        let end = to.map_or(Bound::Unbounded, Bound::Excluded);
        let mut inside = blocks.range::<[u8], _>((Bound::Included(from), end)).peekable();
        let Some((first, _)) = inside.peek() else {
            return self.sum_from(level - 1, from, to, read_leaf);
        };
        let mut sum = self.sum_from(level - 1, from, Some(first), read_leaf)?;
        while let Some((start, block)) = inside.next() {
            let ends_inside = match (inside.peek(), to) {
                (Some(_), _) | (None, None) => true,
                (None, Some(to)) => blocks.contains_key(to),
            };
            if ends_inside {
                sum.add_sum(block);
            } else {
                sum.add_sum(&self.sum_from(level - 1, start, to, read_leaf)?);
            }
        }
        Ok(sum)
    }

    /// Cuts `[from, to)` at the boundaries of `level` inside it, in key order. The first piece
    /// starts at `from`; an empty range has none.
    ///
    /// # Errors
    /// When a leaf cannot be read.
    pub fn pieces<E>(
        &self,
        level: u8,
        from: &[u8],
        to: Option<&[u8]>,
        read_leaf: &mut ReadLeaf<'_, E>,
    ) -> Result<Vec<Piece>, E> {
        if to.is_some_and(|to| to <= from) {
            return Ok(Vec::new());
        }
        let end = to.map_or(Bound::Unbounded, Bound::Excluded);
        let mut starts: Vec<&[u8]> = vec![from];
        if let Some(blocks) = self.blocks_of(level) {
            let inner = blocks.range::<[u8], _>((Bound::Excluded(from), end));
            starts.extend(inner.map(|(start, _)| &**start));
        }
        let ends = starts.iter().skip(1).map(|start| Some(*start)).chain([to]);
        let mut pieces = Vec::with_capacity(starts.len());
        for (start, end) in starts.iter().zip(ends) {
            pieces.push(((*start).into(), self.sum_from(level, start, end, read_leaf)?));
        }
        Ok(pieces)
    }

    /// How many boundaries of `level` lie inside `[from, to)` after `from`, counted up to `most`.
    #[must_use]
    pub fn boundaries(&self, level: u8, from: &[u8], to: Option<&[u8]>, most: usize) -> usize {
        if to.is_some_and(|to| to <= from) {
            return 0;
        }
        let end = to.map_or(Bound::Unbounded, Bound::Excluded);
        self.blocks_of(level).map_or(0, |blocks| {
            blocks.range::<[u8], _>((Bound::Excluded(from), end)).take(most).count()
        })
    }

    /// The place of a key in the tree, whether it is held or not.
    #[must_use]
    pub fn place(&self, key: &[u8]) -> Place {
        self.key.place(key)
    }

    /// The element of a record.
    #[must_use]
    pub fn element(&self, key: &[u8], hash: &RecordHash) -> Element {
        self.key.element(key, hash)
    }

    /// Checks all invariants that need no records, in time linear in the number of blocks.
    ///
    /// # Panics
    /// When one does not hold: a bug.
    pub fn check_invariants(&self) {
        assert!(self.levels.len() <= usize::from(LEVEL_MAX), "more levels than a key can have");
        assert!(self.levels.last().is_none_or(|top| top.len() > 1), "the top level cuts nothing");
        let mut below: Option<&Blocks> = None;
        for (level, blocks) in (1..).zip(&self.levels) {
            assert!(blocks.contains_key(&[][..]), "level {level} has no first block");
            for (start, sum) in blocks.iter().filter(|(start, _)| !start.is_empty()) {
                let is_boundary = self.key.place(start).level >= level;
                assert!(is_boundary, "a block of level {level} starts at a lower key");
                assert!(sum.count > 0, "a block of level {level} lacks its first key");
            }
            if let Some(below) = below {
                check_inner_sums(level, blocks, below);
            }
            let mut total = Sum::default();
            for sum in blocks.values() {
                total.add_sum(sum);
            }
            assert_eq!(total, self.root, "the blocks of level {level} do not add up to the root");
            below = Some(blocks);
        }
    }

    /// Checks that this digest equals `scanned`, which [`Digest::append`] built from a scan of all
    /// records.
    ///
    /// # Panics
    /// When they differ: this digest missed a change.
    pub fn check_against(&self, scanned: &Self) {
        assert_eq!(self.root, scanned.root, "the root is not the sum of the records");
        assert_eq!(self.height(), scanned.height(), "the tree is not as high as its records ask");
        for (level, (mine, theirs)) in (1..).zip(self.levels.iter().zip(&scanned.levels)) {
            assert_eq!(mine, theirs, "the blocks of level {level} are not those of the records");
        }
    }
}

/// Checks that each block of `level` is the sum of the blocks of the level below inside it.
fn check_inner_sums(level: u8, blocks: &Blocks, below: &Blocks) {
    let nested = blocks.keys().all(|start| below.contains_key(start));
    assert!(nested, "level {level} cuts where the level below does not");
    let ends = blocks.keys().skip(1).map(|start| Bound::Excluded(&**start));
    for ((start, sum), end) in blocks.iter().zip(ends.chain([Bound::Unbounded])) {
        let mut inner = Sum::default();
        for (_, part) in below.range::<[u8], _>((Bound::Included(&**start), end)) {
            inner.add_sum(part);
        }
        assert_eq!(*sum, inner, "a block of level {level} is not the sum of its parts");
    }
}

/// The block that holds `key`.
#[expect(clippy::expect_used, reason = "each level has a block that starts at the empty key")]
fn block_of<'a>(blocks: &'a mut Blocks, key: &[u8]) -> &'a mut Sum {
    let up_to_key = (Bound::Unbounded, Bound::Included(key));
    blocks.range_mut::<[u8], _>(up_to_key).next_back().expect("a level has no first block").1
}

#[cfg(test)]
#[path = "digest_tests.rs"]
mod tests;
