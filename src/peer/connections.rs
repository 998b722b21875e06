//! The state that all connections of one endpoint share, and the record of open connections.
//!
//! Promises that one certificate holds at most [`CONNECTIONS_PER_CERTIFICATE_MAX`] accepted
//! connections, and that a connection leaves the record and the gauge when its guard is dropped.
//! Must not know how a connection is made or what its streams carry.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use quinn::{Connection, VarInt};
use tokio::sync::{mpsc, watch};

use super::hello::Hello;
use super::link::Incoming;
use super::refusal::Refusals;
use crate::clock::Clock;
use crate::model::{Member, MemberState};
use crate::telemetry::Metrics;

/// Accepted connections per certificate. One more closes the oldest, which a crashed node may have
/// left behind.
pub(super) const CONNECTIONS_PER_CERTIFICATE_MAX: usize = 4;
/// The QUIC close code of an orderly end.
pub(super) const CLOSED_IN_ORDER: VarInt = VarInt::from_u32(0);

/// What every connection of an endpoint needs.
pub(super) struct EndpointShared {
    pub(super) own: Hello,
    /// `own`, encoded.
    pub(super) own_bytes: Vec<u8>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) refusals: Refusals,
    pub(super) incoming: mpsc::Sender<Incoming>,
    pub(super) open: OpenConnections,
    /// The members and their states, from gossip.
    pub(super) members: watch::Receiver<Vec<(Member, MemberState)>>,
}

/// The accepted connections by the hash of their certificate, oldest first. No queue is empty.
#[derive(Default)]
pub(super) struct OpenConnections(Mutex<BTreeMap<[u8; 32], VecDeque<Connection>>>);

impl EndpointShared {
    /// Records an accepted connection under the hash of its certificate, and closes the oldest one
    /// if there are now too many.
    pub(super) fn enter(
        self: &Arc<Self>,
        certificate: [u8; 32],
        connection: Connection,
    ) -> AcceptedConnection {
        let id = connection.stable_id();
        let mut open = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same_certificate = open.entry(certificate).or_default();
        same_certificate.push_back(connection);
        if same_certificate.len() > CONNECTIONS_PER_CERTIFICATE_MAX
            && let Some(oldest) = same_certificate.pop_front()
        {
            oldest.close(CLOSED_IN_ORDER, b"replaced by newer connections of the same node");
        }
        assert!(same_certificate.len() <= CONNECTIONS_PER_CERTIFICATE_MAX, "one in, one out");
        let counted = CountedConnection::new(&self.metrics, "accepted");
        AcceptedConnection { shared: self.clone(), certificate, id, _counted: counted }
    }
}

/// Keeps an accepted connection in the record until dropped.
pub(super) struct AcceptedConnection {
    shared: Arc<EndpointShared>,
    certificate: [u8; 32],
    id: usize,
    _counted: CountedConnection,
}

impl Drop for AcceptedConnection {
    fn drop(&mut self) {
        let mut open = self.shared.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        // it may be gone already: `enter` removes the oldest connection
        if let Some(same_certificate) = open.get_mut(&self.certificate) {
            same_certificate.retain(|connection| connection.stable_id() != self.id);
            if same_certificate.is_empty() {
                open.remove(&self.certificate);
            }
        }
    }
}

/// Counts a connection in `peer_connections` until dropped.
pub(super) struct CountedConnection {
    metrics: Arc<Metrics>,
    side: &'static str,
}

impl CountedConnection {
    pub(super) fn new(metrics: &Arc<Metrics>, side: &'static str) -> Self {
        metrics.peer_connections.get_or_create(&[("side", side)]).inc();
        Self { metrics: metrics.clone(), side }
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.metrics.peer_connections.get_or_create(&[("side", self.side)]).dec();
    }
}
