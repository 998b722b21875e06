//! The digest of the store, in memory beside the data: built by one scan at start, changed by the
//! writer after each commit, and never rebuilt in operation.

use std::ops::ControlFlow;

use crate::proto::digest::{Delta, Digest, ElementKey, Sum};
use crate::store::disk::engine::{Engine, Family};
use crate::store::disk::layout::{self, Summary};
use crate::store::{Counts, ReadError};

/// The digest of all records, and how many there are.
pub struct Tree {
    /// See [`Digest`].
    pub digest: Digest,
    /// Live and dead records.
    pub counts: Counts,
    key: ElementKey,
}

/// Visits the headers and record hashes of `[from, to)` in key order, until `visit` breaks off.
///
/// # Errors
/// When storage fails or a record is damaged.
pub fn visit_headers(
    engine: &dyn Engine,
    from: &[u8],
    to: Option<&[u8]>,
    mut visit: impl FnMut(&[u8], &Summary) -> ControlFlow<()>,
) -> Result<(), ReadError> {
    let mut damaged = Ok(());
    engine.scan(Family::Records, from, to, &mut |key, bytes| match layout::decode_summary(
        key, bytes,
    ) {
        Ok(summary) => visit(key, &summary),
        Err(error) => {
            damaged = Err(error);
            ControlFlow::Break(())
        }
    })?;
    damaged
}

impl Tree {
    /// Builds both by one scan of `engine`.
    ///
    /// # Errors
    /// When storage fails or a record is damaged.
    pub fn build(engine: &dyn Engine, key: ElementKey) -> Result<Self, ReadError> {
        let mut digest = Digest::new(key.clone());
        let mut counts = Counts::default();
        visit_headers(engine, &[], None, |at, summary| {
            digest.append(at, &key.element(at, &summary.hash));
            counts.add(summary.is_dead);
            ControlFlow::Continue(())
        })?;
        Ok(Self { digest, counts, key })
    }

    /// The secret keys of the digest's hashes.
    pub fn element_key(&self) -> ElementKey {
        self.key.clone()
    }

    /// Follows a commit that `engine` already shows.
    ///
    /// # Errors
    /// When a leaf cannot be read. The tree is wrong then, and must be built again.
    pub fn follow(&mut self, engine: &dyn Engine, deltas: &[Delta]) -> Result<(), ReadError> {
        let key = self.key.clone();
        self.digest.apply(deltas, &mut |from, to| leaf_sum(engine, &key, from, to))
    }
}

/// The sum of the records in `[from, to)`, read from the engine.
///
/// # Errors
/// When storage fails or a record is damaged.
pub fn leaf_sum(
    engine: &dyn Engine,
    key: &ElementKey,
    from: &[u8],
    to: Option<&[u8]>,
) -> Result<Sum, ReadError> {
    let mut sum = Sum::default();
    visit_headers(engine, from, to, |at, summary| {
        sum.add(&key.element(at, &summary.hash));
        ControlFlow::Continue(())
    })?;
    Ok(sum)
}

impl Counts {
    /// Counts one record in.
    pub(in crate::store) fn add(&mut self, is_dead: bool) {
        *self.of(is_dead) += 1;
    }

    /// Counts one record out that was counted in before.
    ///
    /// # Panics
    /// When there is none: a bug.
    pub(in crate::store) fn remove(&mut self, is_dead: bool) {
        let count = self.of(is_dead);
        assert!(*count > 0, "a record leaves the counts that never entered them");
        *count -= 1;
    }

    fn of(&mut self, is_dead: bool) -> &mut u64 {
        if is_dead { &mut self.tombstones } else { &mut self.keys }
    }
}
