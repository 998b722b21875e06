//! How far the members agree, by what they have reported.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::model::member::{HeldReport, PeerStatus};
use crate::model::{Member, MemberState, NodeId, Timestamp};
use crate::proto::stability::Ledger;

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
    pub(super) fn in_sync_through(
        &self,
        members: &[(Member, MemberState)],
        peers: &BTreeMap<NodeId, PeerStatus>,
        ledger: &Ledger,
        now: Timestamp,
    ) -> Option<u64> {
        let mut least = ledger.holds_through(self.others(members))?.min(now);
        for id in self.others(members) {
            let held = peers.get(&id).and_then(|status| status.report)?;
            least = least.min(held.report.holds_through?);
        }
        Some(least.micros())
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
