//! Who takes part: node ids, members and their states, as the others know them.
//!
//! Gossip fills these in; nothing here decides who is alive.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Timestamp;

/// The persistent id of a node, made together with its data directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(#[serde(with = "uuid::serde::compact")] Uuid);

impl NodeId {
    /// The id made of these 128 bits.
    #[must_use]
    pub fn from_u128(bits: u128) -> Self {
        Self(Uuid::from_u128(bits))
    }

    /// The id made of these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Its bytes.
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

/// What gossip says of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It did not answer lately and may yet refute the suspicion.
    Suspect,
    /// It was declared down, or has not been heard of since this node started.
    Down,
}

/// A node as the others know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its persistent id.
    pub id: NodeId,
    /// Its configured name, which its certificate must carry.
    pub name: String,
    /// When its data directory was made.
    pub joined_at: Timestamp,
    /// When its process started: tells a node that was restarted from one that never went away.
    pub started_at: Timestamp,
    /// Where it listens for gossip (UDP).
    pub gossip: SocketAddr,
    /// Where it listens for peers (QUIC over UDP).
    pub peer: SocketAddr,
    /// Where it serves HTTP, as it advertises it.
    pub http: SocketAddr,
    /// The version of its software.
    pub software: String,
}

/// What one node tells another about its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The fingerprint of the whole store.
    pub fingerprint: [u8; 32],
    /// How many records it holds, dead ones included.
    pub records: u64,
    /// Whether it still waits for its first data, so that what it has may be a part only.
    pub syncing: bool,
    /// The reporting node's clock as it spoke.
    pub now: Timestamp,
}

/// What this node knows of a peer beyond gossip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStatus {
    /// The latest report and when it came, by this node's clock.
    pub report: Option<(Report, Timestamp)>,
    /// When the latest session with it ended, whichever side began it.
    pub last_sync_at: Option<Timestamp>,
    /// How far its clock is ahead of this node's, in milliseconds, to within half a round trip.
    pub clock_skew_ms: Option<i64>,
}

/// How one session with a peer went, seen from the side that began it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncReport {
    /// The peer.
    pub id: NodeId,
    /// Request and answer pairs.
    pub rounds: u64,
    /// Bytes of frames sent.
    pub bytes_sent: u64,
    /// Bytes of frames received.
    pub bytes_received: u64,
    /// Records sent.
    pub records_sent: u64,
    /// Records received.
    pub records_received: u64,
    /// How long it took.
    pub duration_ms: u64,
    /// Why it ended early.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}
