//! Why a node did not start, or stopped; each text says what to do.

use std::net::SocketAddr;

use crate::peer::StartError;
use crate::proto::secret::SecretError;
use crate::store::WriteError;
use crate::store::identity::OpenError;

/// Why a node did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data directory cannot be made or opened. Nothing was changed.
    #[error("node.data_dir {path}: {error}")]
    DataDir {
        /// The directory.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// What is in the data directory cannot be used. Nothing was changed.
    #[error("node.data_dir {path}: {error}")]
    Open {
        /// The directory.
        path: String,
        /// Why.
        error: OpenError,
    },
    /// The cluster's secret cannot be read.
    #[error("gossip.key_file {path}: {error}; `kvs gossip-key new --file FILE` makes one")]
    SecretFile {
        /// The file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// The cluster's secret is not one.
    #[error("gossip.key_file {path}: {error}")]
    Secret {
        /// The file.
        path: String,
        /// What is wrong with it.
        error: SecretError,
    },
    /// The peer endpoint cannot start.
    #[error(transparent)]
    Peer(#[from] StartError),
    /// An address cannot be listened on.
    #[error("{key}: cannot listen on {address}: {error}; stop what listens there, or change {key}")]
    Listen {
        /// The configuration key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// The system did not give what a process needs.
    #[error("cannot start: {0}")]
    System(std::io::Error),
    /// The data directory does not take a first write.
    #[error("node.data_dir cannot be written to: {0}")]
    FirstWrite(WriteError),
    /// A part ended that should not: a bug.
    #[error("{0} ended unexpectedly; this is a bug, please report it with the log")]
    Ended(&'static str),
}

impl NodeError {
    /// 2 for what kept the node from starting, 1 for a failure in operation.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Ended(_) => 1,
            _ => 2,
        }
    }
}
