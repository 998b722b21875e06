//! The durable set: who counts for stability. It only grows, and replicas of it unite.
//!
//! It is not the membership of gossip, which says whom to talk to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::{NodeId, Timestamp};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(Serialize, Deserialize)]
        pub struct $name(pub Timestamp);
    };
}

number! {
    /// A timestamp below every timestamp that its node will ever give again.
    Point
}
number! {
    /// All that its node held or will hold at or below it, every durable member gave.
    Stable
}
number! {
    /// At or below it nothing changes any more.
    Floor
}

/// One life of a process. A later start is greater.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Start {
    /// When the process started, by its clock, and above the node's last start.
    pub at: Timestamp,
    /// Tells two starts of the same instant apart.
    pub random: u64,
}

impl Start {
    /// The least start above this one.
    #[must_use]
    pub fn next(self) -> Self {
        let Some(random) = self.random.checked_add(1) else {
            return Self { at: self.at.next(), random: 0 };
        };
        Self { random, ..self }
    }
}

/// The founding of a set. The older one is smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Founding {
    /// When the set was founded, by the founder's clock.
    pub at: Timestamp,
    /// Tells two foundings of the same instant apart.
    #[serde(with = "uuid::serde::compact")]
    pub id: Uuid,
}

/// What a set knows of one that joined. Of two entries of a node the greater one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Joined {
    /// The latest start.
    pub start: Start,
    /// The point that the node read from its disk at that start.
    pub start_point: Point,
    /// The source that entered it; `None` for a founder.
    pub entered_by: Option<NodeId>,
}

/// Why an id counts no more. Of two reasons the smaller one is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WhyGone {
    /// An operator forgot it.
    Forgotten,
    /// It left in order.
    Left,
    /// Its disk was set back.
    SetBack,
    /// It began anew by itself.
    BegunAnew,
}

/// Names the content of a set: equal names, equal sets.
pub type SetName = [u8; 32];

/// Who joined and who is gone. Both lists only grow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DurableSet {
    /// The founding. Sets of two foundings are never united.
    pub founding: Founding,
    /// All that ever joined.
    pub joined: BTreeMap<NodeId, Joined>,
    /// Those that count no more. An id stays here for ever.
    pub gone: BTreeMap<NodeId, WhyGone>,
}

impl DurableSet {
    /// The set of a lone founder.
    #[must_use]
    pub fn found(founding: Founding, id: NodeId, start: Start) -> Self {
        let entry = Joined { start, start_point: Point::default(), entered_by: None };
        Self { founding, joined: BTreeMap::from([(id, entry)]), gone: BTreeMap::new() }
    }

    /// Those that count, in order.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.joined.keys().copied().filter(|id| !self.gone.contains_key(id))
    }

    /// Whether `id` counts.
    #[must_use]
    pub fn is_member(&self, id: NodeId) -> bool {
        self.joined.contains_key(&id) && !self.gone.contains_key(&id)
    }

    /// Whether a push from `id`, in its life `start`, may be taken.
    #[must_use]
    pub fn takes_from(&self, id: NodeId, start: Start) -> bool {
        self.is_member(id) && self.joined.get(&id).is_some_and(|entry| entry.start == start)
    }

    /// Whether `id` was entered by a member, or by one that a member entered, and so on.
    /// `chain` is the set that tells who entered whom.
    #[must_use]
    pub fn vouches_for(&self, id: NodeId, chain: &Self) -> bool {
        let mut at = id;
        // no chain is longer than the set, even if its bytes were made to go round
        for _ in 0..chain.joined.len() {
            let Some(by) = chain.joined.get(&at).and_then(|entry| entry.entered_by) else {
                return false;
            };
            if self.joined.contains_key(&by) {
                return self.is_member(by);
            }
            at = by;
        }
        false
    }

    /// The name of the content.
    #[must_use]
    pub fn name(&self) -> SetName {
        let mut hasher = blake3::Hasher::new_derive_key("kvs 2026-11 durable set v1");
        hasher.update(&self.founding.at.micros().to_le_bytes());
        hasher.update(self.founding.id.as_bytes());
        hasher.update(&(self.joined.len() as u64).to_le_bytes());
        for (id, entry) in &self.joined {
            hasher.update(id.as_bytes());
            hasher.update(&entry.start.at.micros().to_le_bytes());
            hasher.update(&entry.start.random.to_le_bytes());
            hasher.update(&entry.start_point.0.micros().to_le_bytes());
            hasher.update(&[u8::from(entry.entered_by.is_some())]);
            hasher.update(entry.entered_by.unwrap_or(*id).as_bytes());
        }
        for (id, why) in &self.gone {
            hasher.update(id.as_bytes());
            hasher.update(&[*why as u8]);
        }
        hasher.finalize().into()
    }

    /// Enters `id` as gone. Returns whether that is new, or another reason counts now.
    pub fn remove(&mut self, id: NodeId, why: WhyGone) -> bool {
        let known = self.gone.get(&id).copied();
        let why = known.map_or(why, |known| why.min(known));
        self.gone.insert(id, why);
        assert!(!self.is_member(id), "one that is gone is no member");
        known != Some(why)
    }
}
