//! Tells that a peer cannot be reached, why, and when it is again.
//!
//! Promises that the log has a line when it begins, one when the reason changes, and one with the
//! duration when it ends, at a bounded rate; and that the metric shows it meanwhile. Must not know
//! how peers are reached.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::context::Context;
use crate::clock::Clock;
use crate::model::{Member, NodeId};
use crate::peer::PeerError;
use crate::telemetry::{Metrics, PeerLabels};

use super::status::Status;

/// The least time between two lines about one interruption.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// Failed sessions in a row that count as an interruption. One fails whenever a peer stops.
const SESSIONS_FAILED_MAX: u32 = 2;

/// Watches the attempts to reach one peer. Dropping it ends what the metric shows.
pub(super) struct Interruption {
    id: NodeId,
    name: String,
    address: SocketAddr,
    status: Status,
    clock: Clock,
    metrics: Arc<Metrics>,
    now: Option<Outage>,
    sessions_failed: u32,
}

/// One that goes on.
struct Outage {
    why: String,
    since: Instant,
    said_at: Instant,
    labels: PeerLabels,
}

impl Interruption {
    pub(super) fn new(context: &Context, peer: &Member) -> Self {
        Self {
            id: peer.id,
            name: peer.name.clone(),
            address: peer.peer,
            status: context.status.clone(),
            clock: context.clock.clone(),
            metrics: context.metrics.clone(),
            now: None,
            sessions_failed: 0,
        }
    }

    /// A connection was made. Whether it is of use, a session will show.
    pub(super) fn dialed(&self) {
        self.count("connected");
        self.status.dialed(self.id, None);
    }

    /// An attempt to connect failed.
    pub(super) fn not_dialed(&mut self, error: &PeerError) {
        let reason = match error {
            PeerError::Unreachable(_) => "unreachable",
            PeerError::Refused(_) | PeerError::Copy(_) => "refused",
            PeerError::Malformed(_) => "malformed",
        };
        self.count(reason);
        self.status.dialed(self.id, Some(&error.to_string()));
        self.say(error.to_string(), reason);
    }

    /// A session came to its end, or is to be tried again soon.
    pub(super) fn session_ended(&mut self) {
        self.sessions_failed = 0;
        self.status.works(self.id);
        self.end();
    }

    /// A session ended early as one side takes no records for lack of room; the text says which.
    pub(super) fn session_paused(&mut self, why: Option<String>) {
        let why = why.unwrap_or_default();
        self.sessions_failed = 0;
        self.status.failed(self.id, &why);
        self.say(why, "storage_full");
    }

    /// A session failed.
    pub(super) fn session_failed(&mut self, error: Option<String>) {
        let error = error.unwrap_or_default();
        self.sessions_failed = self.sessions_failed.saturating_add(1);
        self.status.failed(self.id, &error);
        if self.sessions_failed >= SESSIONS_FAILED_MAX {
            self.say(error, "session");
        }
    }

    fn count(&self, outcome: &'static str) {
        self.metrics.peer_dials.get_or_create(&[("outcome", outcome)]).inc();
    }

    fn say(&mut self, why: String, reason: &'static str) {
        let now = self.clock.instant();
        let told = self.now.as_ref().is_some_and(|current| {
            current.why == why || now.saturating_duration_since(current.said_at) < SAY_EVERY
        });
        if told {
            return;
        }
        tracing::warn!("cannot sync with {} at {}: {why}; trying again", self.name, self.address);
        let since = self.now.take().map_or(now, |before| {
            self.metrics.peer_unreached.remove(&before.labels);
            before.since
        });
        let labels = [
            ("peer", self.name.clone()),
            ("address", self.address.to_string()),
            ("reason", reason.to_owned()),
        ];
        self.metrics.peer_unreached.get_or_create(&labels).set(1);
        assert!(self.now.is_none(), "one outage at a time shows in the metric");
        self.now = Some(Outage { why, since, said_at: now, labels });
    }

    fn end(&mut self) {
        let Some(ended) = self.now.take() else { return };
        self.metrics.peer_unreached.remove(&ended.labels);
        let lasted = self.clock.instant().saturating_duration_since(ended.since).as_secs();
        tracing::info!("syncs with {} at {} again, after {lasted} s", self.name, self.address);
    }
}

impl Drop for Interruption {
    fn drop(&mut self) {
        if let Some(ended) = self.now.take() {
            self.metrics.peer_unreached.remove(&ended.labels);
        }
    }
}
