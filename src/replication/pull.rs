//! Drives one reconcile session over a stream of its own.

use std::sync::Arc;
use std::time::Duration;

use super::Context;
use super::intake::Turn;
use crate::model::NodeId;
use crate::model::member::{Report, SyncReport};
use crate::peer::{Link, PeerError, Stream, StreamKind};
use crate::proto::reconcile::{Initiator, Replica, SessionError, SessionLimits, Step};
use crate::proto::wire;
use crate::store::{ReadError, Store, WriteError};

/// How long a peer may take for one answer. It reads, and it may merge a frame of records.
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
    #[error("another session moves records")]
    NotMyTurn,
}

/// What this node tells of itself.
pub(super) fn report(context: &Context) -> Report {
    let root = context.store.root();
    Report {
        fingerprint: root.fingerprint(),
        records: root.count,
        syncing: context.status.is_syncing(),
        now: context.clock.now(),
    }
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Both sides have what either had.
    Done,
    /// The peer asked to wait.
    Busy,
    /// Something failed.
    Failed,
}

/// Runs one session with the peer `id` and says how it went.
pub(super) async fn pull(
    context: Context,
    link: Arc<dyn Link>,
    id: NodeId,
) -> (SyncReport, Outcome) {
    let began = context.clock.instant();
    let mut session = Session::new();
    let mut result = session.run(&context, link.as_ref(), id).await;
    if matches!(result, Err(PullError::NotMyTurn)) {
        // begun anew, because by then much of the difference is gone; the peer need not wait
        session.stream = None;
        let turn = context.intake.take().await;
        session = Session { turn: Some(turn), ..Session::new() };
        result = session.run(&context, link.as_ref(), id).await;
    }
    let outcome = match &result {
        Ok(()) => Outcome::Done,
        Err(PullError::Session(SessionError::Busy)) => Outcome::Busy,
        Err(_) => Outcome::Failed,
    };
    let label = match outcome {
        Outcome::Done => "done",
        Outcome::Busy => "busy",
        Outcome::Failed => "failed",
    };
    context.metrics.sync_sessions.get_or_create(&[("side", "pull"), ("outcome", label)]).inc();
    let tally = session.puller.tally();
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
    let report = SyncReport {
        id,
        rounds: tally.rounds,
        bytes_sent: session.stream.as_ref().map_or(0, Stream::bytes_sent),
        bytes_received: session.stream.as_ref().map_or(0, Stream::bytes_received),
        records_sent: tally.records_sent,
        records_received: tally.records_received,
        duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        error: result.err().map(|error| error.to_string()),
    };
    (report, outcome)
}

/// One attempt.
struct Session {
    puller: Initiator,
    stream: Option<Stream>,
    turn: Option<Turn>,
}

impl Session {
    fn new() -> Self {
        Self { puller: Initiator::new(SessionLimits::STANDARD), stream: None, turn: None }
    }

    async fn run(
        &mut self,
        context: &Context,
        link: &dyn Link,
        id: NodeId,
    ) -> Result<(), PullError> {
        let stream = self.stream.insert(link.open(StreamKind::Session).await?);
        let puller = &mut self.puller;
        loop {
            match step(context, puller).await? {
                Step::Apply(records) => drop(context.store.apply(records).await?),
                Step::Send(request) => {
                    let before = context.clock.now();
                    let met = puller.peer().is_none();
                    stream.send(&wire::encode(&request)).await?;
                    let frame = stream.receive_within(ANSWER_WAIT).await?;
                    let frame = frame.ok_or(PullError::Ended)?;
                    let response = wire::decode(&frame)?;
                    handle(context, puller, response).await?;
                    if let (true, Some(report)) = (met, puller.peer()) {
                        let after = context.clock.now();
                        context.status.compared_clocks(id, report.now, before, after);
                        context.status.reported(id, report, after);
                    }
                }
                Step::Done(report) => {
                    context.status.finished(id, report, context.clock.now());
                    stream.finish().await?;
                    return Ok(());
                }
            }
            if puller.differs() && self.turn.is_none() {
                self.turn = Some(context.intake.try_take().ok_or(PullError::NotMyTurn)?);
            }
            if let Some(turn) = &self.turn {
                turn.has_brought(puller.tally().records_received);
            }
        }
    }
}

/// Polls the machine, which reads the store, where that may block.
async fn step(context: &Context, puller: &mut Initiator) -> Result<Step, SessionError<ReadError>> {
    let report = report(context);
    on_store(context, puller, move |puller, store| puller.poll(store, report)).await
}

async fn handle(
    context: &Context,
    puller: &mut Initiator,
    response: wire::Response,
) -> Result<(), SessionError<ReadError>> {
    on_store(context, puller, move |puller, store| puller.handle(store, response)).await
}

/// Lends the machine to work that may block.
async fn on_store<T: Send + 'static>(
    context: &Context,
    puller: &mut Initiator,
    work: impl FnOnce(&mut Initiator, &Store) -> T + Send + 'static,
) -> T {
    let mut lent = std::mem::replace(puller, Initiator::new(SessionLimits::STANDARD));
    let work = move |store: &Store| {
        let result = work(&mut lent, store);
        (lent, result)
    };
    let (back, result) = context.store.blocking(work).await;
    *puller = back;
    result
}
