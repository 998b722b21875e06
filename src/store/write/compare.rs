//! Comparing contents before the writer decides.
//!
//! Comparing JSON takes time, and the one writer has none to spare. So a condition that looks into
//! a value is compared with the live record of the moment on another thread. The writer takes that
//! comparison over if the record is still the current one; otherwise it asks for another round. The
//! writer stays the only place that decides.

use std::sync::Arc;

use crate::model::condition::Current;
use crate::model::record::RecordHash;
use crate::model::{Condition, Key};
use crate::store::{Store, WriteError};

/// How many requests compare contents at once. Each may take some times a value's size in memory.
pub(in crate::store) const COMPARISONS_MAX: usize = 2;

/// The conditions of a request that look into values, with the keys they are about.
pub(super) type ContentConditions = Arc<Vec<(Key, Condition)>>;

/// A condition compared with a record.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// The live record it was compared with; `None`: there was none.
    pub(super) with: Option<RecordHash>,
    /// Whether it holds.
    pub(super) holds: bool,
}

/// What is known of a request's conditions that look into values.
#[derive(Clone, Debug)]
pub enum Comparisons {
    /// Each was compared, in the order of the conditions.
    Done(Vec<Comparison>),
    /// The writer must compare itself.
    Open,
}

/// How much content the compares of one request may still look into. The first value is always
/// allowed, so that a single compare never fails for its size.
pub(super) struct ContentBudget {
    left: usize,
    is_used: bool,
}

impl ContentBudget {
    pub fn new(bytes_max: usize) -> Self {
        Self { left: bytes_max, is_used: false }
    }

    /// Takes the bytes of one value.
    ///
    /// # Errors
    /// [`WriteError::ContentTooLarge`] when the budget is used up.
    pub fn take(&mut self, bytes: usize) -> Result<(), WriteError> {
        let is_first = !std::mem::replace(&mut self.is_used, true);
        let left = self.left.checked_sub(bytes);
        self.left = left.or(is_first.then_some(0)).ok_or(WriteError::ContentTooLarge)?;
        Ok(())
    }
}

impl Store {
    /// Compares `conditions` with the live values of their keys, on a thread that may block.
    pub(super) async fn compare(
        &self,
        conditions: ContentConditions,
    ) -> Result<Vec<Comparison>, WriteError> {
        // the semaphore is never closed
        let _permit = self.shared.comparisons.acquire().await.ok();
        let compare = move |store: &Self| {
            let mut budget = ContentBudget::new(store.shared.compared_bytes_max);
            let compare = |(key, condition): &(Key, Condition)| {
                store.compare_now(key, condition, &mut budget)
            };
            conditions.iter().map(compare).collect()
        };
        self.blocking(compare).await
    }

    fn compare_now(
        &self,
        key: &Key,
        condition: &Condition,
        budget: &mut ContentBudget,
    ) -> Result<Comparison, WriteError> {
        let Some((stored, body)) = self.shared.live(key).map_err(WriteError::Failed)? else {
            return Ok(Comparison { with: None, holds: condition.holds(None) });
        };
        budget.take(body.len())?;
        let current = Current { header: &stored.header, displaced_twin: false, body: Some(&body) };
        Ok(Comparison { with: Some(stored.hash), holds: condition.holds(Some(current)) })
    }
}
