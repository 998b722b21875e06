//! The auditor of a chaos run: knows every acknowledged write, every write of unknown outcome, and
//! everything that clients saw.
//!
//! It checks that one order explains what clients saw of each key on each node (linearizability,
//! merges included); that a client wrote each value seen or stored, with these bytes; and that at
//! the end each key holds the greatest acknowledged version or a greater one.
//!
//! It does not check yet that the origin reports an acknowledged write that lost a merge (promise
//! 4, `/superseded`), that a dropped dead record stays away (3: no node drops any yet), and that
//! nodes hold back records of a clock far ahead (6: clocks stay within the bound here).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use kvs::model::{Timestamp, Version};
use uuid::Uuid;

use super::clients::{Asked, Event, Told};
use crate::support::linear::{self, Did, Elsewhere, Operation, Over};

/// The most lines of a story.
const STORY_LINES_MAX: usize = 40;

/// A node as the auditor knows it.
#[derive(Clone, Debug)]
pub struct Origin {
    pub name: String,
    pub joined_at: Timestamp,
    /// When its disk was emptied: a write that it acknowledged later and no other node had is lost.
    pub emptied_at: Option<Duration>,
}

pub type Origins = BTreeMap<Uuid, Origin>;

/// A write that happened or may have happened.
struct Write {
    key: String,
    /// The value; `None` for a delete.
    made: Option<String>,
    from: Duration,
    /// Unknown for an unacknowledged write until a client sees it.
    version: Option<Version>,
    /// The node that acknowledged it.
    node: Option<Uuid>,
    may_be_lost: bool,
}

/// What a key holds at the end: a value or a delete.
pub type Held = (Version, Option<String>);

pub struct Audit {
    seed: u64,
    origins: Origins,
    writes: Vec<Write>,
    /// The index in `writes` of each version's write.
    by_uuid: BTreeMap<Uuid, usize>,
    /// What happened to each key on each node.
    histories: BTreeMap<(String, Uuid), Vec<Operation>>,
}

impl Audit {
    /// Reads the events of all clients and checks that a client wrote each value that they saw.
    pub fn new(seed: u64, origins: Origins, events: &[Event]) -> Self {
        let mut audit = Self {
            seed,
            origins,
            writes: Vec::new(),
            by_uuid: BTreeMap::new(),
            histories: BTreeMap::new(),
        };
        events.iter().for_each(|event| audit.note_write(event));
        events.iter().for_each(|event| audit.note_answer(event));
        audit
    }

    fn note_write(&mut self, event: &Event) {
        let Asked::Write { made, .. } = &event.asked else { return };
        let (version, node, may_be_lost) = match &event.answer {
            Some((node, Told::Wrote { uuid, timestamp, .. })) => {
                let origin = self.origins.get(node).expect("only our nodes answer");
                let origin_joined_at = origin.joined_at;
                let lost = origin.emptied_at.is_some_and(|at| event.to > at);
                (
                    Some(Version { timestamp: *timestamp, origin_joined_at, uuid: *uuid }),
                    Some(*node),
                    lost,
                )
            }
            Some(_) => return,
            None => (None, None, false),
        };
        if let Some(version) = version {
            let before = self.by_uuid.insert(version.uuid, self.writes.len());
            assert_eq!(before, None, "seed {}: two writes got {}", self.seed, version.uuid);
        }
        let (key, made, from) = (event.key.clone(), made.clone(), event.from);
        self.writes.push(Write { key, made, from, version, node, may_be_lost });
    }

    fn note_answer(&mut self, event: &Event) {
        let Some((node, told)) = &event.answer else { return };
        let did = match told {
            Told::Wrote { uuid, created, .. } => {
                let write = &self.writes[self.by_uuid[uuid]];
                let Asked::Write { over, .. } = event.asked else { unreachable!("it wrote") };
                let over = match (over, created) {
                    (Over::Anything, Some(true)) => Over::Nothing,
                    (Over::Anything, Some(false)) => Over::Live,
                    (over, _) => over,
                };
                let version = write.version.expect("it was acknowledged");
                Did::Wrote { version, gone: write.made.is_none(), over }
            }
            Told::Saw { version, value } => {
                let who = format!("client {} on {}", event.client, self.name(*node));
                self.check_written(&event.key, *version, Some(value), &who);
                Did::Saw(*version)
            }
            Told::SawNothing => Did::SawNothing,
        };
        self.check_refusal(event, &did);
        let told = told_of(event);
        let operation = Operation { from: event.from, to: event.to, did, told };
        self.histories.entry((event.key.clone(), *node)).or_default().push(operation);
    }

    /// Checks that a refused condition really did not hold.
    fn check_refusal(&self, event: &Event, did: &Did) {
        let Asked::Write { over, .. } = event.asked else { return };
        let holds = match (did, over) {
            (Did::Wrote { .. }, _) => false,
            (Did::Saw(version), Over::Exactly(uuid)) => version.uuid == uuid,
            (Did::Saw(_), over) => over != Over::Nothing,
            (Did::SawNothing, over) => matches!(over, Over::Nothing | Over::Anything),
        };
        assert!(!holds, "seed {}: refused, and it holds: {}", self.seed, told_of(event));
    }

    fn name(&self, node: Uuid) -> String {
        let origin = self.origins.get(&node);
        format!("{} ({node})", origin.map_or("nobody's node", |origin| origin.name.as_str()))
    }

    /// Checks that a client wrote this version with these bytes. An unanswered write whose value is
    /// seen has happened, as this version.
    fn check_written(&mut self, key: &str, version: Version, made: Option<&String>, who: &str) {
        let seed = self.seed;
        let at = self.by_uuid.get(&version.uuid).copied().or_else(|| {
            let it = |w: &Write| w.version.is_none() && w.key == key && w.made.as_ref() == made;
            let at = self.writes.iter().position(it)?;
            self.by_uuid.insert(version.uuid, at);
            self.writes[at].version = Some(version);
            Some(at)
        });
        let shown = made.map(|made| short(made));
        let Some(at) = at else {
            panic!("seed {seed}: {key} was {shown:?} ({version:?}) for {who}: nobody wrote that");
        };
        let write = &self.writes[at];
        assert!(
            write.key == key && write.made.as_ref() == made && write.version == Some(version),
            "seed {seed}: {key} was {shown:?} ({version:?}) for {who}, that is {:?} of {}: {:?}",
            write.made.as_deref().map(short),
            write.key,
            write.version,
        );
    }

    /// Checks what clients saw, by key and node; returns the number of operations.
    pub fn check_histories(&self) -> usize {
        let mut count = 0;
        for ((key, node), operations) in &self.histories {
            let others = self.writes.iter().filter(|w| w.key == *key && w.node != Some(*node));
            let elsewhere: Vec<_> = others
                .map(|w| Elsewhere { version: w.version, gone: w.made.is_none(), from: w.from })
                .collect();
            count += operations.len();
            if let Err(violation) = linear::check(operations, &elsewhere) {
                panic!("{}", self.story(key, *node, &violation));
            }
        }
        count
    }

    /// The events on the key around the violation.
    fn story(&self, key: &str, node: Uuid, violation: &linear::Violation) -> String {
        let mut story = format!(
            "seed {}: {key} on {}: {}\nshown by\n",
            self.seed,
            self.name(node),
            violation.why
        );
        let line = |story: &mut String, name: &str, op: &Operation| {
            let _ =
                writeln!(story, "  {:>11.6?} to {:>11.6?}  {name}  {}", op.from, op.to, op.told);
        };
        for operation in &violation.shown_by {
            line(&mut story, "", operation);
        }
        let from = violation.shown_by.iter().map(|op| op.from).min().unwrap_or_default();
        let to = violation.shown_by.iter().map(|op| op.to).max().unwrap_or_default();
        let mut meanwhile: Vec<_> = self
            .histories
            .iter()
            .filter(|((other, _), _)| other == key)
            .flat_map(|((_, node), operations)| operations.iter().map(|op| (*node, op)))
            .filter(|(_, op)| op.to >= from && op.from <= to)
            .collect();
        meanwhile.sort_by_key(|(_, op)| op.from);
        story.push_str("meanwhile on all nodes\n");
        for (node, operation) in meanwhile.iter().take(STORY_LINES_MAX) {
            let name = self.origins.get(node).map_or("?", |origin| origin.name.as_str());
            line(&mut story, name, operation);
        }
        if meanwhile.len() > STORY_LINES_MAX {
            let _ = writeln!(story, "  and {} more", meanwhile.len() - STORY_LINES_MAX);
        }
        story
    }

    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<_> = self.writes.iter().map(|write| write.key.clone()).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// The number of acknowledged writes and of writes with unknown outcome.
    pub fn counts(&self) -> (usize, usize) {
        let acknowledged = self.writes.iter().filter(|write| write.node.is_some()).count();
        (acknowledged, self.writes.len() - acknowledged)
    }

    /// Checks what all nodes hold at the end.
    pub fn check_end(&mut self, held: &BTreeMap<String, Held>) {
        for key in self.keys() {
            let acknowledged = self.writes.iter().filter(|w| w.key == key && w.node.is_some());
            let sure = acknowledged.filter(|w| !w.may_be_lost);
            let greatest = sure.max_by_key(|w| w.version).map(|w| (w.version, w.node, w.from));
            match held.get(&key) {
                Some((version, made)) => {
                    self.check_written(&key, *version, made.as_ref(), "all at the end");
                    assert!(
                        greatest.is_none_or(|(greatest, ..)| Some(*version) >= greatest),
                        "seed {}: {key} holds {version:?} at the end, lost was {greatest:?}",
                        self.seed,
                    );
                }
                None => {
                    // a delete goes for good once all members are known to hold it
                    let is_over = |w: &&Write| {
                        w.made.is_none()
                            && w.version.is_none_or(|at| {
                                greatest.is_none_or(|(greatest, ..)| Some(at) >= greatest)
                            })
                    };
                    let deletes = self.writes.iter().filter(|w| w.key == key);
                    assert!(
                        greatest.is_none() || deletes.filter(is_over).count() > 0,
                        "seed {}: {key} holds nothing at the end, lost was {greatest:?}",
                        self.seed
                    );
                }
            }
        }
    }
}

fn short(value: &str) -> &str {
    value.trim_end_matches('x')
}

fn told_of(event: &Event) -> String {
    let asked = match &event.asked {
        Asked::Read => "read".to_owned(),
        Asked::Write { made, over, .. } => {
            let what = made.as_deref().map_or("delete".to_owned(), |v| format!("put {}", short(v)));
            match over {
                Over::Anything => what,
                Over::Live => format!("{what} if there"),
                Over::Nothing => format!("{what} if absent"),
                Over::Exactly(uuid) => format!("{what} if {uuid}"),
            }
        }
    };
    let told = match &event.answer {
        Some((_, Told::Wrote { uuid, timestamp, .. })) => format!("done: {timestamp} {uuid}"),
        Some((_, Told::Saw { version, value })) => {
            format!("saw {}: {} {}", short(value), version.timestamp, version.uuid)
        }
        Some((_, Told::SawNothing)) => "saw nothing".to_owned(),
        None => "no answer".to_owned(),
    };
    format!("client {}: {asked}; {told}", event.client)
}
