//! Who takes part: node ids, members and their states, and what nodes report about their stores.
//!
//! Holds the one rule for names of members and versions of their software; configuration,
//! certificates and peers are all checked by it. Must not know how members find each other nor who
//! decides which of them are alive: gossip and replication fill these types in.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

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
    /// The member stopped in order and said so.
    Left,
}

impl MemberState {
    /// Whether the member runs, as far as gossip knows: it is alive or suspect.
    #[must_use]
    pub fn is_up(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
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

    /// The member of `members` that keeps this one out: one that runs under the same name and came
    /// first. The directory that was made first decides, because a restart does not change that.
    #[must_use]
    pub fn rival<'a>(&self, members: &'a [(Self, MemberState)]) -> Option<&'a Self> {
        let rank = |member: &Self| (member.joined_at, member.id);
        let running = members.iter().filter(|(_, state)| state.is_up()).map(|(member, _)| member);
        running
            .filter(|other| other.name == self.name && rank(other) < rank(self))
            .min_by_key(|other| rank(other))
    }

    /// Whether the two cannot run at once, because one has an address of the other.
    #[must_use]
    pub fn shares_address(&self, other: &Self) -> bool {
        self.gossip == other.gossip || self.peer == other.peer
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
    /// Up to where it holds all writes of the members that it sees alive; `None` before it counts.
    pub holds_through: Option<Timestamp>,
    /// How far ahead the records may lie that it merges: `now` plus its `sync.clock_drift_max`. It
    /// holds back those beyond.
    pub horizon: Timestamp,
}

/// A report, and when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldReport {
    /// What the peer reported.
    pub report: Report,
    /// When it came by this node's clock, to be shown.
    pub at: Timestamp,
    /// When it came by monotonic time, to tell how old it is.
    pub received: Instant,
}

/// Whether a peer answers on its peer port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// No attempt to connect has ended yet.
    #[default]
    Untried,
    /// The latest attempt succeeded.
    Reached,
    /// The latest attempt failed.
    Unreached,
}

/// What this node knows about a peer beyond gossip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerStatus {
    /// The latest report.
    pub report: Option<HeldReport>,
    /// Whether the peer answers.
    pub reach: Reach,
    /// Why the latest attempt to connect, or the latest session, failed. `None` after a session
    /// that came to its end, and before the first.
    pub error: Option<String>,
    /// When the latest session with the peer ended, on either side's initiative.
    pub last_sync_at: Option<Timestamp>,
    /// Up to which point of this node it told, at the begin of the latest session, that it holds
    /// all that this node held.
    pub holds_of_this: Option<Timestamp>,
    /// Whether its cluster was founded apart from this node's, and this node does not join it by
    /// itself.
    pub is_apart: bool,
    /// How far the peer's clock is ahead of this node's, in milliseconds; wrong by at most half a
    /// round trip. `None` while the peer is not reached.
    pub clock_skew_ms: Option<i64>,
    /// When the oldest of the writes was sent that were pushed to the peer and that it has not
    /// confirmed.
    pub unconfirmed_since: Option<Instant>,
    /// How many records this node and the peer do not share, because they lie too far ahead of the
    /// clock of one of the two: those of the latest session, and of pushes since.
    pub held_records: u64,
}

impl PeerStatus {
    /// How old the oldest write is that was pushed to the peer and that it has not confirmed; zero
    /// with none, `None` while the peer is not reached.
    #[must_use]
    pub fn lag(&self, now: Instant) -> Option<Duration> {
        let age = |since: Instant| now.saturating_duration_since(since);
        (self.reach == Reach::Reached).then(|| self.unconfirmed_since.map_or(Duration::ZERO, age))
    }

    /// How far the peer's clock is ahead of this node's, in milliseconds, where the two are further
    /// apart than `most`.
    #[must_use]
    pub fn skew_beyond(&self, most: Duration) -> Option<i64> {
        self.clock_skew_ms.filter(|ms| Duration::from_millis(ms.unsigned_abs()) > most)
    }
}

/// A clock that disagrees with more than half of at least two alive peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockOff {
    /// With how many of the alive peers.
    pub disagree: usize,
    /// How many there are.
    pub alive: usize,
    /// How far this node's clock is ahead of that of the nearest one of them, in milliseconds.
    pub ahead_ms: i64,
}

impl ClockOff {
    /// Judges the clock of this node by those of `alive`, its alive peers: more than `most` apart
    /// is too far. `None` while it agrees with enough of them, or nobody can tell.
    #[must_use]
    pub fn judge<'a>(
        alive: impl IntoIterator<Item = Option<&'a PeerStatus>>,
        most: Duration,
    ) -> Option<Self> {
        let skews = alive.into_iter().map(|status| status.and_then(|s| s.skew_beyond(most)));
        let skews: Vec<_> = skews.collect();
        let beyond = skews.iter().flatten();
        let nearest = beyond.clone().min_by_key(|ms| ms.unsigned_abs())?;
        let (disagree, alive) = (beyond.count(), skews.len());
        let is_off = alive >= 2 && disagree > alive / 2;
        is_off.then_some(Self { disagree, alive, ahead_ms: nearest.saturating_neg() })
    }
}

impl fmt::Display for ClockOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.ahead_ms > 0 { "ahead of" } else { "behind" };
        let seconds = self.ahead_ms.unsigned_abs() / 1000;
        let Self { disagree, alive, .. } = self;
        write!(
            f,
            "this node's clock is {seconds} s or more {way} those of {disagree} of {alive} alive \
             peers; set it right (NTP)"
        )
    }
}

/// A seed, and whether it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedAnswer {
    /// The seed as it is configured.
    pub seed: String,
    /// Why it has not answered lately; `None` when it has.
    pub error: Option<String>,
}

/// A certificate that expires sooner than this should be renewed: 30 days.
pub const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);

/// Until when a certificate of this node is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateLife {
    /// The door that shows the certificate: `peer`.
    pub door: &'static str,
    /// When it expires, or has expired.
    pub expires_at: Timestamp,
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
    use super::*;

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
    fn a_clock_is_off_when_it_disagrees_with_more_than_half_of_at_least_two_peers() {
        let most = Duration::from_secs(60);
        let off = |skews: &[Option<i64>]| {
            let peer =
                |ms: &Option<i64>| PeerStatus { clock_skew_ms: *ms, ..PeerStatus::default() };
            let peers: Vec<_> = skews.iter().map(peer).collect();
            ClockOff::judge(peers.iter().map(Some), most).map(|off| (off.disagree, off.ahead_ms))
        };
        let (far, farther, near) = (Some(-61_000), Some(-90_000), Some(60_000));
        assert_eq!(off(&[far]), None, "one of two is wrong, and nobody knows which");
        assert_eq!(off(&[far, farther]), Some((2, 61_000)));
        assert_eq!(off(&[far, near]), None);
        assert_eq!(off(&[far, farther, near]), Some((2, 61_000)));
        assert_eq!(off(&[far, None, None]), None, "those that are not reached do not disagree");
        assert_eq!(off(&[Some(61_000); 3]), Some((3, -61_000)));
        assert!(ClockOff::judge([None, None], most).is_none());
        let words = ClockOff { disagree: 2, alive: 3, ahead_ms: -61_000 }.to_string();
        assert!(words.starts_with("this node's clock is 61 s or more behind those of 2 of 3"));
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
