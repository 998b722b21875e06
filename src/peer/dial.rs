//! Dialed connections: connects to a member and proves both identities with an exchange of hellos.
//!
//! In TLS 1.3 the client finishes its handshake before the server has verified the client's
//! certificate. Only the answer to the hello shows that the peer accepts this node, so [`Dialer`]
//! waits for it. Must not know what the streams carry.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use quinn::{Connection, ConnectionError, VarInt};
use tokio::time::timeout;

use super::accept::{certified_names, is_crypto, read_hello};
use super::connections::{CLOSED_IN_ORDER, CountedConnection};
use super::endpoint::Endpoint;
use super::error::PeerError;
use super::framing::{Counters, Stream};
use super::link::{Dialer, Link, StreamKind};
use super::refusal::{Failure, Reason, Refusal, decode_double, printable};
use crate::model::Member;
use crate::telemetry::Metrics;

/// Deadline for a dial, hellos included.
const DIAL_MAX: Duration = Duration::from_secs(5);
/// Deadline for opening a stream, which waits while the peer's stream limit is reached.
const OPEN_MAX: Duration = Duration::from_secs(5);

impl Dialer for Endpoint {
    fn dial<'a>(&'a self, to: &'a Member) -> BoxFuture<'a, Result<Arc<dyn Link>, PeerError>> {
        Box::pin(async move {
            let Member { name, peer, .. } = to;
            let failure = match timeout(DIAL_MAX, self.reach(to)).await {
                Ok(Ok(connection)) => {
                    let metrics = self.shared.metrics.clone();
                    let counted = CountedConnection::new(&metrics, "dialed");
                    let link = QuicLink { connection, metrics, _counted: counted };
                    return Ok(Arc::new(link) as Arc<dyn Link>);
                }
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Lost("no answer within 5 s".into()),
            };
            Err(match failure {
                Failure::Refused(refusal) => {
                    self.shared.refusals.note(*peer, &refusal);
                    PeerError::Refused(format!("{name} at {peer}: {}", refusal.detail))
                }
                Failure::Copy(double) => PeerError::Copy(double),
                Failure::RefusedByPeer(why) => {
                    PeerError::Refused(format!("by {name} at {peer}: {why}"))
                }
                Failure::Lost(why) => PeerError::Unreachable(format!("{name} at {peer}: {why}")),
            })
        })
    }
}

impl Endpoint {
    async fn reach(&self, to: &Member) -> Result<Connection, Failure> {
        let connecting = self
            .quic
            .connect_with(self.client(), to.peer, &to.name)
            .map_err(|e| unconnectable(e, to))?;
        let connection = connecting.await.map_err(|e| failure_of(&e, to))?;
        match self.greet(&connection, to).await {
            Ok(()) => Ok(connection),
            Err(Failure::Lost(why)) => {
                // the stream's error hides why the peer closed the connection
                Err(connection.close_reason().map_or(Failure::Lost(why), |e| failure_of(&e, to)))
            }
            Err(failure) => {
                if let Failure::Refused(refusal) = &failure {
                    refusal.close(&connection);
                }
                Err(failure)
            }
        }
    }

    /// Sends this node's hello, then reads and checks the answer.
    async fn greet(&self, connection: &Connection, to: &Member) -> Result<(), Failure> {
        let lost = |e: String| Failure::Lost(e);
        let (writer, reader) = connection.open_bi().await.map_err(|e| lost(e.to_string()))?;
        let counters = Counters::new(&self.shared.metrics, "hello");
        let (mut sender, receiver) = Stream::new(reader, writer, &counters).split();
        sender.put(&self.shared.own_bytes).await?;
        sender.finish().await.map_err(|e| lost(e.to_string()))?;
        let hello = read_hello(receiver).await?;
        hello.check(&self.shared.own, &certified_names(connection))?;
        Ok(hello.check_dialed(to)?)
    }
}

fn unconnectable(error: quinn::ConnectError, to: &Member) -> Failure {
    match error {
        quinn::ConnectError::InvalidServerName(_) => {
            let detail = format!("no certificate can carry the name {:?}", to.name);
            Refusal::new(Reason::Name, detail).into()
        }
        quinn::ConnectError::InvalidRemoteAddress(_) => Failure::Lost(
            "peer.listen cannot reach its address; use IPv4 on both nodes, or IPv6 on both".into(),
        ),
        other => Failure::Lost(other.to_string()),
    }
}

/// Why a dialed connection ended before both identities were proven.
fn failure_of(error: &ConnectionError, to: &Member) -> Failure {
    let name = &to.name;
    match error {
        ConnectionError::TransportError(e) if is_crypto(e.code) => {
            let detail = format!(
                "it cannot prove to be {name:?} of this cluster ({e}); give it a certificate of \
                 this cluster's CA (`kvs cert node {}`)",
                name.escape_debug(),
            );
            Refusal::new(Reason::Tls, detail).into()
        }
        ConnectionError::ConnectionClosed(e) if is_crypto(e.error_code) => {
            Failure::RefusedByPeer(format!(
                "it rejects this node's certificate ({}); give this node one of that cluster's CA \
                 (`kvs cert node NAME`)",
                e.error_code,
            ))
        }
        ConnectionError::ApplicationClosed(e) if e.error_code != CLOSED_IN_ORDER => {
            let is_copy = e.error_code == VarInt::from_u32(Reason::Copy.code());
            if let Some(double) = decode_double(&e.reason).filter(|_| is_copy) {
                return Failure::Copy(Box::new(double));
            }
            let said = String::from_utf8_lossy(&e.reason);
            Failure::RefusedByPeer(printable(&said))
        }
        other => Failure::Lost(printable(&other.to_string())),
    }
}

/// A connection that this node dialed.
struct QuicLink {
    connection: Connection,
    metrics: Arc<Metrics>,
    _counted: CountedConnection,
}

impl Link for QuicLink {
    fn open(&self, kind: StreamKind) -> BoxFuture<'_, Result<Stream, PeerError>> {
        Box::pin(async move {
            let unreachable = |why: String| PeerError::Unreachable(why);
            let opened = timeout(OPEN_MAX, self.connection.open_bi()).await;
            let opened = opened.map_err(|_| {
                unreachable("the peer allows no more streams until earlier ones end".into())
            })?;
            let (writer, reader) = opened.map_err(|e| unreachable(e.to_string()))?;
            let counters = Counters::new(&self.metrics, kind.label());
            Ok(Stream::new(reader, writer, &counters).with_preamble(&kind.frame()))
        })
    }

    fn closed(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { drop(self.connection.closed().await) })
    }
}
