//! Deciding on records that come from a peer.

use super::effects::Effects;
use super::job::Job;
use super::replace::Replacement;
use super::superseded;
use super::view::View;
use crate::model::{Key, Record, Timestamp};
use crate::proto::stability::Bearer;
use crate::proto::stability::floor::{self, Arrival};
use crate::store::disk::layout::Marks;
use crate::store::feed::Cause;
use crate::store::{Applied, Store, WriteError};

impl Store {
    /// Merges records from a peer, which must be whole ([`Record::is_whole`]) or swept
    /// ([`Record::is_swept`]). When this returns `Ok`, each is durable, has lost against what is,
    /// or is counted among those that were not taken ([`Applied`]): it lies below the floor, or is
    /// held back because it lies more than [`Settings::clock_drift_max`] ahead of this node's
    /// clock, or is swept and ends later than that here.
    ///
    /// [`Settings::clock_drift_max`]: crate::store::Settings::clock_drift_max
    ///
    /// # Errors
    /// When the node is stopping or storage failed; some may then have been merged.
    pub async fn apply(&self, records: Vec<(Key, Record)>) -> Result<Applied, WriteError> {
        self.submit(|reply| Job::Apply { records, bearer: None, reply }).await
    }

    /// As [`Self::apply`], as far as the ledger takes what comes so.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub async fn apply_from(
        &self,
        bearer: Bearer,
        records: Vec<(Key, Record)>,
    ) -> Result<Applied, WriteError> {
        self.submit(|reply| Job::Apply { records, bearer: Some(bearer), reply }).await
    }
}

/// What becomes of a record that comes from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reception {
    /// It took the place of what its key had, if anything.
    Taken,
    /// It is here already, or what its key has wins.
    Kept,
    /// Nothing changes any more where it lies.
    BelowFloor,
    /// It lies too far ahead of this node's clock, which merges it at this horizon: bars a
    /// session's claim until then.
    Held(Timestamp),
}

/// Merges one record with what its key has.
pub(super) fn decide(
    view: &mut View<'_>,
    key: &Key,
    record: Record,
) -> Result<(Reception, Effects), WriteError> {
    let mut effects = Effects::default();
    let mut current = view.current(key).map_err(WriteError::Failed)?;
    let header = current.as_ref().map(|current| &current.stored.header);
    let latest = view.wall.plus(view.rules.clock_drift_max);
    match floor::arrive(header, &record.header, view.floor, latest) {
        Arrival::Same | Arrival::Kept => return Ok((Reception::Kept, effects)),
        Arrival::BelowFloor => return Ok((Reception::BelowFloor, effects)),
        Arrival::Taken if may_be_swept(view, &record) => {}
        Arrival::TooEarly | Arrival::Taken => {
            let due = record.header.due(record.is_swept());
            return Ok((Reception::Held(due), effects));
        }
    }
    let displaced_twin =
        header.is_some_and(|header| header.version.timestamp == record.header.version.timestamp);
    if let Some(current) = &mut current {
        let reported = superseded::decide(view, key, current, &record.header, &mut effects);
        reported.map_err(WriteError::Failed)?;
    }
    let marks = Marks { displaced_twin, named: true, ..Marks::default() };
    let replacement = Replacement { key: key.clone(), current, record, marks, cause: Cause::Peer };
    replacement.decide(view, &mut effects).map_err(WriteError::Failed)?;
    Ok((Reception::Taken, effects))
}

/// Whether the record has its bytes, or can be taken without them: not before it has expired on
/// this node, as far as clocks may differ. Otherwise a peer whose clock is ahead would end values
/// early here.
fn may_be_swept(view: &View<'_>, record: &Record) -> bool {
    let latest = view.now.plus(view.rules.clock_drift_max);
    !record.is_swept() || record.header.expires_at.is_some_and(|at| at <= latest)
}
