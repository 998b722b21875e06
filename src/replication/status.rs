//! What this node knows about each peer, and whether it still waits for its first data.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::model::member::{PeerStatus, Report};
use crate::model::{NodeId, Timestamp};

/// How long a report counts as recent. Peers report every few seconds.
const REPORT_RECENT: Duration = Duration::from_secs(15);
/// Reports that arrive over two streams can overtake each other by at most this.
const REPORTS_APART_MAX: Duration = Duration::from_secs(60);
/// How often a node that waits for data checks whether to go on waiting.
const WAIT_CHECK_EVERY: Duration = Duration::from_millis(100);

/// Shared by all tasks of replication. Cheap to clone.
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

    /// Whether this node still waits for its first data.
    pub(super) fn is_syncing(&self) -> bool {
        *self.syncing.borrow()
    }

    /// Records a report of the peer `id` that arrived at `now`.
    pub(super) fn reported(&self, id: NodeId, report: Report, now: Timestamp) {
        self.change(id, |status| replace_older(&mut status.report, report, now));
    }

    /// Records the skew of a peer's clock, which showed `theirs` at some instant between `before`
    /// and `after` of this node's clock.
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

    /// Records a complete session with a peer: each side has every record that the other had. Ends
    /// the wait for first data if the peer had all of the cluster's.
    pub(super) fn finished(&self, id: NodeId, report: Report, now: Timestamp) {
        self.change(id, |status| {
            replace_older(&mut status.report, report, now);
            status.last_sync_at = Some(now);
        });
        if has_data(&report) {
            self.syncing.send_if_modified(std::mem::take);
        }
    }

    /// Resolves when the node no longer waits for first data. Ends the wait itself once `wait` has
    /// passed and no recent report of a peer shows data.
    pub(super) async fn wait_for_data(&self, wait: Duration, clock: Clock) {
        let mut syncing = self.syncing.subscribe();
        let began = clock.instant();
        while *syncing.borrow_and_update() {
            let now = clock.now();
            let offers_data = |status: &PeerStatus| {
                status.report.is_some_and(|(report, at)| {
                    has_data(&report) && now.since(at) <= wait.max(REPORT_RECENT)
                })
            };
            let expected = self.peers.borrow().values().any(offers_data);
            if !expected && began.elapsed() >= wait {
                self.syncing.send_replace(false);
            }
            // `finished` can end the wait before the next check
            let _ = tokio::time::timeout(WAIT_CHECK_EVERY, syncing.changed()).await;
        }
    }
}

/// Whether a node with this report can give another all of the cluster's data.
fn has_data(report: &Report) -> bool {
    report.records > 0 && !report.syncing
}

/// Replaces `latest` unless `report` is older: reports arrive over several streams and can overtake
/// each other. A step back by [`REPORTS_APART_MAX`] or more means that the peer's clock was set, so
/// such a report counts as newer.
fn replace_older(latest: &mut Option<(Report, Timestamp)>, report: Report, now: Timestamp) {
    let overtaken = |latest: &Report| {
        report.now < latest.now && latest.now.since(report.now) < REPORTS_APART_MAX
    };
    if !latest.is_some_and(|(latest, _)| overtaken(&latest)) {
        *latest = Some((report, now));
    }
}
