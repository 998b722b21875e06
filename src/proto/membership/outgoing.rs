//! What foca wants sent, mended where it would do harm or leave harm.

use super::codec::from_foca;
use super::wire::{self, Header, Identity, Message, Update};
use super::{MemberState, Membership};

impl Membership {
    /// What goes out instead of `bytes`, if anything does.
    pub(super) fn checked(&self, to: &Identity, bytes: Vec<u8>) -> Option<Vec<u8>> {
        match wire::decode_header(&mut bytes.as_slice()) {
            Ok(header) if matches!(header.message, Message::TurnUndead { .. }) => {
                self.undead(to, header)
            }
            Ok(Header { message: Message::Ping { .. }, .. }) => {
                Some(self.with_suspicion(to, &bytes).unwrap_or(bytes))
            }
            _ => Some(bytes),
        }
    }

    /// Drops the false news of a death and completes the true.
    ///
    /// foca 2.0.0 tells a member that it is down when the time of a suspicion has run out, also
    /// when the suspicion was refuted meanwhile; a healthy node would renew itself.
    fn undead(&self, to: &Identity, header: Header) -> Option<Vec<u8>> {
        if self.foca.iter_members().any(|member| member.id() == to) {
            return None;
        }
        let mut held = self.foca.iter_membership_state().map(foca::Member::id);
        let same = held.find(|identity| identity.member.id == to.member.id);
        let known = same.map_or(to.bump, |identity| identity.bump);
        let mut completed = Vec::new();
        let header = Header { message: Message::TurnUndead { known }, ..header };
        wire::encode_header(&header, &mut completed).ok().map(|()| completed)
    }

    /// The ping with the suspicion under which its receiver stands, so that it can refute it: the
    /// buddy system of Lifeguard (Dadgar, Phillips, Currey, 2018, section IV.C).
    ///
    /// News go round a bounded number of times. A member that missed them, and whose suspicion
    /// nobody is left to bring to an end (whoever began it was restarted, or renewed itself), would
    /// stay suspect to all for ever, however well it answers.
    fn with_suspicion(&self, to: &Identity, ping: &[u8]) -> Option<Vec<u8>> {
        let held = self.foca.iter_members().find(|member| member.id() == to)?;
        let state = from_foca(held.state());
        let mut datagram = wire::decode(ping).ok().filter(|_| state == MemberState::Suspect)?;
        datagram.updates.retain(|update| update.identity != *to);
        let suspicion = Update { identity: to.clone(), incarnation: held.incarnation(), state };
        datagram.updates.insert(0, suspicion);
        wire::encode(&datagram).ok()
    }
}
