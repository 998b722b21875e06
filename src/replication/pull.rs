//! Drives one reconcile session, over a new stream.
//!
//! Promises that records from the peer are durable before the next request goes out. Must not know
//! when sessions are due or how frames travel.

use std::sync::Arc;
use std::time::Duration;

use super::aside;
use super::context::{Context, SEND_SILENCE_MAX};
use super::ended::{PullError, SessionEnd};
use super::intake::Turn;
use super::opening;
use crate::model::member::SyncReport;
use crate::model::{Key, NodeId, Record};
use crate::peer::{Link, Stream, StreamKind};
use crate::proto::reconcile::{HeldDifference, Initiator, SessionError, SessionLimits, Step};
use crate::proto::stability::{
    Anew, Bar, Bearer, Claim, Follow, Introduction, Judgement, LastWord, Ledger, NoOpening,
    SessionBegin,
};
use crate::proto::wire::{self, Ask, Request, Response, SessionAnswer};
use crate::store::{Applied, ReadError, Store};

/// How long a peer may be silent before it answers. It may have to merge a frame of records.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Runs one session with the peer `id`, with which an earlier session found no difference but
/// `known`. Returns its report, also when it failed, and what to know in the next one.
pub(super) async fn pull(
    context: Context,
    link: Arc<dyn Link>,
    id: NodeId,
    known: Option<HeldDifference>,
) -> (SyncReport, SessionEnd, Option<HeldDifference>) {
    let began = context.clock.instant();
    let mut attempt = Attempt::new(known);
    let mut result = attempt.run(&context, link.as_ref(), id).await;
    if matches!(result, Err(PullError::NotMyTurn)) {
        // a new session, because the one before us brings most of the difference; the stream is
        // closed meanwhile, so that the peer need not wait
        attempt.stream = None;
        let turn = context.intake.take().await;
        attempt = Attempt { turn: Some(turn), ..Attempt::new(known) };
        result = attempt.run(&context, link.as_ref(), id).await;
    }
    let end = SessionEnd::from(&result);
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
    let known = if end == SessionEnd::Done { attempt.initiator.held_difference() } else { known };
    (report, end, known)
}

/// One attempt at a session: the machine, its stream once open, and the turn once taken.
struct Attempt {
    initiator: Initiator,
    stream: Option<Stream>,
    turn: Option<Turn>,
    /// How many records were set aside in the comparison under way.
    set_aside: u64,
}

/// What a comparison is for.
enum Terms<'a> {
    /// Two counted nodes compare; this is what this side tells.
    Counted(SessionBegin),
    /// Two nodes that are not counted bring each other what they have.
    Exchange,
    /// This node follows the peer.
    Follow(&'a Follow),
}

impl Attempt {
    fn new(known: Option<HeldDifference>) -> Self {
        let initiator = Initiator::knowing(SessionLimits::STANDARD, known);
        Self { initiator, stream: None, turn: None, set_aside: 0 }
    }

    async fn run(
        &mut self,
        context: &Context,
        link: &dyn Link,
        id: NodeId,
    ) -> Result<(), PullError> {
        // what it would receive it could not merge; what it has, its peers fetch themselves
        check_merges(context)?;
        self.stream = Some(link.open(StreamKind::Session).await?);
        let before = context.clock.now();
        self.send(&Ask::Open(context.introduce())).await?;
        let SessionAnswer::Opened(them) = self.receive().await? else { return Err(out_of_turn()) };
        context.status.compared_clocks(id, them.clock, before, context.clock.now());
        opening::check(&them, id).map_err(PullError::Introduction)?;
        if context.is_busy_with(&them) {
            return Err(SessionError::Busy.into());
        }
        let mut judgement = context.judge(&them).await?;
        if matches!(judgement, Judgement::Refuse(NoOpening::Removed(_)))
            && *context.may_join.borrow()
        {
            judgement = Judgement::BeginAnew(Anew::NotCounted);
        }
        if let Judgement::BeginAnew(why) = judgement {
            context.begin_anew(why, &them).await?.map_err(PullError::Refused)?;
            if context.store.has_other_identity() {
                return Err(PullError::Refused("this node begins anew under a new id".to_owned()));
            }
            judgement = context.judge(&them).await?;
        }
        if !matches!(judgement, Judgement::Refuse(_) | Judgement::BeginAnew(_)) {
            context.status.stands_apart(id, false);
        }
        match judgement {
            Judgement::Compare { claims } => self.compare_counted(context, &them, claims).await?,
            Judgement::Exchange => self.compare(context, id, Terms::Exchange).await.map(drop)?,
            Judgement::Follow => self.follow(context, id).await?,
            // the peer is the one to ask
            Judgement::Serve => {}
            Judgement::Refuse(why) => return Err(PullError::Refused(opening::in_words(why))),
            Judgement::BeginAnew(_) => return Err(PullError::Refused("begins anew".to_owned())),
        }
        self.stream()?.finish().await?;
        Ok(())
    }

    /// Compares two counted nodes, and claims what that proves.
    async fn compare_counted(
        &mut self,
        context: &Context,
        them: &Introduction,
        claims: bool,
    ) -> Result<(), PullError> {
        let Some(begin) = context.begin(them, claims).await? else {
            return Err(PullError::Refused("one of the two nodes counts no more".to_owned()));
        };
        let closed = self.compare(context, them.id, Terms::Counted(begin)).await?;
        if let Some((claim, word)) = closed {
            context.finish(claim, word).await?;
        }
        Ok(())
    }

    /// Follows the peer until it counts this node.
    async fn follow(&mut self, context: &Context, id: NodeId) -> Result<(), PullError> {
        let Some(_following) = context.intake.try_follow() else {
            return Err(SessionError::Busy.into());
        };
        self.send(&Ask::Follow).await?;
        let mut answer = self.receive().await?;
        loop {
            let SessionAnswer::Offered(offer) = answer else { return Err(out_of_turn()) };
            let follow = move |ledger: &mut Ledger, _| ledger.follow(offer);
            let Some(follow) = context.store.change_ledger(follow).await? else {
                // another source has counted it meanwhile
                return Ok(());
            };
            // what was set aside may have stood in the way of what the source holds
            let mut again = true;
            while again {
                self.initiator = Initiator::receiving(SessionLimits::STANDARD);
                self.set_aside = 0;
                self.compare(context, id, Terms::Follow(&follow)).await?;
                again = self.set_aside > 0;
            }
            if self.initiator.holds_back_through(follow.truth_through()) {
                let why = "this node holds back records that every member has, as they lie too far \
                           ahead of its clock; set the wrong clock right (NTP)";
                return Err(PullError::Refused(why.to_owned()));
            }
            self.send(&Ask::Count).await?;
            answer = self.receive().await?;
            if let SessionAnswer::Counted(set) = answer {
                let count = move |ledger: &mut Ledger, _| ledger.count(&follow, set);
                if !context.store.change_ledger(count).await? {
                    return Err(PullError::Refused("the follow has ended; follows anew".into()));
                }
                return Ok(());
            }
        }
    }

    /// Compares records and exchanges those that differ. A counted node tells its begin first, and
    /// gets what it may claim afterwards, and the peer's last word.
    async fn compare(
        &mut self,
        context: &Context,
        id: NodeId,
        terms: Terms<'_>,
    ) -> Result<Option<(Claim, LastWord)>, PullError> {
        let began = context.clock.instant().into_std();
        let tells = matches!(terms, Terms::Counted(_));
        if let Terms::Counted(begin) = &terms {
            self.send(&Ask::Tell(begin.clone())).await?;
        }
        let life = match &terms {
            Terms::Follow(follow) => follow.life(),
            Terms::Counted(_) | Terms::Exchange => context.store.ledger().life(),
        };
        let mut claim: Option<Claim> = None;
        loop {
            match step(context, &mut self.initiator).await? {
                Step::Apply(records) => {
                    let applied = apply(context, Bearer::Session(id, life), records).await?;
                    self.initiator.hold(applied.held);
                }
                Step::Surplus(keys) => {
                    if let Terms::Follow(follow) = &terms {
                        self.set_aside += aside::set_aside(context, follow, keys).await?;
                    }
                }
                Step::Send(request) => {
                    let first = self.initiator.peer().is_none();
                    let ends = matches!(request, Request::End { .. });
                    self.send(&Ask::Compare(request)).await?;
                    if let Some(claim) = claim.as_ref().filter(|_| ends) {
                        let word = context.store.ledger().last_word(claim);
                        self.send(&Ask::Close(word)).await?;
                    }
                    if first && tells {
                        let SessionAnswer::Told(theirs) = self.receive().await? else {
                            return Err(out_of_turn());
                        };
                        claim = Some(context.hear_begin(theirs).await?);
                    }
                    let SessionAnswer::Compared(response) = self.receive().await? else {
                        return Err(out_of_turn());
                    };
                    handle(context, &mut self.initiator, response).await?;
                    if let (true, Some(report)) = (first, self.initiator.peer()) {
                        context.status.reported(id, report, &context.clock);
                    }
                }
                Step::Done(report) => {
                    let held = self.initiator.held();
                    context.status.finished(id, report, held, began, &context.clock);
                    let Some(mut claim) = claim else { return Ok(None) };
                    if held.is_any() {
                        claim.bar(Bar::HeldBack);
                    }
                    let SessionAnswer::Closed(word) = self.receive().await? else {
                        return Err(out_of_turn());
                    };
                    return Ok(Some((claim, word)));
                }
            }
            if self.initiator.differs() && self.turn.is_none() {
                self.turn = Some(context.intake.try_take().ok_or(PullError::NotMyTurn)?);
            }
            if let Some(turn) = &self.turn {
                turn.has_brought(self.initiator.tally().records_received);
            }
        }
    }

    fn stream(&mut self) -> Result<&mut Stream, PullError> {
        self.stream.as_mut().ok_or(PullError::Ended)
    }

    async fn send(&mut self, ask: &Ask) -> Result<(), PullError> {
        self.stream()?.send_within(&wire::encode(ask), SEND_SILENCE_MAX).await?;
        Ok(())
    }

    async fn receive(&mut self) -> Result<SessionAnswer, PullError> {
        let frame = self.stream()?.receive_within(ANSWER_WAIT).await?;
        match wire::decode(&frame.ok_or(PullError::Ended)?)? {
            SessionAnswer::Compared(Response::Failed(why)) => Err(SessionError::Peer(why).into()),
            SessionAnswer::Compared(Response::Busy) => Err(SessionError::Busy.into()),
            answer => Ok(answer),
        }
    }
}

/// Merges what the peer gave.
async fn apply(
    context: &Context,
    bearer: Bearer,
    records: Vec<(Key, Record)>,
) -> Result<Applied, PullError> {
    match context.store.apply_from(bearer, records).await {
        Ok(applied) if applied.ended => Err(PullError::Refused(
            "this node began anew, or follows another source; another session will follow".into(),
        )),
        Ok(applied) => {
            context.metrics.records_held.inc_by(applied.held.records);
            Ok(applied)
        }
        Err(error) => {
            check_merges(context)?;
            Err(error.into())
        }
    }
}

fn out_of_turn() -> PullError {
    PullError::Session(SessionError::Malformed("an answer to something else".to_owned()))
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
