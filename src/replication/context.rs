//! The state that all tasks of replication share.

use std::sync::Arc;

use super::intake::Intake;
use super::status::Status;
use crate::clock::Clock;
use crate::config;
use crate::model::member::Report;
use crate::peer::Dialer;
use crate::proto::reconcile::Replica;
use crate::store::Store;
use crate::telemetry::Metrics;

/// Handles for the task of a peer or of a stream. Cheap to clone.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) store: Store,
    pub(super) dialer: Arc<dyn Dialer>,
    pub(super) settings: Arc<config::SyncConfig>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) status: Status,
    pub(super) intake: Intake,
}

impl Context {
    /// What this node reports to its peers about its store.
    pub(super) fn report(&self) -> Report {
        let root = self.store.root();
        Report {
            fingerprint: root.fingerprint(),
            records: root.count,
            syncing: self.status.is_syncing(),
            now: self.clock.now(),
        }
    }
}
