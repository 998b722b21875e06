//! Who takes part: node ids, members and their states, and what nodes report about their stores.
//!
//! Holds the one rule for names of members and versions of their software; configuration,
//! certificates and peers are all checked by it. Must not know how members find each other nor who
//! decides which of them are alive: gossip and replication fill these types in.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Timestamp;

/// The longest name of a member, in bytes: DNS allows no longer label.
pub const NAME_BYTES_MAX: usize = 63;
/// The longest version of a member's software, in bytes. Gossip carries it in each datagram.
pub const SOFTWARE_BYTES_MAX: usize = 32;

/// The persistent id of a node, drawn when its data directory is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(#[serde(with = "uuid::serde::compact")] Uuid);

impl NodeId {
    /// The id with these 128 bits.
    #[must_use]
    pub fn from_u128(bits: u128) -> Self {
        Self(Uuid::from_u128(bits))
    }

    /// The id with these bytes, in the order of [`NodeId::as_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The 16 bytes of the UUID, in the order of RFC 9562.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The id as a UUID.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What gossip says about a member. The order and the lowercase names are those of the wire and
/// the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// The member answers.
    Alive,
    /// The member has missed a probe and can still refute the suspicion.
    Suspect,
    /// The member was declared down, or was not heard of since this node started.
    Down,
}

/// A node as the others know it. Decoding does not check it: call [`Member::check`] on a member
/// from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The persistent id of the node.
    pub id: NodeId,
    /// The configured name, which the node's certificate must carry. See [`Member::check_name`].
    pub name: String,
    /// When the node's data directory was made.
    pub joined_at: Timestamp,
    /// When the process started, which distinguishes a restarted node from one that stayed.
    pub started_at: Timestamp,
    /// The advertised address for gossip (UDP).
    pub gossip: SocketAddr,
    /// The advertised address for peers (QUIC over UDP).
    pub peer: SocketAddr,
    /// The advertised address of the HTTP API.
    pub http: SocketAddr,
    /// The version of the software, for people; empty when unknown.
    pub software: String,
}

/// The rule that a member breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// See [`Member::check_name`].
    #[error(
        "a node's name must be 1 to {NAME_BYTES_MAX} letters, digits, `-` or `.`, and must not \
         start with `-` or `.`"
    )]
    Name,
    /// The software version is longer than [`SOFTWARE_BYTES_MAX`] or not of visible ASCII.
    #[error(
        "a node's software version must have at most {SOFTWARE_BYTES_MAX} visible ASCII characters"
    )]
    Software,
}

impl Member {
    /// Checks the name and the software version, the texts that a node chooses itself.
    ///
    /// Members are what nodes of all earlier versions send: the configuration allowed no other
    /// names, and gossip no other software versions.
    ///
    /// # Errors
    /// The first rule that the member breaks.
    pub fn check(&self) -> Result<(), MemberError> {
        Self::check_name(&self.name)?;
        let visible = self.software.chars().all(|c| c.is_ascii_graphic());
        if visible && self.software.len() <= SOFTWARE_BYTES_MAX {
            Ok(())
        } else {
            Err(MemberError::Software)
        }
    }

    /// Checks a name: 1 to [`NAME_BYTES_MAX`] ASCII letters, digits, `-` or `.`, not starting with
    /// `-` or `.`.
    ///
    /// # Errors
    /// [`MemberError::Name`].
    pub fn check_name(name: &str) -> Result<(), MemberError> {
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.');
        let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
        if plain && fits && !name.starts_with(['-', '.']) { Ok(()) } else { Err(MemberError::Name) }
    }
}

/// What one node reports to another about its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The fingerprint of all its records, dead ones included.
    pub fingerprint: [u8; 32],
    /// How many records it holds, dead ones included.
    pub records: u64,
    /// Set while it waits for its first data: it holds only a part of the cluster's records.
    pub syncing: bool,
    /// The clock of the reporting node when it made the report.
    pub now: Timestamp,
}

/// What this node knows about a peer beyond gossip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStatus {
    /// The latest report, and when it came by this node's clock.
    pub report: Option<(Report, Timestamp)>,
    /// When the latest session with the peer ended, on either side's initiative.
    pub last_sync_at: Option<Timestamp>,
    /// How far the peer's clock is ahead of this node's, in milliseconds; wrong by at most half a
    /// round trip.
    pub clock_skew_ms: Option<i64>,
}

/// How one session with a peer went, seen from the side that began it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncReport {
    /// The id of the peer.
    pub id: NodeId,
    /// Pairs of request and response.
    pub rounds: u64,
    /// Bytes of the frames sent.
    pub bytes_sent: u64,
    /// Bytes of the frames received.
    pub bytes_received: u64,
    /// Records sent to the peer.
    pub records_sent: u64,
    /// Records received from the peer.
    pub records_received: u64,
    /// How long the session took, in milliseconds.
    pub duration_ms: u64,
    /// Why the session ended early; left out when it came to its end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::{Member, MemberError, NodeId, SocketAddr, Timestamp};

    fn member(name: &str, software: &str) -> Member {
        let address = SocketAddr::from(([10, 0, 0, 1], 1));
        Member {
            id: NodeId::from_u128(1),
            name: name.to_owned(),
            joined_at: Timestamp::ZERO,
            started_at: Timestamp::ZERO,
            gossip: address,
            peer: address,
            http: address,
            software: software.to_owned(),
        }
    }

    #[test]
    fn names_are_those_of_hosts() {
        for name in ["n", "n1.example", "N-1-", "1", &"n".repeat(63)] {
            assert_eq!(member(name, "0.1.0").check(), Ok(()), "{name}");
        }
        for name in ["", "-n", ".n", "a b", "a_b", "n\n", "ü", &"n".repeat(64)] {
            assert_eq!(member(name, "0.1.0").check(), Err(MemberError::Name), "{name:?}");
        }
    }

    #[test]
    fn software_versions_are_visible_and_short() {
        for software in ["", "0.1.0", "0.1.0-rc.1+x", &"1".repeat(32)] {
            assert_eq!(member("n", software).check(), Ok(()), "{software}");
        }
        for software in ["0 1", "1\n", "ü", &"1".repeat(33)] {
            assert_eq!(member("n", software).check(), Err(MemberError::Software), "{software:?}");
        }
    }
}
