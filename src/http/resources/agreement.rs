//! How far the members agree, by what they have reported.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::http::state::State;
use crate::model::member::{HeldReport, PeerStatus};
use crate::model::{Member, MemberState, NodeId, Timestamp};
use crate::proto::stability::{Ledger, floor::WaitedFor};
use crate::telemetry::Agreement;

/// How many `sync.interval` without a report of a member leave it unknown how it stands.
const REPORTS_MISSED_MAX: u32 = 3;

/// The cluster as this node sees it at one moment: what `/cluster` and `/metrics` both show.
pub(super) struct Sight {
    /// The members that are up or were never removed, by ascending id, this node among them.
    pub(super) members: Vec<(Member, MemberState)>,
    pub(super) peers: BTreeMap<NodeId, PeerStatus>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) judge: Judge,
    /// The wall clock.
    pub(super) now: Timestamp,
}

/// A member whose cluster was founded apart.
pub(super) struct Apart {
    pub(super) id: NodeId,
    pub(super) name: String,
    /// How many records it holds, by its latest report.
    pub(super) keys: u64,
}

impl Sight {
    pub(super) fn of(state: &State) -> Self {
        let ledger = state.store.ledger();
        let mut members = all_members(&state.members.borrow(), &state.me);
        members.retain(|(member, state)| state.is_up() || !is_gone(&ledger, member.id));
        let fresh = state.config.sync.interval.saturating_mul(REPORTS_MISSED_MAX);
        let (me, own) = (state.me.id, state.store.fingerprint());
        let judge = Judge { me, own, now: state.clock.instant().into_std(), fresh };
        let (peers, now) = (state.peers.borrow().clone(), state.clock.now());
        Self { members, peers, ledger, judge, now }
    }

    /// Whether this member has left or was forgotten, or has begun anew under another id.
    pub(super) fn is_gone(&self, id: NodeId) -> bool {
        is_gone(&self.ledger, id)
    }

    pub(super) fn in_sync_through(&self) -> Option<Timestamp> {
        self.judge.in_sync_through(&self.members, &self.peers, &self.ledger, self.now)
    }

    /// The durable members that hold the floor back.
    pub(super) fn waits_for(&self) -> Vec<WaitedFor> {
        self.ledger.waits_for(self.now.minus(self.judge.fresh))
    }

    pub(super) fn apart(&self) -> Vec<Apart> {
        let of = |(member, _): &(Member, MemberState)| {
            let status = self.peers.get(&member.id).filter(|status| status.is_apart)?;
            let keys = status.report.map_or(0, |held| held.report.records);
            Some(Apart { id: member.id, name: member.name.clone(), keys })
        };
        self.members.iter().filter_map(of).collect()
    }

    /// The same for `/metrics`.
    pub(super) fn agreement(&self) -> Agreement {
        let waits_for = self.waits_for().into_iter();
        let apart = self.apart().into_iter();
        Agreement {
            in_sync_through: self.in_sync_through().map(seconds),
            floor: seconds(self.ledger.floor.0),
            floor_waits_for: waits_for
                .map(|member| (member.id.uuid().to_string(), seconds(member.since)))
                .collect(),
            apart: apart.map(|it| (it.id.uuid().to_string(), it.name, it.keys)).collect(),
        }
    }
}

fn is_gone(ledger: &Ledger, id: NodeId) -> bool {
    ledger.set.as_ref().is_some_and(|set| set.gone.contains_key(&id))
}

/// Since the Unix epoch.
fn seconds(at: Timestamp) -> f64 {
    Duration::from_micros(at.micros()).as_secs_f64()
}

/// The members by ascending id, with this node even if gossip does not know it yet.
fn all_members(known: &[(Member, MemberState)], me: &Member) -> Vec<(Member, MemberState)> {
    let mut members = known.to_vec();
    if !members.iter().any(|(member, _)| member.id == me.id) {
        members.push((me.clone(), MemberState::Alive));
    }
    members.sort_by_key(|(member, _)| member.id);
    members
}

/// What the reports of the other members are held against.
pub(super) struct Judge {
    pub(super) me: NodeId,
    /// The fingerprint of this node.
    pub(super) own: [u8; 32],
    pub(super) now: Instant,
    /// How old a report may be to tell how a member stands now.
    pub(super) fresh: Duration,
}

impl Judge {
    /// Whether every other alive member's latest report shows the fingerprint of this node; `None`
    /// when none differs, but one is missing or too old to tell.
    pub(super) fn converged(
        &self,
        members: &[(Member, MemberState)],
        peers: &BTreeMap<NodeId, PeerStatus>,
    ) -> Option<bool> {
        let mut converged = Some(true);
        for id in self.others(members) {
            let held = peers.get(&id).and_then(|status| status.report);
            match held {
                Some(held) if held.report.fingerprint != self.own => return Some(false),
                Some(held) if self.is_fresh(&held) => {}
                _ => converged = None,
            }
        }
        converged
    }

    /// Up to where every alive member holds all writes; `None` while one has not reported.
    fn in_sync_through(
        &self,
        members: &[(Member, MemberState)],
        peers: &BTreeMap<NodeId, PeerStatus>,
        ledger: &Ledger,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let mut least = ledger.holds_through(self.others(members))?.min(now);
        for id in self.others(members) {
            let held = peers.get(&id).and_then(|status| status.report)?;
            least = least.min(held.report.holds_through?);
        }
        Some(least)
    }

    /// The other alive members.
    fn others(&self, members: &[(Member, MemberState)]) -> impl Iterator<Item = NodeId> {
        let alive = members.iter().filter(|(_, state)| *state == MemberState::Alive);
        alive.map(|(member, _)| member.id).filter(|id| *id != self.me)
    }

    fn is_fresh(&self, held: &HeldReport) -> bool {
        self.now.saturating_duration_since(held.received) <= self.fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::http::tests::rig::member;
    use crate::model::member::Report;

    #[test]
    fn this_node_is_always_a_member_and_ids_ascend() {
        let known = [(member(3), MemberState::Down), (member(1), MemberState::Alive)];
        let ids: Vec<_> = all_members(&known, &member(2)).iter().map(|(m, _)| m.id).collect();
        assert_eq!(ids, [1, 2, 3].map(NodeId::from_u128));
        assert_eq!(all_members(&known, &member(1)).len(), 2);
    }

    #[test]
    fn converged_looks_at_every_other_alive_member_and_no_further() {
        let states = [MemberState::Alive, MemberState::Alive, MemberState::Suspect];
        let members: Vec<_> = (1..).map(member).zip(states).collect();
        let me = NodeId::from_u128(1);
        let fresh = Duration::from_secs(30);
        let received = Clock::system().instant().into_std();
        let shows = |fingerprint| {
            let report = Report {
                fingerprint,
                records: 0,
                syncing: false,
                now: Timestamp::ZERO,
                holds_through: None,
                horizon: Timestamp::MAX,
            };
            let report = Some(HeldReport { report, at: Timestamp::ZERO, received });
            let known = PeerStatus { report, ..PeerStatus::default() };
            BTreeMap::from([(NodeId::from_u128(2), known)])
        };
        let after = |age: Duration, members: &[_], peers: &BTreeMap<_, _>| {
            Judge { me, own: [1; 32], now: received + age, fresh }.converged(members, peers)
        };
        let check = |peers: &BTreeMap<_, _>| after(fresh, &members, peers);
        assert_eq!(check(&shows([1; 32])), Some(true), "the suspect one does not count");
        assert_eq!(check(&shows([2; 32])), Some(false));
        assert_eq!(check(&BTreeMap::new()), None, "a member that never reported may hold anything");
        assert_eq!(after(fresh, &members[..1], &BTreeMap::new()), Some(true));
        let late = fresh + Duration::from_millis(1);
        assert_eq!(after(late, &members, &shows([1; 32])), None, "what was equal is so no longer");
        assert_eq!(after(late, &members, &shows([2; 32])), Some(false), "it differed at least");
    }
}
