//! The state that all tasks of replication share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::intake::Intake;
use super::status::Status;
use crate::clock::Clock;
use crate::config;
use crate::model::member::Report;
use crate::model::{Member, MemberState, NodeId};
use crate::peer::Dialer;
use crate::proto::reconcile::Replica;
use crate::store::Store;
use crate::telemetry::Metrics;

/// How long a peer may take no byte of a frame. A slower one loses the connection.
pub(super) const SEND_SILENCE_MAX: Duration = Duration::from_secs(30);

/// Handles for the task of a peer or of a stream. Cheap to clone.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) store: Store,
    pub(super) dialer: Arc<dyn Dialer>,
    pub(super) settings: Arc<config::SyncConfig>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) aside: Arc<dyn super::Aside>,
    /// Whether the operator lets this node join a cluster that was founded apart, or begin anew
    /// after it was removed.
    pub(super) may_join: watch::Receiver<bool>,
    /// Takes the peers with which this node has to begin a session soon.
    pub(super) due: mpsc::Sender<NodeId>,
    pub(super) status: Status,
    pub(super) intake: Intake,
    /// All members and their states, from gossip.
    pub(super) members: watch::Receiver<Vec<(Member, MemberState)>>,
}

impl Context {
    /// What this node reports to its peers about its store.
    pub(super) fn report(&self) -> Report {
        let (root, now) = (self.store.root(), self.clock.now());
        let ledger = self.store.ledger();
        let members = self.members.borrow();
        let alive = members.iter().filter(|(_, state)| *state == MemberState::Alive);
        let others = alive.map(|(member, _)| member.id).filter(|id| *id != ledger.id);
        Report {
            fingerprint: root.fingerprint(),
            records: root.count,
            syncing: self.status.is_syncing(),
            now,
            holds_through: ledger.holds_through(others).map(|at| at.min(now)),
            horizon: now.plus(self.settings.clock_drift_max),
        }
    }

    /// Why this node refuses `peer`; `None` when it does not.
    pub(super) fn refuses(&self, peer: &Member) -> Option<String> {
        let members = self.members.borrow();
        let rival = peer.rival(&members)?;
        Some(format!(
            "another member named {} runs (id {}, at {}) and came first; give the later one \
             another node.name and a certificate for it, or stop the earlier one: the later one \
             may join once that is down",
            rival.name, rival.id, rival.gossip,
        ))
    }
}
