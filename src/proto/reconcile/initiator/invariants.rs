//! What holds of an initiator between any two calls.

use super::{Initiator, Phase};
use crate::proto::reconcile::task::Task;

impl Initiator {
    /// Runs [`Self::check_invariants`] in tests and in the simulator, which cannot reach this
    /// machine inside of a node.
    pub(super) fn debug_check(&self) {
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
    }

    /// Checks that phase, tasks and the request under way fit together, in time linear in the tasks
    /// and their ids. Holds between any two calls, but not after an error.
    ///
    /// # Panics
    /// When an invariant does not hold: a bug.
    pub fn check_invariants(&self) {
        let Self { limits, tasks, asked, to_apply, phase, waiting, tally, peer, paused, .. } = self;
        assert!(self.gives || tally.records_sent == 0, "a session that receives gave records");
        assert!(self.surplus.is_empty(), "a surplus is handed out at once");
        limits.check_invariants();
        let begins = matches!(phase, Phase::Beginning);
        assert_eq!(peer.is_none(), begins, "the responder reports as the session begins");
        if !matches!(phase, Phase::Working) {
            let idle = tasks.is_empty() && asked.is_empty() && to_apply.is_empty();
            assert!(idle, "there is work in the phase {phase:?}");
        }
        assert!(!*waiting || !matches!(phase, Phase::Done(_)), "a request follows the last one");
        assert!(tally.rounds > 0 || (begins && !*waiting), "a request was not counted");
        assert!(*waiting || asked.is_empty(), "tasks wait for the response to no request");
        assert!(!*waiting || to_apply.is_empty(), "a request overtakes records to merge");
        assert!(asked.len() <= limits.ranges_max, "a request asks for too many ranges");
        let ends = matches!(phase, Phase::Ending | Phase::Done(_));
        assert!(paused.is_none() || !ends, "the end claims what the responder did not take");
        let cuts = asked.iter().filter(|task| matches!(task, Task::Cut(..))).count();
        let wants = asked.iter().filter(|task| matches!(task, Task::Want { .. })).count();
        assert!(cuts == asked.len() || wants == asked.len(), "a request mixes kinds of tasks");
        tasks.iter().chain(asked).for_each(|task| task.check_invariants(limits));
    }
}
