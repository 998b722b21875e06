//! What a session between two counted nodes tells and proves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{NodeId, Timestamp};

use super::ledger::{LastTold, Life};
use super::{AfterPersist, Ledger, Point, SetName, Stable};

/// What a side tells before the comparison.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionBegin {
    /// The side.
    pub id: NodeId,
    /// Its durable set.
    pub set: SetName,
    /// Its point; `None` when the clocks disagree and nothing can be claimed.
    pub point: Option<Point>,
    /// What it holds of each member.
    pub have: BTreeMap<NodeId, Point>,
    /// The greatest stable that it told.
    pub told: Stable,
}

/// What keeps a side from claiming.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bar {
    /// One of the sides holds a record back until its time: it lies too far ahead, or came without
    /// its bytes too early.
    HeldBack,
    /// A record was replaced between list and request, and not asked for again.
    Replaced,
}

/// A side's claim in the making. Drop it when the session is cut.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    life: Life,
    set: Option<SetName>,
    theirs: SessionBegin,
    barred: bool,
}

impl Claim {
    /// The life that the session belongs to; [`Ledger::goes_on`] asks for it.
    #[must_use]
    pub fn life(&self) -> Life {
        self.life
    }

    /// Notes that something keeps this side from claiming.
    pub fn bar(&mut self, _why: Bar) {
        self.barred = true;
    }
}

/// A side's last word of the comparison: everything that it gives was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LastWord {
    /// The durable set that it names now; `None` when it began anew meanwhile.
    pub set: Option<SetName>,
}

/// A stable, told for one durable set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StableTold {
    /// The member that tells it.
    pub id: NodeId,
    /// The set.
    pub set: SetName,
    /// The stable.
    pub stable: Stable,
    /// The greatest stable that it ever told.
    pub told: Stable,
}

impl Ledger {
    /// Begins the comparison. With `claims` it takes a point: the writer calls it when everything
    /// that the node holds is in the digest; `now` is the wall clock.
    pub fn begin(&mut self, claims: bool, now: Timestamp) -> Option<AfterPersist<SessionBegin>> {
        let set = self.set_name()?;
        let have = self.have.clone();
        let point = claims.then(|| self.confirm(now));
        Some(AfterPersist(SessionBegin { id: self.id, set, point, have, told: self.told }))
    }

    /// Keeps what the other side told at its begin. Store the ledger with the next commit.
    pub fn hear_begin(&mut self, theirs: SessionBegin) -> Claim {
        self.remember(theirs.id, theirs.point.unwrap_or_default(), theirs.told);
        Claim { life: self.life, set: self.set_name(), theirs, barred: false }
    }

    /// This side's last word.
    #[must_use]
    pub fn last_word(&self, claim: &Claim) -> LastWord {
        LastWord { set: self.set_name().filter(|_| claim.life == self.life) }
    }

    /// Claims what the finished comparison proves. Call it when everything that was asked for has
    /// come and is durable. Returns whether anything was claimed.
    pub fn finish(&mut self, claim: &Claim, their_word: LastWord) -> bool {
        let theirs = &claim.theirs;
        let now = self.set_name();
        let one_set = claim.set.is_some()
            && [now, Some(theirs.set), their_word.set].iter().all(|set| *set == claim.set);
        let Some(point) = theirs.point.filter(|_| !claim.barred && one_set) else { return false };
        if claim.life != self.life || self.gone().is_some() {
            return false;
        }
        for (id, held) in &mut self.have {
            let told = theirs.have.get(id).copied().unwrap_or_default();
            if *id == theirs.id {
                *held = (*held).max(point);
            } else if *id != self.id {
                *held = (*held).max(told);
            }
        }
        self.check_invariants();
        true
    }

    /// The stable to tell; `None` for a node that is not counted.
    pub fn tell(&mut self) -> Option<AfterPersist<StableTold>> {
        let (set, stable) = (self.set_name()?, self.stable());
        self.told = self.told.max(stable);
        Some(AfterPersist(StableTold { id: self.id, set, stable, told: self.told }))
    }

    /// What this node told last, as it may be told again: `None` when there is something new to
    /// tell, or it is not counted.
    #[must_use]
    pub fn word(&self) -> Option<StableTold> {
        let (set, stable) = (self.set_name()?, self.stable());
        let told = StableTold { id: self.id, set, stable, told: self.told };
        (stable <= self.told).then_some(told)
    }

    /// Hears a member's stable, which must come from the member itself. Words may be repeated, be
    /// late and overtake each other: one for another set than the present is passed over, as sets
    /// only grow and no name returns; of those for the present set the greatest counts, as what a
    /// member holds for one set only grows, too. Ask [`Ledger::next_floor`] afterwards.
    pub fn hear(&mut self, word: &StableTold) {
        let member = self.set.as_ref().is_some_and(|set| set.is_member(word.id));
        if self.set_name() != Some(word.set) || !member {
            return;
        }
        self.remember(word.id, Point::default(), word.told);
        let (set, stable) = self.stable_of.entry(word.id).or_insert((word.set, word.stable));
        *stable = if *set == word.set { word.stable.max(*stable) } else { word.stable };
        *set = word.set;
    }

    /// Remembers the greatest numbers of a member; others are never judged by them.
    fn remember(&mut self, id: NodeId, point: Point, told: Stable) {
        if self.set.as_ref().is_some_and(|set| set.is_member(id)) {
            let known = self.remembered.entry(id).or_default();
            *known = LastTold { point: known.point.max(point), stable: known.stable.max(told) };
        }
    }
}
