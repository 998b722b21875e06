//! The bytes of a membership datagram, before it is sealed: bincode after a format byte.
//!
//! Promises: decoding gives a checked value or an error, never a panic, and allocates no more than
//! the datagram is long. Must not know the protocol that speaks through it, nor sockets.

use std::net::SocketAddr;

use bincode::config::{Configuration, Limit, LittleEndian, Varint, standard};
use bytes::{Buf, BufMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::{Member, MemberState, NodeId, Timestamp};

/// The largest datagram before it is sealed. With the seal's 45 bytes it makes 1,232: what is left
/// of the least MTU of IPv6 (RFC 8200, section 5) after the IPv6 and UDP headers.
pub const DATAGRAM_BYTES_MAX: usize = 1187;

/// The longest name of a node, as in a host name.
const NAME_BYTES_MAX: usize = 63;
/// The longest version of the software.
const SOFTWARE_BYTES_MAX: usize = 32;

const FORMAT: u8 = 1;

/// One life of a node among the others. A greater `bump` is a later life of the same node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) member: Member,
    pub(super) bump: u64,
}

/// What every datagram begins with. `incarnation` counts the refuted suspicions of one identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) src: Identity,
    pub(super) src_incarnation: u16,
    pub(super) dst: Identity,
    pub(super) message: Message,
}

/// The messages of SWIM. The order is the wire's: append only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Message {
    Ping {
        probe: u8,
    },
    Ack {
        probe: u8,
    },
    PingReq {
        target: Identity,
        probe: u8,
    },
    IndirectPing {
        origin: Identity,
        probe: u8,
    },
    IndirectAck {
        target: Identity,
        probe: u8,
    },
    ForwardedAck {
        origin: Identity,
        probe: u8,
    },
    Announce,
    Feed,
    Gossip,
    /// The receiver counts as down. `known` is the greatest bump under which the sender knows it,
    /// so that a node whose clock was set back can go above it.
    TurnUndead {
        known: u64,
    },
}

/// What is told of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Update {
    pub(super) identity: Identity,
    pub(super) incarnation: u16,
    pub(super) state: MemberState,
}

/// A whole datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Datagram {
    pub(super) header: Header,
    pub(super) updates: Vec<Update>,
}

/// Why bytes are no datagram, or a value does not become one. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Another version of the software speaks.
    #[error("the datagram has format {0}, and this version knows format 1")]
    Format(u8),
    /// Cut short, or made by something else.
    #[error("the datagram ends early, or holds what cannot be decoded")]
    Undecodable,
    /// Bytes follow the last update.
    #[error("the datagram holds more than it says")]
    Trailing,
    /// A member that others cannot be told of.
    #[error("a member has {0}")]
    Member(&'static str),
    /// Encoding only: the datagram is full.
    #[error("no room is left in the datagram")]
    NoRoom,
}

impl Identity {
    /// Whoever listens at `address`: the receiver of an announcement when only an address is known.
    pub(super) fn whoever(address: SocketAddr) -> Self {
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
        Self { member, bump: 0 }
    }

    pub(super) fn is_whoever(&self) -> bool {
        self.member.id == NodeId::from_u128(0)
    }

    /// Whether others may be told of it.
    pub(super) fn check(&self) -> Result<(), WireError> {
        let member = &self.member;
        let name = &member.name;
        if self.is_whoever() {
            return Err(WireError::Member("no id"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.chars().all(plain) {
            return Err(WireError::Member("a name that is no host name of 1 to 63 bytes"));
        }
        let software = &member.software;
        if software.len() > SOFTWARE_BYTES_MAX || !software.chars().all(|c| c.is_ascii_graphic()) {
            return Err(WireError::Member("a software version that is no word of 32 bytes"));
        }
        if member.gossip.port() == 0 || member.gossip.ip().is_unspecified() {
            return Err(WireError::Member("a gossip address that nobody can send to"));
        }
        Ok(())
    }
}

impl Header {
    fn check(&self) -> Result<(), WireError> {
        self.src.check()?;
        match &self.message {
            Message::Announce if self.dst.is_whoever() => return Ok(()),
            Message::PingReq { target: other, .. }
            | Message::IndirectPing { origin: other, .. }
            | Message::IndirectAck { target: other, .. }
            | Message::ForwardedAck { origin: other, .. } => other.check()?,
            _ => {}
        }
        self.dst.check()
    }
}

/// The limit holds for what a length claims, too, before anything is allocated.
const CONFIG: Configuration<LittleEndian, Varint, Limit<DATAGRAM_BYTES_MAX>> =
    standard().with_limit::<DATAGRAM_BYTES_MAX>();

/// Leaves `buffer` as it was when there is no room.
pub(super) fn encode_header(header: &Header, buffer: &mut impl BufMut) -> Result<(), WireError> {
    put(&(FORMAT, header), buffer)
}

/// Leaves `buffer` as it was when there is no room.
pub(super) fn encode_update(update: &Update, buffer: &mut impl BufMut) -> Result<(), WireError> {
    put(update, buffer)
}

/// Advances `bytes` past the header.
pub(super) fn decode_header(bytes: &mut &[u8]) -> Result<Header, WireError> {
    match bytes.first() {
        Some(&FORMAT) => bytes.advance(1),
        Some(&other) => return Err(WireError::Format(other)),
        None => return Err(WireError::Undecodable),
    }
    let header: Header = take(bytes)?;
    header.check()?;
    Ok(header)
}

/// Advances `bytes` past the update.
pub(super) fn decode_update(bytes: &mut &[u8]) -> Result<Update, WireError> {
    let update: Update = take(bytes)?;
    update.identity.check()?;
    Ok(update)
}

/// All of a datagram: the header, how many updates follow (two bytes, the greater first), the
/// updates, and nothing else. A bare header stands for itself.
pub(super) fn decode(mut bytes: &[u8]) -> Result<Datagram, WireError> {
    let header = decode_header(&mut bytes)?;
    let mut updates = Vec::new();
    if !bytes.is_empty() {
        let count = bytes.try_get_u16().map_err(|_| WireError::Undecodable)?;
        for _ in 0..count {
            updates.push(decode_update(&mut bytes)?);
        }
    }
    if bytes.is_empty() { Ok(Datagram { header, updates }) } else { Err(WireError::Trailing) }
}

/// The bytes of a datagram, with as many of its first updates as there is room for.
pub(super) fn encode(datagram: &Datagram) -> Result<Vec<u8>, WireError> {
    let mut bytes = Vec::new().limit(DATAGRAM_BYTES_MAX - size_of::<u16>());
    encode_header(&datagram.header, &mut bytes)?;
    let mut updates = Vec::new().limit(bytes.remaining_mut());
    let fit = |update: &&Update| encode_update(update, &mut updates).is_ok();
    let count = datagram.updates.iter().take_while(fit).count();
    let count = u16::try_from(count).map_err(|_| WireError::NoRoom)?;
    Ok([&bytes.into_inner()[..], &count.to_be_bytes(), &updates.into_inner()].concat())
}

fn put(value: &impl Serialize, buffer: &mut impl BufMut) -> Result<(), WireError> {
    let bytes = bincode::serde::encode_to_vec(value, CONFIG).map_err(|_| WireError::NoRoom)?;
    if bytes.len() > buffer.remaining_mut() {
        return Err(WireError::NoRoom);
    }
    buffer.put_slice(&bytes);
    Ok(())
}

fn take<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T, WireError> {
    let (value, used) =
        bincode::serde::decode_from_slice(bytes, CONFIG).map_err(|_| WireError::Undecodable)?;
    *bytes = bytes.get(used..).ok_or(WireError::Undecodable)?;
    Ok(value)
}
