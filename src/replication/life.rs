//! The life of a process in the ledger of stability: its begin, the end of the wait for first data,
//! and the floor of a node that is alone.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::opening::because;
use crate::proto::stability::{Anew, WhyGone};
use crate::store::Store;

/// The pause after the store first failed to persist that this process has begun. It doubles, up to
/// [`PERSIST_AGAIN`].
const BEGIN_AGAIN: Duration = Duration::from_millis(50);
/// The pause after the store failed to persist that this node has its first data.
const PERSIST_AGAIN: Duration = Duration::from_secs(5);

/// Keeps the floor of a node without a cluster near its clock, so that its dead records go. Runs
/// until `stop`.
pub async fn live_alone(store: Store, interval: Duration, stop: CancellationToken) {
    let life = async {
        begin_life(&store, Some(false)).await;
        loop {
            tokio::time::sleep(interval).await;
            advance_alone(&store).await;
        }
    };
    stop.run_until_cancelled(life).await;
}

/// Moves the point, and with it the floor, of a node that is alone in its durable set.
pub(super) async fn advance_alone(store: &Store) {
    if store.ledger().set.as_ref().is_none_or(|set| set.members().count() != 1) {
        return;
    }
    let alone = store.change_ledger(|ledger, now| _ = ledger.alone(now)).await;
    if let Err(error) = alone {
        tracing::debug!(%error, "the point of a lone node does not move");
    }
}

/// Begins this process's life among others. A node that had left begins anew, and its process then
/// opens the store again.
pub(super) async fn begin_among_others(context: &Context, founds: Option<bool>) {
    begin_life(&context.store, founds).await;
    if context.store.ledger().gone() != Some(WhyGone::Left) {
        return;
    }
    tracing::warn!("this node begins anew as a new member: {}", because(Anew::Left));
    while let Err(error) = context.store.begin_anew(Anew::Left, context.introduce()).await {
        tracing::warn!(%error, "cannot store that this node begins anew; trying again");
        tokio::time::sleep(PERSIST_AGAIN).await;
    }
}

/// Begins this process's life in the ledger. With `founds`, founds a durable set if it is in none;
/// `founds` says whether it has seeds. Tries again where storage fails.
pub(super) async fn begin_life(store: &Store, founds: Option<bool>) {
    let mut pause = BEGIN_AGAIN;
    loop {
        let mut begun = store.begin_life().await;
        if let (Ok(()), Some(has_seeds)) = (&begun, founds) {
            begun = store.found(has_seeds).await;
        }
        let Err(error) = begun else { return };
        if pause == BEGIN_AGAIN {
            tracing::warn!(%error, "cannot store that this node has started; trying again");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PERSIST_AGAIN);
    }
}

/// Persists the end of the wait for first data. A node that stops in the middle of its first
/// session waits again after its next start.
pub(super) async fn persist_bootstrapped(context: Context) {
    context.status.serves().await;
    while let Err(error) = context.store.set_bootstrapped().await {
        tracing::warn!(%error, "cannot store that this node has its first data; trying again");
        tokio::time::sleep(PERSIST_AGAIN).await;
    }
}
