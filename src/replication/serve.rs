//! Answers the streams that peers open: merges what they push, and serves their sessions.

use std::time::Duration;

use super::{Context, pull};
use crate::model::{Key, NodeId, Record};
use crate::peer::{Incoming, PeerError, Stream, StreamKind};
use crate::proto::reconcile::{Reply, Responder, SessionError, SessionLimits};
use crate::proto::wire::{self, Push, Request, Response, WireRecord};
use crate::store::{ReadError, Store, WriteError};

/// How long a stream may be silent: a driver goes on at once, a push stream reports every few
/// seconds.
const SILENCE_MAX: Duration = Duration::from_secs(60);

const RECEIVED: [(&str, &str); 1] = [("direction", "received")];

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

/// Serves one stream to its end.
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
            // a frame that is cut or too long has been counted where it was read
            if matches!(
                error,
                ServeError::Malformed(_) | ServeError::Session(SessionError::Malformed(_))
            ) {
                context.metrics.peer_refused.get_or_create(&[("reason", "malformed")]).inc();
            }
            tracing::warn!(peer = %from.name, %error, "a stream of this peer was ended");
            if kind == StreamKind::Session {
                // the other side learns why; that it may be gone already is no news
                let _ = stream.send(&wire::encode(&Response::Failed(error.to_string()))).await;
                let _ = stream.finish().await;
            }
        }
    }
}

/// Merges what a peer pushes. The next frame is read when the last one is durable, so a peer cannot
/// fill this node's memory.
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

/// Checks the hashes of all values, where that may take its time.
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
            report: pull::report(context),
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
