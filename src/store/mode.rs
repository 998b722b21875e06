//! The mode of a node: whether it takes writes of clients. Persistent, and its own.
//!
//! Merges, sweeps and retries of remembered requests go on in every mode: they are no new writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::engine::Engine;
use super::{ReadError, Store, WriteError};
use crate::telemetry::Metrics;

/// Meta entry: the mode of the node.
pub(super) const MODE: &str = "mode";

/// Whether a node takes writes of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeMode {
    /// It takes them.
    #[default]
    Normal,
    /// It refuses them.
    ReadOnly,
}

/// The mode that is durable, where each decision reads it.
pub(super) struct ModeState {
    read_only: AtomicBool,
    /// Whether it takes no writes of clients until the process ends, or until it is set back.
    leaving: AtomicBool,
    metrics: Arc<Metrics>,
}

impl ModeState {
    pub(super) fn open(engine: &dyn Engine, metrics: Arc<Metrics>) -> Result<Self, ReadError> {
        let state =
            Self { read_only: AtomicBool::new(false), leaving: AtomicBool::new(false), metrics };
        state.load(engine)?;
        Ok(state)
    }

    /// Reads what the disk holds, also after a commit whose outcome was unknown.
    pub(super) fn load(&self, engine: &dyn Engine) -> Result<(), ReadError> {
        if let Some(mode) = super::meta(engine, MODE)? {
            self.set(mode);
        }
        Ok(())
    }

    pub(super) fn get(&self) -> NodeMode {
        if self.read_only.load(Ordering::Relaxed) { NodeMode::ReadOnly } else { NodeMode::Normal }
    }

    /// Whether the node leaves the cluster.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Follows what is durable. Logs each change.
    pub(super) fn set(&self, mode: NodeMode) {
        let read_only = mode == NodeMode::ReadOnly;
        self.metrics.read_only.set(read_only.into());
        match (self.read_only.swap(read_only, Ordering::Relaxed), read_only) {
            (false, true) => tracing::info!(
                "the mode is read_only: writes of clients are refused until `kvs mode normal`"
            ),
            (true, false) => tracing::info!("the mode is normal: writes of clients are accepted"),
            (false, false) | (true, true) => {}
        }
    }
}

impl Store {
    /// The mode of this node.
    #[must_use]
    pub fn mode(&self) -> NodeMode {
        self.shared.mode.get()
    }

    /// Takes no writes of clients from now on. One that is being decided may still be taken:
    /// whatever goes through the writer after this call follows it. Answers whether that is new.
    #[must_use]
    pub fn stop_writes(&self) -> bool {
        !self.shared.mode.leaving.swap(true, Ordering::Relaxed)
    }

    /// Takes writes of clients again.
    pub fn resume_writes(&self) {
        self.shared.mode.leaving.store(false, Ordering::Relaxed);
    }

    /// Takes the mode of the configuration where none was ever kept: at the first start.
    ///
    /// # Errors
    /// When the node is stopping or storage failed.
    pub async fn start_in(&self, configured: NodeMode) -> Result<(), WriteError> {
        let kept = super::meta::<NodeMode>(self.shared.engine.as_ref(), MODE);
        match kept.map_err(WriteError::Failed)? {
            Some(_) => Ok(()),
            None => self.set_mode(configured).await,
        }
    }
}
