//! The bytes of a membership datagram, before it is sealed: a format byte, then bincode.
//!
//! Promises: decoding gives a checked value or an error, never a panic, and allocates no more than
//! the datagram is long. Must not know the protocol that uses the datagrams, nor sockets.

use std::net::SocketAddr;

use bincode::config::{Configuration, Limit, LittleEndian, Varint, standard};
use bytes::{Buf, BufMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::{Member, MemberError, MemberState, NodeId, Timestamp};

/// The largest datagram before it is sealed. With the 45 bytes of the seal it has 1,232 bytes,
/// which is the least MTU of IPv6 (RFC 8200, section 5) without the IPv6 and UDP headers.
pub const DATAGRAM_BYTES_MAX: usize = 1187;

const FORMAT: u8 = 2;

/// What a node tells of itself. A node that enters another stage raises its `bump`. Their order is
/// part of the wire format: only append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Stage {
    /// It has all that a member should have.
    Serving,
    /// It waits for its first data, and others cannot rely on it for theirs.
    Syncing,
    /// It stops in order, so its silence is no death.
    Leaving,
}

/// One life of a node as the others know it. Of two identities with one id, the greater `bump` is
/// the later one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MemberIdentity {
    pub(super) member: Member,
    pub(super) bump: u64,
    pub(super) stage: Stage,
}

/// The start of each datagram. An incarnation counts the refuted suspicions of an identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DatagramHeader {
    pub(super) src: MemberIdentity,
    pub(super) src_incarnation: u16,
    pub(super) dst: MemberIdentity,
    pub(super) message: Message,
}

/// The messages of SWIM. Their order is part of the wire format: only append.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Message {
    Ping {
        probe: u8,
    },
    Ack {
        probe: u8,
    },
    PingReq {
        target: MemberIdentity,
        probe: u8,
    },
    IndirectPing {
        origin: MemberIdentity,
        probe: u8,
    },
    IndirectAck {
        target: MemberIdentity,
        probe: u8,
    },
    ForwardedAck {
        origin: MemberIdentity,
        probe: u8,
    },
    Announce,
    Feed,
    Gossip,
    /// The sender holds the receiver for down. `known` is the greatest bump that it knows of the
    /// receiver, which lets a node whose clock was set back go above its earlier lives.
    TurnUndead {
        known: u64,
    },
}

/// The news about a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Update {
    pub(super) identity: MemberIdentity,
    pub(super) incarnation: u16,
    pub(super) state: MemberState,
}

/// A decoded datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Datagram {
    pub(super) header: DatagramHeader,
    pub(super) updates: Vec<Update>,
}

/// Why bytes are not a datagram, or a value cannot become one. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// Another version of the software sent it.
    #[error(
        "the datagram has format {0}, and this version knows format {FORMAT}; run the same release \
         on every node"
    )]
    Format(u8),
    /// The bytes end early, or something else made them.
    #[error("the datagram ends early or cannot be decoded")]
    Undecodable,
    /// Bytes follow the last update.
    #[error("bytes follow the end of the datagram")]
    Trailing,
    /// The name or the software version of a member breaks a rule.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// A member has the nil id, which stands for an unknown node.
    #[error("the datagram names a member without an id")]
    NoId,
    /// A member has a gossip address without a port or a host.
    #[error("the datagram names a member with a gossip address that no node can send to")]
    Unreachable,
    /// Encoding only: the datagram is full.
    #[error("the datagram is full")]
    NoRoom,
}

impl MemberIdentity {
    /// Stands for the unknown node that listens at `address`: the receiver of an announcement when
    /// only an address is known.
    pub(super) fn anyone_at(address: SocketAddr) -> Self {
        let member = Member {
            id: NodeId::from_u128(0),
            name: String::new(),
            joined_at: Timestamp::ZERO,
            started_at: Timestamp::ZERO,
            gossip: address,
            peer: address,
            http: address,
            software: String::new(),
        };
        Self { member, bump: 0, stage: Stage::Serving }
    }

    pub(super) fn is_anyone(&self) -> bool {
        self.member.id == NodeId::from_u128(0)
    }

    /// Checks that other nodes accept this identity.
    pub(super) fn check(&self) -> Result<(), DatagramError> {
        if self.is_anyone() {
            return Err(DatagramError::NoId);
        }
        self.member.check()?;
        if self.member.gossip.port() == 0 || self.member.gossip.ip().is_unspecified() {
            return Err(DatagramError::Unreachable);
        }
        Ok(())
    }
}

impl DatagramHeader {
    fn check(&self) -> Result<(), DatagramError> {
        self.src.check()?;
        match &self.message {
            Message::Announce if self.dst.is_anyone() => return Ok(()),
            Message::PingReq { target: other, .. }
            | Message::IndirectPing { origin: other, .. }
            | Message::IndirectAck { target: other, .. }
            | Message::ForwardedAck { origin: other, .. } => other.check()?,
            _ => {}
        }
        self.dst.check()
    }
}

/// The limit also bounds the lengths that a datagram claims, before anything is allocated.
const CONFIG: Configuration<LittleEndian, Varint, Limit<DATAGRAM_BYTES_MAX>> =
    standard().with_limit::<DATAGRAM_BYTES_MAX>();

/// Appends a header; leaves `buffer` unchanged when it does not fit.
pub(super) fn encode_header(
    header: &DatagramHeader,
    buffer: &mut impl BufMut,
) -> Result<(), DatagramError> {
    put(&(FORMAT, header), buffer)
}

/// Appends an update; leaves `buffer` unchanged when it does not fit.
pub(super) fn encode_update(
    update: &Update,
    buffer: &mut impl BufMut,
) -> Result<(), DatagramError> {
    put(update, buffer)
}

/// Decodes and checks a header, and advances `bytes` past it.
pub(super) fn decode_header(bytes: &mut &[u8]) -> Result<DatagramHeader, DatagramError> {
    match bytes.first() {
        Some(&FORMAT) => bytes.advance(1),
        Some(&other) => return Err(DatagramError::Format(other)),
        None => return Err(DatagramError::Undecodable),
    }
    let header: DatagramHeader = take(bytes)?;
    header.check()?;
    Ok(header)
}

/// Decodes and checks an update, and advances `bytes` past it.
pub(super) fn decode_update(bytes: &mut &[u8]) -> Result<Update, DatagramError> {
    let update: Update = take(bytes)?;
    update.identity.check()?;
    Ok(update)
}

/// Decodes a whole datagram: the header, the number of updates (two bytes, big-endian), the
/// updates, and nothing else. A header alone is a datagram without updates.
pub(super) fn decode(mut bytes: &[u8]) -> Result<Datagram, DatagramError> {
    let header = decode_header(&mut bytes)?;
    let mut updates = Vec::new();
    if !bytes.is_empty() {
        let count = bytes.try_get_u16().map_err(|_| DatagramError::Undecodable)?;
        for _ in 0..count {
            updates.push(decode_update(&mut bytes)?);
        }
    }
    if bytes.is_empty() { Ok(Datagram { header, updates }) } else { Err(DatagramError::Trailing) }
}

/// Encodes a datagram with as many of its first updates as fit.
pub(super) fn encode(datagram: &Datagram) -> Result<Vec<u8>, DatagramError> {
    let mut bytes = Vec::new().limit(DATAGRAM_BYTES_MAX - size_of::<u16>());
    encode_header(&datagram.header, &mut bytes)?;
    let mut updates = Vec::new().limit(bytes.remaining_mut());
    let fit = |update: &&Update| encode_update(update, &mut updates).is_ok();
    let count = datagram.updates.iter().take_while(fit).count();
    let count = u16::try_from(count).map_err(|_| DatagramError::NoRoom)?;
    Ok([&bytes.into_inner()[..], &count.to_be_bytes(), &updates.into_inner()].concat())
}

fn put(value: &impl Serialize, buffer: &mut impl BufMut) -> Result<(), DatagramError> {
    let bytes = bincode::serde::encode_to_vec(value, CONFIG).map_err(|_| DatagramError::NoRoom)?;
    if bytes.len() > buffer.remaining_mut() {
        return Err(DatagramError::NoRoom);
    }
    buffer.put_slice(&bytes);
    Ok(())
}

fn take<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T, DatagramError> {
    let (value, used) =
        bincode::serde::decode_from_slice(bytes, CONFIG).map_err(|_| DatagramError::Undecodable)?;
    *bytes = bytes.get(used..).ok_or(DatagramError::Undecodable)?;
    Ok(value)
}
