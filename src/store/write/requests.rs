//! Remembered requests: a client that sends a request again, under the same uuid, gets the first
//! answer again.
//!
//! An accepted request is remembered in the transaction that carries it out; a refusal is not. Two
//! requests are the same when all that they ask is: key, content, lifetime, conditions. What one
//! answer takes is bounded: content that a transaction read is remembered up to
//! [`CONTENT_BYTES_MAX`], and is otherwise read again by its version, as long as this node keeps
//! that. What all take on the disk is bounded, too: when that is reached, the oldest are forgotten
//! early, but none of the last [`KEPT_MIN`]; when there are only such, requests with a uuid are
//! refused.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::effects::{Effect, Effects, RequestSlot};
use super::view::View;
use crate::model::{Condition, Header, Key, Timestamp};
use crate::store::disk::layout::{self, Body, Stored};
use crate::store::{
    Change, Operation, OperationResult, ReadError, Txn, TxnDone, Write, WriteError, Written,
};
use crate::telemetry::Metrics;

/// How much content one remembered answer holds.
pub(in crate::store) const CONTENT_BYTES_MAX: usize = 1024;
/// A request of this age may be forgotten before its window ends, when the memory is full.
pub(in crate::store) const KEPT_MIN: Duration = Duration::from_secs(600);
/// How many requests are forgotten at once when the memory is full, so that not each further
/// request has to search.
pub(in crate::store) const FORGOTTEN_MIN: u64 = 256;
/// How many are forgotten at most where fewer make room for the new one; more are too many only
/// after the limit was lowered.
const FORGOTTEN_MAX: u64 = 4096;
/// How often the log says that requests are forgotten early.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// What identifies a request: the client's uuid, and a hash of all that it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    uuid: Uuid,
    fingerprint: [u8; 32],
}

/// All that a request asks; values by their hashes.
#[derive(Serialize)]
enum Asked<'a> {
    Write(&'a Key, &'a Change, &'a [Condition]),
    Txn(&'a [(Key, Condition)], &'a [Operation], &'a [Operation]),
}

impl RequestId {
    /// The id of a write, if the client gave it a uuid.
    pub(super) fn of_write(write: &Write) -> Option<Self> {
        let asked = || Asked::Write(&write.key, &write.change, &write.conditions);
        write.uuid.map(|uuid| Self::new(uuid, &asked()))
    }

    /// The id of a transaction, if the client gave it a uuid.
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

    /// The uuid that the client gave.
    pub(super) fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn slot(&self, key: &[u8]) -> RequestSlot {
        RequestSlot { uuid: self.uuid, key: key.to_vec() }
    }
}

/// The answer to a request, as it is remembered.
#[derive(Serialize, Deserialize)]
pub(super) enum RememberedAnswer {
    Written(Written),
    Txn(TxnDone),
    /// The key was written by the transaction of this uuid, which holds the answer.
    PartOfTxn,
}

/// A request on the disk.
#[derive(Serialize, Deserialize)]
struct Remembered {
    fingerprint: [u8; 32],
    accepted_at: Timestamp,
    answer: RememberedAnswer,
}

/// The answer that this request got before, if it is remembered.
///
/// # Errors
/// [`WriteError::OtherRequest`] when the uuid is remembered for another request.
pub(super) fn recall(
    view: &mut View<'_>,
    id: &RequestId,
    key: &[u8],
) -> Result<Option<RememberedAnswer>, WriteError> {
    let found = read(view, &id.slot(key)).map_err(WriteError::Failed)?;
    let Some((remembered, _)) = found else { return Ok(None) };
    assert!(remembered.accepted_at <= view.steady, "a request was accepted in the future");
    if remembered.accepted_at.plus(view.shared.idempotency_window) <= view.steady {
        return Ok(None);
    }
    if remembered.fingerprint != id.fingerprint {
        return Err(WriteError::OtherRequest);
    }
    Ok(Some(remembered.answer))
}

/// What a slot holds, and how many bytes it takes.
fn read(view: &mut View<'_>, slot: &RequestSlot) -> Result<Option<(Remembered, u64)>, ReadError> {
    let Some(raw) = view.request(slot)? else { return Ok(None) };
    let remembered = layout::decode_request(&raw)?;
    Ok(Some((remembered, cost(slot, raw.len()))))
}

/// Remembers a request that is accepted: its answers, each under the key that it goes with.
///
/// # Errors
/// [`WriteError::RequestsFull`] when the memory is full, and holds nothing that may be forgotten.
pub(super) fn remember(
    view: &mut View<'_>,
    id: &RequestId,
    answers: Vec<(&[u8], RememberedAnswer)>,
    effects: &mut Effects,
) -> Result<(), WriteError> {
    let (mut added, mut freed, mut changes) = (0, 0, Effects::default());
    for (key, answer) in answers {
        let slot = id.slot(key);
        // an entry whose window has ended and that no sweep has met yet
        if let Some((old, cost)) = read(view, &slot).map_err(WriteError::Failed)? {
            freed += cost;
            let accepted_at = old.accepted_at;
            changes.push(Effect::DropRequestTime { slot: slot.clone(), accepted_at });
        }
        let (fingerprint, accepted_at) = (id.fingerprint, view.steady);
        let remembered = layout::encode_meta(&Remembered { fingerprint, accepted_at, answer });
        added += cost(&slot, remembered.len());
        changes.push(Effect::PutRequest { slot, accepted_at, remembered });
    }
    let (taken, max) = (view.requests_bytes, view.rules.idempotency_bytes_max);
    let mut bytes = (taken + added).saturating_sub(freed);
    if bytes > taken && bytes > max {
        // one that is larger than all of the memory would only forget the others
        if added <= max {
            let freed = make_room(view, id, bytes - max, bytes - taken, effects)?;
            bytes = bytes.saturating_sub(freed);
        }
        if bytes > taken && bytes > max {
            return Err(WriteError::RequestsFull);
        }
    }
    effects.append(changes);
    effects.push(Effect::SetRequestsBytes(bytes));
    Ok(())
}

/// Forgets the oldest requests that may be forgotten, until `needed` bytes are free, or `growth` at
/// least; gives how many bytes that freed. Leaves those of `own` uuid to the caller.
fn make_room(
    view: &mut View<'_>,
    own: &RequestId,
    needed: u64,
    growth: u64,
    effects: &mut Effects,
) -> Result<u64, WriteError> {
    let shared = view.shared;
    let end = view.steady.minus(KEPT_MIN.min(shared.idempotency_window)).next();
    let (mut freed, mut count, mut to, mut failed) = (0, 0, None, None);
    let mut leaves_one = false;
    shared
        .visit_oldest_requests(end, &mut |accepted_at, rest| {
            if rest.starts_with(own.uuid.as_bytes()) {
                leaves_one = true;
                return ControlFlow::Continue(());
            }
            assert!(to.is_none_or(|to| to <= accepted_at), "the index of times is out of order");
            match forget_one(view, accepted_at, rest, effects) {
                Ok(bytes) => {
                    freed += bytes.unwrap_or_default();
                    count += u64::from(bytes.is_some());
                }
                Err(error) => failed = Some(error),
            }
            to = if leaves_one { to } else { Some(accepted_at) };
            let is_enough = (freed >= needed && count >= FORGOTTEN_MIN)
                || (freed >= growth && count >= FORGOTTEN_MAX);
            let ends = is_enough || failed.is_some();
            if ends { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .map_err(WriteError::Failed)?;
    if let Some(error) = failed {
        return Err(error);
    }
    if let Some(to) = to {
        effects.push(Effect::ForgetEarly { count, to });
    }
    Ok(freed)
}

/// Forgets the request that was accepted at `accepted_at`; `rest` is its uuid and key, as they
/// stand in the index of times. Answers whether one was forgotten.
pub(in crate::store) fn forget(
    view: &mut View<'_>,
    accepted_at: Timestamp,
    rest: &[u8],
) -> Result<(bool, Effects), WriteError> {
    let mut effects = Effects::default();
    let freed = forget_one(view, accepted_at, rest, &mut effects)?;
    if let Some(freed) = freed {
        let bytes = view.requests_bytes.saturating_sub(freed);
        effects.push(Effect::SetRequestsBytes(bytes));
    }
    Ok((freed.is_some(), effects))
}

/// As [`forget`], but for the sum of all; gives how many bytes it freed, if it forgot one.
fn forget_one(
    view: &mut View<'_>,
    accepted_at: Timestamp,
    rest: &[u8],
    effects: &mut Effects,
) -> Result<Option<u64>, WriteError> {
    let Some((uuid, key)) = rest.split_first_chunk::<16>() else { return Ok(None) };
    let slot = RequestSlot { uuid: Uuid::from_bytes(*uuid), key: key.to_vec() };
    effects.push(Effect::DropRequestTime { slot: slot.clone(), accepted_at });
    let raw = view.request(&slot).map_err(WriteError::Failed)?;
    let Some(raw) = raw else { return Ok(None) };
    match layout::decode_request::<Remembered>(&raw) {
        // the uuid was used again after its window had ended
        Ok(found) if found.accepted_at != accepted_at => return Ok(None),
        Ok(_) => {}
        // nobody can be answered from it, and it must not keep others from being forgotten
        Err(error) => tracing::error!(%error, "a damaged request is forgotten"),
    }
    let freed = cost(&slot, raw.len());
    effects.push(Effect::DropRequest { slot });
    Ok(Some(freed))
}

impl RememberedAnswer {
    /// The answer to a transaction, with as much of the content that it read as is remembered.
    pub(super) fn of_txn(done: &TxnDone) -> Self {
        let mut left = CONTENT_BYTES_MAX;
        let results = done.results.iter().map(|result| match result {
            OperationResult::Got(Some(entry)) => {
                let mut entry = Box::new((**entry).clone());
                match left.checked_sub(entry.content_bytes()) {
                    Some(rest) => left = rest,
                    None => entry.body = None,
                }
                OperationResult::Got(Some(entry))
            }
            OperationResult::Got(None) | OperationResult::Put(..) | OperationResult::Deleted(_) => {
                result.clone()
            }
        });
        Self::Txn(TxnDone { failed: done.failed.clone(), results: results.collect() })
    }
}

/// The remembered answer to a transaction, for a retry: content that was not remembered is read
/// again where this node still keeps that version, else it is missing.
///
/// # Errors
/// [`WriteError::ContentTooLarge`] when it holds more content than `txn` takes.
pub(super) fn replay(
    view: &mut View<'_>,
    txn: &Txn,
    answer: RememberedAnswer,
) -> Result<TxnDone, WriteError> {
    let RememberedAnswer::Txn(mut done) = answer else { return Err(WriteError::OtherRequest) };
    let operations = if done.failed.is_empty() { &txn.success } else { &txn.failure };
    assert_eq!(operations.len(), done.results.len(), "the answer belongs to other operations");
    let mut left = txn.content_bytes_max;
    let mut charge = |bytes: u64| -> Result<(), WriteError> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        left = left.checked_sub(bytes).ok_or(WriteError::ContentTooLarge)?;
        Ok(())
    };
    for (operation, result) in operations.iter().zip(&mut done.results) {
        let OperationResult::Got(Some(entry)) = result else { continue };
        if entry.body.is_none() {
            let key = operation.key();
            let Some(kept) = kept(view, key, &entry.header).map_err(WriteError::Failed)? else {
                continue;
            };
            charge(entry.header.content.size())?;
            entry.body = Some(view.body(key, &kept).map_err(WriteError::Failed)?);
        } else {
            charge(entry.header.content.size())?;
        }
    }
    Ok(done)
}

/// The record of `key` with this header, current or earlier, if its value is still there.
fn kept(view: &mut View<'_>, key: &Key, header: &Header) -> Result<Option<Stored>, ReadError> {
    let Some(current) = view.current(key)? else { return Ok(None) };
    let (first, next) = current.stored.revisions;
    let mut stored = current.stored;
    for number in (first..next).rev().map(Some).chain([None]) {
        if stored.header == *header {
            return Ok(Some(stored).filter(|stored| stored.body != Body::Swept));
        }
        // revisions only get older
        let Some(number) = number.filter(|_| stored.header.version >= header.version) else {
            break;
        };
        stored = match view.revision(key, number) {
            Ok(Some(revision)) => revision,
            // what is older cannot be found behind it either
            Ok(None) | Err(ReadError::Damaged { .. }) => break,
            Err(error) => return Err(error),
        };
    }
    Ok(None)
}

/// Counts the requests that are forgotten early, and warns of it.
#[derive(Debug, Default)]
pub(super) struct EarlyForgetting {
    untold: u64,
    told_at: Option<Instant>,
}

impl EarlyForgetting {
    /// A group forgot `count` requests early, at `now`.
    pub(super) fn note(&mut self, count: u64, now: Instant, metrics: &Metrics) {
        if count == 0 {
            return;
        }
        metrics.store_requests_forgotten.inc_by(count);
        self.untold += count;
        let since = self.told_at.map(|told_at| now.saturating_duration_since(told_at));
        if since.is_none_or(|since| since >= WARN_EVERY) {
            let count = std::mem::take(&mut self.untold);
            self.told_at = Some(now);
            tracing::warn!(
                count,
                "limits.idempotency_bytes_max is reached, and the oldest requests with a uuid were \
                 forgotten before limits.idempotency_window: a retry of these would write again; \
                 raise the limit, or shorten the window"
            );
        }
    }
}

/// When the request was accepted that is remembered as `value`.
pub(in crate::store) fn accepted_at(value: &[u8]) -> Result<Timestamp, ReadError> {
    layout::decode_request::<Remembered>(value).map(|remembered| remembered.accepted_at)
}

/// As [`cost`]; `slot` is the uuid and the key.
pub(in crate::store) fn slot_cost(slot: &[u8], value_bytes: usize) -> u64 {
    (2 * (1 + slot.len()) + 8 + value_bytes) as u64
}

/// What a remembered request takes on the disk, its entry in the index of times included.
fn cost(slot: &RequestSlot, value_bytes: usize) -> u64 {
    let key_bytes = layout::request_key(slot.uuid, &slot.key).len();
    (2 * key_bytes + 8 + value_bytes) as u64
}
