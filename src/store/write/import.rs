//! Deciding on records of an export, which keep their versions.
//!
//! One that wins against what its key has is taken as it is, like a record from a peer, unless it
//! lies where this node can take nothing any more, or ahead of its clock: then it is written anew,
//! under the same uuid. So an import that is repeated changes nothing.

use super::decide;
use super::effects::Effects;
use super::replace::Replacement;
use super::superseded;
use super::view::{CurrentEntry, View};
use crate::model::{Header, Key, Merged, Seen, Version, merge};
use crate::proto::stability::floor;
use crate::store::disk::layout::Marks;
use crate::store::feed::Cause;
use crate::store::{ImportFate, ImportedRecord, WriteError};

/// Decides on one record.
pub(super) fn decide(
    view: &mut View<'_>,
    record: ImportedRecord,
) -> Result<(ImportFate, Effects), WriteError> {
    let mut effects = Effects::default();
    view.admit_import()?;
    let ImportedRecord { key, mut record } = record;
    let mut current = view.current(&key).map_err(WriteError::Failed)?;
    if !wins(current.as_ref(), &record.header) {
        return Ok((ImportFate::Lost, effects));
    }
    if record.header.expires_at.is_some_and(|at| at <= view.now) {
        return Ok((ImportFate::Expired, effects));
    }
    let mut marks = Marks { named: true, ..Marks::default() };
    let fate = if keeps(view, &record.header) {
        if let Some(current) = &mut current {
            let timestamp = record.header.version.timestamp;
            marks.displaced_twin = current.stored.header.version.timestamp == timestamp;
            report_lost(view, &key, current, &record.header, &mut effects)?;
        }
        ImportFate::Written
    } else {
        let before = current.as_ref().map(|current| &current.stored.header);
        stamp_anew(view, before, &mut record.header)?;
        ImportFate::Restamped
    };
    let replacement = Replacement { key, current, record, marks, cause: Cause::Client };
    replacement.decide(view, &mut effects).map_err(WriteError::Failed)?;
    Ok((fate, effects))
}

/// Whether a record keeps its version: not ahead of the clock, nor where other nodes rely on this
/// one to add nothing, at or below a point that it may have told them.
fn keeps(view: &View<'_>, header: &Header) -> bool {
    let timestamp = header.version.timestamp;
    let is_open = !view.is_of_cluster() || timestamp > view.point;
    // what goes at or below the floor is collected already, and no step of it comes by again
    is_open && timestamp <= view.wall && !floor::may_go(header, view.floor)
}

/// Whether `header` takes the place of what its key has. What was written anew from it stays.
fn wins(current: Option<&CurrentEntry>, header: &Header) -> bool {
    let Some(current) = current.map(|current| &current.stored.header) else { return true };
    let is_it = current.version.uuid == header.version.uuid && current.content == header.content;
    !is_it && merge(Some(current), header) == Merged::Replaced
}

/// Reports the write that loses its place, unless the winner replaced that very write.
fn report_lost(
    view: &mut View<'_>,
    key: &Key,
    current: &mut CurrentEntry,
    winner: &Header,
    effects: &mut Effects,
) -> Result<(), WriteError> {
    if winner.parent == Some(current.stored.header.version.uuid) {
        return Ok(());
    }
    let reported = superseded::decide(view, key, current, winner, effects);
    reported.map_err(WriteError::Failed)
}

/// Makes `header` a new write of this node in the place of `before`, under the same uuid.
fn stamp_anew(
    view: &View<'_>,
    before: Option<&Header>,
    header: &mut Header,
) -> Result<(), WriteError> {
    let version = decide::next_version(view, before, header.version.uuid)?;
    let (origin, Version { timestamp, .. }) = (view.node(), version);
    header.seen = Seen::after_write(before.map(|before| &before.seen), origin, timestamp);
    header.parent = before.map(|before| before.version.uuid);
    (header.version, header.origin) = (version, origin);
    Ok(())
}
