//! Which pushed writes one peer has not confirmed yet, and since when.
//!
//! A peer confirms each frame of pushes in order; what it did not take, or never got, a session
//! confirms. Must not know streams nor clocks.

use std::collections::VecDeque;
use std::time::Instant;

/// Frames on their way whose instants are kept; those of more are taken for later ones.
const FRAMES_MAX: usize = 1024;

/// The unconfirmed pushes to one peer. Instants ascend.
#[derive(Debug, Default)]
pub(super) struct Lag {
    /// When each of the first frames was sent that are on their way.
    sent: VecDeque<Instant>,
    /// How many more are, and when the first of these was sent.
    more: Option<(u64, Instant)>,
    /// The oldest and the latest that only a session confirms.
    missed: Option<(Instant, Instant)>,
}

impl Lag {
    /// A frame is sent.
    pub(super) fn sent(&mut self, now: Instant) {
        match &mut self.more {
            Some((count, _)) => *count += 1,
            None if self.sent.len() < FRAMES_MAX => self.sent.push_back(now),
            more @ None => *more = Some((1, now)),
        }
    }

    /// The oldest frame on its way was answered; `durable`: its records are.
    pub(super) fn answered(&mut self, durable: bool) {
        let at = self.sent.pop_front().or_else(|| {
            let (count, at) = self.more?;
            self.more = (count > 1).then_some((count - 1, at));
            Some(at)
        });
        if let Some(at) = at.filter(|_| !durable) {
            self.missed(at);
        }
    }

    /// Writes of this instant were not sent, or not taken.
    pub(super) fn missed(&mut self, at: Instant) {
        let (first, last) = self.missed.unwrap_or((at, at));
        self.missed = Some((first.min(at), last.max(at)));
    }

    /// The stream has ended at `now`: nobody answers what is on its way.
    pub(super) fn cut(&mut self, now: Instant) {
        let more = self.more.take().map(|(_, at)| at);
        if let Some(first) = self.sent.front().copied().or(more) {
            self.missed(first);
            self.missed(now);
        }
        self.sent.clear();
    }

    /// A session that began at `began` has ended: the peer has all that was there by then.
    pub(super) fn session(&mut self, began: Instant) {
        self.missed = self
            .missed
            .and_then(|(first, last)| (last > began).then_some((first.max(began), last)));
    }

    /// Since when the oldest write waits that is not confirmed.
    pub(super) fn since(&self) -> Option<Instant> {
        let missed = self.missed.map(|(first, _)| first);
        let more = self.more.map(|(_, at)| at);
        self.sent.front().copied().into_iter().chain(more).chain(missed).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;

    #[test]
    fn the_oldest_write_without_a_confirmation_counts_and_a_session_confirms_what_was_missed() {
        let start = Clock::system().instant().into_std();
        let at = |s| start + Duration::from_secs(s);
        let mut lag = Lag::default();
        assert_eq!(lag.since(), None);
        for second in 1..4 {
            lag.sent(at(second));
        }
        assert_eq!(lag.since(), Some(at(1)));
        lag.answered(true);
        assert_eq!(lag.since(), Some(at(2)));
        lag.answered(false);
        assert_eq!(lag.since(), Some(at(2)), "it was not taken");
        lag.session(at(1));
        assert_eq!(lag.since(), Some(at(2)), "the session began before that write");
        lag.session(at(2));
        assert_eq!(lag.since(), Some(at(3)));
        lag.cut(at(5));
        lag.answered(true);
        assert_eq!(lag.since(), Some(at(3)), "nobody answers any more");
        lag.session(at(4));
        assert_eq!(lag.since(), Some(at(4)), "what was sent later may be missing");
        lag.session(at(9));
        assert_eq!(lag.since(), None);
    }

    #[test]
    fn of_many_frames_on_their_way_each_is_confirmed_and_few_are_kept() {
        let start = Clock::system().instant().into_std();
        let mut lag = Lag::default();
        for number in 0..2 * FRAMES_MAX as u64 {
            lag.sent(start + Duration::from_secs(number));
        }
        assert_eq!(lag.sent.len(), FRAMES_MAX);
        for _ in 0..2 * FRAMES_MAX {
            assert!(lag.since().is_some());
            lag.answered(true);
        }
        assert_eq!(lag.since(), None);
    }
}
