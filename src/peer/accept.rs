//! One accepted connection: handshake, hello, then the streams that the peer opens.
//!
//! Promises to hand on no stream before the peer's certificate, cluster and name are proven, and a
//! deadline for each step up to there. Must not know what the streams carry.

use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{timeout, timeout_at};

use super::certificate;
use super::connections::EndpointShared;
use super::framing::{Counters, HELLO_BYTES_MAX, LENGTH_BYTES, Receiver, Sender, Stream};
use super::hello::Hello;
use super::link::{Incoming, StreamKind};
use super::refusal::{Failure, Reason, Refusal, printable};
use crate::model::Member;

/// Deadline for handshake and hello together.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Deadline for a new stream's first frame, which names its kind.
const KIND_MAX: Duration = Duration::from_secs(5);
/// The codes of TLS alerts in QUIC (RFC 9000, section 20.1).
const CRYPTO_ERRORS: std::ops::Range<u64> = 0x100..0x200;

/// Serves one connection until it ends. Releases `permit` once the peer's identity is proven.
pub(super) async fn serve(
    shared: Arc<EndpointShared>,
    arrived: quinn::Incoming,
    permit: OwnedSemaphorePermit,
) {
    let address = arrived.remote_address();
    let deadline = shared.clock.instant() + HANDSHAKE_MAX;
    let late = || Refusal::new(Reason::Timeout, "the handshake took longer than 5 s");
    let handshake = async { arrived.accept()?.await };
    let connection = match timeout_at(deadline, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            return refusal_of(&error).iter().for_each(|r| shared.refusals.note(address, r));
        }
        Err(_) => return shared.refusals.note(address, &late()),
    };
    let greeted = match timeout_at(deadline, greet(&shared, &connection)).await {
        Ok(greeted) => greeted,
        Err(_) => Err(late().into()),
    };
    match greeted {
        Ok(from) => {
            drop(permit);
            let certificate = chain(&connection).first().map(|der| blake3::hash(der).into());
            let certificate =
                certificate.unwrap_or_else(|| unreachable!("the hello was checked against it"));
            let _open = shared.enter(certificate, connection.clone());
            tracing::debug!("{} connected from {address}", from.name);
            take_streams(&shared, &connection, &from).await;
        }
        Err(Failure::Refused(refusal)) => {
            shared.refusals.note(address, &refusal);
            refusal.close(&connection);
        }
        Err(Failure::RefusedByPeer(why) | Failure::Lost(why)) => {
            tracing::debug!("{address} left before this node answered its hello: {why}");
        }
        // only a dialed peer can say so
        Err(Failure::Copy(_)) => {}
    }
}

/// The refusal in a failed handshake; `None` when the connection was merely lost.
fn refusal_of(error: &ConnectionError) -> Option<Refusal> {
    let advice = "give both nodes certificates of the same CA (`kvs cert node NAME`) and the same \
                  ca.pem";
    let tls = |said: String| Refusal::new(Reason::Tls, format!("{said}; {advice}"));
    match error {
        ConnectionError::TransportError(e) if is_crypto(e.code) => {
            Some(tls(format!("this node rejects the peer's certificate ({e})")))
        }
        ConnectionError::ConnectionClosed(e) if is_crypto(e.error_code) => {
            Some(tls(format!("the peer rejects this node's certificate ({})", e.error_code)))
        }
        ConnectionError::TransportError(_) | ConnectionError::VersionMismatch => {
            let detail = format!("the peer speaks another QUIC than this node: {error}");
            Some(Refusal::new(Reason::Malformed, detail))
        }
        ConnectionError::TimedOut => {
            Some(Refusal::new(Reason::Timeout, "the peer fell silent during the handshake"))
        }
        _ => None,
    }
}

pub(super) fn is_crypto(code: quinn::TransportErrorCode) -> bool {
    CRYPTO_ERRORS.contains(&u64::from(code))
}

/// The peer's verified certificate chain, its own certificate first; empty before TLS has verified
/// it.
fn chain(connection: &Connection) -> Vec<CertificateDer<'static>> {
    let identity = connection.peer_identity().and_then(|any| any.downcast().ok());
    identity.map(|chain| *chain).unwrap_or_default()
}

/// The DNS names in the peer's verified certificate.
pub(super) fn certified_names(connection: &Connection) -> Vec<String> {
    chain(connection).first().map(|der| certificate::dns_names(der)).unwrap_or_default()
}

/// Reads and checks the peer's hello, then answers with this node's.
async fn greet(shared: &EndpointShared, connection: &Connection) -> Result<Member, Failure> {
    let opened = connection.accept_bi().await;
    let (writer, reader) = opened.map_err(|e| Failure::Lost(printable(&e.to_string())))?;
    let counters = Counters::new(&shared.metrics, "hello");
    let (mut sender, receiver) = Stream::new(reader, writer, &counters).split();
    let greeted = answer(shared, connection, &mut sender, receiver).await;
    if let Err(Failure::Refused(refusal)) = &greeted {
        // before the stream ends: the peer would see that end first, and not why
        refusal.close(connection);
    }
    greeted
}

async fn answer(
    shared: &EndpointShared,
    connection: &Connection,
    sender: &mut Sender,
    receiver: Receiver,
) -> Result<Member, Failure> {
    let hello = read_hello(receiver).await?;
    hello.check(&shared.own, &certified_names(connection))?;
    hello.check_double(&shared.members.borrow())?;
    sender.put(&shared.own_bytes).await?;
    sender.finish().await.map_err(|e| Failure::Lost(e.to_string()))?;
    Ok(hello.member)
}

/// Reads the one frame of a connection's first stream, the hello.
pub(super) async fn read_hello(receiver: Receiver) -> Result<Hello, Failure> {
    let Some(frame) = receiver.with_limit(HELLO_BYTES_MAX).next(None).await? else {
        return Err(
            Refusal::new(Reason::Malformed, "the first stream ended without a hello").into()
        );
    };
    Ok(Hello::decode(&frame)?)
}

/// Hands on the streams that the peer opens, until the connection ends. The transport's stream
/// limit bounds how many are open at once.
async fn take_streams(shared: &Arc<EndpointShared>, connection: &Connection, from: &Member) {
    let mut opening = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = opening.join_next() => {}
            opened = connection.accept_bi() => match opened {
                Ok((writer, reader)) => {
                    let (shared, from) = (shared.clone(), from.clone());
                    let address = connection.remote_address();
                    opening.spawn(async move {
                        match take_stream(&shared, from, writer, reader).await {
                            Ok(()) => {}
                            Err(refusal) => shared.refusals.note(address, &refusal),
                        }
                    });
                }
                Err(error) => {
                    let why = printable(&error.to_string());
                    tracing::debug!("the connection from {} ended: {why}", from.name);
                    return;
                }
            }
        }
    }
}

/// Reads the kind of a stream and hands the stream on, waiting while the channel is full.
async fn take_stream(
    shared: &EndpointShared,
    from: Member,
    mut writer: SendStream,
    mut reader: RecvStream,
) -> Result<(), Refusal> {
    let mut frame = [0; LENGTH_BYTES + 1];
    let kind = match timeout(KIND_MAX, reader.read_exact(&mut frame)).await {
        Ok(Ok(())) => StreamKind::from_frame(frame).ok_or_else(|| {
            let detail = format!("{:?} opened a stream of an unknown kind {frame:?}", from.name);
            Refusal::new(Reason::Malformed, detail)
        }),
        Ok(Err(quinn::ReadExactError::FinishedEarly(_))) => {
            let detail = format!("{:?} ended a stream without naming its kind", from.name);
            Err(Refusal::new(Reason::Malformed, detail))
        }
        Ok(Err(quinn::ReadExactError::ReadError(_))) => return Ok(()),
        Err(_) => {
            let detail = format!("{:?} did not name the kind of a stream within 5 s", from.name);
            Err(Refusal::new(Reason::Timeout, detail))
        }
    };
    let kind = match kind {
        Ok(kind) => kind,
        Err(refusal) => {
            // both fail only on a stream that is closed already
            let code = VarInt::from_u32(refusal.reason.code());
            let _ = (writer.reset(code), reader.stop(code));
            return Err(refusal);
        }
    };
    let counters = Counters::new(&shared.metrics, kind.label());
    let stream = Stream::new(reader, writer, &counters).with_received(frame.len());
    // the receiver is gone only while this node stops
    let _ = shared.incoming.send(Incoming { from, kind, stream }).await;
    Ok(())
}
