//! Dialed connections: connects to a member, proves both sides by a round trip of hellos.
//!
//! With TLS 1.3 a dialer is done before the other side has judged its certificate; so only the
//! answer to the hello makes a connection. Must not know what the streams carry.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use quinn::{Connection, ConnectionError, VarInt};
use tokio::time::timeout;

use super::accept::{certified_names, is_crypto, read_hello};
use super::endpoint::{CLOSED_IN_ORDER, Counted, Endpoint};
use super::framing::{Counters, Stream};
use super::refusal::{Failure, Reason, Refusal, printable};
use super::{Dialer, Link, PeerError, StreamKind};
use crate::model::Member;
use crate::telemetry::Metrics;

/// How long a dial may take, the hellos included.
const DIAL_MAX: Duration = Duration::from_secs(5);
/// How long opening a stream may wait for the peer to allow one.
const OPEN_MAX: Duration = Duration::from_secs(5);

impl Dialer for Endpoint {
    fn dial<'a>(&'a self, to: &'a Member) -> BoxFuture<'a, Result<Arc<dyn Link>, PeerError>> {
        Box::pin(async move {
            let Member { name, peer, .. } = to;
            let failure = match timeout(DIAL_MAX, self.reach(to)).await {
                Ok(Ok(connection)) => {
                    let metrics = self.shared.metrics.clone();
                    let counted = Counted::new(&metrics, "dialed");
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
            .connect_with(self.client.clone(), to.peer, &to.name)
            .map_err(|e| unconnectable(e, to))?;
        let connection = connecting.await.map_err(|e| judge(&e, to))?;
        match self.greet(&connection, to).await {
            Ok(()) => Ok(connection),
            Err(Failure::Lost(why)) => {
                // the connection knows better than the stream why it ended
                Err(connection.close_reason().map_or(Failure::Lost(why), |e| judge(&e, to)))
            }
            Err(failure) => {
                if let Failure::Refused(refusal) = &failure {
                    let code = VarInt::from_u32(refusal.reason.code());
                    connection.close(code, refusal.detail.as_bytes());
                }
                Err(failure)
            }
        }
    }

    /// Says this node's hello, hears and judges the answer.
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
            let detail = format!("{:?} is not a name that a certificate can carry", to.name);
            Refusal::new(Reason::Name, detail).into()
        }
        quinn::ConnectError::InvalidRemoteAddress(_) => Failure::Lost(
            "its address cannot be reached from peer.listen (IPv4 and IPv6 do not mix)".into(),
        ),
        other => Failure::Lost(other.to_string()),
    }
}

/// Why a dialed connection ended before it was proven.
fn judge(error: &ConnectionError, to: &Member) -> Failure {
    let name = &to.name;
    match error {
        ConnectionError::TransportError(e) if is_crypto(e.code) => {
            let detail = format!(
                "it does not prove that it is {name:?} of this cluster ({e}); make it a \
                 certificate of this cluster's CA (`kvs cert node {}`)",
                name.escape_debug(),
            );
            Refusal::new(Reason::Tls, detail).into()
        }
        ConnectionError::ConnectionClosed(e) if is_crypto(e.error_code) => {
            Failure::RefusedByPeer(format!(
                "it does not take this node's certificate ({}); make one of its cluster's CA \
                 (`kvs cert node NAME`)",
                e.error_code,
            ))
        }
        ConnectionError::ApplicationClosed(e) if e.error_code != CLOSED_IN_ORDER => {
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
    _counted: Counted,
}

impl Link for QuicLink {
    fn open(&self, kind: StreamKind) -> BoxFuture<'_, Result<Stream, PeerError>> {
        Box::pin(async move {
            let unreachable = |why: String| PeerError::Unreachable(why);
            let opened = timeout(OPEN_MAX, self.connection.open_bi()).await;
            let opened = opened.map_err(|_| {
                unreachable("the peer allows no further stream; earlier ones are still open".into())
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
