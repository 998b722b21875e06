//! What a session leaves out, because the side that lacks it would hold it back.
//!
//! Each side tells its horizon at the begin, and the other one leaves out what lies beyond. It
//! names the keys instead, so that the older records of these keys do not travel in vain either.

use std::collections::BTreeMap;

use crate::model::{HeldBack, Key, Timestamp};
use crate::proto::digest::Sum;
use crate::proto::wire::Withheld;

/// How many keys one direction of a session remembers. Of more, records may travel in vain.
const KEYS_MAX: usize = 1 << 16;

/// The records that one side holds and the other one holds back.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldRecords {
    /// How many, and until when.
    pub(super) all: HeldBack,
    /// The timestamps of their versions, of the first [`KEYS_MAX`].
    keys: BTreeMap<Key, Timestamp>,
}

impl HeldRecords {
    /// Notes a record that is left out. Each key counts once.
    fn note(&mut self, Withheld { key, timestamp, due }: Withheld) {
        if self.keys.contains_key(&key) {
            return;
        }
        self.all.add(due);
        if self.keys.len() < KEYS_MAX {
            self.keys.insert(key, timestamp);
        }
    }

    /// Forgets the record of `key` if its timestamp is lower than this.
    fn forget(&mut self, key: &Key, below: Timestamp) {
        if self.keys.get(key).is_some_and(|held| *held < below) {
            self.keys.remove(key);
            self.all.records = self.all.records.saturating_sub(1);
        }
    }

    /// Whether one of them may have a timestamp up to `at`: those that it does not remember may.
    pub(super) fn reach_down_to(&self, at: Timestamp) -> bool {
        let known = u64::try_from(self.keys.len()).unwrap_or(u64::MAX);
        self.all.records > known || self.keys.values().any(|timestamp| *timestamp <= at)
    }

    /// Whether a record of `key` with this timestamp loses against one that is left out.
    pub(super) fn beats(&self, key: &Key, timestamp: Timestamp) -> bool {
        self.keys.get(key).is_some_and(|held| *held > timestamp)
    }
}

/// Two stores that differ by held records alone, as a session has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldDifference {
    /// The root of this side.
    pub(super) own: Sum,
    /// The root of the peer.
    pub(super) theirs: Sum,
    /// What the peer holds back.
    pub(super) to_peer: HeldBack,
    /// What this side holds back.
    pub(super) from_peer: HeldBack,
}

impl HeldDifference {
    /// Whether it still is all that differs between sides with these roots and horizons, and none
    /// of it is due. Stores only gain records, so equal roots say that nothing has changed.
    pub(super) fn still_holds(
        &self,
        (own, theirs): (Sum, Sum),
        (own_horizon, their_horizon): (Timestamp, Timestamp),
    ) -> bool {
        let is_same = self.own == own && self.theirs == theirs;
        is_same && self.to_peer.until > their_horizon && self.from_peer.until > own_horizon
    }
}

/// What an initiator knows of the records that lie too far ahead.
#[derive(Clone, Debug, Default)]
pub(super) struct Ahead {
    /// What an earlier session with the peer found.
    known: Option<HeldDifference>,
    /// The horizon of this side at the begin.
    own_horizon: Timestamp,
    /// That of the peer.
    pub(super) their_horizon: Timestamp,
    /// The roots at the begin, of this side and of the peer, when they differ.
    roots: Option<(Sum, Sum)>,
    /// What the peer holds back.
    pub(super) to_peer: HeldRecords,
    /// What this side holds back.
    pub(super) from_peer: HeldRecords,
}

impl Ahead {
    /// Knows what an earlier session with the same peer found.
    pub(super) fn knowing(known: Option<HeldDifference>) -> Self {
        Self { known, ..Self::default() }
    }

    /// Notes the horizon of this side as the session begins.
    pub(super) fn begin(&mut self, own_horizon: Timestamp) {
        self.own_horizon = own_horizon;
    }

    /// Notes the begin of a session between sides that differ. Answers whether an earlier session
    /// has found that they differ by held records alone, so that nothing is left to be compared.
    pub(super) fn begun(&mut self, own: Sum, theirs: Sum, their_horizon: Timestamp) -> bool {
        self.their_horizon = their_horizon;
        self.roots = Some((own, theirs));
        let horizons = (self.own_horizon, their_horizon);
        let known = self.known.filter(|known| known.still_holds((own, theirs), horizons));
        if let Some(known) = known {
            (self.to_peer.all, self.from_peer.all) = (known.to_peer, known.from_peer);
        }
        known.is_some()
    }

    /// Notes a record that this side leaves out, unless one that the peer leaves out beats it.
    pub(super) fn leave_out(&mut self, withheld: Withheld) {
        let Withheld { key, timestamp, .. } = &withheld;
        if !self.from_peer.beats(key, *timestamp) {
            self.from_peer.forget(key, *timestamp);
            self.to_peer.note(withheld);
        }
    }

    /// Notes a record that the peer leaves out, unless one that this side leaves out beats it.
    pub(super) fn lack(&mut self, withheld: Withheld) {
        let Withheld { key, timestamp, .. } = &withheld;
        if !self.to_peer.beats(key, *timestamp) {
            self.to_peer.forget(key, *timestamp);
            self.from_peer.note(withheld);
        }
    }

    /// All that the two sides hold back.
    pub(super) fn held(&self) -> HeldBack {
        self.to_peer.all.and(self.from_peer.all)
    }

    /// What this session found, if held records are all that differs: it `moved` nothing else.
    pub(super) fn difference(&self, moved: bool) -> Option<HeldDifference> {
        let (own, theirs) = self.roots.filter(|_| !moved && self.held().is_any())?;
        let (to_peer, from_peer) = (self.to_peer.all, self.from_peer.all);
        Some(HeldDifference { own, theirs, to_peer, from_peer })
    }
}
