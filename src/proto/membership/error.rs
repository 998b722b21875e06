//! Why the membership machine refuses an input. Each variant says whether anything changed.

use std::net::SocketAddr;

use super::settings::MEMBERS_MAX;
use super::wire::DatagramError;

/// Why an input was refused. The machine goes on; unless a variant says otherwise, nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// The datagram has more than [`super::DATAGRAM_BYTES_MAX`] bytes. Drop it.
    #[error("the datagram is too large")]
    Oversized,
    /// The datagram breaks the protocol. Drop it.
    #[error("{0}")]
    Malformed(#[from] DatagramError),
    /// The datagram names unknown members while [`MEMBERS_MAX`] are known.
    #[error("{MEMBERS_MAX} members are known, and this node accepts no more")]
    TooManyMembers,
    /// Another process runs with this node's id and goes above this node's incarnation; the address
    /// is that of the sender. This node renews itself each time, so both flap until one is stopped.
    #[error(
        "another process runs with this node's id (seen through {0}), so its data directory was \
         copied; stop one of the two processes"
    )]
    SameId(SocketAddr),
    /// The datagram is for another node. Its updates may have been applied.
    #[error("the datagram is addressed to another node")]
    Misdirected,
    /// foca met a state that should not occur: a bug. A part of the input may have been applied;
    /// the next probe recovers.
    #[error("probing the members hit a bug; it goes on with the next probe")]
    Stumbled,
}

impl MembershipError {
    /// The metric label that counts a datagram dropped with this error.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Oversized => "oversized",
            Self::Malformed(_) => "malformed",
            _ => "refused",
        }
    }
}

impl From<foca::Error> for MembershipError {
    fn from(error: foca::Error) -> Self {
        use foca::Error as E;
        match error {
            E::DataTooBig => Self::Oversized,
            E::Decode(_) | E::MalformedPacket | E::CustomBroadcast(_) => {
                Self::Malformed(DatagramError::Undecodable)
            }
            E::DataFromOurselves | E::IndirectForOurselves => Self::Misdirected,
            _ => Self::Stumbled,
        }
    }
}
