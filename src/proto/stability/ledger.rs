//! The ledger: all that a node keeps of stability, as plain data that is stored as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{NodeId, Timestamp};

use super::{DurableSet, Floor, Founding, Point, SetName, Stable, Start, WhyGone};

/// A value that others may rely on once they hear it. Store the ledger, then unwrap and send it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "store the ledger, then tell the value"]
pub struct AfterPersist<T>(pub(super) T);

impl<T> AfterPersist<T> {
    /// The value. Call it when the ledger, as it was after the call that made this, is durable.
    pub fn ledger_is_durable(self) -> T {
        self.0
    }
}

/// Names a stretch of a ledger's time. What begins in one life is not carried on in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Life(pub(super) u64);

/// The greatest numbers that another node ever told this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LastTold {
    /// The greatest point.
    pub point: Point,
    /// The greatest stable.
    pub stable: Stable,
}

/// How records came from another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bearer {
    /// This node pushed them, in this life of its process.
    Pushed(NodeId, Start),
    /// A session with this node brought them, which began in this life of the ledger.
    Session(NodeId, Life),
}

/// What a node keeps of stability.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ledger {
    /// This node.
    pub id: NodeId,
    /// This life of its process.
    pub start: Start,
    /// The durable set; for a newcomer that begins anew, the set that it belonged to. `None` for
    /// an empty node.
    pub set: Option<DurableSet>,
    /// Whether the node is counted. One that is not gives, serves and tells nothing.
    pub counted: bool,
    /// Whether the node has seeds and has met none of them yet: it moves no floor.
    pub lone: bool,
    /// The confirmed point.
    pub point: Point,
    /// The greatest stable that was ever told.
    pub told: Stable,
    /// The floor. It never falls while the node keeps its id and is counted.
    pub floor: Floor,
    /// The name of `set`, kept because each session and each report asks for it.
    pub(super) name: SetName,
    pub(super) have: BTreeMap<NodeId, Point>,
    pub(super) stable_of: BTreeMap<NodeId, (SetName, Stable)>,
    pub(super) remembered: BTreeMap<NodeId, LastTold>,
    /// Changes when the node starts, begins anew, follows a source or is counted: sessions of
    /// before end.
    pub(super) life: Life,
    /// Whether this life is the one of a follow.
    pub(super) follows: bool,
}

impl Ledger {
    /// The ledger of an empty node, a newcomer.
    #[must_use]
    pub fn empty(id: NodeId, start: Start) -> Self {
        Self {
            id,
            start,
            set: None,
            counted: false,
            lone: false,
            point: Point::default(),
            told: Stable::default(),
            floor: Floor::default(),
            name: SetName::default(),
            have: BTreeMap::new(),
            stable_of: BTreeMap::new(),
            remembered: BTreeMap::new(),
            life: Life(0),
            follows: false,
        }
    }

    /// The ledger of a node that founds a set. `lone` says that it has seeds and met none of them.
    #[must_use]
    pub fn founder(id: NodeId, start: Start, founding: Founding, lone: bool) -> Self {
        let set = DurableSet::found(founding, id, start);
        let mut ledger = Self { set: Some(set), counted: true, lone, ..Self::empty(id, start) };
        ledger.earn_anew();
        ledger
    }

    /// Founds a set, with this node as its only member. What began before ends.
    pub fn found(&mut self, founding: Founding, lone: bool) {
        let life = self.next_life();
        *self = Self { life, ..Self::founder(self.id, self.start, founding, lone) };
        assert!(self.counted, "who founds a set counts in it");
    }

    /// Opens a new life of the process on what the disk holds. The caller stores the ledger before
    /// the node talks. Claims begin anew from the floor.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        assert!(start > self.start, "a start is above the one before");
        self.start = start;
        self.next_life();
        let (id, start_point) = (self.id, self.point);
        if self.counted
            && let Some(entry) = self.set.as_mut().and_then(|set| set.joined.get_mut(&id))
        {
            (entry.start, entry.start_point) = (start, start_point);
            self.earn_anew();
        }
        self
    }

    /// Whether this node was counted once, and is to be counted anew before it serves.
    #[must_use]
    pub fn begins_anew(&self) -> bool {
        self.set.is_some() && !self.counted
    }

    /// Whether nobody is left who could count this node: it was in no set, or all that were in it
    /// are gone.
    #[must_use]
    pub fn is_of_no_set(&self) -> bool {
        !self.counted && self.set.as_ref().is_none_or(|set| set.members().next().is_none())
    }

    pub(super) fn next_life(&mut self) -> Life {
        (self.life, self.follows) = (Life(self.life.0.saturating_add(1)), false);
        self.life
    }

    /// The present life. A session or push stream notes it when it begins.
    #[must_use]
    pub fn life(&self) -> Life {
        self.life
    }

    /// Whether a session with `from` that began in `life` may merge what it brings. Ask in the
    /// transaction that merges: what a session of an earlier life brings would get round what was
    /// set aside since.
    #[must_use]
    pub fn goes_on(&self, from: NodeId, life: Life) -> bool {
        let gone = |set: &DurableSet| [self.id, from].iter().any(|id| set.gone.contains_key(id));
        self.life == life && !self.set.as_ref().is_some_and(gone)
    }

    /// Whether records that came as `bearer` says may be merged. Ask in the same transaction.
    #[must_use]
    pub fn takes(&self, bearer: Bearer) -> bool {
        match bearer {
            Bearer::Pushed(from, start) => self.takes_from(from, start),
            Bearer::Session(from, life) => self.goes_on(from, life),
        }
    }

    /// The name of the durable set, for a counted node.
    #[must_use]
    pub fn set_name(&self) -> Option<SetName> {
        (self.counted && self.set.is_some()).then_some(self.name)
    }

    /// The timestamp of the next write: above what it replaces and above every confirmed point.
    #[must_use]
    pub fn next_timestamp(&self, now: Timestamp, replaced: Option<Timestamp>) -> Timestamp {
        let above_replaced = replaced.map_or(Timestamp::ZERO, Timestamp::next);
        now.max(above_replaced).max(self.point.0.next())
    }

    /// Whether a push of `id`, in its life `start`, may be taken.
    #[must_use]
    pub fn takes_from(&self, id: NodeId, start: Start) -> bool {
        self.counted && self.set.as_ref().is_some_and(|set| set.takes_from(id, start))
    }

    /// The least of what is held of each member.
    #[must_use]
    pub fn stable(&self) -> Stable {
        let Some(set) = self.set.as_ref().filter(|_| self.counted) else {
            return Stable::default();
        };
        Stable(set.members().map(|id| self.holds_of(id)).min().unwrap_or_default())
    }

    /// Up to where it holds all writes of the member `id`.
    #[must_use]
    pub fn holds_of(&self, id: NodeId) -> Timestamp {
        self.have.get(&id).map_or(self.floor.0, |point| point.0)
    }

    /// Learns from another copy of the same set. Whoever started on a disk that is older than what
    /// this node told or remembers is entered as set back.
    pub fn learn(&mut self, other: &DurableSet) {
        let later = other.joined.get(&self.id).map(|entry| entry.start);
        if let Some(later) = later.filter(|later| *later > self.start) {
            self.start_above(later);
        }
        let Some(set) = self.set.as_mut() else { return };
        assert_eq!(set.founding, other.founding, "sets that were founded apart are never united");
        let mut changed = false;
        for (id, entry) in &other.joined {
            let Some(known) = set.joined.get_mut(id) else {
                set.joined.insert(*id, *entry);
                changed = true;
                continue;
            };
            // of one start, too, the greater entry counts: two sources may have entered the same
            // newcomer, and copies of the set must come to agree
            if entry <= known {
                continue;
            }
            changed = true;
            let started = entry.start > known.start;
            *known = *entry;
            let heard = self.remembered.get(id).copied().unwrap_or_default();
            let lacks = entry.start_point.0 < self.told.0 || entry.start_point < heard.point;
            if started && lacks && *id != self.id {
                set.remove(*id, WhyGone::SetBack);
            }
        }
        for (id, why) in &other.gone {
            changed |= set.remove(*id, *why);
        }
        if changed {
            self.earn_anew();
        }
    }

    /// Starts once more, above a later start of this node that others know: its disk was set back
    /// and its clock is behind, or a copy of its directory ran for a moment. The point of the start
    /// stays what was read from the disk: whoever has told more since enters this node as set back.
    pub(super) fn start_above(&mut self, later: Start) {
        self.start = later.next();
        self.next_life();
        let (id, start) = (self.id, self.start);
        if let Some(entry) = self.set.as_mut().and_then(|set| set.joined.get_mut(&id)) {
            entry.start = start;
            self.earn_anew();
        }
    }

    /// Enters a member as gone, by an operator's word or because it left. Answers whether that is
    /// new, or another reason counts now.
    pub fn remove(&mut self, id: NodeId, why: WhyGone) -> bool {
        let changed = self.set.as_mut().is_some_and(|set| set.remove(id, why));
        if changed {
            self.earn_anew();
        }
        changed
    }

    /// Why this node counts no more, if it knows.
    #[must_use]
    pub fn gone(&self) -> Option<WhyGone> {
        self.set.as_ref().and_then(|set| set.gone.get(&self.id).copied())
    }

    /// After a change of the set: everything above the floor is earned anew.
    pub(super) fn earn_anew(&mut self) {
        self.name = self.set.as_ref().map(DurableSet::name).unwrap_or_default();
        let members: Vec<_> = self.set.iter().flat_map(DurableSet::members).collect();
        // an id that is gone is never judged again
        self.remembered.retain(|id, _| members.contains(id));
        self.have = members.into_iter().map(|id| (id, Point(self.floor.0))).collect();
        self.stable_of.clear();
    }

    /// The floor that the members' words allow: the least stable that all of them told for this
    /// very set. `None` when it does not move.
    #[must_use]
    pub fn next_floor(&self) -> Option<Floor> {
        if !self.counted || self.lone || self.gone().is_some() {
            return None;
        }
        let (set, name) = (self.set.as_ref()?, self.set_name()?);
        let mut least = self.told;
        for id in set.members().filter(|id| *id != self.id) {
            let (of, stable) = self.stable_of.get(&id)?;
            if *of != name {
                return None;
            }
            least = least.min(*stable);
        }
        // what was told for an earlier set may lie above what is held for this one
        let least = Floor(least.0.min(self.stable().0));
        (least > self.floor).then_some(least)
    }

    /// Moves the floor, in the transaction that collects what goes with this step.
    pub fn raise_floor(&mut self, to: Floor) {
        self.floor = self.floor.max(to);
        for held in self.have.values_mut() {
            held.0 = held.0.max(self.floor.0);
        }
        self.check_invariants();
    }

    /// Moves the point and the floor of a node that is alone in its set; `now` is its wall clock,
    /// and everything that it holds is in the digest. Returns the floor to raise to.
    pub fn alone(&mut self, now: Timestamp) -> Option<AfterPersist<Floor>> {
        let set = self.set.as_ref().filter(|_| self.counted && !self.lone)?;
        if !set.members().eq([self.id]) {
            return None;
        }
        self.confirm(now);
        self.told = self.told.max(self.stable());
        self.next_floor().map(AfterPersist)
    }

    /// Confirms a point; `now` is the wall clock, and everything that the node holds is in the
    /// digest. Store the ledger before the point is told.
    pub fn confirm(&mut self, now: Timestamp) -> Point {
        self.point = self.point.max(Point(now));
        // a floor that was adopted may lie above the clock
        self.have.insert(self.id, Point(self.point.0.max(self.floor.0)));
        self.point
    }

    /// Panics when the numbers contradict each other.
    pub fn check_invariants(&self) {
        assert_eq!(self.contradiction(), None);
    }

    /// What contradicts itself in this ledger, wherever it comes from; nothing is known of one that
    /// is not counted.
    #[must_use]
    pub fn contradiction(&self) -> Option<&'static str> {
        if !self.counted {
            return None;
        }
        let Some(set) = &self.set else { return Some("a counted node has no durable set") };
        let Some(entry) = set.joined.get(&self.id) else {
            return Some("a counted node never joined its durable set");
        };
        let held = |id| self.have.get(&id).copied();
        let highest = self.point.0.max(self.floor.0);
        [
            (entry.start != self.start, "the durable set names another start of this node"),
            (set.name() != self.name, "the durable set is not the one that the ledger names"),
            (self.told.0 > highest, "a stable was told that lies above the point"),
            (held(self.id).is_some_and(|own| own.0 > highest), "its own entry is above its point"),
            (set.members().any(|id| held(id).is_none()), "nothing is said of a member"),
            (self.have.values().any(|held| held.0 < self.floor.0), "an entry is below the floor"),
        ]
        .into_iter()
        .find_map(|(contradicts, what)| contradicts.then_some(what))
    }
}
