//! How a session that this node drives ends.

use super::opening::BeginAnewError;
use crate::peer::PeerError;
use crate::proto::reconcile::SessionError;
use crate::proto::wire;
use crate::store::{Obstacle, ReadError, WriteError};

/// Why a session ended early. Records merged before that stay merged.
#[derive(Debug, thiserror::Error)]
pub(super) enum PullError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Session(#[from] SessionError<ReadError>),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("malformed: {0}")]
    Malformed(#[from] wire::WireError),
    #[error("the peer ended the session")]
    Ended,
    #[error("another session moves records")]
    NotMyTurn,
    #[error("this node takes no records now: {0}")]
    Paused(Obstacle),
    #[error("cannot set aside what the cluster does not hold: {0}")]
    Aside(std::io::Error),
    #[error(transparent)]
    Anew(#[from] BeginAnewError),
    #[error("malformed: {0}")]
    Introduction(String),
    #[error("{0}")]
    Refused(String),
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionEnd {
    /// Each side has every record that the other had, but for those that one holds back.
    Done,
    /// The peer asked this node to try again later.
    Busy,
    /// One side takes no records, as its disk has too little room. It goes on by itself.
    Paused,
    /// The session broke, or the peer violated the protocol.
    Failed,
}

impl SessionEnd {
    /// The `outcome` label of `sync_sessions`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Busy => "busy",
            Self::Paused => "paused",
            Self::Failed => "failed",
        }
    }
}

impl From<&Result<(), PullError>> for SessionEnd {
    fn from(result: &Result<(), PullError>) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(PullError::Session(SessionError::Busy)) => Self::Busy,
            Err(PullError::Session(SessionError::Paused(_)) | PullError::Paused(_)) => Self::Paused,
            Err(_) => Self::Failed,
        }
    }
}
