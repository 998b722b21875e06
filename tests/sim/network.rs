//! The network between simulated nodes: datagrams and streams with delay, loss and cuts.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kvs::gossip::Datagrams;
use kvs::model::Member;
use kvs::peer::{Counters, Dialer, Incoming, Link, PeerError, Stream, StreamKind};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Bytes that one direction of a stream holds under way.
const PIPE_BYTES: usize = 64 << 10;

/// The faults of one seed.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The part of datagrams that is lost; streams break at a tenth of it for each chunk.
    pub loss: f64,
    /// The longest delay of a datagram or a chunk.
    pub delay_ms_max: u64,
}

struct Node {
    datagrams: mpsc::Sender<(Vec<u8>, SocketAddr)>,
    streams: mpsc::Sender<Incoming>,
}

struct State {
    rng: StdRng,
    faults: Faults,
    /// By gossip address; peer addresses have the next port.
    nodes: BTreeMap<SocketAddr, Node>,
    /// Pairs of gossip addresses between which nothing goes, by direction.
    cuts: Vec<(SocketAddr, SocketAddr)>,
    /// What breaks when a node dies or a link is cut.
    open: Vec<(SocketAddr, SocketAddr, CancellationToken)>,
    lost: u64,
    trace: blake3::Hasher,
}

/// Shared by everything in one simulation.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

pub fn peer_of(gossip: SocketAddr) -> SocketAddr {
    SocketAddr::new(gossip.ip(), gossip.port() + 1)
}

fn gossip_of(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip(), peer.port() - 1)
}

impl Network {
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng: StdRng::seed_from_u64(seed),
            faults,
            nodes: BTreeMap::new(),
            cuts: Vec::new(),
            open: Vec::new(),
            lost: 0,
            trace: blake3::Hasher::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("one thread")
    }

    /// Connects a node; gives its socket, and what peers open to it.
    pub fn attach(&self, gossip: SocketAddr) -> (Box<dyn Datagrams>, mpsc::Receiver<Incoming>) {
        let (datagrams, inbox) = mpsc::channel(1024);
        let (streams, incoming) = mpsc::channel(64);
        self.state().nodes.insert(gossip, Node { datagrams, streams });
        let inbox = tokio::sync::Mutex::new(inbox);
        (Box::new(Socket { network: self.clone(), own: gossip, inbox }), incoming)
    }

    /// Takes a node away: what it had open breaks.
    pub fn detach(&self, gossip: SocketAddr) {
        let mut state = self.state();
        state.nodes.remove(&gossip);
        state.break_open(|a, b| a == gossip || b == gossip);
    }

    pub fn dialer(&self, own: SocketAddr) -> Arc<dyn Dialer> {
        Arc::new(SimDialer { network: self.clone(), own })
    }

    /// Cuts one direction.
    pub fn cut(&self, from: SocketAddr, to: SocketAddr) {
        let mut state = self.state();
        state.cuts.push((from, to));
        state.break_open(|a, b| (a, b) == (from, to) || (b, a) == (from, to));
    }

    /// Ends all faults.
    pub fn heal(&self) {
        let mut state = self.state();
        state.cuts.clear();
        state.faults = Faults { loss: 0.0, delay_ms_max: 5 };
    }

    pub fn uncut(&self) {
        self.state().cuts.clear();
    }

    pub fn lost(&self) -> u64 {
        self.state().lost
    }

    /// Notes something that must be the same in every run of a seed.
    pub fn note(&self, what: &str) {
        self.state().trace.update(what.as_bytes());
    }

    pub fn trace(&self) -> String {
        self.state().trace.finalize().to_hex().to_string()
    }

    /// Draws what becomes of a datagram or chunk: its delay, or nothing when it is lost.
    fn draw(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8], loss: f64) -> Option<Duration> {
        let mut state = self.state();
        let delay = 1 + state.faults.delay_ms_max;
        let delay = Duration::from_millis(state.rng.random_range(0..delay));
        let chance = state.faults.loss * loss;
        let lost = state.rng.random_bool(chance);
        let note = format!("{from}>{to} {} {delay:?} {lost};", bytes.len());
        state.trace.update(note.as_bytes());
        state.trace.update(bytes);
        if lost || state.cuts.contains(&(from, to)) || !state.nodes.contains_key(&to) {
            state.lost += 1;
            return None;
        }
        Some(delay)
    }
}

impl State {
    fn break_open(&mut self, broken: impl Fn(SocketAddr, SocketAddr) -> bool) {
        self.open.retain(|(a, b, token)| {
            let breaks = broken(*a, *b);
            if breaks {
                token.cancel();
            }
            !breaks && !token.is_cancelled()
        });
    }
}

struct Socket {
    network: Network,
    own: SocketAddr,
    inbox: tokio::sync::Mutex<mpsc::Receiver<(Vec<u8>, SocketAddr)>>,
}

impl Datagrams for Socket {
    fn send<'a>(&'a self, to: SocketAddr, bytes: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        let (network, own, bytes) = (self.network.clone(), self.own, bytes.to_vec());
        if let Some(delay) = network.draw(own, to, &bytes, 1.0) {
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                let inbox = network.state().nodes.get(&to).map(|n| n.datagrams.clone());
                // a full inbox drops, as a socket's buffer does
                let _ = inbox.map(|inbox| inbox.try_send((bytes, own)));
            });
        }
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
    own: SocketAddr,
}

impl Dialer for SimDialer {
    fn dial<'a>(&'a self, to: &'a Member) -> BoxFuture<'a, Result<Arc<dyn Link>, PeerError>> {
        Box::pin(async move {
            let target = gossip_of(to.peer);
            let failed = || PeerError::Unreachable("lost".to_owned());
            for (from, to) in [(self.own, target), (target, self.own)] {
                let delay = self.network.draw(from, to, b"dial", 1.0).ok_or_else(failed)?;
                tokio::time::sleep(delay).await;
            }
            let broken = CancellationToken::new();
            self.network.state().open.push((self.own, target, broken.clone()));
            let network = self.network.clone();
            let link: Arc<dyn Link> = Arc::new(SimLink { network, own: self.own, target, broken });
            Ok(link)
        })
    }
}

struct SimLink {
    network: Network,
    own: SocketAddr,
    target: SocketAddr,
    broken: CancellationToken,
}

impl Drop for SimLink {
    fn drop(&mut self) {
        self.broken.cancel();
    }
}

impl Link for SimLink {
    fn open(&self, kind: StreamKind) -> BoxFuture<'_, Result<Stream, PeerError>> {
        Box::pin(async move {
            let failed = || PeerError::Unreachable("the node is gone".to_owned());
            let (near, near_wire) = tokio::io::duplex(PIPE_BYTES);
            let (far, far_wire) = tokio::io::duplex(PIPE_BYTES);
            let (near_read, near_write) = tokio::io::split(near_wire);
            let (far_read, far_write) = tokio::io::split(far_wire);
            let (network, broken) = (self.network.clone(), self.broken.clone());
            let (own, target) = (self.own, self.target);
            let there = carry(network.clone(), broken.clone(), (own, target), near_read, far_write);
            let back = carry(network.clone(), broken, (target, own), far_read, near_write);
            tokio::spawn(there);
            tokio::spawn(back);
            let from = world_member(&network, own)?;
            let streams = network.state().nodes.get(&target).map(|n| n.streams.clone());
            let stream = framed(far);
            let incoming = Incoming { from, kind, stream };
            streams.ok_or_else(failed)?.try_send(incoming).map_err(|_| failed())?;
            Ok(framed(near))
        })
    }

    fn closed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.broken.cancelled())
    }
}

/// The dialling node as its hello would describe it.
fn world_member(network: &Network, own: SocketAddr) -> Result<Member, PeerError> {
    let known = network.state().nodes.contains_key(&own);
    let gone = || PeerError::Unreachable("the dialling node is gone".to_owned());
    known.then(|| crate::world::member(own)).ok_or_else(gone)
}

fn framed(pipe: DuplexStream) -> Stream {
    let (reader, writer) = tokio::io::split(pipe);
    Stream::new(reader, writer, &Counters::default())
}

/// Moves one direction of a stream, chunk by chunk, until it ends or the connection breaks.
async fn carry(
    network: Network,
    broken: CancellationToken,
    (from, to): (SocketAddr, SocketAddr),
    mut reader: ReadHalf<DuplexStream>,
    mut writer: WriteHalf<DuplexStream>,
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = tokio::select! {
            biased;
            () = broken.cancelled() => return,
            read = reader.read(&mut buffer) => read,
        };
        let Ok(length @ 1..) = read else {
            let _ = writer.shutdown().await;
            return;
        };
        let Some(delay) = network.draw(from, to, &buffer[..length], 0.1) else {
            broken.cancel();
            return;
        };
        tokio::time::sleep(delay).await;
        if writer.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
