//! The running parts of a node: how they start, and how they stop in order.

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{GOSSIP, NodeError};

/// A running part of the node.
pub(super) struct RunningPart {
    /// Its name in log lines and in [`NodeError::Ended`].
    pub(super) name: &'static str,
    pub(super) task: JoinHandle<()>,
    /// Makes `task` end in order.
    pub(super) stop: CancellationToken,
}

/// Starts a part that runs until its token is cancelled.
pub(super) fn start<F: Future<Output = ()> + Send + 'static>(
    parts: &mut Vec<RunningPart>,
    name: &'static str,
    run: impl FnOnce(CancellationToken) -> F,
) {
    let stop = CancellationToken::new();
    let task = tokio::spawn(run(stop.clone()));
    parts.push(RunningPart { name, task, stop });
}

/// Stops the parts in reverse order of their start: HTTP first, so that the parts that serve its
/// last requests still run.
pub(super) async fn shut_down(
    mut parts: Vec<RunningPart>,
    writer: JoinHandle<Result<(), NodeError>>,
    orderly: bool,
) -> Result<(), NodeError> {
    // the others learn at once that this node leaves, while it still serves its last requests
    parts.iter().filter(|part| part.name == GOSSIP).for_each(|part| part.stop.cancel());
    while let Some(part) = parts.pop() {
        part.stop.cancel();
        if part.task.is_finished() {
            // `first_ended` has awaited this one, and a task can be awaited only once
            continue;
        }
        if let Err(error) = part.task.await
            && error.is_panic()
        {
            tracing::error!(%error, "{} panicked; this is a bug, please report it", part.name);
        }
    }
    // the parts held the last handles to the store: the writer now finishes and closes the database
    if orderly { writer.await.unwrap_or(Ok(())) } else { Ok(()) }
}

/// Waits until one of the parts ends, and returns its name.
pub(super) async fn first_ended(parts: &mut [RunningPart]) -> &'static str {
    let tasks = parts.iter_mut().map(|part| {
        let name = part.name;
        Box::pin(async move {
            let _ = (&mut part.task).await;
            name
        })
    });
    futures_util::future::select_all(tasks).await.0
}
