//! A group: decisions in order, each seeing the effects of those before it, committed as one
//! transaction.
//!
//! Nothing leaves a group before its commit. What follows the commit in memory (digest, counts,
//! feed, watermark) is gathered here and handed to the writer once everything is durable.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::Rules;
use super::durable::{CommitError, Durable, RecordDelta};
use super::effects::{Effect, Effects};
use super::job::LedgerChange;
use super::reports::Reports;
use super::view::{CurrentEntry, Entries, Leaf, View};
use crate::model::record::RecordHash;
use crate::model::{Key, NodeId, Timestamp};
use crate::proto::stability::{Bearer, Floor, Ledger};
use crate::store::disk::engine::{EngineError, Family, Opened, Transaction};
use crate::store::disk::layout::{self, Stored};
use crate::store::expiry::SteadyReading;
use crate::store::feed::Announcement;
use crate::store::{ReadError, Shared, WriteError, mode};

/// A group in progress.
///
/// Invariant: `transaction` holds the effects of all decisions so far, each whole or, after
/// `spoiled` was set, in part; then it is never committed.
pub(in crate::store) struct Group<'a> {
    shared: &'a Shared,
    rules: &'a Rules,
    transaction: Box<dyn Transaction + 'a>,
    entries: Entries,
    wall: Timestamp,
    now: Timestamp,
    steady: SteadyReading,
    announcements: Vec<Announcement>,
    /// See [`Self::added_dead`].
    pub(super) added_dead: BTreeSet<(Floor, Key)>,
    pub(super) follows: Durable,
    advance_watermark: bool,
    begin_epoch: bool,
    /// Whether the transaction holds a change.
    changed: bool,
    /// Why the transaction must not be committed.
    spoiled: Option<ReadError>,
}

impl<'a> Group<'a> {
    pub fn new(shared: &'a Shared, rules: &'a Rules, opened: &'a dyn Opened) -> Self {
        let wall = shared.clock.now();
        Self {
            shared,
            rules,
            transaction: opened.begin(),
            entries: Entries::default(),
            wall,
            now: shared.expiry_clock.now(wall),
            steady: shared.steady.read(&shared.clock, wall),
            announcements: Vec::new(),
            added_dead: BTreeSet::new(),
            follows: Durable::default(),
            advance_watermark: shared.expiry_clock.must_persist(),
            begin_epoch: false,
            changed: false,
            spoiled: None,
        }
    }

    /// Changes the ledger, as the group has changed it so far.
    pub fn change_ledger(&mut self, change: LedgerChange) {
        let wall = self.wall;
        self.edit_ledger(|ledger| change.make(ledger, wall));
    }

    fn edit_ledger(&mut self, edit: impl FnOnce(&mut Ledger)) {
        let before = self.shared.ledger.borrow().clone();
        let mut ledger = self.follows.ledger.take().unwrap_or_else(|| (*before).clone());
        edit(&mut ledger);
        if ledger != *before {
            self.follows.ledger = Some(ledger);
        }
    }

    /// The id in the ledger, as the group has changed it so far.
    pub fn ledger_id(&self) -> NodeId {
        self.read_ledger(|ledger| ledger.id)
    }

    /// Whether records may be merged that came so.
    pub fn takes(&self, bearer: Bearer) -> bool {
        self.read_ledger(|ledger| ledger.takes(bearer))
    }

    /// Reads the ledger, as the group has changed it so far.
    pub fn read_ledger<T>(&self, read: impl FnOnce(&Ledger) -> T) -> T {
        match &self.follows.ledger {
            Some(ledger) => read(ledger),
            None => read(&self.shared.ledger.borrow()),
        }
    }

    /// The entries that the group adds to the index of the dead: when each goes, and its key.
    pub fn added_dead(&self) -> &BTreeSet<(Floor, Key)> {
        &self.added_dead
    }

    /// Decides on a view of the group, then applies the effects. After an error the decision has
    /// none.
    pub fn run<T>(
        &mut self,
        decide: impl FnOnce(&mut View<'_>) -> Result<(T, Effects), WriteError>,
    ) -> Result<T, WriteError> {
        let (requests_bytes, reports) = (self.requests_bytes(), self.reports());
        let (point, floor, begins_anew) = self.read_ledger(|ledger| {
            // a newcomer takes all that its source holds
            let floor = if ledger.counted { ledger.floor } else { Floor::default() };
            (ledger.point.0, floor, ledger.begins_anew())
        });
        let mut view = View {
            shared: self.shared,
            transaction: self.transaction.as_mut(),
            entries: &mut self.entries,
            rules: self.rules,
            wall: self.wall,
            now: self.now,
            steady: self.steady.now,
            requests_bytes,
            reports,
            point: point.max(floor.0),
            floor,
            begins_anew,
        };
        let (answer, effects) = decide(&mut view)?;
        for effect in effects {
            self.apply(effect)?;
        }
        Ok(answer)
    }

    /// The time that expiry is judged by.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The time that requests are remembered by.
    pub fn steady(&self) -> Timestamp {
        self.steady.now
    }

    fn requests_bytes(&self) -> u64 {
        let committed = &self.shared.requests_bytes;
        self.follows.requests_bytes.unwrap_or_else(|| committed.load(Ordering::Relaxed))
    }

    fn reports(&self) -> Reports {
        self.follows.reports.unwrap_or_else(|| self.shared.reports())
    }

    fn put_value(&mut self, key: &Key, hash: &RecordHash, body: &[u8]) -> Result<(), WriteError> {
        self.put(Family::Values, &layout::blob_key(key, hash), body)
    }

    fn drop_value(&mut self, key: &Key, hash: &RecordHash) -> Result<(), WriteError> {
        self.delete(Family::Values, &layout::blob_key(key, hash))
    }

    /// Makes one effect a part of the transaction. After an error nothing of the group may be
    /// committed, since a decision may be in it in part.
    fn apply(&mut self, effect: Effect) -> Result<(), WriteError> {
        match effect {
            Effect::PutRecord { key, stored } => self.put_record(&key, *stored),
            Effect::DropRecord { key } => self.drop_record(&key),
            Effect::PutValue { key, hash, body } => self.put_value(&key, &hash, &body),
            Effect::DropValue { key, hash } => self.drop_value(&key, &hash),
            Effect::PutRevision { key, number, raw } => {
                self.put(Family::History, &layout::revision_key(&key, number), &raw)
            }
            Effect::DropRevision { key, number } => {
                self.delete(Family::History, &layout::revision_key(&key, number))
            }
            Effect::PutExpiry { at, key } => self.put_expiry(at, &key),
            Effect::DropExpiry { at, key } => self.drop_expiry(at, &key),
            Effect::PutDead { at, key } => self.put_dead(at, key),
            Effect::DropDead { at, key } => self.drop_dead(at, key),
            Effect::PutRequest { slot, accepted_at, remembered } => {
                self.put_request(&slot, accepted_at, &remembered)
            }
            Effect::DropRequest { slot } => {
                self.delete(Family::Requests, &layout::request_key(slot.uuid, &slot.key))
            }
            Effect::DropRequestTime { slot, accepted_at } => {
                self.drop_request_time(&slot, accepted_at)
            }
            Effect::ForgetEarly { count, to } => {
                self.follows.forget_early(count, to);
                Ok(())
            }
            Effect::SetRequestsBytes(bytes) => {
                self.follows.requests_bytes = Some(bytes);
                Ok(())
            }
            Effect::PutReport { number, causal, report, value } => {
                self.put_report(number, causal, &report, value.as_deref())
            }
            Effect::DropReport { number, has_value } => self.drop_report(number, has_value),
            Effect::SetReports(reports) => {
                self.follows.reports = Some(reports);
                Ok(())
            }
            Effect::SetMode(mode) => {
                self.follows.mode = Some(mode);
                self.put(Family::Meta, mode::MODE.as_bytes(), &layout::encode_meta(&mode))
            }
            Effect::PutMeta { name, value } => self.put(Family::Meta, name.as_bytes(), &value),
            Effect::DropMeta { name } => self.delete(Family::Meta, name.as_bytes()),
            Effect::RaiseFloor(floor) => {
                self.edit_ledger(|ledger| ledger.raise_floor(floor));
                Ok(())
            }
            Effect::Announce(announcement) => {
                self.announcements.push(announcement);
                Ok(())
            }
            Effect::BeginEpoch => {
                self.begin_epoch = true;
                Ok(())
            }
            Effect::AdvanceWatermark => {
                self.advance_watermark = true;
                Ok(())
            }
            Effect::SweepTo { records, requests } => {
                self.follows.sweep_to(records, requests);
                Ok(())
            }
        }
    }

    fn put_record(&mut self, key: &Key, stored: Stored) -> Result<(), WriteError> {
        let raw = stored.encode();
        // a record from a peer may have expired before it arrived
        self.advance_watermark |= self.shared.expiry_clock.is_uncovered(&stored, self.now);
        self.put(Family::Records, key.as_bytes(), &raw)?;
        let slot = self.entries.slots.get_mut(key);
        let slot = slot.unwrap_or_else(|| unreachable!("{key} is written and was not read"));
        slot.now = Some(CurrentEntry { stored, raw });
        slot.written = true;
        Ok(())
    }

    fn drop_record(&mut self, key: &Key) -> Result<(), WriteError> {
        self.delete(Family::Records, key.as_bytes())?;
        let slot = self.entries.slots.get_mut(key);
        let slot = slot.unwrap_or_else(|| unreachable!("{key} is collected and was not read"));
        (slot.now, slot.written, slot.collected) = (None, true, true);
        Ok(())
    }

    pub(super) fn put(
        &mut self,
        family: Family,
        at: &[u8],
        value: &[u8],
    ) -> Result<(), WriteError> {
        self.entries.bytes += at.len() + value.len();
        self.change(|transaction| transaction.put(family, at, value))
    }

    pub(super) fn delete(&mut self, family: Family, at: &[u8]) -> Result<(), WriteError> {
        self.change(|transaction| transaction.delete(family, at))
    }

    fn change(
        &mut self,
        change: impl FnOnce(&mut dyn Transaction) -> Result<(), EngineError>,
    ) -> Result<(), WriteError> {
        self.changed = true;
        change(self.transaction.as_mut()).map_err(|error| {
            let error = ReadError::from(error);
            self.spoiled.get_or_insert_with(|| error.clone());
            WriteError::Failed(error)
        })
    }

    /// How many bytes the group has read and written, about.
    pub(super) fn bytes(&self) -> usize {
        self.entries.bytes
    }

    /// Whether there is anything to commit.
    pub(super) fn has_changes(&self) -> bool {
        let counts = self.changed || self.follows.ledger.is_some();
        counts || self.advances_watermark() || self.keeps_distance()
    }

    /// Whether a restart would misjudge the age of remembered requests.
    fn keeps_distance(&self) -> bool {
        self.requests_bytes() > 0 && self.shared.steady.must_keep(self.steady)
    }

    fn advances_watermark(&self) -> bool {
        self.advance_watermark || self.entries.uncovered_expiry
    }

    /// Checks what must hold before a commit, in time linear in the number of records it has read.
    ///
    /// # Panics
    /// When it does not: a bug.
    fn check_invariants(&self) {
        let mut written = false;
        for (key, slot) in &self.entries.slots {
            let now = slot.now.as_ref().map(|entry| Leaf::of(&entry.stored));
            assert!(slot.written || slot.before == now, "{key} changed and was not written");
            let holds = now.is_some() || slot.collected;
            assert!(!slot.written || holds, "{key} was written and holds nothing");
            // what the floor passes is no news
            written |= slot.written && now.is_some();
        }
        assert!(self.changed || !written, "a record was written and the group holds no change");
        let has_news = !self.follows.feed.added.is_empty();
        assert!(has_news || !written, "records changed and the feed does not say so");
    }

    /// Makes everything durable and readable; gives what memory must follow.
    pub(super) fn commit(mut self) -> Result<Durable, CommitError> {
        let _ = self.close();
        if let Some(error) = self.spoiled {
            return Err(CommitError::Nothing(error));
        }
        self.check_invariants();
        if self.changed {
            let at = self.follows.feed.added.first().map(|(block, _)| block.first);
            self.transaction.commit().map_err(|error| match (ReadError::from(error), at) {
                (error @ ReadError::NoDescriptor(_), Some(at)) => {
                    CommitError::NoDescriptor { error, at }
                }
                (error, _) => CommitError::Unknown(error),
            })?;
        }
        let deltas = self.entries.slots.into_iter().filter(|(_, slot)| slot.written);
        self.follows.deltas = deltas
            .map(|(key, slot)| {
                let new = slot.now.as_ref().map(|entry| Leaf::of(&entry.stored));
                RecordDelta { key, old: slot.before, new }
            })
            // one that came and went in the group was never in the digest
            .filter(|delta| delta.old.is_some() || delta.new.is_some())
            .collect();
        Ok(self.follows)
    }

    /// Writes what belongs to the group as a whole: the feed, the watermark, the sums of requests
    /// and reports, and the clock of requests. A failure spoils the group.
    fn close(&mut self) -> Result<(), WriteError> {
        if let Some(bytes) = self.follows.requests_bytes {
            let value = layout::encode_meta(&bytes);
            self.put(Family::Meta, layout::REQUESTS_BYTES.as_bytes(), &value)?;
        }
        if let Some(reports) = self.follows.reports {
            let value = layout::encode_meta(&reports);
            self.put(Family::Meta, layout::REPORTS.as_bytes(), &value)?;
        }
        if let Some(ledger) = &self.follows.ledger {
            let value = layout::encode_meta(ledger);
            self.put(Family::Meta, layout::STABILITY.as_bytes(), &value)?;
        }
        if self.keeps_distance() {
            let distance = self.steady.distance();
            self.follows.distance = Some(distance);
            let value = layout::encode_meta(&distance);
            self.put(Family::Meta, layout::REQUESTS_DISTANCE.as_bytes(), &value)?;
        }
        if self.advances_watermark() {
            self.follows.watermark = Some(self.now);
            let value = layout::encode_meta(&self.now);
            self.put(Family::Meta, layout::WATERMARK.as_bytes(), &value)?;
        }
        let announcements = std::mem::take(&mut self.announcements);
        if announcements.is_empty() && !self.begin_epoch {
            return Ok(());
        }
        let mut feed = self.shared.feed.window().plan(announcements);
        if self.begin_epoch {
            let entry = self.shared.feed.window().plan_epoch(&mut feed, &self.shared.clock);
            // under another id the next opening does that
            if self.ledger_id() == self.shared.node() {
                self.put(Family::Meta, layout::FEED_EPOCH.as_bytes(), &entry)?;
            }
        }
        for (block, value) in &feed.added {
            self.put(Family::Feed, &layout::feed_key(block.first), value)?;
        }
        for block in &feed.dropped {
            self.delete(Family::Feed, &layout::feed_key(block.first))?;
        }
        self.follows.feed = feed;
        Ok(())
    }
}
