//! Answers the streams that peers open: merges the records they push, and serves their sessions.
//!
//! Promises to read the next frame only after the records of the last one are durable, so that a
//! peer cannot fill this node's memory. Must not know how frames travel.

use std::time::Duration;

use super::context::{Context, SEND_SILENCE_MAX};
use crate::model::{Key, Member, Record};
use crate::peer::{Incoming, PeerError, Stream, StreamKind};
use crate::proto::reconcile::{Reply, Responder, SessionError, SessionLimits};
use crate::proto::wire::{self, Push, PushAnswer, Request, Response, WireRecord};
use crate::store::{Obstacle, ReadError, Store, WriteError};

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
    #[error("{0}")]
    Refused(String),
}

/// Serves one stream to its end, and tells the peer why a session failed.
pub(super) async fn serve(context: Context, incoming: Incoming) {
    let Incoming { from, kind, mut stream } = incoming;
    let result = match kind {
        StreamKind::Push => merge_pushes(&context, &from, &mut stream).await,
        StreamKind::Session => {
            let result = serve_session(&context, &from, &mut stream).await;
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
        Err(ServeError::Refused(why)) => {
            // the log tells it once, where the members are followed
            context.metrics.peer_refused.get_or_create(&[("reason", "name")]).inc();
            if kind == StreamKind::Session {
                fail(&mut stream, why).await;
            }
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
                fail(&mut stream, error.to_string()).await;
            }
        }
    }
}

/// Tells the peer why its session ends. Best effort: it may be gone already.
async fn fail(stream: &mut Stream, why: String) {
    let response = wire::encode(&Response::Failed(why));
    let _ = stream.send_within(&response, SEND_SILENCE_MAX).await;
    let _ = stream.finish().await;
}

/// Fails when another member of the peer's name came first.
fn check_name(context: &Context, from: &Member) -> Result<(), ServeError> {
    context.refuses(from).map_or(Ok(()), |why| Err(ServeError::Refused(why)))
}

/// Merges the records that a peer pushes, frame by frame.
async fn merge_pushes(
    context: &Context,
    from: &Member,
    stream: &mut Stream,
) -> Result<(), ServeError> {
    while let Some(frame) = stream.receive_within(SILENCE_MAX).await? {
        check_name(context, from)?;
        match wire::decode(&frame)? {
            Push::Records(records) => {
                let count = records.len() as u64;
                context.metrics.push_records.get_or_create(&RECEIVED).inc_by(count);
                let paused = merge(context, checked(context, records).await?).await?;
                if let Some(why) = paused {
                    // a session brings them once merges go on; the stream goes on for its reports
                    context.metrics.merges_paused.inc_by(count);
                    tracing::debug!(peer = %from.name, count, %why, "pushes were not taken");
                }
                let taken = paused.is_none();
                let answer = if taken { PushAnswer::Durable } else { PushAnswer::NotTaken };
                stream.send_within(&wire::encode(&answer), SEND_SILENCE_MAX).await?;
            }
            Push::Report(report) => context.status.reported(from.id, report, &context.clock),
        }
    }
    Ok(())
}

/// Merges records, unless merges are paused: then says why, and takes none.
async fn merge(
    context: &Context,
    records: Vec<(Key, Record)>,
) -> Result<Option<Obstacle>, WriteError> {
    match context.store.apply(records).await {
        Ok(_) => Ok(None),
        // a failure of another kind may have the pause as its cause, too
        Err(error) => context.store.merge_pause().map_or(Err(error), |why| Ok(Some(why))),
    }
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
    from: &Member,
    stream: &mut Stream,
) -> Result<(), ServeError> {
    let mut had_all = false;
    let mut began = context.clock.instant().into_std();
    while let Some(frame) = stream.receive_within(SILENCE_MAX).await? {
        check_name(context, from)?;
        let request: Request = wire::decode(&frame)?;
        match &request {
            Request::Begin { report, .. } => {
                had_all = !report.syncing;
                began = context.clock.instant().into_std();
                context.status.reported(from.id, *report, &context.clock);
            }
            Request::End(report) => {
                context.status.finished(from.id, *report, had_all, began, &context.clock);
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
                if let Some(why) = merge(context, records).await? {
                    context.metrics.merges_paused.inc_by(count);
                    Response::Paused(why.to_string())
                } else {
                    context.metrics.sync_records.get_or_create(&RECEIVED).inc_by(count);
                    Response::Taken
                }
            }
        };
        stream.send_within(&wire::encode(&response), SEND_SILENCE_MAX).await?;
    }
    Ok(())
}
