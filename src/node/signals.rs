//! The signals that a node handles.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT stop the node. SIGHUP is caught and logged, because its default action would
/// kill the process and operators send it to reload.
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
                        "ignored SIGHUP: this version cannot reload its configuration; restart it"
                    );
                }
            }
        }
    }
}
