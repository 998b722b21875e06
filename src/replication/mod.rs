//! Replication: pushes fresh commits to every reachable peer, and reconciles with peers.
//!
//! [`Replication::run`] owns one task per peer (`link`) and one per stream that a peer opened
//! (`serve`). Records from peers go through the store's one writer like all others, and are never
//! forwarded. Must not know HTTP, gossip, or how frames travel.

mod bootstrap;
mod context;
mod intake;
mod interruption;
mod lag;
mod link;
mod pull;
mod push;
mod serve;
mod status;

use std::collections::{BTreeMap, BTreeSet};
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
use bootstrap::{Bootstrap, Candidate};
use context::Context;
use intake::Intake;
use link::{Order, PeerLink};
use status::Status;

/// A request for a session with every reachable peer. Receives one report per peer.
pub type SyncRequest = oneshot::Sender<Vec<SyncReport>>;

/// Orders that may wait for one peer's task.
const ORDERS_MAX: usize = 16;
/// The deadline of a [`SyncRequest`], for all peers together.
const SYNC_WAIT: Duration = Duration::from_secs(30);
/// How often a node that waits for its first data checks whether to go on waiting.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The pause after the store failed to persist that this node has its first data.
const PERSIST_AGAIN: Duration = Duration::from_secs(5);

/// The inputs and outputs of replication.
pub struct Replication {
    /// Receives merged records and gives fresh ones.
    pub store: Store,
    /// Opens connections to members.
    pub dialer: Arc<dyn Dialer>,
    /// Streams that peers opened.
    pub incoming: mpsc::Receiver<Incoming>,
    /// All members and their states, from gossip.
    pub members: watch::Receiver<Vec<(Member, MemberState)>>,
    /// This node, which is left out of the peers.
    pub me: Member,
    /// The keys of `[sync]`.
    pub settings: config::SyncConfig,
    /// Time and entropy.
    pub clock: Clock,
    /// Counts sessions and records.
    pub metrics: Arc<Metrics>,
    /// Receives each peer's status when it changes.
    pub peers: watch::Sender<BTreeMap<NodeId, PeerStatus>>,
    /// Requests for sessions now.
    pub requests: mpsc::Receiver<SyncRequest>,
    /// Whether this node still waits for its first data, as an empty node with seeds does. Becomes
    /// `false` here, once.
    pub syncing: watch::Sender<bool>,
    /// The members that wait for their first data themselves, from gossip.
    pub syncing_members: watch::Receiver<BTreeSet<NodeId>>,
    /// Receives what this node waits for, in words; empty when there is nothing to say.
    pub waits_for: watch::Sender<String>,
}

/// The running task of one peer.
struct PeerTask {
    /// The peer as it was when the task began; a changed address needs a new task.
    member: Member,
    /// When the task began. Earlier reports may be those of an earlier process.
    since: std::time::Instant,
    orders: mpsc::Sender<Order>,
    task: tokio::task::AbortHandle,
}

impl Replication {
    /// Runs until `stop`. Its tasks end when the future does.
    pub async fn run(self, stop: CancellationToken) {
        let context = Context {
            store: self.store.clone(),
            dialer: self.dialer,
            settings: Arc::new(self.settings.clone()),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            intake: Intake::new(self.syncing.subscribe()),
            status: Status::new(self.peers, self.syncing, self.metrics),
            members: self.members.clone(),
        };
        let mut links = PeerLinks {
            running: BTreeMap::new(),
            refused: BTreeSet::new(),
            rival: None,
            tasks: JoinSet::new(),
            rng: self.clock.rng(),
            me: self.me,
            context: context.clone(),
        };
        let wait = &self.settings;
        let began = self.clock.instant();
        let mut rule = Bootstrap::new(began, wait.bootstrap_wait, wait.serve_alone);
        let (mut incoming, mut requests) = (self.incoming, self.requests);
        let mut members = self.members;
        members.mark_changed();
        let bootstrapped = persist_bootstrapped(context.clone());
        tokio::pin!(bootstrapped);
        let mut unpersisted = true;
        let mut look = Box::pin(tokio::time::sleep(Duration::ZERO));
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
                () = &mut look, if context.status.is_syncing() => {
                    links.look(&mut rule, &self.syncing_members.borrow(), &self.waits_for);
                    look.set(tokio::time::sleep(LOOK_EVERY));
                }
                () = &mut bootstrapped, if unpersisted => {
                    unpersisted = false;
                    self.waits_for.send_replace(String::new());
                }
                Some(ended) = links.tasks.join_next() => {
                    log_panic(ended);
                    links.running.retain(|_, running| !running.task.is_finished());
                    let now = members.borrow().clone();
                    links.follow(&now);
                }
            }
        }
    }
}

/// Persists the end of the wait for first data. A node that stops in the middle of its first
/// session waits again after its next start.
async fn persist_bootstrapped(context: Context) {
    context.status.serves().await;
    while let Err(error) = context.store.set_bootstrapped().await {
        tracing::warn!(%error, "cannot store that this node has its first data; trying again");
        tokio::time::sleep(PERSIST_AGAIN).await;
    }
}

/// The tasks of replication.
struct PeerLinks {
    /// One task per reachable peer.
    running: BTreeMap<NodeId, PeerTask>,
    /// Members that run under the name of one that came first.
    refused: BTreeSet<NodeId>,
    /// The member that came first under the name of this node, and so keeps it out.
    rival: Option<Member>,
    /// These tasks, and those that serve streams and requests.
    tasks: JoinSet<()>,
    rng: StdRng,
    me: Member,
    context: Context,
}

impl PeerLinks {
    /// Three quarters to five quarters of `interval`, so that the nodes' sessions do not fall on
    /// the same instant.
    fn jittered(&mut self, interval: Duration) -> Duration {
        interval.mul_f64(self.rng.random_range(0.75..1.25))
    }

    /// Starts a task for each reachable peer and aborts those of the others. A suspected peer keeps
    /// its task, because it may refute the suspicion.
    fn follow(&mut self, members: &[(Member, MemberState)]) {
        let others = || members.iter().filter(|(member, _)| member.id != self.me.id);
        self.context.store.set_others(others().next().is_some());
        let up: Vec<&Member> = others()
            .filter(|(_, state)| state.is_up())
            .map(|(member, _)| member)
            // an earlier node had this node's address and is gone
            .filter(|member| !member.shares_address(&self.me))
            .collect();
        self.note_rivals(members, &up);
        let up = up.into_iter().filter(|member| !self.refused.contains(&member.id));
        let reachable: BTreeMap<NodeId, &Member> = up.map(|member| (member.id, member)).collect();
        self.running.retain(|id, running| {
            let stays = reachable.get(id).is_some_and(|member| **member == running.member);
            if !stays {
                running.task.abort();
                self.context.status.disconnected(*id);
            }
            stays
        });
        for id in &self.refused {
            let refused = members.iter().find(|(member, _)| member.id == *id);
            if let Some(why) = refused.and_then(|(member, _)| self.context.refuses(member)) {
                self.context.status.dialed(*id, Some(&format!("refused: {why}")));
            }
        }
        for (id, member) in reachable {
            if self.running.contains_key(&id) {
                continue;
            }
            let (orders, queue) = mpsc::channel(ORDERS_MAX);
            let link = PeerLink::new(self.context.clone(), member.clone(), queue);
            let task = self.tasks.spawn(link.run());
            let since = self.context.clock.instant().into_std();
            self.running.insert(id, PeerTask { member: member.clone(), since, orders, task });
        }
        assert!(!self.running.contains_key(&self.me.id), "a node is not its own peer");
        let is_refused = |id| self.refused.contains(id);
        assert!(!self.running.keys().any(is_refused), "a refused member is no peer");
    }

    /// Notes which members run under one name, and says so once: the one that came later is
    /// refused, be it another node or this one.
    fn note_rivals(&mut self, members: &[(Member, MemberState)], up: &[&Member]) {
        let mut refused = BTreeSet::new();
        for member in up {
            let Some(rival) = member.rival(members) else { continue };
            refused.insert(member.id);
            if self.refused.contains(&member.id) {
                continue;
            }
            let Member { name, id, gossip, .. } = member;
            let first = rival.id;
            if member.shares_address(rival) {
                tracing::info!("{name} ({id}) joins once {first}, whose place it took, is down");
            } else {
                tracing::warn!(
                    "refuses the member {name} ({id}) at {gossip}: {name} ({first}) at {} runs \
                     under the same name and came first; give one of the two another node.name",
                    rival.gossip
                );
            }
        }
        assert!(!refused.contains(&self.me.id), "a node does not refuse itself");
        for gone in self.refused.difference(&refused) {
            self.context.status.disconnected(*gone);
        }
        self.refused = refused;
        let rival = self.me.rival(members).filter(|rival| !rival.shares_address(&self.me));
        if let Some(rival) = rival
            && self.rival.as_ref().is_none_or(|known| known.id != rival.id)
        {
            tracing::warn!(
                "the other members refuse this node: {} ({}) at {} runs under its name and came \
                 first; give this node another node.name and a certificate for it, or stop the \
                 other one",
                rival.name,
                rival.id,
                rival.gossip
            );
        }
        self.rival = rival.cloned();
    }

    /// Decides whether this node has waited for its first data long enough.
    fn look(
        &self,
        rule: &mut Bootstrap,
        syncing: &BTreeSet<NodeId>,
        waits_for: &watch::Sender<String>,
    ) {
        let own = self.context.report().fingerprint;
        let candidate = |(id, running): (&NodeId, &PeerTask)| {
            let status = self.context.status.of(*id);
            let held = status.report.filter(|held| held.received >= running.since);
            let equal = held.is_some_and(|held| held.report.fingerprint == own);
            Candidate {
                id: *id,
                name: running.member.name.clone(),
                address: running.member.peer,
                syncing: syncing.contains(id),
                reach: status.reach,
                equal: equal && status.last_sync_at.is_some(),
                error: status.error,
            }
        };
        let candidates: Vec<_> = self.running.iter().map(candidate).collect();
        let advice = rule.look(self.context.clock.instant(), &candidates);
        if advice.serve {
            return self.context.status.serve();
        }
        for id in advice.ask {
            if let Some(running) = self.running.get(&id) {
                // a full queue: sessions with this peer are due anyway
                let _ = running.orders.try_send(Order { answer: None });
            }
        }
        if advice.say {
            tracing::warn!("this node waits for its first data: {}", advice.waits_for);
        }
        waits_for.send_if_modified(|shown| {
            let changed = *shown != advice.waits_for;
            *shown = advice.waits_for;
            changed
        });
    }

    fn serve(&mut self, incoming: Incoming) {
        self.tasks.spawn(serve::serve(self.context.clone(), incoming));
    }

    /// Orders a session with one random peer.
    fn sync_one(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.running.len());
        if let Some(running) = self.running.values().nth(at) {
            // a full queue: sessions with this peer are due anyway
            let _ = running.orders.try_send(Order { answer: None });
        }
    }

    /// Orders a session with every peer, and answers once all have ended or the deadline passed.
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
                    _ if !sent => failed("too many requests wait for this peer; try again later"),
                    Ok(Ok(report)) => report,
                    Ok(Err(_)) => failed("the peer left the cluster"),
                    Err(_) => {
                        failed("no session has ended within 30 s; one that goes on is not cut")
                    }
                });
            }
            // the client may have disconnected
            let _ = request.send(reports);
        });
    }
}

/// Logs the panic of a task. Ending otherwise is normal.
fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a replication task panicked; this is a bug, please report it");
    }
}

impl SyncReport {
    /// The report of a session that never began.
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
mod tests;
