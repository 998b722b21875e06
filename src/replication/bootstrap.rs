//! When a node that waits for its first data may serve.
//!
//! The rule: after a finished session with a member that does not wait itself, which `status` sees.
//! Or, `sync.bootstrap_wait` after the start, when nobody is up but members that wait, too, and
//! this node holds the same records as each of these that answers: nobody then holds more. The
//! oldest of them then founds the durable set, and the others follow it. A member
//! that does not wait and does not answer may hold everything, so it holds the node up, unless
//! `sync.serve_alone` says to go on without it. Must not know gossip nor sessions.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::NodeId;
use crate::model::member::Reach;

/// How often a node that waits asks for sessions with the members that hold it up.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How often it says what it waits for.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// What to do where members hold a node up.
const WAY_OUT: &str = "correct what keeps this node from them, or let it serve without their data \
                       (sync.serve_alone = true)";

/// Another member that is up, as the rule sees it.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) id: NodeId,
    pub(super) name: String,
    /// Where its peers reach it.
    pub(super) address: SocketAddr,
    /// Whether it joined before this node.
    pub(super) is_older: bool,
    /// Whether it waits for its first data itself.
    pub(super) syncing: bool,
    pub(super) reach: Reach,
    /// Whether a session with it has ended and left both with the same records.
    pub(super) equal: bool,
    /// Why the latest attempt failed.
    pub(super) error: Option<String>,
    /// How far its clock is ahead of this node's, in seconds, where this node holds back records
    /// because the two differ by more than clocks may.
    pub(super) skew_s: Option<i64>,
}

impl Candidate {
    /// Whether the node has to wait for this member.
    fn holds_up(&self, serve_alone: bool) -> bool {
        match (self.syncing, self.reach) {
            // whether the one answers will show soon, and a finished session with the other would
            // have ended the wait
            (_, Reach::Untried) | (false, Reach::Reached) => true,
            (true, Reach::Unreached) => false,
            (false, Reach::Unreached) => !serve_alone,
            (true, Reach::Reached) => !self.equal || self.is_older,
        }
    }

    fn in_words(&self) -> String {
        let Self { name, address, .. } = self;
        match (self.reach, &self.error) {
            (Reach::Unreached, Some(error)) => {
                format!("{name} at {address} does not answer: {error}")
            }
            (_, Some(error)) => format!("no session with {name} at {address} succeeds: {error}"),
            (Reach::Reached, None) if let Some(skew_s) = self.skew_s => {
                let (seconds, way) =
                    (skew_s.unsigned_abs(), if skew_s > 0 { "ahead of" } else { "behind" });
                format!(
                    "the clock of {name} at {address} is {seconds} s {way} this node's, so records \
                     are held back; set the wrong one right (NTP)"
                )
            }
            (Reach::Reached, None) if self.syncing && self.equal => {
                format!("{name} at {address} is older, waits, too, and will be the first to serve")
            }
            (Reach::Reached, None) => format!("a session with {name} at {address} goes on"),
            (_, None) => format!("{name} at {address} has not answered yet"),
        }
    }
}

/// The wait of one node.
pub(super) struct Bootstrap {
    began: Instant,
    wait: Duration,
    serve_alone: bool,
    asked_at: Instant,
    said_at: Instant,
}

/// What a node that waits should do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Advice {
    /// Serve: the wait is over.
    pub(super) serve: bool,
    /// Hold sessions with these members.
    pub(super) ask: Vec<NodeId>,
    /// What it waits for, in words; empty while it only waits for the time to pass.
    pub(super) waits_for: String,
    /// Say so in the log.
    pub(super) say: bool,
}

impl Bootstrap {
    pub(super) fn new(began: Instant, wait: Duration, serve_alone: bool) -> Self {
        Self { began, wait, serve_alone, asked_at: began, said_at: began }
    }

    /// Decides anew. `candidates` are all other members that are up, but for former lives of this
    /// node at its own address and those that it refuses.
    pub(super) fn look(&mut self, now: Instant, candidates: &[Candidate]) -> Advice {
        let waited = now.saturating_duration_since(self.began) >= self.wait;
        let obstacles: Vec<_> =
            candidates.iter().filter(|member| member.holds_up(self.serve_alone)).collect();
        if waited && obstacles.is_empty() {
            return Advice { serve: true, ..Advice::default() };
        }
        let is_due = |at: Instant, every| now.saturating_duration_since(at) >= every;
        let mut ask = Vec::new();
        if is_due(self.asked_at, ASK_EVERY) {
            self.asked_at = now;
            let reached = obstacles.iter().filter(|member| member.reach == Reach::Reached);
            ask = reached.map(|member| member.id).collect();
        }
        let mut words: Vec<_> = obstacles.iter().map(|member| member.in_words()).collect();
        if !words.is_empty() {
            words.push(WAY_OUT.to_owned());
        }
        Advice { ask, ..self.waits_for(now, words.join("; ")) }
    }

    /// Advises to wait for this, in words.
    pub(super) fn waits_for(&mut self, now: Instant, what: String) -> Advice {
        let is_due = now.saturating_duration_since(self.said_at) >= SAY_EVERY;
        let say = is_due && !what.is_empty();
        if say {
            self.said_at = now;
        }
        Advice { waits_for: what, say, ..Advice::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const WAIT: Duration = Duration::from_secs(10);

    fn member(syncing: bool, reach: Reach, equal: bool) -> Candidate {
        let error = (reach == Reach::Unreached).then(|| "no answer within 5 s".to_owned());
        let address = SocketAddr::from(([10, 0, 0, 1], 7947));
        let id = NodeId::from_u128(1);
        let (name, is_older, skew_s) = ("n1".to_owned(), false, None);
        Candidate { id, name, address, is_older, syncing, reach, equal, error, skew_s }
    }

    /// What a node does that has waited for so long.
    fn after(waited: Duration, serve_alone: bool, members: &[Candidate]) -> Advice {
        let began = Clock::system().instant();
        Bootstrap::new(began, WAIT, serve_alone).look(began + waited, members)
    }

    #[test]
    fn a_node_alone_waits_for_the_time_to_pass_and_no_longer() {
        assert!(!after(WAIT / 2, false, &[]).serve);
        assert!(after(WAIT, false, &[]).serve);
    }

    #[test]
    fn a_member_that_may_hold_all_and_does_not_answer_holds_a_node_up() {
        let silent = member(false, Reach::Unreached, false);
        let advice = after(WAIT * 100, false, std::slice::from_ref(&silent));
        assert!(!advice.serve && advice.say && advice.ask.is_empty());
        let words = "n1 at 10.0.0.1:7947 does not answer: no answer within 5 s";
        assert_eq!(advice.waits_for, format!("{words}; {WAY_OUT}"));
        assert!(
            after(WAIT, true, std::slice::from_ref(&silent)).serve,
            "sync.serve_alone ends that"
        );
        assert!(!after(WAIT / 2, true, &[silent]).serve, "but not before the time is over");
        for reach in [Reach::Untried, Reach::Reached] {
            assert!(!after(WAIT, true, &[member(false, reach, false)]).serve, "{reach:?}");
        }
    }

    #[test]
    fn nodes_that_all_wait_serve_once_they_hold_the_same() {
        let unequal = member(true, Reach::Reached, false);
        let advice = after(WAIT, false, &[unequal]);
        assert!(!advice.serve && advice.ask.len() == 1, "{advice:?}");
        assert!(after(WAIT, false, &[member(true, Reach::Reached, true)]).serve);
        assert!(after(WAIT, false, &[member(true, Reach::Unreached, false)]).serve);
        assert!(!after(WAIT, false, &[member(true, Reach::Untried, false)]).serve);
        let older = Candidate { is_older: true, ..member(true, Reach::Reached, true) };
        let advice = after(WAIT, false, std::slice::from_ref(&older));
        assert!(!advice.serve && advice.waits_for.contains("the first to serve"), "{advice:?}");
        let silent = Candidate { reach: Reach::Unreached, ..older };
        assert!(after(WAIT, false, &[silent]).serve);
        let full = member(false, Reach::Unreached, false);
        assert!(!after(WAIT, false, &[member(true, Reach::Reached, true), full]).serve);
    }
}
