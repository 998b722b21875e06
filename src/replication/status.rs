//! What is known of each peer, and whether this node still waits for its first data.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::model::member::{PeerStatus, Report};
use crate::model::{NodeId, Timestamp};

/// How long a report of a peer is good for; they come every few seconds.
const REPORT_GOOD: Duration = Duration::from_secs(15);
/// Reports of one peer overtake each other by less than this.
const REPORTS_APART_MAX: Duration = Duration::from_secs(60);
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

    /// Whether this node waits for its first data.
    pub(super) fn is_syncing(&self) -> bool {
        *self.syncing.borrow()
    }

    /// A peer said what it has.
    pub(super) fn reported(&self, id: NodeId, report: Report, now: Timestamp) {
        self.change(id, |status| keep_later(&mut status.report, report, now));
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

    /// A session with a peer ended well: this side has all that the peer had, and the other way
    /// round.
    pub(super) fn finished(&self, id: NodeId, report: Report, now: Timestamp) {
        self.change(id, |status| {
            keep_later(&mut status.report, report, now);
            status.last_sync_at = Some(now);
        });
        if has_data(&report) {
            self.syncing.send_if_modified(std::mem::take);
        }
    }

    /// Ends the waiting for data once `wait` is over and no peer has lately told of any. Resolves
    /// when the node does not wait any more, for this or another reason.
    pub(super) async fn wait_for_data(&self, wait: Duration, clock: Clock) {
        let mut syncing = self.syncing.subscribe();
        let began = clock.instant();
        while *syncing.borrow_and_update() {
            let now = clock.now();
            let lately = |status: &PeerStatus| {
                status.report.is_some_and(|(report, at)| {
                    has_data(&report) && now.since(at) <= wait.max(REPORT_GOOD)
                })
            };
            let expected = self.peers.borrow().values().any(lately);
            if !expected && began.elapsed() >= wait {
                self.syncing.send_replace(false);
            }
            // whichever comes first: the end of a session, or the time to look again
            let _ = tokio::time::timeout(LOOK_AGAIN, syncing.changed()).await;
        }
    }
}

/// Whether a node that reports this can give another all that the cluster has.
fn has_data(report: &Report) -> bool {
    report.records > 0 && !report.syncing
}

/// Reports come over several streams. An older one does not take the place of a newer one, unless
/// the peer's clock was set back by more than they may be apart.
fn keep_later(held: &mut Option<(Report, Timestamp)>, report: Report, now: Timestamp) {
    let older =
        |held: &Report| report.now < held.now && held.now.since(report.now) < REPORTS_APART_MAX;
    if !held.is_some_and(|(held, _)| older(&held)) {
        *held = Some((report, now));
    }
}
