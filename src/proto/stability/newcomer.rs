//! How a newcomer follows one source until it is counted.

use serde::{Deserialize, Serialize};

use crate::model::{Header, NodeId, Timestamp};

use super::ledger::Life;
use super::set::Joined;
use super::{AfterPersist, DurableSet, Floor, Ledger, Point, Stable};

/// What a source tells a newcomer at the begin.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Offer {
    /// The source.
    pub source: NodeId,
    /// Its durable set.
    pub set: DurableSet,
    /// Its floor.
    pub floor: Floor,
    /// The greatest stable that it ever told: the bound up to which its state is the truth.
    pub told: Stable,
    /// Its point.
    pub point: Point,
}

/// A newcomer that follows a source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Follow {
    offer: Offer,
    life: Life,
}

impl Follow {
    /// The life in which the newcomer follows; [`Ledger::goes_on`] asks for it.
    #[must_use]
    pub fn life(&self) -> Life {
        self.life
    }

    /// Up to here the source's state is the truth. One that holds back any of it is not counted: a
    /// floor may lie above, and would keep the record out for ever.
    #[must_use]
    pub fn truth_through(&self) -> Timestamp {
        self.offer.told.0
    }

    /// Whether what the newcomer holds for a key is set aside, when the source holds `source`.
    /// Everything else that the source holds arrives by [`super::floor::arrive`] with a floor of
    /// zero.
    #[must_use]
    pub fn sets_aside(&self, mine: &Header, source: Option<&Header>) -> bool {
        mine.version.timestamp <= self.offer.told.0 && source != Some(mine)
    }
}

impl Ledger {
    /// What this node, as the source, tells a newcomer; `None` when it is not counted or is gone.
    pub fn offer(&mut self) -> Option<AfterPersist<Offer>> {
        if !self.counted || self.gone().is_some() {
            return None;
        }
        self.told = self.told.max(self.stable());
        Some(AfterPersist(Offer {
            source: self.id,
            set: self.set.clone()?,
            floor: self.floor,
            told: self.told,
            point: self.point,
        }))
    }

    /// Follows the source that made `offer`. Any other follow, and any exchange, under way ends.
    pub fn follow(&mut self, offer: Offer) -> Option<Follow> {
        if self.counted {
            return None;
        }
        let life = self.next_life();
        (self.floor, self.follows) = (offer.floor, true);
        Some(Follow { offer, life })
    }

    /// Enters the newcomer `id` at its source, when the comparison has ended and the source told
    /// nothing new since `offer`; `None`: make a new offer, and the newcomer goes over it again.
    pub fn enter(
        &mut self,
        id: NodeId,
        start: super::Start,
        offer: &Offer,
    ) -> Option<AfterPersist<DurableSet>> {
        let still =
            self.floor == offer.floor && self.told == offer.told && self.stable() <= self.told;
        if !self.counted || !still || self.gone().is_some() {
            return None;
        }
        let (by, set) = (self.id, self.set.as_mut()?);
        if set.gone.contains_key(&id) {
            return None;
        }
        let entry = Joined { start, start_point: offer.point, entered_by: Some(by) };
        let known = set.joined.entry(id).or_insert(entry);
        *known = entry.max(*known);
        assert!(set.is_member(id), "a newcomer is a member once it is entered");
        let entered = set.clone();
        self.earn_anew();
        self.lone = false;
        Some(AfterPersist(entered))
    }

    /// Counts this newcomer: it inherits what its source told. Returns false when the follow has
    /// ended, or the set does not have this node: follow anew. Store the ledger before it serves.
    pub fn count(&mut self, follow: &Follow, entered: DurableSet) -> bool {
        if self.counted || follow.life != self.life || !entered.is_member(self.id) {
            return false;
        }
        let gone = self.set.take().filter(|set| set.founding == entered.founding);
        self.set = Some(entered);
        self.told = self.told.max(follow.offer.told);
        self.point = self.point.max(follow.offer.point);
        self.outstart(self.point);
        for (id, why) in gone.into_iter().flat_map(|set| set.gone) {
            self.remove(id, why);
        }
        (self.counted, self.lone) = (true, false);
        self.next_life();
        self.earn_anew();
        self.check_invariants();
        true
    }

    /// Starts above what the set knows of an earlier life of this id, whose disk is lost.
    fn outstart(&mut self, start_point: Point) {
        let id = self.id;
        let own = self.set.as_mut().and_then(|set| set.joined.get_mut(&id));
        if let Some(entry) = own.filter(|entry| entry.start > self.start) {
            self.start = entry.start.next();
            (entry.start, entry.start_point) = (self.start, start_point);
        }
    }
}
