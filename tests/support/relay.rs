//! A relay for datagrams to one address, which can be closed and opened. A node advertises it, so
//! that others reach the node only through it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// Larger than every datagram of the product.
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// Dropping it ends the traffic.
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    open: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// An open relay to `target`.
    pub async fn to(target: SocketAddr) -> Self {
        let face = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a port"));
        let open = Arc::new(AtomicBool::new(true));
        let mut tasks = JoinSet::new();
        let address = face.local_addr().expect("an address");
        tasks.spawn(carry(face, target, open.clone()));
        Self { address, open, _tasks: tasks }
    }

    /// Loses all datagrams from now on, or lets them pass.
    pub fn set_open(&self, open: bool) {
        self.open.store(open, SeqCst);
    }
}

/// Passes on what clients send, each through a socket of its own, and what comes back.
async fn carry(face: Arc<UdpSocket>, target: SocketAddr, open: Arc<AtomicBool>) {
    let mut clients: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // an error here belongs to an earlier datagram
        let Ok((length, client)) = face.recv_from(&mut buffer).await else { continue };
        let on = if let Some(on) = clients.get(&client) {
            on.clone()
        } else {
            let on = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a port"));
            on.connect(target).await.expect("an address");
            answers.spawn(bring_back(on.clone(), face.clone(), client, open.clone()));
            clients.insert(client, on.clone());
            on
        };
        if open.load(SeqCst) {
            let _ = on.try_send(&buffer[..length]);
        }
    }
}

async fn bring_back(
    on: Arc<UdpSocket>,
    face: Arc<UdpSocket>,
    client: SocketAddr,
    open: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok(length) = on.recv(&mut buffer).await else { continue };
        if open.load(SeqCst) {
            let _ = face.try_send_to(&buffer[..length], client);
        }
    }
}

/// A port of the loopback interface that was free a moment ago.
pub fn free_port() -> SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("an address")
}
