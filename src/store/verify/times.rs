//! The indexes by time, of expiry and of the dead: each entry must lead to a record that expires,
//! or may go, at just that time. What they lack is found with the records.

use std::ops::ControlFlow;

use super::{Check, shown};
use crate::model::Timestamp;
use crate::proto::stability::floor;
use crate::store::disk::engine::{EngineError, Family};
use crate::store::disk::layout::{self, Body, Stored};

const DROPPED: &str = "nothing: the node drops the entry when its time has come";

impl Check<'_> {
    /// Verifies the index of expiry.
    pub(super) fn expiry(&mut self) -> Result<(), EngineError> {
        let expires = |stored: &Stored, at| {
            stored.header.expires_at == Some(at) && stored.body != Body::Swept
        };
        self.done.expiring = self.times(Family::Expiry, "no value of this key expires", expires)?;
        Ok(())
    }

    /// Verifies the index of the dead.
    pub(super) fn dead(&mut self) -> Result<(), EngineError> {
        let goes =
            |stored: &Stored, at| floor::goes_at(&stored.header).is_some_and(|floor| floor.0 == at);
        self.times(Family::Dead, "no record of this key may go", goes)?;
        Ok(())
    }

    /// Verifies an index by time; gives how many of its entries are right.
    fn times(
        &mut self,
        family: Family,
        problem: &str,
        is_right: impl Fn(&Stored, Timestamp) -> bool,
    ) -> Result<u64, EngineError> {
        let (engine, mut failed, mut right) = (self.engine, Ok(()), 0);
        engine.scan(family, &[], None, &mut |entry, _| {
            self.count();
            let Some((at, key)) = layout::split_instant(entry) else {
                let problem = "its key is not that of an entry".to_owned();
                self.found(family, &shown(entry), problem, DROPPED);
                return ControlFlow::Continue(());
            };
            let raw = match engine.get(Family::Records, key) {
                Ok(raw) => raw,
                Err(error) => {
                    failed = Err(error);
                    return ControlFlow::Break(());
                }
            };
            // a record that cannot be decoded is named with the records
            let stored = match raw.map(|raw| Stored::decode_for(key, &raw)) {
                Some(Err(_)) => return ControlFlow::Continue(()),
                Some(Ok(stored)) => Some(stored),
                None => None,
            };
            if stored.is_some_and(|stored| is_right(&stored, at)) {
                right += 1;
            } else {
                let problem = format!("{problem} at {}", at.rfc3339());
                self.found(family, &shown(key), problem, DROPPED);
            }
            ControlFlow::Continue(())
        })?;
        failed.map(|()| right)
    }
}
