//! Remembered requests: a client that sends a request again, under the same uuid, gets the first
//! answer again.
//!
//! An accepted request is remembered in the transaction that carries it out; a refusal is not. Two
//! requests are the same when all that they ask is: key, content, lifetime, conditions. What the
//! memory takes on the disk is bounded. When it is full, further requests with a uuid are refused;
//! none is forgotten before its time.

use std::io::Write as _;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::effects::{Effect, Effects, RequestSlot};
use super::view::View;
use crate::model::{Condition, Key, Timestamp};
use crate::store::disk::layout;
use crate::store::{Change, Operation, ReadError, Txn, TxnDone, Write, WriteError, Written};

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
    if remembered.accepted_at.plus(view.shared.idempotency_window) <= view.now {
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
/// [`WriteError::RequestsFull`] when the memory is full.
pub(super) fn remember(
    view: &mut View<'_>,
    id: &RequestId,
    answers: Vec<(&[u8], RememberedAnswer)>,
    effects: &mut Effects,
) -> Result<(), WriteError> {
    let (mut added, mut freed) = (0, 0);
    for (key, answer) in answers {
        let slot = id.slot(key);
        // an entry whose window has ended and that no sweep has met yet
        if let Some((old, cost)) = read(view, &slot).map_err(WriteError::Failed)? {
            freed += cost;
            let accepted_at = old.accepted_at;
            effects.push(Effect::DropRequestTime { slot: slot.clone(), accepted_at });
        }
        let (fingerprint, accepted_at) = (id.fingerprint, view.now);
        let remembered = layout::encode_meta(&Remembered { fingerprint, accepted_at, answer });
        added += cost(&slot, remembered.len());
        effects.push(Effect::PutRequest { slot, accepted_at, remembered });
    }
    let taken = view.requests_bytes;
    let bytes = (taken + added).saturating_sub(freed);
    if bytes > taken && bytes > view.rules.idempotency_bytes_max {
        return Err(WriteError::RequestsFull);
    }
    effects.push(Effect::SetRequestsBytes(bytes));
    Ok(())
}

/// Forgets the request that was accepted at `accepted_at`; `rest` is its uuid and key, as they
/// stand in the index of times. Answers whether one was forgotten.
pub(in crate::store) fn forget(
    view: &mut View<'_>,
    accepted_at: Timestamp,
    rest: &[u8],
) -> Result<(bool, Effects), WriteError> {
    let Some((uuid, key)) = rest.split_first_chunk::<16>() else {
        return Ok((false, Effects::default()));
    };
    let slot = RequestSlot { uuid: Uuid::from_bytes(*uuid), key: key.to_vec() };
    let mut effects = Effects::of(Effect::DropRequestTime { slot: slot.clone(), accepted_at });
    let raw = view.request(&slot).map_err(WriteError::Failed)?;
    let Some(raw) = raw else { return Ok((false, effects)) };
    match layout::decode_request::<Remembered>(&raw) {
        // the uuid was used again after its window had ended
        Ok(found) if found.accepted_at != accepted_at => return Ok((false, effects)),
        Ok(_) => {}
        // nobody can be answered from it, and it must not keep others from being forgotten
        Err(error) => tracing::error!(%error, "a damaged request is forgotten"),
    }
    let bytes = view.requests_bytes.saturating_sub(cost(&slot, raw.len()));
    effects.push(Effect::DropRequest { slot });
    effects.push(Effect::SetRequestsBytes(bytes));
    Ok((true, effects))
}

/// What a remembered request takes on the disk, its entry in the index of times included.
fn cost(slot: &RequestSlot, value_bytes: usize) -> u64 {
    let key_bytes = layout::request_key(slot.uuid, &slot.key).len();
    (2 * key_bytes + 8 + value_bytes) as u64
}
