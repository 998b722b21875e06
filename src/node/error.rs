//! Why a node did not start, or stopped. Each text says what is wrong and, where it is not plain,
//! what to do.

use std::net::SocketAddr;

use crate::config::listen_advice;
use crate::model::Member;
use crate::peer::StartError;
use crate::proto::secret::SecretError;
use crate::store::WriteError;
use crate::store::identity::OpenError;

/// Why a node did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data directory cannot be made. Nothing has changed.
    #[error("node.data_dir {path}: cannot make the directory: {error}")]
    DataDir {
        /// The configured path.
        path: String,
        /// The system's answer.
        error: std::io::Error,
    },
    /// The content of the data directory is unusable. Nothing has changed.
    #[error("node.data_dir {path}: {error}")]
    Open {
        /// The configured path.
        path: String,
        /// What is wrong and what to do.
        error: OpenError,
    },
    /// The file with the cluster's secret cannot be read.
    #[error("gossip.key_file {path}: cannot read it: {error}; {}", secret_advice(error))]
    SecretFile {
        /// The configured path.
        path: String,
        /// The system's answer.
        error: std::io::Error,
    },
    /// The file holds no secret.
    #[error("gossip.key_file {path}: {error}")]
    Secret {
        /// The configured path.
        path: String,
        /// What is wrong and what to do.
        error: SecretError,
    },
    /// The peer endpoint cannot start.
    #[error(transparent)]
    Peer(#[from] StartError),
    /// Another process runs on a copy of the data directory, under the same id.
    #[error(
        "node.data_dir {data_dir} is a copy of that of {} at {}, which runs as the same node ({}): \
         one of the two must not run; empty this directory to let this node join as a new member, \
         or stop the other process first",
        .double.name, .double.peer, .double.id
    )]
    Copied {
        /// The other process.
        double: Box<Member>,
        /// The configured path.
        data_dir: String,
    },
    /// Binding a configured address failed.
    #[error("{key}: cannot listen on {address}: {error}; {} {key}", listen_advice(error))]
    Listen {
        /// The configuration key.
        key: &'static str,
        /// The configured address.
        address: SocketAddr,
        /// The system's answer.
        error: std::io::Error,
    },
    /// The operating system refused a signal handler, a thread or a socket's address.
    #[error("cannot start: the system refused a resource: {0}")]
    System(std::io::Error),
    /// The store rejected this node's first write.
    #[error("node.data_dir: the first write failed: {0}")]
    FirstWrite(WriteError),
    /// A part ended by itself, which is a bug.
    #[error("{0} ended unexpectedly; this is a bug, please report it with the log")]
    Ended(&'static str),
}

/// What to do about a secret file that cannot be read. Only where there is none may it be right to
/// make one: a new secret makes another cluster.
fn secret_advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            "copy the file of another node of the cluster here; only for a new cluster make one, \
             with `kvs gossip-key new --file FILE`"
        }
        std::io::ErrorKind::PermissionDenied => {
            "it may be there: let the user that runs this node read it and enter its directory \
             (`ls -l`, `chown`); a new file would make another cluster"
        }
        _ => "name the cluster's secret file",
    }
}

impl NodeError {
    /// Whether something listens on a configured address.
    pub(super) fn is_taken(&self) -> bool {
        match self {
            Self::Listen { error, .. } | Self::Peer(StartError::Socket { error, .. }) => {
                error.kind() == std::io::ErrorKind::AddrInUse
            }
            _ => false,
        }
    }

    /// The exit status of the process: 2 if the node did not start, 1 if it failed in operation.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Ended(_) => 1,
            _ => 2,
        }
    }
}
