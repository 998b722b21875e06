//! A proxy for datagrams between nodes. On each directed link it can delay, repeat, reorder,
//! throttle, lose and cut.
//!
//! A node has a *home*, the address that it listens on, and a *face*, the address that it
//! advertises. The proxy listens on the faces. A datagram from the home of `i` to the face of `j`
//! belongs to the link from `i` to `j`; the proxy sends it to the home of `j` from the face of `i`,
//! so that `j` recognizes the sender and answers through the proxy.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Larger than every datagram of the product.
const DATAGRAM_BYTES_MAX: usize = 65_536;
/// How long a throttled link queues; it loses the excess, as a router does.
const QUEUE_MAX: Duration = Duration::from_millis(500);

/// What happens to the datagrams from one node to another.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Link {
    /// The fraction to lose, 0 to 1.
    pub loss: f64,
    /// The fraction to deliver twice.
    pub twice: f64,
    /// The maximum of each datagram's random delay, which also reorders them.
    pub delay_max: Duration,
    /// The bytes per second that pass, if limited.
    pub bytes_per_second: Option<u32>,
}

/// The homes and faces of nodes, by number.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub homes: Vec<Ipv4Addr>,
    pub faces: Vec<Ipv4Addr>,
}

impl Addresses {
    /// Addresses for `count` nodes, with these first three bytes.
    pub fn new([a, b, c]: [u8; 3], count: u8) -> Self {
        let address = |last| Ipv4Addr::new(a, b, c, last);
        Self {
            homes: (1..=count).map(address).collect(),
            faces: (101..101 + count).map(address).collect(),
        }
    }
}

/// All links of a cluster. Dropping it ends the traffic.
pub struct Proxy {
    board: Arc<Mutex<Board>>,
    _tasks: JoinSet<()>,
}

struct Board {
    links: Vec<Vec<Link>>,
    /// When each throttled link will have sent its queue.
    free_at: Vec<Vec<Instant>>,
    rng: StdRng,
}

impl Proxy {
    /// Forwards datagrams to each of `ports` of each node.
    ///
    /// # Errors
    /// When binding a face fails.
    pub async fn new(addresses: &Addresses, ports: &[u16], seed: u64) -> std::io::Result<Self> {
        let count = addresses.homes.len();
        let board = Arc::new(Mutex::new(Board {
            links: vec![vec![Link::default(); count]; count],
            free_at: vec![vec![Instant::now(); count]; count],
            rng: StdRng::seed_from_u64(seed),
        }));
        let mut tasks = JoinSet::new();
        for to in 0..count {
            for port in ports {
                let face = Arc::new(UdpSocket::bind((addresses.faces[to], *port)).await?);
                let gate = Gate { to, port: *port, face, addresses: addresses.clone() };
                tasks.spawn(gate.run(board.clone()));
            }
        }
        Ok(Self { board, _tasks: tasks })
    }

    /// Sets the link from one node to another.
    pub fn set(&self, from: usize, to: usize, link: Link) {
        self.board.lock().unwrap_or_else(PoisonError::into_inner).links[from][to] = link;
    }
}

impl Board {
    /// When the copies of a datagram arrive at the other end.
    fn fate(&mut self, from: usize, to: usize, bytes: usize) -> Vec<Instant> {
        let (link, now) = (self.links[from][to], Instant::now());
        if link.loss > 0.0 && self.rng.random_bool(link.loss) {
            return Vec::new();
        }
        let mut due = now;
        if let Some(rate) = link.bytes_per_second {
            let free = &mut self.free_at[from][to];
            *free = (*free).max(now);
            if *free > now + QUEUE_MAX {
                return Vec::new();
            }
            *free += Duration::from_secs(1) * u32::try_from(bytes).unwrap_or(u32::MAX) / rate;
            due = *free;
        }
        let copies = 1 + usize::from(link.twice > 0.0 && self.rng.random_bool(link.twice));
        let delay = |_| due + link.delay_max.mul_f64(self.rng.random_range(0.0..1.0));
        (0..copies).map(delay).collect()
    }
}

/// One port of one node's face.
struct Gate {
    to: usize,
    port: u16,
    face: Arc<UdpSocket>,
    addresses: Addresses,
}

/// A sender: the socket that forwards its datagrams, and its latest port.
struct Way {
    on: Arc<UdpSocket>,
    back: Arc<Mutex<SocketAddr>>,
}

impl Gate {
    async fn run(self, board: Arc<Mutex<Board>>) {
        let mut ways: Vec<Option<Way>> = self.addresses.homes.iter().map(|_| None).collect();
        let mut answers = JoinSet::new();
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            // an error here belongs to an earlier datagram
            let Ok((length, source)) = self.face.recv_from(&mut buffer).await else { continue };
            let sender =
                self.addresses.homes.iter().position(|home| IpAddr::V4(*home) == source.ip());
            // the sender is no node: drop it
            let Some(from) = sender else { continue };
            if ways[from].is_none() {
                // without a socket the datagram is lost
                let Ok(way) = self.way(from, source).await else { continue };
                answers.spawn(self.answers(from, &way, board.clone()));
                ways[from] = Some(way);
            }
            let Some(way) = &ways[from] else { continue };
            *way.back.lock().unwrap_or_else(PoisonError::into_inner) = source;
            let on = way.on.clone();
            let send = move |bytes: &[u8]| drop(on.try_send(bytes));
            carry(&board, (from, self.to), &buffer[..length], send);
        }
    }

    /// A socket from the sender's face to this node's home.
    async fn way(&self, from: usize, source: SocketAddr) -> std::io::Result<Way> {
        let on = UdpSocket::bind((self.addresses.faces[from], 0)).await?;
        on.connect((self.addresses.homes[self.to], self.port)).await?;
        Ok(Way { on: Arc::new(on), back: Arc::new(Mutex::new(source)) })
    }

    /// Forwards answers to the sender's latest port.
    fn answers(
        &self,
        from: usize,
        way: &Way,
        board: Arc<Mutex<Board>>,
    ) -> impl Future<Output = ()> + use<> {
        let (to, face) = (self.to, self.face.clone());
        let (on, back) = (way.on.clone(), way.back.clone());
        async move {
            let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
            loop {
                // an error here belongs to an earlier datagram
                let Ok(length) = on.recv(&mut buffer).await else { continue };
                let target = *back.lock().unwrap_or_else(PoisonError::into_inner);
                let face = face.clone();
                let send = move |bytes: &[u8]| drop(face.try_send_to(bytes, target));
                carry(&board, (to, from), &buffer[..length], send);
            }
        }
    }
}

/// Sends a datagram when and as often as the link says.
fn carry(
    board: &Mutex<Board>,
    (from, to): (usize, usize),
    bytes: &[u8],
    send: impl Fn(&[u8]) + Clone + Send + 'static,
) {
    let fate = board.lock().unwrap_or_else(PoisonError::into_inner).fate(from, to, bytes.len());
    for due in fate {
        if due <= Instant::now() {
            send(bytes);
            continue;
        }
        let (send, bytes) = (send.clone(), bytes.to_vec());
        tokio::spawn(async move {
            sleep_until(due).await;
            send(&bytes);
        });
    }
}
