//! The effects of a call into foca, collected until the call returns: datagrams, timers, and
//! members that came or went. Must not act on them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use foca::{Notification, Runtime};

use super::MEMBERS_MAX;
use super::timers::Timers;
use super::wire::MemberIdentity;
use crate::model::{Member, NodeId};

/// What a timer fires. foca's timers come first among those due at one instant, in foca's order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Foca(foca::Timer<MemberIdentity>),
    /// [`Membership::reach`](super::Membership): look for members that foca does not look for.
    Reach,
}

/// The effects of calls into foca, and what is known from them.
pub(super) struct Effects {
    /// The time of the current call, from which foca's timers run.
    pub(super) now: Duration,
    /// Datagrams that foca wants sent, in order.
    pub(super) sends: VecDeque<(MemberIdentity, Vec<u8>)>,
    pub(super) timers: Timers<Event>,
    /// All members ever met except this node, as last seen; at most [`MEMBERS_MAX`].
    pub(super) known: BTreeMap<NodeId, Member>,
    /// Whether foca probes others. It stops when it has nobody to probe, or renews itself.
    pub(super) connected: bool,
}

impl Effects {
    pub(super) fn new() -> Self {
        Self {
            now: Duration::ZERO,
            sends: VecDeque::new(),
            timers: Timers::new(),
            known: BTreeMap::new(),
            connected: false,
        }
    }

    /// Remembers a member in its latest form, unless [`MEMBERS_MAX`] others are known.
    pub(super) fn meet(&mut self, member: &Member) {
        if self.known.len() < MEMBERS_MAX || self.known.contains_key(&member.id) {
            self.known.insert(member.id, member.clone());
        }
    }
}

impl Runtime<MemberIdentity> for Effects {
    fn notify(&mut self, notification: Notification<'_, MemberIdentity>) {
        match notification {
            Notification::MemberUp(who)
            | Notification::MemberDown(who)
            | Notification::Rename(_, who) => self.meet(&who.member),
            Notification::Active => self.connected = true,
            Notification::Idle | Notification::Defunct | Notification::Rejoin(_) => {
                self.connected = false;
            }
        }
    }

    fn send_to(&mut self, to: MemberIdentity, data: &[u8]) {
        self.sends.push_back((to, data.to_vec()));
    }

    fn submit_after(&mut self, event: foca::Timer<MemberIdentity>, after: Duration) {
        self.timers.set(self.now.saturating_add(after), Event::Foca(event));
    }
}
