//! The task of one peer: holds a connection, pushes over it, and runs sessions when they are due.
//!
//! A session is due after each connect, after a missed push, and when ordered. Promises that at
//! most one session with this peer runs at a time, and that each order gets an answer. A failed
//! session needs no repair: the next one finds all remaining differences.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;

use super::context::Context;
use super::ended::SessionEnd;
use super::interruption::Interruption;
use super::pull;
use super::push;
use crate::model::Member;
use crate::model::member::SyncReport;
use crate::peer;
use crate::proto::reconcile::HeldDifference;

/// The wait after the first failed attempt; it doubles with each further one.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest wait between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How long to leave a peer alone that is busy receiving records from another one.
const BUSY_WAIT: Duration = Duration::from_secs(1);
/// How long to wait while one side takes no records. A node begins sessions itself when it takes
/// them again, so its peers need not ask often.
const PAUSED_WAIT: Duration = Duration::from_secs(1);
const PEER_PAUSED_WAIT: Duration = Duration::from_secs(10);

/// An order for a session now.
pub(super) struct Order {
    /// Receives the report of the session.
    pub answer: Option<oneshot::Sender<SyncReport>>,
}

/// The task of one peer.
pub(super) struct PeerLink {
    context: Context,
    member: Member,
    orders: mpsc::Receiver<Order>,
    /// The wait before the next attempt, from [`RETRY_MIN`] to [`RETRY_MAX`].
    retry: Duration,
    interruption: Interruption,
    /// The held records that were all that differed at the end of the latest session.
    known: Option<HeldDifference>,
}

/// The session under way, and the orders it answers.
struct RunningSession {
    run: BoxFuture<'static, (SyncReport, SessionEnd, Option<HeldDifference>)>,
    waiting: Vec<oneshot::Sender<SyncReport>>,
}

impl PeerLink {
    pub(super) fn new(context: Context, member: Member, orders: mpsc::Receiver<Order>) -> Self {
        let interruption = Interruption::new(&context, &member);
        Self { context, member, orders, retry: RETRY_MIN, interruption, known: None }
    }

    /// Connects and serves, again and again. Runs until aborted.
    pub(super) async fn run(mut self) {
        loop {
            match self.context.dialer.clone().dial(&self.member).await {
                Ok(link) => {
                    tracing::debug!(peer = %self.member.name, "connected");
                    self.interruption.dialed();
                    self.serve(link).await;
                }
                Err(error) => {
                    self.interruption.not_dialed(&error);
                    self.refuse_orders(&error.to_string());
                }
            }
            tokio::time::sleep(self.retry).await;
            self.retry = (self.retry * 2).min(RETRY_MAX);
        }
    }

    fn refuse_orders(&mut self, why: &str) {
        while let Ok(order) = self.orders.try_recv() {
            if let Some(answer) = order.answer {
                let _ = answer.send(SyncReport::failed(self.member.id, why.to_owned()));
            }
        }
    }

    /// Uses one connection until it breaks or a session fails.
    async fn serve(&mut self, link: Arc<dyn peer::Link>) {
        let (lost, mut lost_pushes) = mpsc::channel(1);
        // before the first session reads the store, so that no commit falls between the two
        let feed = self.context.store.read_feed_from_now();
        let pushing = push::push(self.context.clone(), link.clone(), self.member.id, feed, lost);
        tokio::pin!(pushing);
        let mut session = Some(self.session(&link, Vec::new()));
        let mut again: Option<Pin<Box<Sleep>>> = None;
        let mut due: Option<Vec<oneshot::Sender<SyncReport>>> = None;
        loop {
            if session.is_none()
                && let Some(waiting) = due.take()
            {
                session = Some(self.session(&link, waiting));
            }
            let running = async {
                match &mut session {
                    Some(session) => (&mut session.run).await,
                    None => std::future::pending().await,
                }
            };
            let waited = async {
                match &mut again {
                    Some(wait) => wait.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = link.closed() => break,
                (report, end, known) = running => {
                    self.known = known;
                    for waiting in session.take().map(|s| s.waiting).unwrap_or_default() {
                        let _ = waiting.send(report.clone());
                    }
                    self.note(end, report.error);
                    // a new connection may work where this one does not
                    if end == SessionEnd::Failed {
                        break;
                    }
                    if let Some(wait) = self.wait_after(end) {
                        again = Some(Box::pin(tokio::time::sleep(wait)));
                    }
                    self.retry = RETRY_MIN;
                }
                () = waited => {
                    again = None;
                    due.get_or_insert_default();
                }
                Some(Order { answer }) = self.orders.recv() => {
                    due.get_or_insert_default().extend(answer);
                }
                Some(()) = lost_pushes.recv() => {
                    due.get_or_insert_default();
                }
                error = &mut pushing => {
                    tracing::debug!(peer = %self.member.name, %error, "push ended");
                    break;
                }
            }
        }
        let why = "the connection was lost".to_owned();
        let waiting = session.map(|s| s.waiting).unwrap_or_default();
        for waiting in waiting.into_iter().chain(due.unwrap_or_default()) {
            let _ = waiting.send(SyncReport::failed(self.member.id, why.clone()));
        }
    }

    /// Tells how a session ended.
    fn note(&mut self, end: SessionEnd, error: Option<String>) {
        match end {
            SessionEnd::Failed => self.interruption.session_failed(error),
            SessionEnd::Paused => self.interruption.session_paused(error),
            SessionEnd::Done | SessionEnd::Busy => self.interruption.session_ended(),
        }
    }

    /// When the next session is due after one that ended so, if the end calls for one.
    fn wait_after(&self, end: SessionEnd) -> Option<Duration> {
        match end {
            SessionEnd::Done | SessionEnd::Failed => None,
            SessionEnd::Busy => Some(BUSY_WAIT),
            SessionEnd::Paused if self.context.store.merge_pause().is_some() => Some(PAUSED_WAIT),
            SessionEnd::Paused => Some(PEER_PAUSED_WAIT),
        }
    }

    fn session(
        &self,
        link: &Arc<dyn peer::Link>,
        waiting: Vec<oneshot::Sender<SyncReport>>,
    ) -> RunningSession {
        let (context, id) = (self.context.clone(), self.member.id);
        let run = pull::pull(context, link.clone(), id, self.known).boxed();
        RunningSession { run, waiting }
    }
}
