//! The requests of clients, and what the auditor remembers of each until its outcome is known.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kvs::model::{Condition, Content, Header, Key, NodeId, Timestamp, Version};
use kvs::store::{Change, Lifetime, Operation, OperationResult, Txn, TxnDone, Write, Written};
use uuid::Uuid;

use crate::clock::SimClock;

/// A request of a client.
#[derive(Clone, Debug)]
pub enum Request {
    Write(Write),
    Txn(Txn),
}

/// The answer to an accepted request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Write(Written),
    Txn(TxnDone),
}

/// The records of some keys as a node held them at one moment. Keys without an entry could not be
/// read.
pub type Held = BTreeMap<Key, Option<Header>>;

/// The node that is asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub slot: usize,
    pub origin: NodeId,
    pub joined_at: Timestamp,
}

/// A moment by the clock of one node.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub now: Timestamp,
    /// How far the clock had been set by then.
    pub stepped: Duration,
}

impl Moment {
    pub fn of(clock: &SimClock) -> Self {
        use kvs::clock::Source;
        Self { now: clock.now(), stepped: clock.stepped() }
    }

    /// Whether the clock has shown no less since then, as far as is known.
    pub fn earliest(&self, clock: &SimClock) -> Option<Timestamp> {
        (clock.stepped() == self.stepped).then_some(self.now)
    }
}

/// A write that a request can lead to, and the branch of the transaction that it belongs to.
pub struct Wish<'a> {
    pub key: &'a Key,
    pub change: &'a Change,
    pub branch: bool,
}

impl Request {
    pub fn uuid(&self) -> Option<Uuid> {
        match self {
            Self::Write(write) => write.uuid,
            Self::Txn(txn) => txn.uuid,
        }
    }

    /// All writes that the request can lead to.
    pub fn wishes(&self) -> Vec<Wish<'_>> {
        match self {
            Self::Write(Write { key, change, .. }) => vec![Wish { key, change, branch: true }],
            Self::Txn(txn) => {
                let mut all = wishes_of(&txn.success, true);
                all.extend(wishes_of(&txn.failure, false));
                all
            }
        }
    }

    /// All keys that the request names.
    pub fn keys(&self) -> BTreeSet<Key> {
        match self {
            Self::Write(write) => [write.key.clone()].into(),
            Self::Txn(txn) => {
                let compared = txn.compare.iter().map(|(key, _)| key);
                let done = txn.success.iter().chain(&txn.failure).map(Operation::key);
                compared.chain(done).cloned().collect()
            }
        }
    }

    /// Whether the two requests are equal, word for word.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Write(a), Self::Write(b)) => {
                (&a.key, &a.change, &a.conditions) == (&b.key, &b.change, &b.conditions)
            }
            (Self::Txn(a), Self::Txn(b)) => {
                a.compare == b.compare
                    && are_same(&a.success, &b.success)
                    && are_same(&a.failure, &b.failure)
            }
            _ => false,
        }
    }
}

fn wishes_of(operations: &[Operation], branch: bool) -> Vec<Wish<'_>> {
    let mut wishes = Vec::new();
    for operation in operations {
        if let Operation::Write(key, change) = operation {
            wishes.push(Wish { key, change, branch });
        }
    }
    wishes
}

fn are_same(a: &[Operation], b: &[Operation]) -> bool {
    let is_same = |(a, b): (&Operation, &Operation)| match (a, b) {
        (Operation::Get(a), Operation::Get(b)) => a == b,
        (Operation::Write(a, to_a), Operation::Write(b, to_b)) => a == b && to_a == to_b,
        _ => false,
    };
    a.len() == b.len() && a.iter().zip(b).all(is_same)
}

/// A list of operations in a few words.
pub fn brief(operations: &[Operation]) -> String {
    let brief = |operation: &Operation| match operation {
        Operation::Get(key) => format!("get {key}"),
        Operation::Write(key, Change::Delete) => format!("delete {key}"),
        Operation::Write(key, Change::Put { body, lifetime, .. }) => {
            format!("put {key} {} B {lifetime:?}", body.len())
        }
    };
    operations.iter().map(brief).collect::<Vec<_>>().join(", ")
}

impl Answer {
    /// Whether this is the answer `first` again. Content that the node no longer keeps may be
    /// missing in it.
    pub fn repeats(&self, first: &Self) -> bool {
        let (Self::Txn(again), Self::Txn(first)) = (self, first) else { return self == first };
        let is_again = |(again, first): (&OperationResult, &OperationResult)| match (again, first) {
            (OperationResult::Got(Some(again)), OperationResult::Got(Some(first))) => {
                let is_shown = again.body.is_some() && first.body.is_some();
                again.header == first.header && (!is_shown || again.body == first.body)
            }
            _ => again == first,
        };
        again.failed == first.failed
            && again.results.len() == first.results.len()
            && again.results.iter().zip(&first.results).all(is_again)
    }

    /// The request in a few words; equal texts mean equal requests.
    pub fn brief(&self) -> String {
        let outcome = |outcome: &OperationResult| match outcome {
            OperationResult::Got(Some(entry)) => format!("got {:?}", entry.header.version),
            outcome => format!("{outcome:?}"),
        };
        match self {
            Self::Write(written) => format!("{:?}", written.header.version),
            Self::Txn(done) => {
                let results: Vec<_> = done.results.iter().map(outcome).collect();
                format!("failed {:?}, {}", done.failed, results.join(", "))
            }
        }
    }
}

/// What a change leaves behind.
pub fn content_of(change: &Change) -> Content {
    match change {
        Change::Put { content, .. } => content.clone(),
        Change::Delete => Content::Tombstone,
    }
}

pub fn lifetime_of(change: &Change) -> Lifetime {
    match change {
        Change::Put { lifetime, .. } => *lifetime,
        Change::Delete => Lifetime::Unbounded,
    }
}

/// A request whose writes are not all known yet.
#[derive(Clone)]
pub struct Attempt {
    pub asked: Asked,
    /// How many disks the node had lost.
    pub disk: u32,
    pub request: Request,
    /// What the node held before the request.
    pub before: Held,
    pub began: Moment,
    /// The uuid of its writes: the client's, or that of the first record that it must have written.
    pub uuid: Option<Uuid>,
    /// Whether the uuid is certain: one delete looks like another.
    pub is_sure: bool,
    /// The records seen that it must have written.
    pub pieces: BTreeMap<Key, Version>,
    /// How many clients wait for its answer.
    pub waiting: u32,
    /// Whether a client asked it and got no answer.
    pub is_unknown: bool,
    /// Whether it was asked more than once, so that its answer can be an old one.
    pub was_repeated: bool,
    /// For an acknowledged transaction: the branch taken, when its values were put, and the keys of
    /// which it had nothing to delete.
    pub branch: Option<bool>,
    pub put_at: BTreeMap<Key, Timestamp>,
    pub nothing_at: BTreeSet<Key>,
}

impl Attempt {
    pub fn new(asked: Asked, disk: u32, request: Request, before: Held, began: Moment) -> Self {
        Self {
            asked,
            disk,
            before,
            began,
            uuid: request.uuid(),
            is_sure: request.uuid().is_some(),
            request,
            pieces: BTreeMap::new(),
            waiting: 0,
            is_unknown: false,
            was_repeated: false,
            branch: None,
            put_at: BTreeMap::new(),
            nothing_at: BTreeSet::new(),
        }
    }

    /// Whether its answer can be that to a retry, in which content may be missing.
    pub fn was_asked_before(&self) -> bool {
        self.was_repeated || self.is_unknown
    }

    pub fn is_txn(&self) -> bool {
        matches!(self.request, Request::Txn(_))
    }

    /// The change of this attempt that leaves exactly this behind.
    pub fn wish_for(&self, key: &Key, header: &Header) -> Option<Wish<'_>> {
        let fits = |wish: &Wish<'_>| {
            wish.key == key
                && content_of(wish.change) == header.content
                && self.branch.is_none_or(|branch| branch == wish.branch)
                && match lifetime_of(wish.change) {
                    Lifetime::Unbounded => header.expires_at.is_none(),
                    Lifetime::For(_) => header.expires_at.is_some(),
                    Lifetime::Keep => true,
                }
        };
        let at = self.put_at.get(key);
        let possible = header.origin == self.asked.origin
            && !self.nothing_at.contains(key)
            && at.is_none_or(|at| *at == header.version.timestamp);
        self.request.wishes().into_iter().find(|wish| possible && fits(wish))
    }

    /// Whether it can have written this besides its other writes; with `guessed`, instead of one
    /// that was attributed to it before.
    pub fn can_have_made(&self, key: &Key, header: &Header, guessed: bool) -> bool {
        let is_free = self.uuid.is_none_or(|uuid| uuid == header.version.uuid)
            && !self.pieces.contains_key(key);
        (is_free || (guessed && !self.is_sure)) && self.wish_for(key, header).is_some()
    }

    /// The branch that was taken, as far as it is known. `header` returns the headers seen.
    pub fn branch_by<'a>(
        &self,
        header: impl Fn(&Key, &Version) -> Option<&'a Header>,
    ) -> Option<bool> {
        let by = |(key, version): (&Key, &Version)| {
            let header = header(key, version)?;
            let is_value = header.content != Content::Tombstone;
            let wish = self.wish_for(key, header).filter(|_| is_value)?;
            Some(wish.branch)
        };
        self.branch.or_else(|| self.pieces.iter().find_map(by))
    }
}

/// Whether an expectation holds for a live value, or for none. `json` returns the bytes of a value
/// that is JSON by their hash.
pub fn holds<'a>(
    condition: &Condition,
    live: Option<&Header>,
    json: impl Fn(&[u8; 32]) -> Option<&'a bytes::Bytes>,
) -> bool {
    use kvs::model::Expected;
    let Condition::Expect(expected) = condition else { unreachable!("no client asks for it") };
    let Some(live) = live else { return matches!(expected, Expected::Absent) };
    let Content::Value { size, hash, .. } = &live.content else { unreachable!("it is live") };
    let version = &live.version;
    match expected {
        Expected::Uuid(uuid) => version.uuid == *uuid,
        Expected::Timestamp(timestamp) => version.timestamp == *timestamp,
        Expected::Version { uuid, timestamp } => {
            version.uuid == *uuid && version.timestamp == *timestamp
        }
        Expected::Json(text) => json(hash).is_some_and(|bytes| text.equals(bytes)),
        Expected::Bytes(bytes) => {
            *size == bytes.len() as u64 && blake3::hash(bytes).as_bytes() == hash
        }
        Expected::Absent => false,
        Expected::Exists => true,
    }
}
