//! The mode of the node at its first start.

use super::NodeError;
use crate::config::Config;
use crate::store::{NodeMode, Store};

/// Takes the mode of the configuration at the first start. On a full disk a later start keeps it.
pub(super) async fn start(config: &Config, store: &Store) -> Result<(), NodeError> {
    let mode = if config.read_only { NodeMode::ReadOnly } else { NodeMode::Normal };
    match store.start_in(mode).await {
        Err(_) if store.obstacle().is_some() => Ok(()),
        done => done.map_err(NodeError::FirstWrite),
    }
}
