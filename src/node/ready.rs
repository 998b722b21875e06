//! Says that the node serves, and at which addresses.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;

use crate::config::Config;
use crate::model::Member;

/// Prints the ready line, the only one on stdout: scripts wait for it and read the addresses. They
/// are those that the node listens on; what others are told may differ.
pub(super) fn announce(
    config: &Config,
    me: &Member,
    http: SocketAddr,
    bound: Option<(SocketAddr, SocketAddr)>,
) {
    let mut line = format!("ready http={http}");
    if let Some((gossip, peer)) = bound {
        let _ = write!(line, " gossip={gossip} peer={peer}");
    }
    let _ = write!(line, " node={}", me.id);
    let mut stdout = std::io::stdout().lock();
    // stdout may be closed; the node serves anyway
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    tracing::info!(name = %me.name, version = me.software, "{line}");
    if !http.ip().is_loopback() && config.http.insecure {
        tracing::warn!(
            "http.insecure is set and nothing authenticates requests: everybody who reaches {http} \
             can read, write and delete all data; put a proxy that checks clients in front"
        );
    }
}
