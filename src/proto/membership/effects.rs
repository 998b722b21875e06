//! What a call into foca brings about, gathered until the call is over.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use foca::{Notification, Runtime};

use super::MEMBERS_MAX;
use super::timers::Timers;
use super::wire::Identity;
use crate::model::{Member, NodeId};

/// What is due at some time. foca's timers go first, in foca's order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Foca(foca::Timer<Identity>),
    /// Announce to members that are not heard of.
    Reach,
}

/// What a call into foca brings about.
pub(super) struct Effects {
    pub(super) now: Duration,
    pub(super) sends: VecDeque<(Identity, Vec<u8>)>,
    pub(super) timers: Timers<Event>,
    /// Whoever was met, as it was last known.
    pub(super) known: BTreeMap<NodeId, Member>,
    /// Whether foca probes.
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

    pub(super) fn meet(&mut self, member: &Member) {
        if self.known.len() < MEMBERS_MAX || self.known.contains_key(&member.id) {
            self.known.insert(member.id, member.clone());
        }
    }
}

impl Runtime<Identity> for Effects {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
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

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.sends.push_back((to, data.to_vec()));
    }

    fn submit_after(&mut self, event: foca::Timer<Identity>, after: Duration) {
        self.timers.set(self.now.saturating_add(after), Event::Foca(event));
    }
}
