//! Linearizability of one key on one node (Herlihy and Wing, 1990), decided exactly and in
//! polynomial time.
//!
//! The key's state on a node is its current version, or nothing. A write replaces the state by a
//! greater version; a read or a refused swap shows it; and between two operations a merge can raise
//! it to a greater version from elsewhere. As the state only grows, the operations that name a
//! version have one possible order, that of the versions. The checker looks for an instant for
//! each, between its call and its answer. Only answers without a value name no version: they must
//! fall where the state is a delete.
//!
//! One approximation: if a delete from elsewhere, or one with an unknown outcome, can explain an
//! answer without a value, the checker accepts it. It never rejects a possible history.

use std::collections::BTreeMap;
use std::time::Duration;

use kvs::model::Version;
use uuid::Uuid;

/// An answered operation.
#[derive(Clone, Debug)]
pub struct Operation {
    /// When the client called, and when the answer had arrived.
    pub from: Duration,
    pub to: Duration,
    pub did: Did,
    /// A description for the reader of a failure.
    pub told: String,
}

/// What the answer says about the state at the instant of the operation.
#[derive(Clone, Debug)]
pub enum Did {
    /// It wrote this version, a delete if `gone`, over what it demanded.
    Wrote { version: Version, gone: bool, over: Over },
    /// It saw this value.
    Saw(Version),
    /// It saw no live value.
    SawNothing,
}

/// What a write replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Anything,
    Live,
    Nothing,
    Exactly(Uuid),
}

/// A write that this node may receive in a merge, or that was called here without an answer.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    /// `None` if nobody saw the write.
    pub version: Option<Version>,
    pub gone: bool,
    /// When it was called. Nobody can see it earlier.
    pub from: Duration,
}

/// An impossible history: the reason, and the operations that show it.
#[derive(Debug)]
pub struct Violation {
    pub why: &'static str,
    pub shown_by: Vec<Operation>,
}

/// Looks for a possible order of `operations`.
pub fn check(operations: &[Operation], elsewhere: &[Elsewhere]) -> Result<(), Violation> {
    let mut history = History::new(operations, elsewhere)?;
    history.check_predecessors()?;
    let earliest = history.earliest()?;
    history.check_absences(&earliest, &history.latest())
}

/// An operation that names a version, and what is known of that version.
struct Step<'a> {
    operation: &'a Operation,
    version: Version,
    gone: bool,
    /// What a write must replace.
    over: Option<Over>,
    /// The later call: of this operation, or of the write that it saw.
    from: Duration,
}

struct History<'a> {
    /// The steps in their only possible order.
    steps: Vec<Step<'a>>,
    nothing: Vec<&'a Operation>,
    /// The writes elsewhere with a known version, by version.
    known: BTreeMap<Version, &'a Elsewhere>,
    unknown: Vec<&'a Elsewhere>,
}

fn violation(why: &'static str, shown_by: &[&Operation]) -> Violation {
    Violation { why, shown_by: shown_by.iter().map(|operation| (*operation).clone()).collect() }
}

impl<'a> History<'a> {
    fn new(operations: &'a [Operation], elsewhere: &'a [Elsewhere]) -> Result<Self, Violation> {
        let known: BTreeMap<_, _> =
            elsewhere.iter().filter_map(|e| Some((e.version?, e))).collect();
        let unknown = elsewhere.iter().filter(|e| e.version.is_none()).collect();
        let mut wrote: BTreeMap<Version, (&Operation, bool)> = BTreeMap::new();
        for operation in operations {
            if let Did::Wrote { version, gone, .. } = operation.did
                && let Some((other, _)) = wrote.insert(version, (operation, gone))
            {
                return Err(violation("two writes made one version", &[other, operation]));
            }
        }
        let (mut steps, mut nothing) = (Vec::new(), Vec::new());
        for operation in operations {
            let (version, over) = match operation.did {
                Did::Wrote { version, over, .. } => (version, Some(over)),
                Did::Saw(version) => (version, None),
                Did::SawNothing => {
                    nothing.push(operation);
                    continue;
                }
            };
            let (gone, began) = match (wrote.get(&version), known.get(&version)) {
                (Some((write, gone)), _) => (*gone, write.from),
                (None, Some(write)) => (write.gone, write.from),
                (None, None) => {
                    return Err(violation("what it saw was written by nobody", &[operation]));
                }
            };
            if gone && over.is_none() {
                return Err(violation("it saw a delete as a value", &[operation]));
            }
            let from = operation.from.max(began);
            if from > operation.to {
                return Err(violation("it saw a write that was not called yet", &[operation]));
            }
            steps.push(Step { operation, version, gone, over, from });
        }
        // a write comes before the operations that saw it
        steps.sort_by_key(|step| (step.version, step.over.is_none(), step.from));
        Ok(Self { steps, nothing, known, unknown })
    }

    /// The writes elsewhere whose versions lie, or may lie, strictly between.
    fn between(&self, after: Option<Version>, before: Option<Version>) -> Vec<&'a Elsewhere> {
        use std::ops::Bound::{Excluded, Unbounded};
        let (low, high) = (after.map_or(Unbounded, Excluded), before.map_or(Unbounded, Excluded));
        let known = self.known.range((low, high)).map(|(_, write)| *write);
        known.chain(self.unknown.iter().copied()).collect()
    }

    /// Each write replaced what it says: the state before it, or a version merged in between, which
    /// must then have been called before it.
    fn check_predecessors(&mut self) -> Result<(), Violation> {
        for at in 0..self.steps.len() {
            let (earlier, later) = self.steps.split_at(at);
            let (Some(step), before) = (later.first(), earlier.last()) else { continue };
            let Some(over) = step.over else { continue };
            let live = before.filter(|before| !before.gone).map(|before| before.version);
            let fits = |e: &&&Elsewhere| match over {
                Over::Anything => false,
                Over::Live => !e.gone,
                Over::Nothing => e.gone,
                Over::Exactly(uuid) => !e.gone && e.version.is_some_and(|v| v.uuid == uuid),
            };
            let found = match over {
                Over::Anything => true,
                Over::Live => live.is_some(),
                Over::Nothing => live.is_none(),
                Over::Exactly(uuid) => live.is_some_and(|version| version.uuid == uuid),
            };
            if found {
                continue;
            }
            let between = self.between(before.map(|before| before.version), Some(step.version));
            let arrived = between.iter().filter(fits).map(|e| e.from).min();
            let Some(arrived) = arrived.filter(|arrived| *arrived <= step.operation.to) else {
                let why = match over {
                    Over::Exactly(_) => "it replaced another version than it expected",
                    Over::Nothing => "it found nothing where a value was",
                    Over::Live | Over::Anything => "it found a value where nothing was",
                };
                let other = before.map(|before| before.operation);
                let shown: Vec<_> = other.into_iter().chain([step.operation]).collect();
                return Err(violation(why, &shown));
            };
            self.steps[at].from = step.from.max(arrived);
        }
        Ok(())
    }

    /// The earliest instant of each step; fails if that is after its answer.
    fn earliest(&self) -> Result<Vec<Duration>, Violation> {
        let mut earliest = Vec::new();
        let mut latest_call: Option<&Step> = None;
        for step in &self.steps {
            if let Some(before) = latest_call.filter(|before| before.from > step.operation.to) {
                let why = "a version was seen or written after a greater one had been there";
                return Err(violation(why, &[step.operation, before.operation]));
            }
            if latest_call.is_none_or(|before| before.from <= step.from) {
                latest_call = Some(step);
            }
            earliest.extend(latest_call.map(|step| step.from));
        }
        Ok(earliest)
    }

    /// The latest instant of each step.
    fn latest(&self) -> Vec<Duration> {
        let mut until = Duration::MAX;
        let back = self.steps.iter().rev().map(|step| {
            until = until.min(step.operation.to);
            until
        });
        let mut latest: Vec<_> = back.collect();
        latest.reverse();
        latest
    }

    /// From when on the state can be nothing after step `at`; `None` if it surely has a value.
    fn nothing_after(
        &self,
        at: usize,
        earliest: &[Duration],
        latest: &[Duration],
    ) -> Option<Duration> {
        let (step, next) = (&self.steps[at], self.steps.get(at + 1));
        if next.is_some_and(|next| next.version == step.version) {
            return None;
        }
        if step.gone {
            return Some(earliest[at]);
        }
        if next.is_some_and(|next| next.over == Some(Over::Exactly(step.version.uuid))) {
            return None;
        }
        let deletes = self.between(Some(step.version), next.map(|next| next.version));
        let called = deletes.iter().filter(|e| e.gone).map(|e| e.from).min()?;
        let until = latest.get(at + 1).copied().unwrap_or(Duration::MAX);
        // not after the next step's latest instant: the delete may have had no effect
        let next = earliest.get(at + 1).copied().unwrap_or(Duration::MAX);
        (called <= until).then(|| called.min(next).max(earliest[at]))
    }

    /// Each answer without a value fits where the state is nothing. Between two such places is a
    /// run of steps with a value. Let each run end as early as its last step allows, and then begin
    /// as late as its first step allows without moving that end. Neither choice constrains another
    /// run, so an answer that falls into the run now would fall into it always.
    fn check_absences(&self, earliest: &[Duration], latest: &[Duration]) -> Result<(), Violation> {
        let mut first = 0;
        for at in 0..self.steps.len() {
            let end = self.nothing_after(at, earliest, latest);
            if end.is_none() && at + 1 < self.steps.len() {
                continue;
            }
            let end = end.unwrap_or(Duration::MAX);
            let begin = latest[first].min(end);
            if let Some(missed) = self.nothing.iter().find(|op| op.from > begin && op.to < end) {
                let (first, last) = (self.steps[first].operation, self.steps[at].operation);
                let why = "it saw nothing while a value was there";
                return Err(violation(why, &[first, *missed, last]));
            }
            first = at + 1;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "linear_tests.rs"]
mod tests;
