//! Replication: pushes fresh commits to every alive peer, and reconciles with them.
//!
//! [`Replication::run`] owns one task a peer (`link`) and one a stream that a peer opened
//! (`serve`). What arrives goes through the store's one writer like everything else; nothing is
//! forwarded. Knows nothing of HTTP, of gossip, or of how frames travel.

mod intake;
mod link;
mod pull;
mod push;
mod serve;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config;
use crate::model::member::{PeerStatus, SyncReport};
use crate::model::{Member, MemberState, NodeId};
use crate::peer::{Dialer, Incoming};
use crate::store::Store;
use crate::telemetry::Metrics;
use intake::Intake;
use link::{Link, Order};
use status::Status;

/// A request for a session with every alive peer, and where the outcome goes.
pub type SyncRequest = oneshot::Sender<Vec<SyncReport>>;

/// Orders that may wait for one peer's task.
const ORDERS_MAX: usize = 16;
/// How long `POST /cluster/sync` waits for one peer.
const SYNC_WAIT: Duration = Duration::from_secs(30);

/// The pause after storage did not take that this node has its first data.
const KEEP_AGAIN: Duration = Duration::from_secs(5);

/// What replication is made of.
pub struct Replication {
    /// The data.
    pub store: Store,
    /// Opens connections to members.
    pub dialer: Arc<dyn Dialer>,
    /// Streams that peers opened.
    pub incoming: mpsc::Receiver<Incoming>,
    /// Who is alive, from gossip.
    pub members: watch::Receiver<Vec<(Member, MemberState)>>,
    /// This node.
    pub me: Member,
    /// `[sync]`
    pub settings: config::Sync,
    /// Time and entropy.
    pub clock: Clock,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where to tell what is known of each peer.
    pub peers: watch::Sender<BTreeMap<NodeId, PeerStatus>>,
    /// Requests for sessions now.
    pub requests: mpsc::Receiver<SyncRequest>,
    /// Whether this node still waits for its first data, as an empty node with seeds does; set to
    /// `false` here once it does not.
    pub syncing: watch::Sender<bool>,
}

/// What the task of a peer needs, cheap to clone.
#[derive(Clone)]
struct Context {
    store: Store,
    dialer: Arc<dyn Dialer>,
    settings: Arc<config::Sync>,
    clock: Clock,
    metrics: Arc<Metrics>,
    status: Status,
    intake: Intake,
}

/// The task of one peer, and how to give it orders.
struct Running {
    member: Member,
    orders: mpsc::Sender<Order>,
    task: tokio::task::AbortHandle,
}

impl Replication {
    /// Runs until `stop`. All its tasks end with it.
    pub async fn run(self, stop: CancellationToken) {
        let context = Context {
            store: self.store.clone(),
            dialer: self.dialer,
            settings: Arc::new(self.settings.clone()),
            clock: self.clock.clone(),
            metrics: self.metrics,
            intake: Intake::new(self.syncing.subscribe()),
            status: Status::new(self.peers, self.syncing),
        };
        let mut links = Links {
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            rng: self.clock.rng(),
            me: self.me,
            context: context.clone(),
        };
        let (mut incoming, mut requests) = (self.incoming, self.requests);
        let mut members = self.members;
        members.mark_changed();
        let waited = bootstrap(context.clone());
        tokio::pin!(waited);
        let mut waiting = true;
        let mut next = Box::pin(tokio::time::sleep(links.jittered(self.settings.interval)));
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = members.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let now = members.borrow_and_update().clone();
                    links.follow(&now);
                }
                Some(stream) = incoming.recv() => links.serve(stream),
                Some(request) = requests.recv() => links.sync_all(request),
                () = &mut next => {
                    links.sync_one();
                    next.set(tokio::time::sleep(links.jittered(self.settings.interval)));
                }
                () = &mut waited, if waiting => waiting = false,
                Some(ended) = links.tasks.join_next() => {
                    ended_with(ended);
                    links.running.retain(|_, running| !running.task.is_finished());
                    let now = members.borrow().clone();
                    links.follow(&now);
                }
            }
        }
    }
}

/// Waits until this node need not wait for its first data any more, and keeps that for good: what
/// was cut off in the middle of its first session is still waiting when it starts again.
async fn bootstrap(context: Context) {
    let wait = context.settings.bootstrap_wait;
    context.status.wait_for_data(wait, context.clock.clone()).await;
    while let Err(error) = context.store.set_bootstrapped().await {
        tracing::warn!(%error, "cannot keep that this node has its first data; trying again");
        tokio::time::sleep(KEEP_AGAIN).await;
    }
}

/// The running tasks.
struct Links {
    running: BTreeMap<NodeId, Running>,
    tasks: JoinSet<()>,
    rng: StdRng,
    me: Member,
    context: Context,
}

impl Links {
    /// Three quarters to five quarters of `interval`, so that nodes do not march in step.
    fn jittered(&mut self, interval: Duration) -> Duration {
        interval.mul_f64(self.rng.random_range(0.75..1.25))
    }

    /// Starts a task for each alive peer and ends those of the others. A suspected peer keeps what
    /// it has: it may refute the suspicion.
    fn follow(&mut self, members: &[(Member, MemberState)]) {
        let others = || members.iter().filter(|(member, _)| member.id != self.me.id);
        self.context.store.set_others(others().next().is_some());
        let reachable: BTreeMap<NodeId, &Member> = others()
            .filter(|(_, state)| *state != MemberState::Down)
            // whoever was at this node's address before it is gone
            .filter(|(member, _)| member.peer != self.me.peer)
            .map(|(member, _)| (member.id, member))
            .collect();
        self.running.retain(|id, running| {
            let stays = reachable.get(id).is_some_and(|member| **member == running.member);
            if !stays {
                running.task.abort();
            }
            stays
        });
        for (id, member) in reachable {
            if self.running.contains_key(&id) {
                continue;
            }
            let (orders, queue) = mpsc::channel(ORDERS_MAX);
            let link = Link::new(self.context.clone(), member.clone(), queue);
            let task = self.tasks.spawn(link.run());
            self.running.insert(id, Running { member: member.clone(), orders, task });
        }
    }

    fn serve(&mut self, incoming: Incoming) {
        self.tasks.spawn(serve::serve(self.context.clone(), incoming));
    }

    /// A session with one random peer.
    fn sync_one(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.running.len());
        if let Some(running) = self.running.values().nth(at) {
            // a full queue means that sessions are under way anyway
            let _ = running.orders.try_send(Order { answer: None });
        }
    }

    /// A session with every peer; answers when all are done.
    fn sync_all(&mut self, request: SyncRequest) {
        let clock = self.context.clock.clone();
        let mut answers = Vec::new();
        for (id, running) in &self.running {
            let (answer, answered) = oneshot::channel();
            let sent = running.orders.try_send(Order { answer: Some(answer) });
            answers.push((*id, sent.is_ok(), answered));
        }
        self.tasks.spawn(async move {
            let mut reports = Vec::new();
            let deadline = clock.instant() + SYNC_WAIT;
            for (id, sent, answered) in answers {
                let failed = |why: &str| SyncReport::failed(id, why.to_owned());
                reports.push(match tokio::time::timeout_at(deadline, answered).await {
                    _ if !sent => failed("too many sessions wait for this peer already"),
                    Ok(Ok(report)) => report,
                    Ok(Err(_)) => failed("the peer went away"),
                    Err(_) => failed("the peer did not answer within 30 s"),
                });
            }
            // a client that left does not want it any more
            let _ = request.send(reports);
        });
    }
}

/// A task ends when its stream or its peer does; that it panicked must not go unseen.
fn ended_with(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a replication task panicked; this is a bug, please report it");
    }
}

impl SyncReport {
    /// A session that did not come about.
    fn failed(id: NodeId, error: String) -> Self {
        Self {
            id,
            rounds: 0,
            bytes_sent: 0,
            bytes_received: 0,
            records_sent: 0,
            records_received: 0,
            duration_ms: 0,
            error: Some(error),
        }
    }
}

#[cfg(test)]
#[path = "replication_tests.rs"]
mod tests;
