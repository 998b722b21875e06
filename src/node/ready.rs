//! Says that the node serves, and at which addresses.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;

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
    tracing::info!(name = %me.name, version = me.software, "{line}");
    line.push('\n');
    // on a thread, because the write blocks for as long as nobody reads a full pipe
    let printing = std::thread::Builder::new()
        .name("kvs-ready".to_owned())
        .spawn(move || print_ready(line.as_bytes()));
    if let Err(error) = printing {
        tracing::warn!(%error, "cannot print the ready line; kvs serves without it");
    }
    if !http.ip().is_loopback() && config.http.insecure {
        tracing::warn!(
            "http.insecure is set and nothing authenticates requests: everybody who reaches {http} \
             can read, write and delete all data; put a proxy that checks clients in front"
        );
    }
}

/// Writes past the lock of the standard library's stdout, which the end of the process takes.
fn print_ready(line: &[u8]) {
    let stdout = std::io::stdout().as_fd().try_clone_to_owned();
    let printed = stdout.and_then(|stdout| std::fs::File::from(stdout).write_all(line));
    if let Err(error) = printed {
        tracing::debug!(%error, "nobody reads the ready line");
    }
}
