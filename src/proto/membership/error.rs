//! Why the membership machine refuses an input.

use std::net::SocketAddr;

use super::{MEMBERS_MAX, WireError};

/// Why an input was refused. The membership goes on; unless said otherwise nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// More than [`super::DATAGRAM_BYTES_MAX`] bytes.
    #[error("the datagram is too large")]
    Oversized,
    /// Not a datagram of this protocol. Count it.
    #[error("{0}")]
    Malformed(#[from] WireError),
    /// It names unknown members while [`MEMBERS_MAX`] are known. Forget some.
    #[error("there are more than {MEMBERS_MAX} members, further ones are not taken in")]
    TooManyMembers,
    /// Another process runs with this node's id and bumps itself above this one's identity. This
    /// node goes on and renews itself, so both flap until one of the two is stopped.
    #[error(
        "another process runs with this node's id, seen through {0}; stop one of the two: a data \
         directory that was copied must not be served twice"
    )]
    SameId(SocketAddr),
    /// A message that must not reach this node directly. Parts of the datagram may have been used.
    #[error("the datagram is addressed to the wrong node")]
    Misdirected,
    /// A bug in this software; the probing recovers by itself.
    #[error("the probing of members stumbled")]
    Stumbled,
}

impl MembershipError {
    /// The label under which a dropped datagram is counted.
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
                Self::Malformed(WireError::Undecodable)
            }
            E::DataFromOurselves | E::IndirectForOurselves => Self::Misdirected,
            _ => Self::Stumbled,
        }
    }
}
