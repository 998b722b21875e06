//! How the writer decides what clients ask.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use uuid::Uuid;

use super::feed::Commit;
use super::group::{Group, Held};
use super::layout::{Marks, Stored};
use super::requests::{Answer, RequestId};
use super::write::Room;
use super::{
    CURRENT_BYTES_MAX, Change, Entry, Lifetime, Operation, OperationResult, ReadError, Txn,
    TxnDone, Write, WriteError, Written,
};
use crate::model::condition::Current;
use crate::model::record::RecordHash;
use crate::model::{Condition, Content, Header, Key, Record, Seen, Timestamp, Version};

/// What comparing contents gave outside of the writer.
#[derive(Clone, Debug)]
pub enum Verdicts {
    /// For each condition that looks into the value, in their order: the live record that it was
    /// held against, if there was one, and whether it holds.
    Found(Vec<(Option<RecordHash>, bool)>),
    /// The writer is to compare itself.
    Open,
}

/// A write that was decided and is not made yet.
struct Plan {
    key: Key,
    held: Option<Held>,
    record: Record,
    marks: Marks,
}

/// The verdicts that are left to be used, or else the room that is.
struct Left<'a> {
    verdicts: Option<std::slice::Iter<'a, (Option<RecordHash>, bool)>>,
    room: Room,
}

impl<'a> Left<'a> {
    fn new(verdicts: &'a Verdicts, compared_bytes_max: usize) -> Self {
        let verdicts = match verdicts {
            Verdicts::Found(found) => Some(found.iter()),
            Verdicts::Open => None,
        };
        Self { verdicts, room: Room::new(compared_bytes_max) }
    }
}

/// Decided, or what was compared outside is not what is there any more.
pub(super) type Decision<T> = Result<Option<T>, WriteError>;

impl Group<'_> {
    /// Decides a client's write and, if it is accepted, performs it.
    pub(super) fn write(
        &mut self,
        write: &Write,
        name: Option<&RequestId>,
        verdicts: &Verdicts,
    ) -> Decision<Written> {
        let key = &write.key;
        if let Some(name) = name
            && let Some(answer) = self.remembered(name, key.as_bytes())?
        {
            return match answer {
                Answer::Written(written) => Ok(Some(written)),
                // of another kind, whatever the hash says
                Answer::Txn(_) | Answer::PartOfTxn => Err(WriteError::OtherRequest),
            };
        }
        let held = self.current(key).map_err(WriteError::Failed)?;
        if let Some(name) = name {
            let mut expected = write.conditions.iter();
            if expected.any(|condition| condition.expects(name.uuid())) {
                return Err(WriteError::OtherRequest);
            }
            self.check_free(key, held.as_ref(), name)?;
        }
        let mut left = Left::new(verdicts, self.rules.compared_bytes_max);
        for condition in &write.conditions {
            match self.holds(key, condition, held.as_ref(), &mut left)? {
                Some(true) => {}
                Some(false) => return Err(self.precondition_failed(key, held.as_ref())),
                None => return Ok(None),
            }
        }
        let live = held.as_ref().filter(|held| held.stored.is_live(self.now));
        if live.is_none() && matches!(write.change, Change::Delete) {
            return Err(WriteError::NotFound);
        }
        let previous = live.map(|held| held.stored.header.version);
        let previous = previous.map(|version| (version.uuid, version.timestamp));
        let uuid = name.map_or_else(|| self.shared.clock.uuid(), RequestId::uuid);
        let plan = self.plan(key, held, &write.change, (uuid, name.is_some()))?;
        let written = Written { header: plan.record.header.clone(), previous };
        let memory = match name {
            Some(name) => {
                let answer = Answer::Written(written.clone());
                Some(self.memorise(name, vec![(key.as_bytes().to_vec(), answer)])?)
            }
            None => None,
        };
        self.perform(plan)?;
        memory.map_or(Ok(()), |memory| self.remember(memory))?;
        Ok(Some(written))
    }

    /// Decides a transaction and performs it.
    pub(super) fn txn(
        &mut self,
        txn: &Txn,
        name: Option<&RequestId>,
        verdicts: &Verdicts,
    ) -> Decision<TxnDone> {
        if let Some(name) = name
            && let Some(answer) = self.remembered(name, &[])?
        {
            return match answer {
                Answer::Txn(done) if done.content_bytes() > txn.content_bytes_max => {
                    Err(WriteError::ContentTooLarge)
                }
                Answer::Txn(done) => Ok(Some(done)),
                Answer::Written(_) | Answer::PartOfTxn => Err(WriteError::OtherRequest),
            };
        }
        if let Some(name) = name
            && txn.compare.iter().any(|(_, condition)| condition.expects(name.uuid()))
        {
            return Err(WriteError::OtherRequest);
        }
        let mut failed = Vec::new();
        let mut left = Left::new(verdicts, self.rules.compared_bytes_max);
        for (at, (key, condition)) in (0_u32..).zip(&txn.compare) {
            let held = self.current(key).map_err(WriteError::Failed)?;
            match self.holds(key, condition, held.as_ref(), &mut left)? {
                Some(true) => {}
                Some(false) => failed.push(at),
                None => return Ok(None),
            }
        }
        let operations = if failed.is_empty() { &txn.success } else { &txn.failure };
        let (plans, results) = self.plan_all(operations, txn.content_bytes_max, name)?;
        let done = TxnDone { failed, results };
        let memory = match name {
            Some(name) => {
                let parts = plans.iter().map(|plan| plan.key.as_bytes().to_vec());
                let mut answers: Vec<_> = parts.map(|key| (key, Answer::PartOfTxn)).collect();
                answers.push((Vec::new(), Answer::Txn(done.clone())));
                Some(self.memorise(name, answers)?)
            }
            None => None,
        };
        // nothing was changed so far, and from here on only the engine can fail, which lets the
        // whole group go
        for plan in plans {
            self.perform(plan)?;
        }
        memory.map_or(Ok(()), |memory| self.remember(memory))?;
        Ok(Some(done))
    }

    /// Decides what each operation gives, and what is to be written.
    fn plan_all(
        &mut self,
        operations: &[Operation],
        mut room: usize,
        name: Option<&RequestId>,
    ) -> Result<(Vec<Plan>, Vec<OperationResult>), WriteError> {
        let uuid = name.map_or_else(|| self.shared.clock.uuid(), RequestId::uuid);
        let mut plans: Vec<Plan> = Vec::new();
        let mut planned = BTreeMap::new();
        let mut results = Vec::with_capacity(operations.len());
        for operation in operations {
            let key = operation.key();
            let plan = planned.get(key).and_then(|at: &usize| plans.get(*at));
            let change = match operation {
                Operation::Get(_) => {
                    let entry = self.read(key, plan, &mut room)?;
                    results.push(OperationResult::Got(entry.map(Box::new)));
                    continue;
                }
                Operation::Write(_, change) => change,
            };
            debug_assert!(plan.is_none(), "{key} is written twice in one transaction");
            if let Some(name) = name
                && self.remembered(name, key.as_bytes())?.is_some()
            {
                return Err(WriteError::OtherRequest);
            }
            let held = self.current(key).map_err(WriteError::Failed)?;
            if let Some(name) = name {
                self.check_free(key, held.as_ref(), name)?;
            }
            let is_live = held.as_ref().is_some_and(|held| held.stored.is_live(self.now));
            if matches!(change, Change::Delete) && !is_live {
                results.push(OperationResult::Deleted(false));
                continue;
            }
            let plan = self.plan(key, held, change, (uuid, name.is_some()))?;
            results.push(match change {
                Change::Put { .. } => {
                    OperationResult::Put(uuid, plan.record.header.version.timestamp)
                }
                Change::Delete => OperationResult::Deleted(true),
            });
            planned.insert(key, plans.len());
            plans.push(plan);
        }
        Ok((plans, results))
    }

    /// What a read of a transaction gives: what the transaction itself has written, or else the
    /// live value.
    fn read(
        &mut self,
        key: &Key,
        plan: Option<&Plan>,
        room: &mut usize,
    ) -> Result<Option<Entry>, WriteError> {
        let (header, body) = if let Some(plan) = plan {
            (plan.record.header.clone(), Some(plan.record.body.clone()))
        } else {
            match self.current(key).map_err(WriteError::Failed)? {
                Some(held) if held.stored.is_live(self.now) => (held.stored.header.clone(), None),
                _ => return Ok(None),
            }
        };
        if header.content == Content::Tombstone {
            return Ok(None);
        }
        // measured before it is read
        let size = usize::try_from(header.content.size()).unwrap_or(usize::MAX);
        *room = room.checked_sub(size).ok_or(WriteError::ContentTooLarge)?;
        let body = match body {
            Some(body) => body,
            None => match self.current(key).map_err(WriteError::Failed)? {
                Some(held) => self.body(key, &held.stored).map_err(WriteError::Failed)?,
                None => Bytes::new(),
            },
        };
        Ok(Some(Entry { header, body: Some(body) }))
    }

    /// Whether a condition holds for the live value of `key`; `None`: what was compared outside is
    /// not there any more.
    fn holds(
        &mut self,
        key: &Key,
        condition: &Condition,
        held: Option<&Held>,
        left: &mut Left<'_>,
    ) -> Decision<bool> {
        let live = held.filter(|held| held.stored.is_live(self.now));
        let mut body = None;
        if condition.needs_body() {
            if let Some(verdicts) = &mut left.verdicts {
                let verdict = verdicts.next();
                let compared = verdict.filter(|(hash, _)| *hash == live.map(|h| h.stored.hash));
                return Ok(compared.map(|(_, holds)| *holds));
            }
            if let Some(held) = live {
                let read = self.body(key, &held.stored).map_err(WriteError::Failed)?;
                left.room.take(read.len())?;
                body = Some(read);
            }
        }
        let current = live.map(|held| Current {
            header: &held.stored.header,
            displaced_twin: held.stored.marks.displaced_twin,
            body: body.as_deref(),
        });
        Ok(Some(condition.holds(current)))
    }

    /// The refusal of a condition, with the live value.
    fn precondition_failed(&mut self, key: &Key, held: Option<&Held>) -> WriteError {
        let Some(held) = held.filter(|held| held.stored.is_live(self.now)) else {
            return WriteError::PreconditionFailed { current: None };
        };
        let header = held.stored.header.clone();
        let mut body = None;
        if header.content.size() <= CURRENT_BYTES_MAX {
            match self.body(key, &held.stored) {
                Ok(found) => body = Some(found),
                Err(error) => return WriteError::Failed(error),
            }
        }
        WriteError::PreconditionFailed { current: Some(Box::new(Entry { header, body })) }
    }

    /// Refuses a name that is the uuid which this node itself gave to a version of `key` that it
    /// still has: two versions of one uuid could not be told apart by whoever expects one of them.
    fn check_free(
        &mut self,
        key: &Key,
        held: Option<&Held>,
        name: &RequestId,
    ) -> Result<(), WriteError> {
        let Some(held) = held else { return Ok(()) };
        let is_taken =
            |stored: &Stored| stored.header.version.uuid == name.uuid() && !stored.marks.named;
        if is_taken(&held.stored) {
            return Err(WriteError::OtherRequest);
        }
        // nodes give uuids of the time of the write
        let (secs, nanos) = match name.uuid().get_timestamp() {
            Some(at) if name.uuid().get_version_num() == 7 => at.to_unix(),
            _ => return Ok(()),
        };
        let made_at = Timestamp::ZERO.plus(std::time::Duration::new(secs, nanos));
        if made_at > held.stored.header.version.timestamp {
            return Ok(());
        }
        let (first, next) = held.stored.revisions;
        for number in first..next {
            match self.revision(key, number) {
                Ok(Some(revision)) if is_taken(&revision) => return Err(WriteError::OtherRequest),
                Ok(_) | Err(ReadError::Damaged { .. }) => {}
                Err(error) => return Err(WriteError::Failed(error)),
            }
        }
        Ok(())
    }

    /// What a write of `key` over `held`, dead or alive, will leave there. Changes nothing.
    fn plan(
        &self,
        key: &Key,
        held: Option<Held>,
        change: &Change,
        (uuid, named): (Uuid, bool),
    ) -> Result<Plan, WriteError> {
        let before = held.as_ref().map(|held| &held.stored.header);
        let (content, body, expires_at) = match change {
            Change::Delete => (Content::Tombstone, Bytes::new(), None),
            Change::Put { content, body, lifetime } => {
                let live = held.as_ref().filter(|held| held.stored.is_live(self.now));
                let expires_at = match lifetime {
                    Lifetime::Unbounded => None,
                    Lifetime::Keep => live.and_then(|held| held.stored.header.expires_at),
                    Lifetime::For(span) => Some(self.now.plus(*span)),
                };
                (content.clone(), body.clone(), expires_at)
            }
        };
        let version = self.next_version(before, uuid)?;
        let origin = self.shared.node();
        let header = Header {
            version,
            origin,
            parent: before.map(|header| header.version.uuid),
            seen: Seen::after_write(before.map(|header| &header.seen), origin, version.timestamp),
            expires_at,
            content,
        };
        let marks = Marks { displaced_twin: false, named };
        Ok(Plan { key: key.clone(), held, record: Record { header, body }, marks })
    }

    /// The version of a new write over `before`.
    fn next_version(&self, before: Option<&Header>, uuid: Uuid) -> Result<Version, WriteError> {
        let after = before.map_or(Timestamp::ZERO, |header| header.version.timestamp.next());
        let timestamp = self.wall.max(after);
        let ahead = timestamp.since(self.wall);
        if self.shared.others.load(Ordering::Relaxed) && ahead > self.rules.clock_drift_max {
            let ahead_ms = u64::try_from(ahead.as_millis()).unwrap_or(u64::MAX);
            return Err(WriteError::ClockSkewed { ahead_ms });
        }
        let origin_joined_at = self.shared.identity.joined_at;
        Ok(Version { timestamp, origin_joined_at, uuid })
    }

    /// Writes what was planned, and tells the feed.
    fn perform(&mut self, plan: Plan) -> Result<(), WriteError> {
        let Plan { key, held, record, marks } = plan;
        let header = record.header.clone();
        let body = self.put(&key, held, record, marks)?;
        self.commits.push(Commit { key, header, body });
        Ok(())
    }
}
