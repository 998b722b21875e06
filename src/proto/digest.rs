//! The digest: a tree over key order whose every range has a fingerprint.
//!
//! Block boundaries are chosen by the keys themselves: a key starts a block of level L when its
//! keyed hash ends in enough zero bits, so two replicas cut alike without talking, whatever order
//! the keys came in. A block holds the sum of its elements (keyed hashes of key and record, mod
//! 2^256) and their count; sums can be undone, so a change subtracts the old element and adds the
//! new one. (Bellare and Micciancio, "A New Paradigm for Collision-Free Hashing", 1997; XOR would
//! cancel too easily.) Only the blocks are kept here; what lies inside a block of level 1 is read
//! from outside.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::element::LEVEL_MAX;
pub use super::element::{Element, ElementKey, Place, ShortId, Sum};
use crate::model::record::RecordHash;

/// One key's change: the element that it had and the one that it has now.
#[derive(Clone, Debug)]
pub struct Delta {
    /// The key.
    pub key: Box<[u8]>,
    /// What it added before; `None` when the key was not held.
    pub old: Option<Element>,
    /// What it adds now. Keys are never dropped yet.
    pub new: Element,
}

/// A piece of a range: where it starts, and its sum.
pub type Piece = (Box<[u8]>, Sum);

type Blocks = BTreeMap<Box<[u8]>, Sum>;

/// The tree of blocks above the leaves.
///
/// Invariants: each level has a block that starts at the empty key; every other block starts at a
/// held key of at least that level, and every such key starts one; the blocks of a level add up to
/// the root.
pub struct Digest {
    /// At index i the blocks of level i + 1.
    levels: Vec<Blocks>,
    root: Sum,
    key: ElementKey,
}

/// Reads the sum of the records in a range of keys from where the records are.
pub type ReadLeaf<'a, E> = dyn FnMut(&[u8], Option<&[u8]>) -> Result<Sum, E> + 'a;

impl Digest {
    /// The digest of no records.
    #[must_use]
    pub fn new(key: ElementKey) -> Self {
        Self { levels: Vec::new(), root: Sum::default(), key }
    }

    /// Adds a record whose key is greater than all keys that were added before: how a digest is
    /// built from a scan.
    pub fn append(&mut self, key: &[u8], element: &Element) {
        let place = self.key.place(key);
        self.grow(place.level);
        self.root.add(element);
        for (level, blocks) in (1..).zip(&mut self.levels) {
            if level <= place.level {
                blocks.insert(key.into(), Sum::default());
            }
            if let Some(mut last) = blocks.last_entry() {
                last.get_mut().add(element);
            }
        }
    }

    /// Makes levels up to `level` exist; a new one is a single block.
    fn grow(&mut self, level: u8) {
        while self.levels.len() < usize::from(level) {
            self.levels.push(BTreeMap::from([(Box::default(), self.root)]));
        }
    }

    /// Applies changes of distinct keys that are already visible to `read_leaf`.
    ///
    /// # Errors
    /// When a leaf cannot be read; the digest must then be built anew.
    pub fn apply<E>(&mut self, deltas: &[Delta], read_leaf: &mut ReadLeaf<'_, E>) -> Result<(), E> {
        // first all sums, so that the digest agrees with what leaves are read from
        for delta in deltas {
            let change = |sum: &mut Sum| {
                if let Some(old) = &delta.old {
                    sum.remove(old);
                }
                sum.add(&delta.new);
            };
            change(&mut self.root);
            for blocks in &mut self.levels {
                let below = (Bound::Unbounded, Bound::Included(&*delta.key));
                if let Some((_, sum)) = blocks.range_mut::<[u8], _>(below).next_back() {
                    change(sum);
                }
            }
        }
        // then new boundaries, the greatest first, so that each leaf is read once
        let mut fresh: Vec<_> = deltas
            .iter()
            .filter(|delta| delta.old.is_none())
            .map(|delta| (&delta.key, self.key.place(&delta.key).level))
            .filter(|(_, level)| *level > 0)
            .collect();
        fresh.sort_unstable_by(|a, b| b.0.cmp(a.0));
        for (key, level) in fresh {
            self.split(key, level, read_leaf)?;
        }
        Ok(())
    }

    /// Starts new blocks at `key` on all levels up to `level`.
    fn split<E>(
        &mut self,
        key: &[u8],
        level: u8,
        read_leaf: &mut ReadLeaf<'_, E>,
    ) -> Result<(), E> {
        self.grow(level);
        for at in 1..=level {
            let end = self.next_boundary(at, key);
            // on the level below, `key` already is a boundary
            let right = self.sum_from(at - 1, key, end.as_deref(), read_leaf)?;
            let Some(blocks) = self.levels.get_mut(usize::from(at) - 1) else { continue };
            let below = (Bound::Unbounded, Bound::Excluded(key));
            if let Some((_, left)) = blocks.range_mut::<[u8], _>(below).next_back() {
                left.remove_sum(&right);
            }
            blocks.insert(key.into(), right);
        }
        Ok(())
    }

    fn blocks_of(&self, level: u8) -> Option<&Blocks> {
        self.levels.get(usize::from(level).checked_sub(1)?)
    }

    fn next_boundary(&self, level: u8, key: &[u8]) -> Option<Box<[u8]>> {
        let above = (Bound::Excluded(key), Bound::Unbounded);
        self.blocks_of(level)?.range::<[u8], _>(above).next().map(|(start, _)| start.clone())
    }

    /// The sum of everything.
    #[must_use]
    pub fn root(&self) -> Sum {
        self.root
    }

    /// The highest level that has blocks.
    #[must_use]
    pub fn height(&self) -> u8 {
        u8::try_from(self.levels.len()).unwrap_or(LEVEL_MAX)
    }

    /// The sum of the records in `[from, to)`; reads at most the leaves at its two ends.
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

    /// The sum of `[from, to)` out of blocks of `level` and, at the ends, of lower ones.
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
        // above the highest level there is nothing to go by, and a leaf would be everything
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

    /// Cuts `[from, to)` at its boundaries of `level`: the start of each piece and its sum. The
    /// first piece starts at `from`.
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

    /// How many boundaries of `level` lie inside `[from, to)`, counted up to `most`.
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

    /// Where a key stands.
    #[must_use]
    pub fn place(&self, key: &[u8]) -> Place {
        self.key.place(key)
    }

    /// The element of a record.
    #[must_use]
    pub fn element(&self, key: &[u8], hash: &RecordHash) -> Element {
        self.key.element(key, hash)
    }

    /// Checks the invariants that need no records.
    ///
    /// # Panics
    /// When one does not hold: a bug.
    pub fn check_invariants(&self) {
        for (level, blocks) in (1..).zip(&self.levels) {
            let mut total = Sum::default();
            for (start, sum) in blocks {
                total.add_sum(sum);
                let place = self.key.place(start);
                assert!(start.is_empty() || place.level >= level, "a boundary of too low a level");
            }
            assert_eq!(total, self.root, "the blocks of level {level} do not add up to the root");
            assert!(blocks.contains_key(&[][..]), "level {level} has no first block");
        }
    }
}

#[cfg(test)]
#[path = "digest_tests.rs"]
mod tests;
