//! Why a peer or a stream cannot be used, named by what the caller can do about it.

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
    /// The peer broke the protocol. Drop the stream.
    #[error("malformed: {0}")]
    Malformed(String),
}
