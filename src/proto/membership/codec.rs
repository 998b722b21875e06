//! What foca says, in our bytes. Between foca's types and [`super::wire`], and nothing else.

use bytes::{Buf, BufMut};
use foca::State;

use super::wire::{self, Header, Identity, Message, Update, WireError};
use crate::model::MemberState;

/// foca's codec: stateless.
pub(super) struct Codec;

impl foca::Codec<Identity> for Codec {
    type Error = WireError;

    fn encode_header(
        &mut self,
        header: &foca::Header<Identity>,
        mut buffer: impl BufMut,
    ) -> Result<(), WireError> {
        let header = Header {
            src: header.src.clone(),
            src_incarnation: header.src_incarnation,
            dst: header.dst.clone(),
            message: to_wire(&header.message)?,
        };
        wire::encode_header(&header, &mut buffer)
    }

    fn decode_header(&mut self, mut buffer: impl Buf) -> Result<foca::Header<Identity>, WireError> {
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
        member: &foca::Member<Identity>,
        mut buffer: impl BufMut,
    ) -> Result<(), WireError> {
        let update = Update {
            identity: member.id().clone(),
            incarnation: member.incarnation(),
            state: from_foca(member.state()),
        };
        wire::encode_update(&update, &mut buffer)
    }

    fn decode_member(&mut self, mut buffer: impl Buf) -> Result<foca::Member<Identity>, WireError> {
        let update = read(&mut buffer, wire::decode_update)?;
        let state = match update.state {
            MemberState::Alive => State::Alive,
            MemberState::Suspect => State::Suspect,
            MemberState::Down => State::Down,
        };
        Ok(foca::Member::new(update.identity, update.incarnation, state))
    }
}

/// foca promises that its buffers are of one piece.
fn read<T>(
    buffer: &mut impl Buf,
    decode: impl Fn(&mut &[u8]) -> Result<T, WireError>,
) -> Result<T, WireError> {
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

fn to_wire(message: &foca::Message<Identity>) -> Result<Message, WireError> {
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
        // there are no custom broadcasts
        M::Broadcast => return Err(WireError::NoRoom),
    })
}

fn from_wire(message: Message) -> foca::Message<Identity> {
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
