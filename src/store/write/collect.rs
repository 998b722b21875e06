//! Collecting the dead: what the floor passes leaves the store, in the transaction that raises the
//! floor.
//!
//! The floor alone decides, no clock: what a node holds follows from its records and its floor. It
//! rises in steps of bounded size, along the index of the dead; records that go at one instant go
//! in one step.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::effects::{Effect, Effects};
use super::group::Group;
use super::job::Job;
use super::replace;
use super::view::View;
use crate::model::Key;
use crate::proto::stability::{Floor, floor};
use crate::store::disk::engine::Family;
use crate::store::disk::layout::{self, Body};
use crate::store::feed::Cause;
use crate::store::read::digest::visit_headers;
use crate::store::{Collected, ReadError, Shared, Store, WriteError, checked_key};

/// How many records, earlier revisions included, one step drops at most, unless more go at one
/// instant.
pub(in crate::store) const COLLECT_MAX: u64 = 512;
/// How often [`Store::keep_collected`] looks whether the floor can rise.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The pause between two steps. Together with [`COLLECT_MAX`] it bounds how much of the writer's
/// time, and of the disk's, collection takes from clients.
const PAUSE: Duration = Duration::from_millis(20);
/// The pause after a step that failed.
const PAUSE_FAILED: Duration = Duration::from_secs(5);

impl Store {
    /// Raises the floor to what the ledger allows, by one step of bounded size, and drops the dead
    /// records that it passes with all that is kept of their keys.
    ///
    /// # Errors
    /// When the node is stopping or storage failed.
    pub async fn collect(&self) -> Result<Collected, WriteError> {
        let since = Floor::default();
        self.submit(|reply| Job::Collect { to: None, since, reply }).await
    }

    /// Raises the floor to `floor`, by as many steps as that takes, whatever the ledger allows: two
    /// nodes compare at the higher of their floors. Gives the floor that the store has then; it is
    /// lower than asked for only when the node has begun anew meanwhile.
    ///
    /// # Errors
    /// When the node is stopping or storage failed. The floor may have risen by some steps.
    pub async fn adopt_floor(&self, floor: Floor) -> Result<Floor, WriteError> {
        let mut since = self.ledger().floor;
        loop {
            let step = |reply| Job::Collect { to: Some(floor), since, reply };
            let collected = self.submit(step).await?;
            if !collected.more {
                return Ok(collected.floor);
            }
            since = collected.floor;
        }
    }

    /// Collects whenever the ledger lets the floor rise, until `stop`.
    pub async fn keep_collected(self, stop: CancellationToken) {
        let mut pause = LOOK_AGAIN;
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            pause = LOOK_AGAIN;
            if self.ledger().next_floor().is_none() {
                continue;
            }
            match self.collect().await {
                Ok(collected) if collected.more => pause = PAUSE,
                Ok(_) => {}
                Err(WriteError::ShuttingDown) => return,
                Err(error) => {
                    tracing::warn!(%error, "cannot drop dead records; trying again in 5 s");
                    pause = PAUSE_FAILED;
                }
            }
        }
    }
}

/// Entries of the index of the dead, in its order.
#[derive(Default)]
struct Passed {
    entries: Vec<(Floor, Key)>,
    /// Whether more follow. The entries then hold all of their last instant.
    more: bool,
}

/// A step of collection, as a part of a group.
pub(super) fn collect(
    group: &mut Group<'_>,
    shared: &Shared,
    to: Option<Floor>,
    since: Floor,
) -> Result<Collected, WriteError> {
    let (floor, to) =
        group.read_ledger(|ledger| (ledger.floor, to.or_else(|| ledger.next_floor())));
    let Some(to) = to.filter(|to| *to > floor && floor >= since) else {
        return Ok(Collected { records: 0, floor, more: false });
    };
    let mut passed = shared.passed(floor, to).map_err(WriteError::Failed)?;
    // the index on the disk does not show what the group has added so far
    let last = if passed.more { passed.entries.last().map_or(to, |(at, _)| *at) } else { to };
    let added = group.added_dead().iter().filter(|(at, _)| *at > floor && *at <= last);
    passed.entries.extend(added.cloned());
    passed.entries.sort_unstable();
    passed.entries.dedup();
    group.run(|view| step(view, &passed, to).map_err(WriteError::Failed))
}

/// Drops what a step passes; one that cannot be read ends the step without any effect.
fn step(
    view: &mut View<'_>,
    passed: &Passed,
    to: Floor,
) -> Result<(Collected, Effects), ReadError> {
    let mut effects = Effects::default();
    let (mut records, mut work) = (0, 0);
    let (mut reached, mut more) = (to, passed.more);
    for instant in passed.entries.chunk_by(|a, b| a.0 == b.0) {
        if work >= COLLECT_MAX {
            more = true;
            break;
        }
        for (at, key) in instant {
            if let Some(dropped) = drop_record(view, *at, key, &mut effects)? {
                records += 1;
                work += dropped;
            }
            reached = *at;
        }
    }
    let floor = if more { reached } else { to };
    assert!(floor <= to, "a step goes no further than it was to go");
    effects.push(Effect::RaiseFloor(floor));
    Ok((Collected { records, floor, more }, effects))
}

/// Drops the record of `key`, if it is still the one that goes at `at`, with its value and its
/// earlier revisions; gives how many records these are together.
fn drop_record(
    view: &mut View<'_>,
    at: Floor,
    key: &Key,
    effects: &mut Effects,
) -> Result<Option<u64>, ReadError> {
    let current = view.current(key)?.map(|current| current.stored);
    let Some(stored) = current.filter(|stored| floor::goes_at(&stored.header) == Some(at)) else {
        effects.push(Effect::DropDead { at, key: key.clone() });
        return Ok(None);
    };
    if stored.header.expires_at.is_some() && stored.body != Body::Swept {
        // no sweep has told readers of the feed that it expired
        effects.announce(key, &stored.header, Cause::Expiry, None);
    }
    replace::drop_record(view, key, &stored, effects).map(Some)
}

impl Shared {
    /// The entries of the index of the dead after `from` and up to `to`: about as many as one step
    /// drops.
    fn passed(&self, from: Floor, to: Floor) -> Result<Passed, ReadError> {
        let mut passed = Passed::default();
        let mut damaged = Ok(());
        // what was dropped leaves traces, over which a scan from the very beginning would step
        let [from, to] = [from, to].map(|bound| bound.0.next().micros().to_be_bytes());
        self.engine.scan(Family::Dead, &from, Some(&to), &mut |entry, _| {
            let Some((at, key)) = layout::split_instant(entry) else {
                return ControlFlow::Continue(());
            };
            let is_next = passed.entries.last().is_some_and(|(last, _)| last.0 < at);
            if is_next && passed.entries.len() as u64 >= COLLECT_MAX {
                passed.more = true;
                return ControlFlow::Break(());
            }
            match checked_key(key) {
                Ok(key) => passed.entries.push((Floor(at), key)),
                Err(error) => damaged = Err(error),
            }
            ControlFlow::Continue(())
        })?;
        damaged.map(|()| passed)
    }

    /// Checks that the index of the dead is that of the records, and that none is at or below the
    /// floor, once the node is counted.
    ///
    /// # Panics
    /// When that is not so: a bug.
    pub(in crate::store) fn check_dead(&self) -> Result<(), ReadError> {
        let ledger = self.ledger.borrow().clone();
        let (mut expected, mut damaged) = (BTreeSet::new(), Ok(()));
        visit_headers(self.engine.as_ref(), &[], None, |key, summary| {
            if let Some(at) = floor::goes_at(&summary.header) {
                match checked_key(key) {
                    Ok(key) => drop(expected.insert(layout::expiry_key(at.0, &key))),
                    Err(error) => damaged = Err(error),
                }
                let is_kept = !ledger.counted || at > ledger.floor;
                assert!(is_kept, "the floor has passed a dead record that is held");
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
