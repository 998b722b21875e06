//! The QUIC endpoint of a node: its socket, and the loop that accepts connections.
//!
//! Promises to bound unfinished handshakes and open connections against any sender, and that the
//! failure of one connection does not end the loop. Must not know what the streams carry.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::accept;
use super::certificate::CertificateError;
use super::connections::{CLOSED_IN_ORDER, EndpointShared, OpenConnections};
use super::hello::Hello;
use super::link::Incoming;
use super::refusal::Refusals;
use super::renewal::Certificates;
use super::tls::{self, Loaded, Tls};
use crate::clock::Clock;
use crate::config;
use crate::model::{Member, MemberState};
use crate::telemetry::Metrics;

/// Handshakes under way, from the first packet to the hello. Further attempts are dropped; an
/// honest dialer repeats them.
const HANDSHAKES_MAX: usize = 64;
/// From this many handshakes on, a dialer must first prove its address (QUIC retry), so that forged
/// addresses cannot use them up.
const UNPROVEN_HANDSHAKES_MAX: usize = HANDSHAKES_MAX / 2;
/// Socket buffer for each direction; UDP loses what does not fit. The system may grant less.
const SOCKET_BYTES: usize = 4 << 20;
/// How long a stop waits for the peers to acknowledge the close.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Why an endpoint cannot start. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A certificate file is unusable. The message names the file and the remedy.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Binding `peer.listen` failed.
    #[error(
        "peer.listen: cannot listen on {listen}: {error}; {} peer.listen",
        config::listen_advice(error)
    )]
    Socket {
        /// The configured address.
        listen: SocketAddr,
        /// The system's answer.
        error: std::io::Error,
    },
    /// Peers would reject this node's hello. The text says which field is wrong.
    #[error("peers would refuse this node: {0}")]
    Identity(String),
}

/// A bound socket and verified certificates. Gives the address before the [`Endpoint`] exists.
pub struct Bound {
    tls: Tls,
    certificates: Option<Certificates>,
    socket: UdpSocket,
    address: SocketAddr,
}

impl Bound {
    /// Loads and verifies the certificate files of the node `name`, and binds `peer.listen`.
    ///
    /// # Errors
    /// When a file is unusable or the address is taken.
    pub fn new(
        settings: &config::PeerConfig,
        name: &str,
        clock: &Clock,
    ) -> Result<Self, StartError> {
        let Loaded { tls, validity, .. } = tls::load(settings, name, clock)?;
        let bound = Self::with_tls(tls, settings.listen)?;
        let certificates = Certificates::new(settings, name, clock, validity);
        Ok(Self { certificates: Some(certificates), ..bound })
    }

    /// The certificate files; `None` when the certificates come from elsewhere.
    #[must_use]
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    pub(super) fn with_tls(tls: Tls, listen: SocketAddr) -> Result<Self, StartError> {
        let failed = |error| StartError::Socket { listen, error };
        let socket = UdpSocket::bind(listen).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let options = socket2::SockRef::from(&socket);
        // best effort: a smaller buffer only costs speed
        let _ = options.set_recv_buffer_size(SOCKET_BYTES);
        let _ = options.set_send_buffer_size(SOCKET_BYTES);
        Ok(Self { tls, certificates: None, socket, address })
    }

    /// The bound address. Its port is never 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

/// A node's end of all QUIC connections. Can dial immediately; accepts while [`Endpoint::run`]
/// runs.
pub struct Endpoint {
    pub(super) quic: quinn::Endpoint,
    client: Mutex<quinn::ClientConfig>,
    /// Taken by [`Endpoint::run`].
    certificates: Mutex<Option<Certificates>>,
    pub(super) shared: Arc<EndpointShared>,
    handshakes: Arc<Semaphore>,
}

impl Endpoint {
    /// An endpoint on `bound` for the node `me`, which carries the advertised addresses. Streams
    /// that peers open go to `incoming`; `members` shows who is up. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// When the runtime rejects the socket, or peers would reject `me`.
    pub fn new(
        bound: Bound,
        me: Member,
        cluster_id: Uuid,
        clock: Clock,
        metrics: Arc<Metrics>,
        incoming: mpsc::Sender<Incoming>,
        members: watch::Receiver<Vec<(Member, MemberState)>>,
    ) -> Result<Self, StartError> {
        let own = Hello::new(cluster_id, me);
        let own_bytes = own.encode().map_err(StartError::Identity)?;
        let listen = bound.address;
        let runtime = Arc::new(quinn::TokioRuntime);
        let settings = quinn::EndpointConfig::default();
        let quic = quinn::Endpoint::new(settings, Some(bound.tls.server), bound.socket, runtime)
            .map_err(|error| StartError::Socket { listen, error })?;
        let refusals = Refusals::new(metrics.clone(), clock.clone());
        let open = OpenConnections::default();
        let shared =
            EndpointShared { own, own_bytes, clock, metrics, refusals, incoming, open, members };
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        let client = Mutex::new(bound.tls.client);
        let certificates = Mutex::new(bound.certificates);
        Ok(Self { quic, client, certificates, shared: Arc::new(shared), handshakes })
    }

    /// How this node dials.
    pub(super) fn client(&self) -> quinn::ClientConfig {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Uses other certificates from now on. Open connections stay as they are.
    fn renew(&self, tls: Tls) {
        self.quic.set_server_config(Some(tls.server));
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = tls.client;
    }

    /// Accepts connections until `stop`. Then closes all connections, dialed ones too, and waits up
    /// to a second for the peers to acknowledge. Returns before `stop` only when the socket fails.
    /// Dropping the future ends the accepted connections.
    pub async fn run(&self, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        let mut renewing = Box::pin(self.keep_renewed());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = &mut renewing => {}
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(
                            "the task of a connection failed: {error}; other connections are not \
                             affected; this is a bug, please report it"
                        );
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
        // a peer that misses the close notices the silence
        let _ = tokio::time::timeout(CLOSE_WAIT, self.quic.wait_idle()).await;
    }

    /// Follows the certificate files, if there are any. Never ends.
    async fn keep_renewed(&self) {
        let certificates = self.certificates.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut certificates) = certificates else { return std::future::pending().await };
        loop {
            let tls = certificates.renewed(&self.shared.metrics).await;
            self.renew(tls);
        }
    }

    fn admit(&self, arrived: quinn::Incoming, connections: &mut JoinSet<()>) {
        let free = self.handshakes.available_permits();
        assert!(free <= HANDSHAKES_MAX, "a handshake returns its permit once");
        let under_way = HANDSHAKES_MAX - free;
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

#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;
