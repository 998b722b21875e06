//! What the HTTP front end sees of the cluster, and of a node without one.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};

use super::{NodeError, SYNC_REQUESTS_MAX};
use crate::config::Config;
use crate::http::{LeaveRequest, Outlook};
use crate::model::member::{PeerStatus, SyncReport};
use crate::model::{Member, MemberState, NodeId};
use crate::replication::SyncRequest;
use crate::store::{self, Store};

/// What the HTTP front end reads from gossip and replication.
pub(super) struct Views {
    pub(super) members: watch::Receiver<Vec<(Member, MemberState)>>,
    pub(super) peers: watch::Receiver<BTreeMap<NodeId, PeerStatus>>,
    pub(super) sync: mpsc::Sender<tokio::sync::oneshot::Sender<Vec<SyncReport>>>,
    pub(super) syncing: watch::Receiver<bool>,
    pub(super) may_join: watch::Sender<bool>,
    pub(super) leave: mpsc::Sender<LeaveRequest>,
    /// Hears that this node has left the cluster.
    pub(super) left: Arc<Notify>,
    pub(super) outlook: Outlook,
    /// Keeps `members` open for the other parts once gossip has ended, which ends first.
    pub(super) _members: watch::Sender<Vec<(Member, MemberState)>>,
}

/// Whether this node must receive a peer's data before it serves: it has seeds and has never had
/// the cluster's data, or it begins anew.
pub(super) fn waits_for_data(config: &Config, store: &Store) -> Result<bool, NodeError> {
    let damaged = |error: store::ReadError| NodeError::Open {
        path: config.node.data_dir.display().to_string(),
        error: error.into(),
    };
    let ledger = store.ledger();
    let is_new = ledger.set.is_none() && !store.is_bootstrapped().map_err(damaged)?;
    Ok(ledger.begins_anew() || (is_new && !config.gossip.seeds.is_empty()))
}

/// The views of a node without a cluster: one member, no peers, and empty answers to sync requests.
pub(super) fn alone(me: &Member) -> Views {
    let (sync, mut requests) = mpsc::channel::<SyncRequest>(SYNC_REQUESTS_MAX);
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            let _ = request.send(Vec::new());
        }
    });
    let (kept_members, members) = watch::channel(vec![(me.clone(), MemberState::Alive)]);
    Views {
        members,
        _members: kept_members,
        peers: watch::channel(BTreeMap::new()).1,
        sync,
        syncing: watch::channel(false).1,
        may_join: watch::channel(false).0,
        leave: mpsc::channel(1).0,
        left: Arc::default(),
        outlook: Outlook::default(),
    }
}
