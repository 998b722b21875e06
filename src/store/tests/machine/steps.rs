//! The steps of a random history, and what they mean in the state that they meet.
//!
//! A step is drawn without knowing the state: it says "the current version" or "the third request
//! that was sent", and becomes a request when it is taken. So any part of a history is a history,
//! and one that fails can be made shorter.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use super::model::{Held, Model, Request, goes_at};
use crate::model::{
    Condition, Content, ContentType, Expected, Header, Key, NodeId, Record, Seen, Tags, Timestamp,
    Version, json,
};
use crate::proto::stability::Floor;
use crate::store::{Change, Lifetime, Operation, Txn, Write};

/// Some of them begin with others.
pub(super) const KEYS: [&str; 6] = ["a", "a/b", "a/b/c", "a/bc", "ab", "z"];

#[derive(Clone, Debug)]
pub(super) enum Step {
    Write {
        key: usize,
        shape: Shape,
        conditions: Vec<Guess>,
        name: Name,
    },
    Txn(Box<Plan>),
    /// A request that was sent before, as it was or altered.
    Retry {
        nth: usize,
        altered: Option<Alteration>,
    },
    Remote(Vec<Remote>),
    /// The floor rises, as another node's is higher.
    Adopt(Aim),
    /// The floor rises to the time of a node that is alone.
    Alone,
    /// Requests and records that are sent at once, for the writer to take as one group.
    Together(Vec<Step>),
    /// The wall clock moves: with time, which does not go back, or because it is set.
    Clock {
        movement: Move,
        passes: bool,
    },
    /// Whether there are other members.
    Others(bool),
    Sweep,
    Reopen {
        history_depth: u32,
        blob_threshold_bytes: usize,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Plan {
    compare: Vec<(usize, Guess)>,
    success: Vec<Act>,
    failure: Vec<Act>,
    name: Name,
    content_bytes_max: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Act {
    Write(usize, Shape),
    Get(usize),
}

/// What is written.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    Put { text: u8, size: usize, json: bool, lifetime: Lifetime },
    Delete,
}

/// The client's uuid.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name {
    None,
    New(u128),
    /// One of few, which others use too.
    Shared(u128),
}

/// A condition, by what it names.
#[derive(Clone, Debug)]
pub(super) enum Guess {
    Uuid(Which),
    Timestamp(Which),
    Version(Which, Which),
    Json(Which),
    Bytes(Which),
    Absent,
    Exists,
    MatchAny,
    Match(Vec<Which>),
    NoneMatchAny,
    NoneMatch(Vec<Which>),
}

/// A record of the key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Which {
    /// The one that is held, dead or alive.
    Current,
    /// One that was met before.
    Earlier(usize),
    /// None that there ever was.
    Never,
}

/// What is different about a request under the same uuid.
#[derive(Clone, Copy, Debug)]
pub(super) enum Alteration {
    Bytes,
    ContentType,
    Lifetime,
    Conditions,
    Kind,
    Key,
}

/// A record from a peer.
#[derive(Clone, Debug)]
pub(super) enum Remote {
    New {
        key: usize,
        when: When,
        node: u128,
        name: Name,
        shape: Shape,
        swept: bool,
        knows: Knows,
    },
    /// The same version as the current one, with another content.
    Clone {
        key: usize,
        text: u8,
    },
    /// One that was met before, perhaps without its bytes.
    Again {
        key: usize,
        nth: usize,
        swept: bool,
    },
}

/// What a write of another node knows of the one that is held.
#[derive(Clone, Copy, Debug)]
pub(super) enum Knows {
    All,
    Nothing,
    /// Many others, so that its list was cut.
    Many,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    FromNow(i64),
    FromCurrent(i64),
}

/// A floor, in microseconds after what it is aimed at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Aim {
    Now(i64),
    /// Where the record of a key goes.
    Passing(usize, i64),
}

/// A move of the wall clock, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Move {
    By(i64),
    /// To when the record of a key expires.
    ToExpiry(usize, i64),
    /// To when the oldest request is forgotten.
    ToForgotten(i64),
    /// Back from the latest time that was seen by the bound on drift.
    BackByBound(i64),
}

const MS: i64 = 1_000;
const S: i64 = 1_000_000;

// --- drawing -------------------------------------------------------------------------------------

/// A history drawn from a seed.
pub(super) fn draw(seed: u64) -> Vec<Step> {
    let mut rng = StdRng::seed_from_u64(seed);
    let steps = rng.random_range(20..300);
    (0..steps).map(|_| step(&mut rng)).collect()
}

fn one<T: Clone>(rng: &mut StdRng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())].clone()
}

fn key(rng: &mut StdRng) -> usize {
    // one key is busier than the others
    if rng.random_range(0..3) == 0 { 0 } else { rng.random_range(0..KEYS.len()) }
}

fn step(rng: &mut StdRng) -> Step {
    match rng.random_range(0..100) {
        0..6 => Step::Together((0..rng.random_range(2..6)).map(|_| request(rng)).collect()),
        6..77 => request(rng),
        77..91 => Step::Clock { movement: movement(rng), passes: rng.random_range(0..4) > 0 },
        91..92 => Step::Others(rng.random_range(0..3) == 0),
        92..96 => Step::Sweep,
        96..98 => Step::Alone,
        _ => Step::Reopen {
            history_depth: one(rng, &[3, 3, 3, 1, 0, 8]),
            blob_threshold_bytes: one(rng, &[64, 64, 0, 1000]),
        },
    }
}

fn request(rng: &mut StdRng) -> Step {
    match rng.random_range(0..79) {
        77.. => Step::Adopt(match rng.random_range(0..3) {
            0 => Aim::Now(one(rng, &[-300 * S, -S, 0, S])),
            _ => Aim::Passing(key(rng), one(rng, &[-1, 0, 0, 0, 1])),
        }),
        0..38 => Step::Write {
            key: key(rng),
            shape: shape(rng),
            conditions: guesses(rng),
            name: name(rng),
        },
        38..52 => Step::Txn(Box::new(plan(rng))),
        52..64 => Step::Retry {
            nth: rng.random_range(0..1000),
            altered: (rng.random_range(0..3) == 0).then(|| alteration(rng)),
        },
        _ => Step::Remote((0..rng.random_range(1..4)).map(|_| remote(rng)).collect()),
    }
}

fn shape(rng: &mut StdRng) -> Shape {
    if rng.random_range(0..4) == 0 {
        return Shape::Delete;
    }
    let size = match rng.random_range(0..40) {
        // too large to be shown with a refusal
        0 => 70_000,
        n => one(rng, &[0, 7, 63, 64, 65, 300][..=n % 6]),
    };
    Shape::Put {
        text: rng.random_range(0..3),
        size,
        json: rng.random_range(0..2) == 0,
        lifetime: lifetime(rng),
    }
}

fn lifetime(rng: &mut StdRng) -> Lifetime {
    let spans = [1, 1000, 30_000, 60_000, 90_000, 36_500 * 86_400_000];
    match rng.random_range(0..10) {
        0..4 => Lifetime::Unbounded,
        4..6 => Lifetime::Keep,
        _ => Lifetime::For(Duration::from_millis(one(rng, &spans))),
    }
}

fn guesses(rng: &mut StdRng) -> Vec<Guess> {
    let count = one(rng, &[0, 0, 0, 0, 0, 1, 1, 1, 1, 2]);
    (0..count).map(|_| guess(rng)).collect()
}

fn guess(rng: &mut StdRng) -> Guess {
    let list = |rng: &mut StdRng| (0..rng.random_range(0..4)).map(|_| which(rng)).collect();
    match rng.random_range(0..13) {
        0..2 => Guess::Uuid(which(rng)),
        2..4 => Guess::Timestamp(which(rng)),
        4 => Guess::Version(which(rng), which(rng)),
        5 => Guess::Json(which(rng)),
        6 => Guess::Bytes(which(rng)),
        7 => Guess::Absent,
        8 => Guess::Exists,
        9 => Guess::MatchAny,
        10 => Guess::Match(list(rng)),
        11 => Guess::NoneMatchAny,
        _ => Guess::NoneMatch(list(rng)),
    }
}

fn which(rng: &mut StdRng) -> Which {
    match rng.random_range(0..10) {
        0..7 => Which::Current,
        7..9 => Which::Earlier(rng.random_range(0..1000)),
        _ => Which::Never,
    }
}

fn name(rng: &mut StdRng) -> Name {
    match rng.random_range(0..10) {
        0..5 => Name::None,
        5..8 => Name::New(rng.random()),
        _ => Name::Shared(rng.random_range(0..4)),
    }
}

fn plan(rng: &mut StdRng) -> Plan {
    let compares = rng.random_range(0..4);
    Plan {
        compare: (0..compares).map(|_| (key(rng), guess(rng))).collect(),
        success: acts(rng),
        failure: acts(rng),
        name: name(rng),
        content_bytes_max: one(rng, &[1 << 20, 1 << 20, 1 << 20, 1 << 20, 100, 0]),
    }
}

/// Operations that write each key at most once and read any as often as they like.
fn acts(rng: &mut StdRng) -> Vec<Act> {
    let mut written = Vec::new();
    let mut acts = Vec::new();
    for _ in 0..rng.random_range(0..7) {
        let key = key(rng);
        if rng.random_range(0..3) == 0 || written.contains(&key) {
            acts.push(Act::Get(key));
        } else {
            written.push(key);
            acts.push(Act::Write(key, shape(rng)));
        }
    }
    acts
}

fn alteration(rng: &mut StdRng) -> Alteration {
    use Alteration as A;
    one(rng, &[A::Bytes, A::ContentType, A::Lifetime, A::Conditions, A::Kind, A::Key])
}

fn remote(rng: &mut StdRng) -> Remote {
    let key = key(rng);
    match rng.random_range(0..10) {
        0..6 => Remote::New {
            key,
            when: match rng.random_range(0..2) {
                0 => When::FromCurrent(one(rng, &[-1, 0, 0, 0, 1])),
                _ => When::FromNow(one(rng, &[-300 * S, -S, 0, S, 60 * S, 60 * S, 90 * S])),
            },
            node: rng.random_range(0..4),
            name: match rng.random_range(0..2) {
                0 => Name::New(rng.random()),
                _ => Name::Shared(rng.random_range(0..4)),
            },
            shape: shape(rng),
            swept: rng.random_range(0..4) == 0,
            knows: one(rng, &[Knows::All, Knows::Nothing, Knows::Nothing, Knows::Many]),
        },
        6 => Remote::Clone { key, text: rng.random_range(0..3) },
        _ => Remote::Again {
            key,
            nth: rng.random_range(0..1000),
            swept: rng.random_range(0..3) == 0,
        },
    }
}

fn movement(rng: &mut StdRng) -> Move {
    let near = one(rng, &[-1, 0, 0, 1]);
    match rng.random_range(0..20) {
        0..8 => Move::By(one(rng, &[1, MS, S, 30 * S, 61 * S, 660 * S, 660 * S])),
        8..11 => Move::By(-one(rng, &[1, MS, S, 30 * S])),
        11..17 => Move::ToExpiry(key(rng), near),
        17..19 => Move::BackByBound(near),
        _ => Move::ToForgotten(near),
    }
}

// --- taking --------------------------------------------------------------------------------------

pub(super) fn key_at(index: usize) -> Key {
    Key::parse(KEYS[index]).unwrap()
}

/// What was met so far: the records of each key, whether they won or not, and what was sent.
#[derive(Default)]
pub(super) struct Met {
    records: Vec<Vec<Record>>,
    pub requests: Vec<Request>,
}

impl Met {
    pub(super) fn new() -> Self {
        Self { records: vec![Vec::new(); KEYS.len()], requests: Vec::new() }
    }

    /// Notes what `model` holds and what came from a peer.
    pub(super) fn note(&mut self, model: &Model, remote: &[(Key, Record)]) {
        for (index, met) in self.records.iter_mut().enumerate() {
            let key = key_at(index);
            let came = remote.iter().filter(|(at, _)| *at == key).map(|(_, record)| record);
            let held = model.records.get(&key).map(|held| &held.record);
            for record in held.into_iter().chain(came) {
                if !met.iter().any(|other| other.header == record.header) {
                    met.push(record.clone());
                }
            }
        }
    }

    pub(super) fn knows(&self, uuid: Uuid) -> bool {
        self.uuids().contains(&uuid)
    }

    /// The uuids of all versions that were met.
    pub(super) fn uuids(&self) -> BTreeSet<Uuid> {
        self.records.iter().flatten().map(|record| record.header.version.uuid).collect()
    }

    fn earlier(&self, key: usize, nth: usize) -> Option<&Record> {
        let met = self.records.get(key)?;
        met.get(nth.checked_rem(met.len())?)
    }

    fn record<'a>(&'a self, model: &'a Model, key: usize, which: Which) -> Option<&'a Record> {
        match which {
            Which::Current => model.records.get(&key_at(key)).map(|held| &held.record),
            Which::Earlier(nth) => self.earlier(key, nth),
            Which::Never => None,
        }
    }

    /// The condition that a guess comes to.
    fn condition(&self, model: &Model, key: usize, guess: &Guess) -> Condition {
        let record = |which: Which| self.record(model, key, which);
        let uuid = |which| record(which).map_or(Uuid::nil(), |r| r.header.version.uuid);
        let timestamp =
            |which| record(which).map_or(Timestamp::ZERO, |r| r.header.version.timestamp);
        let body = |which| record(which).map_or(Bytes::from_static(b"never"), |r| r.body.clone());
        let tags = |list: &[Which]| Tags::These(list.iter().map(|which| uuid(*which)).collect());
        Condition::Expect(match guess {
            Guess::MatchAny => return Condition::Match(Tags::Any),
            Guess::Match(list) => return Condition::Match(tags(list)),
            Guess::NoneMatchAny => return Condition::NoneMatch(Tags::Any),
            Guess::NoneMatch(list) => return Condition::NoneMatch(tags(list)),
            Guess::Uuid(which) => Expected::Uuid(uuid(*which)),
            Guess::Timestamp(which) => Expected::Timestamp(timestamp(*which)),
            Guess::Version(one, other) => {
                Expected::Version { uuid: uuid(*one), timestamp: timestamp(*other) }
            }
            Guess::Json(which) => Expected::Json(other_text(&body(*which))),
            Guess::Bytes(which) => Expected::Bytes(body(*which)),
            Guess::Absent => Expected::Absent,
            Guess::Exists => Expected::Exists,
        })
    }

    pub(super) fn write(
        &self,
        model: &Model,
        key: usize,
        shape: &Shape,
        guesses: &[Guess],
        name: Name,
    ) -> Request {
        let conditions = guesses.iter().map(|guess| self.condition(model, key, guess)).collect();
        Request::Write(Write {
            key: key_at(key),
            change: change(shape),
            conditions,
            uuid: given(name),
        })
    }

    pub(super) fn txn(&self, model: &Model, plan: &Plan) -> Request {
        let operation = |act: &Act| match act {
            Act::Write(key, shape) => Operation::Write(key_at(*key), change(shape)),
            Act::Get(key) => Operation::Get(key_at(*key)),
        };
        let compare = plan.compare.iter();
        Request::Txn(Txn {
            compare: compare
                .map(|(key, guess)| (key_at(*key), self.condition(model, *key, guess)))
                .collect(),
            success: plan.success.iter().map(operation).collect(),
            failure: plan.failure.iter().map(operation).collect(),
            uuid: given(plan.name),
            content_bytes_max: plan.content_bytes_max,
        })
    }

    /// A request that was sent before, or one that differs from it in one thing.
    pub(super) fn retry(&self, nth: usize, altered: Option<Alteration>) -> Option<Request> {
        let request = self.requests.get(nth.checked_rem(self.requests.len())?)?.clone();
        Some(match altered {
            None => request,
            Some(alteration) => alter(request, alteration),
        })
    }

    /// A record as a peer would send it.
    pub(super) fn remote(&self, model: &Model, remote: &Remote) -> Option<(Key, Record)> {
        match remote {
            Remote::New { key, when, node, name, shape, swept, knows } => {
                let mut record = foreign(model, *key, *when, *node, *name, shape);
                record.header.seen = seen(&record.header, *knows);
                Some((key_at(*key), if *swept { stripped(record) } else { record }))
            }
            Remote::Clone { key, text } => {
                let held = self.record(model, *key, Which::Current)?;
                let body = Bytes::from(vec![b'c'; usize::from(*text) * 40]);
                let content = Content::value(ContentType::octet_stream(), &body);
                let header = Header { content, ..held.header.clone() };
                Some((key_at(*key), Record { header, body }))
            }
            Remote::Again { key, nth, swept } => {
                let record = self.earlier(*key, *nth)?.clone();
                Some((key_at(*key), if *swept { stripped(record) } else { record }))
            }
        }
    }
}

/// The same request where it is sent with others: it has a name, so that it is known what of all
/// came of it; and it looks into no value, which is done beforehand and again if that has changed.
pub(super) fn among_others(request: Request, number: u128) -> Request {
    let name = || Uuid::from_u128(0xdef_0000 + number);
    match request {
        Request::Write(mut write) => {
            write.uuid.get_or_insert_with(name);
            write.conditions.retain(|condition| !condition.needs_body());
            Request::Write(write)
        }
        Request::Txn(mut txn) => {
            txn.uuid.get_or_insert_with(name);
            txn.compare.retain(|(_, condition)| !condition.needs_body());
            Request::Txn(txn)
        }
    }
}

/// Another text of the same JSON; of no JSON, one that nothing equals.
fn other_text(body: &[u8]) -> json::Text {
    let value = serde_json::from_slice::<serde_json::Value>(body);
    let text = value.map_or("\"never\"".to_owned(), |value| format!(" {value:#} "));
    json::Text::new(text.into()).unwrap()
}

fn given(name: Name) -> Option<Uuid> {
    match name {
        Name::None => None,
        Name::New(bits) => Some(Uuid::from_u128(bits)),
        Name::Shared(number) => Some(Uuid::from_u128(0xabc0 + number)),
    }
}

fn change(shape: &Shape) -> Change {
    match shape {
        Shape::Delete => Change::Delete,
        Shape::Put { text, size, json, lifetime } => {
            let (content_type, body) = content(*text, *size, *json);
            Change::put(content_type, body, *lifetime)
        }
    }
}

fn content(text: u8, size: usize, json: bool) -> (ContentType, Bytes) {
    let letter = char::from(b'p' + text);
    if json && size >= 7 {
        let text = format!("{{\"v\":{text},\"x\":\"{}\"}}", "x".repeat(size - 7));
        return (ContentType::json(), text.into());
    }
    (ContentType::octet_stream(), letter.to_string().repeat(size).into())
}

fn alter(request: Request, alteration: Alteration) -> Request {
    match request {
        Request::Write(mut write) => {
            match alteration {
                Alteration::Conditions if write.conditions.is_empty() => {
                    write.conditions.push(Condition::Expect(Expected::Exists));
                }
                Alteration::Conditions => drop(write.conditions.pop()),
                Alteration::Key => write.key = key_at(KEYS.len() - 1),
                Alteration::Kind => {
                    // a transaction that does the same
                    return Request::Txn(Txn {
                        compare: Vec::new(),
                        success: vec![Operation::Write(write.key, write.change)],
                        failure: Vec::new(),
                        uuid: write.uuid,
                        content_bytes_max: 0,
                    });
                }
                _ => write.change = altered(write.change, alteration),
            }
            Request::Write(write)
        }
        Request::Txn(mut txn) => {
            let writes = txn.success.iter_mut().find_map(|operation| match operation {
                Operation::Write(key, change) => Some((key, change)),
                Operation::Get(_) => None,
            });
            match (alteration, writes) {
                (Alteration::Kind, Some((key, change))) => {
                    return Request::Write(Write {
                        key: key.clone(),
                        change: change.clone(),
                        conditions: Vec::new(),
                        uuid: txn.uuid,
                    });
                }
                (Alteration::Conditions, _) if !txn.compare.is_empty() => {
                    txn.compare.pop();
                }
                (Alteration::Bytes | Alteration::ContentType | Alteration::Lifetime, Some(it)) => {
                    *it.1 = altered(it.1.clone(), alteration);
                }
                _ => txn.failure.push(Operation::Get(key_at(0))),
            }
            Request::Txn(txn)
        }
    }
}

fn altered(change: Change, alteration: Alteration) -> Change {
    let Change::Put { content, body, lifetime } = change else {
        return Change::put(ContentType::json(), Bytes::from_static(b"1"), Lifetime::Unbounded);
    };
    let Content::Value { content_type, .. } = content else { return Change::Delete };
    match alteration {
        Alteration::Bytes => {
            Change::put(content_type, [b"7", body.as_ref()].concat().into(), lifetime)
        }
        Alteration::ContentType => {
            Change::put(ContentType::parse("text/plain").unwrap(), body, lifetime)
        }
        Alteration::Lifetime if lifetime == Lifetime::Unbounded => {
            Change::put(content_type, body, Lifetime::Keep)
        }
        Alteration::Lifetime => Change::put(content_type, body, Lifetime::Unbounded),
        _ => Change::Delete,
    }
}

/// `at` and `by` microseconds more.
pub(super) fn shifted(at: Timestamp, by: i64) -> Timestamp {
    Timestamp::saturating(at.micros().saturating_add_signed(by))
}

/// A write that another node accepted; node 0 is this one, as it was before its disk was lost.
fn foreign(model: &Model, key: usize, when: When, node: u128, name: Name, shape: &Shape) -> Record {
    let held = model.records.get(&key_at(key)).map(|held: &Held| &held.record.header);
    let timestamp = match (when, held) {
        (When::FromCurrent(by), Some(held)) => shifted(held.version.timestamp, by),
        (When::FromCurrent(by) | When::FromNow(by), _) => shifted(model.now, by),
    };
    let (origin, origin_joined_at) = match node {
        0 => (model.rules.node, model.rules.joined_at),
        // older ones and younger ones
        node => {
            let by = [-S, S, 0][usize::try_from(node).unwrap() % 3];
            (NodeId::from_u128(node), shifted(model.rules.joined_at, by))
        }
    };
    let (content, body, expires_at) = match change(shape) {
        Change::Delete => (Content::Tombstone, Bytes::new(), None),
        Change::Put { content, body, lifetime } => {
            let at = match lifetime {
                Lifetime::Unbounded => None,
                Lifetime::Keep => Some(shifted(model.now, -30 * S)),
                Lifetime::For(span) => Some(timestamp.plus(span)),
            };
            (content, body, at)
        }
    };
    let uuid = given(name).unwrap_or_default();
    let header = Header {
        version: Version { timestamp, origin_joined_at, uuid },
        origin,
        parent: None,
        seen: Seen::after_write(held.map(|held| &held.seen), origin, timestamp),
        expires_at,
        content,
    };
    Record { header, body }
}

/// The list of a write that knows more or less than all of its line.
fn seen(header: &Header, knows: Knows) -> Seen {
    let own =
        |seen: Option<&Seen>| Seen::after_write(seen, header.origin, header.version.timestamp);
    match knows {
        Knows::All => header.seen.clone(),
        Knows::Nothing => own(None),
        Knows::Many => {
            let mut many: Option<Seen> = None;
            for node in 100..117 {
                let at = shifted(header.version.timestamp, -100 * S);
                many = Some(Seen::after_write(many.as_ref(), NodeId::from_u128(node), at));
            }
            own(many.as_ref())
        }
    }
}

/// The record without its bytes, if a node could have swept it.
fn stripped(record: Record) -> Record {
    if record.header.expires_at.is_none() {
        return record;
    }
    Record { body: Bytes::new(), ..record }
}

/// The floor to rise to; never far ahead, or it would end all merges.
pub(super) fn aimed(model: &Model, aim: Aim) -> Floor {
    let at = match aim {
        Aim::Now(by) => shifted(model.now, by),
        Aim::Passing(key, by) => {
            let held = model.records.get(&key_at(key));
            let at = held.and_then(|held| goes_at(&held.record.header));
            shifted(at.unwrap_or(model.now), by)
        }
    };
    Floor(at.min(shifted(model.now, 90 * S)))
}

/// Where the wall clock goes.
pub(super) fn moved(model: &Model, movement: Move) -> Timestamp {
    match movement {
        Move::By(by) => shifted(model.now, by),
        Move::ToExpiry(key, by) => {
            let held = model.records.get(&key_at(key));
            let at = held.and_then(|held| held.record.header.expires_at);
            // not to the end of the longest lives
            let at = at.filter(|at| at.since(model.now) < Duration::from_secs(86_400));
            shifted(at.unwrap_or(model.now), by)
        }
        Move::ToForgotten(by) => {
            let left = model.next_forgotten().map(|at| at.since(model.steady));
            let left = i64::try_from(left.unwrap_or_default().as_micros()).unwrap();
            shifted(model.now, left + by)
        }
        Move::BackByBound(by) => {
            let bound = i64::try_from(model.rules.clock_drift_max.as_micros()).unwrap();
            shifted(model.latest, by - bound)
        }
    }
}
