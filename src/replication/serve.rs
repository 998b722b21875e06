//! Answers the streams that peers open: merges the records they push, and serves their sessions.
//!
//! Promises to read the next frame only after the records of the last one are durable, so that a
//! peer cannot fill this node's memory. Must not know how frames travel.

use std::time::Duration;

use super::context::Context;
use crate::model::{Key, NodeId, Record};
use crate::peer::{Incoming, PeerError, Stream, StreamKind};
use crate::proto::reconcile::{Reply, Responder, SessionError, SessionLimits};
use crate::proto::wire::{self, Push, Request, Response, WireRecord};
use crate::store::{ReadError, Store, WriteError};

/// How long a stream may be silent. The driver of a session sends its next request immediately, a
/// push stream a report every few seconds.
const SILENCE_MAX: Duration = Duration::from_secs(60);

const RECEIVED: [(&str, &str); 1] = [("direction", "received")];

/// Why serving a stream ended early. Records merged before that stay merged.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Session(#[from] SessionError<ReadError>),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("malformed: {0}")]
    Malformed(#[from] wire::WireError),
}

/// Serves one stream to its end, and tells the peer why a session failed.
pub(super) async fn serve(context: Context, incoming: Incoming) {
    let Incoming { from, kind, mut stream } = incoming;
    let result = match kind {
        StreamKind::Push => merge_pushes(&context, from.id, &mut stream).await,
        StreamKind::Session => {
            let result = serve_session(&context, from.id, &mut stream).await;
            let outcome = if result.is_ok() { "done" } else { "failed" };
            let labels = [("side", "serve"), ("outcome", outcome)];
            context.metrics.sync_sessions.get_or_create(&labels).inc();
            result
        }
    };
    match result {
        Ok(()) => {}
        Err(ServeError::Peer(PeerError::Unreachable(why))) => {
            tracing::debug!(peer = %from.name, why, "a stream ended");
        }
        Err(error) => {
            // `peer::framing` has already counted truncated and oversized frames
            if matches!(
                error,
                ServeError::Malformed(_) | ServeError::Session(SessionError::Malformed(_))
            ) {
                context.metrics.peer_refused.get_or_create(&[("reason", "malformed")]).inc();
            }
            tracing::warn!(peer = %from.name, %error, "ended a stream of this peer");
            if kind == StreamKind::Session {
                // best effort: the peer may be gone already
                let _ = stream.send(&wire::encode(&Response::Failed(error.to_string()))).await;
                let _ = stream.finish().await;
            }
        }
    }
}

/// Merges the records that a peer pushes, frame by frame.
async fn merge_pushes(
    context: &Context,
    id: NodeId,
    stream: &mut Stream,
) -> Result<(), ServeError> {
    while let Some(frame) = stream.receive_within(SILENCE_MAX).await? {
        match wire::decode(&frame)? {
            Push::Records(records) => {
                let count = records.len() as u64;
                context.metrics.push_records.get_or_create(&RECEIVED).inc_by(count);
                context.store.apply(checked(context, records).await?).await?;
            }
            Push::Report(report) => context.status.reported(id, report, context.clock.now()),
        }
    }
    Ok(())
}

/// Checks the hashes of all values, on a thread that may block.
async fn checked(
    context: &Context,
    records: Vec<WireRecord>,
) -> Result<Vec<(Key, Record)>, wire::WireError> {
    let check = move |_: &Store| records.into_iter().map(WireRecord::checked).collect();
    context.store.blocking(check).await
}

async fn serve_session(
    context: &Context,
    id: NodeId,
    stream: &mut Stream,
) -> Result<(), ServeError> {
    while let Some(frame) = stream.receive_within(SILENCE_MAX).await? {
        let request: Request = wire::decode(&frame)?;
        match &request {
            Request::Begin { report, .. } => {
                context.status.reported(id, *report, context.clock.now());
            }
            Request::End(report) => {
                context.status.finished(id, *report, context.clock.now());
            }
            _ => {}
        }
        let responder = Responder {
            report: context.report(),
            busy: context.intake.is_busy(),
            limits: SessionLimits::STANDARD,
        };
        let answer = move |store: &Store| responder.respond(request, store);
        let response = match context.store.blocking(answer).await? {
            Reply::Answer(response) => response,
            Reply::Apply(records) => {
                let count = records.len() as u64;
                context.metrics.sync_records.get_or_create(&RECEIVED).inc_by(count);
                context.store.apply(records).await?;
                Response::Taken
            }
        };
        stream.send(&wire::encode(&response)).await?;
    }
    Ok(())
}
