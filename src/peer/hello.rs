//! The hello: the frame in which each side of a connection states its identity.
//!
//! A format byte, then bincode 2 (standard, little-endian, variable integers) of protocol, cluster
//! id and member; a golden-bytes test pins the encoding. Promises that a decoded hello is bounded,
//! and that a checked one belongs to this cluster and to the certificate of its connection. Must
//! not know quinn or rustls.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::certificate;
use super::framing::HELLO_BYTES_MAX;
use super::refusal::{Reason, Refusal};
use crate::model::{Member, MemberState};

/// The encoding of the bytes after the first.
const FORMAT: u8 = 1;
/// The meaning of the frames after the hello.
const PROTOCOL: u16 = 2;

/// A node's claim: its protocol, its cluster and itself as a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    protocol: u16,
    #[serde(with = "uuid::serde::compact")]
    cluster_id: Uuid,
    pub(super) member: Member,
}

fn encoding() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<HELLO_BYTES_MAX>()
}

impl Hello {
    /// The hello of `member` in the cluster `cluster_id`, in this version's protocol.
    #[must_use]
    pub fn new(cluster_id: Uuid, member: Member) -> Self {
        Self { protocol: PROTOCOL, cluster_id, member }
    }

    /// The frame's body, at most 4 KiB.
    ///
    /// # Errors
    /// When a peer would reject the bytes; the text says why.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        let mut bytes = vec![FORMAT];
        let body = bincode::serde::encode_to_vec(self, encoding()).map_err(|e| e.to_string())?;
        bytes.extend(body);
        Self::decode(&bytes).map_err(|refusal| refusal.detail)?;
        Ok(bytes)
    }

    /// Decodes a peer's hello. Its claim is unproven until `check` has held it
    /// against the certificate.
    ///
    /// # Errors
    /// `Reason::Malformed` unless the bytes are a hello of this version with a valid name and
    /// software version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let malformed = |detail: String| Refusal::new(Reason::Malformed, detail);
        let other_version = |what: &str, theirs: u16, ours: u16| {
            malformed(format!(
                "the peer uses {what} {theirs} and this node {ours}; run the same release on both"
            ))
        };
        let Some((&format, body)) = bytes.split_first() else {
            return Err(malformed("the hello is empty".into()));
        };
        if format != FORMAT {
            return Err(other_version("hello format", format.into(), FORMAT.into()));
        }
        let (hello, read) = bincode::serde::decode_from_slice::<Self, _>(body, encoding())
            .map_err(|e| malformed(format!("the hello cannot be decoded: {e}")))?;
        if hello.protocol != PROTOCOL {
            return Err(other_version("protocol", hello.protocol, PROTOCOL));
        }
        if read != body.len() {
            return Err(malformed("the hello has bytes after its end".into()));
        }
        let checked = hello.member.check();
        checked.map_err(|e| malformed(format!("the hello describes no valid member: {e}")))?;
        Ok(hello)
    }

    /// Checks the peer's claim against `own`, this node's hello, and `certified`, the DNS names in
    /// the peer's certificate: same cluster, certified name, another node id.
    pub(super) fn check(&self, own: &Self, certified: &[String]) -> Result<(), Refusal> {
        let name = &self.member.name;
        if self.cluster_id != own.cluster_id {
            let detail = format!(
                "{name:?} belongs to cluster {}, and {:?} to cluster {}; give all nodes of one \
                 cluster the same gossip.key_file, and let clusters share neither seeds nor CA",
                self.cluster_id, own.member.name, own.cluster_id,
            );
            return Err(Refusal::new(Reason::Cluster, detail));
        }
        if !certificate::carries(certified, name) {
            let detail = format!(
                "the peer calls itself {name:?}, but its certificate carries {certified:?}; \
                 correct its node.name, or make a certificate for it (`kvs cert node {}`)",
                name.escape_debug(),
            );
            return Err(Refusal::new(Reason::Name, detail));
        }
        if self.member.id == own.member.id {
            return Err(Refusal::copy(own.member.clone(), copied(&self.member, &own.member)));
        }
        Ok(())
    }

    /// Checks that nobody among `members` is up under the peer's id at another address, who started
    /// before it: one data directory is a copy of the other. The peer finds out whether that
    /// process answers; it may have ended, and this node does not know yet.
    pub(super) fn check_double(&self, members: &[(Member, MemberState)]) -> Result<(), Refusal> {
        let me = &self.member;
        let double = members.iter().find(|(member, state)| {
            let is_other = member.peer != me.peer && member.started_at < me.started_at;
            member.id == me.id && state.is_up() && is_other
        });
        let Some((double, _)) = double else { return Ok(()) };
        Err(Refusal::copy(double.clone(), copied(me, double)))
    }

    /// Checks that the node that answered is the member that was dialed.
    pub(super) fn check_dialed(&self, to: &Member) -> Result<(), Refusal> {
        let Member { id, name, .. } = &self.member;
        if *id == to.id && *name == to.name {
            return Ok(());
        }
        let detail = format!(
            "{name:?} ({id}) answers at the address of {:?} ({}); check peer.advertise of both",
            to.name, to.id,
        );
        Err(Refusal::new(Reason::Name, detail))
    }
}

fn copied(peer: &Member, double: &Member) -> String {
    format!(
        "{:?} at {} and {:?} at {} have one id, {}: the data directory of one is a copy of the \
         other's; the process that started later refuses to run",
        peer.name, peer.peer, double.name, double.peer, peer.id
    )
}

#[cfg(test)]
#[path = "hello_tests.rs"]
mod tests;
