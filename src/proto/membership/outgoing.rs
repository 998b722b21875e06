//! Rewrites foca datagrams that would spread false news, and adds news that their receivers need.

use super::codec::from_foca;
use super::wire::{self, DatagramHeader, MemberIdentity, Message, Update};
use super::{MemberState, Membership};

impl Membership {
    /// The datagram to send to `to` instead of `bytes`; `None` to send nothing.
    pub(super) fn checked(&self, to: &MemberIdentity, bytes: Vec<u8>) -> Option<Vec<u8>> {
        match wire::decode_header(&mut bytes.as_slice()) {
            Ok(header) if matches!(header.message, Message::TurnUndead { .. }) => {
                self.undead(to, header)
            }
            Ok(DatagramHeader { message: Message::Ping { .. }, .. }) => {
                Some(self.with_suspicion(to, &bytes).unwrap_or(bytes))
            }
            _ => Some(bytes),
        }
    }

    /// Drops the message "you are down" when it is false, and completes it when it is true.
    ///
    /// foca 2.0.0 sends it when the time of a suspicion has run out, even if the suspicion was
    /// refuted in the meantime; a healthy receiver would renew itself for nothing.
    fn undead(&self, to: &MemberIdentity, header: DatagramHeader) -> Option<Vec<u8>> {
        if self.foca.iter_members().any(|member| member.id() == to) {
            return None;
        }
        let mut held = self.foca.iter_membership_state().map(foca::Member::id);
        let same = held.find(|identity| identity.member.id == to.member.id);
        let known = same.map_or(to.bump, |identity| identity.bump);
        let mut completed = Vec::new();
        let header = DatagramHeader { message: Message::TurnUndead { known }, ..header };
        wire::encode_header(&header, &mut completed).ok().map(|()| completed)
    }

    /// Adds the suspicion of its receiver to a ping, so that the receiver can refute it: the buddy
    /// system of Lifeguard (Dadgar, Phillips, Currey, 2018, section IV.C). `None` when the receiver
    /// is not suspect.
    ///
    /// Gossip repeats news a bounded number of times. Suppose that a suspect missed the news, and
    /// that the node which suspected it restarted or renewed itself and will not end the suspicion.
    /// Without this it would stay suspect forever, though it answers every probe.
    fn with_suspicion(&self, to: &MemberIdentity, ping: &[u8]) -> Option<Vec<u8>> {
        let held = self.foca.iter_members().find(|member| member.id() == to)?;
        let state = from_foca(held.state());
        let mut datagram = wire::decode(ping).ok().filter(|_| state == MemberState::Suspect)?;
        datagram.updates.retain(|update| update.identity != *to);
        let suspicion = Update { identity: to.clone(), incarnation: held.incarnation(), state };
        datagram.updates.insert(0, suspicion);
        wire::encode(&datagram).ok()
    }
}
