//! A client of one node: writes, deletes, swaps, transactions, retries and reads as long as its
//! node is up.

mod draw;
pub use draw::READ_BYTES_MAX;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use kvs::model::{Content, Header, Key, NodeId, Record, Timestamp, Version};
use kvs::store::{Store, WriteError};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::audit::asked::{Answer, Asked, Held, Request};
use crate::audit::{Audit, Ticket};
use crate::disk::Disk;
use crate::network::Network;
use crate::plan::Load;

/// Locks the auditor. Ignores poisoning: after a violation the run fails anyway.
pub fn lock(audit: &Mutex<Audit>) -> MutexGuard<'_, Audit> {
    audit.lock().unwrap_or_else(PoisonError::into_inner)
}

pub struct Client {
    pub store: Store,
    pub disk: Arc<Disk>,
    pub audit: Arc<Mutex<Audit>>,
    pub network: Network,
    pub rng: StdRng,
    pub slot: usize,
    /// The number of nodes.
    pub nodes: usize,
    pub load: Load,
    /// Ends the client between two requests.
    pub no_more: CancellationToken,
    /// Set while the node waits for its first data; the client then waits, as HTTP would make it.
    pub syncing: watch::Receiver<bool>,
}

/// A request under way. When the node is killed, its outcome stays unknown.
struct Pending<'a> {
    audit: &'a Mutex<Audit>,
    ticket: Ticket,
    answered: bool,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.answered {
            lock(self.audit).outcome_unknown(&self.ticket);
        }
    }
}

/// What a node holds for a key and what it shows for it at the same moment; `None` when its disk
/// cannot be read.
pub fn look(store: &Store, key: &Key) -> Option<(Option<Record>, Option<Header>)> {
    let record = store.record_now(key).ok()?;
    // Waits only when an expiry is not persisted yet.
    let live = store.head(key).now_or_never().unwrap_or(Ok(None));
    Some((record, live.ok()?))
}

impl Client {
    pub async fn run(mut self) {
        while !self.no_more.is_cancelled() {
            let pause = self.rng.random_range(0..self.load.pause_ms_max);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if *self.syncing.borrow() || self.no_more.is_cancelled() {
                continue;
            }
            if self.rng.random_bool(self.load.retried) {
                self.retry().await;
            } else if self.rng.random_bool(0.3) {
                let key = self.draw_key();
                self.read(&key).await;
            } else {
                self.ask_something().await;
            }
        }
    }

    async fn read(&self, key: &Key) {
        let (held, failures) = (self.held_value(key), self.disk.failures());
        let shown = self.store.head(key).await;
        // A disk that cannot be read shows nothing.
        let Some((record, live)) = look(&self.store, key) else { return };
        let mut audit = lock(&self.audit);
        let commits = self.disk.commits(audit.replayed(self.slot));
        audit.follow_commits(self.slot, self.store.identity().node, commits);
        audit.looked(self.slot, key, record.as_ref(), live.as_ref());
        drop(audit);
        // A disk that refuses writes cannot persist that a client learned of an expiry.
        let could_keep = failures.is_some() && failures == self.disk.failures();
        if let (Some(version), Ok(None), true) = (held, shown, could_keep)
            && self.held_value(key) == held
        {
            lock(&self.audit).learned_dead(self.slot, key, version);
        }
    }

    /// The version of the value that the node holds, dead or alive.
    fn held_value(&self, key: &Key) -> Option<Version> {
        let header = self.store.record_now(key).ok()??.header;
        (header.content != Content::Tombstone).then_some(header.version)
    }

    async fn ask_something(&mut self) {
        let is_txn = self.rng.random_bool(self.load.txns);
        let request = if is_txn { self.draw_txn().await } else { self.draw_write().await };
        let was_accepted = self.ask(request.clone()).await;
        // A client that did not hear the answer asks again.
        if was_accepted && request.uuid().is_some() && self.rng.random_bool(0.1) {
            self.ask(request).await;
        }
    }

    /// Repeats an earlier request of any client and node; or sends another request with its request
    /// id.
    async fn retry(&mut self) {
        if self.rng.random_bool(0.5) {
            let unheard = lock(&self.audit).unheard(self.slot);
            if let Some(request) = unheard {
                self.ask(request).await;
                return;
            }
        }
        let elsewhere = self.rng.random_bool(0.05);
        let slot = if elsewhere { self.rng.random_range(0..self.nodes) } else { self.slot };
        let count = lock(&self.audit).asked_before_count(slot);
        if count == 0 {
            return;
        }
        let lately = self.rng.random_bool(0.5);
        let latest = self.rng.random_range(0..if lately { count.min(5) } else { count });
        let Some((request, may_alter)) = lock(&self.audit).asked_before(slot, latest) else {
            return;
        };
        let alters = may_alter && slot == self.slot && self.rng.random_bool(0.25);
        let request = if alters { self.alter(request) } else { request };
        self.ask(request).await;
    }

    /// The records that the node holds for these keys.
    fn held(&self, request: &Request) -> Held {
        let held = |key: Key| {
            let record = self.store.record_now(&key).ok()?;
            Some((key, record.map(|record| record.header)))
        };
        request.keys().into_iter().filter_map(held).collect()
    }

    fn asked(&self) -> Asked {
        let identity = self.store.identity();
        let (origin, joined_at): (NodeId, Timestamp) = (identity.node, identity.joined_at);
        Asked { slot: self.slot, origin, joined_at }
    }

    /// Sends a request to the node and reports it to the auditor; returns whether the node accepted
    /// it.
    async fn ask(&mut self, request: Request) -> bool {
        let before = self.held(&request);
        let ticket = lock(&self.audit).begins(self.asked(), &request, before);
        let mut pending = Pending { audit: &self.audit, ticket, answered: false };
        let outcome: Result<Answer, WriteError> = match request.clone() {
            Request::Write(write) => self.store.write(write).await.map(Answer::Write),
            Request::Txn(txn) => self.store.txn(txn).await.map(Answer::Txn),
        };
        pending.answered = true;
        let was_accepted = outcome.is_ok();
        let said = outcome.as_ref().map_or_else(ToString::to_string, Answer::brief);
        self.network.note(&format!("{} {said};", self.slot));
        let after = self.held(&request);
        let point = self.store.ledger().point.0;
        lock(&self.audit).took_point(self.slot, point);
        lock(&self.audit).answered(&pending.ticket, outcome, &after);
        was_accepted
    }
}
