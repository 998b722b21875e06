//! Transactions: all or nothing on their node, and compares and reads of one moment.

use std::collections::{BTreeMap, BTreeSet};

use kvs::model::{Condition, Content, Expected, Header, Key, Version};
use kvs::store::{Change, Entry, Lifetime, Operation, OperationResult, Txn, TxnDone};
use uuid::Uuid;

use super::answers::State;
use super::asked::{Answer, Attempt, Held, brief, content_of};
use super::{Audit, described};

/// Transactions by the node that was asked.
#[derive(Default)]
pub struct Txns {
    /// Those of its present disk.
    asked: BTreeMap<usize, Vec<u64>>,
    /// Those of a disk that has lost something since, until its node starts again.
    torn: BTreeMap<usize, Vec<u64>>,
}

impl Txns {
    pub fn add(&mut self, slot: usize, number: u64) {
        self.asked.entry(slot).or_default().push(number);
    }

    pub fn disk_lost(&mut self, slot: usize) {
        let asked = self.asked.remove(&slot).unwrap_or_default();
        self.torn.entry(slot).or_default().extend(asked);
    }
}

/// What a transaction has seen and done so far.
#[derive(Default)]
struct Course<'a> {
    written: BTreeMap<&'a Key, &'a Change>,
    read: BTreeMap<&'a Key, Option<&'a Entry>>,
}

impl Audit {
    /// Checks a transaction that took place, as the node says.
    pub(super) fn took_place(
        &mut self,
        number: u64,
        attempt: &Attempt,
        txn: &Txn,
        done: &TxnDone,
        after: &Held,
    ) {
        let key = txn.compare.first().map(|(key, _)| key).or(first_key(txn));
        self.tally.txns += 1;
        let took = done.failed.is_empty();
        let operations = if took { &txn.success } else { &txn.failure };
        let said = Answer::Txn(done.clone()).brief();
        for key in attempt.request.keys() {
            let text = format!("node {} did {}: {said}", attempt.asked.slot, brief(operations));
            self.story.add(Some(&key), text);
        }
        let ascends = done.failed.is_sorted_by(|a, b| a < b);
        let in_range = done.failed.last().is_none_or(|last| (*last as usize) < txn.compare.len());
        if !ascends || !in_range || operations.len() != done.results.len() {
            self.violated(key, &format!("the answer to a transaction does not fit it: {done:?}"));
        }
        self.note_results(number, attempt, operations, done, after);
        // The record as it is known now.
        let Some(attempt) = self.attempts.get(&number).cloned() else { return };
        let course = self.follow(&attempt, operations, &done.results, after);
        self.check_compares(&attempt, txn, done, &course.read, after);
        self.check_one_moment(&attempt, &course.read);
        if attempt.put_at.is_empty() && attempt.pieces.is_empty() {
            // It can write nothing more, unless it deleted something.
            let deleted = done.results.iter().any(|r| matches!(r, OperationResult::Deleted(true)));
            if !deleted {
                self.close(number);
            }
        }
    }

    /// Finds what it wrote, as far as its answer tells.
    fn note_results(
        &mut self,
        number: u64,
        attempt: &Attempt,
        operations: &[Operation],
        done: &TxnDone,
        after: &Held,
    ) {
        let (asked, mut uuid) = (attempt.asked, attempt.uuid.filter(|_| attempt.is_sure));
        let mut puts = BTreeMap::new();
        let mut nothing = BTreeSet::new();
        for (operation, result) in operations.iter().zip(&done.results) {
            let key = operation.key();
            match (operation, result) {
                (Operation::Write(_, Change::Put { .. }), OperationResult::Put(put, at)) => {
                    if *uuid.get_or_insert(*put) != *put {
                        self.violated(Some(key), "the writes of a transaction have two uuids");
                    }
                    puts.insert(key.clone(), *at);
                }
                (Operation::Write(_, Change::Delete), OperationResult::Deleted(false)) => {
                    nothing.insert(key.clone());
                }
                (Operation::Write(_, Change::Delete), OperationResult::Deleted(true))
                | (Operation::Get(_), OperationResult::Got(_)) => {}
                _ => self.violated(Some(key), &format!("{result:?} answers another operation")),
            }
        }
        let Some(attempt) = self.attempts.get_mut(&number) else { return };
        attempt.branch = Some(done.failed.is_empty());
        attempt.put_at = puts.clone();
        attempt.nothing_at = nothing;
        self.settle_txn(number, uuid);
        self.note_held(number, after);
        for (key, timestamp) in puts {
            let Some(uuid) = uuid else { continue };
            let version = Version { timestamp, origin_joined_at: asked.joined_at, uuid };
            self.floor(asked.slot, &key, version);
            let greatest = self.greatest.entry(key).or_insert(version);
            *greatest = version.max(*greatest);
        }
    }

    /// Takes away the records attributed to it that its answer rules out.
    fn settle_txn(&mut self, number: u64, uuid: Option<Uuid>) {
        let Some(attempt) = self.attempts.get_mut(&number) else { return };
        if let Some(uuid) = uuid.filter(|uuid| attempt.uuid != Some(*uuid)) {
            let before = attempt.uuid.replace(uuid);
            if let Some(numbers) = before.and_then(|before| self.by_uuid.get_mut(&before)) {
                numbers.retain(|of| *of != number);
            }
            self.by_uuid.entry(uuid).or_default().push(number);
        }
        let Some(attempt) = self.attempts.get_mut(&number) else { return };
        attempt.is_sure |= uuid.is_some();
        let attempt = attempt.clone();
        let is_own = |(key, version): (&Key, &Version)| {
            let header = self.header(key, version)?;
            let fits = uuid.is_none_or(|uuid| uuid == version.uuid);
            let own = fits && attempt.wish_for(key, header).is_some();
            own.then(|| (key.clone(), header.clone()))
        };
        let own: Vec<_> = attempt.pieces.iter().filter_map(is_own).collect();
        self.settle(number, &own);
    }

    /// What the node held right afterwards tells more than the answer.
    fn note_held(&mut self, number: u64, after: &Held) {
        let Some(attempt) = self.attempts.get(&number).cloned() else { return };
        for (key, held) in after {
            let Some(header) = held else { continue };
            let is_own = attempt.uuid == Some(header.version.uuid) && attempt.is_sure;
            if is_own && attempt.wish_for(key, header).is_some() {
                self.give(number, key, header);
            }
        }
    }

    /// Checks each result against what was written and read before it.
    fn follow<'a>(
        &mut self,
        attempt: &Attempt,
        operations: &'a [Operation],
        results: &'a [OperationResult],
        after: &Held,
    ) -> Course<'a> {
        let mut course = Course::default();
        for (operation, result) in operations.iter().zip(results) {
            let key = operation.key();
            match (operation, result) {
                (Operation::Write(key, change), _) => {
                    if matches!(result, OperationResult::Deleted(_)) {
                        self.check_deleted(attempt, key, result, &course, after);
                    }
                    course.written.insert(key, change);
                }
                (_, OperationResult::Got(got)) => {
                    let got = got.as_deref();
                    if let Some(entry) = got {
                        self.check_entry(attempt, key, entry);
                    }
                    if let Some(change) = course.written.get(key) {
                        self.check_own_read(attempt, key, change, got);
                    } else {
                        self.check_read(attempt, key, got, &course, after);
                        course.read.insert(key, got);
                    }
                }
                _ => {}
            }
        }
        course
    }

    fn check_deleted(
        &mut self,
        attempt: &Attempt,
        key: &Key,
        result: &OperationResult,
        course: &Course<'_>,
        after: &Held,
    ) {
        let read = course.read.get(key).map(|read| read.is_some());
        let lived = read.or_else(|| self.state(attempt, key, after)?.lived);
        if lived.is_some_and(|lived| *result != OperationResult::Deleted(lived)) {
            self.violated(Some(key), &format!("a result {result:?} is wrong"));
        }
    }

    /// Checks that it reads what it wrote itself.
    fn check_own_read(&self, attempt: &Attempt, key: &Key, change: &Change, got: Option<&Entry>) {
        let is_own = match (change, got) {
            (Change::Delete, None) => true,
            // A value with an end can have expired by the greatest time that the node has seen.
            (Change::Put { lifetime, .. }, None) => *lifetime != Lifetime::Unbounded,
            (Change::Put { content, body, .. }, Some(got)) => {
                attempt.uuid == Some(got.header.version.uuid)
                    && got.header.content == *content
                    && got.body.as_ref().map_or(attempt.was_asked_before(), |got| got == body)
            }
            (Change::Delete, Some(_)) => false,
        };
        if !is_own {
            let what = format!("a transaction wrote {change:?} and then read {got:?}");
            self.violated(Some(key), &what);
        }
    }

    /// Checks a read of what others wrote: a client wrote it, it was there at that moment, and two
    /// reads see the same.
    fn check_read(
        &mut self,
        attempt: &Attempt,
        key: &Key,
        got: Option<&Entry>,
        course: &Course<'_>,
        after: &Held,
    ) {
        let at = Some(key);
        if let Some(entry) = got {
            self.attribute(key, &entry.header);
            if entry.body.is_none() && !attempt.was_asked_before() {
                self.violated(at, "a transaction read a value without its bytes");
            }
            let before = attempt.before.get(key).and_then(Option::as_ref);
            if before.is_some_and(|before| before.version > entry.header.version) {
                let what = format!(
                    "a transaction read {}, which was gone by then",
                    described(&entry.header)
                );
                self.violated(at, &what);
            }
        }
        let version = |entry: Option<&Entry>| entry.map(|entry| entry.header.version);
        if course.read.get(key).is_some_and(|first| version(*first) != version(got)) {
            self.violated(at, "a transaction read two values of one key");
        }
        let Some(State { record, lived: Some(lived) }) = self.state(attempt, key, after) else {
            return;
        };
        self.tally.foreseen += 1;
        let expected = record.filter(|_| lived).map(|header| header.version);
        if version(got) != expected {
            let what = format!("a transaction read {:?} instead of {expected:?}", version(got));
            self.violated(at, &what);
        }
    }

    /// Checks each verdict against what is known of that moment.
    fn check_compares(
        &mut self,
        attempt: &Attempt,
        txn: &Txn,
        done: &TxnDone,
        read: &BTreeMap<&Key, Option<&Entry>>,
        after: &Held,
    ) {
        for (at, (key, condition)) in (0_u32..).zip(&txn.compare) {
            let live = match read.get(key) {
                Some(read) => read.map(|entry| entry.header.clone()),
                None => match self.state(attempt, key, after) {
                    Some(State { record, lived: Some(lived) }) => record.filter(|_| lived),
                    _ => continue,
                },
            };
            self.tally.foreseen += 1;
            let holds = self.holds(condition, live.as_ref());
            let failed = done.failed.contains(&at);
            let may_be_twin = holds
                && matches!(condition, Condition::Expect(Expected::Timestamp(_)))
                && (attempt.disk > 0
                    || live.as_ref().is_some_and(|live| live.origin != attempt.asked.origin));
            if holds == failed && !may_be_twin {
                let live = live.as_ref().map(described);
                let what = format!("{condition:?} was decided wrongly over {live:?}");
                self.violated(Some(key), &what);
            }
        }
    }

    /// Checks that a read of another transaction of this node saw all of its keys.
    fn check_one_moment(&self, attempt: &Attempt, read: &BTreeMap<&Key, Option<&Entry>>) {
        let headers = || read.iter().filter_map(|(key, entry)| Some((*key, &(*entry)?.header)));
        for (key, header) in headers() {
            let owner = self.records.get(&(key.clone(), header.version)).map(|known| known.owner);
            let Some(other) = owner.and_then(|owner| self.attempts.get(&owner)) else { continue };
            let here = other.asked.slot == attempt.asked.slot && other.disk == attempt.disk;
            if other.is_txn() && here && other.asked.origin == header.origin {
                let held = |key: &Key| headers().find(|(at, _)| *at == key).map(|(_, h)| h.version);
                self.check_whole(other, |key| held(key).map(Some));
            }
        }
    }

    /// Checks the node at `slot` as it starts over what it held when it ended, before any peer has
    /// sent it anything.
    pub fn starts_whole(&mut self, slot: usize, held: &BTreeMap<Key, Header>) {
        let torn = self.txns.torn.remove(&slot).unwrap_or_default();
        let asked = self.txns.asked.get(&slot).into_iter().flatten();
        for attempt in torn.iter().chain(asked).filter_map(|number| self.attempts.get(number)) {
            self.check_seen_whole(slot, attempt, held);
        }
    }

    /// Checks that the node at `slot` shows all or nothing of the transactions with unknown
    /// outcomes. (Acknowledged ones are checked elsewhere.)
    pub fn shows_whole(&self, slot: usize, held: &BTreeMap<Key, Header>) {
        let open = self.open.iter().filter_map(|number| self.attempts.get(number));
        let here = |attempt: &&Attempt| {
            attempt.is_txn() && attempt.asked.slot == slot && attempt.disk == self.disk(slot)
        };
        open.filter(here).for_each(|attempt| self.check_seen_whole(slot, attempt, held));
    }

    fn check_seen_whole(&self, slot: usize, attempt: &Attempt, held: &BTreeMap<Key, Header>) {
        let version = |key: &Key| held.get(key).map(|header| header.version);
        let is_there = |(key, piece): (&Key, &Version)| version(key) == Some(*piece);
        if attempt.pieces.iter().any(is_there) {
            // what it deleted may have gone since
            self.check_whole(attempt, |key| Some(version(key).max(self.gone(slot, key))));
        }
    }

    /// Checks that all writes of a transaction are there, or later ones, because one of them is.
    /// `held` returns the version of a key, if it is known.
    fn check_whole(&self, attempt: &Attempt, held: impl Fn(&Key) -> Option<Option<Version>>) {
        let Some(branch) = attempt.branch_by(|key, version| self.header(key, version)) else {
            return;
        };
        for wish in attempt.request.wishes().into_iter().filter(|wish| wish.branch == branch) {
            let key = wish.key;
            let Some(version) = held(key) else { continue };
            let is_there = match (attempt.pieces.get(key), attempt.put_at.get(key)) {
                (Some(piece), _) => version >= Some(*piece),
                (None, Some(at)) => version.is_some_and(|version| version.timestamp >= *at),
                (None, None) => self.came_on_top(attempt, key, wish.change, version),
            };
            if !is_there {
                let all = &attempt.pieces;
                let what = format!("a transaction is there in part: {all:?}, and {version:?} here");
                self.violated(Some(key), &what);
            }
        }
    }

    /// Whether a change of this attempt, or a later one, can have left this for a key.
    fn came_on_top(
        &self,
        attempt: &Attempt,
        key: &Key,
        change: &Change,
        version: Option<Version>,
    ) -> bool {
        let Some(before) = attempt.before.get(key) else { return true };
        let lived = before.as_ref().is_some_and(|before| {
            before.content != Content::Tombstone && before.expires_at.is_none()
        });
        // A delete that finds nothing changes nothing.
        let leaves_it = content_of(change) == Content::Tombstone && !lived;
        leaves_it || version > before.as_ref().map(|before: &Header| before.version)
    }
}

fn first_key(txn: &Txn) -> Option<&Key> {
    txn.success.first().or(txn.failure.first()).map(Operation::key)
}
