//! What a decision does: named changes, made by deciding and carried out by
//! [`Group::apply`](super::group::Group::apply).

use bytes::Bytes;
use uuid::Uuid;

use super::reports::Reports;
use crate::model::record::RecordHash;
use crate::model::{Header, Key, Timestamp};
use crate::proto::stability::Floor;
use crate::store::disk::layout::Stored;
use crate::store::feed::{Announcement, Cause};
use crate::store::{Causal, NodeMode};

/// One change of what the store holds.
pub(in crate::store) enum Effect {
    /// The entry of `key` becomes `stored`.
    PutRecord { key: Key, stored: Box<Stored> },
    /// The entry of `key` leaves: the floor has passed it, or it was set aside.
    DropRecord { key: Key },
    /// A value is written apart from the record of this hash.
    PutValue { key: Key, hash: RecordHash, body: Bytes },
    /// A value that was written apart is freed.
    DropValue { key: Key, hash: RecordHash },
    /// An earlier record becomes, or stays, the revision of this number.
    PutRevision { key: Key, number: u64, raw: Bytes },
    /// The revision of this number goes.
    DropRevision { key: Key, number: u64 },
    /// The index of expiry gains an entry.
    PutExpiry { at: Timestamp, key: Key },
    /// The index of expiry loses an entry.
    DropExpiry { at: Timestamp, key: Key },
    /// The index of the dead gains an entry.
    PutDead { at: Floor, key: Key },
    /// The index of the dead loses an entry.
    DropDead { at: Floor, key: Key },
    /// A request is remembered, with its place in the index of times.
    PutRequest { slot: RequestSlot, accepted_at: Timestamp, remembered: Vec<u8> },
    /// A remembered request goes; its place in the index of times goes apart.
    DropRequest { slot: RequestSlot },
    /// The index of times loses an entry.
    DropRequestTime { slot: RequestSlot, accepted_at: Timestamp },
    /// So many requests are forgotten before their window ended; none is left that was accepted
    /// before this time.
    ForgetEarly { count: u64, to: Timestamp },
    /// How many bytes all remembered requests take now.
    SetRequestsBytes(u64),
    /// A superseded write is reported, with the value that it had.
    PutReport { number: u64, causal: Causal, report: Vec<u8>, value: Option<Bytes> },
    /// A report goes.
    DropReport { number: u64, has_value: bool },
    /// Which reports there are now.
    SetReports(Reports),
    /// A meta entry is written.
    PutMeta { name: &'static str, value: Vec<u8> },
    /// A meta entry goes.
    DropMeta { name: &'static str },
    /// The mode of the node changes.
    SetMode(NodeMode),
    /// The floor rises.
    RaiseFloor(Floor),
    /// The feed begins a new epoch: something changed that no change in it says.
    BeginEpoch,
    /// The feed gains a change.
    Announce(Announcement),
    /// The watermark of the expiry clock becomes the time of this group.
    AdvanceWatermark,
    /// Nothing before these instants is due any more.
    SweepTo { records: Timestamp, requests: Timestamp },
}

/// Where a request is remembered: the uuid that the client gave, and the key that it wrote. The key
/// is empty for the answer of a whole transaction.
#[derive(Clone, Debug)]
pub(in crate::store) struct RequestSlot {
    pub uuid: Uuid,
    pub key: Vec<u8>,
}

/// All effects of one decision, in the order in which they are applied.
#[derive(Default)]
pub(in crate::store) struct Effects(Vec<Effect>);

impl Effects {
    pub fn of(effect: Effect) -> Self {
        Self(vec![effect])
    }

    pub fn push(&mut self, effect: Effect) {
        self.0.push(effect);
    }

    /// Adds all of `others`, to be applied after those before.
    pub fn append(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Adds a change to the feed. `body` is the value, where the feed is to carry it.
    pub fn announce(&mut self, key: &Key, header: &Header, cause: Cause, body: Option<Bytes>) {
        let (key, header) = (key.clone(), header.clone());
        self.push(Effect::Announce(Announcement { key, header, cause, body }));
    }
}

impl IntoIterator for Effects {
    type Item = Effect;
    type IntoIter = std::vec::IntoIter<Effect>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
