//! Reconcile sessions between an initiator and a responder over real stores, with frames changed,
//! exchanged and made up.
//!
//! Afterwards both stores must hold only authentic records, under a digest that agrees with them,
//! and one honest session must make them equal.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use kvs::clock::{Clock, Source};
use kvs::model::member::Report;
use kvs::model::{Content, HeldBack, Key, NodeId, Record, Seen, Timestamp};
use kvs::proto::digest::Sum;
use kvs::proto::reconcile::{
    Initiator, Replica, Reply, Responder, SessionError, SessionLimits, Step,
};
use kvs::proto::wire::{
    self, Child, CutRange, FRAME_BYTES_MAX, Given, Mode, Range, Request, Response, Wanted,
    WireRecord, Withheld,
};
use kvs::store::engine::{Engine, Family};
use kvs::store::layout::{self, Body, Stored};
use kvs::store::memory::Memory;
use kvs::store::{Settings, Store};
use kvs::telemetry::Metrics;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::ops::ControlFlow;

use super::record;
use super::script::{Pen, Script};

const KEYS_MAX: usize = 120;
/// A session of honest sides over so few records takes far fewer rounds.
const HONEST_ROUNDS_MAX: u64 = 2_000;
/// The most rounds that are changed; after them both sides are left alone.
const CHANGED_ROUNDS_MAX: u64 = 60;
/// Values of at least this size are stored apart: small, as values are small here.
const BLOB_BYTES: usize = 24;

// --- the two sides -------------------------------------------------------------------------------

/// Time that stands still, and entropy from a seed.
pub struct Still(Mutex<StdRng>);

impl Still {
    pub fn clock(seed: u64) -> Clock {
        Clock::from_source(Arc::new(Self(Mutex::new(StdRng::seed_from_u64(seed)))))
    }
}

/// The time that stands still.
fn still() -> Timestamp {
    Timestamp::saturating(1_800_000_000_000_000)
}

impl Source for Still {
    fn now(&self) -> Timestamp {
        still()
    }
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().expect("one thread").fill_bytes(bytes);
    }
}

pub struct Side {
    pub store: Store,
    engine: Arc<Memory>,
}

impl Side {
    /// An empty store whose writer runs on this runtime.
    pub fn new(number: u64) -> Self {
        let settings = Settings {
            blob_threshold_bytes: BLOB_BYTES,
            feed_entries_max: 4,
            feed_bytes_max: 1 << 20,
            superseded_bytes_max: 1 << 20,
            free_bytes_min: 0,
            boot: None,
            digest_key: [5; 32],
            ..Settings::default()
        };
        let engine = Arc::new(Memory::default());
        let (clock, metrics) = (Still::clock(number), Metrics::new());
        let opened = Store::open(engine.clone(), clock, metrics, &settings);
        let (store, writer) = opened.expect("an empty engine");
        tokio::spawn(writer.run(async |_| {}));
        Self { store, engine }
    }

    fn report(&self) -> Report {
        let root = self.store.root();
        let (now, horizon) = (still(), still().plus(Settings::default().clock_drift_max));
        Report { fingerprint: root.fingerprint(), records: root.count, now, horizon, ..report(0) }
    }

    async fn apply(&self, records: Vec<(Key, Record)>) -> HeldBack {
        for (_, record) in &records {
            assert!(
                record.is_whole() || record.is_swept(),
                "what is handed out to be merged is authentic"
            );
        }
        self.store.apply(records).await.expect("memory does not fail").held
    }

    /// Checks that each stored record matches its hash, and that the digest is that of the records.
    pub fn check(&self) {
        self.store.check_invariants(true);
        let recomputed = self.store.recomputed_fingerprint().expect("readable");
        assert_eq!(self.store.fingerprint(), recomputed, "the digest agrees with the records");
        let mut count = 0;
        let visit = &mut |key: &[u8], bytes: &[u8]| {
            let entry = layout::decode_summary(key, bytes).expect("an entry");
            assert_eq!(entry.header.hash(), entry.hash, "the hash is that of the header");
            let key = Key::from_bytes(key).expect("a key");
            let record = self.store.record_now(&key).expect("readable").expect("it is there");
            assert!(record.is_whole(), "the bytes of {key} match their hash");
            count += 1;
            ControlFlow::Continue(())
        };
        self.engine.scan(Family::Records, &[], None, visit).expect("memory does not fail");
        let counts = self.store.counts();
        assert_eq!(counts.keys + counts.tombstones, count);
        assert_eq!(self.store.root().count, count);
        // A value stored apart belongs to a record or to a revision of one.
        let mut owned = BTreeSet::new();
        for (family, behind_key) in [(Family::Records, 0), (Family::History, 9)] {
            let visit = &mut |at: &[u8], bytes: &[u8]| {
                let key = Key::from_bytes(&at[..at.len() - behind_key]).expect("a key");
                let entry = Stored::decode_for(at, &Bytes::copy_from_slice(bytes));
                let entry = entry.expect("an entry");
                if entry.body == Body::Apart {
                    assert!(entry.header.content.size() >= BLOB_BYTES as u64);
                    owned.insert(layout::blob_key(&key, &entry.hash));
                }
                ControlFlow::Continue(())
            };
            self.engine.scan(family, &[], None, visit).expect("memory does not fail");
        }
        let mut values = BTreeSet::new();
        let visit = &mut |at: &[u8], _: &[u8]| {
            values.insert(at.to_vec());
            ControlFlow::Continue(())
        };
        self.engine.scan(Family::Values, &[], None, visit).expect("memory does not fail");
        assert_eq!(values, owned, "no value is left behind, and none is missing");
    }
}

pub fn report(records: u64) -> Report {
    let (now, horizon) = (Timestamp::saturating(5), Timestamp::MAX);
    let (syncing, holds_through) = (false, None);
    Report { fingerprint: [7; 32], records, syncing, now, holds_through, horizon }
}

pub fn withheld(number: usize) -> Withheld {
    let (timestamp, due) = (Timestamp::saturating(7), Timestamp::saturating(9));
    Withheld { key: key(number), timestamp, due }
}

fn key(number: usize) -> Key {
    Key::parse(&format!("k/{number:04}")).expect("a key")
}

fn record(number: usize, version: u64, node: u8, size: usize) -> Record {
    let WireRecord { mut header, .. } = record::sample(b"");
    let body = match size {
        0 => Bytes::new(),
        size => Bytes::from(format!("{number}-{version}-").repeat(size)),
    };
    header.version.timestamp = Timestamp::saturating(version);
    header.origin = NodeId::from_u128(node.into());
    header.seen = Seen::after_write(None, header.origin, header.version.timestamp);
    header.content = match (size, &header.content) {
        (1.., Content::Value { content_type, .. }) => Content::value(content_type.clone(), &body),
        _ => Content::Tombstone,
    };
    Record { header, body }
}

/// Fills both sides with equal records, and each with some in other versions or alone.
async fn fill(script: &mut Script<'_>, a: &Side, b: &Side) {
    let (same, size) = (script.below(KEYS_MAX), script.below(6));
    let both: Vec<_> = (0..same).map(|n| (key(n), record(n, 1, 1, size))).collect();
    a.apply(both.clone()).await;
    b.apply(both).await;
    for _ in 0..script.byte() % 64 {
        if script.is_over() {
            break;
        }
        let (n, version, size) = (script.below(KEYS_MAX), script.byte(), script.below(6));
        let record = |node| record(n, 1 + u64::from(version % 3), node, size);
        if version & 4 == 0 {
            a.apply(vec![(key(n), record(2))]).await;
        }
        if version & 8 == 0 {
            b.apply(vec![(key(n), record(3 - (version >> 7)))]).await;
        }
    }
}

// --- the session ---------------------------------------------------------------------------------

const SIZES: [SessionLimits; 3] = [
    SessionLimits {
        listed_max: 2,
        children_max: 4,
        ranges_max: 3,
        ids_max: 5,
        records_bytes_max: 900,
    },
    SessionLimits {
        listed_max: 8,
        children_max: 2,
        ranges_max: 1,
        ids_max: 64,
        records_bytes_max: 1,
    },
    SessionLimits::STANDARD,
];

/// How a session ended: at its end, or because a side refused to go on.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Done,
    Refused,
}

struct Session<'a> {
    initiator: &'a Side,
    responder: &'a Side,
    initiator_limits: SessionLimits,
    responder_limits: SessionLimits,
}

impl Session<'_> {
    /// Runs to the end. As long as `script` lasts, it changes messages and frames.
    async fn run(&self, script: &mut Script<'_>) -> End {
        let mut initiator = Initiator::new(self.initiator_limits);
        loop {
            let step = initiator.poll(&self.initiator.store, self.initiator.report());
            let mut request = match step {
                Ok(Step::Apply(records)) => {
                    initiator.hold(self.initiator.apply(records).await);
                    continue;
                }
                Ok(Step::Surplus(_)) => unreachable!("this side gives"),
                Ok(Step::Done(_)) => return End::Done,
                Ok(Step::Send(request)) => request,
                Err(error) => return refused(&error),
            };
            let rounds = initiator.tally().rounds;
            let most = HONEST_ROUNDS_MAX + CHANGED_ROUNDS_MAX;
            assert!(rounds <= most, "the session does not end");
            let changing = rounds <= CHANGED_ROUNDS_MAX && !script.is_over();
            if changing && script.byte() % 4 == 3 {
                change_request(script, &mut request);
            }
            let frame = frame(&request);
            let Some(request) = changed(script, changing, &frame) else { return End::Refused };
            let Some(mut response) = self.answer(request).await else { return End::Refused };
            if changing {
                change_response(script, &mut response);
            }
            let frame = frame_of_response(&response, changing);
            let Some(response) = changed(script, changing, &frame) else { return End::Refused };
            if let Err(error) = initiator.handle(&self.initiator.store, response) {
                return refused(&error);
            }
        }
    }

    async fn answer(&self, request: Request) -> Option<Response> {
        let responder = Responder {
            report: self.responder.report(),
            busy: false,
            peer_horizon: self.initiator.report().horizon,
            limits: self.responder_limits,
        };
        responder.check_invariants();
        match responder.respond(request, &self.responder.store) {
            Ok(Reply::Answer(response)) => Some(response),
            Ok(Reply::Apply(records)) => {
                let held = self.responder.apply(records).await;
                Some(Response::Taken(held))
            }
            Err(error) => {
                refused(&error);
                None
            }
        }
    }
}

/// Memory does not fail, so only messages of the other side end a session early.
fn refused<E: std::fmt::Debug + std::error::Error>(error: &SessionError<E>) -> End {
    assert!(!matches!(error, SessionError::Store(_)), "{error:?}");
    End::Refused
}

fn frame(request: &Request) -> Vec<u8> {
    let frame = wire::encode(request);
    assert!(frame.len() <= FRAME_BYTES_MAX);
    frame
}

fn frame_of_response(response: &Response, changed: bool) -> Vec<u8> {
    let frame = wire::encode(response);
    assert!(changed || frame.len() <= FRAME_BYTES_MAX);
    frame
}

/// The message in the frame, of which one byte can be changed.
fn changed<T: serde::de::DeserializeOwned>(
    script: &mut Script<'_>,
    changing: bool,
    frame: &[u8],
) -> Option<T> {
    let mut frame = frame.to_vec();
    if changing && script.byte() >= 240 {
        let at = script.below(frame.len().max(1));
        frame[at] ^= script.byte();
        return wire::decode(&frame).ok();
    }
    Some(wire::decode(&frame).expect("what was encoded is decoded"))
}

// --- changes -------------------------------------------------------------------------------------

fn range(script: &mut Script<'_>) -> Range {
    let end = |script: &mut Script<'_>| match script.byte() % 4 {
        0 => Bytes::new(),
        1 => Bytes::copy_from_slice(script.bytes()),
        _ => Bytes::copy_from_slice(key(script.below(KEYS_MAX)).as_bytes()),
    };
    let from = end(script);
    let to = (!script.byte().is_multiple_of(3)).then(|| end(script));
    Range { from, to }
}

fn ids(script: &mut Script<'_>) -> Vec<[u8; 8]> {
    (0..script.byte() % 8).map(|_| script.number(8).to_le_bytes()).collect()
}

/// A record, authentic or not: any node can write one, but none whose body does not match its hash.
fn any_record(script: &mut Script<'_>) -> WireRecord {
    let (n, version) = (script.below(KEYS_MAX), 1 + u64::from(script.byte() % 5));
    let (node, size) = (script.byte() % 4, script.below(6));
    let mut record = WireRecord::new(key(n), record(n, version, node, size));
    match script.byte() % 8 {
        0 => record.body = Bytes::copy_from_slice(script.bytes()),
        1 => record.header.content = Content::Tombstone,
        2 => record.header.version.timestamp = Timestamp::MAX,
        3 => record.key = Key::parse(&script.text()).unwrap_or(record.key),
        4 => record.header.expires_at = Some(Timestamp::saturating(script.number(8))),
        _ => {}
    }
    record
}

/// A record that is left out, as it is said.
fn any_withheld(script: &mut Script<'_>) -> Withheld {
    let times = [Timestamp::ZERO, Timestamp::saturating(2), still(), Timestamp::MAX];
    let (timestamp, due) = (script.pick(&times), script.pick(&times));
    Withheld { key: key(script.below(KEYS_MAX)), timestamp, due }
}

fn change_request(script: &mut Script<'_>, request: &mut Request) {
    *request = match script.byte() % 5 {
        0 => Request::Begin { report: report(script.number(8)), root: Sum::default() },
        1 => Request::Cut((0..script.byte() % 6).map(|_| (range(script), script.byte())).collect()),
        2 => Request::Want(
            (0..script.byte() % 6)
                .map(|_| {
                    let mode = script.pick(&[Mode::Only, Mode::AllBut, Mode::AllButAgain]);
                    let withheld = (0..script.byte() % 3).map(|_| any_withheld(script));
                    let withheld = withheld.collect();
                    Wanted { range: range(script), ids: ids(script), mode, withheld }
                })
                .collect(),
        ),
        3 => Request::Give((0..script.byte() % 6).map(|_| any_record(script)).collect()),
        _ => Request::End { report: report(0), held: HeldBack::default() },
    };
}

fn any_cut(script: &mut Script<'_>) -> CutRange {
    if script.byte().is_multiple_of(2) {
        return CutRange::Ids(ids(script));
    }
    let child = |script: &mut Script<'_>| Child {
        short: script.number(4) as u32,
        count: script.number(8),
        low: [script.byte(); 16],
    };
    let level = script.byte();
    CutRange::Children { level, children: (0..script.byte() % 8).map(|_| child(script)).collect() }
}

fn change_cut(script: &mut Script<'_>, cut: &mut CutRange) {
    match (script.byte() % 6, &mut *cut) {
        (0, CutRange::Children { level, .. }) => *level = script.byte(),
        (1, CutRange::Children { children, .. }) if !children.is_empty() => {
            let at = script.below(children.len());
            children[at].count = script.number(8);
        }
        (2, CutRange::Children { children, .. }) => drop(children.pop()),
        (3, CutRange::Children { children, .. }) => children.reverse(),
        (4, CutRange::Children { children, .. }) if !children.is_empty() => {
            let at = script.below(children.len());
            children[at].short = children[0].short;
        }
        (0, CutRange::Ids(ids)) => drop(ids.pop()),
        (1, CutRange::Ids(ids)) => ids.extend(self::ids(script)),
        (2, CutRange::Ids(ids)) => ids.extend(ids.clone()),
        _ => *cut = any_cut(script),
    }
}

fn change_given(script: &mut Script<'_>, given: &mut Given) {
    match script.byte() % 9 {
        8 => given.withheld.push(any_withheld(script)),
        0 => drop(given.records.pop()),
        1 => given.records.push(any_record(script)),
        2 => given.records.reverse(),
        3 => given.unknown.push(script.number(4) as u32),
        4 => given.unknown = (0..u32::from(script.byte())).collect(),
        5 => given.resume = Some(range(script).from),
        6 => given.resume = None,
        _ => {
            let at = script.below(given.records.len().max(1));
            if let Some(record) = given.records.get_mut(at) {
                record.body = Bytes::copy_from_slice(script.bytes());
            }
        }
    }
}

fn change_response(script: &mut Script<'_>, response: &mut Response) {
    match (script.byte() % 8, &mut *response) {
        (0..3, _) => {}
        (3, _) => {
            *response = match script.byte() % 8 {
                0 => Response::Begun { report: report(0), root: Sum::default() },
                1 => Response::Pieces((0..script.byte() % 4).map(|_| any_cut(script)).collect()),
                2 => Response::Given(
                    (0..script.byte() % 4)
                        .map(|_| Given {
                            records: (0..script.byte() % 4).map(|_| any_record(script)).collect(),
                            unknown: vec![script.byte().into()],
                            withheld: Vec::new(),
                            resume: (script.byte() % 2 == 1).then(|| range(script).from),
                        })
                        .collect(),
                ),
                3 => Response::Taken(HeldBack { records: 1, until: still() }),
                4 => Response::Ended(report(0)),
                5 => Response::Failed(script.text()),
                6 => Response::Paused(script.text()),
                _ => Response::Busy,
            }
        }
        (4, Response::Begun { root, .. }) => {
            // Any sum, also of more records than there can be.
            let mut bytes = wire::encode(root);
            let at = script.below(bytes.len());
            bytes[at] ^= script.byte();
            *root = wire::decode(&bytes).unwrap_or_default();
        }
        (_, Response::Pieces(pieces)) if !pieces.is_empty() => {
            let at = script.below(pieces.len());
            change_cut(script, &mut pieces[at]);
        }
        (7, Response::Given(given)) => drop(given.pop()),
        (_, Response::Given(given)) if !given.is_empty() => {
            let at = script.below(given.len());
            change_given(script, &mut given[at]);
        }
        _ => {}
    }
}

// --- the target ----------------------------------------------------------------------------------

pub fn run(data: &[u8]) {
    super::block_on(async {
        let mut script = Script::new(data);
        let (a, b) = (Side::new(1), Side::new(2));
        let (initiator_limits, responder_limits) = (script.pick(&SIZES), script.pick(&SIZES));
        fill(&mut script, &a, &b).await;
        let session = Session { initiator: &a, responder: &b, initiator_limits, responder_limits };
        let untouched = script.is_over();
        let end = session.run(&mut script).await;
        a.check();
        b.check();
        if untouched {
            assert_eq!(end, End::Done, "nobody disturbed it");
            assert_eq!(a.store.fingerprint(), b.store.fingerprint(), "one session is enough");
        }
        // The next honest session spreads or drops what one side made up, but settles.
        let session = Session { initiator: &b, responder: &a, initiator_limits, responder_limits };
        assert_eq!(session.run(&mut Script::new(&[])).await, End::Done);
        a.check();
        b.check();
        assert_eq!(a.store.fingerprint(), b.store.fingerprint(), "an honest session settles it");
    });
}

pub fn seeds() -> Vec<Vec<u8>> {
    let sides = |limits: u8, same: u8, differing: u8| {
        let pen = Pen::default().byte(limits).byte(limits).byte(same).byte(2).byte(differing);
        (0..differing).fold(pen, |pen, n| pen.byte(n * 7).byte(n * 5).byte(n % 6))
    };
    let disturbed = |limits, bytes: &[u8]| sides(limits, 120, 12).raw(bytes).done();
    vec![
        sides(0, 0, 0).done(),
        sides(0, 200, 1).done(),
        sides(0, 100, 30).done(),
        sides(1, 60, 9).done(),
        sides(2, 250, 30).done(),
        sides(2, 0, 30).done(),
        disturbed(0, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 5, 1, 1]),
        disturbed(0, &[0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 1, 255, 255, 255, 0, 0, 0, 5, 0, 4, 200]),
        disturbed(1, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 5, 1, 3, b'k', b'/', b'0']),
        disturbed(2, &[0, 0, 0, 0, 3, 2, 3, 2, 1, 4, 4, 9, 9, 1, 1, 2, 0, 3, 2, 1, 3, 1]),
        disturbed(2, &[3, 3, 5, 7, 2, 1, 1, 0, 9, 1, 0, 0, 0, 0, 250, 3, 9, 0, 0, 7, 0, 0, 2]),
        disturbed(0, &[3, 1, 5, 1, 2, b'k', b'/', 1, 2, 9, 2, 3, 3, 0, 0, 3, 2, 2, 4, 1, 9, 9, 9]),
    ]
}
