//! What is known of each peer, and whether this node still waits for its first data.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::model::member::{PeerStatus, Report};
use crate::model::{NodeId, Timestamp};

/// How often a node that waits for data looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Shared by all tasks of replication; cheap to clone.
#[derive(Clone)]
pub(super) struct Status {
    peers: Arc<watch::Sender<BTreeMap<NodeId, PeerStatus>>>,
    syncing: Arc<watch::Sender<bool>>,
}

impl Status {
    pub(super) fn new(
        peers: watch::Sender<BTreeMap<NodeId, PeerStatus>>,
        syncing: watch::Sender<bool>,
    ) -> Self {
        Self { peers: Arc::new(peers), syncing: Arc::new(syncing) }
    }

    fn change(&self, id: NodeId, change: impl FnOnce(&mut PeerStatus)) {
        self.peers.send_modify(|peers| change(peers.entry(id).or_default()));
    }

    /// A peer said what it has.
    pub(super) fn reported(&self, id: NodeId, report: Report, now: Timestamp) {
        self.change(id, |status| status.report = Some((report, now)));
    }

    /// A peer's clock was compared: it said `theirs` between `before` and `after` by this clock.
    pub(super) fn compared_clocks(
        &self,
        id: NodeId,
        theirs: Timestamp,
        before: Timestamp,
        after: Timestamp,
    ) {
        let millis = |t: Timestamp| i64::try_from(t.micros() / 1000).unwrap_or(i64::MAX);
        let middle = i64::midpoint(millis(before), millis(after));
        self.change(id, |status| status.clock_skew_ms = Some(millis(theirs) - middle));
    }

    /// A session with a peer ended well; `pulled`: this side drove it, so it has all that the peer
    /// had.
    pub(super) fn finished(&self, id: NodeId, report: Report, now: Timestamp, pulled: bool) {
        self.change(id, |status| {
            status.report = Some((report, now));
            status.last_sync_at = Some(now);
        });
        if pulled && report.records > 0 {
            self.syncing.send_if_modified(std::mem::take);
        }
    }

    /// Ends the waiting for data once `wait` is over and no peer is known to have any. Resolves
    /// when the node does not wait any more.
    pub(super) async fn wait_for_data(&self, wait: &Duration) {
        let mut syncing = self.syncing.subscribe();
        tokio::time::sleep(*wait).await;
        while *syncing.borrow_and_update() {
            let has_data = |s: &PeerStatus| s.report.is_some_and(|(report, _)| report.records > 0);
            if self.peers.borrow().values().any(has_data) {
                tokio::time::sleep(LOOK_AGAIN).await;
            } else {
                self.syncing.send_replace(false);
            }
        }
    }
}
