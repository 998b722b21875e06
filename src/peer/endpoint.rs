//! The QUIC endpoint of a node: its socket, and the loop that accepts connections.
//!
//! Promises bounds on unfinished handshakes and on connections, whoever sends what, and that the
//! loop goes on whatever one connection does. Must not know what the streams carry.

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::{Connection, VarInt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Incoming;
use super::accept;
use super::certificate::CertificateError;
use super::hello::Hello;
use super::refusal::Refusals;
use super::tls::{self, Tls};
use crate::clock::Clock;
use crate::config;
use crate::model::Member;
use crate::telemetry::Metrics;

/// Handshakes under way, hellos included. Further attempts are dropped; an honest dialer repeats
/// them.
const HANDSHAKES_MAX: usize = 64;
/// From here on a dialer must first prove its address, so that forged ones use up no handshakes.
const UNPROVEN_HANDSHAKES_MAX: usize = HANDSHAKES_MAX / 2;
/// Connections that one certificate may have open here; a further one closes the oldest, which a
/// node that crashed may have left behind.
const CONNECTIONS_PER_CERTIFICATE_MAX: usize = 4;
/// What the socket may hold; UDP loses the rest. The system may allow less.
const SOCKET_BYTES: usize = 4 << 20;
/// How long a stop waits for the other sides to hear of it.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// The close code of an orderly end.
pub(super) const CLOSED_IN_ORDER: VarInt = VarInt::from_u32(0);

/// Why an endpoint cannot start. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The certificates cannot be used; the message says which file and what to do.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The address cannot be listened on.
    #[error("peer.listen: cannot listen on {listen}: {error}; is another process there?")]
    Socket {
        /// The address.
        listen: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// This node cannot be described to its peers.
    #[error("no peer would take this node: {0}")]
    Identity(String),
}

/// A socket that is bound and certificates that are in order: all that is needed to know the
/// address before there is an [`Endpoint`].
pub struct Bound {
    tls: Tls,
    socket: UdpSocket,
    address: SocketAddr,
}

impl Bound {
    /// Loads the certificates that `settings` names, for the node `name`, and binds `peer.listen`.
    ///
    /// # Errors
    /// When a file cannot be used or the address is taken.
    pub fn new(settings: &config::Peer, name: &str, clock: &Clock) -> Result<Self, StartError> {
        Self::with_tls(tls::load(settings, name, clock)?, settings.listen)
    }

    pub(super) fn with_tls(tls: Tls, listen: SocketAddr) -> Result<Self, StartError> {
        let failed = |error| StartError::Socket { listen, error };
        let socket = UdpSocket::bind(listen).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let options = socket2::SockRef::from(&socket);
        // Best effort: a smaller buffer costs speed only.
        let _ = options.set_recv_buffer_size(SOCKET_BYTES);
        let _ = options.set_send_buffer_size(SOCKET_BYTES);
        Ok(Self { tls, socket, address })
    }

    /// The address that was bound, its port never 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

/// A node's end of all QUIC connections. Dials at once; accepts while [`Endpoint::run`] runs.
pub struct Endpoint {
    pub(super) quic: quinn::Endpoint,
    pub(super) client: quinn::ClientConfig,
    pub(super) shared: Arc<Shared>,
    handshakes: Arc<Semaphore>,
}

/// What every connection needs.
pub(super) struct Shared {
    pub(super) own: Hello,
    pub(super) own_bytes: Vec<u8>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) refusals: Refusals,
    pub(super) incoming: mpsc::Sender<Incoming>,
    open: Mutex<BTreeMap<[u8; 32], VecDeque<Connection>>>,
}

impl Endpoint {
    /// An endpoint on `bound`, for the node that `me` describes (with the addresses that it
    /// advertises). Streams that peers open go to `incoming`. To be called inside of a runtime.
    ///
    /// # Errors
    /// When the runtime does not take the socket, or `me` cannot be told to others.
    pub fn new(
        bound: Bound,
        me: Member,
        cluster_id: Uuid,
        clock: Clock,
        metrics: Arc<Metrics>,
        incoming: mpsc::Sender<Incoming>,
    ) -> Result<Self, StartError> {
        let own = Hello::new(cluster_id, me);
        let own_bytes = own.encode().map_err(StartError::Identity)?;
        let listen = bound.address;
        let runtime = Arc::new(quinn::TokioRuntime);
        let settings = quinn::EndpointConfig::default();
        let quic = quinn::Endpoint::new(settings, Some(bound.tls.server), bound.socket, runtime)
            .map_err(|error| StartError::Socket { listen, error })?;
        let refusals = Refusals::new(metrics.clone(), clock.clone());
        let open = Mutex::default();
        let shared = Shared { own, own_bytes, clock, metrics, refusals, incoming, open };
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        Ok(Self { quic, client: bound.tls.client, shared: Arc::new(shared), handshakes })
    }

    /// Accepts connections until `stop`, then closes all, dialed ones too, and waits for the other
    /// sides to hear of it. Ends before `stop` only when the socket fails. Dropping the future ends
    /// what it accepted.
    pub async fn run(&self, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!("a connection's task failed, the others go on: {error}");
                    }
                }
                arrived = self.quic.accept() => {
                    let Some(arrived) = arrived else {
                        tracing::error!("the socket of peer.listen failed; restart this node");
                        break;
                    };
                    self.admit(arrived, &mut connections);
                }
            }
        }
        self.quic.close(CLOSED_IN_ORDER, b"this node is shutting down");
        connections.shutdown().await;
        // who does not hear of it notices by silence
        let _ = tokio::time::timeout(CLOSE_WAIT, self.quic.wait_idle()).await;
    }

    fn admit(&self, arrived: quinn::Incoming, connections: &mut JoinSet<()>) {
        let under_way = HANDSHAKES_MAX.saturating_sub(self.handshakes.available_permits());
        if under_way >= UNPROVEN_HANDSHAKES_MAX && !arrived.remote_address_validated() {
            if let Err(error) = arrived.retry() {
                error.into_incoming().ignore();
            }
            return;
        }
        let Ok(permit) = self.handshakes.clone().try_acquire_owned() else {
            arrived.ignore();
            return;
        };
        connections.spawn(accept::serve(self.shared.clone(), arrived, permit));
    }
}

impl Shared {
    /// Enters an accepted connection, by the hash of the certificate that it came with, and closes
    /// the oldest one of too many.
    pub(super) fn enter(
        self: &Arc<Self>,
        certificate: [u8; 32],
        connection: Connection,
    ) -> Entered {
        let id = connection.stable_id();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let own = open.entry(certificate).or_default();
        own.push_back(connection);
        if own.len() > CONNECTIONS_PER_CERTIFICATE_MAX
            && let Some(oldest) = own.pop_front()
        {
            oldest.close(CLOSED_IN_ORDER, b"replaced by newer connections of the same node");
        }
        let counted = Counted::new(&self.metrics, "accepted");
        Entered { shared: self.clone(), certificate, id, _counted: counted }
    }
}

/// Keeps an accepted connection in the books until it is dropped.
pub(super) struct Entered {
    shared: Arc<Shared>,
    certificate: [u8; 32],
    id: usize,
    _counted: Counted,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = open.get_mut(&self.certificate) {
            own.retain(|connection| connection.stable_id() != self.id);
            if own.is_empty() {
                open.remove(&self.certificate);
            }
        }
    }
}

/// Counts a connection as open until it is dropped.
pub(super) struct Counted {
    metrics: Arc<Metrics>,
    side: &'static str,
}

impl Counted {
    pub(super) fn new(metrics: &Arc<Metrics>, side: &'static str) -> Self {
        metrics.peer_connections.get_or_create(&[("side", side)]).inc();
        Self { metrics: metrics.clone(), side }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.peer_connections.get_or_create(&[("side", self.side)]).dec();
    }
}

#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;
