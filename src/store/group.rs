//! A group of changes: decided in order, each seeing those before it, in one transaction.
//!
//! Nothing leaves a group before its commit: what was decided is kept here together with what it
//! does to the digest, the counts and the feed. How a client's request is decided stands in
//! [`decide`](super::decide), what is remembered of it in [`requests`](super::requests).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::engine::{EngineError, Family, Opened, Transaction};
use super::feed::Commit;
use super::layout::{self, Body, Marks, Stored};
use super::{Applied, ReadError, Shared, WriteError};
use crate::model::record::RecordHash;
use crate::model::{Key, Merged, Record, Timestamp, merge};

/// What a key has: the entry, and its bytes as they are stored.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub stored: Stored,
    pub raw: Bytes,
}

/// What a group does to one key.
struct Slot {
    /// The record before the group, and whether it counted as dead.
    before: Option<(RecordHash, bool)>,
    /// The entry as the group has it so far.
    now: Option<Held>,
    /// Whether the group wrote it.
    written: bool,
}

/// Limits that decisions know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub blob_threshold_bytes: usize,
    pub clock_drift_max: std::time::Duration,
    /// Earlier revisions that are kept of a key.
    pub history_depth: u64,
    /// What remembered requests may take together.
    pub idempotency_bytes_max: u64,
    /// How much content the compares of one request may look into.
    pub compared_bytes_max: usize,
}

/// The change of one key from before a group to after it: record hashes, and whether it counts as
/// dead.
pub(super) struct Effect {
    pub key: Key,
    pub old: Option<(RecordHash, bool)>,
    pub new: (RecordHash, bool),
}

/// What a group has done, once it is durable.
#[derive(Default)]
pub(super) struct Done {
    pub effects: Vec<Effect>,
    /// What the feed is to say.
    pub commits: Vec<Commit>,
    /// How many bytes the remembered requests take now, if that changed.
    pub requests_bytes: Option<u64>,
    /// Before these, nothing is due any more: a record, a request.
    pub swept_to: (Option<u64>, Option<u64>),
    /// The earliest instants that were noted meanwhile: of a record, of a request.
    pub noted: (Option<Timestamp>, Option<Timestamp>),
    /// The time by which values were judged, if it was kept.
    pub kept_time: Option<Timestamp>,
}

pub(super) struct Group<'a> {
    pub(super) shared: &'a Shared,
    pub(super) transaction: Box<dyn Transaction + 'a>,
    pub(super) rules: Rules,
    /// What the clock says.
    pub(super) wall: Timestamp,
    /// The time by which values are judged.
    pub(super) now: Timestamp,
    slots: BTreeMap<Key, Slot>,
    /// How many bytes it has read and written so far.
    bytes: usize,
    pub(super) commits: Vec<Commit>,
    /// Whether the time by which values are judged is to be kept, for somebody is told of a death.
    pub(super) keeps_time: bool,
    /// Whether there is anything to commit.
    changed: bool,
    /// Why the transaction cannot be committed: one of its changes took place in part only.
    spoiled: Option<ReadError>,
    pub(super) requests_bytes: Option<u64>,
    pub(super) swept_to: (Option<u64>, Option<u64>),
    noted: (Option<Timestamp>, Option<Timestamp>),
}

/// Why a group did not come about.
pub(super) enum CommitError {
    /// Nothing of it was written.
    Nothing(ReadError),
    /// Whether it was written is unknown until the store is opened again.
    Unknown(ReadError),
}

impl<'a> Group<'a> {
    pub(super) fn new(shared: &'a Shared, opened: &'a dyn Opened, rules: Rules) -> Self {
        let wall = shared.clock.now();
        Self {
            shared,
            transaction: opened.begin(),
            rules,
            wall,
            now: shared.judge.now(wall),
            slots: BTreeMap::new(),
            bytes: 0,
            commits: Vec::new(),
            keeps_time: shared.judge.was_set_right(),
            changed: false,
            spoiled: None,
            requests_bytes: None,
            swept_to: (None, None),
            noted: (None, None),
        }
    }

    /// The entry of `key` as this group sees it.
    pub(super) fn current(&mut self, key: &Key) -> Result<Option<Held>, ReadError> {
        if let Some(slot) = self.slots.get(key) {
            return Ok(slot.now.clone());
        }
        let raw = self.transaction.get_for_update(Family::Records, key.as_bytes())?;
        self.bytes += raw.as_ref().map_or(0, Bytes::len);
        let decode = |raw: Bytes| -> Result<_, ReadError> {
            Ok(Held { stored: Stored::decode_for(key.as_bytes(), &raw)?, raw })
        };
        let now = raw.map(decode).transpose()?;
        self.keeps_time |=
            now.as_ref().is_some_and(|held| self.shared.judge.owes(&held.stored, self.now));
        let before = now.as_ref().map(|held| (held.stored.hash, held.stored.is_dead()));
        let slot = Slot { before, now: now.clone(), written: false };
        self.slots.insert(key.clone(), slot);
        Ok(now)
    }

    /// The bytes of a value that was not swept.
    pub(super) fn body(&mut self, key: &Key, stored: &Stored) -> Result<Bytes, ReadError> {
        match &stored.body {
            Body::Inline(body) => Ok(body.clone()),
            Body::Swept => Ok(Bytes::new()),
            Body::Apart => {
                let at = layout::blob_key(key, &stored.hash);
                let body = self.transaction.get_for_update(Family::Values, &at)?;
                self.bytes += body.as_ref().map_or(0, Bytes::len);
                body.ok_or_else(|| super::missing_value(key))
            }
        }
    }

    /// Merges records from a peer, each on its own.
    pub(super) fn apply(&mut self, records: &[(Key, Record)]) -> Result<Applied, WriteError> {
        let mut applied = Applied::default();
        for (key, record) in records {
            if record.is_swept() && !self.may_be_swept(record) {
                applied.kept += 1;
                continue;
            }
            let held = self.current(key).map_err(WriteError::Failed)?;
            match merge(held.as_ref().map(|held| &held.stored.header), &record.header) {
                Merged::Same | Merged::Kept => applied.kept += 1,
                Merged::Replaced => {
                    let twin = held.as_ref().is_some_and(|held| {
                        held.stored.header.version.timestamp == record.header.version.timestamp
                    });
                    let marks = Marks { displaced_twin: twin, named: true };
                    self.put(key, held, record.clone(), marks)?;
                    applied.replaced += 1;
                }
            }
        }
        Ok(applied)
    }

    /// Whether a record without its bytes may be taken: not before it has expired here, too, as far
    /// as clocks may differ.
    fn may_be_swept(&self, record: &Record) -> bool {
        let latest = self.now.plus(self.rules.clock_drift_max);
        record.header.expires_at.is_some_and(|at| at <= latest)
    }

    /// Puts `record` in the place of `held`, which becomes a revision; gives the bytes when they
    /// are kept with the header.
    pub(super) fn put(
        &mut self,
        key: &Key,
        held: Option<Held>,
        record: Record,
        marks: Marks,
    ) -> Result<Option<Bytes>, WriteError> {
        let hash = record.header.hash();
        let revisions = match held {
            Some(held) => self.keep_revision(key, held)?,
            None => (0, 0),
        };
        let body = if record.is_swept() {
            Body::Swept
        } else if record.body.len() >= self.rules.blob_threshold_bytes {
            let at = layout::blob_key(key, &hash);
            self.put_entry(Family::Values, &at, &record.body)?;
            Body::Apart
        } else {
            Body::Inline(record.body.clone())
        };
        // a copy: the feed must not keep alive the request that the value is a part of
        let inline = matches!(body, Body::Inline(_)).then(|| Bytes::copy_from_slice(&record.body));
        if let Some(at) = record.header.expires_at.filter(|_| body != Body::Swept) {
            let entry = layout::expiry_key(at, key);
            self.put_entry(Family::Expiry, &entry, &[])?;
            self.noted.0 = Some(self.noted.0.map_or(at, |noted| noted.min(at)));
        }
        self.replace(key, Stored { header: record.header, hash, marks, revisions, body })?;
        Ok(inline)
    }

    /// Writes the entry of `key`.
    pub(super) fn replace(&mut self, key: &Key, stored: Stored) -> Result<(), WriteError> {
        let raw = stored.encode();
        // it may come from a peer and be over already
        self.keeps_time |= self.shared.judge.owes(&stored, self.now);
        self.put_entry(Family::Records, key.as_bytes(), &raw)?;
        if let Some(slot) = self.slots.get_mut(key) {
            slot.now = Some(Held { stored, raw });
            slot.written = true;
        }
        Ok(())
    }

    /// Notes that a request is to be forgotten from `at` on.
    pub(super) fn note_request(&mut self, at: Timestamp) {
        self.noted.1 = Some(self.noted.1.map_or(at, |noted| noted.min(at)));
    }

    /// Keeps an entry that is no record.
    pub(super) fn put_meta(&mut self, key: &str, value: &[u8]) -> Result<(), WriteError> {
        self.put_entry(Family::Meta, key.as_bytes(), value)
    }

    /// Writes one entry in the transaction.
    pub(super) fn put_entry(
        &mut self,
        family: Family,
        at: &[u8],
        value: &[u8],
    ) -> Result<(), WriteError> {
        self.bytes += at.len() + value.len();
        self.change(|transaction| transaction.put(family, at, value))
    }

    /// One change in the transaction. When it fails, the others of the same write must not be
    /// committed without it.
    pub(super) fn change(
        &mut self,
        change: impl FnOnce(&mut dyn Transaction) -> Result<(), EngineError>,
    ) -> Result<(), WriteError> {
        self.changed = true;
        change(self.transaction.as_mut()).map_err(|error| self.spoil(error.into()))
    }

    /// Something failed in the middle of a write: nothing of the group may be committed.
    pub(super) fn spoil(&mut self, error: ReadError) -> WriteError {
        self.spoiled.get_or_insert(error.clone());
        WriteError::Failed(error)
    }

    /// How many bytes it has read and written so far, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is anything to commit.
    pub(super) fn changes(&self) -> bool {
        self.changed || self.keeps_time
    }

    /// Makes it all durable and readable; gives what is to follow from it.
    pub(super) fn commit(mut self) -> Result<Done, CommitError> {
        if let Some(bytes) = self.requests_bytes {
            let value = layout::encode_meta(&bytes);
            // a failure is kept in `spoiled`
            let _ = self.put_meta(layout::REQUESTS_BYTES, &value);
        }
        let kept_time = self.keeps_time.then_some(self.now);
        if let Some(time) = kept_time {
            let _ = self.put_meta(layout::JUDGED, &layout::encode_meta(&time));
        }
        if let Some(error) = self.spoiled {
            return Err(CommitError::Nothing(error));
        }
        if self.changed {
            self.transaction.commit().map_err(|error| CommitError::Unknown(error.into()))?;
        }
        let effects = self.slots.into_iter().filter_map(|(key, slot)| {
            let now = slot.now.filter(|_| slot.written)?.stored;
            Some(Effect { key, old: slot.before, new: (now.hash, now.is_dead()) })
        });
        Ok(Done {
            effects: effects.collect(),
            commits: self.commits,
            requests_bytes: self.requests_bytes,
            swept_to: self.swept_to,
            noted: self.noted,
            kept_time,
        })
    }
}
