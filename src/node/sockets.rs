//! The sockets of a node, bound before its store opens, and the secret of its cluster.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};

use super::{NodeError, process};
use crate::clock::Clock;
use crate::config::Config;
use crate::peer::Bound;
use crate::proto::secret::Secret;

/// How long the sockets of an earlier life of the process may take to close.
const DRAIN_MAX: Duration = Duration::from_secs(20);
/// The pause between two attempts to bind.
const BIND_AGAIN: Duration = Duration::from_millis(20);

/// The secret and the bound sockets of a clustered node. Made before the store opens, so that a
/// taken address or a bad file leaves the data directory untouched.
pub(super) struct ClusterSockets {
    pub(super) secret: Arc<Secret>,
    pub(super) gossip: UdpSocket,
    pub(super) peer: Bound,
}

impl ClusterSockets {
    /// The addresses that gossip and peers listen on.
    pub(super) fn addresses(&self) -> Result<(SocketAddr, SocketAddr), NodeError> {
        let gossip = self.gossip.local_addr().map_err(NodeError::System)?;
        Ok((gossip, self.peer.local_addr()))
    }
}

/// Reads the cluster's secret from the file that `config` names.
///
/// # Errors
/// [`NodeError::SecretFile`], [`NodeError::Secret`].
pub fn read_secret(config: &Config) -> Result<Secret, NodeError> {
    let path = config.gossip.key_file.as_deref().unwrap_or(Path::new(""));
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| NodeError::SecretFile { path: shown.clone(), error })?;
    let secret = Secret::parse(&text).map_err(|error| NodeError::Secret { path: shown, error })?;
    process::warn_if_open(path, "the secret of the cluster");
    Ok(secret)
}

/// Binds the addresses for gossip and peers, unless clustering is off. In a later life of the
/// process it waits until the life before has let go of them: QUIC keeps its socket until its last
/// connection has drained.
pub(super) async fn bind_cluster(
    config: &Config,
    clock: &Clock,
    is_first: bool,
) -> Result<Option<ClusterSockets>, NodeError> {
    if !config.clustering_enabled {
        return Ok(None);
    }
    let deadline = clock.instant() + if is_first { Duration::ZERO } else { DRAIN_MAX };
    loop {
        match bind(config, clock).await {
            Err(error) if error.is_taken() && clock.instant() < deadline => {
                tokio::time::sleep(BIND_AGAIN).await;
            }
            bound => return bound.map(Some),
        }
    }
}

async fn bind(config: &Config, clock: &Clock) -> Result<ClusterSockets, NodeError> {
    let secret = read_secret(config)?;
    let address = config.gossip.listen;
    let gossip = UdpSocket::bind(address).await.map_err(|error| NodeError::Listen {
        key: "gossip.listen",
        address,
        error,
    })?;
    let peer = Bound::new(&config.peer, &config.node.name, clock)?;
    Ok(ClusterSockets { secret: Arc::new(secret), gossip, peer })
}

/// The listener for HTTP, that of the life before if there was one, and another handle to it.
pub(super) async fn open_http(
    config: &Config,
    door: Option<std::net::TcpListener>,
) -> Result<(TcpListener, std::net::TcpListener), NodeError> {
    let doubled = |door: std::net::TcpListener| -> io::Result<_> {
        Ok((TcpListener::from_std(door.try_clone()?)?, door))
    };
    let door = match door {
        Some(door) => Ok(door),
        None => bind_http(config).await?.into_std(),
    };
    door.and_then(doubled).map_err(NodeError::System)
}

async fn bind_http(config: &Config) -> Result<TcpListener, NodeError> {
    let address = config.http.listen;
    TcpListener::bind(address).await.map_err(|error| NodeError::Listen {
        key: "http.listen",
        address,
        error,
    })
}
