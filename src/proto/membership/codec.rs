//! foca's messages in our bytes: translates between foca's types and those of [`super::wire`]. Must
//! not know bytes nor rules.

use bytes::{Buf, BufMut};
use foca::State;

use super::wire::{self, DatagramError, DatagramHeader, MemberIdentity, Message, Update};
use crate::model::MemberState;

/// The codec that foca calls. Keeps no state.
pub(super) struct Codec;

impl foca::Codec<MemberIdentity> for Codec {
    type Error = DatagramError;

    fn encode_header(
        &mut self,
        header: &foca::Header<MemberIdentity>,
        mut buffer: impl BufMut,
    ) -> Result<(), DatagramError> {
        let header = DatagramHeader {
            src: header.src.clone(),
            src_incarnation: header.src_incarnation,
            dst: header.dst.clone(),
            message: to_wire(&header.message)?,
        };
        wire::encode_header(&header, &mut buffer)
    }

    fn decode_header(
        &mut self,
        mut buffer: impl Buf,
    ) -> Result<foca::Header<MemberIdentity>, DatagramError> {
        let header = read(&mut buffer, wire::decode_header)?;
        Ok(foca::Header {
            src: header.src,
            src_incarnation: header.src_incarnation,
            dst: header.dst,
            message: from_wire(header.message),
        })
    }

    fn encode_member(
        &mut self,
        member: &foca::Member<MemberIdentity>,
        mut buffer: impl BufMut,
    ) -> Result<(), DatagramError> {
        let update = Update {
            identity: member.id().clone(),
            incarnation: member.incarnation(),
            state: from_foca(member.state()),
        };
        wire::encode_update(&update, &mut buffer)
    }

    fn decode_member(
        &mut self,
        mut buffer: impl Buf,
    ) -> Result<foca::Member<MemberIdentity>, DatagramError> {
        let update = read(&mut buffer, wire::decode_update)?;
        let state = match update.state {
            MemberState::Alive => State::Alive,
            MemberState::Suspect => State::Suspect,
            MemberState::Down | MemberState::Left => State::Down,
        };
        Ok(foca::Member::new(update.identity, update.incarnation, state))
    }
}

/// Decodes from the front of `buffer`, whose bytes foca promises to hold in one chunk.
fn read<T>(
    buffer: &mut impl Buf,
    decode: impl Fn(&mut &[u8]) -> Result<T, DatagramError>,
) -> Result<T, DatagramError> {
    let mut rest = buffer.chunk();
    let before = rest.len();
    let value = decode(&mut rest)?;
    let used = before - rest.len();
    buffer.advance(used);
    Ok(value)
}

pub(super) fn from_foca(state: State) -> MemberState {
    match state {
        State::Alive => MemberState::Alive,
        State::Suspect => MemberState::Suspect,
        State::Down => MemberState::Down,
    }
}

fn to_wire(message: &foca::Message<MemberIdentity>) -> Result<Message, DatagramError> {
    use foca::Message as M;
    Ok(match message.clone() {
        M::Ping(probe) => Message::Ping { probe },
        M::Ack(probe) => Message::Ack { probe },
        M::PingReq { target, probe_number: probe } => Message::PingReq { target, probe },
        M::IndirectPing { origin, probe_number: probe } => Message::IndirectPing { origin, probe },
        M::IndirectAck { target, probe_number: probe } => Message::IndirectAck { target, probe },
        M::ForwardedAck { origin, probe_number: probe } => Message::ForwardedAck { origin, probe },
        M::Announce => Message::Announce,
        M::Feed => Message::Feed,
        M::Gossip => Message::Gossip,
        // the machine fills it in, which knows the members
        M::TurnUndead => Message::TurnUndead { known: 0 },
        // This node makes no custom broadcasts.
        M::Broadcast => return Err(DatagramError::NoRoom),
    })
}

fn from_wire(message: Message) -> foca::Message<MemberIdentity> {
    use foca::Message as M;
    match message {
        Message::Ping { probe } => M::Ping(probe),
        Message::Ack { probe } => M::Ack(probe),
        Message::PingReq { target, probe } => M::PingReq { target, probe_number: probe },
        Message::IndirectPing { origin, probe } => M::IndirectPing { origin, probe_number: probe },
        Message::IndirectAck { target, probe } => M::IndirectAck { target, probe_number: probe },
        Message::ForwardedAck { origin, probe } => M::ForwardedAck { origin, probe_number: probe },
        Message::Announce => M::Announce,
        Message::Feed => M::Feed,
        Message::Gossip => M::Gossip,
        Message::TurnUndead { .. } => M::TurnUndead,
    }
}
