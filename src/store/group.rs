//! A group of writes: decided in order, each seeing those before it, in one transaction.
//!
//! Nothing leaves a group before its commit: the decisions are kept here together with what they do
//! to the digest, the counts and the feed.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::engine::{EngineError, Family, Transaction};
use super::feed::Commit;
use super::layout::{self, Stored};
use super::{
    Applied, CURRENT_BYTES_MAX, Change, Entry, ReadError, Shared, Write, WriteError, Written,
};
use crate::model::condition::Current;
use crate::model::record::RecordHash;
use crate::model::{Content, Header, Key, Merged, Record, Seen, Timestamp, Version, merge};

/// What a group does to one key.
struct Slot {
    /// The record before the group.
    before: Option<(RecordHash, Content)>,
    /// The entry as the group has it so far.
    now: Option<Stored>,
    /// The hash of the record that the group wrote last, if it wrote one.
    written: Option<RecordHash>,
}

/// Limits that decisions know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub blob_threshold_bytes: usize,
    pub clock_drift_max: std::time::Duration,
}

/// The change of one key from before a group to after it.
pub(super) struct Effect {
    pub key: Key,
    pub old: Option<(RecordHash, Content)>,
    pub new: (RecordHash, Content),
}

pub(super) struct Group<'a> {
    shared: &'a Shared,
    transaction: Box<dyn Transaction + 'a>,
    rules: Rules,
    now: Timestamp,
    slots: BTreeMap<Key, Slot>,
    commits: Vec<Commit>,
    /// Why the transaction cannot be committed: one of its changes took place in part only.
    spoiled: Option<ReadError>,
}

/// Why a group did not come about.
pub(super) enum CommitError {
    /// Nothing of it was written.
    Nothing(ReadError),
    /// Whether it was written is unknown until the store is opened again.
    Unknown(ReadError),
}

impl<'a> Group<'a> {
    pub(super) fn new(shared: &'a Shared, rules: Rules) -> Self {
        Self {
            shared,
            transaction: shared.engine.begin(),
            rules,
            now: shared.clock.now(),
            slots: BTreeMap::new(),
            commits: Vec::new(),
            spoiled: None,
        }
    }

    /// The entry of `key` as this group sees it.
    fn current(&mut self, key: &Key) -> Result<Option<Stored>, ReadError> {
        if let Some(slot) = self.slots.get(key) {
            return Ok(slot.now.clone());
        }
        let bytes = self.transaction.get_for_update(Family::Records, key.as_bytes())?;
        let now = bytes.map(|b| Stored::decode_for(key.as_bytes(), &b)).transpose()?;
        let before = now.as_ref().map(|s| (s.header.hash(), s.header.content.clone()));
        let slot = Slot { before, now: now.clone(), written: None };
        self.slots.insert(key.clone(), slot);
        Ok(now)
    }

    fn body(&mut self, key: &Key, stored: &Stored) -> Result<Bytes, ReadError> {
        if let Some(body) = &stored.body {
            return Ok(body.clone());
        }
        let at = layout::blob_key(key, &stored.header);
        self.transaction.get_for_update(Family::Values, &at)?.ok_or_else(|| ReadError::Damaged {
            key: key.to_string(),
            problem: "its value is missing".to_owned(),
        })
    }

    /// Decides a client's write and, if it is accepted, performs it.
    pub(super) fn write(&mut self, write: &Write) -> Result<Written, WriteError> {
        let held = self.current(&write.key).map_err(WriteError::Failed)?;
        let live = held.as_ref().filter(|stored| stored.header.is_live(self.now));
        self.check(write, live)?;
        let (content, body) = match &write.change {
            Change::Delete if live.is_none() => return Err(WriteError::NotFound),
            Change::Delete => (Content::Tombstone, Bytes::new()),
            Change::Put { content_type, body } => {
                (Content::value(content_type.clone(), body), body.clone())
            }
        };
        let header = self.stamp(held.as_ref().map(|stored| &stored.header), content)?;
        let previous =
            live.map(|stored| (stored.header.version.uuid, stored.header.version.timestamp));
        let record = Record { header: header.clone(), body };
        let inline = self.put(&write.key, held.as_ref(), record, false)?;
        self.commits.push(Commit { key: write.key.clone(), header: header.clone(), body: inline });
        Ok(Written { header, previous })
    }

    /// All conditions against the live value, by its header alone.
    fn check(&mut self, write: &Write, live: Option<&Stored>) -> Result<(), WriteError> {
        let current = live.map(|stored| Current {
            header: &stored.header,
            displaced_twin: stored.displaced_twin,
            // conditions that look into the value were decided before ([`Store::write`]); one that
            // came here all the same would not hold
            body: None,
        });
        if write.conditions.iter().all(|condition| condition.holds(current)) {
            return Ok(());
        }
        let Some(stored) = live else {
            return Err(WriteError::PreconditionFailed { current: None });
        };
        let body = if stored.header.content.size() <= CURRENT_BYTES_MAX {
            Some(self.body(&write.key, stored).map_err(WriteError::Failed)?)
        } else {
            None
        };
        let current = Some(Box::new(Entry { header: stored.header.clone(), body }));
        Err(WriteError::PreconditionFailed { current })
    }

    /// The header of a new write over `held`, dead or alive.
    fn stamp(&self, held: Option<&Header>, content: Content) -> Result<Header, WriteError> {
        let after = held.map_or(Timestamp::ZERO, |held| held.version.timestamp.next());
        let timestamp = self.now.max(after);
        let ahead = timestamp.since(self.now);
        let others = self.shared.others.load(std::sync::atomic::Ordering::Relaxed);
        if others && ahead > self.rules.clock_drift_max {
            let ahead_ms = u64::try_from(ahead.as_millis()).unwrap_or(u64::MAX);
            return Err(WriteError::ClockSkewed { ahead_ms });
        }
        let origin = self.shared.node();
        Ok(Header {
            version: Version {
                timestamp,
                origin_joined_at: self.shared.identity.joined_at,
                uuid: self.shared.clock.uuid(),
            },
            origin,
            parent: held.map(|held| held.version.uuid),
            seen: Seen::after_write(held.map(|held| &held.seen), origin, timestamp),
            expires_at: None,
            content,
        })
    }

    /// Merges records from a peer, each on its own.
    pub(super) fn apply(&mut self, records: &[(Key, Record)]) -> Result<Applied, WriteError> {
        let mut applied = Applied::default();
        for (key, record) in records {
            let held = self.current(key).map_err(WriteError::Failed)?;
            match merge(held.as_ref().map(|stored| &stored.header), &record.header) {
                Merged::Same | Merged::Kept => applied.kept += 1,
                Merged::Replaced => {
                    let twin = held.as_ref().is_some_and(|stored| {
                        stored.header.version.timestamp == record.header.version.timestamp
                    });
                    self.put(key, held.as_ref(), record.clone(), twin)?;
                    applied.replaced += 1;
                }
            }
        }
        Ok(applied)
    }

    /// Puts `record` in the place of `held`; gives the bytes when they are kept with the header.
    fn put(
        &mut self,
        key: &Key,
        held: Option<&Stored>,
        record: Record,
        displaced_twin: bool,
    ) -> Result<Option<Bytes>, WriteError> {
        let new_at = layout::blob_key(key, &record.header);
        if let Some(held) = held.filter(|held| held.body.is_none()) {
            let old_at = layout::blob_key(key, &held.header);
            if old_at != new_at {
                self.change(|transaction| transaction.delete(Family::Values, &old_at))?;
            }
        }
        let apart = record.body.len() >= self.rules.blob_threshold_bytes;
        if apart {
            self.change(|transaction| transaction.put(Family::Values, &new_at, &record.body))?;
        }
        let inline = (!apart).then_some(record.body);
        let stored = Stored { header: record.header, displaced_twin, body: inline.clone() };
        let hash = stored.header.hash();
        let bytes = stored.encode(&hash);
        self.change(|transaction| transaction.put(Family::Records, key.as_bytes(), &bytes))?;
        if let Some(slot) = self.slots.get_mut(key) {
            slot.now = Some(stored);
            slot.written = Some(hash);
        }
        Ok(inline)
    }

    /// Keeps an entry that is no record.
    pub(super) fn put_meta(&mut self, key: &str, value: &[u8]) -> Result<(), WriteError> {
        self.change(|transaction| transaction.put(Family::Meta, key.as_bytes(), value))
    }

    /// One change in the transaction. When it fails, the others of the same write must not be
    /// committed without it.
    fn change(
        &mut self,
        change: impl FnOnce(&mut dyn Transaction) -> Result<(), EngineError>,
    ) -> Result<(), WriteError> {
        change(self.transaction.as_mut()).map_err(|error| {
            let error = ReadError::from(error);
            self.spoiled.get_or_insert(error.clone());
            WriteError::Failed(error)
        })
    }

    /// Makes it all durable and readable; gives what it did to each key, and what the feed is to
    /// say.
    pub(super) fn commit(self) -> Result<(Vec<Effect>, Vec<Commit>), CommitError> {
        if let Some(error) = self.spoiled {
            return Err(CommitError::Nothing(error));
        }
        self.transaction.commit().map_err(|error| CommitError::Unknown(error.into()))?;
        let effects = self.slots.into_iter().filter_map(|(key, slot)| {
            let new = (slot.written?, slot.now?.header.content);
            Some(Effect { key, old: slot.before, new })
        });
        Ok((effects.collect(), self.commits))
    }
}
