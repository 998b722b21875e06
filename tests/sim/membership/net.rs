//! Many membership machines in virtual time, over a network that loses, delays, duplicates and
//! cuts.
//!
//! Promises: one seed, one trace. What must hold at each step is checked after each event at the
//! node of that event, not only at the end. Datagrams stay unsealed, because sealing changes none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use kvs::model::{Member, NodeId, Timestamp};
use kvs::proto::membership::{
    DATAGRAM_BYTES_MAX, Membership, MembershipError, MembershipSettings, Output,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The default of `gossip.probe_period`.
pub const PERIOD: Duration = Duration::from_secs(1);
/// The wall clock at the start.
pub const EPOCH: u64 = 1_800_000_000_000_000;
/// The bytes that the seal adds to a datagram.
const SEAL_BYTES: usize = 45;
/// While other nodes are alive, the seeds are tried in each of this many probe periods, as gossip
/// does.
const SEEDS_SLOWLY: u32 = 30;

/// A node in one of its lives.
struct Node {
    me: Member,
    machine: Membership,
    /// Unique to this life.
    life: u64,
    started: Duration,
    seeds: Vec<u16>,
    ticks: u32,
    /// The earliest wake-up among the events.
    wake: Option<Duration>,
}

enum Event {
    Arrive { to: u16, bytes: Vec<u8> },
    Wake { port: u16, life: u64 },
    Seeds { port: u16, life: u64 },
}

/// Datagrams and their bytes, sealed, without the headers of IP and UDP.
#[derive(Clone, Copy, Default)]
pub struct Traffic {
    pub datagrams: u64,
    pub bytes: u64,
}

/// A cluster in one thread. The node at port `p` has the id `p` unless a test says otherwise.
pub struct Net {
    pub now: Duration,
    /// The share of datagrams that get lost.
    pub loss: f64,
    pub sent: Traffic,
    nodes: BTreeMap<u16, Node>,
    /// Events by time, then by number.
    events: BTreeMap<(Duration, u64), Event>,
    number: u64,
    /// Directed links that carry nothing.
    cut: BTreeSet<(u16, u16)>,
    /// The lives that must not end in the view of any of them.
    healthy: BTreeMap<NodeId, u64>,
    rng: StdRng,
    seed: u64,
    trace: blake3::Hasher,
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 20, 30, 40], port))
}

fn id(id: u16) -> NodeId {
    NodeId::from_u128(id.into())
}

/// A member with a name and addresses of realistic length.
pub fn member(of: u16, port: u16, started: Duration) -> Member {
    let at = |time: Duration| Timestamp::saturating(EPOCH).plus(time);
    Member {
        id: id(of),
        name: format!("edge-{of:03}.fra.example.net"),
        joined_at: at(Duration::ZERO),
        started_at: at(started),
        gossip: address(port),
        peer: address(port + 10_000),
        http: address(port + 20_000),
        software: "0.1.0".into(),
    }
}

impl Net {
    pub fn new(seed: u64, loss: f64) -> Self {
        Self {
            now: Duration::ZERO,
            loss,
            sent: Traffic::default(),
            nodes: BTreeMap::new(),
            events: BTreeMap::new(),
            number: 0,
            cut: BTreeSet::new(),
            healthy: BTreeMap::new(),
            rng: StdRng::seed_from_u64(seed),
            seed,
            trace: blake3::Hasher::new(),
        }
    }

    /// `count` nodes at the ports 1.., joined through the first three and settled.
    pub fn cluster(count: u16, seed: u64, loss: f64) -> Self {
        let mut net = Self::new(seed, loss);
        for port in 1..=count {
            net.start(port, port, &[1, 2, 3], &[]);
        }
        net.run_until(60, "all are members to all", Net::is_full);
        net.run(10);
        net.run_until(10, "all are still members to all", Net::is_full);
        net
    }

    /// Starts or restarts node `of` at `port`.
    pub fn start(&mut self, of: u16, port: u16, seeds: &[u16], known: &[Member]) {
        self.start_at(of, port, seeds, known, self.wall());
    }

    /// What a correct wall clock shows.
    pub fn wall(&self) -> u64 {
        EPOCH + u64::try_from(self.now.as_micros()).unwrap()
    }

    /// Starts node `of` at `port` with a wall clock that shows `wall`.
    pub fn start_at(&mut self, of: u16, port: u16, seeds: &[u16], known: &[Member], wall: u64) {
        let rng = StdRng::from_rng(&mut self.rng);
        let (me, settings) =
            (member(of, port, self.now), MembershipSettings { probe_period: PERIOD });
        let machine = Membership::new(me.clone(), wall, settings, known, rng).unwrap();
        self.number += 1;
        let life = self.number;
        let seeds = seeds.iter().copied().filter(|seed| *seed != port).collect();
        let node = Node { me, machine, life, started: self.now, seeds, ticks: 0, wake: None };
        self.nodes.insert(port, node);
        self.schedule(self.now, Event::Seeds { port, life });
        self.settle(port);
    }

    /// Kills the node at `port` without a word to the others.
    pub fn kill(&mut self, port: u16) {
        let node = self.nodes.remove(&port).unwrap();
        self.healthy.remove(&node.me.id);
    }

    /// The ports of the running nodes.
    pub fn ports(&self) -> Vec<u16> {
        self.nodes.keys().copied().collect()
    }

    pub fn machine(&self, port: u16) -> &Membership {
        &self.nodes[&port].machine
    }

    /// The incarnations of the running nodes, by port.
    pub fn incarnations(&self) -> Vec<u64> {
        self.nodes.values().map(|node| node.machine.incarnation()).collect()
    }

    /// Cuts all links between a node of `some` and a node outside of it.
    pub fn part(&mut self, some: &[u16]) {
        for port in self.ports().into_iter().filter(|port| !some.contains(port)) {
            for one in some {
                self.cut.extend([(port, *one), (*one, port)]);
            }
        }
    }

    /// Cuts the link from one node to another, in this direction only.
    pub fn cut(&mut self, from: u16, to: u16) {
        self.cut.insert((from, to));
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// From now on no running node may be declared down by another one, nor renew itself.
    pub fn all_must_stay(&mut self) {
        let life = |node: &Node| (node.me.id, node.machine.incarnation());
        self.healthy = self.nodes.values().map(life).collect();
        self.ports().into_iter().for_each(|port| self.audit(port));
    }

    fn schedule(&mut self, at: Duration, event: Event) {
        self.number += 1;
        self.events.insert((at, self.number), event);
    }

    /// Sends the outputs of the node at `port`, sets its wake-up, and checks its view.
    fn settle(&mut self, port: u16) {
        while let Some(Output::Send { to, bytes }) =
            self.nodes.get_mut(&port).unwrap().machine.poll_output()
        {
            assert!(bytes.len() <= DATAGRAM_BYTES_MAX);
            self.send(port, to.port(), bytes);
        }
        let node = self.nodes.get_mut(&port).unwrap();
        let (life, started) = (node.life, node.started);
        if let Some(due) = node.machine.next_timeout().map(|due| started + due)
            && node.wake.is_none_or(|wake| due < wake)
        {
            node.wake = Some(due);
            self.schedule(due, Event::Wake { port, life });
        }
        self.audit(port);
    }

    fn send(&mut self, from: u16, to: u16, bytes: Vec<u8>) {
        let trace = &mut self.trace;
        trace.update(&self.now.as_nanos().to_le_bytes());
        trace.update(&[from.to_le_bytes(), to.to_le_bytes()].concat());
        trace.update(&bytes);
        self.sent.datagrams += 1;
        self.sent.bytes += u64::try_from(bytes.len() + SEAL_BYTES).unwrap();
        if self.cut.contains(&(from, to)) {
            return;
        }
        let copies = if self.rng.random_ratio(1, 100) { 2 } else { 1 };
        for _ in 0..copies {
            // Most datagrams come quickly; a few are so late that a whole probe overtakes them.
            let micros = match self.rng.random_ratio(1, 50) {
                true => 200_000..800_000,
                false => 500..50_000,
            };
            let delay = Duration::from_micros(self.rng.random_range(micros));
            if !self.rng.random_bool(self.loss) {
                self.schedule(self.now + delay, Event::Arrive { to, bytes: bytes.clone() });
            }
        }
    }

    /// Checks what must hold for the node at `port` after each event.
    fn audit(&self, port: u16) {
        let Node { machine, me, .. } = &self.nodes[&port];
        let Some(life) = self.healthy.get(&me.id) else { return };
        assert_eq!(machine.incarnation(), *life, "the node at {port} renewed itself");
        let mut active = 0;
        for (member, state) in machine.heard() {
            if !state.is_up() {
                let healthy = self.healthy.contains_key(&member.id);
                assert!(!healthy, "{} is down to the node at {port}", member.name);
            } else {
                active += 1;
            }
        }
        assert!(active + 1 >= self.healthy.len(), "the node at {port} forgot a member");
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        let port = match &event {
            Event::Arrive { to, .. } => *to,
            Event::Wake { port, .. } | Event::Seeds { port, .. } => *port,
        };
        let Some(node) = self.nodes.get_mut(&port) else { return };
        let at = now.checked_sub(node.started).unwrap();
        match event {
            Event::Arrive { bytes, .. } => match node.machine.handle_datagram(at, &bytes) {
                // A copy that was sent in an earlier life of the same node.
                Ok(()) | Err(MembershipError::SameId(_) | MembershipError::Misdirected) => {}
                Err(error) => panic!("{error}"),
            },
            Event::Wake { life, .. } if life != node.life || node.wake != Some(now) => return,
            Event::Wake { .. } => node.wake = None,
            Event::Seeds { life, .. } if life != node.life => return,
            Event::Seeds { life, .. } => {
                if node.machine.is_alone() || node.ticks.is_multiple_of(SEEDS_SLOWLY) {
                    for seed in &node.seeds {
                        node.machine.announce(at, address(*seed));
                    }
                }
                node.ticks += 1;
                self.schedule(now + PERIOD, Event::Seeds { port, life });
            }
        }
        self.nodes.get_mut(&port).unwrap().machine.handle_timeout(at).unwrap();
        self.settle(port);
    }

    fn run_to(&mut self, end: Duration) {
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= end
        {
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.handle(event);
        }
        self.now = end;
    }

    pub fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.run_to(self.now + Duration::from_secs(1));
            self.nodes.values().for_each(|node| node.machine.check_invariants());
        }
    }

    /// Runs until `done` holds at a whole tenth of a second; returns how long that took.
    pub fn run_until(&mut self, seconds: u64, what: &str, done: fn(&Self) -> bool) -> Duration {
        let (start, limit) = (self.now, Duration::from_secs(seconds));
        while !done(self) {
            let took = self.now.checked_sub(start).unwrap();
            assert!(took < limit, "not in {seconds} s: {what}");
            self.run_to(self.now + Duration::from_millis(100));
        }
        self.now.checked_sub(start).unwrap()
    }

    /// Whether each running node holds exactly the running nodes for alive or suspect.
    pub fn is_full(&self) -> bool {
        let running: BTreeSet<NodeId> = self.nodes.values().map(|node| node.me.id).collect();
        self.nodes.keys().all(|port| self.active_at(*port) == running)
    }

    /// The members that the node at `port` holds for alive or suspect, itself included.
    pub fn active_at(&self, port: u16) -> BTreeSet<NodeId> {
        let Node { machine, me, .. } = &self.nodes[&port];
        let active = machine.heard().filter(|(_, state)| state.is_up());
        active.map(|(member, _)| member.id).chain([me.id]).collect()
    }

    /// The running nodes by id, each in its latest life.
    pub fn latest(&self) -> Vec<Member> {
        let latest = |node: &Node| (node.me.id, node.me.clone());
        self.nodes.values().map(latest).collect::<BTreeMap<_, _>>().into_values().collect()
    }

    /// A hash of all datagrams sent so far.
    pub fn trace(&self) -> blake3::Hash {
        self.trace.finalize()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, now) = (self.seed, self.now);
            eprintln!("seed {seed}, after {now:?}: set KVS_SIM_MEMBERS_FIRST={seed}");
        }
    }
}
