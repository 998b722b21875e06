//! The network between simulated nodes: datagrams with delay, loss, duplication and reordering;
//! connections that break; cuts, and nodes that stand still.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kvs::gossip::Datagrams;
use kvs::model::Member;
use kvs::peer::{Dialer, Incoming, PeerError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::plan::Noise;
use crate::streams::SimLink;

/// A connection that is silent for this long is given up, as `peer/tls.rs` sets it.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// The longest that an attempt to connect takes, as `peer/dial.rs` sets it.
const DIAL_MAX: Duration = Duration::from_secs(5);
/// How often a held-up transfer checks whether it can go on.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long it takes until a lost chunk is sent again, besides the delay.
const SENT_AGAIN: Duration = Duration::from_millis(50);

/// A direction between two gossip addresses.
pub type Way = (SocketAddr, SocketAddr);

struct Node {
    member: Member,
    datagrams: mpsc::Sender<(Vec<u8>, SocketAddr)>,
    streams: mpsc::Sender<Incoming>,
}

struct State {
    rng: StdRng,
    noise: Noise,
    /// Nodes by gossip address; their peer addresses have the next port.
    nodes: BTreeMap<SocketAddr, Node>,
    /// The cut directions, by the number of the cut. Cuts can overlap.
    cuts: BTreeMap<u64, BTreeSet<Way>>,
    paused: BTreeSet<SocketAddr>,
    /// Nodes that connections neither reach nor leave, while datagrams pass.
    blocked: BTreeSet<SocketAddr>,
    /// Open connections: both ends, and the token that breaks them.
    open: Vec<(SocketAddr, SocketAddr, CancellationToken)>,
    next_cut: u64,
    tally: Tally,
    trace: blake3::Hasher,
}

/// Counts what happened on the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub lost: u64,
    pub duplicated: u64,
    pub broken: u64,
}

/// Shared by all parts of one simulation.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

pub fn peer_of(gossip: SocketAddr) -> SocketAddr {
    SocketAddr::new(gossip.ip(), gossip.port() + 1)
}

fn gossip_of(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip(), peer.port() - 1)
}

impl Network {
    pub fn new(seed: u64, noise: Noise) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng: StdRng::seed_from_u64(seed),
            noise,
            nodes: BTreeMap::new(),
            cuts: BTreeMap::new(),
            paused: BTreeSet::new(),
            blocked: BTreeSet::new(),
            open: Vec::new(),
            next_cut: 0,
            tally: Tally::default(),
            trace: blake3::Hasher::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("one thread")
    }

    /// Connects a node; returns its socket and the streams that peers open to it.
    pub fn attach(&self, member: &Member) -> (Box<dyn Datagrams>, mpsc::Receiver<Incoming>) {
        let (datagrams, inbox) = mpsc::channel(1024);
        let (streams, incoming) = mpsc::channel(64);
        let own = member.gossip;
        let node = Node { member: member.clone(), datagrams, streams };
        self.state().nodes.insert(own, node);
        let inbox = tokio::sync::Mutex::new(inbox);
        (Box::new(Socket { network: self.clone(), own, inbox }), incoming)
    }

    /// Disconnects a node: its connections break.
    pub fn detach(&self, gossip: SocketAddr) {
        let mut state = self.state();
        state.nodes.remove(&gossip);
        state.paused.remove(&gossip);
        state.break_open(|a, b| a == gossip || b == gossip);
    }

    pub fn dialer(&self, me: Member) -> Arc<dyn Dialer> {
        Arc::new(SimDialer { network: self.clone(), me })
    }

    /// Cuts these directions until [`Self::uncut`] gets the returned number. Connections break at
    /// once or, without `at_once`, after the time that QUIC allows.
    pub fn cut(&self, ways: BTreeSet<Way>, at_once: bool) -> u64 {
        let mut state = self.state();
        let cut = state.next_cut;
        state.next_cut += 1;
        state.cuts.insert(cut, ways.clone());
        let network = self.clone();
        drop(state);
        let crosses = move |a, b| ways.contains(&(a, b)) || ways.contains(&(b, a));
        if at_once {
            self.state().break_open(crosses);
        } else {
            tokio::spawn(async move {
                sleep(IDLE_MAX).await;
                let mut state = network.state();
                if state.cuts.contains_key(&cut) {
                    state.break_open(crosses);
                }
            });
        }
        cut
    }

    pub fn uncut(&self, cut: u64) {
        self.state().cuts.remove(&cut);
    }

    /// Breaks all connections of a node, and lets no new one through until [`Self::unblock`].
    pub fn block(&self, gossip: SocketAddr) {
        let mut state = self.state();
        state.blocked.insert(gossip);
        state.break_open(|a, b| a == gossip || b == gossip);
    }

    pub fn unblock(&self, gossip: SocketAddr) {
        self.state().blocked.remove(&gossip);
    }

    /// Stops all traffic of a node until [`Self::resume`]. Nothing gets lost before QUIC gives up.
    pub fn pause(&self, gossip: SocketAddr) {
        self.state().paused.insert(gossip);
        let network = self.clone();
        tokio::spawn(async move {
            sleep(IDLE_MAX).await;
            let mut state = network.state();
            if state.paused.contains(&gossip) {
                state.break_open(|a, b| a == gossip || b == gossip);
            }
        });
    }

    pub fn resume(&self, gossip: SocketAddr) {
        self.state().paused.remove(&gossip);
    }

    pub fn is_paused(&self, gossip: SocketAddr) -> bool {
        self.state().paused.contains(&gossip)
    }

    /// Ends all faults.
    pub fn heal(&self) {
        let mut state = self.state();
        state.cuts.clear();
        state.paused.clear();
        state.blocked.clear();
        state.noise = Noise::quiet();
    }

    pub fn tally(&self) -> Tally {
        self.state().tally
    }

    /// Adds a text to the trace, which must be equal in all runs of a seed.
    pub fn note(&self, what: &str) {
        self.state().trace.update(what.as_bytes());
    }

    pub fn trace(&self) -> String {
        self.state().trace.finalize().to_hex().to_string()
    }

    /// Waits while a node stands still.
    async fn running(&self, gossip: SocketAddr) {
        while self.is_paused(gossip) {
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Sends one datagram: it arrives never, once or twice, after a delay.
    fn send(&self, (from, to): Way, bytes: &[u8]) {
        let delays = {
            let mut state = self.state();
            let delays = state.draw_datagram();
            state.trace.update(format!("{from}>{to} {} {delays:?};", bytes.len()).as_bytes());
            state.trace.update(bytes);
            delays
        };
        for delay in delays {
            let (network, bytes) = (self.clone(), bytes.to_vec());
            tokio::spawn(async move {
                network.running(from).await;
                sleep(delay).await;
                network.running(to).await;
                network.state().deliver((from, to), bytes);
            });
        }
    }

    /// Moves one chunk of a stream as QUIC does: a lost one is sent again until the connection is
    /// given up. Returns whether it arrived.
    pub async fn cross(&self, (from, to): Way, bytes: &[u8]) -> bool {
        let mut waited = Duration::ZERO;
        loop {
            self.running(from).await;
            let (wait, crosses) = {
                let mut state = self.state();
                if !state.nodes.contains_key(&to) || state.draw_break() {
                    return false;
                }
                let (wait, crosses) = state.draw_chunk((from, to));
                let note = format!("{from}>>{to} {} {wait:?} {crosses};", bytes.len());
                state.trace.update(note.as_bytes());
                state.trace.update(bytes);
                (wait, crosses)
            };
            sleep(wait).await;
            if crosses {
                self.running(to).await;
                return true;
            }
            waited += wait;
            if waited > IDLE_MAX {
                return false;
            }
        }
    }

    /// Registers an open connection.
    pub fn opened(&self, (a, b): Way) -> CancellationToken {
        let broken = CancellationToken::new();
        self.state().open.push((a, b, broken.clone()));
        broken
    }

    /// Passes a stream to the node that serves it.
    pub fn hand_over(&self, to: SocketAddr, incoming: Incoming) -> Result<(), PeerError> {
        let streams = self.state().nodes.get(&to).map(|node| node.streams.clone());
        let gone = || PeerError::Unreachable("the node is gone".to_owned());
        streams.ok_or_else(gone)?.try_send(incoming).map_err(|_| gone())
    }
}

impl State {
    fn break_open(&mut self, broken: impl Fn(SocketAddr, SocketAddr) -> bool) {
        let mut count = 0;
        self.open.retain(|(a, b, token)| {
            let breaks = !token.is_cancelled() && broken(*a, *b);
            if breaks {
                token.cancel();
                count += 1;
            }
            !token.is_cancelled()
        });
        self.tally.broken += count;
    }

    fn is_cut(&self, way: Way) -> bool {
        self.cuts.values().any(|ways| ways.contains(&way))
    }

    fn draw_delay(&mut self) -> Duration {
        Duration::from_millis(self.rng.random_range(0..=self.noise.delay_ms_max))
    }

    fn draw_datagram(&mut self) -> Vec<Duration> {
        if self.rng.random_bool(self.noise.loss) {
            self.tally.lost += 1;
            return Vec::new();
        }
        let twice = self.rng.random_bool(self.noise.duplicated);
        self.tally.duplicated += u64::from(twice);
        let delays = (0..=usize::from(twice)).map(|_| {
            let overtaken = self.rng.random_bool(self.noise.overtaken);
            self.draw_delay() * if overtaken { 10 } else { 1 }
        });
        delays.collect()
    }

    fn draw_break(&mut self) -> bool {
        let breaks = self.rng.random_bool(self.noise.broken);
        self.tally.broken += u64::from(breaks);
        breaks
    }

    /// How long a chunk waits, and whether it arrives then.
    fn draw_chunk(&mut self, way: Way) -> (Duration, bool) {
        let delay = self.draw_delay();
        let blocked = [way.0, way.1].iter().any(|end| self.blocked.contains(end));
        if blocked || self.is_cut(way) || self.rng.random_bool(self.noise.loss) {
            self.tally.lost += 1;
            return (delay + SENT_AGAIN, false);
        }
        (delay, true)
    }

    fn deliver(&mut self, way: Way, bytes: Vec<u8>) {
        let inbox = self.nodes.get(&way.1).map(|node| &node.datagrams);
        // A full inbox drops datagrams, as the buffer of a socket does.
        let arrived =
            !self.is_cut(way) && inbox.is_some_and(|i| i.try_send((bytes, way.0)).is_ok());
        self.tally.lost += u64::from(!arrived);
    }
}

struct Socket {
    network: Network,
    own: SocketAddr,
    inbox: tokio::sync::Mutex<mpsc::Receiver<(Vec<u8>, SocketAddr)>>,
}

impl Datagrams for Socket {
    fn send<'a>(&'a self, to: SocketAddr, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        self.network.send((self.own, to), bytes);
        std::future::ready(Ok(())).boxed()
    }

    fn receive<'a>(
        &'a self,
        buffer: &'a mut [u8],
    ) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        Box::pin(async move {
            match self.inbox.lock().await.recv().await {
                Some((bytes, from)) => {
                    let length = bytes.len().min(buffer.len());
                    buffer[..length].copy_from_slice(&bytes[..length]);
                    Ok((length, from))
                }
                None => std::future::pending().await,
            }
        })
    }
}

struct SimDialer {
    network: Network,
    me: Member,
}

impl Dialer for SimDialer {
    fn dial<'a>(
        &'a self,
        to: &'a Member,
    ) -> BoxFuture<'a, Result<Arc<dyn kvs::peer::Link>, PeerError>> {
        Box::pin(async move {
            let (own, target) = (self.me.gossip, gossip_of(to.peer));
            for way in [(own, target), (target, own)] {
                let crossing = self.network.cross(way, b"dial");
                if !tokio::time::timeout(DIAL_MAX, crossing).await.unwrap_or(false) {
                    return Err(PeerError::Unreachable("nobody answers".to_owned()));
                }
            }
            let there = self.network.state().nodes.get(&target).map(|node| node.member.clone());
            // The checks of the two hellos.
            if !there.is_some_and(|there| there.id == to.id && there.name == to.name) {
                return Err(PeerError::Refused("another node answers".to_owned()));
            }
            let broken = self.network.opened((own, target));
            let (network, me) = (self.network.clone(), self.me.clone());
            let link: Arc<dyn kvs::peer::Link> = Arc::new(SimLink { network, me, target, broken });
            Ok(link)
        })
    }
}
