//! Replication: pushes fresh commits to every reachable peer, and reconciles with peers.
//!
//! [`Replication::run`] owns one task per peer (`link`) and one per stream that a peer opened
//! (`serve`). Records from peers go through the store's one writer like all others, and are never
//! forwarded. Must not know HTTP, gossip, or how frames travel.

mod aside;
mod bootstrap;
mod context;
mod ended;
mod intake;
mod interruption;
mod lag;
mod leave;
mod life;
mod link;
mod links;
mod opening;
mod pull;
mod push;
mod serve;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config;
use crate::model::member::{PeerStatus, SyncReport};
use crate::model::{Member, MemberState, NodeId};
use crate::peer::{Dialer, Incoming};
use crate::store::Store;
use crate::telemetry::Metrics;
pub use aside::Aside;
use bootstrap::Bootstrap;
use context::Context;
use intake::Intake;
pub use leave::{LeaveError, Leaving};
pub use life::live_alone;
use links::{PeerLinks, log_panic};
use status::Status;

/// A request for a session with every reachable peer. Receives one report per peer.
pub type SyncRequest = oneshot::Sender<Vec<SyncReport>>;

/// Orders that may wait for one peer's task.
const ORDERS_MAX: usize = 16;
/// How often a node that waits for its first data checks whether to go on waiting.
const LOOK_EVERY: Duration = Duration::from_millis(100);

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
    /// Where records go that this node sets aside when it begins anew.
    pub aside: Arc<dyn Aside>,
    /// Whether the operator lets this node join a cluster that was founded apart, or begin anew
    /// after it was removed.
    pub may_join: watch::Receiver<bool>,
    /// Whether this node has seeds: it then moves no floor before it has met another member.
    pub has_seeds: bool,
    /// Whether this node still waits for its first data, as an empty node with seeds does. Becomes
    /// `false` here, once.
    pub syncing: watch::Sender<bool>,
    /// The members that wait for their first data themselves, from gossip.
    pub syncing_members: watch::Receiver<BTreeSet<NodeId>>,
    /// Receives what this node waits for, in words; empty when there is nothing to say.
    pub waits_for: watch::Sender<String>,
}

impl Replication {
    /// What all tasks share.
    fn context(&self, due: mpsc::Sender<NodeId>) -> Context {
        Context {
            store: self.store.clone(),
            dialer: self.dialer.clone(),
            settings: Arc::new(self.settings.clone()),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            aside: self.aside.clone(),
            may_join: self.may_join.clone(),
            due,
            intake: Intake::new(self.syncing.subscribe()),
            status: Status::new(self.peers.clone(), self.syncing.clone(), self.metrics.clone()),
            members: self.members.clone(),
        }
    }

    /// Runs until `stop`. Its tasks end when the future does.
    pub async fn run(self, stop: CancellationToken) {
        let (due, mut due_now) = mpsc::channel(ORDERS_MAX);
        let context = self.context(due);
        let mut links = PeerLinks::new(self.me.clone(), context.clone());
        let founds = (!context.status.is_syncing()).then_some(self.has_seeds);
        let life = life::begin_among_others(&context, founds);
        if stop.run_until_cancelled(life).await.is_none() {
            return;
        }
        let mut ledger = self.store.watch_ledger();
        let mut set = ledger.borrow_and_update().set_name();
        let wait = &self.settings;
        let began = self.clock.instant();
        let mut rule = Bootstrap::new(began, wait.bootstrap_wait, wait.serve_alone);
        let (mut incoming, mut requests) = (self.incoming, self.requests);
        let mut members = self.members;
        members.mark_changed();
        let bootstrapped = life::persist_bootstrapped(context.clone());
        tokio::pin!(bootstrapped);
        let mut is_unsaved = true;
        let mut glance = Box::pin(tokio::time::sleep(Duration::ZERO));
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
                Some(id) = due_now.recv() => links.order(id),
                Some(request) = requests.recv() => links.sync_all(request),
                Ok(()) = ledger.changed() => {
                    let now = ledger.borrow_and_update().set_name();
                    if now.is_some() {
                        context.status.serve();
                    }
                    // the others learn who joined, and who is gone, in sessions
                    if std::mem::replace(&mut set, now) != now {
                        links.order_all();
                    }
                }
                () = &mut next => {
                    links.advance_alone();
                    links.sync_one();
                    next.set(tokio::time::sleep(links.jittered(self.settings.interval)));
                }
                () = &mut glance, if context.status.is_syncing() => {
                    if links.look(&mut rule, &self.syncing_members.borrow(), &self.waits_for) {
                        links.found(self.has_seeds);
                    }
                    glance.set(tokio::time::sleep(LOOK_EVERY));
                }
                () = &mut bootstrapped, if is_unsaved => {
                    is_unsaved = false;
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

#[cfg(test)]
mod tests;
