//! Answers the streams that peers open: merges the records they push, and serves their sessions.
//!
//! Promises to read the next frame only after the records of the last one are durable, so that a
//! peer cannot fill this node's memory. Must not know how frames travel.

use std::time::{Duration, Instant};

use super::context::{Context, SEND_SILENCE_MAX};
use super::opening;
use crate::model::{HeldBack, Key, Member, Record, Timestamp};
use crate::peer::{Incoming, PeerError, Stream, StreamKind};
use crate::proto::reconcile::{Reply, Responder, SessionError, SessionLimits};
use crate::proto::stability::{
    Bar, Bearer, Claim, Introduction, Judgement, LastWord, Ledger, Life, NoOpening, Offer,
    SessionBegin, StableTold, Start,
};
use crate::proto::wire::{
    self, Ask, Push, PushAnswer, Request, Response, SessionAnswer, WireRecord,
};
use crate::store::{Applied, Obstacle, ReadError, Store, WriteError};

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
    #[error("malformed: {0}")]
    Introduction(String),
    #[error("{0}")]
    NoSession(String),
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
        Err(ServeError::NoSession(why)) => {
            tracing::debug!(peer = %from.name, why, "no session with this peer now");
            if kind == StreamKind::Session {
                fail(&mut stream, why).await;
            }
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
                ServeError::Malformed(_)
                    | ServeError::Introduction(_)
                    | ServeError::Session(SessionError::Malformed(_))
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
    let response = wire::encode(&SessionAnswer::Compared(Response::Failed(why)));
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
    let mut start = None;
    while let Some(frame) = stream.receive_within(SILENCE_MAX).await? {
        check_name(context, from)?;
        match wire::decode(&frame)? {
            Push::Hello(them) => start = Some(greet(context, from, &them).await?),
            Push::Records(records) => {
                let taken = take_pushed(context, from, start, records).await?;
                let answer = if taken { PushAnswer::Durable } else { PushAnswer::NotTaken };
                stream.send_within(&wire::encode(&answer), SEND_SILENCE_MAX).await?;
            }
            Push::Report(report) => context.status.reported(from.id, report, &context.clock),
            Push::Stable(word) => hear(context, from, word).await?,
        }
    }
    Ok(())
}

/// Judges who the sender of a push stream is; gives its start.
async fn greet(context: &Context, from: &Member, them: &Introduction) -> Result<Start, ServeError> {
    opening::check(them, from.id).map_err(ServeError::Introduction)?;
    // whether its records are taken, each frame of them decides; the stream stays, as the end of it
    // would cut a session in which the sender learns what became of it
    context.judge(them).await?;
    Ok(them.start)
}

/// Merges records that a member pushes in the life that the durable set names. Others are left to a
/// session, which proves what they rest on. Answers whether they were taken.
async fn take_pushed(
    context: &Context,
    from: &Member,
    start: Option<Start>,
    records: Vec<WireRecord>,
) -> Result<bool, ServeError> {
    let count = records.len() as u64;
    context.metrics.push_records.get_or_create(&RECEIVED).inc_by(count);
    let start = start.ok_or_else(out_of_turn)?;
    let bearer = Bearer::Pushed(from.id, start);
    if !context.store.ledger().takes(bearer) {
        context.metrics.pushes_untaken.inc_by(count);
        tracing::debug!(peer = %from.name, count, "pushes of no member were not taken");
        return Ok(false);
    }
    match merge(context, bearer, checked(context, records).await?).await? {
        Ok(applied) => {
            context.status.held(from.id, applied.held);
            Ok(!applied.held.is_any())
        }
        Err(why) => {
            // a session brings them once merges go on; the stream goes on for its reports
            context.metrics.merges_paused.inc_by(count);
            tracing::debug!(peer = %from.name, count, %why, "pushes were not taken");
            Ok(false)
        }
    }
}

/// Hears a member's stable; writes it only when it is news.
async fn hear(context: &Context, from: &Member, word: StableTold) -> Result<(), ServeError> {
    if word.id != from.id {
        return Err(out_of_turn());
    }
    context.change_ledger_if_news(move |ledger, _| ledger.hear(&word)).await?;
    Ok(())
}

/// Merges records, unless merges are paused: then says why, and takes none.
async fn merge(
    context: &Context,
    bearer: Bearer,
    records: Vec<(Key, Record)>,
) -> Result<Result<Applied, Obstacle>, ServeError> {
    match context.store.apply_from(bearer, records).await {
        Ok(applied) if applied.ended => {
            Err(ServeError::NoSession("one of the two nodes counts no more, or anew".to_owned()))
        }
        Ok(applied) => {
            context.metrics.records_held.inc_by(applied.held.records);
            Ok(Ok(applied))
        }
        // a failure of another kind may have the pause as its cause, too
        Err(error) => context.store.merge_pause().map_or(Err(error.into()), |why| Ok(Err(why))),
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

/// One session that a peer drives.
struct ServedSession<'a> {
    context: &'a Context,
    from: &'a Member,
    /// Who the peer is, what follows from it, and the life of this node in which it was judged;
    /// `None` until it has said so.
    opened: Option<(Introduction, Judgement, Life)>,
    /// What this node may claim when the comparison has ended.
    claim: Option<Claim>,
    /// What the peer follows, if it is a newcomer.
    offer: Option<Offer>,
    /// When the comparison began.
    began: Instant,
    /// How far ahead the records may lie that the peer merges.
    peer_horizon: Timestamp,
}

async fn serve_session(
    context: &Context,
    from: &Member,
    stream: &mut Stream,
) -> Result<(), ServeError> {
    let (opened, claim, offer) = (None, None, None);
    let (began, peer_horizon) = (context.clock.instant().into_std(), Timestamp::MAX);
    let mut session = ServedSession { context, from, opened, claim, offer, began, peer_horizon };
    while let Some(frame) = stream.receive_within(SILENCE_MAX).await? {
        check_name(context, from)?;
        let answer = session.answer(wire::decode(&frame)?).await?;
        stream.send_within(&wire::encode(&answer), SEND_SILENCE_MAX).await?;
    }
    Ok(())
}

impl ServedSession<'_> {
    async fn answer(&mut self, ask: Ask) -> Result<SessionAnswer, ServeError> {
        match ask {
            Ask::Open(them) => self.open(them).await,
            Ask::Tell(theirs) => self.tell(theirs).await,
            Ask::Compare(request) => Ok(SessionAnswer::Compared(self.compare(request).await?)),
            Ask::Close(word) => self.close(word).await,
            Ask::Follow => self.offer().await,
            Ask::Count => self.count().await,
        }
    }

    async fn open(&mut self, them: Introduction) -> Result<SessionAnswer, ServeError> {
        opening::check(&them, self.from.id).map_err(ServeError::Introduction)?;
        if self.context.is_busy_with(&them) {
            return Ok(SessionAnswer::Compared(Response::Busy));
        }
        // one that is refused hears who refuses it: that may be news to it
        let judgement = self.context.judge(&them).await?;
        if matches!(judgement, Judgement::Follow | Judgement::BeginAnew(_)) {
            // this node has to do it; a full channel: sessions are due anyway
            let _ = self.context.due.try_send(self.from.id);
        }
        let life = self.context.store.ledger().life();
        self.opened = Some((them, judgement, life));
        Ok(SessionAnswer::Opened(self.context.introduce()))
    }

    fn opened(&self) -> Result<&(Introduction, Judgement, Life), ServeError> {
        match self.opened.as_ref().ok_or_else(out_of_turn)? {
            (_, Judgement::Refuse(why), _) => Err(ServeError::NoSession(opening::in_words(*why))),
            opened => Ok(opened),
        }
    }

    async fn tell(&mut self, theirs: SessionBegin) -> Result<SessionAnswer, ServeError> {
        let (them, Judgement::Compare { claims }, _) = self.opened()? else {
            return Err(out_of_turn());
        };
        if theirs.id != them.id {
            return Err(out_of_turn());
        }
        let Some(begin) = self.context.begin(them, *claims).await? else {
            let why = "one of the two nodes counts no more".to_owned();
            return Err(ServeError::NoSession(why));
        };
        self.claim = Some(self.context.hear_begin(theirs).await?);
        Ok(SessionAnswer::Told(begin))
    }

    /// Whether the peer may compare records now, and whether it may give any.
    fn admits(&self) -> Result<bool, ServeError> {
        match (self.opened()?.1, &self.claim, &self.offer) {
            (Judgement::Compare { .. }, Some(_), _) | (Judgement::Exchange, ..) => Ok(true),
            (Judgement::Serve, _, Some(_)) => Ok(false),
            _ => Err(out_of_turn()),
        }
    }

    async fn compare(&mut self, request: Request) -> Result<Response, ServeError> {
        let context = self.context;
        let gives = self.admits()?;
        match &request {
            Request::Begin { report, .. } => {
                (self.began, self.peer_horizon) =
                    (context.clock.instant().into_std(), report.horizon);
                context.status.reported(self.from.id, *report, &context.clock);
            }
            Request::End { report, held } if gives => {
                self.hold(*held);
                context.status.finished(self.from.id, *report, *held, self.began, &context.clock);
            }
            Request::Give(_) if !gives => return Err(out_of_turn()),
            _ => {}
        }
        let responder = Responder {
            report: context.report(),
            busy: context.intake.is_busy(),
            peer_horizon: self.peer_horizon,
            limits: SessionLimits::STANDARD,
        };
        let answer = move |store: &Store| responder.respond(request, store);
        let records = match context.store.blocking(answer).await? {
            Reply::Answer(response) => return Ok(response),
            Reply::Apply(records) => records,
        };
        let count = records.len() as u64;
        let bearer = Bearer::Session(self.from.id, self.opened()?.2);
        let applied = match merge(context, bearer, records).await? {
            Ok(applied) => applied,
            Err(why) => {
                context.metrics.merges_paused.inc_by(count);
                return Ok(Response::Paused(why.to_string()));
            }
        };
        self.hold(applied.held);
        context.metrics.sync_records.get_or_create(&RECEIVED).inc_by(count);
        Ok(Response::Taken(applied.held))
    }

    /// A comparison in which one of the sides holds records back proves nothing.
    fn hold(&mut self, held: HeldBack) {
        if let Some(claim) = self.claim.as_mut().filter(|_| held.is_any()) {
            claim.bar(Bar::HeldBack);
        }
    }

    async fn close(&mut self, word: LastWord) -> Result<SessionAnswer, ServeError> {
        let claim = self.claim.take().ok_or_else(out_of_turn)?;
        let own = self.context.store.ledger().last_word(&claim);
        self.context.finish(claim, word).await?;
        Ok(SessionAnswer::Closed(own))
    }

    /// What the peer, a newcomer, follows.
    async fn offer(&mut self) -> Result<SessionAnswer, ServeError> {
        let (_, Judgement::Serve, _) = self.opened()? else { return Err(out_of_turn()) };
        let offer = self.context.store.change_ledger(|ledger, _| ledger.offer()).await?;
        let gone = || ServeError::NoSession("this node counts no more".to_owned());
        let offer = offer.ok_or_else(gone)?.ledger_is_durable();
        self.offer = Some(offer.clone());
        Ok(SessionAnswer::Offered(offer))
    }

    async fn count(&mut self) -> Result<SessionAnswer, ServeError> {
        let them = self.opened()?.0.clone();
        let offer = self.offer.clone().ok_or_else(out_of_turn)?;
        let enter = move |ledger: &mut Ledger, _| ledger.enter(them.id, them.start, &offer);
        if let Some(set) = self.context.store.change_ledger(enter).await? {
            return Ok(SessionAnswer::Counted(set.ledger_is_durable()));
        }
        let ledger = self.context.store.ledger();
        let gone = ledger.set.as_ref().and_then(|set| set.gone.get(&self.from.id).copied());
        match gone {
            // it hears so when it opens the next session
            Some(why) => Err(ServeError::NoSession(opening::in_words(NoOpening::Gone(why)))),
            None => self.offer().await,
        }
    }
}

fn out_of_turn() -> ServeError {
    ServeError::Session(SessionError::Malformed("a message out of turn".to_owned()))
}
