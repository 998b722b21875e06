//! Drives one reconcile session over a stream of its own.

use std::sync::Arc;
use std::time::Duration;

use super::Context;
use crate::model::NodeId;
use crate::model::member::{Report, SyncReport};
use crate::peer::{Link, PeerError, Stream, StreamKind};
use crate::proto::reconcile::{Limits, Puller, Replica, SessionError, Step};
use crate::proto::wire;
use crate::store::{ReadError, Store, WriteError};

/// How long a peer may be silent while an answer is awaited. A peer that is gone is noticed sooner,
/// by its connection; this is for one that lives and does not answer.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Why a session ended early. What was merged until then stays merged.
#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Session(#[from] SessionError<ReadError>),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("malformed: {0}")]
    Malformed(#[from] wire::WireError),
    #[error("the peer ended the session")]
    Ended,
}

/// What this node tells of itself.
pub(super) fn report(context: &Context) -> Report {
    let root = context.store.root();
    Report { fingerprint: root.fingerprint(), records: root.count, now: context.clock.now() }
}

/// Runs one session with the peer `id` and says how it went.
pub(super) async fn pull(context: Context, link: Arc<dyn Link>, id: NodeId) -> SyncReport {
    let began = context.clock.instant();
    let mut puller = Puller::new(Limits::STANDARD);
    let mut stream = None;
    let result = run(&context, link.as_ref(), id, &mut puller, &mut stream).await;
    let outcome = if result.is_ok() { "done" } else { "failed" };
    context.metrics.sync_sessions.get_or_create(&[("side", "pull"), ("outcome", outcome)]).inc();
    let tally = puller.tally();
    let count = |direction, records| {
        let counter = context.metrics.sync_records.get_or_create(&[("direction", direction)]);
        counter.inc_by(records);
    };
    count("sent", tally.records_sent);
    count("received", tally.records_received);
    if let Err(error @ (PullError::Malformed(_) | PullError::Session(SessionError::Malformed(_)))) =
        &result
    {
        context.metrics.peer_refused.get_or_create(&[("reason", "malformed")]).inc();
        tracing::warn!(peer = %id, %error, "a session with this peer was ended");
    } else if let Err(error) = &result {
        tracing::debug!(peer = %id, %error, "a session ended early; it will be begun again");
    }
    SyncReport {
        id,
        rounds: tally.rounds,
        bytes_sent: stream.as_ref().map_or(0, Stream::bytes_sent),
        bytes_received: stream.as_ref().map_or(0, Stream::bytes_received),
        records_sent: tally.records_sent,
        records_received: tally.records_received,
        duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        error: result.err().map(|error| error.to_string()),
    }
}

async fn run(
    context: &Context,
    link: &dyn Link,
    id: NodeId,
    puller: &mut Puller,
    opened: &mut Option<Stream>,
) -> Result<(), PullError> {
    let stream = opened.insert(link.open(StreamKind::Session).await?);
    loop {
        match step(context, puller).await? {
            Step::Apply(records) => drop(context.store.apply(records).await?),
            Step::Send(request) => {
                let before = context.clock.now();
                let met = puller.peer().is_none();
                stream.send(&wire::encode(&request)).await?;
                let frame = stream.receive_within(ANSWER_WAIT).await?.ok_or(PullError::Ended)?;
                let response = wire::decode(&frame)?;
                handle(context, puller, response).await?;
                if let (true, Some(report)) = (met, puller.peer()) {
                    let after = context.clock.now();
                    context.status.compared_clocks(id, report.now, before, after);
                    context.status.reported(id, report, after);
                }
            }
            Step::Done(report) => {
                context.status.finished(id, report, context.clock.now(), true);
                stream.finish().await?;
                return Ok(());
            }
        }
    }
}

/// Polls the machine, which reads the store, where that may block.
async fn step(context: &Context, puller: &mut Puller) -> Result<Step, SessionError<ReadError>> {
    let report = report(context);
    on_store(context, puller, move |puller, store| puller.poll(store, report)).await
}

async fn handle(
    context: &Context,
    puller: &mut Puller,
    response: wire::Response,
) -> Result<(), SessionError<ReadError>> {
    on_store(context, puller, move |puller, store| puller.handle(store, response)).await
}

/// Lends the machine to work that may block.
async fn on_store<T: Send + 'static>(
    context: &Context,
    puller: &mut Puller,
    work: impl FnOnce(&mut Puller, &Store) -> T + Send + 'static,
) -> T {
    let mut lent = std::mem::replace(puller, Puller::new(Limits::STANDARD));
    let work = move |store: &Store| {
        let result = work(&mut lent, store);
        (lent, result)
    };
    let (back, result) = context.store.blocking(work).await;
    *puller = back;
    result
}
