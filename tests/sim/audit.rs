//! The auditor: stands outside of the nodes, knows every write that was asked for, and checks what
//! nodes show against what the promises allow.
//!
//! - A node shows only what a client asked some node to write, with the bytes that were given.
//! - What a node acknowledged, or showed once, it never forgets: what it holds for a key only grows
//!   in the order of versions, over any number of crashes, as long as its disk is the same.
//! - A write knows what it replaced; a swap replaced just the version that it expected, and no
//!   other swap of that version succeeds on that node.
//! - In the end every node holds, for each key, the greatest write that was acknowledged, or one
//!   that beats it. A disk that was lost may take with it what no other disk held by then.
//!
//! **Not yet held**, because the machinery is still to come: a write that lost against one that did
//! not know it is reported (4; it is only counted here), dead records are dropped (3), records of a
//! clock far ahead are held back (6), expiry (3).

use std::collections::{BTreeMap, BTreeSet};

use kvs::model::seen::Knew;
use kvs::model::{Content, Header, Key, NodeId, Version};
use uuid::Uuid;

use crate::story::Story;

/// A write that a client asked for, while nobody was told what became of it.
struct Attempt {
    key: Key,
    slot: usize,
    origin: NodeId,
    content: Content,
    expected: Option<Uuid>,
    /// The version that it must be, as one was seen that nobody else can have made.
    seen_as: Option<Uuid>,
}

/// What became of the writes of clients. A node is named by its place, its `slot`.
pub struct Audit {
    pub story: Story,
    keys: BTreeSet<Key>,
    open: BTreeMap<u64, Attempt>,
    next_attempt: u64,
    acked: BTreeMap<Uuid, (Key, Header)>,
    /// Records that were seen and not acknowledged, and the attempt that made them.
    unacked: BTreeMap<Uuid, (Header, u64)>,
    /// The greatest version that a node acknowledged or showed.
    floors: BTreeMap<(usize, Key), Version>,
    /// The greatest acknowledged version of each key that some disk has kept.
    greatest: BTreeMap<Key, Version>,
    /// Swaps that succeeded: what was swapped, on which node and which disk of it, and by what.
    swapped: BTreeMap<(Uuid, usize, u32), Uuid>,
    /// What was replaced by a write that knew it.
    replaced: BTreeSet<Uuid>,
    /// How many disks each node has lost.
    disks_lost: BTreeMap<usize, u32>,
}

impl Audit {
    pub fn new(story: Story) -> Self {
        Self {
            story,
            keys: BTreeSet::new(),
            open: BTreeMap::new(),
            next_attempt: 0,
            acked: BTreeMap::new(),
            unacked: BTreeMap::new(),
            floors: BTreeMap::new(),
            greatest: BTreeMap::new(),
            swapped: BTreeMap::new(),
            replaced: BTreeSet::new(),
            disks_lost: BTreeMap::new(),
        }
    }

    /// Something was promised and does not hold.
    pub fn violated(&self, key: Option<&Key>, what: &str) -> ! {
        panic!("VIOLATION: {what}\n{}", self.story.about(key))
    }

    /// A client asks the node at `slot`, whose id is `origin`, to write.
    pub fn begins(
        &mut self,
        slot: usize,
        origin: NodeId,
        key: &Key,
        content: Content,
        expected: Option<Uuid>,
    ) -> u64 {
        let number = self.next_attempt;
        self.next_attempt += 1;
        let key = key.clone();
        self.keys.insert(key.clone());
        let attempt = Attempt { key, slot, origin, content, expected, seen_as: None };
        self.open.insert(number, attempt);
        number
    }

    /// The node acknowledged it; `previous` is what it says to have replaced.
    pub fn acknowledged(&mut self, number: u64, header: &Header, previous: Option<Uuid>) {
        let Some(attempt) = self.open.remove(&number) else { return };
        let Attempt { key, slot, .. } = &attempt;
        let version = header.version;
        self.story.tell(Some(key), format!("node {slot} acknowledged {}", told(header)));
        self.settle(number, &attempt, Some(header));
        self.check_ancestry(&attempt, header, previous);
        if let Some(expected) = attempt.expected {
            self.check_swap(&attempt, expected, header, previous);
        }
        // answers may overtake each other: others may have come on top before this one was heard
        let floor = self.floors.entry((*slot, key.clone())).or_insert(version);
        *floor = version.max(*floor);
        let greatest = self.greatest.entry(key.clone()).or_insert(version);
        *greatest = version.max(*greatest);
        self.replaced.extend(header.parent);
        if self.acked.insert(version.uuid, (key.clone(), header.clone())).is_some() {
            self.violated(Some(key), "two acknowledged writes have one uuid");
        }
    }

    fn check_ancestry(&self, attempt: &Attempt, header: &Header, previous: Option<Uuid>) {
        let key = Some(&attempt.key);
        if header.content != attempt.content || header.origin != attempt.origin {
            self.violated(key, "what was acknowledged is not what was asked for");
        }
        if previous.is_some() && previous != header.parent {
            self.violated(key, "the answer names another parent than the record");
        }
        let parent = header.parent.and_then(|parent| self.seen(parent));
        if let Some(parent) = parent {
            if parent.version >= header.version {
                self.violated(key, "a write is not above the one that it replaced");
            }
            let knows_all = parent
                .seen
                .entries()
                .iter()
                .all(|(origin, timestamp)| header.seen.knew(*origin, *timestamp) != Knew::No);
            let knows_parent = header.seen.knew(parent.origin, parent.version.timestamp);
            if !knows_all || knows_parent == Knew::No {
                self.violated(key, "a write does not know what it replaced");
            }
        }
        if header.seen.knew(header.origin, header.version.timestamp) != Knew::Yes {
            self.violated(key, "a write does not know itself");
        }
    }

    fn check_swap(
        &mut self,
        attempt: &Attempt,
        expected: Uuid,
        header: &Header,
        previous: Option<Uuid>,
    ) {
        if previous != Some(expected) {
            self.violated(Some(&attempt.key), "a swap replaced another version than it expected");
        }
        let disk = self.disks_lost.get(&attempt.slot).copied().unwrap_or_default();
        let won = header.version.uuid;
        if self.swapped.insert((expected, attempt.slot, disk), won).is_some() {
            self.violated(Some(&attempt.key), "two swaps of one version succeeded on one node");
        }
    }

    /// The node refused it; `current` is the version that it gave as the reason.
    pub fn refused(&mut self, number: u64, current: Option<Uuid>) {
        let Some(attempt) = self.open.remove(&number) else { return };
        if attempt.expected.is_some() && current == attempt.expected {
            self.violated(Some(&attempt.key), "a swap was refused though its version is current");
        }
        self.settle(number, &attempt, None);
    }

    /// Nobody will be told what became of it.
    pub fn outcome_unknown(&mut self, number: u64) {
        if let Some(attempt) = self.open.get(&number) {
            let text = format!("the outcome of a write on node {} is unknown", attempt.slot);
            self.story.tell(Some(&attempt.key), text);
        }
    }

    /// An attempt was decided. What was taken for it and was another one's must be that one's now.
    fn settle(&mut self, number: u64, attempt: &Attempt, header: Option<&Header>) {
        let version = header.map(|header| header.version.uuid);
        let orphan = attempt.seen_as.filter(|seen_as| version != Some(*seen_as));
        if let Some(version) = version
            && let Some((seen, owner)) = self.unacked.remove(&version)
        {
            if header != Some(&seen) {
                self.violated(Some(&attempt.key), "a record was seen otherwise than acknowledged");
            }
            if owner != number
                && let Some(other) = self.open.get_mut(&owner)
            {
                other.seen_as = None;
            }
        }
        if let Some((seen, _)) = orphan.and_then(|orphan| self.unacked.remove(&orphan)) {
            self.attribute(&attempt.key, &seen);
        }
    }

    /// What is known of the write with this uuid.
    fn seen(&self, uuid: Uuid) -> Option<&Header> {
        let acked = self.acked.get(&uuid).map(|(_, header)| header);
        acked.or_else(|| self.unacked.get(&uuid).map(|(header, _)| header))
    }

    /// Somebody must have asked for what is shown.
    fn attribute(&mut self, key: &Key, header: &Header) {
        let uuid = header.version.uuid;
        if let Some((acked_key, acked)) = self.acked.get(&uuid) {
            if acked_key != key || acked != header {
                self.violated(Some(key), &format!("{} was acknowledged otherwise", told(header)));
            }
        } else if let Some((seen, _)) = self.unacked.get(&uuid) {
            if seen != header {
                self.violated(Some(key), &format!("{} was seen otherwise before", told(header)));
            }
        } else {
            let made_it = |attempt: &Attempt| {
                attempt.seen_as.is_none()
                    && attempt.key == *key
                    && attempt.origin == header.origin
                    && attempt.content == header.content
            };
            let Some((number, attempt)) = self.open.iter_mut().find(|(_, a)| made_it(a)) else {
                self.violated(Some(key), &format!("{} was written by nobody", told(header)))
            };
            attempt.seen_as = Some(uuid);
            self.unacked.insert(uuid, (header.clone(), *number));
        }
    }

    /// The node at `slot` shows this for a key, dead or alive.
    pub fn shown(&mut self, slot: usize, key: &Key, held: Option<&Header>) {
        let floor = self.floors.get(&(slot, key.clone())).copied();
        let Some(header) = held else {
            if let Some(floor) = floor {
                let what = format!("node {slot} has forgotten {floor:?} and shows nothing");
                self.violated(Some(key), &what);
            }
            return;
        };
        self.attribute(key, header);
        if floor.is_some_and(|floor| header.version < floor) {
            let what = format!("node {slot} went back from {floor:?} to {}", told(header));
            self.violated(Some(key), &what);
        }
        if floor != Some(header.version) {
            self.story.tell(Some(key), format!("node {slot} shows {}", told(header)));
            self.floors.insert((slot, key.clone()), header.version);
        }
    }

    /// The node at `slot` lost its disk, or the end of what was written there; `survives` gives the
    /// greatest version of a key on all disks as they are now.
    pub fn disk_lost(&mut self, slot: usize, survives: impl Fn(&Key) -> Option<Version>) {
        *self.disks_lost.entry(slot).or_default() += 1;
        self.floors.retain(|(at, _), _| *at != slot);
        self.greatest = std::mem::take(&mut self.greatest)
            .into_iter()
            .filter_map(|(key, greatest)| {
                let survives = survives(&key)?.min(greatest);
                Some((key, survives))
            })
            .collect();
    }

    /// All nodes hold `held` for `key`, and nothing is under way.
    pub fn stands_at_the_end(&self, key: &Key, held: Option<&Header>) {
        let Some(greatest) = self.greatest.get(key) else { return };
        if held.is_none_or(|held| held.version < *greatest) {
            let what = format!("{greatest:?} was acknowledged and lost; {held:?} stands");
            self.violated(Some(key), &what);
        }
    }

    pub fn acked(&self) -> u64 {
        self.acked.len() as u64
    }

    /// Every key that somebody asked to write.
    pub fn keys(&self) -> BTreeSet<Key> {
        self.keys.clone()
    }

    /// Acknowledged writes that are not current and that no write that knew them replaced: those
    /// that lost a merge, and that promise 4 will have reported.
    pub fn lost_merges(&self, stands: impl Fn(&Key) -> Option<Uuid>) -> u64 {
        let lost = |(uuid, (key, _)): &(&Uuid, &(Key, Header))| {
            !self.replaced.contains(uuid) && stands(key) != Some(**uuid)
        };
        self.acked.iter().filter(lost).count() as u64
    }
}

/// A record in few words.
fn told(header: &Header) -> String {
    let Version { timestamp, uuid, .. } = header.version;
    let what = match &header.content {
        Content::Tombstone => "a delete".to_owned(),
        Content::Value { size, .. } => format!("a value of {size} B"),
    };
    let origin = header.origin.to_string();
    let parent = header.parent.map_or("nothing".to_owned(), |parent| parent.to_string());
    format!("{what} at {} by {}, {uuid} over {parent}", timestamp.micros(), &origin[..8])
}
