//! The hello: the one frame by which each side of a connection says who it is.
//!
//! A format byte, then bincode 2 (standard, little-endian, variable integers) of protocol, cluster
//! id and member; golden bytes hold it still. Promises that what it decodes is bounded and, once
//! checked, belongs to this cluster and to the certificate it came with. Must not know quinn nor
//! rustls.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::certificate;
use super::framing::HELLO_BYTES_MAX;
use super::refusal::{Reason, Refusal};
use crate::model::Member;

/// The encoding of the rest.
const FORMAT: u8 = 1;
/// What the frames after the hello mean.
const PROTOCOL: u16 = 1;
/// A node's name, in bytes, as the configuration bounds it.
const NAME_BYTES_MAX: usize = 63;
/// A software version, in bytes.
const SOFTWARE_BYTES_MAX: usize = 64;

/// Who is speaking.
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
    /// What `member` of the cluster `cluster_id` says, in this version's protocol.
    #[must_use]
    pub fn new(cluster_id: Uuid, member: Member) -> Self {
        Self { protocol: PROTOCOL, cluster_id, member }
    }

    /// Its bytes.
    ///
    /// # Errors
    /// Why no peer would take them.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        let mut bytes = vec![FORMAT];
        let body = bincode::serde::encode_to_vec(self, encoding()).map_err(|e| e.to_string())?;
        bytes.extend(body);
        Self::decode(&bytes).map_err(|refusal| refusal.detail)?;
        Ok(bytes)
    }

    /// What a peer says; whether it belongs here is judged later.
    ///
    /// # Errors
    /// For any bytes that are no hello of this version, or not a bounded, printable one.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let malformed = |detail: String| Refusal::new(Reason::Malformed, detail);
        let other_version = |what: &str, theirs: u16, ours: u16| {
            malformed(format!(
                "it speaks {what} {theirs} and this node {ours}; run the same release on both"
            ))
        };
        let Some((&format, body)) = bytes.split_first() else {
            return Err(malformed("its hello is empty".into()));
        };
        if format != FORMAT {
            return Err(other_version("hello format", format.into(), FORMAT.into()));
        }
        let (hello, read) = bincode::serde::decode_from_slice::<Self, _>(body, encoding())
            .map_err(|e| malformed(format!("its hello cannot be decoded: {e}")))?;
        if hello.protocol != PROTOCOL {
            return Err(other_version("protocol", hello.protocol, PROTOCOL));
        }
        if read != body.len() {
            return Err(malformed("its hello has bytes after its end".into()));
        }
        let Member { name, software, .. } = &hello.member;
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) || name.contains(char::is_control) {
            return Err(malformed("its name is empty, too long or not printable".into()));
        }
        if software.len() > SOFTWARE_BYTES_MAX || software.contains(char::is_control) {
            return Err(malformed("its software version is too long or not printable".into()));
        }
        Ok(hello)
    }

    /// Judges who is speaking, on the node that `own` describes, where the other side's certificate
    /// carries the names `certified`.
    pub(super) fn check(&self, own: &Self, certified: &[String]) -> Result<(), Refusal> {
        let name = &self.member.name;
        if self.cluster_id != own.cluster_id {
            let detail = format!(
                "{name:?} belongs to cluster {}, and {:?} to cluster {}; give all nodes of a \
                 cluster the same gossip.key_file, and each cluster seeds and a CA of its own",
                self.cluster_id, own.member.name, own.cluster_id,
            );
            return Err(Refusal::new(Reason::Cluster, detail));
        }
        if !certificate::carries(certified, name) {
            let detail = format!(
                "it says that it is {name:?}, but its certificate carries {certified:?}; correct \
                 its node.name or make it a certificate (`kvs cert node {}`)",
                name.escape_debug(),
            );
            return Err(Refusal::new(Reason::Name, detail));
        }
        if self.member.id == own.member.id {
            let detail = format!(
                "{name:?} has the id of this node, {}; is its data directory a copy of this one? \
                 Empty one of the two and start it anew",
                own.member.id,
            );
            return Err(Refusal::new(Reason::Name, detail));
        }
        Ok(())
    }

    /// Judges whether the node that answered is the one that was dialed.
    pub(super) fn check_dialed(&self, to: &Member) -> Result<(), Refusal> {
        let Member { id, name, .. } = &self.member;
        if *id == to.id && *name == to.name {
            return Ok(());
        }
        let detail = format!(
            "{name:?} ({id}) answers where {:?} ({}) should be; check peer.advertise of both",
            to.name, to.id,
        );
        Err(Refusal::new(Reason::Name, detail))
    }
}

#[cfg(test)]
#[path = "hello_tests.rs"]
mod tests;
