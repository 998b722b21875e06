//! What this node knows about each peer, and whether it still waits for its first data.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::lag::Lag;
use crate::clock::Clock;
use crate::model::member::{HeldReport, PeerStatus, Reach, Report};
use crate::model::{HeldBack, NodeId, Timestamp};
use crate::telemetry::Metrics;

/// Reports that arrive over two streams can overtake each other by at most this.
const REPORTS_APART_MAX: Duration = Duration::from_secs(60);

/// The skew of a clock is wrong by up to half a round trip, so a slower one tells nothing.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(5);

/// Shared by all tasks of replication. Cheap to clone.
#[derive(Clone)]
pub(super) struct Status {
    peers: Arc<watch::Sender<BTreeMap<NodeId, PeerStatus>>>,
    syncing: Arc<watch::Sender<bool>>,
    metrics: Arc<Metrics>,
    /// What each peer has not confirmed.
    lags: Arc<Mutex<BTreeMap<NodeId, Lag>>>,
}

impl Status {
    pub(super) fn new(
        peers: watch::Sender<BTreeMap<NodeId, PeerStatus>>,
        syncing: watch::Sender<bool>,
        metrics: Arc<Metrics>,
    ) -> Self {
        metrics.syncing.set(i64::from(*syncing.borrow()));
        Self { peers: Arc::new(peers), syncing: Arc::new(syncing), metrics, lags: Arc::default() }
    }

    fn change(&self, id: NodeId, change: impl FnOnce(&mut PeerStatus)) {
        self.peers.send_modify(|peers| change(peers.entry(id).or_default()));
    }

    /// Changes what the peer `id` has not confirmed. Wakes nobody: it happens with each push.
    pub(super) fn lags(&self, id: NodeId, change: impl FnOnce(&mut Lag)) {
        let mut lags = self.lags.lock().unwrap_or_else(PoisonError::into_inner);
        let lag = lags.entry(id).or_default();
        change(lag);
        let since = lag.since();
        self.peers.send_if_modified(|peers| {
            peers.entry(id).or_default().unconfirmed_since = since;
            false
        });
    }

    /// What is known of the peer `id`.
    pub(super) fn of(&self, id: NodeId) -> PeerStatus {
        self.peers.borrow().get(&id).cloned().unwrap_or_default()
    }

    /// Whether this node still waits for its first data.
    pub(super) fn is_syncing(&self) -> bool {
        *self.syncing.borrow()
    }

    /// Ends the wait for first data.
    pub(super) fn serve(&self) {
        self.metrics.syncing.set(0);
        self.syncing.send_if_modified(std::mem::take);
    }

    /// Begins to wait for data again.
    pub(super) fn wait_again(&self) {
        self.metrics.syncing.set(1);
        self.syncing.send_if_modified(|syncing| !std::mem::replace(syncing, true));
    }

    /// Resolves when this node no longer waits for its first data.
    pub(super) async fn serves(&self) {
        // an error means that the sender is gone, and it is in `self`
        let _ = self.syncing.subscribe().wait_for(|syncing| !syncing).await;
    }

    /// Records the end of an attempt to connect to the peer `id`.
    pub(super) fn dialed(&self, id: NodeId, error: Option<&str>) {
        self.change(id, |status| match error {
            // a session must show that the connection works
            None => status.reach = Reach::Reached,
            Some(error) => {
                status.reach = Reach::Unreached;
                status.error = Some(error.to_owned());
                // nobody knows how its clock stands now
                status.clock_skew_ms = None;
            }
        });
    }

    /// Records that a session with the peer `id` failed.
    pub(super) fn failed(&self, id: NodeId, error: &str) {
        self.change(id, |status| status.error = Some(error.to_owned()));
    }

    /// Records whether this node stands apart from the cluster of the peer `id`.
    pub(super) fn stands_apart(&self, id: NodeId, is_apart: bool) {
        if self.of(id).is_apart != is_apart {
            self.change(id, |status| status.is_apart = is_apart);
        }
    }

    /// Records up to which point the peer `id` told that it holds what this node held.
    pub(super) fn holds_of_this(&self, id: NodeId, point: Option<Timestamp>) {
        self.change(id, |status| status.holds_of_this = point);
    }

    /// Records that the peer `id` answers sessions.
    pub(super) fn works(&self, id: NodeId) {
        self.change(id, |status| status.error = None);
    }

    /// Forgets what is true only of a peer to which this node connects.
    pub(super) fn disconnected(&self, id: NodeId) {
        self.change(id, |status| {
            (status.reach, status.error, status.clock_skew_ms) = (Reach::Untried, None, None);
        });
    }

    /// Records a report of the peer `id` that arrives now.
    pub(super) fn reported(&self, id: NodeId, report: Report, clock: &Clock) {
        self.change(id, |status| replace_older(&mut status.report, report, clock));
    }

    /// The horizon of the peer `id` by now, as its latest report tells; the end of time before the
    /// first.
    pub(super) fn horizon(&self, id: NodeId, clock: &Clock) -> Timestamp {
        let held = self.peers.borrow().get(&id).and_then(|status| status.report);
        held.map_or(Timestamp::MAX, |held| {
            let age = clock.instant().into_std().saturating_duration_since(held.received);
            held.report.horizon.plus(age)
        })
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
        // a pause of this process, or a step of its clock, says nothing about that of the peer
        if after < before || after.since(before) > ROUND_TRIP_MAX {
            return;
        }
        let millis = |t: Timestamp| i64::try_from(t.micros() / 1000).unwrap_or(i64::MAX);
        let middle = i64::midpoint(millis(before), millis(after));
        self.change(id, |status| status.clock_skew_ms = Some(millis(theirs) - middle));
    }

    /// Records that this node holds back records that the peer `id` has pushed.
    pub(super) fn held(&self, id: NodeId, held: HeldBack) {
        if held.is_any() {
            self.change(id, |status| {
                status.held_records = status.held_records.saturating_add(held.records);
            });
        }
    }

    /// Records a complete session with a peer: each side has every record that the other had when
    /// it began, at `began`, unless one of them only received, and but for those that are `held`.
    pub(super) fn finished(
        &self,
        id: NodeId,
        report: Report,
        held: HeldBack,
        began: Instant,
        clock: &Clock,
    ) {
        self.lags(id, |lag| lag.session(began));
        self.change(id, |status| {
            replace_older(&mut status.report, report, clock);
            status.last_sync_at = Some(clock.now());
            status.held_records = held.records;
        });
    }
}

/// Replaces `latest` unless `report` is older: reports arrive over several streams and can overtake
/// each other. A step back by [`REPORTS_APART_MAX`] or more means that the peer's clock was set, so
/// such a report counts as newer.
fn replace_older(latest: &mut Option<HeldReport>, report: Report, clock: &Clock) {
    let overtaken = |latest: &Report| {
        report.now < latest.now && latest.now.since(report.now) < REPORTS_APART_MAX
    };
    if !latest.is_some_and(|latest| overtaken(&latest.report)) {
        let received = clock.instant().into_std();
        *latest = Some(HeldReport { report, at: clock.now(), received });
    }
}
