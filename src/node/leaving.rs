//! Leaves the cluster when the API asks for it, and ends the node then.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::parts::{self, RunningPart};
use crate::clock::Clock;
use crate::http::LeaveRequest;
use crate::model::NodeId;
use crate::model::member::PeerStatus;
use crate::replication::{LeaveError, Leaving, SyncRequest};
use crate::store::Store;

/// Starts the part that serves requests to leave, and gives where to send them, and who hears that
/// this node has left.
pub(super) fn start(
    store: &Store,
    sync: &mpsc::Sender<SyncRequest>,
    peers: &watch::Receiver<BTreeMap<NodeId, PeerStatus>>,
    clock: &Clock,
    parts: &mut Vec<RunningPart>,
) -> (mpsc::Sender<LeaveRequest>, Arc<Notify>) {
    let leaving = Leaving {
        store: store.clone(),
        sync: sync.clone(),
        peers: peers.clone(),
        clock: clock.clone(),
    };
    let (leave, requests) = mpsc::channel(1);
    let left = Arc::new(Notify::new());
    let hears = left.clone();
    parts::start(parts, "leaving", |stop| serve(leaving, requests, hears, stop));
    (leave, left)
}

/// Serves requests to leave, one at a time, until `stop`; `left` hears that this node has left.
async fn serve(
    leaving: Leaving,
    mut requests: mpsc::Receiver<LeaveRequest>,
    left: Arc<Notify>,
    stop: CancellationToken,
) {
    while let Some(Some(request)) = stop.run_until_cancelled(requests.recv()).await {
        let Some(done) = stop.run_until_cancelled(leaving.leave(request.force)).await else {
            return;
        };
        let has_left = done.is_ok();
        // the client may have disconnected
        let _ = request.answer.send(match done {
            Ok(()) => Ok(Ok(())),
            Err(LeaveError::NotReplicated(why)) => Ok(Err(why)),
            Err(LeaveError::Write(error)) => Err(error),
        });
        if has_left {
            tracing::info!("this node has left the cluster");
            left.notify_one();
        }
    }
    stop.cancelled().await;
}
