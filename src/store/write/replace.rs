//! What it takes to put a record in the place of another: its revision, its value, its expiry, its
//! entry, and the news of it.

use bytes::Bytes;

use super::effects::{Effect, Effects};
use super::view::{CurrentEntry, View};
use crate::model::{Key, Record};
use crate::proto::stability::floor;
use crate::store::ReadError;
use crate::store::disk::layout::{Body, Marks, Stored};
use crate::store::feed::Cause;

/// A record that takes the place of what its key has.
pub(super) struct Replacement {
    pub key: Key,
    /// What the key has now, dead or alive.
    pub current: Option<CurrentEntry>,
    pub record: Record,
    pub marks: Marks,
    pub cause: Cause,
}

impl Replacement {
    /// Adds all that follows from it to `effects`.
    pub fn decide(self, view: &mut View<'_>, effects: &mut Effects) -> Result<(), ReadError> {
        let Self { key, current, record, marks, cause } = self;
        let version = current.as_ref().map(|current| current.stored.header.version);
        assert!(version <= Some(record.header.version), "{key} falls back behind its version");
        let hash = record.header.hash();
        let revisions = match current {
            Some(current) => {
                announce_expiry(view, &key, &current.stored, effects);
                keep_revision(view, &key, current, effects)?
            }
            None => (0, 0),
        };
        let body = if record.is_swept() {
            Body::Swept
        } else if record.body.len() >= view.rules.blob_threshold_bytes {
            effects.push(Effect::PutValue { key: key.clone(), hash, body: record.body });
            Body::Apart
        } else {
            Body::Inline(record.body)
        };
        if let Some(at) = record.header.expires_at.filter(|_| body != Body::Swept) {
            effects.push(Effect::PutExpiry { at, key: key.clone() });
        }
        if let Some(at) = floor::goes_at(&record.header) {
            effects.push(Effect::PutDead { at, key: key.clone() });
        }
        // a copy, since the feed must not keep the whole request alive that the value is a part of
        let small = match &body {
            Body::Inline(body) if cause == Cause::Client => Some(Bytes::copy_from_slice(body)),
            _ => None,
        };
        effects.announce(&key, &record.header, cause, small);
        if body == Body::Swept {
            effects.announce(&key, &record.header, Cause::Expiry, None);
        }
        let stored = Stored { header: record.header, hash, marks, revisions, body };
        effects.push(Effect::PutRecord { key, stored: Box::new(stored) });
        Ok(())
    }
}

/// A value that expired, and that no sweep has met before it is replaced, is announced now: readers
/// of the feed learn that it expired before they learn what followed.
fn announce_expiry(view: &View<'_>, key: &Key, stored: &Stored, effects: &mut Effects) {
    if stored.expired_at(view.now).is_some() {
        effects.announce(key, &stored.header, Cause::Expiry, None);
    }
}

/// Makes a revision of what the key has, and drops those beyond the depth; gives the numbers that
/// are left, `[first, next)`.
fn keep_revision(
    view: &mut View<'_>,
    key: &Key,
    current: CurrentEntry,
    effects: &mut Effects,
) -> Result<(u64, u64), ReadError> {
    let CurrentEntry { stored, raw } = current;
    let depth = view.rules.history_depth;
    let (mut first, mut next) = stored.revisions;
    assert!(first <= next, "revisions of {key} are numbered from {first} to {next}");
    drop_entries(key, &stored, effects);
    if depth == 0 {
        drop_value(key, &stored, effects);
    } else {
        effects.push(Effect::PutRevision { key: key.clone(), number: next, raw });
        next += 1;
    }
    while next - first > depth {
        drop_revision(view, key, first, effects)?;
        first += 1;
    }
    Ok((first, next))
}

/// Drops what the indexes know of the current record.
fn drop_entries(key: &Key, stored: &Stored, effects: &mut Effects) {
    if let Some(at) = stored.header.expires_at.filter(|_| stored.body != Body::Swept) {
        effects.push(Effect::DropExpiry { at, key: key.clone() });
    }
    if let Some(at) = floor::goes_at(&stored.header) {
        effects.push(Effect::DropDead { at, key: key.clone() });
    }
}

/// Drops the current record `stored` of `key` whole: with its value, its earlier revisions and all
/// that indexes know of it. Gives how many records these are together.
pub(super) fn drop_record(
    view: &mut View<'_>,
    key: &Key,
    stored: &Stored,
    effects: &mut Effects,
) -> Result<u64, ReadError> {
    drop_entries(key, stored, effects);
    drop_value(key, stored, effects);
    let (first, next) = stored.revisions;
    for number in first..next {
        drop_revision(view, key, number, effects)?;
    }
    effects.push(Effect::DropRecord { key: key.clone() });
    Ok(1 + next - first)
}

/// Drops an earlier record, and its value where that lies apart.
pub(super) fn drop_revision(
    view: &mut View<'_>,
    key: &Key,
    number: u64,
    effects: &mut Effects,
) -> Result<(), ReadError> {
    match view.revision(key, number) {
        Ok(Some(stored)) => drop_value(key, &stored, effects),
        Ok(None) => {}
        // it must not keep the key from being written; a large value of it is not freed
        Err(error @ ReadError::Damaged { .. }) => {
            tracing::error!(%error, number, "a damaged revision is dropped");
        }
        Err(error) => return Err(error),
    }
    effects.push(Effect::DropRevision { key: key.clone(), number });
    Ok(())
}

/// Frees the value of `stored` where it lies apart.
pub(in crate::store) fn drop_value(key: &Key, stored: &Stored, effects: &mut Effects) {
    if stored.body == Body::Apart {
        effects.push(Effect::DropValue { key: key.clone(), hash: stored.hash });
    }
}
