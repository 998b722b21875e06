//! What decisions read: the store as the group in progress has changed it so far.
//!
//! A view reads and changes nothing. Each read claims its entry for the transaction, so a decision
//! and its effects rest on the same state.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use uuid::Uuid;

use super::Rules;
use super::effects::RequestSlot;
use super::reports::{Reports, StoredReport};
use crate::model::record::RecordHash;
use crate::model::{Key, NodeId, Timestamp};
use crate::proto::stability::Floor;
use crate::store::disk::engine::{Family, Transaction};
use crate::store::disk::layout::{self, Body, Stored};
use crate::store::{ReadError, Shared, missing_value};

/// The entry that a key has now, decoded and as it is stored.
#[derive(Clone, Debug)]
pub(in crate::store) struct CurrentEntry {
    pub stored: Stored,
    pub raw: Bytes,
}

/// What digest and counts hold of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Leaf {
    pub hash: RecordHash,
    pub is_dead: bool,
}

impl Leaf {
    pub fn of(stored: &Stored) -> Self {
        Self { hash: stored.hash, is_dead: stored.is_dead() }
    }
}

/// The entry of one key before the group and now.
pub(super) struct Slot {
    pub before: Option<Leaf>,
    pub now: Option<CurrentEntry>,
    pub written: bool,
    /// The floor has passed what it had.
    pub collected: bool,
}

/// The records that the group has read, as it has changed them so far.
#[derive(Default)]
pub(super) struct Entries {
    pub slots: BTreeMap<Key, Slot>,
    /// How many bytes the group has read and written, about.
    pub bytes: usize,
    /// A decision may rest on an expiry that the watermark does not cover yet: a client will learn
    /// of it, so the group must advance the watermark.
    pub uncovered_expiry: bool,
}

/// A view of the store for one decision.
pub(in crate::store) struct View<'g> {
    pub(super) shared: &'g Shared,
    pub(super) transaction: &'g mut (dyn Transaction + 'g),
    pub(super) entries: &'g mut Entries,
    pub(super) rules: &'g Rules,
    /// Wall time when the group began: timestamps come from it.
    pub(super) wall: Timestamp,
    /// The time that expiry is judged by.
    pub(in crate::store) now: Timestamp,
    /// The time that requests are remembered by.
    pub(super) steady: Timestamp,
    /// How many bytes the remembered requests take, this group's included.
    pub(super) requests_bytes: u64,
    /// The reports of superseded writes, this group's included.
    pub(super) reports: Reports,
    /// The confirmed point, or the floor where that is greater: no write gets a timestamp at or
    /// below it.
    pub(super) point: Timestamp,
    /// Whether this node begins anew, and so takes no writes of clients.
    pub(super) begins_anew: bool,
    /// Nothing changes any more at or below it.
    pub(super) floor: Floor,
}

impl View<'_> {
    /// The entry of `key`, dead or alive.
    pub fn current(&mut self, key: &Key) -> Result<Option<CurrentEntry>, ReadError> {
        if let Some(slot) = self.entries.slots.get(key) {
            return Ok(slot.now.clone());
        }
        let raw = self.transaction.get_for_update(Family::Records, key.as_bytes())?;
        self.entries.bytes += raw.as_ref().map_or(0, Bytes::len);
        let decode = |raw: Bytes| -> Result<_, ReadError> {
            Ok(CurrentEntry { stored: Stored::decode_for(key.as_bytes(), &raw)?, raw })
        };
        let now = raw.map(decode).transpose()?;
        let expiry_clock = &self.shared.expiry_clock;
        let is_uncovered =
            |entry: &CurrentEntry| expiry_clock.is_uncovered(&entry.stored, self.now);
        self.entries.uncovered_expiry |= now.as_ref().is_some_and(is_uncovered);
        let before = now.as_ref().map(|entry| Leaf::of(&entry.stored));
        let slot = Slot { before, now: now.clone(), written: false, collected: false };
        self.entries.slots.insert(key.clone(), slot);
        Ok(now)
    }

    /// The bytes of the value of `stored`; none where they were swept.
    pub fn body(&mut self, key: &Key, stored: &Stored) -> Result<Bytes, ReadError> {
        match &stored.body {
            Body::Inline(body) => Ok(body.clone()),
            Body::Swept => Ok(Bytes::new()),
            Body::Apart => {
                let at = layout::blob_key(key, &stored.hash);
                let body = self.transaction.get_for_update(Family::Values, &at)?;
                self.entries.bytes += body.as_ref().map_or(0, Bytes::len);
                body.ok_or_else(|| missing_value(key))
            }
        }
    }

    /// The revision of `key` with this number.
    pub fn revision(&mut self, key: &Key, number: u64) -> Result<Option<Stored>, ReadError> {
        let at = layout::revision_key(key, number);
        let raw = self.transaction.get_for_update(Family::History, &at)?;
        raw.map(|raw| Stored::decode_for(key.as_bytes(), &raw)).transpose()
    }

    /// The bytes of a remembered request.
    pub(super) fn request(&mut self, slot: &RequestSlot) -> Result<Option<Bytes>, ReadError> {
        let at = layout::request_key(slot.uuid, &slot.key);
        Ok(self.transaction.get_for_update(Family::Requests, &at)?)
    }

    /// The report with this number, and the length of its entry.
    pub(super) fn report(
        &mut self,
        number: u64,
    ) -> Result<Option<(StoredReport, usize)>, ReadError> {
        let at = layout::report_key(number);
        let Some(raw) = self.transaction.get_for_update(Family::Superseded, &at)? else {
            return Ok(None);
        };
        Ok(Some((layout::decode_meta(layout::REPORTS, &raw)?, raw.len())))
    }

    /// A uuid for a version that the client has given none.
    pub(super) fn new_uuid(&self) -> Uuid {
        self.shared.clock.uuid()
    }

    /// This node, which is the origin of what its clients write.
    pub(super) fn node(&self) -> NodeId {
        self.shared.node()
    }

    /// Whether `origin` is this node, under its id or one that it had before it began anew.
    pub(super) fn is_own(&self, origin: NodeId) -> bool {
        origin == self.node() || self.shared.former_ids.contains(&origin)
    }

    pub(super) fn joined_at(&self) -> Timestamp {
        self.shared.identity.joined_at
    }

    /// Whether the data belong to a cluster, or ever have.
    pub(super) fn is_of_cluster(&self) -> bool {
        self.shared.identity.cluster.is_some()
    }

    /// Whether there are other members, which bounds how far timestamps may lie ahead.
    pub(super) fn has_others(&self) -> bool {
        self.shared.others.load(Ordering::Relaxed)
    }
}
