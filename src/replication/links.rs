//! The tasks of replication: one for each reachable peer, those that serve streams, and what is
//! ordered from them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::bootstrap::{Bootstrap, Candidate};
use super::context::Context;
use super::link::{Order, PeerLink};
use super::{ORDERS_MAX, SyncRequest, life, serve};
use crate::model::member::SyncReport;
use crate::model::{Member, MemberState, NodeId};
use crate::peer::Incoming;

/// The deadline of a [`SyncRequest`], for all peers together.
pub(super) const SYNC_WAIT: Duration = Duration::from_secs(30);

/// The running task of one peer.
pub(super) struct PeerTask {
    /// The peer as it was when the task began; a changed address needs a new task.
    pub(super) member: Member,
    /// When the task began. Earlier reports may be those of an earlier process.
    pub(super) since: std::time::Instant,
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) task: tokio::task::AbortHandle,
}

impl PeerTask {
    /// Orders a session.
    fn order(&self) {
        // a full queue: sessions with this peer are due anyway
        let _ = self.orders.try_send(Order { answer: None });
    }
}

/// The tasks of replication.
pub(super) struct PeerLinks {
    /// One task per reachable peer.
    pub(super) running: BTreeMap<NodeId, PeerTask>,
    /// Members that run under the name of one that came first.
    pub(super) refused: BTreeSet<NodeId>,
    /// The member that came first under the name of this node, and so keeps it out.
    pub(super) rival: Option<Member>,
    /// These tasks, and those that serve streams and requests.
    pub(super) tasks: JoinSet<()>,
    pub(super) rng: StdRng,
    pub(super) me: Member,
    pub(super) context: Context,
}

impl PeerLinks {
    /// No task yet, for the node `me`.
    pub(super) fn new(me: Member, context: Context) -> Self {
        Self {
            running: BTreeMap::new(),
            refused: BTreeSet::new(),
            rival: None,
            tasks: JoinSet::new(),
            rng: context.clock.rng(),
            me,
            context,
        }
    }

    /// Three quarters to five quarters of `interval`, so that the nodes' sessions do not fall on
    /// the same instant.
    pub(super) fn jittered(&mut self, interval: Duration) -> Duration {
        interval.mul_f64(self.rng.random_range(0.75..1.25))
    }

    /// Starts a task for each reachable peer and aborts those of the others. A suspected peer keeps
    /// its task, because it may refute the suspicion.
    pub(super) fn follow(&mut self, members: &[(Member, MemberState)]) {
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
    pub(super) fn note_rivals(&mut self, members: &[(Member, MemberState)], up: &[&Member]) {
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

    /// Founds a durable set. The node serves once that is stored.
    pub(super) fn found(&mut self, has_seeds: bool) {
        let context = self.context.clone();
        self.tasks.spawn(async move {
            match context.store.found(has_seeds).await {
                Ok(()) => {}
                Err(error) => tracing::warn!(%error, "cannot found the durable set; trying again"),
            }
        });
    }

    /// Moves the floor of a node that is alone in its durable set.
    pub(super) fn advance_alone(&mut self) {
        let store = self.context.store.clone();
        self.tasks.spawn(async move { life::advance_alone(&store).await });
    }

    /// Orders a session with one peer.
    pub(super) fn order(&self, id: NodeId) {
        if let Some(running) = self.running.get(&id) {
            running.order();
        }
    }

    /// Orders a session with every peer.
    pub(super) fn order_all(&self) {
        self.running.values().for_each(PeerTask::order);
    }

    /// Decides whether this node has waited for its first data long enough, and is the one to found
    /// the durable set.
    pub(super) fn look(
        &self,
        rule: &mut Bootstrap,
        syncing: &BTreeSet<NodeId>,
        waits_for: &watch::Sender<String>,
    ) -> bool {
        let own = self.context.report().fingerprint;
        let rank = |member: &Member| (member.joined_at, member.id);
        let candidate = |(id, running): (&NodeId, &PeerTask)| {
            let status = self.context.status.of(*id);
            let held = status.report.filter(|held| held.received >= running.since);
            let equal = held.is_some_and(|held| held.report.fingerprint == own);
            // held records cannot come before their time; but where a clock is wrong, they may be
            // everything
            let most = self.context.settings.clock_drift_max;
            let skew_ms = status.skew_beyond(most).filter(|_| status.held_records > 0);
            let equal = equal || (status.held_records > 0 && skew_ms.is_none());
            Candidate {
                id: *id,
                name: running.member.name.clone(),
                address: running.member.peer,
                is_older: rank(&running.member) < rank(&self.me),
                syncing: syncing.contains(id),
                reach: status.reach,
                equal: equal && status.last_sync_at.is_some(),
                error: status.error,
                skew_s: skew_ms.map(|ms| ms / 1000),
            }
        };
        let candidates: Vec<_> = self.running.iter().map(candidate).collect();
        assert!(candidates.iter().all(|member| member.id != self.me.id), "a node waits for itself");
        let mut advice = rule.look(self.context.clock.instant(), &candidates);
        if let Some(members) = self.members_awaited().filter(|_| advice.serve) {
            advice = rule.waits_for(self.context.clock.instant(), members);
        }
        if advice.serve {
            return true;
        }
        advice.ask.into_iter().for_each(|id| self.order(id));
        if advice.say {
            tracing::warn!("this node waits for its first data: {}", advice.waits_for);
        }
        waits_for.send_if_modified(|shown| {
            let changed = *shown != advice.waits_for;
            *shown = advice.waits_for;
            changed
        });
        false
    }

    /// The members that this node waits for to be counted anew, in words: it founds no set while
    /// there are some, because they hold what it has to follow.
    fn members_awaited(&self) -> Option<String> {
        let ledger = self.context.store.ledger();
        let set = ledger.set.as_ref().filter(|_| ledger.begins_anew())?;
        let known = self.context.members.borrow();
        let named = |id: NodeId| match known.iter().find(|(member, _)| member.id == id) {
            Some((member, _)) => format!("{} ({id})", member.name),
            None => id.to_string(),
        };
        let awaited: Vec<_> = set.members().map(named).collect();
        let text = format!(
            "this node begins anew and follows one of these members, and none of them answers: \
             {}; start one of them, or run `kvs forget ID` here for each of them if all are lost",
            awaited.join(", ")
        );
        (!awaited.is_empty()).then_some(text)
    }

    pub(super) fn serve(&mut self, incoming: Incoming) {
        self.tasks.spawn(serve::serve(self.context.clone(), incoming));
    }

    /// Orders a session with one random peer.
    pub(super) fn sync_one(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.running.len());
        if let Some(running) = self.running.values().nth(at) {
            running.order();
        }
    }

    /// Orders a session with every peer, and answers once all have ended or the deadline passed.
    pub(super) fn sync_all(&mut self, request: SyncRequest) {
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
pub(super) fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a replication task panicked; this is a bug, please report it");
    }
}

impl SyncReport {
    /// The report of a session that never began.
    pub(super) fn failed(id: NodeId, error: String) -> Self {
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
