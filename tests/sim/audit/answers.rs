//! Checks what nodes answer to writes against the request and what is known of the moment.

use kvs::model::{Condition, Content, Expected, Header, Key, Timestamp};
use kvs::store::{Change, Entry, Write, WriteError, Written};
use uuid::Uuid;

use super::asked::{Answer, Attempt, Held, Request, holds};
use super::retries::says_nothing;
use super::{Audit, described};
use crate::client::READ_BYTES_MAX;

/// What a key had at the moment of a decision, as far as that is known.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub record: Option<Header>,
    /// Whether it was alive.
    pub lived: Option<bool>,
}

impl Audit {
    /// Checks a request that the node accepted.
    pub(super) fn accepted(&mut self, number: u64, answer: &Answer, after: &Held) {
        if self.is_answered_before(number, answer) {
            return;
        }
        self.begin_earlier(number);
        let Some(attempt) = self.attempts.get(&number).cloned() else { return };
        self.tally.acked += 1;
        match (&attempt.request, answer) {
            (Request::Write(write), Answer::Write(written)) => {
                self.written(number, &attempt, write, written);
            }
            (Request::Txn(txn), Answer::Txn(done)) => {
                self.took_place(number, &attempt, txn, done, after);
            }
            _ => self.violated(None, "the answer does not fit the request"),
        }
        self.answered_named(number, answer, attempt.is_unknown);
    }

    fn written(&mut self, number: u64, attempt: &Attempt, write: &Write, written: &Written) {
        let (key, header, slot) = (&write.key, &written.header, attempt.asked.slot);
        self.story.add(Some(key), format!("node {slot} acknowledged {}", described(header)));
        if self.records.get(&(key.clone(), header.version)).is_some_and(|known| known.acked) {
            self.violated(Some(key), "one record was acknowledged as two writes");
        }
        let is_named = write.uuid.is_none_or(|uuid| uuid == header.version.uuid);
        if !is_named || attempt.wish_for(key, header).is_none() {
            self.violated(Some(key), "the acknowledged record is not the one requested");
        }
        if let Some(attempt) = self.attempts.get_mut(&number) {
            attempt.branch = Some(true);
            attempt.uuid = Some(header.version.uuid);
        }
        self.settle(number, &[(key.clone(), header.clone())]);
        self.close(number);
        self.check_previous(attempt, write, written);
        self.floor(slot, key, header.version);
        self.rises(key, header);
    }

    /// The greatest acknowledged version of a key.
    pub(super) fn rises(&mut self, key: &Key, header: &Header) {
        let greatest = self.greatest.entry(key.clone()).or_insert(header.version);
        *greatest = header.version.max(*greatest);
    }

    /// Checks what the write replaced by its own account: it was live, is the parent, and was
    /// expected.
    fn check_previous(&mut self, attempt: &Attempt, write: &Write, written: &Written) {
        let (key, clock) = (Some(&write.key), &self.clocks[attempt.asked.slot]);
        let header = &written.header;
        let previous = written.previous.and_then(|at| self.known_at(&write.key, at));
        if let Some((uuid, timestamp)) = written.previous {
            if header.parent != Some(uuid) {
                self.violated(key, "the answer and the record name different parents");
            }
            if !write.conditions.iter().all(|condition| names(condition, uuid, timestamp)) {
                self.violated(key, "a swap replaced a version that it did not expect");
            }
            let began = attempt.began.earliest(clock);
            let ended = |at: Timestamp| began.is_some_and(|began| at <= began);
            if previous.is_some_and(|previous| {
                previous.content == Content::Tombstone || previous.expires_at.is_some_and(ended)
            }) {
                self.violated(key, "a dead record was reported as replaced alive");
            }
        } else if matches!(write.change, Change::Delete) {
            self.violated(key, "an accepted delete deleted nothing");
        } else if let Some(parent) = header.parent {
            let lived = |parent: &&Header| self.surely_lives(attempt.asked.slot, parent);
            let parents = self.parents(&write.key, parent);
            if !parents.is_empty() && parents.iter().all(lived) {
                self.violated(key, "a live value was treated as absent");
            }
        }
        let is_known = previous.is_some() || written.previous.is_none();
        if is_known && !write.conditions.iter().all(|c| self.holds(c, previous)) {
            self.violated(key, "a swap took place although its expectation did not hold");
        }
        if !write.conditions.is_empty() {
            self.tally.swapped += 1;
        }
    }

    pub(super) fn holds(&self, condition: &Condition, live: Option<&Header>) -> bool {
        holds(condition, live, |hash| self.json.get(hash))
    }

    fn known_at(&self, key: &Key, (uuid, timestamp): (Uuid, Timestamp)) -> Option<&Header> {
        let mut known = self.named(key, uuid);
        known.retain(|header| header.version.timestamp == timestamp);
        // a request that was repeated on another node in the same microsecond has two
        known.pop().filter(|_| known.is_empty())
    }

    /// Whether a record that a node holds cannot have expired there yet.
    pub(super) fn surely_lives(&self, slot: usize, header: &Header) -> bool {
        header.content != Content::Tombstone && !self.may_be_swept(slot, header)
    }

    /// What a key had when the attempt was decided, between the two moments at which the node held
    /// `before` and `after`.
    pub(super) fn state(&self, attempt: &Attempt, key: &Key, after: &Held) -> Option<State> {
        // The answer to a retry can be as old as the first attempt.
        if attempt.was_repeated {
            return None;
        }
        let version = |held: &Option<Header>| held.as_ref().map(|header| header.version);
        let (before, after) = (attempt.before.get(key)?, after.get(key)?);
        if version(before) == version(after) {
            return Some(self.state_of(attempt, before.as_ref()));
        }
        // The write itself names what was there.
        let own = after.as_ref()?;
        if attempt.pieces.get(key) != Some(&own.version) {
            return None;
        }
        match own.parent {
            None => Some(self.state_of(attempt, None)),
            Some(parent) => match self.parents(key, parent)[..] {
                [parent] => Some(self.state_of(attempt, Some(parent))),
                _ => None,
            },
        }
    }

    fn state_of(&self, attempt: &Attempt, record: Option<&Header>) -> State {
        let slot = attempt.asked.slot;
        let began = attempt.began.earliest(&self.clocks[slot]);
        let is_dead = |header: &Header| {
            let ended = header.expires_at.zip(began).is_some_and(|(at, began)| at <= began);
            header.content == Content::Tombstone || ended
        };
        let lived = match record {
            None => Some(false),
            Some(header) if is_dead(header) => Some(false),
            Some(header) => self.surely_lives(slot, header).then_some(true),
        };
        State { record: record.cloned(), lived }
    }

    /// Checks a request that the node refused.
    pub(super) fn refused(&mut self, number: u64, refusal: &WriteError, after: &Held) {
        let Some(attempt) = self.attempts.get(&number).cloned() else { return };
        let key = attempt.request.keys().pop_first();
        match (&attempt.request, refusal) {
            (Request::Write(write), WriteError::PreconditionFailed { current }) => {
                self.check_refusal(&attempt, write, current.as_deref(), after);
            }
            (Request::Write(write), WriteError::NotFound) if write.change == Change::Delete => {
                self.check_nothing(&attempt, write, after);
            }
            (Request::Txn(txn), WriteError::ContentTooLarge)
                if txn.content_bytes_max < READ_BYTES_MAX => {}
            (_, WriteError::ClockSkewed { .. }) if self.may_be_ahead(&attempt, after) => {}
            (_, refusal) if says_nothing(refusal) => {}
            (request, WriteError::RequestsFull)
                if request.uuid().is_some() && self.rules.remembers_little => {}
            _ => self.violated(key.as_ref(), &format!("the request was refused with {refusal:?}")),
        }
        let text = format!("node {} refused a request: {refusal}", attempt.asked.slot);
        self.story.add(key.as_ref(), text);
        self.leave(number, !says_nothing(refusal));
    }

    /// Notes that one of the waiting clients has an answer, and that the request was not accepted
    /// this time. When no other client waits, it never was accepted, unless an earlier attempt has
    /// an unknown outcome.
    fn leave(&mut self, number: u64, is_decided: bool) {
        let Some(attempt) = self.attempts.get_mut(&number) else { return };
        attempt.waiting = attempt.waiting.saturating_sub(1);
        let may_have_been = attempt.is_unknown && !is_decided;
        if may_have_been {
            self.retries.is_unheard(number);
            return;
        }
        if attempt.waiting > 0 || attempt.branch.is_some() {
            return;
        }
        let attempt = attempt.clone();
        if self.took_place_before(&attempt) {
            let key = attempt.request.keys().pop_first();
            self.violated(key.as_ref(), "a retry of a request that took place was refused");
        }
        self.settle(number, &[]);
        self.close(number);
    }

    /// Whether a request with a request id was seen to have taken place on the disk on which it was
    /// asked, which must then remember it.
    fn took_place_before(&self, attempt: &Attempt) -> bool {
        let is_its_own = |uuid| !self.retries.is_shared(uuid);
        attempt.request.uuid().is_some_and(is_its_own)
            && !attempt.pieces.is_empty()
            && self.rules.remembers
            && attempt.disk == self.disk(attempt.asked.slot)
    }

    /// Whether a record that the node held can have been too far ahead of its clock. What a disk
    /// that cannot be read held afterwards is unknown.
    fn may_be_ahead(&self, attempt: &Attempt, after: &Held) -> bool {
        if attempt.request.keys().iter().any(|key| !after.contains_key(key)) {
            return true;
        }
        let Some(began) = attempt.began.earliest(&self.clocks[attempt.asked.slot]) else {
            return true;
        };
        let latest = began.plus(self.rules.clock_drift_max);
        // no write is stamped at or below a point, wherever the clock was set since it was taken
        if self.points.get(&attempt.asked.slot).is_some_and(|point| point.next() > latest) {
            return true;
        }
        let held = attempt.before.values().chain(after.values()).flatten();
        held.map(|header| header.version.timestamp.next()).any(|next| next > latest)
    }

    fn check_refusal(
        &mut self,
        attempt: &Attempt,
        write: &Write,
        current: Option<&Entry>,
        after: &Held,
    ) {
        let (key, slot) = (&write.key, attempt.asked.slot);
        let Some(entry) = current else {
            self.check_nothing(attempt, write, after);
            if write.conditions.iter().all(|condition| self.holds(condition, None)) {
                self.violated(
                    Some(key),
                    "a swap that expects no value was refused without a value",
                );
            }
            return;
        };
        let header = &entry.header;
        self.attribute(key, header);
        let before = attempt.before.get(key).and_then(Option::as_ref);
        if before.is_some_and(|before| before.version > header.version) {
            let what =
                format!("a request was refused over {}, which was gone by then", described(header));
            self.violated(Some(key), &what);
        }
        self.check_entry(attempt, key, entry);
        let may_be_twin = |condition: &Condition| {
            matches!(condition, Condition::Expect(Expected::Timestamp(_)))
                && (header.origin != attempt.asked.origin || attempt.disk > 0)
        };
        let fails = |c: &Condition| may_be_twin(c) || !self.holds(c, Some(header));
        if !write.conditions.iter().any(fails) {
            let what = format!("node {slot} refused a request whose expectation held");
            self.violated(Some(key), &what);
        }
    }

    /// Checks that this was alive at the moment of the decision, as the answer shows it.
    pub(super) fn check_entry(&self, attempt: &Attempt, key: &Key, entry: &Entry) {
        let began = attempt.began.earliest(&self.clocks[attempt.asked.slot]);
        let ended = entry.header.expires_at.zip(began).is_some_and(|(at, began)| at <= began);
        if ended || entry.header.content == Content::Tombstone {
            self.violated(Some(key), &format!("{} was dead by then", described(&entry.header)));
        }
        if let (Content::Value { size, hash, .. }, Some(body)) =
            (&entry.header.content, &entry.body)
            && (*size != body.len() as u64 || blake3::hash(body).as_bytes() != hash)
        {
            self.violated(Some(key), "an answer has other bytes than its header names");
        }
    }

    /// Checks that there was no live value, as the node says.
    fn check_nothing(&mut self, attempt: &Attempt, write: &Write, after: &Held) {
        let state = self.state(attempt, &write.key, after);
        if state.is_some_and(|state| state.lived == Some(true)) {
            self.violated(Some(&write.key), "a live value was treated as absent");
        }
    }
}

/// Whether the condition names this version. Conditions that name no version do not.
fn names(condition: &Condition, uuid: Uuid, timestamp: Timestamp) -> bool {
    match condition {
        Condition::Expect(Expected::Uuid(expected)) => *expected == uuid,
        Condition::Expect(Expected::Timestamp(expected)) => *expected == timestamp,
        Condition::Expect(Expected::Version { uuid: expected, timestamp: at }) => {
            (*expected, *at) == (uuid, timestamp)
        }
        Condition::Expect(Expected::Absent) => false,
        _ => true,
    }
}
