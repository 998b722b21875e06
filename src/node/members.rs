//! Persists the members that gossip finds, so that the node's next start knows whom to contact.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::model::{Member, MemberState};
use crate::store::{Store, WriteError};

/// The pause after the store failed to take the members.
const RETRY: Duration = Duration::from_secs(5);

/// The members that the store has from earlier runs; none when it cannot tell.
pub(super) fn known(store: &Store) -> Vec<Member> {
    store.members().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read the members of earlier runs; joining by the seeds");
        Vec::new()
    })
}

/// Writes all members to the store on each change, this node included. `known` are those that the
/// store has already. Retries failed writes. Runs until `stop`.
pub async fn persist(
    store: Store,
    known: Vec<Member>,
    mut members: watch::Receiver<Vec<(Member, MemberState)>>,
    stop: CancellationToken,
) {
    let mut stored = known;
    members.mark_changed();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = members.changed() => if changed.is_err() {
                // gossip has ended, so the node is stopping
                return stop.cancelled().await;
            },
        }
        let now: Vec<Member> =
            members.borrow_and_update().iter().map(|(member, _)| member.clone()).collect();
        if now == stored {
            continue;
        }
        match store.put_members(&now).await {
            Ok(()) => stored = now,
            Err(WriteError::ShuttingDown) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot store the members; trying again in 5 s");
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => members.mark_changed(),
                }
            }
        }
    }
}
