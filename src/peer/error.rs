//! Why a peer or a stream cannot be used, named by what the caller can do about it.

use std::time::Duration;

use crate::model::Member;

/// Why a peer or a stream cannot be used. No store has changed.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The peer did not answer, or the connection broke. Try again later.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// One side rejects the other's identity: its cluster, name or certificate. Retrying helps
    /// only after somebody has corrected that.
    #[error("refused: {0}")]
    Refused(String),
    /// The peer knows another process that runs under this node's id.
    #[error("refused: {} at {} runs under the id of this node, {}", .0.name, .0.peer, .0.id)]
    Copy(Box<Member>),
    /// The peer broke the protocol. Drop the stream.
    #[error("malformed: {0}")]
    Malformed(String),
}

/// Why a frame was not sent or received. Only after `Silent` can the stream still be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("the stream broke: {0}")]
    Lost(#[from] std::io::Error),
    #[error("the stream ended inside a frame")]
    Truncated,
    #[error("the frame has {bytes} bytes; at most {bytes_max} are allowed")]
    Oversized { bytes: usize, bytes_max: usize },
    #[error("the peer was silent for {0:?}")]
    Silent(Duration),
    #[error("the peer took no byte for {0:?}")]
    Stuck(Duration),
    #[error("fewer than 1,000 bytes a second came through")]
    Slow,
    #[error("an earlier frame was sent only in part")]
    Broken,
}

impl From<FrameError> for PeerError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Truncated | FrameError::Oversized { .. } => {
                Self::Malformed(error.to_string())
            }
            FrameError::Lost(_)
            | FrameError::Silent(_)
            | FrameError::Stuck(_)
            | FrameError::Slow
            | FrameError::Broken => Self::Unreachable(error.to_string()),
        }
    }
}
