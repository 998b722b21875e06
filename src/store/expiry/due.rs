//! Where the search for due entries begins, and the search itself.
//!
//! Two indexes are ordered by time: the expiry of records, and the acceptance of remembered
//! requests. Entries that were deleted leave traces in an engine, over which a search from the very
//! beginning would step each time; so the position below which nothing is due is kept in memory.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::Timestamp;
use crate::store::disk::engine::Family;
use crate::store::disk::layout;
use crate::store::{ReadError, Shared};

/// How many expired values the record counts tell apart from live ones.
const DUE_COUNTED_MAX: usize = 10_000;
/// How far back the search may begin before a sweep is due for that alone: it writes nothing where
/// it finds nothing, and moves the beginning.
const BEGIN_AGAIN: Duration = Duration::from_secs(2);

/// The instants, in microseconds, before which nothing is due.
#[derive(Debug, Default)]
pub(in crate::store) struct Due {
    records: AtomicU64,
    requests: AtomicU64,
}

/// How a group moves the beginning of one search.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::store) struct DueChange {
    /// A sweep found that nothing before this is due.
    swept_to: Option<Timestamp>,
    /// The earliest entry that the group added.
    added: Option<Timestamp>,
}

impl DueChange {
    /// A change that begins the search anew, from the start.
    pub fn restart() -> Self {
        Self { swept_to: Some(Timestamp::ZERO), added: None }
    }

    /// Nothing before `end` is due any more.
    pub fn sweep_to(&mut self, end: Timestamp) {
        self.swept_to = self.swept_to.max(Some(end));
    }

    /// An entry was added at `at`.
    pub fn add(&mut self, at: Timestamp) {
        self.added = Some(self.added.map_or(at, |added| added.min(at)));
    }
}

impl Due {
    /// Follows a commit. For the writer alone.
    pub fn apply(&self, records: DueChange, requests: DueChange) {
        for (begin, change) in [(&self.records, records), (&self.requests, requests)] {
            let swept_to = change.swept_to.map(Timestamp::micros);
            let from = swept_to.unwrap_or_else(|| begin.load(Ordering::Relaxed));
            let from = change.added.map_or(from, |added| from.min(added.micros()));
            begin.store(from, Ordering::Relaxed);
        }
    }
}

/// Due entries in the order of time.
#[derive(Default)]
pub(super) struct DueEntries {
    /// The instant, and the rest of the index entry's key.
    pub entries: Vec<(Timestamp, Vec<u8>)>,
    /// Whether more are due.
    pub more: bool,
}

impl DueEntries {
    /// The instant before which nothing is due once these entries are gone. `end` is where the
    /// search ended when it found all.
    pub fn reached(&self, end: Timestamp) -> Timestamp {
        match self.entries.last() {
            Some((at, _)) if self.more => *at,
            _ => end,
        }
    }
}

impl Shared {
    /// The time that expiry is judged by.
    pub(in crate::store) fn now(&self) -> Timestamp {
        self.expiry_clock.now(self.clock.now())
    }

    /// The end of the search for expired records: a value is dead from its very instant on.
    pub(super) fn records_end(now: Timestamp) -> Timestamp {
        now.next()
    }

    /// The end of the search for requests that are no longer remembered at the steady time
    /// `steady`.
    pub(super) fn requests_end(&self, steady: Timestamp) -> Timestamp {
        steady.minus(self.idempotency_window).next()
    }

    /// Nothing before this is due. Requests that were forgotten early are behind it, too.
    pub(super) fn requests_begin(&self) -> Timestamp {
        Timestamp::saturating(self.due.requests.load(Ordering::Relaxed))
    }

    /// At most `most` records that have expired by `now` and were not swept.
    pub(super) fn due_records(&self, now: Timestamp, most: usize) -> Result<DueEntries, ReadError> {
        let from = self.due.records.load(Ordering::Relaxed);
        self.due_entries((Family::Expiry, &[]), from, Self::records_end(now), most)
    }

    /// At most `most` requests whose window has ended by the steady time `steady`.
    pub(super) fn due_requests(
        &self,
        steady: Timestamp,
        most: usize,
    ) -> Result<DueEntries, ReadError> {
        let from = self.due.requests.load(Ordering::Relaxed);
        let index = (Family::Requests, [layout::REQUEST_TIMES].as_slice());
        self.due_entries(index, from, self.requests_end(steady), most)
    }

    /// Visits the remembered requests that were accepted before `end`, from the oldest on: when,
    /// and the rest of the entry in the index of times.
    pub(in crate::store) fn visit_oldest_requests(
        &self,
        end: Timestamp,
        visit: &mut dyn FnMut(Timestamp, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let from = layout::request_times_from(self.requests_begin());
        let to = layout::request_times_from(end);
        self.engine.scan(Family::Requests, &from, Some(&to), &mut |entry, _| match entry
            .get(1..)
            .and_then(layout::split_instant)
        {
            Some((at, rest)) => visit(at, rest),
            None => ControlFlow::Continue(()),
        })?;
        Ok(())
    }

    /// Entries of `family` below `lead`, from the instant `from` to before `to`.
    fn due_entries(
        &self,
        (family, lead): (Family, &[u8]),
        from: u64,
        to: Timestamp,
        most: usize,
    ) -> Result<DueEntries, ReadError> {
        let bound = |micros: u64| [lead, micros.to_be_bytes().as_slice()].concat();
        let mut due = DueEntries::default();
        let (from, to) = (bound(from), bound(to.micros()));
        self.engine.scan(family, &from, Some(&to), &mut |entry, _| {
            if due.entries.len() >= most {
                due.more = true;
                return ControlFlow::Break(());
            }
            if let Some((at, rest)) = entry.get(lead.len()..).and_then(layout::split_instant) {
                due.entries.push((at, rest.to_vec()));
            }
            ControlFlow::Continue(())
        })?;
        Ok(due)
    }

    /// Whether a sweep has something to do.
    pub(super) fn is_due(&self) -> bool {
        let wall = self.clock.now();
        let now = self.expiry_clock.now(wall);
        let steady = self.steady.read(&self.clock, wall).now;
        let begin = Timestamp::saturating(self.due.records.load(Ordering::Relaxed));
        let any = |due: Result<DueEntries, ReadError>| due.is_ok_and(|d| !d.entries.is_empty());
        now.since(begin) > BEGIN_AGAIN
            || any(self.due_records(now, 1))
            || any(self.due_requests(steady, 1))
    }

    /// How many values have expired and were not swept; counts up to ten thousand.
    pub(in crate::store) fn count_due(&self) -> Result<u64, ReadError> {
        Ok(self.due_records(self.now(), DUE_COUNTED_MAX)?.entries.len() as u64)
    }
}
