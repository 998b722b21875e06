//! Drives one reconcile session, over a new stream.
//!
//! Promises that records from the peer are durable before the next request goes out. Must not know
//! when sessions are due or how frames travel.

use std::sync::Arc;
use std::time::Duration;

use super::context::{Context, SEND_SILENCE_MAX};
use super::intake::Turn;
use crate::model::NodeId;
use crate::model::member::SyncReport;
use crate::peer::{Link, PeerError, Stream, StreamKind};
use crate::proto::reconcile::{Initiator, SessionError, SessionLimits, Step};
use crate::proto::wire;
use crate::store::{Obstacle, ReadError, Store, WriteError};

/// How long a peer may be silent before it answers. It may have to merge a frame of records.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Why a session ended early. Records merged before that stay merged.
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
    #[error("this node takes no records now: {0}")]
    Paused(Obstacle),
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionEnd {
    /// Each side has every record that the other had.
    Done,
    /// The peer asked this node to try again later.
    Busy,
    /// One side takes no records, as its disk has too little room. It goes on by itself.
    Paused,
    /// The session broke, or the peer violated the protocol.
    Failed,
}

impl SessionEnd {
    /// The `outcome` label of `sync_sessions`.
    fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Busy => "busy",
            Self::Paused => "paused",
            Self::Failed => "failed",
        }
    }
}

/// Runs one session with the peer `id`. Returns its report, also when it failed.
pub(super) async fn pull(
    context: Context,
    link: Arc<dyn Link>,
    id: NodeId,
) -> (SyncReport, SessionEnd) {
    let began = context.clock.instant();
    let mut attempt = Attempt::new();
    let mut result = attempt.run(&context, link.as_ref(), id).await;
    if matches!(result, Err(PullError::NotMyTurn)) {
        // a new session, because the one before us brings most of the difference; the stream is
        // closed meanwhile, so that the peer need not wait
        attempt.stream = None;
        let turn = context.intake.take().await;
        attempt = Attempt { turn: Some(turn), ..Attempt::new() };
        result = attempt.run(&context, link.as_ref(), id).await;
    }
    let end = match &result {
        Ok(()) => SessionEnd::Done,
        Err(PullError::Session(SessionError::Busy)) => SessionEnd::Busy,
        Err(PullError::Session(SessionError::Paused(_)) | PullError::Paused(_)) => {
            SessionEnd::Paused
        }
        Err(_) => SessionEnd::Failed,
    };
    let labels = [("side", "pull"), ("outcome", end.label())];
    context.metrics.sync_sessions.get_or_create(&labels).inc();
    let tally = attempt.initiator.tally();
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
        tracing::warn!(peer = %id, %error, "ended a session with this peer");
    } else if let Err(error) = &result {
        tracing::debug!(peer = %id, %error, "a session ended early; another one will follow");
    }
    let report = SyncReport {
        id,
        rounds: tally.rounds,
        bytes_sent: attempt.stream.as_ref().map_or(0, Stream::bytes_sent),
        bytes_received: attempt.stream.as_ref().map_or(0, Stream::bytes_received),
        records_sent: tally.records_sent,
        records_received: tally.records_received,
        duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        error: result.err().map(|error| error.to_string()),
    };
    (report, end)
}

/// One attempt at a session: the machine, its stream once open, and the turn once taken.
struct Attempt {
    initiator: Initiator,
    stream: Option<Stream>,
    turn: Option<Turn>,
}

impl Attempt {
    fn new() -> Self {
        Self { initiator: Initiator::new(SessionLimits::STANDARD), stream: None, turn: None }
    }

    async fn run(
        &mut self,
        context: &Context,
        link: &dyn Link,
        id: NodeId,
    ) -> Result<(), PullError> {
        // what it would receive it could not merge; what it has, its peers fetch themselves
        check_merges(context)?;
        let began = context.clock.instant().into_std();
        let stream = self.stream.insert(link.open(StreamKind::Session).await?);
        let initiator = &mut self.initiator;
        loop {
            match step(context, initiator).await? {
                Step::Apply(records) => match context.store.apply(records).await {
                    Ok(_) => {}
                    Err(error) => {
                        check_merges(context)?;
                        return Err(error.into());
                    }
                },
                Step::Send(request) => {
                    let before = context.clock.now();
                    let first = initiator.peer().is_none();
                    stream.send_within(&wire::encode(&request), SEND_SILENCE_MAX).await?;
                    let frame = stream.receive_within(ANSWER_WAIT).await?;
                    let frame = frame.ok_or(PullError::Ended)?;
                    let response = wire::decode(&frame)?;
                    handle(context, initiator, response).await?;
                    if let (true, Some(report)) = (first, initiator.peer()) {
                        let after = context.clock.now();
                        context.status.compared_clocks(id, report.now, before, after);
                        context.status.reported(id, report, &context.clock);
                    }
                }
                Step::Done(report) => {
                    // what it lacked at the beginning it may have gained since, in ranges that were
                    // compared by then
                    let had_all = initiator.peer().is_some_and(|begun| !begun.syncing);
                    context.status.finished(id, report, had_all, began, &context.clock);
                    stream.finish().await?;
                    return Ok(());
                }
            }
            if initiator.differs() && self.turn.is_none() {
                self.turn = Some(context.intake.try_take().ok_or(PullError::NotMyTurn)?);
            }
            if let Some(turn) = &self.turn {
                turn.has_brought(initiator.tally().records_received);
            }
        }
    }
}

/// Fails while this node merges nothing.
fn check_merges(context: &Context) -> Result<(), PullError> {
    context.store.merge_pause().map_or(Ok(()), |why| Err(PullError::Paused(why)))
}

/// Polls the machine, on a thread that may block because the machine reads the store.
async fn step(
    context: &Context,
    initiator: &mut Initiator,
) -> Result<Step, SessionError<ReadError>> {
    let report = context.report();
    on_store(context, initiator, move |initiator, store| initiator.poll(store, report)).await
}

/// Hands the peer's response to the machine, on a thread that may block.
async fn handle(
    context: &Context,
    initiator: &mut Initiator,
    response: wire::Response,
) -> Result<(), SessionError<ReadError>> {
    on_store(context, initiator, move |initiator, store| initiator.handle(store, response)).await
}

/// Runs `work` on a thread that may block, and moves the machine there and back.
async fn on_store<T: Send + 'static>(
    context: &Context,
    initiator: &mut Initiator,
    work: impl FnOnce(&mut Initiator, &Store) -> T + Send + 'static,
) -> T {
    let mut lent = std::mem::replace(initiator, Initiator::new(SessionLimits::STANDARD));
    let work = move |store: &Store| {
        let result = work(&mut lent, store);
        (lent, result)
    };
    let (back, result) = context.store.blocking(work).await;
    *initiator = back;
    result
}
