//! Sessions between two maps in memory, compared with their union. A tiny fan-out and tiny limits
//! make every kind of task happen.

mod held;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::ControlFlow;

use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::{
    HeldDifference, Initiator, Listed, Replica, Reply, Responder, SessionError, SessionLimits,
    Step, Tally,
};
use crate::model::member::Report;
use crate::model::{
    Content, ContentType, Header, HeldBack, Key, Merged, NodeId, Record, Seen, Timestamp, Version,
    merge,
};
use crate::proto::digest::{Digest, Element, ElementKey, Piece, Place, ShortId, Sum};
use crate::proto::wire::{self, Request, Response, WireRecord};

const TINY: SessionLimits = SessionLimits {
    listed_max: 2,
    children_max: 4,
    ranges_max: 3,
    ids_max: 5,
    records_bytes_max: 3000,
};

struct Map {
    records: BTreeMap<Key, Record>,
    key: ElementKey,
    digest: Digest,
    /// Keys, elements and sizes in key order, for ranges by bytes.
    sorted: Vec<(Key, Element, u64)>,
    horizon: Timestamp,
}

fn header(timestamp: u64, node: u8, body: &[u8]) -> Header {
    Header {
        version: Version {
            timestamp: Timestamp::saturating(timestamp),
            origin_joined_at: Timestamp::saturating(u64::from(node)),
            uuid: Uuid::from_u128(u128::from(timestamp) << 8 | u128::from(node)),
        },
        origin: NodeId::from_u128(u128::from(node)),
        parent: None,
        seen: Seen::default(),
        expires_at: None,
        content: Content::value(ContentType::octet_stream(), body),
    }
}

impl Map {
    fn new(records: BTreeMap<Key, Record>, level_bits: u32) -> Self {
        Self::of_secret(records, 3, level_bits)
    }

    fn of_secret(records: BTreeMap<Key, Record>, secret: u8, level_bits: u32) -> Self {
        let key = ElementKey::with_level_bits(&[secret; 32], level_bits);
        let digest = Digest::new(key.clone());
        let mut map = Self { records, digest, key, sorted: Vec::new(), horizon: Timestamp::MAX };
        map.rebuild();
        map
    }

    fn rebuild(&mut self) {
        self.digest = Digest::new(self.key.clone());
        self.sorted.clear();
        for (key, record) in &self.records {
            let element = self.key.element(key.as_bytes(), &record.header.hash());
            self.digest.append(key.as_bytes(), &element);
            self.sorted.push((key.clone(), element, record.header.content.size()));
        }
    }

    fn apply(&mut self, records: Vec<(Key, Record)>) -> HeldBack {
        let mut back = HeldBack::default();
        for (key, record) in records {
            let held = self.records.get(&key).map(|held| &held.header);
            let due = record.header.due(record.is_swept());
            match merge(held, &record.header) {
                Merged::Replaced if due > self.horizon => back.add(due),
                Merged::Replaced => drop(self.records.insert(key, record)),
                Merged::Same | Merged::Kept => {}
            }
        }
        self.rebuild();
        back
    }

    fn report(&self) -> Report {
        let root = self.digest.root();
        Report {
            fingerprint: root.fingerprint(),
            records: root.count,
            syncing: false,
            now: Timestamp::ZERO,
            holds_through: None,
            horizon: self.horizon,
        }
    }

    fn inside(&self, from: &[u8], to: Option<&[u8]>) -> &[(Key, Element, u64)] {
        let at = |end: &[u8]| self.sorted.partition_point(|(key, ..)| key.as_bytes() < end);
        let end = to.map_or(self.sorted.len(), at);
        &self.sorted[at(from).min(end)..end]
    }

    fn naive(&self, from: &[u8], to: Option<&[u8]>) -> Sum {
        let mut sum = Sum::default();
        self.inside(from, to).iter().for_each(|(_, element, _)| sum.add(element));
        sum
    }
}

impl Replica for Map {
    type Error = Infallible;
    fn root(&self) -> Sum {
        self.digest.root()
    }
    fn place(&self, key: &[u8]) -> Place {
        self.digest.place(key)
    }
    fn height(&self) -> u8 {
        self.digest.height()
    }
    fn boundaries(&self, level: u8, from: &[u8], to: Option<&[u8]>, most: usize) -> usize {
        self.digest.boundaries(level, from, to, most)
    }
    fn sum(&self, from: &[u8], to: Option<&[u8]>) -> Result<Sum, Infallible> {
        self.digest.sum(from, to, &mut |from, to| Ok(self.naive(from, to)))
    }
    fn pieces(&self, level: u8, from: &[u8], to: Option<&[u8]>) -> Result<Vec<Piece>, Infallible> {
        self.digest.pieces(level, from, to, &mut |from, to| Ok(self.naive(from, to)))
    }
    fn list(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(Listed<'_>) -> ControlFlow<()>,
    ) -> Result<(), Infallible> {
        for (key, element, bytes) in self.inside(from, to) {
            let record = &self.records[key];
            let (header, id) = (&record.header, element.short());
            let (timestamp, due) = (header.version.timestamp, header.due(record.is_swept()));
            let listed = Listed { key: key.as_bytes(), id, bytes: *bytes, timestamp, due };
            if visit(listed) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
    fn record(&self, key: &Key) -> Result<Option<Record>, Infallible> {
        Ok(self.records.get(key).cloned())
    }
    fn id(&self, key: &Key, record: &Record) -> ShortId {
        self.key.element(key.as_bytes(), &record.header.hash()).short()
    }
}

#[derive(Debug, Default)]
struct Traffic {
    bytes: usize,
    rounds: u64,
    tally: Tally,
    held: HeldBack,
    /// What the responder was told of that.
    told: HeldBack,
    difference: Option<HeldDifference>,
    /// The least timestamp that a record which the driver holds back may have.
    held_from: Option<u64>,
    /// What an initiator that gives nothing found to be on its side alone.
    surplus: Vec<Key>,
}

fn responder(map: &Map, busy: bool) -> Responder {
    Responder { report: map.report(), busy, peer_horizon: Timestamp::MAX, limits: TINY }
}

/// Runs a whole session over encoded frames.
fn session(driver: &mut Map, other: &mut Map, limits: SessionLimits) -> Traffic {
    session_between(driver, other, limits, limits)
}

/// Like [`session`], with other limits for the responder.
fn session_between(
    driver: &mut Map,
    other: &mut Map,
    limits: SessionLimits,
    theirs: SessionLimits,
) -> Traffic {
    session_among(driver, other, limits, theirs, &mut |_, _| {})
}

/// Like [`session_between`]; `meanwhile` changes both sides before each request and each response.
fn session_among(
    driver: &mut Map,
    other: &mut Map,
    limits: SessionLimits,
    theirs: SessionLimits,
    meanwhile: &mut dyn FnMut(&mut Map, &mut Map),
) -> Traffic {
    let traffic = drive(driver, other, Initiator::new(limits), (limits, theirs), meanwhile);
    assert!(traffic.surplus.is_empty(), "this side gives");
    traffic
}

fn drive(
    driver: &mut Map,
    other: &mut Map,
    mut initiator: Initiator,
    (limits, theirs): (SessionLimits, SessionLimits),
    meanwhile: &mut dyn FnMut(&mut Map, &mut Map),
) -> Traffic {
    let (mut bytes, mut peer_horizon, mut told) = (0, Timestamp::MAX, HeldBack::default());
    let mut surplus = Vec::new();
    loop {
        meanwhile(driver, other);
        let step = initiator.poll(driver, driver.report()).unwrap();
        let request = match step {
            Step::Apply(records) => {
                initiator.hold(driver.apply(records));
                continue;
            }
            Step::Done(_) => {
                let tally = initiator.tally();
                let (held, difference) = (initiator.held(), initiator.held_difference());
                let rounds = tally.rounds;
                let may_hold = |at: &u64| initiator.holds_back_through(Timestamp::saturating(*at));
                let held_from = (0..20).find(may_hold);
                return Traffic {
                    bytes,
                    rounds,
                    tally,
                    held,
                    told,
                    difference,
                    held_from,
                    surplus,
                };
            }
            Step::Surplus(keys) => {
                surplus.extend(keys);
                continue;
            }
            Step::Send(request) => request,
        };
        assert!(initiator.tally().rounds < 10_000, "the session does not end");
        if let Request::Give(records) = &request {
            assert_fits(records, &limits);
        }
        let frame = wire::encode(&request);
        bytes += frame.len();
        match &request {
            Request::Begin { report, .. } => peer_horizon = report.horizon,
            Request::End { held, .. } => told = *held,
            _ => {}
        }
        let report = other.report();
        let responder = Responder { report, busy: false, peer_horizon, limits: theirs };
        responder.check_invariants();
        let request = wire::decode(&frame).unwrap();
        let response = match responder.respond(request, other).unwrap() {
            Reply::Answer(response) => response,
            Reply::Apply(records) => Response::Taken(other.apply(records)),
        };
        if let Response::Given(given) = &response {
            let all: Vec<_> = given.iter().flat_map(|given| given.records.clone()).collect();
            assert_fits(&all, &theirs);
        }
        let frame = wire::encode(&response);
        bytes += frame.len();
        meanwhile(driver, other);
        initiator.handle(driver, wire::decode(&frame).unwrap()).unwrap();
    }
}

/// A frame holds one record, however large, or no more than its limit.
fn assert_fits(records: &[WireRecord], limits: &SessionLimits) {
    let bytes: usize = records.iter().map(WireRecord::size).sum();
    assert!(records.len() <= 1 || bytes <= limits.records_bytes_max, "{bytes} bytes in a frame");
}

fn key(n: u32) -> Key {
    Key::parse(&format!("app/{n:06}")).unwrap()
}

fn record(n: u32, timestamp: u64, node: u8) -> Record {
    let body = Bytes::from(format!("value {n} {timestamp}").repeat(8));
    Record { header: header(timestamp, node, &body), body }
}

/// For each key: whether and in which version each side has it.
fn any_sides() -> impl Strategy<Value = Vec<(u32, Option<u64>, Option<u64>)>> {
    let version = || proptest::option::weighted(0.7, 1..3_u64);
    proptest::collection::vec((0..200_u32, version(), version()), 0..160)
}

proptest! {
    #[test]
    fn a_session_ends_with_the_union_on_both_sides(sides in any_sides(), same in 0..150_u32) {
        let mut both: BTreeMap<_, _> = (0..same).map(|n| (key(n), record(n, 1, 1))).collect();
        let mut other = both.clone();
        for (n, a, b) in sides {
            if let Some(a) = a {
                both.insert(key(n), record(n, a, 1));
            }
            if let Some(b) = b {
                other.insert(key(n), record(n, b, 2));
            }
        }
        let mut expected = Map::new(both.clone(), 1);
        expected.apply(other.clone().into_iter().collect());
        let (mut a, mut b) = (Map::new(both, 1), Map::new(other, 1));
        session(&mut a, &mut b, TINY);
        prop_assert_eq!(&a.records, &expected.records);
        prop_assert_eq!(&b.records, &expected.records);
        let again = session(&mut a, &mut b, TINY);
        prop_assert_eq!(again.rounds, 2, "nothing differs: begin and end");
    }

    #[test]
    fn a_session_passes_over_nothing_that_is_replaced_meanwhile(
        sides in any_sides(), same in 0..150_u32,
        writes in proptest::collection::vec((any::<bool>(), 0..200_u32), 0..200),
        each in 1..8_usize,
    ) {
        let mut both: BTreeMap<_, _> = (0..same).map(|n| (key(n), record(n, 1, 1))).collect();
        let mut other = both.clone();
        for (n, a, b) in sides {
            both.extend(a.map(|a| (key(n), record(n, a, 1))));
            other.extend(b.map(|b| (key(n), record(n, b, 2))));
        }
        let (mut a, mut b) = (Map::new(both, 1), Map::new(other, 1));
        let mut held: BTreeMap<_, _> = a.records.clone();
        for (key, record) in &b.records {
            let at = held.entry(key.clone()).or_insert_with(|| record.clone());
            if at.header.version < record.header.version {
                *at = record.clone();
            }
        }
        let (mut writes, mut now) = (writes.into_iter(), 10);
        let meanwhile = &mut |a: &mut Map, b: &mut Map| {
            let (mut to_a, mut to_b) = (Vec::new(), Vec::new());
            for (at_a, n) in writes.by_ref().take(each) {
                now += 1;
                let (to, node) = if at_a { (&mut to_a, 1) } else { (&mut to_b, 2) };
                to.push((key(n), record(n, now, node)));
            }
            if !to_a.is_empty() {
                a.apply(to_a);
            }
            if !to_b.is_empty() {
                b.apply(to_b);
            }
        };
        session_among(&mut a, &mut b, TINY, TINY, meanwhile);
        for (key, record) in held {
            for side in [&a, &b] {
                let has = side.records.get(&key).map(|record| record.header.version);
                prop_assert!(has >= Some(record.header.version), "{} at {:?}", key, has);
            }
        }
    }

    #[test]
    fn sides_of_different_limits_work_together(
        sides in any_sides(), same in 0..150_u32,
        listed_max in 0..20_u64, children_max in 1..9_usize,
    ) {
        // Found by fuzzing: an initiator that lists more than the responder cut one range forever.
        let other_limits = SessionLimits { listed_max, children_max, ..TINY };
        for (limits, theirs) in [(TINY, other_limits), (other_limits, TINY)] {
            let mut both: BTreeMap<_, _> = (0..same).map(|n| (key(n), record(n, 1, 1))).collect();
            let mut other = both.clone();
            for (n, a, b) in &sides {
                both.extend(a.map(|a| (key(*n), record(*n, a, 1))));
                other.extend(b.map(|b| (key(*n), record(*n, b, 2))));
            }
            let (mut a, mut b) = (Map::new(both, 1), Map::new(other, 1));
            session_between(&mut a, &mut b, limits, theirs);
            prop_assert_eq!(&a.records, &b.records);
        }
    }

    #[test]
    fn any_message_gives_an_error_or_a_step_and_no_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200)
    ) {
        let map = Map::new((0..50).map(|n| (key(n), record(n, 1, 1))).collect(), 1);
        if let Ok(request) = wire::decode(&bytes) {
            let _ = responder(&map, false).respond(request, &map);
        }
        if let Ok(response) = wire::decode(&bytes) {
            let mut initiator = Initiator::new(TINY);
            let _ = initiator.poll(&map, map.report());
            let _ = initiator.handle(&map, response);
        }
    }
}

#[test]
fn bytes_and_rounds_for_few_differences_among_many() {
    let all: BTreeMap<_, _> = (0..60_000).map(|n| (key(n), record(n, 1, 1))).collect();
    let mut a = Map::new(all.clone(), 4);
    let mut b = Map::new(all.clone(), 4);
    let nothing = session(&mut a, &mut b, SessionLimits::STANDARD);
    assert!(nothing.bytes < 400 && nothing.rounds == 2, "{nothing:?}");
    b.apply(vec![(key(31_337), record(31_337, 2, 2))]);
    let one = session(&mut a, &mut b, SessionLimits::STANDARD);
    assert!(one.bytes < 6_000 && one.tally.records_received == 1, "{one:?}");
    assert_eq!(one.tally.records_sent, 0, "an older record is not sent back");
    let many: Vec<_> = (0..1_000).map(|n| (key(n * 60 + 7), record(n, 3, 2))).collect();
    b.apply(many);
    let thousand = session(&mut a, &mut b, SessionLimits::STANDARD);
    assert!(thousand.tally.records_received == 1_000 && thousand.rounds < 60, "{thousand:?}");
    println!("{nothing:?}\n{one:?}\n{thousand:?}");
    assert!(a.records == b.records);
}

/// The secret decides where blocks start, and some blocks have five times the usual children.
#[test]
fn one_difference_costs_little_under_any_secret() {
    let all: BTreeMap<_, _> = (0..20_000).map(|n| (key(n), record(n, 1, 1))).collect();
    let mut most = Traffic::default();
    for secret in 0..60 {
        let mut a = Map::of_secret(all.clone(), secret, 4);
        let n = 300 * u32::from(secret);
        let mut other = all.clone();
        other.insert(key(n), record(n, 2, 2));
        let mut b = Map::of_secret(other, secret, 4);
        let one = session(&mut a, &mut b, SessionLimits::STANDARD);
        assert_eq!((one.tally.records_received, one.tally.records_sent), (1, 0), "{one:?}");
        assert!(one.bytes < 6_000 && one.rounds < 12, "secret {secret}: {one:?}");
        if one.bytes > most.bytes {
            most = one;
        }
    }
    println!("at most {most:?}");
}

#[test]
fn an_empty_side_gets_everything_and_a_large_one_gives_it() {
    let all: BTreeMap<_, _> = (0..5_000).map(|n| (key(n), record(n, 1, 1))).collect();
    for full_drives in [true, false] {
        let mut full = Map::new(all.clone(), 4);
        let mut empty = Map::new(BTreeMap::new(), 4);
        let (a, b) = if full_drives { (&mut full, &mut empty) } else { (&mut empty, &mut full) };
        let traffic = session(a, b, SessionLimits::STANDARD);
        assert!(empty.records == full.records);
        let moved = traffic.tally.records_sent + traffic.tally.records_received;
        assert_eq!(moved, 5_000, "{traffic:?}");
    }
}

#[test]
fn few_records_meet_many_without_listing_the_many() {
    let all: BTreeMap<_, _> = (0..20_000).map(|n| (key(n), record(n, 1, 1))).collect();
    let few: BTreeMap<_, _> = (0..5).map(|n| (key(n * 777), record(n * 777, 2, 2))).collect();
    for few_drive in [true, false] {
        let (mut many, mut some) = (Map::new(all.clone(), 4), Map::new(few.clone(), 4));
        let (a, b) = if few_drive { (&mut some, &mut many) } else { (&mut many, &mut some) };
        let traffic = session(a, b, SessionLimits::STANDARD);
        assert!(many.records == some.records && some.records.len() == 20_000);
        let moved = traffic.tally.records_sent + traffic.tally.records_received;
        assert!(moved < 20_020, "{traffic:?}");
    }
}

#[test]
fn a_busy_side_is_left_alone_unless_nothing_differs() {
    let some = Map::new((0..5).map(|n| (key(n), record(n, 1, 1))).collect(), 4);
    let none = Map::new(BTreeMap::new(), 4);
    let begin = |map: &Map| {
        let request = Request::Begin { report: map.report(), root: map.root() };
        responder(&none, true).respond(request, &none).unwrap()
    };
    assert!(matches!(begin(&none), Reply::Answer(Response::Begun { .. })));
    assert!(matches!(begin(&some), Reply::Answer(Response::Busy)));
    let mut initiator = Initiator::new(TINY);
    initiator.poll(&some, some.report()).unwrap();
    assert!(matches!(initiator.handle(&some, Response::Busy), Err(SessionError::Busy)));
}

/// A responder that takes nothing is not told that the session has ended.
#[test]
fn a_side_that_takes_no_records_gives_all_of_its_own_and_the_session_does_not_end() {
    let one = |range: std::ops::Range<u32>| range.map(|n| (key(n), record(n, 1, 1))).collect();
    let (mut some, paused) = (Map::new(one(0..40), 4), Map::new(one(30..80), 4));
    let mut initiator = Initiator::new(TINY);
    let mut gave = 0;
    let error = loop {
        let request = match initiator.poll(&some, some.report()) {
            Ok(Step::Send(request)) => request,
            Ok(Step::Apply(records)) => {
                some.apply(records);
                continue;
            }
            Ok(Step::Surplus(_)) => panic!("this side gives"),
            Ok(Step::Done(_)) => panic!("the responder lacks records"),
            Err(error) => break error,
        };
        assert!(!matches!(request, Request::End { .. }), "the responder lacks records");
        let response = match responder(&paused, false).respond(request, &paused).unwrap() {
            Reply::Answer(response) => response,
            Reply::Apply(_) => {
                gave += 1;
                Response::Paused("no room".to_owned())
            }
        };
        initiator.handle(&some, response).unwrap();
    };
    assert!(matches!(&error, SessionError::Paused(why) if why == "no room"), "{error}");
    assert_eq!((some.records.len(), gave), (80, 1), "it is not asked again");
}

#[test]
fn a_response_without_a_request_is_malformed() {
    let map = Map::new(BTreeMap::new(), 4);
    let mut initiator = Initiator::new(TINY);
    let result = initiator.handle(&map, Response::Taken(HeldBack::default()));
    assert!(matches!(result, Err(SessionError::Malformed(_))));
}

#[test]
#[should_panic(expected = "comes first")]
fn polling_while_a_request_is_under_way_is_a_bug() {
    let map = Map::new(BTreeMap::new(), 4);
    let mut initiator = Initiator::new(TINY);
    initiator.poll(&map, map.report()).unwrap();
    let _ = initiator.poll(&map, map.report());
}
