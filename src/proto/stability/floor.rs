//! What the floor decides about single records: which is refused, which may go.

use crate::model::{Content, Header, Merged, NodeId, Timestamp, merge};

use super::{Floor, Ledger};

/// What becomes of a record that arrives from a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is held already.
    Same,
    /// What is held wins.
    Kept,
    /// It replaces what is held, if anything.
    Taken,
    /// It is at or below the floor: nothing changes there any more. Counted, and no bar to a claim.
    BelowFloor,
    /// It would be taken, but is further ahead than the drift allows: it is held back until its
    /// time comes. It bars the session's claim.
    TooEarly,
}

/// Judges a record from a push or a session. `latest` is the wall clock plus the allowed drift.
#[must_use]
pub fn arrive(
    held: Option<&Header>,
    incoming: &Header,
    floor: Floor,
    latest: Timestamp,
) -> Arrival {
    match merge(held, incoming) {
        Merged::Same => Arrival::Same,
        Merged::Kept => Arrival::Kept,
        Merged::Replaced if incoming.version.timestamp <= floor.0 => Arrival::BelowFloor,
        Merged::Replaced if incoming.version.timestamp > latest => Arrival::TooEarly,
        Merged::Replaced => Arrival::Taken,
    }
}

/// The least floor at which a record goes; `None` for one that never dies. No clock has a say, so
/// that equal floors mean equal digests. It orders the index of the dead.
#[must_use]
pub fn goes_at(header: &Header) -> Option<Floor> {
    let timestamp = header.version.timestamp;
    match header.content {
        Content::Tombstone => Some(Floor(timestamp)),
        Content::Value { .. } => header.expires_at.map(|at| Floor(timestamp.max(at))),
    }
}

/// Whether a record leaves the digest with the step of the floor to `floor`.
#[must_use]
pub fn may_go(header: &Header, floor: Floor) -> bool {
    goes_at(header).is_some_and(|at| at <= floor)
}

/// A durable member that holds the floor back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitedFor {
    /// The member.
    pub id: NodeId,
    /// Up to here, by its clock, all that it wrote is known to be here, or it has told so much.
    pub since: Timestamp,
}

impl Ledger {
    /// The other durable members from which nothing was proven after `before`. Where all that is
    /// missing here is what one of them tells, that one; it waits for others itself.
    #[must_use]
    pub fn waits_for(&self, before: Timestamp) -> Vec<WaitedFor> {
        let Some(set) = self.set.as_ref().filter(|_| self.counted) else { return Vec::new() };
        let others = || set.members().filter(|id| *id != self.id);
        let late = |id: NodeId, proven: Timestamp| {
            let began = set.joined.get(&id).map_or(proven, |entry| entry.start.at);
            (proven < before).then_some(WaitedFor { id, since: proven.max(began.min(before)) })
        };
        let silent: Vec<_> = others().filter_map(|id| late(id, self.holds_of(id))).collect();
        if !silent.is_empty() {
            return silent;
        }
        let told = |id| match self.stable_of.get(&id) {
            Some((name, stable)) if *name == self.name => stable.0,
            _ => self.floor.0,
        };
        let told: Vec<_> = others().filter_map(|id| late(id, told(id))).collect();
        assert!(told.iter().all(|member| set.is_member(member.id)), "nobody waits for the gone");
        told
    }

    /// Up to where this node holds all writes of `others`; `None` for a node that is not counted,
    /// and the greatest time where there are none.
    #[must_use]
    pub fn holds_through(&self, others: impl IntoIterator<Item = NodeId>) -> Option<Timestamp> {
        self.set.as_ref().filter(|_| self.counted)?;
        let holds = others.into_iter().map(|id| self.holds_of(id));
        Some(holds.min().unwrap_or(Timestamp::MAX))
    }
}
