//! The memory of requests that have a uuid of their own, so that a retry gets the first answer.
//!
//! An accepted request is remembered in the very transaction that performs it; a refusal is not
//! remembered. A request is the same when everything in it is: key, content, lifetime, conditions.
//! What the memory takes on the disk is bounded; when it is full, further requests that want to be
//! remembered are refused rather than older ones forgotten before their time.

use std::io::Write as _;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::engine::Family;
use super::group::Group;
use super::layout;
use super::{Change, Operation, ReadError, Txn, TxnDone, Write, WriteError, Written};
use crate::model::{Condition, Key, Timestamp};

/// What names a request: the client's uuid, and a hash of all that it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    uuid: Uuid,
    fingerprint: [u8; 32],
}

/// Everything that a request asks; values by their hashes.
#[derive(Serialize)]
enum Asked<'a> {
    Write(&'a Key, &'a Change, &'a [Condition]),
    Txn(&'a [(Key, Condition)], &'a [Operation], &'a [Operation]),
}

impl RequestId {
    /// The name of a write, if it has one.
    pub(super) fn of_write(write: &Write) -> Option<Self> {
        let asked = || Asked::Write(&write.key, &write.change, &write.conditions);
        write.uuid.map(|uuid| Self::new(uuid, &asked()))
    }

    /// The name of a transaction, if it has one.
    pub(super) fn of_txn(txn: &Txn) -> Option<Self> {
        let asked = || Asked::Txn(&txn.compare, &txn.success, &txn.failure);
        txn.uuid.map(|uuid| Self::new(uuid, &asked()))
    }

    #[expect(clippy::expect_used, reason = "encoding plain data into a hasher cannot fail")]
    fn new(uuid: Uuid, asked: &Asked<'_>) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("kvs 2026-11 request v1");
        let config = bincode::config::standard();
        let mut to = std::io::BufWriter::new(&mut hasher);
        bincode::serde::encode_into_std_write(asked, &mut to, config).expect("plain data");
        to.flush().expect("into memory");
        drop(to);
        Self { uuid, fingerprint: hasher.finalize().into() }
    }

    /// The client's uuid.
    pub(super) fn uuid(&self) -> Uuid {
        self.uuid
    }
}

/// The answer to a request.
#[derive(Serialize, Deserialize)]
pub(super) enum Answer {
    Written(Written),
    Txn(TxnDone),
    /// The key was written by the transaction of this uuid, which has the answer.
    PartOfTxn,
}

/// What is remembered of a request.
#[derive(Serialize, Deserialize)]
struct Remembered {
    fingerprint: [u8; 32],
    accepted_at: Timestamp,
    answer: Answer,
}

impl Group<'_> {
    /// The answer that was given to this request before, if it is remembered.
    pub(super) fn remembered(
        &mut self,
        name: &RequestId,
        key: &[u8],
    ) -> Result<Option<Answer>, WriteError> {
        let at = layout::request_key(name.uuid, key);
        let Some((remembered, _)) = self.recall(&at).map_err(WriteError::Failed)? else {
            return Ok(None);
        };
        if remembered.accepted_at.plus(self.shared.idempotency_window) <= self.now {
            return Ok(None);
        }
        if remembered.fingerprint != name.fingerprint {
            return Err(WriteError::OtherRequest);
        }
        Ok(Some(remembered.answer))
    }

    /// An entry of the memory, and how many bytes it takes.
    fn recall(&mut self, at: &[u8]) -> Result<Option<(Remembered, u64)>, ReadError> {
        let Some(raw) = self.transaction.get_for_update(Family::Requests, at)? else {
            return Ok(None);
        };
        let remembered = layout::decode_request(&raw)?;
        Ok(Some((remembered, cost(at, &raw))))
    }

    /// Finds room for what is about to be remembered, of `answers`, each with the key that it goes
    /// with. Changes nothing yet.
    pub(super) fn memorise(
        &mut self,
        name: &RequestId,
        answers: Vec<(Vec<u8>, Answer)>,
    ) -> Result<Memory, WriteError> {
        let mut memory = Memory { uuid: name.uuid, entries: Vec::new(), bytes: 0 };
        let mut freed = 0;
        for (key, answer) in answers {
            let at = layout::request_key(name.uuid, &key);
            // one whose time is over and that was not swept yet
            let over = self.recall(&at).map_err(WriteError::Failed)?;
            freed += over.as_ref().map_or(0, |(_, cost)| *cost);
            let over = over.map(|(remembered, _)| remembered.accepted_at);
            let remembered =
                Remembered { fingerprint: name.fingerprint, accepted_at: self.now, answer };
            let value = layout::encode_meta(&remembered);
            memory.bytes += cost(&at, &value);
            memory.entries.push(Entry { key, at, value, over });
        }
        let taken = self.requests_bytes();
        memory.bytes = (taken + memory.bytes).saturating_sub(freed);
        if memory.bytes > taken && memory.bytes > self.rules.idempotency_bytes_max {
            return Err(WriteError::RequestsFull);
        }
        Ok(memory)
    }

    /// Remembers.
    pub(super) fn remember(&mut self, memory: Memory) -> Result<(), WriteError> {
        let now = self.now;
        for Entry { key, at, value, over } in memory.entries {
            let noted = layout::request_time_key(now, memory.uuid, &key);
            if let Some(over) = over {
                let over = layout::request_time_key(over, memory.uuid, &key);
                self.change(|transaction| transaction.delete(Family::Requests, &over))?;
            }
            self.put_entry(Family::Requests, &at, &value)?;
            self.put_entry(Family::Requests, &noted, &[])?;
        }
        self.note_request(now);
        self.requests_bytes = Some(memory.bytes);
        Ok(())
    }

    fn requests_bytes(&self) -> u64 {
        let committed = &self.shared.requests_bytes;
        let committed = || committed.load(std::sync::atomic::Ordering::Relaxed);
        self.requests_bytes.unwrap_or_else(committed)
    }

    /// Forgets the request that was accepted at `accepted_at`; `rest` is its uuid and key.
    pub(super) fn forget(
        &mut self,
        accepted_at: Timestamp,
        rest: &[u8],
    ) -> Result<bool, WriteError> {
        let Some((uuid, key)) = rest.split_first_chunk::<16>() else { return Ok(false) };
        let uuid = Uuid::from_bytes(*uuid);
        let at = layout::request_key(uuid, key);
        let noted = layout::request_time_key(accepted_at, uuid, key);
        let raw = self.transaction.get_for_update(Family::Requests, &at);
        let Some(raw) = raw.map_err(|error| WriteError::Failed(error.into()))? else {
            self.change(|transaction| transaction.delete(Family::Requests, &noted))?;
            return Ok(false);
        };
        self.change(|transaction| transaction.delete(Family::Requests, &noted))?;
        match layout::decode_request::<Remembered>(&raw) {
            // the uuid was used again after its time
            Ok(found) if found.accepted_at != accepted_at => return Ok(false),
            Ok(_) => {}
            // nobody can be answered from it, and it is no reason to keep others
            Err(error) => tracing::error!(%error, "a damaged request is forgotten"),
        }
        let cost = cost(&at, &raw);
        self.change(|transaction| transaction.delete(Family::Requests, &at))?;
        self.requests_bytes = Some(self.requests_bytes().saturating_sub(cost));
        Ok(true)
    }
}

/// One entry of the memory, in the making.
struct Entry {
    key: Vec<u8>,
    at: Vec<u8>,
    value: Vec<u8>,
    /// When the one was accepted whose place it takes, if there is one.
    over: Option<Timestamp>,
}

/// What is to be remembered of a request.
pub(super) struct Memory {
    uuid: Uuid,
    entries: Vec<Entry>,
    /// What the whole memory takes with it.
    bytes: u64,
}

/// What an entry takes on the disk, its note of the time included.
fn cost(at: &[u8], value: &[u8]) -> u64 {
    (2 * at.len() + 8 + value.len()) as u64
}
