//! Values with an end: dead from that moment on by the clock of the node that shows them, not
//! before, and never alive again.

use std::collections::BTreeMap;

use kvs::model::{Content, Header, Key, Record, Timestamp, Version};

use super::asked::Moment;
use super::{Audit, described};

/// The values seen to be dead because their time had ended.
#[derive(Default)]
pub struct Expiry {
    /// By the present process: the version, and what the clock showed.
    dead: BTreeMap<(usize, Key), (Version, Timestamp)>,
    /// What a client learned to be dead, and the latest time by which the node can have judged it.
    learned: BTreeMap<(usize, Key), (Version, Timestamp)>,
    /// Values without their bytes: dead for good on this disk.
    swept: BTreeMap<(usize, Key), Version>,
}

impl Expiry {
    pub fn disk_lost(&mut self, slot: usize) {
        self.process_ended(slot);
        self.learned.retain(|(at, _), _| *at != slot);
        self.swept.retain(|(at, _), _| *at != slot);
    }

    /// Forgets what only the auditor saw. The next process over this disk knows what was swept, and
    /// what clients learned.
    pub fn process_ended(&mut self, slot: usize) {
        self.dead.retain(|(at, _), _| *at != slot);
    }
}

impl Audit {
    /// Checks that the node at `slot` holds `record` for a key and shows `live` for it at the same
    /// moment.
    pub fn looked(
        &mut self,
        slot: usize,
        key: &Key,
        record: Option<&Record>,
        live: Option<&Header>,
    ) {
        self.shown(slot, key, record.map(|record| &record.header));
        if let Some(record) = record {
            self.check_body(slot, key, record);
        }
        match (live, record) {
            (Some(live), Some(record)) if record.header == *live => self.lives(slot, key, live),
            (Some(live), _) => {
                let what = format!("node {slot} shows {} and holds {record:?}", described(live));
                self.violated(Some(key), &what);
            }
            (None, Some(record)) if record.header.content != Content::Tombstone => {
                self.is_dead(slot, key, &record.header);
            }
            (None, _) => {}
        }
    }

    /// Checks that a record has the bytes that it names, or has expired and has none.
    fn check_body(&mut self, slot: usize, key: &Key, record: &Record) {
        let header = &record.header;
        if record.is_whole() {
            return;
        }
        let ended = self.may_be_swept(slot, header);
        if !record.body.is_empty() || !ended {
            let what = format!("{} has other bytes than its header names", described(header));
            self.violated(Some(key), &what);
        }
        let before = self.expiry.swept.insert((slot, key.clone()), header.version);
        if before != Some(header.version) {
            self.story.add(Some(key), format!("node {slot} has swept {}", header.version.uuid));
            self.tally.swept += 1;
        }
    }

    /// Whether the bytes of a value can be gone at a node: it has expired there, or at a peer whose
    /// clock differs by as much as is allowed.
    pub(super) fn may_be_swept(&self, slot: usize, header: &Header) -> bool {
        let latest = self.clocks[slot].latest().plus(self.rules.clock_drift_max);
        header.expires_at.is_some_and(|at| at <= latest)
    }

    fn lives(&self, slot: usize, key: &Key, live: &Header) {
        let (at, now) = ((slot, key.clone()), Moment::of(&self.clocks[slot]).now);
        if live.expires_at.is_some_and(|end| end <= now) {
            let what = format!("node {slot} shows {} at {}", described(live), now.micros());
            self.violated(Some(key), &what);
        }
        if self.expiry.swept.get(&at) == Some(&live.version) {
            let what = format!("node {slot} shows {}, which it had swept", described(live));
            self.violated(Some(key), &what);
        }
        if self.expiry.learned.get(&at).is_some_and(|(version, _)| *version == live.version) {
            let what = format!(
                "node {slot} shows {} after a client learned of its expiry",
                described(live)
            );
            self.violated(Some(key), &what);
        }
        let died = self.expiry.dead.get(&at).filter(|(version, _)| *version == live.version);
        if let Some((_, died)) = died {
            let (now, died) = (now.micros(), died.micros());
            let what = format!("node {slot} shows {} at {now}, dead at {died}", described(live));
            self.violated(Some(key), &what);
        }
    }

    fn is_dead(&mut self, slot: usize, key: &Key, header: &Header) {
        let at = (slot, key.clone());
        let clock = &self.clocks[slot];
        let (now, latest) = (Moment::of(clock).now, self.judged_at_most(slot));
        let is_swept = self.expiry.swept.get(&at) == Some(&header.version);
        if !is_swept && header.expires_at.is_none_or(|end| end > latest) {
            let what =
                format!("node {slot} does not show {} at {}", described(header), now.micros());
            self.violated(Some(key), &what);
        }
        let before = self.expiry.dead.get(&at).filter(|(version, _)| *version == header.version);
        self.tally.expired += u64::from(before.is_none());
        let died = before.map_or(now, |(_, died)| now.max(*died));
        self.expiry.dead.insert(at, (header.version, died));
    }

    /// The latest time that the node at `slot` can take it to be.
    fn judged_at_most(&self, slot: usize) -> Timestamp {
        let (clock, now) = (&self.clocks[slot], Moment::of(&self.clocks[slot]).now);
        now.max(clock.latest().min(now.plus(self.rules.clock_drift_max)))
    }

    /// Notes that a client learned of an expiry, which the disk could persist.
    pub fn learned_dead(&mut self, slot: usize, key: &Key, version: Version) {
        let latest = self.judged_at_most(slot);
        self.expiry.learned.insert((slot, key.clone()), (version, latest));
        self.tally.learned_dead += 1;
    }

    /// Notes that a process starts at the node.
    pub fn starts(&mut self, slot: usize) {
        self.expiry.process_ended(slot);
    }

    /// Notes that the clock of a node was set. When it is too far back, expired values can live
    /// again.
    pub fn clock_set(&mut self, slot: usize) {
        let borne = Moment::of(&self.clocks[slot]).now.plus(self.rules.clock_drift_max);
        self.expiry.dead.retain(|(at, _), (_, died)| *at != slot || *died <= borne);
        // A clock that was further ahead before can have left that time on the disk.
        let was_wrong = self.clocks[slot].latest() > borne;
        let kept = |latest: Timestamp| !was_wrong && latest <= borne;
        self.expiry.learned.retain(|(at, _), (_, latest)| *at != slot || kept(*latest));
    }
}
