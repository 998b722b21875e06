//! The digest of what is stored, kept beside it: built by one scan at start, then changed by the
//! writer after each commit, never rebuilt in operation.

use std::ops::ControlFlow;

use super::engine::{Engine, Family};
use super::layout::{self, Summary};
use super::{Counts, ReadError};
use crate::proto::digest::{Delta, Digest, ElementKey, Sum};

/// The digest and the counts of one moment.
pub struct Tree {
    /// The digest.
    pub digest: Digest,
    /// The counts.
    pub counts: Counts,
    key: ElementKey,
}

/// Visits headers and record hashes of `[from, to)` in key order.
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
    /// Builds it from everything that `engine` holds.
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

    /// The keys of its hashes.
    pub fn element_key(&self) -> ElementKey {
        self.key.clone()
    }

    /// Follows a commit; `engine` must show it already.
    ///
    /// # Errors
    /// When a leaf cannot be read; the tree is then of no use any more.
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
    /// Counts a record in.
    pub(super) fn add(&mut self, is_dead: bool) {
        *self.of(is_dead) += 1;
    }

    /// Counts a record out.
    pub(super) fn remove(&mut self, is_dead: bool) {
        *self.of(is_dead) -= 1;
    }

    fn of(&mut self, is_dead: bool) -> &mut u64 {
        if is_dead { &mut self.tombstones } else { &mut self.keys }
    }
}
