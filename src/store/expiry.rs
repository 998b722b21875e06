//! Expiry: by what time values are judged, and the sweep that frees what died.
//!
//! A value is dead from its `expires_at` on, by this node's clock, whether or not it was swept. A
//! sweep frees bytes and nothing else: header and hash stay, so that no digest moves, nothing goes
//! to a peer, and no older copy comes back.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::engine::Family;
use super::group::{Group, Held};
use super::layout::{self, Body, Stored};
use super::writer::Job;
use super::{ReadError, Shared, Store, WriteError};
use crate::model::{Key, Timestamp};

/// How many records, and how many requests, one sweep frees at most.
pub(super) const SWEEP_MAX: usize = 256;
/// How many values that are due are told apart from those that live, where records are counted.
const DUE_COUNTED_MAX: usize = 10_000;
/// How often it is looked whether something is due.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How far back the search for what is due may begin. What lies there are traces of entries that
/// were deleted in time, over which each search would step; a sweep that finds nothing writes
/// nothing, and the next search begins where it ended.
const BEGIN_AGAIN: Duration = Duration::from_secs(2);
/// The pause between two sweeps when more is due: together with [`SWEEP_MAX`] the bound on how much
/// a sweep takes from clients.
const PAUSE: Duration = Duration::from_millis(10);
/// The pause after a sweep that failed.
const PAUSE_FAILED: Duration = Duration::from_secs(5);

/// The time by which values are judged: the clock's, but a clock that steps back by no more than
/// the cluster's bound on drift takes no value's death back, nor does a restart: before anybody is
/// told that a value's time is over, the time by which it was judged is on the disk.
#[derive(Debug)]
pub(super) struct ExpiryClock {
    latest: AtomicU64,
    /// The greatest such time that is on the disk.
    kept: AtomicU64,
    /// Whether the clock was set right, and the disk has a time that it does not believe any more.
    was_set_right: AtomicBool,
    back_max: Duration,
}

impl ExpiryClock {
    /// `kept`: the greatest time by which something was judged before, as it was kept.
    pub(super) fn new(kept: Timestamp, back_max: Duration) -> Self {
        let (latest, kept) = (kept.micros().into(), kept.micros().into());
        Self { latest, kept, was_set_right: false.into(), back_max }
    }

    /// The time to judge by when the clock says `now`.
    pub(super) fn now(&self, now: Timestamp) -> Timestamp {
        let latest = self.latest.fetch_max(now.micros(), Ordering::Relaxed);
        let latest = Timestamp::saturating(latest);
        if latest.since(now) <= self.back_max {
            return latest.max(now);
        }
        // the clock had been wrong by more than what is borne, and was set right
        self.kept.store(0, Ordering::Relaxed);
        self.latest.store(now.micros(), Ordering::Relaxed);
        self.was_set_right.store(true, Ordering::Relaxed);
        now
    }

    /// Whether the next group is to keep the time, whatever else it does.
    pub(super) fn was_set_right(&self) -> bool {
        self.was_set_right.load(Ordering::Relaxed)
    }

    /// Whether `stored` is over by its time alone, and nothing on the disk says so yet.
    pub(super) fn owes(&self, stored: &Stored, now: Timestamp) -> bool {
        stored.died(now).is_some_and(|at| !self.is_kept(at))
    }

    fn is_kept(&self, at: Timestamp) -> bool {
        at.micros() <= self.kept.load(Ordering::Relaxed)
    }

    /// Follows a group that kept `time`.
    pub(super) fn follow(&self, time: Timestamp) {
        // unless the clock was set right meanwhile
        if time.micros() <= self.latest.load(Ordering::Relaxed) {
            self.kept.fetch_max(time.micros(), Ordering::Relaxed);
            self.was_set_right.store(false, Ordering::Relaxed);
        }
    }
}

/// Where the search for what is due begins: nothing lies before. Deleted entries leave traces in an
/// engine, over which a search from the very beginning would have to step.
#[derive(Debug, Default)]
pub(super) struct Due {
    records: AtomicU64,
    requests: AtomicU64,
}

impl Due {
    /// Follows a group: before `swept_to` nothing is due any more, and `noted` are the earliest
    /// instants that it noted; of records, and of requests. For the writer alone.
    pub(super) fn follow(
        &self,
        swept_to: (Option<u64>, Option<u64>),
        noted: (Option<Timestamp>, Option<Timestamp>),
    ) {
        let parts = [(&self.records, swept_to.0, noted.0), (&self.requests, swept_to.1, noted.1)];
        for (begins, swept_to, noted) in parts {
            let begin = swept_to.unwrap_or_else(|| begins.load(Ordering::Relaxed));
            let begin = noted.map_or(begin, |noted| begin.min(noted.micros()));
            begins.store(begin, Ordering::Relaxed);
        }
    }
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Records whose bytes were freed.
    pub records: u64,
    /// Requests that were forgotten.
    pub requests: u64,
    /// Whether more is due.
    pub more: bool,
}

/// What is due, in the order of time.
#[derive(Default)]
struct Found {
    entries: Vec<(Timestamp, Vec<u8>)>,
    more: bool,
}

impl Shared {
    /// The time by which values are judged now.
    pub(super) fn now(&self) -> Timestamp {
        self.judge.now(self.clock.now())
    }

    /// Entries of `family` below `lead` from `from` to before `to`, at most `most` of them.
    fn due(
        &self,
        (family, lead): (Family, &[u8]),
        from: u64,
        to: Timestamp,
        most: usize,
    ) -> Result<Found, ReadError> {
        let bound = |micros: u64| [lead, micros.to_be_bytes().as_slice()].concat();
        let mut found = Found::default();
        let (from, to) = (bound(from), bound(to.micros()));
        self.engine.scan(family, &from, Some(&to), &mut |entry, _| {
            if found.entries.len() >= most {
                found.more = true;
                return ControlFlow::Break(());
            }
            if let Some((at, rest)) = entry.get(lead.len()..).and_then(layout::split_instant) {
                found.entries.push((at, rest.to_vec()));
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    fn due_records(&self, now: Timestamp, most: usize) -> Result<Found, ReadError> {
        let from = self.due.records.load(Ordering::Relaxed);
        // dead from the very instant on
        self.due((Family::Expiry, &[]), from, now.next(), most)
    }

    /// Whether there is something to sweep, or the search for it begins too far back.
    fn is_due(&self) -> bool {
        let now = self.now();
        let begins = Timestamp::saturating(self.due.records.load(Ordering::Relaxed));
        let due = |found: Result<Found, ReadError>| found.is_ok_and(|f| !f.entries.is_empty());
        now.since(begins) > BEGIN_AGAIN
            || due(self.due_records(now, 1))
            || due(self.due_requests(now, 1))
    }

    /// How many values are dead and not swept yet, as far as it is counted.
    pub(super) fn count_due(&self) -> Result<u64, ReadError> {
        Ok(self.due_records(self.now(), DUE_COUNTED_MAX)?.entries.len() as u64)
    }

    fn due_requests(&self, now: Timestamp, most: usize) -> Result<Found, ReadError> {
        let from = self.due.requests.load(Ordering::Relaxed);
        let accepted = now.minus(self.idempotency_window).next();
        self.due((Family::Requests, &[layout::REQUEST_TIMES]), from, accepted, most)
    }
}

impl Store {
    /// Frees the bytes of values that expired and forgets requests whose time is over, as much as
    /// one step may.
    ///
    /// # Errors
    /// When the node is stopping or storage failed.
    pub async fn sweep(&self) -> Result<Swept, WriteError> {
        self.ask(|answer| Job::Sweep { answer }).await
    }

    /// Before anybody is told that a value died at `at`, that is kept: it stays dead when the node
    /// is killed and its clock steps back. Storage that takes no writes keeps nobody from reading.
    pub(super) async fn keep_death(&self, at: Option<Timestamp>) {
        let owes = |at| at <= self.shared.now() && !self.shared.judge.is_kept(at);
        if at.is_some_and(owes) && !self.shared.recovers.load(Ordering::Relaxed) {
            let _ = self.ask(|answer| Job::KeepTime { answer }).await;
        }
    }

    /// Sweeps whenever something is due, until it is told to stop.
    pub async fn keep_swept(self, stop: CancellationToken) {
        let mut pause = LOOK_AGAIN;
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            pause = LOOK_AGAIN;
            if self.shared.is_due() {
                match self.sweep().await {
                    Ok(swept) if swept.more => pause = PAUSE,
                    Ok(_) => {}
                    Err(WriteError::ShuttingDown) => return,
                    Err(error) => {
                        tracing::warn!(%error, "a sweep failed; it is tried again");
                        pause = PAUSE_FAILED;
                    }
                }
            }
        }
    }
}

impl Group<'_> {
    /// Sweeps records and requests that are due.
    pub(super) fn sweep(&mut self) -> Result<Swept, WriteError> {
        let mut swept = Swept::default();
        let shared = self.shared;
        let found = shared.due_records(self.now, SWEEP_MAX).map_err(WriteError::Failed)?;
        for (at, key) in &found.entries {
            let key = super::checked_key(key).map_err(WriteError::Failed)?;
            match self.expired(*at, &key) {
                Ok(expired) => {
                    swept.records += u64::from(expired.is_some());
                    self.sweep_record(*at, &key, expired)?;
                }
                // it stays as it is, and is no reason to let others live
                Err(error @ ReadError::Damaged { .. }) => tracing::error!(%error, "cannot sweep"),
                Err(error) => return Err(WriteError::Failed(error)),
            }
        }
        // by then, these are dead for good
        self.keeps_time |= !found.entries.is_empty();
        let reached = |found: &Found, end: Timestamp| match found.entries.last() {
            Some((at, _)) if found.more => at.micros(),
            _ => end.micros(),
        };
        self.swept_to.0 = Some(reached(&found, self.now.next()));
        swept.more = found.more;
        let found = shared.due_requests(self.now, SWEEP_MAX).map_err(WriteError::Failed)?;
        for (at, rest) in &found.entries {
            swept.requests += u64::from(self.forget(*at, rest)?);
        }
        let end = self.now.minus(shared.idempotency_window).next();
        self.swept_to.1 = Some(reached(&found, end));
        swept.more |= found.more;
        Ok(swept)
    }

    /// The record of `key` and its revisions by their numbers, all whose bytes are to be freed; if
    /// the record is the one that expires at `at`.
    fn expired(&mut self, at: Timestamp, key: &Key) -> Result<Option<Expired>, ReadError> {
        let Some(Held { stored, .. }) = self.current(key)? else { return Ok(None) };
        if stored.header.expires_at != Some(at) || stored.body == Body::Swept {
            return Ok(None);
        }
        let (first, next) = stored.revisions;
        let mut revisions = Vec::new();
        for number in first..next {
            let Some(revision) = self.revision(key, number)? else { continue };
            let is_over = revision.header.expires_at.is_some_and(|at| at <= self.now);
            if is_over && !revision.is_dead() {
                revisions.push((number, revision));
            }
        }
        Ok(Some(Expired { stored, revisions }))
    }

    fn sweep_record(
        &mut self,
        at: Timestamp,
        key: &Key,
        expired: Option<Expired>,
    ) -> Result<(), WriteError> {
        let entry = layout::expiry_key(at, key);
        self.change(|transaction| transaction.delete(Family::Expiry, &entry))?;
        let Some(Expired { mut stored, revisions }) = expired else { return Ok(()) };
        self.free_body(key, &stored)?;
        stored.body = Body::Swept;
        self.replace(key, stored)?;
        for (number, mut revision) in revisions {
            self.free_body(key, &revision)?;
            revision.body = Body::Swept;
            let (at, bytes) = (layout::revision_key(key, number), revision.encode());
            self.put_entry(Family::History, &at, &bytes)?;
        }
        Ok(())
    }
}

/// What a sweep frees of one key.
struct Expired {
    stored: Stored,
    revisions: Vec<(u64, Stored)>,
}
