//! Whether what clients saw of one key on one node can have happened in one order: linearizability
//! (Herlihy and Wing, 1990), decided exactly and in polynomial time.
//!
//! The key's state on a node is its current version, or nothing. A write replaces the state by a
//! greater version, a read or a refused swap shows it, and between any two operations the state may
//! jump to a greater version that came from elsewhere by a merge. As the state only grows, the
//! operations that name a version can stand in one order alone, that of the versions; what is left
//! to find is an instant for each between its call and its answer. Only answers that saw nothing
//! name no version: they go where the state is a delete.
//!
//! It is exact but for one thing: where a delete from elsewhere, or one whose outcome nobody knows,
//! may explain an answer that saw nothing, it is taken to explain it. It never rejects what can
//! have happened.

use std::collections::BTreeMap;
use std::time::Duration;

use kvs::model::Version;
use uuid::Uuid;

/// An operation that was answered.
#[derive(Clone, Debug)]
pub struct Operation {
    /// When it was called, and when its answer was there.
    pub from: Duration,
    pub to: Duration,
    pub did: Did,
    /// What a reader of the story is told of it.
    pub told: String,
}

/// What the answer says of the state at the one instant at which the operation took place.
#[derive(Clone, Debug)]
pub enum Did {
    /// It wrote this version, a delete if it is `gone`, over what it asked for.
    Wrote { version: Version, gone: bool, over: Over },
    /// It saw this value.
    Saw(Version),
    /// It saw that there was no live value.
    SawNothing,
}

/// What a write found in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Anything,
    Live,
    Nothing,
    Exactly(Uuid),
}

/// A write that may reach this node by a merge, or that was called here and not answered.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    /// Unknown where nobody ever saw the write.
    pub version: Option<Version>,
    pub gone: bool,
    /// When it was called; before, nobody can see it.
    pub from: Duration,
}

/// What cannot have happened: the reason, and the operations that show it.
#[derive(Debug)]
pub struct Violation {
    pub why: &'static str,
    pub shown_by: Vec<Operation>,
}

/// Looks for one order of `operations`.
pub fn check(operations: &[Operation], elsewhere: &[Elsewhere]) -> Result<(), Violation> {
    let mut history = History::new(operations, elsewhere)?;
    history.check_predecessors()?;
    let earliest = history.earliest()?;
    history.check_absences(&earliest, &history.latest())
}

/// An operation that names a version, with what is known of that version.
struct Step<'a> {
    operation: &'a Operation,
    version: Version,
    gone: bool,
    /// What it must find, for a write.
    over: Option<Over>,
    /// The call of this operation or of the write that it saw, whichever was later.
    from: Duration,
}

struct History<'a> {
    /// In the one order that they can have.
    steps: Vec<Step<'a>>,
    nothing: Vec<&'a Operation>,
    /// Writes elsewhere whose version is known, by version.
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
        // a write before those who saw it
        steps.sort_by_key(|step| (step.version, step.over.is_none(), step.from));
        Ok(Self { steps, nothing, known, unknown })
    }

    /// The writes elsewhere whose versions lie strictly between, or may.
    fn between(&self, after: Option<Version>, before: Option<Version>) -> Vec<&'a Elsewhere> {
        use std::ops::Bound::{Excluded, Unbounded};
        let (low, high) = (after.map_or(Unbounded, Excluded), before.map_or(Unbounded, Excluded));
        let known = self.known.range((low, high)).map(|(_, write)| *write);
        known.chain(self.unknown.iter().copied()).collect()
    }

    /// Each write found what it says it found: the state before it, or what came in between, which
    /// then was called before it.
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

    /// The earliest instant of each step; fails where that is after its answer.
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

    /// From when on nothing may be there after step `at`; `None` where a value surely is.
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
        // no later than the next step can be: it may be that the delete came to nothing
        let next = earliest.get(at + 1).copied().unwrap_or(Duration::MAX);
        (called <= until).then(|| called.min(next).max(earliest[at]))
    }

    /// Each answer that saw nothing fits where nothing was. Between two such places there is a run
    /// of steps with a value. A run can be made to end as early as its last step can be, and then
    /// to begin as late as its first one can be without delaying that: neither is at the expense
    /// of another run, so what falls into the run then falls into it always.
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
