//! Collecting the dead: what the floor passes leaves the store.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use crate::proto::stability::floor;
use crate::store::disk::engine::Family;
use crate::store::disk::layout;
use crate::store::read::digest::visit_headers;
use crate::store::{ReadError, Shared, checked_key};

impl Shared {
    /// Checks that the index of the dead is that of the records.
    ///
    /// # Panics
    /// When it is not: a bug.
    pub(in crate::store) fn check_dead(&self) -> Result<(), ReadError> {
        let (mut expected, mut damaged) = (BTreeSet::new(), Ok(()));
        visit_headers(self.engine.as_ref(), &[], None, |key, summary| {
            if let Some(at) = floor::goes_at(&summary.header) {
                match checked_key(key) {
                    Ok(key) => drop(expected.insert(layout::expiry_key(at.0, &key))),
                    Err(error) => damaged = Err(error),
                }
            }
            ControlFlow::Continue(())
        })?;
        damaged?;
        let mut found = BTreeSet::new();
        self.engine.scan(Family::Dead, &[], None, &mut |entry, _| {
            found.insert(entry.to_vec());
            ControlFlow::Continue(())
        })?;
        assert_eq!(found, expected, "the index of the dead is not that of the records");
        Ok(())
    }
}
