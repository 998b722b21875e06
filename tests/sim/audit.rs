//! The auditor: stands outside of the nodes, knows every request, and checks what nodes show and
//! answer against the promises.
//!
//! - A node shows only what a client asked some node to write, with the bytes of that request, and
//!   made as often as it was asked.
//! - A node never forgets what it acknowledged or showed once: what it holds for a key only grows
//!   in the order of versions, over any number of crashes, as long as its disk is the same.
//! - A write knows what it replaced, and no two writes of a node replaced the same record. A swap
//!   replaced what it expected, and was not refused when that was there.
//! - Transactions (`txns`): all or nothing on their node at any time, also after a crash; compares
//!   and reads are of one moment; reads see what the transaction wrote before them.
//! - Retries (`retries`): the same request gets the same answer and writes nothing more; another
//!   request with its request id is refused; the outcome of a request is decided once.
//! - Expiry (`expiry`): no value lives at or after its end by the clock of its node, none dies
//!   before, and none comes back; its header stays.
//! - History (`history`): newest first, without holes, of bounded depth, with the outcome of each
//!   revision.
//! - Superseded writes (`superseded`): from the order in which a node met the versions of each key,
//!   read off its disk, follows which of its clients' writes lost a merge against a write that did
//!   not know them. It reports just these, whole, once, in the commit of the merge, and for ever.
//! - Held records: no node shows a record of another origin that was at no time within the bound of
//!   its clock. While records are held back, the nodes agree on all other keys.
//! - In the end every node holds, for each key, the greatest acknowledged write, or one that beats
//!   it. A lost disk can take with it what no other disk held at that time.
//!
//! Not checked at all: that a request is forgotten after its window.

mod answers;
pub mod asked;
mod expiry;
mod history;
mod records;
mod retries;
mod superseded;
mod txns;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kvs::model::{Content, Header, Key, NodeId, Timestamp, Version};
use kvs::store::{Change, WriteError};
use uuid::Uuid;

use crate::clock::SimClock;
use crate::story::Story;
use asked::{Answer, Asked, Attempt, Held, Moment, Request};
pub use retries::Ticket;
pub use superseded::Replay;

/// The settings of the nodes that the promises depend on.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub clock_drift_max: Duration,
    /// Whether the nodes remember requests with a request id for the whole simulation, whatever
    /// their clocks show.
    pub remembers: bool,
    /// Whether the memory for requests is so small that it can be full.
    pub remembers_little: bool,
    pub history_depth: u32,
}

/// Counts what happened, which proves that something did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that were acknowledged.
    pub acked: u64,
    /// Transactions among them.
    pub txns: u64,
    /// Swaps that succeeded.
    pub swapped: u64,
    /// Retries that got the answer of the first attempt.
    pub repeated: u64,
    /// Requests whose outcome was unknown until a retry showed it.
    pub resolved: u64,
    /// Requests refused because another one had their request id.
    pub mismatched: u64,
    /// Compares and reads of transactions whose result was known before the answer came.
    pub foreseen: u64,
    /// Values seen to be dead because their time had ended.
    pub expired: u64,
    /// How often a client learned that a value had expired.
    pub learned_dead: u64,
    /// Values seen without their bytes, which a sweep had removed.
    pub swept: u64,
    /// Earlier revisions that were checked.
    pub revisions: u64,
}

impl Tally {
    /// The sum of both tallies.
    pub fn and(&self, other: &Self) -> Self {
        Self {
            acked: self.acked + other.acked,
            txns: self.txns + other.txns,
            swapped: self.swapped + other.swapped,
            repeated: self.repeated + other.repeated,
            resolved: self.resolved + other.resolved,
            mismatched: self.mismatched + other.mismatched,
            foreseen: self.foreseen + other.foreseen,
            expired: self.expired + other.expired,
            learned_dead: self.learned_dead + other.learned_dead,
            swept: self.swept + other.swept,
            revisions: self.revisions + other.revisions,
        }
    }
}

/// A record that was seen or acknowledged.
struct Known {
    header: Header,
    /// The attempt that wrote it.
    owner: u64,
    acked: bool,
}

/// All that is known about the requests of clients. A node is named by its `slot`, its place in the
/// plan.
pub struct Audit {
    pub story: Story,
    pub tally: Tally,
    rules: Rules,
    /// The clocks of the nodes, by slot.
    clocks: Vec<Arc<SimClock>>,
    keys: BTreeSet<Key>,
    /// Attempts that can still have written something unseen. Transactions stay, to be found whole.
    attempts: BTreeMap<u64, Attempt>,
    /// Attempts whose outcome no client learned.
    open: BTreeSet<u64>,
    by_uuid: BTreeMap<Uuid, Vec<u64>>,
    next_attempt: u64,
    records: BTreeMap<(Key, Version), Known>,
    versions: BTreeMap<(Key, Uuid), Vec<Version>>,
    /// The values that are JSON, by their hashes.
    json: BTreeMap<[u8; 32], Bytes>,
    /// The greatest version that each node acknowledged or showed.
    floors: BTreeMap<(usize, Key), Version>,
    /// All versions that a node is known to have held on its present disk.
    held: BTreeMap<(usize, Key), BTreeSet<Version>>,
    /// The greatest acknowledged version of each key that some disk has stored.
    greatest: BTreeMap<Key, Version>,
    /// For each replaced record, by the node and the disk on which it was replaced: the version
    /// that replaced it.
    over: BTreeMap<(Key, Option<Uuid>, usize, u32), Version>,
    retries: retries::Retries,
    expiry: expiry::Expiry,
    txns: txns::Txns,
    /// What each node met on its present disk.
    replays: BTreeMap<usize, superseded::Replay>,
    pasts: BTreeMap<usize, superseded::Past>,
    /// What the copies had met that took the place of disks.
    bases: BTreeMap<usize, superseded::Replay>,
    /// The latest known points of the nodes.
    points: BTreeMap<usize, Timestamp>,
    /// The greatest version of each key that the floor of some node has passed.
    collected: BTreeMap<Key, Version>,
    /// How many disks each node has lost.
    disks_lost: BTreeMap<usize, u32>,
}

impl Audit {
    pub fn new(story: Story, clocks: Vec<Arc<SimClock>>, rules: Rules) -> Self {
        Self {
            story,
            tally: Tally::default(),
            rules,
            clocks,
            keys: BTreeSet::new(),
            attempts: BTreeMap::new(),
            open: BTreeSet::new(),
            by_uuid: BTreeMap::new(),
            next_attempt: 0,
            records: BTreeMap::new(),
            versions: BTreeMap::new(),
            json: BTreeMap::new(),
            floors: BTreeMap::new(),
            held: BTreeMap::new(),
            greatest: BTreeMap::new(),
            over: BTreeMap::new(),
            retries: retries::Retries::default(),
            expiry: expiry::Expiry::default(),
            txns: txns::Txns::default(),
            replays: BTreeMap::new(),
            pasts: BTreeMap::new(),
            bases: BTreeMap::new(),
            points: BTreeMap::new(),
            collected: BTreeMap::new(),
            disks_lost: BTreeMap::new(),
        }
    }

    /// Fails the simulation: a promise does not hold.
    pub fn violated(&self, key: Option<&Key>, what: &str) -> ! {
        panic!("VIOLATION: {what}\n{}", self.story.about(key))
    }

    fn disk(&self, slot: usize) -> u32 {
        self.disks_lost.get(&slot).copied().unwrap_or_default()
    }

    /// Notes that a client asks a node, which holds `before`.
    pub fn begins(&mut self, asked: Asked, request: &Request, before: Held) -> Ticket {
        if let Some(ticket) = self.retry(asked, request) {
            return ticket;
        }
        let number = self.attempt(asked, request, before);
        self.begin_named(number);
        Ticket::Attempt(number)
    }

    fn attempt(&mut self, asked: Asked, request: &Request, before: Held) -> u64 {
        let number = self.next_attempt;
        self.next_attempt += 1;
        self.keys.extend(request.keys());
        for wish in request.wishes() {
            if let Change::Put { content: Content::Value { content_type, hash, .. }, body, .. } =
                wish.change
                && content_type.is_json()
            {
                self.json.insert(*hash, body.clone());
            }
        }
        let began = Moment::of(&self.clocks[asked.slot]);
        let disk = self.disk(asked.slot);
        let mut attempt = Attempt::new(asked, disk, request.clone(), before, began);
        attempt.waiting = 1;
        if let Some(uuid) = attempt.uuid {
            self.by_uuid.entry(uuid).or_default().push(number);
        }
        if attempt.is_txn() {
            self.txns.add(asked.slot, number);
        }
        self.attempts.insert(number, attempt);
        self.open.insert(number);
        number
    }

    /// Checks the answer of a node, which holds `after` now.
    pub fn answered(&mut self, ticket: &Ticket, outcome: Result<Answer, WriteError>, after: &Held) {
        match (ticket, outcome) {
            (Ticket::Attempt(number), Ok(answer)) => self.accepted(*number, &answer, after),
            (Ticket::Attempt(_), Err(WriteError::OutcomeUnknown(_))) => {
                self.outcome_unknown(ticket)
            }
            (Ticket::Attempt(number), Err(refusal)) => self.refused(*number, &refusal, after),
            (Ticket::Again { name, first }, outcome) => self.answered_again(name, first, outcome),
            (Ticket::Other { name }, outcome) => self.answered_other(name, outcome),
        }
    }

    /// Notes that no client will learn the outcome of an attempt.
    pub fn outcome_unknown(&mut self, ticket: &Ticket) {
        let Ticket::Attempt(number) = ticket else { return };
        let Some(attempt) = self.attempts.get_mut(number) else { return };
        attempt.waiting = attempt.waiting.saturating_sub(1);
        attempt.is_unknown = true;
        self.retries.is_unheard(*number);
        let text = format!("the outcome of a request on node {} is unknown", attempt.asked.slot);
        let key = attempt.request.keys().pop_first();
        self.story.add(key.as_ref(), text);
    }

    /// Checks what the node at `slot` shows for a key, dead or alive.
    pub fn shown(&mut self, slot: usize, key: &Key, held: Option<&Header>) {
        let floor = self.floors.get(&(slot, key.clone())).copied();
        let floor = floor.filter(|floor| !self.is_set_aside(slot, key, *floor));
        let Some(header) = held else {
            if let Some(floor) = floor
                && self.gone(slot, key) < Some(floor)
            {
                let what = format!("node {slot} has forgotten {floor:?} and shows nothing");
                self.violated(Some(key), &what);
            }
            return;
        };
        self.attribute(key, header);
        if floor.is_some_and(|floor| header.version < floor) {
            let met = self.met(slot, key);
            let what =
                format!("node {slot} went back from {floor:?} to {}{met}", described(header));
            self.violated(Some(key), &what);
        }
        if floor != Some(header.version) {
            self.story.add(Some(key), format!("node {slot} shows {}", described(header)));
            self.floor(slot, key, header.version);
        }
    }

    /// Checks that a record of another node than `node`, which runs at `slot`, is not further ahead
    /// than that node's clock has ever allowed.
    pub fn is_timely(&self, slot: usize, node: NodeId, key: &Key, held: &Header) {
        let latest = self.clocks[slot].latest().plus(self.rules.clock_drift_max);
        if held.origin != node && held.version.timestamp > latest {
            let what = format!("node {slot} shows {}, which it had to hold back", described(held));
            self.violated(Some(key), &what);
        }
    }

    /// Notes that the node at `slot` holds this version of a key, or a greater one.
    fn floor(&mut self, slot: usize, key: &Key, version: Version) {
        // Answers can overtake each other: greater versions may have come before this answer was
        // heard.
        let floor = self.floors.entry((slot, key.clone())).or_insert(version);
        *floor = version.max(*floor);
        self.held.entry((slot, key.clone())).or_default().insert(version);
    }

    /// Notes that the node at `slot` lost its disk, or the unsynced end of it. `survives` returns
    /// the greatest version of a key on all disks as they are now.
    pub fn disk_lost(&mut self, slot: usize, survives: impl Fn(&Key) -> Option<Version>) {
        *self.disks_lost.entry(slot).or_default() += 1;
        self.floors.retain(|(at, _), _| *at != slot);
        self.held.retain(|(at, _), _| *at != slot);
        self.expiry.disk_lost(slot);
        self.txns.disk_lost(slot);
        self.replays.remove(&slot);
        // the commits of a copy are known from there on only
        self.replays.extend(self.bases.get(&slot).map(|base| (slot, base.clone())));
        self.greatest = std::mem::take(&mut self.greatest)
            .into_iter()
            .filter_map(|(key, greatest)| {
                let survives = survives(&key)?.min(greatest);
                Some((key, survives))
            })
            .collect();
    }

    /// The confirmed point of the node at `slot`.
    pub fn took_point(&mut self, slot: usize, point: Timestamp) {
        self.points.insert(slot, point);
    }

    /// Checks the final state: all nodes hold `held` for `key`, and no request is under way.
    pub fn stands_at_the_end(&self, key: &Key, held: Option<&Header>) {
        let Some(greatest) = self.greatest.get(key) else { return };
        if held.is_none() && self.collected.get(key) >= Some(greatest) {
            return;
        }
        if held.is_none_or(|held| held.version < *greatest) {
            let what = format!("the acknowledged {greatest:?} is lost; {held:?} is current");
            self.violated(Some(key), &what);
        }
    }

    /// Whether this version of a key, or a later one that was dead, has left some node.
    pub fn is_collected(&self, key: &Key, version: Version) -> bool {
        self.collected.get(key).is_some_and(|collected| *collected >= version)
    }

    /// All keys that a client asked to write or to read.
    pub fn keys(&self) -> BTreeSet<Key> {
        self.keys.clone()
    }
}

/// A record in a few words.
fn described(header: &Header) -> String {
    let Version { timestamp, uuid, .. } = header.version;
    let what = match &header.content {
        Content::Tombstone => "a delete".to_owned(),
        Content::Value { size, .. } => format!("a value of {size} B"),
    };
    let until = header.expires_at.map_or(String::new(), |at| format!(" until {}", at.micros()));
    let origin = header.origin.to_string();
    let parent = header.parent.map_or("nothing".to_owned(), |parent| parent.to_string());
    let at = timestamp.micros();
    format!("{what}{until} at {at} by {}, {uuid} over {parent}", &origin[..8])
}
