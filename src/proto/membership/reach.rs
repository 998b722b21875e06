//! Announcements beyond foca's own: to members that were not heard of, and, while new members show
//! up, to more members than foca asks.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::effects::Event;
use super::wire::MemberIdentity;
use super::{Membership, NodeId};

/// How many unheard members a node announces itself to in a probe period while nobody is alive.
const REACH_ALONE_MAX: usize = 16;
/// How many otherwise, every [`REACH_EVERY`] probe periods. With that, two clusters of which one
/// node knows one node of the other join within a minute in spite of loss.
const REACH_MAX: usize = 3;
const REACH_EVERY: u64 = 5;

/// How many members a node asks in each probe period while new ones show up. An answer names about
/// ten members, so a node that asks one at a time needs minutes to know 200.
const LEARN_FROM: usize = 8;
/// For how many probe periods a node goes on asking after a new member has shown up.
const LEARN_PERIODS: u64 = 3;

impl Membership {
    /// Runs once in each probe period, beside foca's own timers.
    pub(super) fn reach(&mut self) {
        self.periods += 1;
        self.effects.timers.set(self.effects.now.saturating_add(self.probe_period), Event::Reach);
        let active = self.foca.num_members();
        if active > self.active {
            self.learned = self.periods;
        }
        self.active = active;
        if self.is_alone() {
            self.reach_unheard(REACH_ALONE_MAX);
        } else if self.periods - self.learned < LEARN_PERIODS {
            self.learn();
            // After a long absence many members count as down here; each must hear from this node.
            self.reach_unheard(LEARN_FROM);
        } else if self.periods.is_multiple_of(REACH_EVERY) {
            self.reach_unheard(REACH_MAX);
        }
    }

    /// Asks active members for others.
    fn learn(&mut self) {
        let active = self.heard().filter(|(_, state)| state.is_up());
        let mut active: Vec<_> = active.map(|(member, _)| (member.id, member.gossip)).collect();
        active.sort_unstable();
        self.asked = self.announce_round(&active, self.asked, LEARN_FROM);
    }

    /// Announces this node to members that are down or were never heard of.
    ///
    /// foca stops announcing to down members when nobody is alive, and forgets them in the end; but
    /// two halves of a cluster that lost each other must still join again (foca's issue 15).
    fn reach_unheard(&mut self, most: usize) {
        let members = self.members();
        // A node that is alive can have the address of one that is gone.
        let heard: BTreeSet<SocketAddr> = members
            .iter()
            .filter(|(_, state)| state.is_up())
            .map(|(member, _)| member.gossip)
            .collect();
        let unheard = members.iter().filter(|(member, _)| !heard.contains(&member.gossip));
        let unheard: Vec<_> = unheard.map(|(member, _)| (member.id, member.gossip)).collect();
        self.reached = self.announce_round(&unheard, self.reached, most);
    }

    /// Announces this node to at most `most` members of `to`, which is sorted, in a round that
    /// continues after `last`. Returns the last one that it announced to.
    fn announce_round(
        &mut self,
        to: &[(NodeId, SocketAddr)],
        last: Option<NodeId>,
        most: usize,
    ) -> Option<NodeId> {
        let (earlier, later) = to.split_at(to.partition_point(|(id, _)| Some(*id) <= last));
        let mut turn = last;
        for (id, address) in later.iter().chain(earlier).take(most) {
            turn = Some(*id);
            let _ = self.foca.announce(MemberIdentity::anyone_at(*address), &mut self.effects);
        }
        turn
    }
}
