//! Leaving the cluster in order.
//!
//! Promises that a node which has left wrote nothing that no other durable member holds, unless the
//! operator accepts that. A member tells at the begin of each session up to which point it holds
//! what this node had; a point that is taken after the last write proves that it holds them all.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::SyncRequest;
use crate::clock::Clock;
use crate::model::member::{PeerStatus, SyncReport};
use crate::model::{NodeId, Timestamp};
use crate::proto::stability::{DurableSet, Ledger, WhyGone};
use crate::store::{Store, WriteError};

/// How long to wait for a member to hold all writes, while sessions succeed. The durable set may
/// change meanwhile, and what members hold is then proven anew.
const PROOF_WAIT: Duration = Duration::from_secs(20);
/// The pause between two rounds of sessions.
const NEXT_ROUND: Duration = Duration::from_millis(50);

/// Why a node did not leave. It goes on as before.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// No other durable member holds all of this node's writes.
    #[error("no other member is known to hold all writes of this node: {0}")]
    NotReplicated(String),
    /// Storage failed, or the node stops.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What leaving needs of a node.
pub struct Leaving {
    /// Takes no writes of clients meanwhile.
    pub store: Store,
    /// Requests a session with every reachable peer.
    pub sync: mpsc::Sender<SyncRequest>,
    /// What each peer holds of this node.
    pub peers: watch::Receiver<BTreeMap<NodeId, PeerStatus>>,
    /// Time.
    pub clock: Clock,
}

impl Leaving {
    /// Leaves: brings all writes to the others, and enters this node as gone, there too. It counts
    /// no more and takes no writes from then on; at its next start it begins anew. With `force` it
    /// leaves although no other member holds all of its writes.
    ///
    /// # Errors
    /// [`LeaveError`]; the node then takes writes again.
    pub async fn leave(&self, force: bool) -> Result<(), LeaveError> {
        if !self.store.stop_writes() {
            // another request does it
            return Err(WriteError::ShuttingDown.into());
        }
        let left = self.leave_silent(force).await;
        if left.is_err() {
            self.store.resume_writes();
        }
        left
    }

    async fn leave_silent(&self, force: bool) -> Result<(), LeaveError> {
        // every write of before is in the digest by then, and greater points are taken later
        let after = self.store.change_ledger(Ledger::confirm).await?;
        let held = self.is_held(after.0).await?;
        if let Err(why) = held
            && !force
        {
            return Err(LeaveError::NotReplicated(why));
        }
        let own = self.store.ledger().id;
        self.store.remove_member(own, WhyGone::Left).await?;
        // in these sessions the others learn it; who does not will hear it from them
        self.round().await?;
        Ok(())
    }

    /// Runs sessions until another member holds all writes; the text says why none does.
    async fn is_held(&self, after: Timestamp) -> Result<Result<(), String>, WriteError> {
        let deadline = self.clock.instant() + PROOF_WAIT;
        loop {
            let reports = self.round().await?;
            if self.others_hold(after) {
                return Ok(Ok(()));
            }
            let errors = reports.iter().filter_map(|report| report.error.as_ref());
            let errors: Vec<_> = errors.map(String::as_str).collect();
            if errors.len() == reports.len() || self.clock.instant() >= deadline {
                let said = match errors.first() {
                    Some(error) => error,
                    None if reports.is_empty() => "no other member is up",
                    // or the durable set changes all the time
                    None => "the sessions succeed, but clocks disagree or records are held back",
                };
                return Ok(Err(said.to_owned()));
            }
            tokio::time::sleep(NEXT_ROUND).await;
        }
    }

    /// Whether another member told that it holds what this node held at a point above `after`.
    fn others_hold(&self, after: Timestamp) -> bool {
        let ledger = self.store.ledger();
        let peers = self.peers.borrow();
        let holds = |id: NodeId| {
            peers.get(&id).and_then(|peer| peer.holds_of_this).is_some_and(|point| point > after)
        };
        let mut members = ledger.set.iter().flat_map(DurableSet::members);
        members.any(|id| id != ledger.id && holds(id))
    }

    async fn round(&self) -> Result<Vec<SyncReport>, WriteError> {
        let (answer, reports) = oneshot::channel();
        self.sync.send(answer).await.map_err(|_| WriteError::ShuttingDown)?;
        reports.await.map_err(|_| WriteError::ShuttingDown)
    }
}
