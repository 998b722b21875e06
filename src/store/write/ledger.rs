//! The ledger of stability in the store: opened with it, and changed by the writer alone.
//!
//! A change is durable before its answer goes out, and all that was committed before it is in the
//! digest by then. So a point that it takes has everything below it in the digest.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::effects::{Effect, Effects};
use super::job::{Job, LedgerChange};
use super::view::View;
use crate::model::{NodeId, Timestamp};
use crate::proto::stability::{Anew, Founding, Introduction, Ledger, Start, WhyGone};
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

/// Makes `identity` that of the next opening. The feed then begins a new epoch, since positions of
/// before mean nothing any more, and this node's writes of before are found under its former ids.
pub(super) fn change_identity(view: &mut View<'_>, identity: Identity) -> Effects {
    assert_ne!(identity.node, view.node(), "a node begins anew under another id");
    let mut formers = view.shared.former_ids.clone();
    formers.push(view.node());
    let mut effects = Effects::default();
    let mut put = |name, value| effects.push(Effect::PutMeta { name, value });
    put(layout::IDENTITY, layout::encode_meta(&identity));
    put(layout::FORMER_IDS, layout::encode_meta(&formers));
    for name in [layout::FEED_EPOCH, layout::BOOTSTRAPPED] {
        effects.push(Effect::DropMeta { name });
    }
    effects
}

impl Store {
    /// Begins anew, for a reason that the opening of a session with `them` gave: this node is a
    /// newcomer from then on and takes no writes of clients before it is counted. Unless it keeps
    /// its id, the store must be opened again: see [`Self::has_other_identity`].
    ///
    /// # Errors
    /// When the node is stopping or storage failed.
    pub async fn begin_anew(&self, why: Anew, them: Introduction) -> Result<(), WriteError> {
        let identity = self.identity();
        if matches!(why, Anew::Apart { keeps_id: true }) {
            let anew = move |ledger: &mut Ledger, _| ledger.begin_anew(why, identity.node, &them);
            return self.change_ledger(anew).await;
        }
        let (clock, before) = (&self.shared.clock, identity.node);
        let node = NodeId::from_bytes(*clock.uuid().as_bytes());
        let identity = Identity { node, joined_at: clock.now(), ..identity };
        let change = LedgerChange::new(move |ledger: &mut Ledger, _| {
            // the second of two sessions that came to this finds it done
            if ledger.id == before {
                ledger.begin_anew(why, node, &them);
            }
        });
        self.submit(|reply| Job::Anew { change, identity, reply }).await
    }

    /// Whether the data has another identity than this opening of it: the node began anew.
    #[must_use]
    pub fn has_other_identity(&self) -> bool {
        self.shared.ledger.borrow().id != self.shared.identity.node
    }

    /// Resolves when the node has begun anew under another id, and has to open the store again.
    pub async fn begun_anew(&self) {
        let mut ledger = self.watch_ledger();
        let own = self.shared.identity.node;
        if ledger.wait_for(|ledger| ledger.id != own).await.is_err() {
            // the sender lives as long as this handle
            std::future::pending::<()>().await;
        }
    }

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

    /// Enters `id` as gone from the durable set, for good: an operator's word, or its own. Answers
    /// whether that is new.
    ///
    /// # Errors
    /// When the node is stopping or storage failed.
    pub async fn remove_member(&self, id: NodeId, why: WhyGone) -> Result<bool, WriteError> {
        self.change_ledger(move |ledger, _| ledger.remove(id, why)).await
    }

    /// Founds a durable set with this node as its only member, if it is in none that has members.
    /// `lone` says that it has seeds and has met none of them.
    ///
    /// # Errors
    /// When the node is stopping or storage failed.
    pub async fn found(&self, lone: bool) -> Result<(), WriteError> {
        let id = self.shared.clock.uuid();
        self.change_ledger(move |ledger, now| {
            if ledger.is_of_no_set() {
                let founding = Founding { at: now, id };
                ledger.found(founding, lone);
            }
        })
        .await
    }
}
