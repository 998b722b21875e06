//! Who is alive: SWIM with suspicion (foca), as a machine without input and output.
//!
//! Feed it datagrams and the time, then drain [`Membership::poll_output`] to `None` and come back
//! by [`Membership::next_timeout`]. Promises: the same inputs and seed give the same outputs; any
//! bytes give an error and no panic; a member shows once, under its id. Says whom to talk to, not
//! who counts: the durable members are not decided here. Must not know sockets, keys, wall time.
//!
//! foca's address of a node is the node's *id*, and a greater `bump` wins among identities of one
//! id. So a node that restarts, renews itself or moves to another address replaces its former self
//! at once and leaves nothing behind, while a new node at an old address is another member, and the
//! old one is found down. Where only an address is known, an announcement is addressed to whoever
//! listens there, which also reaches nodes that advertise another address than the one in `seeds`.

mod codec;
mod effects;
mod error;
mod outgoing;
mod reach;
mod settings;
mod timers;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::{Foca, NoCustomBroadcast};
use rand::rngs::StdRng;

use self::codec::{Codec, from_foca};
use self::effects::{Effects, Event};
pub use self::error::MembershipError;
pub use self::settings::Settings;
use self::settings::foca_config;
pub use self::wire::{DATAGRAM_BYTES_MAX, WireError};
use self::wire::{Datagram, Identity, Message, Update};
use crate::model::{Member, MemberState, NodeId};

/// The most members that are kept, down ones included. Far more than a full mesh serves well.
pub const MEMBERS_MAX: usize = 1024;

/// How often others may outrun this node's bump before another process with its id is the only
/// explanation. A clock that was set back before a restart explains one.
const OVERTAKEN_MAX: u32 = 3;

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A datagram of at most [`DATAGRAM_BYTES_MAX`] bytes, to be sealed and sent. May be lost.
    Send {
        /// To where.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(Self { bump: self.bump.saturating_add(1), ..self.clone() })
    }

    fn addr(&self) -> NodeId {
        self.member.id
    }

    /// The rest decides between two processes that started in one microsecond, everywhere alike.
    fn win_addr_conflict(&self, other: &Self) -> bool {
        let rank = |identity: &Self| {
            let m = &identity.member;
            (identity.bump, m.gossip, m.peer, m.http, m.joined_at)
        };
        (rank(self), &self.member.name, &self.member.software)
            > (rank(other), &other.member.name, &other.member.software)
    }
}

/// The machine.
pub struct Membership {
    foca: Foca<Identity, Codec, StdRng, NoCustomBroadcast>,
    config: foca::Config,
    effects: Effects,
    outputs: VecDeque<Output>,
    probe_period: Duration,
    /// Where the round through unheard members stands.
    reached: Option<NodeId>,
    /// The last member that was asked for others.
    asked: Option<NodeId>,
    /// Probe periods since the start.
    periods: u64,
    /// How many others were active a probe period ago, and when that last became more.
    active: usize,
    learned: u64,
    /// How often somebody knew this id under a greater bump.
    overtaken: u32,
    left: bool,
}

impl Membership {
    /// A node that knows `known` from earlier and has heard of nobody yet. `incarnation` should be
    /// greater than in its earlier lives (the wall clock in microseconds serves); where it is not,
    /// the others tell and it goes above.
    ///
    /// # Errors
    /// [`MembershipError::Malformed`] when the others would refuse `me`.
    pub fn new(
        me: Member,
        incarnation: u64,
        settings: Settings,
        known: &[Member],
        rng: StdRng,
    ) -> Result<Self, MembershipError> {
        let identity = Identity { member: me, bump: incarnation };
        identity.check()?;
        let config = foca_config(settings.probe_period);
        let mut effects = Effects::new();
        effects.timers.set(Duration::ZERO, Event::Reach);
        let reachable = |m: &Member| Identity { member: m.clone(), bump: 0 }.check().is_ok();
        let others = known.iter().filter(|m| m.id != identity.member.id && reachable(m));
        for member in others {
            effects.meet(member);
        }
        Ok(Self {
            foca: Foca::new(identity, config.clone(), rng, Codec),
            config,
            effects,
            outputs: VecDeque::new(),
            probe_period: settings.probe_period,
            reached: None,
            asked: None,
            periods: 0,
            active: 0,
            learned: 0,
            overtaken: 0,
            left: false,
        })
    }

    /// Takes in one opened datagram.
    ///
    /// # Errors
    /// See [`MembershipError`]; the datagram counts as dropped.
    pub fn handle_datagram(&mut self, now: Duration, bytes: &[u8]) -> Result<(), MembershipError> {
        if self.left {
            // news of this node's own end would only wake it up again
            return Ok(());
        }
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return Err(MembershipError::Oversized);
        }
        let Datagram { mut header, updates } = wire::decode(bytes)?;
        let me = self.foca.identity();
        if header.src == *me {
            // a seed turned out to be this node
            return Ok(());
        }
        if header.src.member.id == me.member.id {
            return Err(MembershipError::SameId(header.src.member.gossip));
        }
        self.check_room(&header.src, &updates)?;
        self.effects.now = now;
        let result = match header.message {
            Message::Announce if header.dst.is_whoever() => {
                header.dst = me.clone();
                let mut bytes = Vec::new();
                wire::encode_header(&header, &mut bytes)?;
                self.foca.handle_data(&bytes, &mut self.effects).map_err(Into::into)
            }
            Message::TurnUndead { known } if header.dst == *me => {
                self.handle_turn_undead(known, header.src.member.gossip, bytes)
            }
            _ => self.foca.handle_data(bytes, &mut self.effects).map_err(Into::into),
        };
        self.flush();
        result
    }

    /// Somebody holds this node for down, or knows it under the greater bump `known`.
    fn handle_turn_undead(
        &mut self,
        known: u64,
        from: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), MembershipError> {
        let me = self.foca.identity();
        if known <= me.bump {
            return Ok(self.foca.handle_data(bytes, &mut self.effects)?);
        }
        let renewed = Identity { bump: known.saturating_add(1), ..me.clone() };
        self.foca.change_identity(renewed, &mut self.effects)?;
        self.effects.connected = false;
        self.foca.announce(Identity::whoever(from), &mut self.effects)?;
        self.overtaken = self.overtaken.saturating_add(1);
        if self.overtaken > OVERTAKEN_MAX {
            return Err(MembershipError::SameId(from));
        }
        Ok(())
    }

    fn check_room(&self, src: &Identity, updates: &[Update]) -> Result<(), MembershipError> {
        let held = self.foca.iter_membership_state();
        if held.len() + updates.len() < MEMBERS_MAX {
            return Ok(());
        }
        let held: BTreeSet<NodeId> = held.map(|m| m.id().member.id).collect();
        let known = |who: &Identity| held.contains(&who.member.id);
        if known(src) && updates.iter().all(|update| known(&update.identity)) {
            return Ok(());
        }
        Err(MembershipError::TooManyMembers)
    }

    /// Does what is due by `now`.
    ///
    /// # Errors
    /// [`MembershipError::Stumbled`], a bug; the rest that is due was done.
    pub fn handle_timeout(&mut self, now: Duration) -> Result<(), MembershipError> {
        let mut result = Ok(());
        self.effects.now = now;
        while !self.left
            && let Some(event) = self.effects.timers.pop_due(now)
        {
            match event {
                Event::Foca(timer) => {
                    if let Err(error) = self.foca.handle_timer(timer, &mut self.effects) {
                        result = Err(error.into());
                    }
                }
                Event::Reach => self.reach(),
            }
            self.flush();
        }
        result
    }

    /// Asks whoever listens at `to` for the members it knows.
    pub fn announce(&mut self, now: Duration, to: SocketAddr) {
        if self.left {
            return;
        }
        self.effects.now = now;
        // an announcement holds two identities and always fits
        let _ = self.foca.announce(Identity::whoever(to), &mut self.effects);
        self.flush();
    }

    /// Tells every alive member that this node goes. Afterwards the machine does nothing more.
    pub fn leave(&mut self, now: Duration) {
        if self.left {
            return;
        }
        self.effects.now = now;
        let mut config = self.config.clone();
        config.num_indirect_probes = NonZeroUsize::MAX;
        config.max_transmissions = NonZeroU8::MAX;
        // neither can fail: those two may change, and an identity fits
        let _ = self.foca.set_config(config);
        let _ = self.foca.leave_cluster(&mut self.effects);
        self.left = true;
        self.flush();
    }

    /// What is to be done next; `None` when nothing is for now.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        if self.left { None } else { self.effects.timers.next_due() }
    }

    /// This node's incarnation: the one it was made with, greater when it had to renew itself.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.foca.identity().bump
    }

    /// Whether any other member is alive or suspect.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.foca.num_members() == 0
    }

    /// All members ever met, by id, this node included.
    #[must_use]
    pub fn members(&self) -> Vec<(Member, MemberState)> {
        let known = self.effects.known.iter();
        let mut members: BTreeMap<_, _> =
            known.map(|(id, member)| (*id, (member.clone(), MemberState::Down))).collect();
        members.extend(self.heard().map(|(member, state)| (member.id, (member.clone(), state))));
        let me = self.foca.identity().member.clone();
        let state = if self.left { MemberState::Down } else { MemberState::Alive };
        members.insert(me.id, (me, state));
        members.into_values().collect()
    }

    /// The other members that were heard of since the start, in no order and without a copy.
    pub fn heard(&self) -> impl Iterator<Item = (&Member, MemberState)> {
        // a former life of this node may be among them
        let me = self.foca.identity().member.id;
        let held = self.foca.iter_membership_state();
        held.map(|held| (&held.id().member, from_foca(held.state())))
            .filter(move |(member, _)| member.id != me)
    }

    /// Turns what foca wants sent into outputs.
    fn flush(&mut self) {
        if !self.effects.connected && !self.is_alone() && !self.left {
            // after a renewal foca would not probe before it hears from somebody
            let _ = self.foca.apply_many(std::iter::empty(), false, &mut self.effects);
        }
        while let Some((to, bytes)) = self.effects.sends.pop_front() {
            if let Some(bytes) = self.checked(&to, bytes) {
                self.outputs.push_back(Output::Send { to: to.member.gossip, bytes });
            }
        }
    }
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
