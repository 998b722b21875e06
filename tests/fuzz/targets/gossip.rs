//! Membership: anything that a holder of the gossip key can send, in any order, while time passes.
//!
//! Three machines form a cluster over a network in memory. One of them receives datagrams that no
//! honest node sends: changed real ones, and well-formed lies about any member.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use kvs::model::{Member, MemberState, NodeId, Timestamp};
use kvs::proto::membership::{
    DATAGRAM_BYTES_MAX, MEMBERS_MAX, Membership, MembershipError, MembershipSettings, Output,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Serialize;

use super::script::{Pen, Script};

const NODES: usize = 3;
const STEPS_MAX: usize = 48;
/// The most datagrams under way; further ones get lost.
const QUEUE_MAX: usize = 64;
/// The most bytes that one datagram can make a node send. (It can tell three members that they are
/// down, answer, and announce itself.)
const ANSWERS_MAX: usize = 16;

// --- the bytes, as src/proto/membership/wire.rs knows them ---------------------------------------

#[derive(Clone, Serialize)]
struct Identity {
    member: Member,
    bump: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Serialize)]
enum Stage {
    Serving,
    Syncing,
    Leaving,
}

#[derive(Serialize)]
enum Message {
    Ping { probe: u8 },
    Ack { probe: u8 },
    PingReq { target: Identity, probe: u8 },
    IndirectPing { origin: Identity, probe: u8 },
    IndirectAck { target: Identity, probe: u8 },
    ForwardedAck { origin: Identity, probe: u8 },
    Announce,
    Feed,
    Gossip,
    TurnUndead { known: u64 },
}

#[derive(Serialize)]
struct Header {
    src: Identity,
    src_incarnation: u16,
    dst: Identity,
    message: Message,
}

#[derive(Serialize)]
struct Update {
    identity: Identity,
    incarnation: u16,
    state: MemberState,
}

fn encoded(value: &impl Serialize) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, bincode::config::standard()).expect("plain data")
}

fn datagram(header: &Header, updates: &[Update]) -> Vec<u8> {
    let mut bytes = [&[2], &*encoded(header)].concat();
    if !updates.is_empty() {
        bytes.extend(u16::try_from(updates.len()).expect("few").to_be_bytes());
        bytes.extend(updates.iter().flat_map(encoded));
    }
    bytes
}

// --- the cluster ---------------------------------------------------------------------------------

fn member(number: u16) -> Member {
    let at = |port| SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], port));
    Member {
        id: NodeId::from_u128(u128::from(number) + 1),
        name: format!("n{number}"),
        joined_at: Timestamp::saturating(u64::from(number)),
        started_at: Timestamp::saturating(7),
        gossip: at(1),
        peer: at(2),
        http: at(3),
        software: "0.1.0".to_owned(),
    }
}

struct World {
    nodes: Vec<Membership>,
    now: Duration,
    under_way: VecDeque<(usize, Vec<u8>)>,
    /// The datagrams sent to the attacked node.
    heard: Vec<Vec<u8>>,
    trace: u64,
}

impl World {
    fn new() -> Self {
        let settings = MembershipSettings { probe_period: Duration::from_secs(1) };
        let node = |n: u16| {
            let rng = StdRng::seed_from_u64(u64::from(n));
            Membership::new(member(n), 100, settings, &[], rng).expect("a sane member")
        };
        let nodes = (0..3).map(node).collect();
        let now = Duration::ZERO;
        let under_way = VecDeque::new();
        let mut world = Self { nodes, now, under_way, heard: Vec::new(), trace: 0 };
        for n in 1..NODES {
            world.nodes[n].announce(now, member(0).gossip);
            world.drain(n);
        }
        world
    }

    /// Takes the outputs of node `n`; returns their bytes.
    fn drain(&mut self, n: usize) -> usize {
        let mut sent = 0;
        while let Some(Output::Send { to, bytes }) = self.nodes[n].poll_output() {
            sent += 1;
            assert!(bytes.len() <= DATAGRAM_BYTES_MAX, "{} bytes", bytes.len());
            assert!(to.port() != 0 && !to.ip().is_unspecified(), "sent to {to}");
            for byte in to.to_string().bytes().chain(bytes.iter().copied()) {
                self.trace = self.trace.rotate_left(5) ^ u64::from(byte);
                self.trace = self.trace.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            }
            let known = (0..3).find(|n| member(*n).gossip == to);
            let Some(target) = known.map(usize::from) else { continue };
            if target == 0 && self.heard.len() < QUEUE_MAX {
                self.heard.push(bytes.clone());
            }
            if self.under_way.len() < QUEUE_MAX {
                self.under_way.push_back((target, bytes));
            }
        }
        sent
    }

    fn deliver(&mut self, to: usize, bytes: &[u8]) {
        let before = self.nodes[to].incarnation();
        match self.nodes[to].handle_datagram(self.now, bytes) {
            Err(error @ MembershipError::Stumbled) => panic!("{error}"),
            Err(MembershipError::Oversized) => assert!(bytes.len() > DATAGRAM_BYTES_MAX),
            Ok(()) | Err(_) => {}
        }
        assert!(self.nodes[to].incarnation() >= before, "an incarnation never falls");
        let sent = self.drain(to);
        assert!(sent <= ANSWERS_MAX, "{sent} datagrams for one");
    }

    fn deliver_all(&mut self) {
        for _ in 0..QUEUE_MAX {
            let Some((to, bytes)) = self.under_way.pop_front() else { break };
            self.deliver(to, &bytes);
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = (0..NODES).filter_map(|n| Some((self.nodes[n].next_timeout()?, n))).min();
            let Some((at, n)) = due.filter(|(at, _)| *at <= end) else { break };
            self.now = self.now.max(at);
            if let Err(error) = self.nodes[n].handle_timeout(self.now) {
                panic!("{error}");
            }
            assert!(self.nodes[n].next_timeout().is_some_and(|next| next > self.now));
            self.drain(n);
        }
        self.now = end;
    }

    fn check(&self) {
        for (n, node) in (0..).zip(&self.nodes) {
            node.check_invariants();
            let members = node.members();
            assert!(members.len() <= MEMBERS_MAX + 1, "{} members", members.len());
            assert!(members.is_sorted_by(|(a, _), (b, _)| a.id < b.id), "one member, one entry");
            let me = members.iter().find(|(m, _)| m.id == member(n).id);
            assert_eq!(me, Some(&(member(n), MemberState::Alive)), "a node knows itself");
            for (member, _) in &members {
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
                assert!((1..=63).contains(&member.name.len()) && member.name.chars().all(plain));
                assert!(member.software.chars().all(|c| c.is_ascii_graphic()));
                assert!(member.gossip.port() != 0);
            }
        }
    }

    /// A node that has left ignores everything.
    fn leave(&mut self) {
        self.nodes[0].leave(self.now);
        self.drain(0);
        let heard = std::mem::take(&mut self.heard);
        for bytes in &heard {
            assert_eq!(self.nodes[0].handle_datagram(self.now, bytes), Ok(()));
        }
        assert_eq!(self.nodes[0].next_timeout(), None);
        assert_eq!(self.nodes[0].poll_output(), None);
    }
}

// --- the attack ----------------------------------------------------------------------------------

fn who(script: &mut Script<'_>, world: &World) -> Identity {
    let number = script.byte();
    let mut member = member(u16::from(number % 16));
    let current = world.nodes.get(usize::from(number % 16)).map_or(100, Membership::incarnation);
    let bump = match script.byte() % 8 {
        0 => 0,
        1..=3 => current,
        4 => current.saturating_add(1),
        5 => u64::MAX,
        6 => script.number(8),
        _ => current.saturating_sub(1),
    };
    match script.byte() {
        1 => member.id = NodeId::from_u128(0),
        2 => member.name = script.text(),
        3 => member.software = script.text(),
        4 => member.gossip.set_port(script.number(2) as u16),
        5 => member.gossip = world_address(script),
        6 => member.started_at = Timestamp::saturating(script.number(8)),
        _ => {}
    }
    let stage = script.pick(&[Stage::Serving, Stage::Syncing, Stage::Leaving]);
    Identity { member, bump, stage }
}

fn world_address(script: &mut Script<'_>) -> SocketAddr {
    match script.byte() % 4 {
        0 => member(0).gossip,
        1 => member(1).gossip,
        2 => SocketAddr::from(([0, 0, 0, 0], 1)),
        _ => SocketAddr::from(([0_u16, 0, 0, 0, 0, 0, 0, 1], 1)),
    }
}

fn lie(script: &mut Script<'_>, world: &World) -> Vec<u8> {
    let (src, src_incarnation) = (who(script, world), script.byte().into());
    let dst = match script.byte() {
        0..200 => Identity {
            member: member(0),
            bump: world.nodes[0].incarnation(),
            stage: Stage::Serving,
        },
        _ => who(script, world),
    };
    let (kind, probe) = (script.byte() % 10, script.byte());
    let message = match kind {
        0 => Message::Ping { probe },
        1 => Message::Ack { probe },
        2 => Message::PingReq { target: who(script, world), probe },
        3 => Message::IndirectPing { origin: who(script, world), probe },
        4 => Message::IndirectAck { target: who(script, world), probe },
        5 => Message::ForwardedAck { origin: who(script, world), probe },
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        _ => Message::TurnUndead { known: script.number(8) },
    };
    let states = [MemberState::Alive, MemberState::Suspect, MemberState::Down];
    let updates: Vec<Update> = (0..script.byte() % 6)
        .map(|_| Update {
            identity: who(script, world),
            incarnation: script.number(2) as u16,
            state: script.pick(&states),
        })
        .collect();
    datagram(&Header { src, src_incarnation, dst, message }, &updates)
}

/// News of many strangers at once.
fn crowd(script: &mut Script<'_>, world: &mut World) {
    let (first, packets) = (16 + script.number(2) % 40_000, script.byte() % 64);
    for packet in 0..u64::from(packets) {
        let stranger = |n: u64| {
            let number = u16::try_from(first + packet * 8 + n).expect("below 2^16");
            Identity { member: member(number), bump: 1, stage: Stage::Serving }
        };
        let update =
            |n| Update { identity: stranger(n), incarnation: 0, state: MemberState::Alive };
        let header = Header {
            src: Identity {
                member: member(1),
                bump: world.nodes[1].incarnation(),
                stage: Stage::Serving,
            },
            src_incarnation: 0,
            dst: Identity {
                member: member(0),
                bump: world.nodes[0].incarnation(),
                stage: Stage::Serving,
            },
            message: Message::Gossip,
        };
        let updates: Vec<Update> = (0..8).map(update).collect();
        world.deliver(0, &datagram(&header, &updates));
    }
}

fn changed(script: &mut Script<'_>, world: &World) -> Vec<u8> {
    let Some(last) = world.heard.len().checked_sub(1) else { return Vec::new() };
    let mut bytes = world.heard[script.below(last + 1)].clone();
    for _ in 0..script.byte() % 4 {
        let at = script.below(bytes.len().max(1));
        match script.byte() % 4 {
            0 => bytes.truncate(at),
            1 => bytes.extend_from_slice(script.bytes()),
            _ => {
                let by = script.byte();
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= by;
                }
            }
        }
    }
    bytes
}

fn play(data: &[u8]) -> u64 {
    let (mut script, mut world) = (Script::new(data), World::new());
    for _ in 0..STEPS_MAX {
        if script.is_over() {
            break;
        }
        match script.byte() % 8 {
            0 => world.pass(Duration::from_millis(16 * u64::from(script.byte()))),
            1 => world.deliver_all(),
            2 => world.under_way.clear(),
            3 => {
                let bytes = changed(&mut script, &world);
                world.deliver(0, &bytes);
            }
            4 => {
                let bytes = script.bytes();
                world.deliver(0, bytes);
            }
            5 if script.byte() >= 240 => crowd(&mut script, &mut world),
            _ => {
                let bytes = lie(&mut script, &world);
                world.deliver(0, &bytes);
            }
        }
        world.check();
    }
    world.leave();
    world.trace
}

pub fn run(data: &[u8]) {
    let trace = play(data);
    if data.first().is_some_and(|first| first % 8 == 1) {
        assert_eq!(play(data), trace, "the same input gives the same outputs");
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    // Time passes and all datagrams arrive, so that the three know each other.
    let met = || (0..6).fold(Pen::default(), |pen, _| pen.byte(1).byte(0).byte(20));
    let from_1 = |pen: Pen| pen.byte(6).byte(1).byte(1).byte(0).byte(0).byte(0);
    let after = |pen: Pen| pen.byte(1).byte(0).byte(250).byte(1).done();
    let kind = |kind| after(from_1(met()).byte(kind).byte(3).byte(0));
    let about = |kind| after(from_1(met()).byte(kind).byte(3).byte(2).byte(1).byte(0).byte(0));
    let news = |bump: u8, state| {
        let update = from_1(met()).byte(8).byte(0).byte(1).byte(0).byte(bump).byte(0);
        after(update.number(2, 1).byte(state))
    };
    let mut seeds: Vec<_> = [0, 1, 6, 7, 8].map(kind).into();
    seeds.extend([2, 3, 4, 5].map(about));
    seeds.extend([news(1, 1), news(1, 2), news(4, 2), news(5, 0)]);
    seeds.push(after(from_1(met()).byte(9).byte(0).number(8, 5000).byte(0)));
    // More strangers than a node accepts.
    let crowds = (0..4).map(|n| 500 * n);
    let crowds = crowds.fold(met(), |pen, first| pen.byte(5).byte(255).number(2, first).byte(60));
    seeds.push(after(crowds));
    seeds.push(after(met().byte(3).byte(1).byte(2).byte(40).byte(2).byte(1)));
    seeds.push(met().byte(4).bytes(b"\x01junk").done());
    seeds
}
