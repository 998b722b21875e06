//! How foca tells the lives of a node apart. To foca the address of a node is its id.

use super::wire::MemberIdentity;
use crate::model::NodeId;

impl foca::Identity for MemberIdentity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(Self { bump: self.bump.saturating_add(1), ..self.clone() })
    }

    fn addr(&self) -> NodeId {
        self.member.id
    }

    /// The greater bump wins. The rest makes all nodes decide alike between two processes that
    /// started in one microsecond.
    fn win_addr_conflict(&self, other: &Self) -> bool {
        let rank = |identity: &Self| {
            let m = &identity.member;
            (identity.bump, identity.stage, m.gossip, m.peer, m.http, m.joined_at)
        };
        (rank(self), &self.member.name, &self.member.software)
            > (rank(other), &other.member.name, &other.member.software)
    }
}
