//! The signals that a node handles.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// SIGTERM and SIGINT stop the node. SIGHUP is caught, because its default action would kill the
/// process and operators send it to reload; see also [`reload_on_hangup`].
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Resolves at the next SIGTERM or SIGINT. Cancel-safe.
    pub(super) async fn stop(&mut self) {
        loop {
            tokio::select! {
                biased;
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => {
                    tracing::info!(
                        "SIGHUP: certificate files are read again; other settings need a restart"
                    );
                }
            }
        }
    }
}

/// Notifies `reload` at each SIGHUP, until `stop`.
pub(super) async fn reload_on_hangup(
    mut hang_up: Signal,
    reload: Arc<Notify>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            received = hang_up.recv() => match received {
                Some(()) => reload.notify_one(),
                None => return stop.cancelled().await,
            },
        }
    }
}

/// Receives SIGHUP, besides the [`Signals`] of the node.
pub(super) fn hang_up() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}
