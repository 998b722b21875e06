//! What an initiator tells of the records that one of the two sides holds back. Must not know
//! requests.

use std::ops::ControlFlow;

use super::{Fallible, Initiator, Phase};
use crate::model::{HeldBack, Timestamp};
use crate::proto::reconcile::ahead::HeldDifference;
use crate::proto::reconcile::replica::{Listed, Replica, SessionError};
use crate::proto::reconcile::task;
use crate::proto::wire::{Range, Withheld};

impl Initiator {
    /// The records that one of the sides holds back from the other's, as far as the session has
    /// found them. A session with such records proves nothing about what the two sides hold.
    #[must_use]
    pub fn held(&self) -> HeldBack {
        self.ahead.held()
    }

    /// Notes that this side holds back some of the records of a `Apply` step, because its clock
    /// was set back since the session began.
    pub fn hold(&mut self, held: HeldBack) {
        let all = &mut self.ahead.from_peer.all;
        *all = all.and(held);
    }

    /// Whether this side may hold back a record of the responder with a timestamp up to `at`.
    #[must_use]
    pub fn holds_back_through(&self, at: Timestamp) -> bool {
        self.ahead.from_peer.reach_down_to(at)
    }

    /// What differs between the two sides, for [`Initiator::knowing`] in the next session; `None`
    /// unless the session is done and has found that it is held records alone. One that only
    /// receives does not look for what the responder lacks.
    #[must_use]
    pub fn held_difference(&self) -> Option<HeldDifference> {
        let is_done = matches!(self.phase, Phase::Done(_));
        let moved = self.tally.records_sent > 0 || self.tally.records_received > 0;
        self.ahead.difference(moved).filter(|_| is_done && self.gives)
    }

    /// Notes what the responder leaves out, but for what a record of this side beats.
    pub(super) fn note_withheld<R: Replica>(
        &mut self,
        replica: &R,
        withheld: Vec<Withheld>,
    ) -> Fallible<(), R> {
        for withheld in withheld {
            let key = withheld.key.as_bytes();
            let (mut own, behind) = (Timestamp::ZERO, [key, &[0]].concat());
            let visit = &mut |listed: Listed<'_>| {
                own = listed.timestamp;
                ControlFlow::Break(())
            };
            replica.list(key, Some(&behind), visit).map_err(SessionError::Store)?;
            if own <= withheld.timestamp {
                self.ahead.lack(withheld);
            }
        }
        Ok(())
    }

    /// Wants all records of a range but those that this side holds.
    pub(super) fn want_others<R: Replica>(&mut self, replica: &R, range: Range) -> Fallible<(), R> {
        let horizon = self.ahead.their_horizon;
        self.tasks.extend(task::want_others(replica, range, &self.limits, horizon)?);
        Ok(())
    }
}
