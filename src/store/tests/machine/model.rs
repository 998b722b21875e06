//! The store as a few plain maps, as naive as can be and written from the contract: no groups, no
//! engine, no encoding, and rules of its own for conditions, merging, retries, expiry and history.
//!
//! What the contract leaves to the store is taken from its answers: the uuid of a write that the
//! client gave none.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use crate::model::record::RecordHash;
use crate::model::{
    Condition, Content, Expected, Header, Key, NodeId, Record, Seen, Tags, Timestamp, Version,
};
use crate::proto::stability::Floor;
use crate::store::feed::Cause;
use crate::store::{
    Applied, CURRENT_BYTES_MAX, Causal, Change, Counts, Entry, Lifetime, Operation,
    OperationResult, Outcome, Revision, Superseded, Txn, TxnDone, Write, Written,
};

/// What a client asks.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Write(Write),
    Txn(Txn),
}

/// The answer that it gets.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Written(Box<Written>),
    Done(TxnDone),
    Precondition(Option<Box<Entry>>),
    NotFound,
    OtherRequest,
    RequestsFull,
    ContentTooLarge,
    ClockSkewed(u64, Option<NodeId>),
}

impl Request {
    pub(super) fn uuid(&self) -> Option<Uuid> {
        match self {
            Self::Write(write) => write.uuid,
            Self::Txn(txn) => txn.uuid,
        }
    }

    /// What makes it the same request: all that it asks for.
    fn text(&self) -> String {
        match self {
            Self::Write(write) => format!("{write:?}"),
            // how much may be read is the server's limit
            Self::Txn(txn) => format!("{:?}", Txn { content_bytes_max: 0, ..txn.clone() }),
        }
    }
}

/// A record as it is held now or was.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent, as on the disk")]
pub(super) struct Held {
    pub record: Record,
    pub displaced_twin: bool,
    /// Its bytes were freed because it had expired.
    pub swept: bool,
    /// Its bytes are kept apart.
    pub apart: bool,
    /// A transaction of this node wrote it.
    in_txn: bool,
    /// It lost against a write that did not know it.
    superseded: bool,
}

/// A record that another one took the place of.
#[derive(Clone, Debug)]
pub(super) struct Old {
    pub held: Held,
    pub by: Version,
}

/// An accepted request that is remembered under its uuid and a key; a transaction also without one.
#[derive(Clone, Debug)]
struct Remembered {
    text: String,
    answer: Answer,
    at: Timestamp,
    /// What it takes on the disk.
    bytes: u64,
}

/// The facts about the node that the model stands for.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub node: NodeId,
    pub joined_at: Timestamp,
    pub clock_drift_max: Duration,
    pub idempotency_window: Duration,
    pub idempotency_bytes_max: u64,
    pub history_depth: usize,
    pub blob_threshold_bytes: usize,
    pub others: bool,
}

/// A client's write that lost a merge.
#[derive(Clone, Debug)]
pub(super) struct Lost {
    key: Key,
    at: Timestamp,
    causal: Causal,
    in_txn: bool,
    record: Record,
    winner: Header,
}

/// A change in the feed.
pub(super) type Told = (Key, Header, Cause);

#[derive(Clone, Debug)]
pub(super) struct Model {
    pub rules: Rules,
    /// The wall clock.
    pub now: Timestamp,
    /// The time that requests are remembered by, which no setting of the wall clock moves.
    pub steady: Timestamp,
    /// Whether the wall clock was set since the last group.
    pub was_set: bool,
    /// The latest time that was seen, what of it would be known after a restart, and what of that
    /// still counts.
    pub latest: Timestamp,
    watermark_on_disk: Timestamp,
    watermark: Timestamp,
    /// Whether the clock was set right, and the next group keeps the time.
    is_void: bool,
    pub records: BTreeMap<Key, Held>,
    /// Newest first.
    pub history: BTreeMap<Key, Vec<Old>>,
    remembered: BTreeMap<(Uuid, Option<Key>), Remembered>,
    /// How many were forgotten before their window ended.
    pub forgotten_early: usize,
    /// All that the feed must hold.
    pub feed: Vec<Told>,
    /// All that was ever reported as lost.
    pub lost: Vec<Lost>,
    /// Nothing changes any more up to this time.
    pub floor: Floor,
    /// No write of this node's clients is stamped up to this time.
    point: Timestamp,
}

const TEN_MINUTES: Duration = Duration::from_secs(600);

impl Model {
    pub(super) fn new(rules: Rules, now: Timestamp) -> Self {
        Self {
            rules,
            now,
            steady: now,
            was_set: false,
            latest: now,
            watermark_on_disk: Timestamp::ZERO,
            watermark: Timestamp::ZERO,
            is_void: false,
            records: BTreeMap::new(),
            history: BTreeMap::new(),
            remembered: BTreeMap::new(),
            forgotten_early: 0,
            feed: Vec::new(),
            lost: Vec::new(),
            floor: Floor::default(),
            point: Timestamp::ZERO,
        }
    }

    // --- time ------------------------------------------------------------------------------------

    /// Puts the wall clock to `now`, and looks at it. One that steps back by at most the bound is
    /// not believed; one that steps back further was wrong before.
    pub(super) fn set_now(&mut self, now: Timestamp) {
        self.now = now;
        let back = self.latest.since(now);
        let borne = back <= self.rules.clock_drift_max;
        self.latest = if borne { self.latest.max(now) } else { now };
        if !borne {
            self.watermark = Timestamp::ZERO;
            self.is_void = true;
        }
    }

    /// A group begins, whether or not it changes anything.
    pub(super) fn group(&mut self) {
        self.was_set = false;
        if self.is_void {
            self.advance_watermark();
        }
    }

    /// Everything is read, so every expiry must be covered.
    pub(super) fn read_all(&mut self) {
        if self.records.values().any(|held| self.is_uncovered(held)) {
            self.advance_watermark();
        }
    }

    /// Whether it has expired, and a restart could revive it.
    fn is_uncovered(&self, held: &Held) -> bool {
        let at = held.record.header.expires_at.filter(|_| !held.swept);
        at.is_some_and(|at| at <= self.expiry_now() && at > self.watermark)
    }

    /// The watermark that a restart would find.
    pub(super) fn disk_watermark(&self) -> Timestamp {
        self.watermark_on_disk
    }

    pub(super) fn advance_watermark(&mut self) {
        (self.watermark_on_disk, self.watermark) = (self.expiry_now(), self.expiry_now());
        self.is_void = false;
    }

    /// The time that expiry is judged by.
    pub(super) fn expiry_now(&self) -> Timestamp {
        self.latest
    }

    fn expired(&self, header: &Header) -> bool {
        header.expires_at.is_some_and(|at| at <= self.expiry_now())
    }

    fn is_live(&self, held: &Held) -> bool {
        let value = held.record.header.content != Content::Tombstone;
        value && !held.swept && !self.expired(&held.record.header)
    }

    /// The record that a client sees.
    pub(super) fn live(&self, key: &Key) -> Option<&Held> {
        self.records.get(key).filter(|held| self.is_live(held))
    }

    // --- reads -----------------------------------------------------------------------------------

    pub(super) fn get(&self, key: &Key) -> Option<Entry> {
        self.live(key).map(|held| entry(held, u64::MAX))
    }

    pub(super) fn scan(&self) -> Vec<(Key, Entry)> {
        self.records.keys().filter_map(|key| Some((key.clone(), self.get(key)?))).collect()
    }

    pub(super) fn counts(&self) -> Counts {
        let keys = self.records.values().filter(|held| self.is_live(held)).count();
        Counts { keys: keys as u64, tombstones: (self.records.len() - keys) as u64 }
    }

    pub(super) fn revisions(&self, key: &Key) -> Vec<Revision> {
        let Some(current) = self.records.get(key) else { return Vec::new() };
        let is_value = current.record.header.content != Content::Tombstone;
        let outcome =
            if is_value && !self.is_live(current) { Outcome::Expired } else { Outcome::Current };
        let mut revisions = vec![revision(current, outcome, None)];
        for old in self.history.get(key).into_iter().flatten() {
            let at = old.held.record.header.expires_at;
            let expired = at.is_some_and(|at| at <= old.by.timestamp);
            let outcome = match expired {
                _ if old.held.superseded => Outcome::Superseded,
                true => Outcome::Expired,
                false => Outcome::Replaced,
            };
            revisions.push(revision(&old.held, outcome, Some(old.by.uuid)));
        }
        revisions
    }

    // --- clients ---------------------------------------------------------------------------------

    /// Decides a request; `fresh` is the uuid of its versions where the client gave none, and
    /// `cost` gives what remembering it under a uuid and a key takes on the disk.
    pub(super) fn ask(
        &mut self,
        request: &Request,
        fresh: Uuid,
        cost: impl Fn(Uuid, Option<&Key>) -> u64,
    ) -> Answer {
        self.group();
        let before = self.clone();
        let uuid = request.uuid().unwrap_or(fresh);
        let given = request.uuid().is_some();
        let outcome = match request {
            Request::Write(write) => self.write(write, uuid, given),
            Request::Txn(txn) => self.txn(txn, uuid, given),
        };
        match outcome {
            Ok((answer, None)) => answer,
            Ok((answer, Some(places))) => {
                if given {
                    self.remember(request, &answer, uuid, places, cost);
                }
                answer
            }
            Err(refusal) => {
                *self = before;
                refusal
            }
        }
    }

    /// Remembers an accepted request. If that is too much together, all that are older than ten
    /// minutes go; there are always few of them.
    fn remember(
        &mut self,
        request: &Request,
        answer: &Answer,
        uuid: Uuid,
        places: Vec<Option<Key>>,
        cost: impl Fn(Uuid, Option<&Key>) -> u64,
    ) {
        let before = self.remembered_bytes();
        for key in places {
            let (text, answer, at) = (request.text(), answer.clone(), self.steady);
            let bytes = cost(uuid, key.as_ref());
            self.remembered.insert((uuid, key), Remembered { text, answer, at, bytes });
        }
        let bytes = self.remembered_bytes();
        if bytes > before && bytes > self.rules.idempotency_bytes_max {
            let old = self.steady.minus(TEN_MINUTES.min(self.rules.idempotency_window));
            let kept = self.remembered.len();
            self.remembered.retain(|(other, _), found| *other == uuid || found.at > old);
            self.forgotten_early += kept - self.remembered.len();
        }
    }

    /// What all requests take that are remembered, or whose window has ended since the last sweep.
    pub(super) fn remembered_bytes(&self) -> u64 {
        self.remembered.values().map(|found| found.bytes).sum()
    }

    /// When the latest request was accepted that is remembered.
    pub(super) fn latest_remembered(&self) -> Option<Timestamp> {
        self.remembered.values().map(|found| found.at).max()
    }

    /// The answer to a transaction that is asked again: what it read is shown as far as it is
    /// little, or kept.
    fn replayed(&self, txn: &Txn, answer: &Answer) -> Result<Answer, Answer> {
        let Answer::Done(done) = answer else { return Ok(answer.clone()) };
        let mut done = done.clone();
        let operations = if done.failed.is_empty() { &txn.success } else { &txn.failure };
        let (mut little, mut read) = (1024, 0);
        for (operation, result) in operations.iter().zip(&mut done.results) {
            let OperationResult::Got(Some(entry)) = result else { continue };
            let size = entry.content_bytes();
            if size <= little {
                little -= size;
            } else {
                entry.body = self.kept(operation.key(), &entry.header);
            }
            read += entry.content_bytes();
            if read > txn.content_bytes_max {
                return Err(Answer::ContentTooLarge);
            }
        }
        Ok(Answer::Done(done))
    }

    /// The value of the record with this header, if it is still there.
    fn kept(&self, key: &Key, header: &Header) -> Option<Bytes> {
        let olds = self.history.get(key).into_iter().flatten().map(|old| &old.held);
        let mut all = self.records.get(key).into_iter().chain(olds);
        let found = all.find(|held| held.record.header == *header)?;
        (!found.swept).then(|| found.record.body.clone())
    }

    /// The request that is remembered under `uuid` and `key`.
    fn recall(&self, uuid: Uuid, key: Option<&Key>) -> Option<&Remembered> {
        let found = self.remembered.get(&(uuid, key.cloned()))?;
        (found.at.plus(self.rules.idempotency_window) > self.steady).then_some(found)
    }

    /// Whether a request with this uuid would be answered from memory.
    pub(super) fn is_remembered(&self, request: &Request) -> bool {
        let key = match request {
            Request::Write(write) => Some(&write.key),
            Request::Txn(_) => None,
        };
        request.uuid().is_some_and(|uuid| self.recall(uuid, key).is_some())
    }

    /// How many entries are remembered.
    pub(super) fn remembered_count(&self) -> usize {
        let places = self.remembered.keys();
        places.filter(|(uuid, key)| self.recall(*uuid, key.as_ref()).is_some()).count()
    }

    /// When the next entry is forgotten.
    pub(super) fn next_forgotten(&self) -> Option<Timestamp> {
        self.remembered.values().map(|r| r.at.plus(self.rules.idempotency_window)).min()
    }

    fn write(&mut self, write: &Write, uuid: Uuid, given: bool) -> Decided {
        let key = &write.key;
        if given && let Some(found) = self.recall(uuid, Some(key)) {
            let same = found.text == Request::Write(write.clone()).text();
            return if same { Ok((found.answer.clone(), None)) } else { Err(Answer::OtherRequest) };
        }
        if given && write.conditions.iter().any(|condition| expects(condition, uuid)) {
            return Err(Answer::OtherRequest);
        }
        let live = self.live(key);
        if !write.conditions.iter().all(|condition| holds(condition, live)) {
            let current = live.map(|held| Box::new(entry(held, CURRENT_BYTES_MAX)));
            return Err(Answer::Precondition(current));
        }
        let previous = live.map(|held| held.record.header.version);
        if write.change == Change::Delete && previous.is_none() {
            return Err(Answer::NotFound);
        }
        let header = self.put(key, &write.change, uuid, false)?;
        let previous = previous.map(|version| (version.uuid, version.timestamp));
        let written = Answer::Written(Box::new(Written { header, previous }));
        Ok((written, Some(vec![Some(key.clone())])))
    }

    fn txn(&mut self, txn: &Txn, uuid: Uuid, given: bool) -> Decided {
        if given && let Some(found) = self.recall(uuid, None) {
            if found.text != Request::Txn(txn.clone()).text() {
                return Err(Answer::OtherRequest);
            }
            return Ok((self.replayed(txn, &found.answer)?, None));
        }
        if given && txn.compare.iter().any(|(_, condition)| expects(condition, uuid)) {
            return Err(Answer::OtherRequest);
        }
        let failed: Vec<u32> = (0..)
            .zip(&txn.compare)
            .filter(|(_, (key, condition))| !holds(condition, self.live(key)))
            .map(|(at, _)| at)
            .collect();
        let operations = if failed.is_empty() { &txn.success } else { &txn.failure };
        let (mut results, mut places, mut read) = (Vec::new(), vec![None], 0);
        for operation in operations {
            results.push(match operation {
                Operation::Get(key) => {
                    let got = self.get(key);
                    read += got.as_ref().map_or(0, |entry| entry.header.content.size());
                    if read > txn.content_bytes_max as u64 {
                        return Err(Answer::ContentTooLarge);
                    }
                    OperationResult::Got(got.map(Box::new))
                }
                Operation::Write(key, _) if given && self.recall(uuid, Some(key)).is_some() => {
                    return Err(Answer::OtherRequest);
                }
                Operation::Write(key, Change::Delete) if self.live(key).is_none() => {
                    OperationResult::Deleted(false)
                }
                Operation::Write(key, change) => {
                    let header = self.put(key, change, uuid, true)?;
                    places.push(Some(key.clone()));
                    match change {
                        Change::Delete => OperationResult::Deleted(true),
                        Change::Put { .. } => OperationResult::Put(uuid, header.version.timestamp),
                    }
                }
            });
        }
        Ok((Answer::Done(TxnDone { failed, results }), Some(places)))
    }

    /// A client's value or tombstone replaces the record.
    fn put(
        &mut self,
        key: &Key,
        change: &Change,
        uuid: Uuid,
        in_txn: bool,
    ) -> Result<Header, Answer> {
        let held = self.records.get(key).map(|held| held.record.header.clone());
        let after = held.as_ref().map_or(0, |held| held.version.timestamp.micros() + 1);
        let told = self.point.max(self.floor.0).micros() + 1;
        let timestamp = Timestamp::saturating(self.now.micros().max(after).max(told));
        let ahead = timestamp.since(self.now);
        if self.rules.others && ahead > self.rules.clock_drift_max {
            let in_the_way = held.filter(|_| Timestamp::saturating(after) >= timestamp);
            let origin = in_the_way.map(|held| held.origin);
            let ahead_ms = u64::try_from(ahead.as_millis()).unwrap();
            return Err(Answer::ClockSkewed(ahead_ms, origin));
        }
        let (content, body, expires_at) = match change {
            Change::Delete => (Content::Tombstone, Bytes::new(), None),
            Change::Put { content, body, lifetime } => {
                let expires_at = match lifetime {
                    Lifetime::Unbounded => None,
                    Lifetime::Keep => self.live(key).and_then(|held| held.record.header.expires_at),
                    Lifetime::For(span) => Some(self.expiry_now().plus(*span)),
                };
                (content.clone(), body.clone(), expires_at)
            }
        };
        let origin = self.rules.node;
        let header = Header {
            version: Version { timestamp, origin_joined_at: self.rules.joined_at, uuid },
            origin,
            parent: held.as_ref().map(|held| held.version.uuid),
            seen: Seen::after_write(held.as_ref().map(|held| &held.seen), origin, timestamp),
            expires_at,
            content,
        };
        let record = Record { header: header.clone(), body };
        self.replace(key, held_as(record, in_txn), Cause::Client);
        Ok(header)
    }

    /// The current record goes to the history, if there is one.
    fn replace(&mut self, key: &Key, mut held: Held, cause: Cause) {
        let (header, swept) = (held.record.header.clone(), held.swept);
        if let Some(held) = self.records.get(key)
            && self.expired(&held.record.header)
            && !held.swept
        {
            self.feed.push((key.clone(), held.record.header.clone(), Cause::Expiry));
        }
        self.feed.push((key.clone(), header.clone(), cause));
        if swept {
            self.feed.push((key.clone(), header.clone(), Cause::Expiry));
        }
        let by = header.version;
        held.apart = held.record.body.len() >= self.rules.blob_threshold_bytes && !swept;
        if self.is_uncovered(&held) {
            self.advance_watermark();
        }
        if let Some(old) = self.records.insert(key.clone(), held) {
            let history = self.history.entry(key.clone()).or_default();
            history.insert(0, Old { held: old, by });
            history.truncate(self.rules.history_depth);
        }
    }

    // --- peers, and time that passes -------------------------------------------------------------

    /// Merges records from a peer, each on its own.
    pub(super) fn apply(&mut self, records: &[(Key, Record)]) -> Applied {
        self.group();
        let mut applied = Applied::default();
        for (key, record) in records {
            let swept = is_swept(record);
            let held = self.records.get(key).map(|held| &held.record.header);
            let wins = held.is_none_or(|held| rank(held) < rank(&record.header));
            // expired here too, as far as the two clocks may differ
            let latest = self.expiry_now().plus(self.rules.clock_drift_max);
            let gone = record.header.expires_at.is_some_and(|at| at <= latest);
            let horizon = self.now.plus(self.rules.clock_drift_max);
            let timely = record.header.version.timestamp <= horizon && (!swept || gone);
            if wins && record.header.version.timestamp <= self.floor.0 {
                applied.below_floor += 1;
            } else if wins && !timely {
                let end = record.header.expires_at.filter(|_| swept).unwrap_or_default();
                applied.held.add(record.header.version.timestamp.max(end));
            } else if wins {
                let timestamp = record.header.version.timestamp;
                let twin = held.is_some_and(|held| held.version.timestamp == timestamp);
                self.report(key, &record.header);
                let held = held_as(record.clone(), false);
                self.replace(key, Held { displaced_twin: twin, swept, ..held }, Cause::Peer);
                applied.replaced += 1;
            } else {
                applied.kept += 1;
            }
        }
        applied
    }

    /// Reports the current record as lost, if it is this node's own, had not expired, and `winner`
    /// is another write that did not know it.
    fn report(&mut self, key: &Key, winner: &Header) {
        let Some(held) = self.records.get(key) else { return };
        let header = &held.record.header;
        let is_over = held.swept || self.expired(header);
        let is_same = header.version.uuid == winner.version.uuid;
        let is_same = is_same && header.content == winner.content;
        let entry = winner.seen.entries().iter().find(|(origin, _)| *origin == header.origin);
        let causal = match entry {
            Some((_, timestamp)) if *timestamp >= header.version.timestamp => return,
            None if header.version.timestamp <= winner.seen.cut_through() => Causal::Unknown,
            _ => Causal::Concurrent,
        };
        if header.origin != self.rules.node || is_over || is_same {
            return;
        }
        let report = self.lost.len() as u64 + 1;
        self.feed.push((key.clone(), header.clone(), Cause::Superseded { report }));
        self.lost.push(Lost {
            key: key.clone(),
            at: self.now,
            causal,
            in_txn: held.in_txn,
            record: held.record.clone(),
            winner: winner.clone(),
        });
        if let Some(held) = self.records.get_mut(key) {
            held.superseded = true;
        }
    }

    /// All that was ever reported, as it is shown now.
    pub(super) fn superseded(&self) -> Vec<Superseded> {
        let shown = |lost: &Lost| {
            let Lost { key, at, causal, in_txn, record, winner } = lost;
            let small = winner.content.size() <= CURRENT_BYTES_MAX;
            let body = self.kept(key, winner).filter(|_| small);
            let is_delete = winner.content == Content::Tombstone;
            let body = if is_delete { Some(Bytes::new()) } else { body };
            Superseded {
                key: key.clone(),
                at: *at,
                causal: *causal,
                txn: in_txn.then_some(record.header.version.uuid),
                lost: Entry { header: record.header.clone(), body: Some(record.body.clone()) },
                winner: Some(Entry { header: winner.clone(), body }),
            }
        };
        self.lost.iter().map(shown).collect()
    }

    /// Frees the bytes of expired records and of their expired revisions; gives how many records it
    /// freed. Forgets requests whose window has ended.
    pub(super) fn sweep(&mut self) -> u64 {
        self.group();
        let (expiry_now, mut swept) = (self.expiry_now(), 0);
        let window = self.rules.idempotency_window;
        let steady = self.steady;
        self.remembered.retain(|_, remembered| remembered.at.plus(window) > steady);
        let due = |held: &Held| {
            let value = held.record.header.content != Content::Tombstone;
            value && held.record.header.expires_at.is_some_and(|at| at <= expiry_now)
        };
        let mut told = Vec::new();
        for (key, held) in &mut self.records {
            if due(held) && !held.swept {
                free(held);
                told.push((key.clone(), held.record.header.clone(), Cause::Expiry));
                swept += 1;
                let olds = self.history.get_mut(key).into_iter().flatten();
                olds.map(|old| &mut old.held).filter(|held| due(held)).for_each(free);
            }
        }
        // in the order in which they expired
        told.sort_by_key(|(key, header, _)| (header.expires_at, key.clone()));
        self.feed.append(&mut told);
        if swept > 0 {
            self.advance_watermark();
        }
        swept
    }

    /// The floor rises; what it passes is as if it had never been, but readers of the feed learn of
    /// each expiry first. Gives how many records that is.
    pub(super) fn collect(&mut self, to: Floor) -> usize {
        self.group();
        if to <= self.floor {
            return 0;
        }
        self.floor = to;
        let passed = |held: &Held| goes_at(&held.record.header).is_some_and(|at| at <= to.0);
        let mut gone: Vec<_> = self.records.extract_if(.., |_, held| passed(held)).collect();
        gone.sort_by_key(|(key, held)| (goes_at(&held.record.header), key.clone()));
        for (key, held) in &gone {
            self.history.remove(key);
            if self.is_uncovered(held) {
                self.advance_watermark();
            }
            let header = held.record.header.clone();
            if header.expires_at.is_some() && !held.swept {
                self.feed.push((key.clone(), header, Cause::Expiry));
            }
        }
        gone.len()
    }

    /// A node that is alone holds all that there is up to now.
    pub(super) fn alone(&mut self) -> usize {
        self.point = self.point.max(self.now);
        self.collect(Floor(self.point))
    }

    /// The node was stopped and started again, with another configuration. The time that requests
    /// are remembered by is the node's.
    pub(super) fn reopen(&mut self, history_depth: usize, blob_threshold_bytes: usize) {
        self.rules.history_depth = history_depth;
        self.rules.blob_threshold_bytes = blob_threshold_bytes;
        self.rules.others = false;
        (self.latest, self.watermark) = (self.watermark_on_disk, self.watermark_on_disk);
        // what the disk has may be believed again by now
        self.is_void = false;
        self.set_now(self.now);
    }
}

/// The answer, with the keys to remember it under if it is new; or the refusal.
type Decided = Result<(Answer, Option<Vec<Option<Key>>>), Answer>;

/// Whether a record came without the bytes that it had.
pub(super) fn is_swept(record: &Record) -> bool {
    record.header.content.size() > 0 && record.body.is_empty()
}

/// From which floor on a record may go, if it ever dies.
pub(super) fn goes_at(header: &Header) -> Option<Timestamp> {
    let written = header.version.timestamp;
    if header.content == Content::Tombstone {
        return Some(written);
    }
    header.expires_at.map(|end| end.max(written))
}

fn held_as(record: Record, in_txn: bool) -> Held {
    let (displaced_twin, swept, apart, superseded) = (false, false, false, false);
    Held { record, displaced_twin, swept, apart, in_txn, superseded }
}

fn free(held: &mut Held) {
    held.swept = true;
    held.apart = false;
    held.record.body = Bytes::new();
}

/// The contract's order of versions.
fn rank(header: &Header) -> (Timestamp, Reverse<Timestamp>, Uuid, RecordHash) {
    let version = header.version;
    (version.timestamp, Reverse(version.origin_joined_at), version.uuid, header.hash())
}

fn entry(held: &Held, content_bytes_max: u64) -> Entry {
    let header = held.record.header.clone();
    let shown = header.content.size() <= content_bytes_max;
    Entry { header, body: shown.then(|| held.record.body.clone()) }
}

fn revision(held: &Held, outcome: Outcome, by: Option<Uuid>) -> Revision {
    let body = (!held.swept).then(|| held.record.body.clone());
    Revision { header: held.record.header.clone(), body, outcome, by }
}

/// Whether a condition can hold for the version of this uuid because it names it.
fn expects(condition: &Condition, uuid: Uuid) -> bool {
    match condition {
        Condition::Match(Tags::These(list)) => list.contains(&uuid),
        Condition::Expect(Expected::Uuid(named) | Expected::Version { uuid: named, .. }) => {
            *named == uuid
        }
        _ => false,
    }
}

/// A condition on the live value, if there is one.
fn holds(condition: &Condition, live: Option<&Held>) -> bool {
    let uuid = live.map(|held| held.record.header.version.uuid);
    let timestamp = live.map(|held| held.record.header.version.timestamp);
    let named = |tags: &Tags| match tags {
        Tags::Any => live.is_some(),
        Tags::These(list) => list.iter().any(|tag| Some(*tag) == uuid),
    };
    match condition {
        Condition::Match(tags) => named(tags),
        Condition::NoneMatch(tags) => !named(tags),
        Condition::Expect(expected) => match expected {
            Expected::Uuid(expected) => uuid == Some(*expected),
            Expected::Timestamp(expected) => {
                timestamp == Some(*expected) && live.is_some_and(|held| !held.displaced_twin)
            }
            Expected::Version { uuid: u, timestamp: t } => {
                uuid == Some(*u) && timestamp == Some(*t)
            }
            Expected::Json(text) => live.is_some_and(|held| text.equals(&held.record.body)),
            Expected::Bytes(bytes) => live.is_some_and(|held| held.record.body == bytes),
            Expected::Absent => live.is_none(),
            Expected::Exists => live.is_some(),
        },
    }
}
