//! Whom a node looks for besides foca: members that are not heard of, and, while it learns of
//! others, more of them than foca asks.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::effects::Event;
use super::wire::Identity;
use super::{MemberState, Membership, NodeId};

/// How many unheard members are announced to in one probe period while nobody is alive.
const REACH_ALONE_MAX: usize = 16;
/// How many otherwise, and in every how many probe periods. Often enough that two clusters of which
/// one node knows one node of the other find together within a minute in spite of loss.
const REACH_MAX: usize = 3;
const REACH_EVERY: u64 = 5;

/// While it learns of others, a node asks this many of those it knows in each probe period: an
/// answer tells of about ten members, so whoever asks one at a time needs minutes to know 200.
const LEARN_FROM: usize = 8;
/// For so many probe periods after it has learned of somebody.
const LEARN_PERIODS: u64 = 3;

impl Membership {
    /// What is due once in a probe period besides foca's own doings.
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
            // after a long absence there are many that count for dead here, and each has to be told
            self.reach_unheard(LEARN_FROM);
        } else if self.periods.is_multiple_of(REACH_EVERY) {
            self.reach_unheard(REACH_MAX);
        }
    }

    /// Asks active members for others.
    fn learn(&mut self) {
        let active = self.heard().filter(|(_, state)| *state != MemberState::Down);
        let mut active: Vec<_> = active.map(|(member, _)| (member.id, member.gossip)).collect();
        active.sort_unstable();
        self.asked = self.announce_round(&active, self.asked, LEARN_FROM);
    }

    /// foca stops its own announcements to the down when nobody is left, and forgets them in the
    /// end: two halves of which each lost the other must still find together (its issue 15).
    fn reach_unheard(&mut self, most: usize) {
        let members = self.members();
        // an alive node may have taken the address of one that is gone
        let heard: BTreeSet<SocketAddr> = members
            .iter()
            .filter(|(_, state)| *state != MemberState::Down)
            .map(|(member, _)| member.gossip)
            .collect();
        let unheard = members.iter().filter(|(member, _)| !heard.contains(&member.gossip));
        let unheard: Vec<_> = unheard.map(|(member, _)| (member.id, member.gossip)).collect();
        self.reached = self.announce_round(&unheard, self.reached, most);
    }

    /// Announces this node to at most `most` of `to`, which is sorted, going on after the one whose
    /// turn was `last`; gives whose turn was last now.
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
            let _ = self.foca.announce(Identity::whoever(*address), &mut self.effects);
        }
        turn
    }
}
