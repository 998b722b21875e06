//! Who is alive: SWIM with suspicion (foca), as a machine without input and output.
//!
//! Promises: the same inputs and seed give the same outputs; any bytes give an error and no panic;
//! each member shows once, under its id. Tells which nodes can be talked to, not which nodes belong
//! to the cluster for good. Must not know sockets, keys nor the wall clock.
//!
//! To foca the address of a node is its *id*, and among identities of one id the greater `bump`
//! wins. So a node that restarts, renews itself or moves to another address replaces its earlier
//! identity at once and leaves nothing behind; a new node at an old address is another member, and
//! the old one is found down. Where only an address is known, an announcement goes to any node that
//! listens there, which also reaches nodes that advertise another address than the one in `seeds`.

mod codec;
mod effects;
mod error;
mod identity;
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
use self::settings::foca_config;
pub use self::settings::{MEMBERS_MAX, MembershipSettings};
pub use self::wire::{DATAGRAM_BYTES_MAX, DatagramError};
use self::wire::{Datagram, MemberIdentity, Message, Stage, Update};
use crate::model::{Member, MemberState, NodeId};

/// How often others may know this id under a greater bump before another process with the id is the
/// only explanation. A clock set back before a restart explains one time.
const OVERTAKEN_MAX: u32 = 3;

/// An action for the caller of [`Membership::poll_output`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Seal and send a datagram. It may get lost.
    Send {
        /// The gossip address of the receiver.
        to: SocketAddr,
        /// At most [`DATAGRAM_BYTES_MAX`] bytes.
        bytes: Vec<u8>,
    },
}

/// A node's view of the members of its cluster.
///
/// Methods are of three kinds:
/// - inputs, which take `now`: [`Self::handle_datagram`], [`Self::handle_timeout`],
///   [`Self::announce`], [`Self::set_syncing`], [`Self::leave`];
/// - polls: [`Self::poll_output`] and [`Self::next_timeout`];
/// - views, which change nothing: [`Self::members`], [`Self::heard`], [`Self::syncing`],
///   [`Self::is_alone`], [`Self::incarnation`].
///
/// After each input, drain [`Self::poll_output`] to `None`, then ask [`Self::next_timeout`] anew
/// and call [`Self::handle_timeout`] at that time; later is allowed, and only slows the machine
/// down. An input that gives an error can still have outputs.
///
/// `now` is the time since the machine was made. It never goes back; with a wall clock instead of a
/// monotone one, timers fire early or late. The machine is done after [`Self::leave`]: drain it
/// once more and drop it, for it ignores all further inputs and has no timeout.
pub struct Membership {
    foca: Foca<MemberIdentity, Codec, StdRng, NoCustomBroadcast>,
    config: foca::Config,
    effects: Effects,
    outputs: VecDeque<Output>,
    probe_period: Duration,
    /// The last member that the round through unheard members reached.
    reached: Option<NodeId>,
    /// The last member that this node asked for others.
    asked: Option<NodeId>,
    /// Probe periods since the start.
    periods: u64,
    /// How many others were active a probe period ago.
    active: usize,
    /// The period in which `active` last rose; at most `periods`.
    learned: u64,
    /// How often another node knew this id under a greater bump.
    overtaken: u32,
    /// Set by [`Self::leave`].
    left: bool,
}

impl Membership {
    /// A node that knows `known` from earlier lives and has heard of nobody yet. It ignores those
    /// of `known` that other nodes would refuse. `incarnation` should be greater than in its
    /// earlier lives, as the wall clock in microseconds is; if it is not, the other nodes report
    /// theirs and this node goes above it.
    ///
    /// # Errors
    /// [`MembershipError::Malformed`] when other nodes would refuse `me`.
    pub fn new(
        me: Member,
        incarnation: u64,
        settings: MembershipSettings,
        known: &[Member],
        rng: StdRng,
    ) -> Result<Self, MembershipError> {
        let identity = MemberIdentity { member: me, bump: incarnation, stage: Stage::Serving };
        identity.check()?;
        let config = foca_config(settings.probe_period);
        let mut effects = Effects::new();
        effects.timers.set(Duration::ZERO, Event::Reach);
        let reachable = |m: &Member| {
            MemberIdentity { member: m.clone(), bump: 0, stage: Stage::Serving }.check().is_ok()
        };
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

    /// Handles a datagram after its seal was opened.
    ///
    /// # Errors
    /// See [`MembershipError`]; count the datagram as dropped.
    pub fn handle_datagram(&mut self, now: Duration, bytes: &[u8]) -> Result<(), MembershipError> {
        if self.left {
            // The news that this node left would only make it renew itself.
            return Ok(());
        }
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return Err(MembershipError::Oversized);
        }
        let Datagram { mut header, updates } = wire::decode(bytes)?;
        let me = self.foca.identity();
        if header.src == *me {
            // A seed's address turned out to be that of this node.
            return Ok(());
        }
        if header.src.member.id == me.member.id {
            return Err(MembershipError::SameId(header.src.member.gossip));
        }
        self.check_room(&header.src, &updates)?;
        self.effects.now = now;
        let result = match header.message {
            Message::Announce if header.dst.is_anyone() => {
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

    /// The node at `from` holds this one for down, or knows it under the greater bump `known`.
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
        let renewed = MemberIdentity { bump: known.saturating_add(1), ..me.clone() };
        self.foca.change_identity(renewed, &mut self.effects)?;
        self.effects.connected = false;
        self.foca.announce(MemberIdentity::anyone_at(from), &mut self.effects)?;
        self.overtaken = self.overtaken.saturating_add(1);
        if self.overtaken > OVERTAKEN_MAX {
            return Err(MembershipError::SameId(from));
        }
        Ok(())
    }

    /// Refuses news of unknown members when there is no room for them.
    fn check_room(&self, src: &MemberIdentity, updates: &[Update]) -> Result<(), MembershipError> {
        let held = self.foca.iter_membership_state();
        if held.len() + updates.len() < MEMBERS_MAX {
            return Ok(());
        }
        let held: BTreeSet<NodeId> = held.map(|m| m.id().member.id).collect();
        let known = |who: &MemberIdentity| held.contains(&who.member.id);
        if known(src) && updates.iter().all(|update| known(&update.identity)) {
            return Ok(());
        }
        Err(MembershipError::TooManyMembers)
    }

    /// Handles all timers that are due by `now`.
    ///
    /// # Errors
    /// [`MembershipError::Stumbled`], a bug; the other timers were handled all the same.
    pub fn handle_timeout(&mut self, now: Duration) -> Result<(), MembershipError> {
        let (mut result, periods) = (Ok(()), self.periods);
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
        if cfg!(debug_assertions) && self.periods > periods {
            // For tests and the simulator, which cannot reach this machine inside of a node: once
            // in a probe period, because it costs too much after each input.
            self.check_invariants();
        }
        result
    }

    /// Asks the node that listens at `to`, if any, for the members it knows.
    pub fn announce(&mut self, now: Duration, to: SocketAddr) {
        if self.left {
            return;
        }
        self.effects.now = now;
        // Cannot fail: an announcement holds two identities, which fit into a datagram.
        let _ = self.foca.announce(MemberIdentity::anyone_at(to), &mut self.effects);
        self.flush();
    }

    /// Tells the others whether this node waits for its first data. A new machine does not. Each
    /// change gives the node a new identity, with a greater incarnation.
    pub fn set_syncing(&mut self, now: Duration, syncing: bool) {
        let stage = if syncing { Stage::Syncing } else { Stage::Serving };
        if self.left || self.foca.identity().stage == stage {
            return;
        }
        self.effects.now = now;
        self.enter(stage);
        assert_eq!(self.foca.identity().stage, stage, "others hear the stage");
        self.flush();
    }

    fn enter(&mut self, stage: Stage) {
        let me = self.foca.identity();
        let next = MemberIdentity { stage, bump: me.bump.saturating_add(1), ..me.clone() };
        // Cannot fail: the datagrams hold one more identity, which fits.
        let _ = self.foca.change_identity(next, &mut self.effects);
        self.effects.connected = false;
    }

    /// Sends all alive members the news that this node leaves. The machine then ignores all inputs.
    pub fn leave(&mut self, now: Duration) {
        if self.left {
            return;
        }
        self.effects.now = now;
        let mut config = self.config.clone();
        config.num_indirect_probes = NonZeroUsize::MAX;
        config.max_transmissions = NonZeroU8::MAX;
        // Neither can fail: foca lets these two settings change, and an identity fits.
        let _ = self.foca.set_config(config);
        self.enter(Stage::Leaving);
        let _ = self.foca.leave_cluster(&mut self.effects);
        self.left = true;
        self.flush();
    }

    /// The next output; `None` when there is none until the next input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Self::handle_timeout`]; each input can change it. `None` after
    /// [`Self::leave`].
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        if self.left { None } else { self.effects.timers.next_due() }
    }

    /// This node's incarnation: the one given to [`Self::new`], or a greater one after the node had
    /// to renew itself.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.foca.identity().bump
    }

    /// Whether any other member is alive or suspect.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.foca.num_members() == 0
    }

    /// All members ever met, this node included, in the order of their ids. One that was not heard
    /// of since the start shows as down.
    #[must_use]
    pub fn members(&self) -> Vec<(Member, MemberState)> {
        let known = self.effects.known.iter();
        let mut members: BTreeMap<_, _> =
            known.map(|(id, member)| (*id, (member.clone(), MemberState::Down))).collect();
        members.extend(self.heard().map(|(member, state)| (member.id, (member.clone(), state))));
        let me = self.foca.identity().member.clone();
        let state = if self.left { MemberState::Left } else { MemberState::Alive };
        members.insert(me.id, (me, state));
        members.into_values().collect()
    }

    /// The other members that were heard of since the start, in no order.
    pub fn heard(&self) -> impl Iterator<Item = (&Member, MemberState)> {
        // An earlier life of this node can be among them.
        let me = self.foca.identity().member.id;
        let held = self.foca.iter_membership_state();
        held.map(|held| {
            let left = held.id().stage == Stage::Leaving;
            let state = if left { MemberState::Left } else { from_foca(held.state()) };
            (&held.id().member, state)
        })
        .filter(move |(member, _)| member.id != me)
    }

    /// The other members that are alive or suspect and say that they wait for their first data.
    #[must_use]
    pub fn syncing(&self) -> BTreeSet<NodeId> {
        let me = self.foca.identity().member.id;
        let active = self.foca.iter_members().map(foca::Member::id);
        let syncing = active.filter(|identity| identity.stage == Stage::Syncing);
        syncing.map(|identity| identity.member.id).filter(|id| *id != me).collect()
    }

    /// Turns the datagrams that foca wants sent into outputs.
    fn flush(&mut self) {
        if !self.effects.connected && !self.is_alone() && !self.left {
            // After a renewal foca does not probe until it hears from another node.
            let _ = self.foca.apply_many(std::iter::empty(), false, &mut self.effects);
        }
        while let Some((to, bytes)) = self.effects.sends.pop_front() {
            if let Some(bytes) = self.checked(&to, bytes) {
                self.outputs.push_back(Output::Send { to: to.member.gossip, bytes });
            }
        }
    }

    /// Checks what holds between any two calls, in time linear in the members and timers.
    ///
    /// # Panics
    /// When an invariant does not hold: a bug.
    pub fn check_invariants(&self) {
        let me = self.foca.identity();
        assert_eq!(me.check(), Ok(()), "others refuse this node");
        let mut heard = BTreeSet::new();
        for member in self.foca.iter_membership_state() {
            let identity = member.id();
            assert_eq!(identity.check(), Ok(()), "an unchecked member came in");
            assert!(heard.insert(identity.member.id), "one id shows twice: {identity:?}");
        }
        assert!(heard.len() <= MEMBERS_MAX, "{} members came in", heard.len());
        assert!(self.effects.known.len() <= MEMBERS_MAX, "more members are known than allowed");
        let keyed = self.effects.known.iter().all(|(id, member)| *id == member.id);
        assert!(keyed, "a member is known under the id of another");
        assert!(self.learned <= self.periods, "a member showed up in a period to come");
        let reach = self.effects.timers.events().filter(|event| **event == Event::Reach);
        assert!(self.left || reach.count() == 1, "the periodic round runs once in a period");
        assert!(self.effects.sends.is_empty(), "a datagram was not flushed");
        let fits = |Output::Send { bytes, .. }: &Output| bytes.len() <= DATAGRAM_BYTES_MAX;
        assert!(self.outputs.iter().all(fits), "an output is too large for a datagram");
    }
}

#[cfg(test)]
mod tests;
