//! Deciding on what clients ask: reads a view, returns the answer and its effects, changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::compare::{Comparison, Comparisons, ContentBudget};
use super::effects::Effects;
use super::replace::Replacement;
use super::requests::{self, RememberedAnswer, RequestId};
use super::view::{CurrentEntry, View};
use crate::model::condition::Current;
use crate::model::{Condition, Content, Header, Key, Record, Seen, Timestamp, Version};
use crate::store::disk::layout::{Marks, Stored};
use crate::store::feed::Cause;
use crate::store::{
    CURRENT_BYTES_MAX, Change, Entry, Lifetime, Operation, OperationResult, ReadError, Txn,
    TxnDone, Write, WriteError, Written,
};

/// The answer to a request; `None`: a record that was compared before is no longer the current one,
/// so its conditions must be compared again.
pub(super) type Decision<T> = Result<Option<T>, WriteError>;

/// The uuid that a write's version gets, whether the client gave it, and whether all writes of a
/// transaction get it.
#[derive(Clone, Copy)]
struct VersionUuid {
    uuid: Uuid,
    is_named: bool,
    in_txn: bool,
}

impl VersionUuid {
    fn new(view: &View<'_>, id: Option<&RequestId>, in_txn: bool) -> Self {
        let uuid = id.map_or_else(|| view.new_uuid(), RequestId::uuid);
        Self { uuid, is_named: id.is_some(), in_txn }
    }
}

/// The comparisons that are left to be used, or else the budget for making them.
struct Contents<'a> {
    comparisons: Option<std::slice::Iter<'a, Comparison>>,
    budget: ContentBudget,
}

impl<'a> Contents<'a> {
    fn new(view: &View<'_>, comparisons: &'a Comparisons) -> Self {
        let comparisons = match comparisons {
            Comparisons::Done(done) => Some(done.iter()),
            Comparisons::Open => None,
        };
        Self { comparisons, budget: ContentBudget::new(view.rules.compared_bytes_max) }
    }
}

/// Decides a client's write.
pub(super) fn write(
    view: &mut View<'_>,
    write: &Write,
    id: Option<&RequestId>,
    comparisons: &Comparisons,
) -> Result<(Option<Written>, Effects), WriteError> {
    let (key, mut effects) = (&write.key, Effects::default());
    if let Some(id) = id
        && let Some(answer) = requests::recall(view, id, key.as_bytes())?
    {
        return match answer {
            RememberedAnswer::Written(written) => Ok((Some(written), effects)),
            // of another kind, whatever its hash says
            RememberedAnswer::Txn(_) | RememberedAnswer::PartOfTxn => Err(WriteError::OtherRequest),
        };
    }
    view.admit_write(write)?;
    let current = view.current(key).map_err(WriteError::Failed)?;
    if let Some(id) = id {
        if write.conditions.iter().any(|condition| condition.expects(id.uuid())) {
            return Err(WriteError::OtherRequest);
        }
        refuse_own_uuid(view, key, current.as_ref(), id)?;
    }
    let mut contents = Contents::new(view, comparisons);
    for condition in &write.conditions {
        match holds(view, key, condition, current.as_ref(), &mut contents)? {
            Some(true) => {}
            Some(false) => return Err(precondition_failed(view, key, current.as_ref())),
            None => return Ok((None, effects)),
        }
    }
    let live = live(view, current.as_ref());
    if live.is_none() && matches!(write.change, Change::Delete) {
        return Err(WriteError::NotFound);
    }
    let previous = live.map(|entry| entry.stored.header.version);
    let previous = previous.map(|version| (version.uuid, version.timestamp));
    let uuid = VersionUuid::new(view, id, false);
    let replacement = replacement(view, key, current, &write.change, uuid)?;
    let written = Written { header: replacement.record.header.clone(), previous };
    replacement.decide(view, &mut effects).map_err(WriteError::Failed)?;
    if let Some(id) = id {
        let answer = RememberedAnswer::Written(written.clone());
        requests::remember(view, id, vec![(key.as_bytes(), answer)], &mut effects)?;
    }
    Ok((Some(written), effects))
}

/// Decides a transaction.
pub(super) fn txn(
    view: &mut View<'_>,
    txn: &Txn,
    id: Option<&RequestId>,
    comparisons: &Comparisons,
) -> Result<(Option<TxnDone>, Effects), WriteError> {
    let mut effects = Effects::default();
    if let Some(id) = id
        && let Some(answer) = requests::recall(view, id, &[])?
    {
        return Ok((Some(requests::replay(view, txn, answer)?), effects));
    }
    view.admit_txn(txn)?;
    if let Some(id) = id
        && txn.compare.iter().any(|(_, condition)| condition.expects(id.uuid()))
    {
        return Err(WriteError::OtherRequest);
    }
    let mut failed = Vec::new();
    let mut contents = Contents::new(view, comparisons);
    for (at, (key, condition)) in (0_u32..).zip(&txn.compare) {
        let current = view.current(key).map_err(WriteError::Failed)?;
        match holds(view, key, condition, current.as_ref(), &mut contents)? {
            Some(true) => {}
            Some(false) => failed.push(at),
            None => return Ok((None, effects)),
        }
    }
    let operations = if failed.is_empty() { &txn.success } else { &txn.failure };
    let (writes, results) = operate(view, operations, txn.content_bytes_max, id)?;
    let done = TxnDone { failed, results };
    let keys: Vec<Key> = writes.iter().map(|write| write.key.clone()).collect();
    for write in writes {
        write.decide(view, &mut effects).map_err(WriteError::Failed)?;
    }
    if let Some(id) = id {
        let parts = keys.iter().map(|key| (key.as_bytes(), RememberedAnswer::PartOfTxn));
        let whole = ([].as_slice(), RememberedAnswer::of_txn(&done));
        requests::remember(view, id, parts.chain([whole]).collect(), &mut effects)?;
    }
    Ok((Some(done), effects))
}

/// Decides the operations of a transaction in their order: what each gives, and all that they
/// write.
fn operate(
    view: &mut View<'_>,
    operations: &[Operation],
    mut content_bytes_left: usize,
    id: Option<&RequestId>,
) -> Result<(Vec<Replacement>, Vec<OperationResult>), WriteError> {
    let uuid = VersionUuid::new(view, id, true);
    let mut writes: Vec<Replacement> = Vec::new();
    let mut places = BTreeMap::new();
    let mut results = Vec::with_capacity(operations.len());
    for operation in operations {
        let key = operation.key();
        let written = places.get(key).and_then(|at: &usize| writes.get(*at));
        let change = match operation {
            Operation::Get(_) => {
                let entry = read(view, key, written, &mut content_bytes_left)?;
                results.push(OperationResult::Got(entry.map(Box::new)));
                continue;
            }
            Operation::Write(_, change) => change,
        };
        assert!(written.is_none(), "{key} is written twice in one transaction");
        let current = view.current(key).map_err(WriteError::Failed)?;
        if let Some(id) = id {
            if requests::recall(view, id, key.as_bytes())?.is_some() {
                return Err(WriteError::OtherRequest);
            }
            refuse_own_uuid(view, key, current.as_ref(), id)?;
        }
        if matches!(change, Change::Delete) && live(view, current.as_ref()).is_none() {
            results.push(OperationResult::Deleted(false));
            continue;
        }
        let write = replacement(view, key, current, change, uuid)?;
        results.push(match change {
            Change::Put { .. } => {
                OperationResult::Put(uuid.uuid, write.record.header.version.timestamp)
            }
            Change::Delete => OperationResult::Deleted(true),
        });
        places.insert(key, writes.len());
        writes.push(write);
    }
    assert_eq!(results.len(), operations.len(), "each operation has one result");
    Ok((writes, results))
}

/// What a read in a transaction gives: what the transaction itself has `written`, else the live
/// value.
fn read(
    view: &mut View<'_>,
    key: &Key,
    written: Option<&Replacement>,
    content_bytes_left: &mut usize,
) -> Result<Option<Entry>, WriteError> {
    // the size is checked before the bytes are read
    let mut charge = |header: &Header| -> Result<(), WriteError> {
        let size = usize::try_from(header.content.size()).unwrap_or(usize::MAX);
        let left = content_bytes_left.checked_sub(size);
        *content_bytes_left = left.ok_or(WriteError::ContentTooLarge)?;
        Ok(())
    };
    if let Some(Replacement { record: Record { header, body }, .. }) = written {
        if header.content == Content::Tombstone {
            return Ok(None);
        }
        charge(header)?;
        return Ok(Some(Entry { header: header.clone(), body: Some(body.clone()) }));
    }
    let current = view.current(key).map_err(WriteError::Failed)?;
    let Some(CurrentEntry { stored, .. }) = live(view, current.as_ref()) else { return Ok(None) };
    charge(&stored.header)?;
    let body = view.body(key, stored).map_err(WriteError::Failed)?;
    Ok(Some(Entry { header: stored.header.clone(), body: Some(body) }))
}

/// `current`, if it holds a live value.
fn live<'a>(view: &View<'_>, current: Option<&'a CurrentEntry>) -> Option<&'a CurrentEntry> {
    current.filter(|entry| entry.stored.is_live(view.now))
}

/// Whether a condition holds for the live value of `key`.
fn holds(
    view: &mut View<'_>,
    key: &Key,
    condition: &Condition,
    current: Option<&CurrentEntry>,
    contents: &mut Contents<'_>,
) -> Decision<bool> {
    let live = live(view, current);
    let mut body = None;
    if condition.needs_body() {
        if let Some(comparisons) = &mut contents.comparisons {
            let with = live.map(|entry| entry.stored.hash);
            let done = comparisons.next().filter(|comparison| comparison.with == with);
            return Ok(done.map(|comparison| comparison.holds));
        }
        if let Some(entry) = live {
            let bytes = view.body(key, &entry.stored).map_err(WriteError::Failed)?;
            contents.budget.take(bytes.len())?;
            body = Some(bytes);
        }
    }
    let current = live.map(|entry| Current {
        header: &entry.stored.header,
        displaced_twin: entry.stored.marks.displaced_twin,
        body: body.as_deref(),
    });
    Ok(Some(condition.holds(current)))
}

/// The refusal of a condition, with the live value.
fn precondition_failed(
    view: &mut View<'_>,
    key: &Key,
    current: Option<&CurrentEntry>,
) -> WriteError {
    let Some(entry) = live(view, current) else {
        return WriteError::PreconditionFailed { current: None };
    };
    let header = entry.stored.header.clone();
    let mut body = None;
    if header.content.size() <= CURRENT_BYTES_MAX {
        match view.body(key, &entry.stored) {
            Ok(found) => body = Some(found),
            Err(error) => return WriteError::Failed(error),
        }
    }
    WriteError::PreconditionFailed { current: Some(Box::new(Entry { header, body })) }
}

/// Refuses a client's uuid that this node itself gave to a version of `key` which it still holds:
/// two versions of one uuid could not be told apart by a client that expects one of them.
fn refuse_own_uuid(
    view: &mut View<'_>,
    key: &Key,
    current: Option<&CurrentEntry>,
    id: &RequestId,
) -> Result<(), WriteError> {
    let Some(CurrentEntry { stored, .. }) = current else { return Ok(()) };
    let is_own = |stored: &Stored| stored.header.version.uuid == id.uuid() && !stored.marks.named;
    if is_own(stored) {
        return Err(WriteError::OtherRequest);
    }
    // the uuids that nodes give hold the time of the write, so most others need no search
    let (secs, nanos) = match id.uuid().get_timestamp() {
        Some(at) if id.uuid().get_version_num() == 7 => at.to_unix(),
        _ => return Ok(()),
    };
    let given_at = Timestamp::ZERO.plus(Duration::new(secs, nanos));
    if given_at > stored.header.version.timestamp {
        return Ok(());
    }
    let (first, next) = stored.revisions;
    for number in first..next {
        match view.revision(key, number) {
            Ok(Some(revision)) if is_own(&revision) => return Err(WriteError::OtherRequest),
            Ok(_) | Err(ReadError::Damaged { .. }) => {}
            Err(error) => return Err(WriteError::Failed(error)),
        }
    }
    Ok(())
}

/// The record that a client's change of `key` leaves in the place of `current`, dead or alive.
fn replacement(
    view: &View<'_>,
    key: &Key,
    current: Option<CurrentEntry>,
    change: &Change,
    VersionUuid { uuid, is_named, in_txn }: VersionUuid,
) -> Result<Replacement, WriteError> {
    let before = current.as_ref().map(|entry| &entry.stored.header);
    let (content, body, expires_at) = match change {
        Change::Delete => (Content::Tombstone, Bytes::new(), None),
        Change::Put { content, body, lifetime } => {
            let expires_at = match lifetime {
                Lifetime::Unbounded => None,
                Lifetime::Keep => {
                    live(view, current.as_ref()).and_then(|entry| entry.stored.header.expires_at)
                }
                Lifetime::For(span) => Some(view.now.plus(*span)),
            };
            (content.clone(), body.clone(), expires_at)
        }
    };
    let version = next_version(view, before, uuid)?;
    let origin = view.node();
    let header = Header {
        version,
        origin,
        parent: before.map(|header| header.version.uuid),
        seen: Seen::after_write(before.map(|header| &header.seen), origin, version.timestamp),
        expires_at,
        content,
    };
    let marks = Marks { named: is_named, in_txn, ..Marks::default() };
    let (key, record) = (key.clone(), Record { header, body });
    Ok(Replacement { key, current, record, marks, cause: Cause::Client })
}

/// The version of a new write over `before`.
pub(super) fn next_version(
    view: &View<'_>,
    before: Option<&Header>,
    uuid: Uuid,
) -> Result<Version, WriteError> {
    let after = before.map_or(Timestamp::ZERO, |header| header.version.timestamp.next());
    let timestamp = view.wall.max(after).max(view.point.next());
    let ahead = timestamp.since(view.wall);
    // a record at the end of time has no successor
    let is_last = before.is_some_and(|header| header.version.timestamp >= timestamp);
    if is_last || (view.has_others() && ahead > view.rules.clock_drift_max) {
        let ahead_ms = u64::try_from(ahead.as_millis()).unwrap_or(u64::MAX);
        // unless it is not that record, but the confirmed point, above which it lies
        let origin = before.filter(|_| after >= timestamp).map(|header| header.origin);
        return Err(WriteError::ClockSkewed { ahead_ms, origin });
    }
    Ok(Version { timestamp, origin_joined_at: view.joined_at(), uuid })
}
