//! Reports of superseded writes: a client's write that loses a merge on its own node, against a
//! write that did not know it, is kept whole and reported in the transaction of that merge.
//!
//! A node performs every merge of its own writes itself, so its reports are complete. Which merges
//! are reported depends on nothing but the two records and whether the lost one had expired. What
//! all reports take is bounded: the oldest go first.

use bytes::Bytes;

use super::effects::{Effect, Effects};
use super::reports::{Reports, StoredReport};
use super::view::{CurrentEntry, View};
use crate::model::seen::Knew;
use crate::model::{Header, Key};
use crate::store::disk::layout::{self, Body, Stored};
use crate::store::feed::Cause;
use crate::store::{Causal, ReadError};

/// How many of the oldest reports go at most for a new one; more are too many only after the limit
/// was lowered.
const DROPPED_MAX: u64 = 256;

/// Reports that `current` is superseded if `winner`, which a peer sent and which takes its place,
/// did not know it.
pub(super) fn decide(
    view: &mut View<'_>,
    key: &Key,
    current: &mut CurrentEntry,
    winner: &Header,
    effects: &mut Effects,
) -> Result<(), ReadError> {
    match causal(view, &current.stored, winner) {
        Some(causal) => report(view, key, current, Some(winner), causal, effects),
        None => Ok(()),
    }
}

/// Reports that `current` is set aside, if it is a write of this node: whether the cluster knew of
/// it, nobody can tell.
pub(super) fn set_aside(
    view: &mut View<'_>,
    key: &Key,
    current: &mut CurrentEntry,
    effects: &mut Effects,
) -> Result<(), ReadError> {
    if is_lost(view, &current.stored) {
        report(view, key, current, None, Causal::Unknown, effects)
    } else {
        Ok(())
    }
}

/// Adds the report, and marks the write as superseded, for its history.
fn report(
    view: &mut View<'_>,
    key: &Key,
    current: &mut CurrentEntry,
    winner: Option<&Header>,
    causal: Causal,
    effects: &mut Effects,
) -> Result<(), ReadError> {
    let stored = &mut current.stored;
    let value = kept_value(view, key, stored)?;
    let report = StoredReport {
        key: key.clone(),
        at: view.wall,
        causal,
        in_txn: stored.marks.in_txn,
        lost: stored.header.clone(),
        winner: winner.cloned(),
        has_value: value.is_some(),
    };
    let (mut reports, number) = (view.reports, view.reports.next);
    let bytes = layout::encode_meta(&report);
    reports.next += 1;
    reports.bytes += report.cost(number, bytes.len());
    make_room(view, &mut reports, effects)?;
    effects.push(Effect::PutReport { number, causal, report: bytes, value });
    effects.push(Effect::SetReports(reports));
    effects.announce(key, &stored.header, Cause::Superseded { report: number }, None);
    stored.marks.superseded = true;
    current.raw = stored.encode();
    Ok(())
}

/// Whether a write is lost when something takes its place that did not know it: it is this node's
/// own, under any of its ids, and has not expired.
fn is_lost(view: &View<'_>, stored: &Stored) -> bool {
    let has_expired = stored.body == Body::Swept || stored.expired_at(view.now).is_some();
    view.is_own(stored.header.origin) && !has_expired
}

/// Whether the write of `stored` is lost when `winner` takes its place, and what the two have to do
/// with each other.
fn causal(view: &View<'_>, stored: &Stored, winner: &Header) -> Option<Causal> {
    let lost = &stored.header;
    // one request that was sent to two nodes is one write
    let is_same = lost.version.uuid == winner.version.uuid && lost.content == winner.content;
    if is_same || !is_lost(view, stored) {
        return None;
    }
    match winner.seen.knew(lost.origin, lost.version.timestamp) {
        Knew::Yes => None,
        Knew::No => Some(Causal::Concurrent),
        Knew::Unknown => Some(Causal::Unknown),
    }
}

/// The value to keep, if there is one.
fn kept_value(view: &mut View<'_>, key: &Key, stored: &Stored) -> Result<Option<Bytes>, ReadError> {
    match view.body(key, stored) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        // the write is reported all the same, and merges must go on
        Err(error @ ReadError::Damaged { .. }) => {
            tracing::error!(%error, "a superseded write is reported without its value");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Drops the oldest reports until all fit; the newest stays in any case.
fn make_room(
    view: &mut View<'_>,
    reports: &mut Reports,
    effects: &mut Effects,
) -> Result<(), ReadError> {
    let end = reports.next.saturating_sub(1).min(reports.first.saturating_add(DROPPED_MAX));
    while reports.bytes > view.rules.superseded_bytes_max && reports.first < end {
        let number = reports.first;
        let has_value = match view.report(number) {
            Ok(Some((report, bytes))) => {
                reports.bytes = reports.bytes.saturating_sub(report.cost(number, bytes));
                report.has_value
            }
            Ok(None) => false,
            // what it takes is not known, and it must not keep the others from being dropped
            Err(error @ ReadError::Damaged { .. }) => {
                tracing::error!(%error, number, "a damaged report is dropped");
                true
            }
            Err(error) => return Err(error),
        };
        effects.push(Effect::DropReport { number, has_value });
        reports.first += 1;
    }
    Ok(())
}
