//! The ledger of stability in the store: opened with it, and changed by the writer alone.
//!
//! A change is durable before its answer goes out, and all that was committed before it is in the
//! digest by then. So a point that it takes has everything below it in the digest.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::job::{Job, LedgerChange};
use crate::model::Timestamp;
use crate::proto::stability::{Founding, Ledger, Start};
use crate::store::engine::Engine;
use crate::store::identity::Identity;
use crate::store::{ReadError, Store, WriteError, layout, meta};

/// The ledger on the disk; an empty one where there is none.
pub(in crate::store) fn load(
    engine: &dyn Engine,
    identity: &Identity,
) -> Result<Ledger, ReadError> {
    let held: Option<Ledger> = meta(engine, layout::STABILITY)?;
    Ok(held.unwrap_or_else(|| Ledger::empty(identity.node, Start::default())))
}

impl Store {
    /// The ledger, as it is durable.
    #[must_use]
    pub fn ledger(&self) -> Arc<Ledger> {
        self.shared.ledger.borrow().clone()
    }

    /// Shows each durable change of the ledger.
    #[must_use]
    pub fn watch_ledger(&self) -> watch::Receiver<Arc<Ledger>> {
        self.shared.ledger.subscribe()
    }

    /// Changes the ledger, and gives what `change` gave once the ledger is durable. `change` gets
    /// the wall clock.
    ///
    /// # Errors
    /// When the node is stopping or storage failed.
    pub async fn change_ledger<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Ledger, Timestamp) -> T + Send + 'static,
    ) -> Result<T, WriteError> {
        let (give, mut given) = oneshot::channel();
        let change = LedgerChange::new(move |ledger, now| {
            // the asker may be gone
            let _ = give.send(change(ledger, now));
        });
        self.submit(|reply| Job::Ledger { change, reply }).await?;
        given.try_recv().map_err(|_| WriteError::ShuttingDown)
    }

    /// Begins this process's life in the ledger: once for each process, before it talks to peers.
    ///
    /// # Errors
    /// When the node is stopping or storage failed.
    pub async fn begin_life(&self) -> Result<(), WriteError> {
        let random = u64::from_le_bytes(self.shared.clock.random());
        self.change_ledger(move |ledger, now| {
            let start = Start { at: now.max(ledger.start.at.next()), random };
            *ledger = ledger.clone().start(start);
        })
        .await
    }

    /// Founds a durable set with this node as its only member, if it is in none. `lone` says that
    /// it has seeds and has met none of them.
    ///
    /// # Errors
    /// When the node is stopping or storage failed.
    pub async fn found(&self, lone: bool) -> Result<(), WriteError> {
        let id = self.shared.clock.uuid();
        self.change_ledger(move |ledger, now| {
            if ledger.set.is_none() {
                let founding = Founding { at: now, id };
                *ledger = Ledger::founder(ledger.id, ledger.start, founding, lone);
            }
        })
        .await
    }
}
