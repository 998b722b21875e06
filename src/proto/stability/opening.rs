//! The opening of a session: who each side is, judged before anything is adopted or told.

use std::cmp::Reverse;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{NodeId, Timestamp};

use super::ledger::LastTold;
use super::{DurableSet, Floor, Ledger, Stable, Start, WhyGone};

/// Who a side is. Nothing in it is fresh: no point is taken for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Introduction {
    /// The node.
    pub id: NodeId,
    /// The life of its process.
    pub start: Start,
    /// Whether it is counted.
    pub counted: bool,
    /// Its durable set, or the one that it belonged to.
    pub set: Option<DurableSet>,
    /// Its floor.
    pub floor: Floor,
    /// The greatest stable that it told.
    pub told: Stable,
    /// Its wall clock.
    pub clock: Timestamp,
}

/// Why a node begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Anew {
    /// A floor above everything that it told was reached without it.
    NotCounted,
    /// Its disk was set back.
    SetBack,
    /// Nobody who entered it is a member any more.
    Unknown,
    /// It had left in order.
    Left,
    /// Its set was founded apart and is the smaller one. By itself only when nothing has to be set
    /// aside; else the operator decides.
    Apart {
        /// Whether it told nobody anything, and so keeps its id.
        keeps_id: bool,
    },
}

/// Why nothing can be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoOpening {
    /// The newcomer belonged to another set.
    OtherSet,
    /// One side knows a later start of the other than the present one: its disk was set back and
    /// its clock is behind, or a copy of its directory ran, or the word is a late one. That side
    /// starts above it with the judgement, and the next opening decides.
    LaterStart,
    /// A newcomer's clock is too far from its source's.
    Clocks,
    /// The other side is gone; its streams and sessions end.
    Gone(WhyGone),
    /// This node is gone: its writes are set aside, and it waits for the operator's word.
    Removed(WhyGone),
}

/// What an opening means for the side that judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Judgement {
    /// Compare. Without `claims` no point is told and nothing is claimed.
    Compare {
        /// Whether the clocks agree within the bound.
        claims: bool,
    },
    /// Compare records and nothing else: neither side is counted, so nothing is claimed, and no
    /// floor is adopted; what comes arrives by [`super::floor::arrive`] with a floor of zero. What
    /// a newcomer takes so is judged again when it follows a source: a follow under way ends, and
    /// the newcomer follows anew at once.
    Exchange,
    /// This node begins anew and follows the other.
    BeginAnew(Anew),
    /// This node is a newcomer and follows the other.
    Follow,
    /// The other is a newcomer, or becomes one, and follows this node.
    Serve,
    /// Nothing is done.
    Refuse(NoOpening),
}

impl Ledger {
    /// What this node says of itself.
    #[must_use]
    pub fn introduce(&self, clock: Timestamp) -> Introduction {
        Introduction {
            id: self.id,
            start: self.start,
            counted: self.counted,
            set: self.set.clone(),
            floor: self.floor,
            told: self.told,
            clock,
        }
    }

    /// Judges the other side. A member's new start and who is gone enter this node's set: store
    /// the ledger before the answer goes out. Floors are not touched.
    ///
    /// This node is judged by its present numbers; the other judges itself. So frames that overtake
    /// each other cannot make a healthy node look set back.
    pub fn judge(&mut self, them: &Introduction, now: Timestamp, drift: Duration) -> Judgement {
        let agree = now.since(them.clock) <= drift && them.clock.since(now) <= drift;
        if !self.counted || !them.counted {
            return self.judge_newcomer(them, agree);
        }
        let (Some(mine), Some(theirs)) = (self.set.clone(), them.set.as_ref()) else {
            return Judgement::Refuse(NoOpening::OtherSet);
        };
        if mine.founding != theirs.founding {
            return self.judge_apart(&mine, theirs);
        }
        self.learn_start(them);
        if let Some(why) = theirs.gone.get(&them.id) {
            // one that leaves says so itself
            self.remove(them.id, *why);
        }
        if let Some(why) = self.gone().or_else(|| theirs.gone.get(&self.id).copied()) {
            return match why {
                WhyGone::SetBack => Judgement::BeginAnew(Anew::SetBack),
                WhyGone::BegunAnew => Judgement::BeginAnew(Anew::NotCounted),
                WhyGone::Forgotten | WhyGone::Left => Judgement::Refuse(NoOpening::Removed(why)),
            };
        }
        let known = self.set.as_ref().and_then(|set| set.gone.get(&them.id).copied());
        match known {
            Some(WhyGone::SetBack | WhyGone::BegunAnew) => return Judgement::Serve,
            Some(why) => return Judgement::Refuse(NoOpening::Gone(why)),
            None => {}
        }
        let start_of = |set: &DurableSet, id| set.joined.get(&id).map(|entry| entry.start);
        if let Some(later) = start_of(theirs, self.id).filter(|start| *start > self.start) {
            self.start_above(later);
            return Judgement::Refuse(NoOpening::LaterStart);
        }
        if self.set.as_ref().and_then(|set| start_of(set, them.id)) > Some(them.start) {
            return Judgement::Refuse(NoOpening::LaterStart);
        }
        if them.floor.0 > self.told.0 {
            return Judgement::BeginAnew(Anew::NotCounted);
        }
        let unknown = !theirs.joined.contains_key(&self.id);
        if unknown && !theirs.vouches_for(self.id, &mine) && self.told < them.told {
            return Judgement::BeginAnew(Anew::Unknown);
        }
        Judgement::Compare { claims: agree }
    }

    fn judge_newcomer(&mut self, them: &Introduction, agree: bool) -> Judgement {
        // an empty node belonged to no set, and goes with any
        let apart = self.set.as_ref().zip(them.set.as_ref());
        if apart.is_some_and(|(mine, theirs)| mine.founding != theirs.founding) {
            return match (self.counted, them.counted) {
                // of its own set, nobody who counts may be left
                (false, true) => Judgement::BeginAnew(Anew::Apart { keeps_id: true }),
                (true, false) => Judgement::Serve,
                _ => Judgement::Refuse(NoOpening::OtherSet),
            };
        }
        // either side may know of the other, or be the last to know of itself
        let why = |id| {
            let sets = [&self.set, &them.set].into_iter().flatten();
            sets.filter_map(|set| set.gone.get(&id).copied()).min()
        };
        if let Some(why) = why(self.id) {
            return match why {
                WhyGone::SetBack => Judgement::BeginAnew(Anew::SetBack),
                WhyGone::BegunAnew => Judgement::BeginAnew(Anew::NotCounted),
                WhyGone::Forgotten | WhyGone::Left => Judgement::Refuse(NoOpening::Removed(why)),
            };
        }
        if let Some(why) = why(them.id) {
            return Judgement::Refuse(NoOpening::Gone(why));
        }
        if !self.counted && !them.counted {
            for (id, why) in them.set.iter().flat_map(|set| &set.gone) {
                self.remove(*id, *why);
            }
            if self.follows {
                self.next_life();
            }
            return Judgement::Exchange;
        }
        match (agree, self.counted) {
            (false, _) => Judgement::Refuse(NoOpening::Clocks),
            (true, true) => Judgement::Serve,
            (true, false) => Judgement::Follow,
        }
    }

    /// The smaller set's node, then the one of the younger founding, is the newcomer.
    fn judge_apart(&self, mine: &DurableSet, theirs: &DurableSet) -> Judgement {
        let rank = |set: &DurableSet| (set.members().count(), Reverse(set.founding));
        if rank(mine) > rank(theirs) {
            return Judgement::Serve;
        }
        // nobody else ever was in its set
        let keeps_id = mine.joined.keys().eq([&self.id]);
        Judgement::BeginAnew(Anew::Apart { keeps_id })
    }

    /// Learns the start that a known member has by its own word.
    fn learn_start(&mut self, them: &Introduction) {
        let own = them.set.as_ref().and_then(|set| set.joined.get(&them.id).copied());
        let (Some(entry), Some(set)) = (own, self.set.as_ref()) else { return };
        if set.joined.contains_key(&them.id) {
            let mut word = DurableSet::found(set.founding, them.id, entry.start);
            word.joined.insert(them.id, entry);
            self.learn(&word);
        }
    }

    /// The greatest numbers that `id` told this node.
    #[must_use]
    pub fn last_told(&self, id: NodeId) -> LastTold {
        self.remembered.get(&id).copied().unwrap_or_default()
    }

    /// Unites the sets of two sides that both judged [`Judgement::Compare`], and returns the floor
    /// to raise to before the comparison; `None` when the set shows meanwhile that either is gone,
    /// or the floor was never judged: the session ends.
    pub fn unite(&mut self, them: &Introduction) -> Option<Floor> {
        let theirs = them.set.as_ref()?;
        if self.set.as_ref()?.founding != theirs.founding || them.floor.0 > self.told.0 {
            return None;
        }
        self.learn(theirs);
        let set = self.set.as_ref()?;
        self.lone = false;
        (set.is_member(self.id) && set.is_member(them.id)).then_some(self.floor.max(them.floor))
    }

    /// Begins anew, in place: the node is a newcomer under the id `fresh`, which the caller makes,
    /// together with a new `joined_at` and a new epoch of the feed. What it held stays until its
    /// source has spoken; the caller sets it aside then. `apart_from` is the set to follow when its
    /// own was founded apart.
    pub fn begin_anew(&mut self, why: Anew, fresh: NodeId, them: &Introduction) {
        let keeps_id = matches!(why, Anew::Apart { keeps_id: true });
        if !matches!(why, Anew::Apart { .. }) {
            self.remove(self.id, WhyGone::BegunAnew);
        } else if let Some(theirs) = &them.set {
            self.set = Some(theirs.clone());
        }
        let id = if keeps_id { self.id } else { fresh };
        let (life, set) = (self.next_life(), self.set.take());
        *self = Self { set, life, ..Self::empty(id, self.start) };
        assert!(!self.counted, "who begins anew counts no more");
    }
}
