//! The member table on disk: what gossip tells is kept, for the node's next start.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::model::{Member, MemberState};
use crate::store::{Store, WriteError};

/// The pause after storage did not take them.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps the members that were ever met, so that a node that starts again knows whom to look for.
/// `known` are those that are kept already. Runs until `stop`.
pub async fn keep(
    store: Store,
    known: Vec<Member>,
    mut members: watch::Receiver<Vec<(Member, MemberState)>>,
    stop: CancellationToken,
) {
    let mut kept = known;
    members.mark_changed();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = members.changed() => if changed.is_err() {
                // gossip has ended; the node is about to
                return stop.cancelled().await;
            },
        }
        let now: Vec<Member> =
            members.borrow_and_update().iter().map(|(member, _)| member.clone()).collect();
        if now == kept {
            continue;
        }
        match store.put_members(&now).await {
            Ok(()) => kept = now,
            Err(WriteError::ShuttingDown) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot keep the members; trying again");
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => members.mark_changed(),
                }
            }
        }
    }
}
