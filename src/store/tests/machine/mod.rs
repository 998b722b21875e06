//! The store as a state machine: `RocksDB`, the engine in memory and a few plain maps go through
//! long random histories together, and must agree after each step.
//!
//! A history is drawn from a seed. `KVS_MACHINE_SECONDS` (15) says for how long histories are
//! played, `KVS_MACHINE_FIRST` (drawn anew each time) which seed is the first; a seed that fails is
//! printed with the shortest part of its history that still does. `KVS_MACHINE_SEED=N cargo test
//! --lib one_history` plays one again. `tests/long.sh machine` plays many.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use uuid::Uuid;

use crate::clock::{Clock, Fixed};
use crate::model::{Key, Prefix, Record, Timestamp};
use crate::proto::stability::Floor;
use crate::store::disk::engine::{Engine, Family};
use crate::store::disk::memory::Memory;
use crate::store::disk::rocks::Rocks;
use crate::store::feed::{FeedEntry, FeedPosition, FeedReader};
use crate::store::verify::tests::verified;
use crate::store::{
    Applied, Operation, OperationResult, Settings, Store, Superseded, WriteError, layout,
};
use crate::telemetry::Metrics;
use model::{Answer, Model, Request, Rules, Told, goes_at};
use steps::{KEYS, Met, Step, aimed, among_others, draw, key_at, moved};

mod model;
mod steps;

const START: u64 = 1_800_000_000_000_000;
/// How long histories are played, unless the environment says otherwise.
const SECONDS: u64 = 15;
const DRIFT_MAX: Duration = Duration::from_secs(60);
const WINDOW: Duration = Duration::from_secs(1200);
const HISTORY_DEPTH: u32 = 3;
const BLOB_THRESHOLD_BYTES: usize = 64;
/// What remembering requests may take: usually enough, in some histories too little.
const REQUESTS_BYTES: [u64; 4] = [1 << 24, 1 << 24, 6_000, 10_000];

/// What reports of lost writes may take: usually enough, in some histories too little.
const REPORTS_BYTES: [u64; 3] = [1 << 24, 1 << 24, 2_000];

/// How often what happened.
type Tally = BTreeMap<&'static str, u64>;

/// How many bytes things may take.
#[derive(Clone, Copy)]
struct Bounds {
    requests: u64,
    reports: u64,
}

impl Bounds {
    fn of_seed(seed: u64) -> Self {
        let of = |all: &[u64]| all[usize::try_from(seed % all.len() as u64).unwrap()];
        Self { requests: of(&REQUESTS_BYTES), reports: of(&REPORTS_BYTES) }
    }
}

/// A store on one of the engines, whose writer has its own thread.
struct Node {
    name: &'static str,
    engine: Box<dyn Fn() -> Arc<dyn Engine>>,
    clock: Arc<Fixed>,
    running: Option<Running>,
}

struct Running {
    store: Store,
    feed: FeedReader,
    writer: std::thread::JoinHandle<()>,
}

/// The two engines, the model and what they met.
struct Machine {
    nodes: Vec<Node>,
    model: Model,
    met: Met,
    bounds: Bounds,
    tally: Tally,
    /// Requests that were sent with others.
    sent: u128,
    /// How many changes of the model's feed were compared.
    feed_read: usize,
}

#[expect(clippy::needless_pass_by_value, reason = "what is compared is often made for it")]
fn same<T: PartialEq + Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}\n     found {found:?}\n  expected {expected:?}"))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn text(error: impl ToString) -> String {
    error.to_string()
}

impl Node {
    fn open(&mut self, bounds: Bounds, rules: Option<&Rules>) -> Result<(), String> {
        let settings = Settings {
            blob_threshold_bytes: rules.map_or(BLOB_THRESHOLD_BYTES, |r| r.blob_threshold_bytes),
            clock_drift_max: DRIFT_MAX,
            feed_entries_max: 8,
            feed_bytes_max: 64 << 20,
            superseded_bytes_max: bounds.reports,
            free_bytes_min: 0,
            boot: None,
            digest_key: [5; 32],
            cluster: None,
            history_depth: rules.map_or(HISTORY_DEPTH, |r| u32::try_from(r.history_depth).unwrap()),
            idempotency_window: WINDOW,
            idempotency_bytes_max: bounds.requests,
            compared_bytes_max: 1 << 20,
        };
        let clock = Clock::from_source(self.clock.clone());
        let opened = Store::open((self.engine)(), clock, Metrics::new(), &settings);
        let (store, writer) = opened.map_err(text)?;
        let feed = store.read_feed_from_now();
        let writer = std::thread::spawn(move || writer.run_blocking());
        self.running = Some(Running { store, feed, writer });
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        let Some(Running { store, feed, writer }) = self.running.take() else { return Ok(()) };
        drop((store, feed));
        writer.join().map_err(|_| "the writer has panicked".to_owned())
    }

    fn store(&self) -> &Store {
        &self.running.as_ref().unwrap().store
    }
}

/// What a store is asked.
#[derive(Debug)]
enum Asked {
    Request(Request),
    Apply(Vec<(Key, Record)>),
    Adopt(Floor),
}

#[derive(Debug, PartialEq)]
enum Reply {
    Answer(Answer),
    Applied(Applied),
    Floor(Floor),
}

impl Asked {
    async fn ask(&self, store: &Store) -> Result<Reply, String> {
        match self {
            Self::Request(request) => ask(store, request).await.map(Reply::Answer),
            Self::Adopt(floor) => store.adopt_floor(*floor).await.map(Reply::Floor).map_err(text),
            Self::Apply(records) => {
                store.apply(records.clone()).await.map(Reply::Applied).map_err(text)
            }
        }
    }
}

async fn ask(store: &Store, request: &Request) -> Result<Answer, String> {
    let outcome = match request {
        Request::Write(write) => {
            store.write(write.clone()).await.map(|written| Answer::Written(Box::new(written)))
        }
        Request::Txn(txn) => store.txn(txn.clone()).await.map(Answer::Done),
    };
    outcome.or_else(|refusal| match refusal {
        WriteError::PreconditionFailed { current } => Ok(Answer::Precondition(current)),
        WriteError::NotFound => Ok(Answer::NotFound),
        WriteError::OtherRequest => Ok(Answer::OtherRequest),
        WriteError::RequestsFull => Ok(Answer::RequestsFull),
        WriteError::ContentTooLarge => Ok(Answer::ContentTooLarge),
        WriteError::ClockSkewed { ahead_ms, origin } => Ok(Answer::ClockSkewed(ahead_ms, origin)),
        error => Err(text(error)),
    })
}

/// The uuid that the store gave to what a request wrote, if it wrote anything.
fn given(store: &Store, request: &Request, answer: &Answer) -> Result<Option<Uuid>, String> {
    let (txn, done) = match (request, answer) {
        (Request::Write(_), Answer::Written(written)) => {
            return Ok(Some(written.header.version.uuid));
        }
        (Request::Txn(txn), Answer::Done(done)) => (txn, done),
        _ => return Ok(None),
    };
    let operations = if done.failed.is_empty() { &txn.success } else { &txn.failure };
    for (operation, outcome) in operations.iter().zip(&done.results) {
        match (operation, outcome) {
            (_, OperationResult::Put(uuid, _)) => return Ok(Some(*uuid)),
            (Operation::Write(key, _), OperationResult::Deleted(true)) => {
                let record = store.record_now(key).map_err(text)?;
                return Ok(record.map(|record| record.header.version.uuid));
            }
            _ => {}
        }
    }
    Ok(None)
}

impl Machine {
    fn new(dir: &std::path::Path, bounds: Bounds) -> Result<Self, String> {
        let memory: Arc<dyn Engine> = Arc::new(Memory::default());
        let dir = dir.to_owned();
        let rocks = move || Arc::new(Rocks::open(&dir, 1 << 20, false).unwrap()) as Arc<dyn Engine>;
        let node =
            |name, engine| Node { name, engine, clock: Fixed::still(START, 9), running: None };
        let mut nodes =
            vec![node("memory", Box::new(move || memory.clone())), node("rocks", Box::new(rocks))];
        for node in &mut nodes {
            node.open(bounds, None)?;
        }
        let identity = nodes[0].store().identity();
        same("both are one node", nodes[1].store().identity(), identity)?;
        let rules = Rules {
            node: identity.node,
            joined_at: identity.joined_at,
            clock_drift_max: DRIFT_MAX,
            idempotency_window: WINDOW,
            idempotency_bytes_max: bounds.requests,
            history_depth: HISTORY_DEPTH as usize,
            blob_threshold_bytes: BLOB_THRESHOLD_BYTES,
            others: false,
        };
        let model = Model::new(rules, Timestamp::saturating(START));
        let (met, tally) = (Met::new(), Tally::new());
        Ok(Self { nodes, model, met, bounds, tally, sent: 0, feed_read: 0 })
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    /// What a step asks of the store, if it asks anything.
    fn asked(&self, step: &Step) -> Option<Asked> {
        let request = match step {
            Step::Write { key, shape, conditions, name } => {
                self.met.write(&self.model, *key, shape, conditions, *name)
            }
            Step::Txn(plan) => self.met.txn(&self.model, plan),
            Step::Retry { nth, altered } => self.met.retry(*nth, *altered)?,
            Step::Remote(remote) => {
                let records = remote.iter().filter_map(|r| self.met.remote(&self.model, r));
                return Some(Asked::Apply(records.collect()));
            }
            Step::Adopt(aim) => return Some(Asked::Adopt(aimed(&self.model, *aim))),
            _ => return None,
        };
        Some(Asked::Request(request))
    }

    async fn take(&mut self, step: &Step) -> Result<(), String> {
        if let Some(asked) = self.asked(step) {
            let memory = asked.ask(self.nodes[0].store()).await?;
            let rocks = asked.ask(self.nodes[1].store()).await?;
            return self.judge(&asked, &memory, &rocks);
        }
        match step {
            Step::Together(steps) => self.together(steps).await?,
            Step::Clock { movement, passes } => {
                let now = moved(&self.model, *movement);
                let span = now.since(self.model.now);
                if *passes && !span.is_zero() {
                    self.count("time passed");
                    self.model.steady = self.model.steady.plus(span);
                    self.nodes.iter().for_each(|node| node.clock.pass(span));
                } else {
                    self.count(if span.is_zero() { "clock back" } else { "clock on" });
                    self.model.was_set = true;
                    self.nodes.iter().for_each(|node| node.clock.set(now.micros()));
                }
                self.model.set_now(now);
            }
            Step::Others(others) => {
                self.model.rules.others = *others;
                self.nodes.iter().for_each(|node| node.store().set_others(*others));
            }
            Step::Sweep => self.sweep().await?,
            Step::Alone => self.alone().await?,
            Step::Reopen { history_depth, blob_threshold_bytes } => {
                self.model.reopen(*history_depth as usize, *blob_threshold_bytes);
                for node in &mut self.nodes {
                    node.close()?;
                    node.open(self.bounds, Some(&self.model.rules))?;
                }
                self.follow_steady()?;
                self.count("reopened");
            }
            Step::Write { .. }
            | Step::Txn(_)
            | Step::Retry { .. }
            | Step::Remote(_)
            | Step::Adopt(_) => {}
        }
        Ok(())
    }

    /// Takes the time that requests are remembered by from a node that was started again. No
    /// request is younger than not at all; and where the clock was not set lately, none has aged.
    fn follow_steady(&mut self) -> Result<(), String> {
        let steady = |node: &Node| {
            let shared = &node.store().shared;
            shared.steady.read(&shared.clock, shared.clock.now()).now
        };
        let (now, before) = (steady(&self.nodes[0]), self.model.steady);
        same("steady time of rocks, next to that of memory", steady(&self.nodes[1]), now)?;
        if let Some(latest) = self.model.latest_remembered() {
            same("steady time is behind a request", now < latest, false)?;
            let off = now.since(before).max(before.since(now));
            let is_off = !self.model.was_set && off >= Duration::from_secs(1);
            same(&format!("steady time is off by {off:?}"), is_off, false)?;
        }
        self.model.steady = now;
        Ok(())
    }

    async fn sweep(&mut self) -> Result<(), String> {
        let expected = self.model.sweep();
        for node in &self.nodes {
            let mut records = 0;
            loop {
                let swept = node.store().sweep().await.map_err(text)?;
                records += swept.records;
                if !swept.more {
                    break;
                }
            }
            same(&format!("{}: records swept", node.name), records, expected)?;
        }
        if expected > 0 {
            self.count("swept");
        }
        Ok(())
    }

    async fn alone(&mut self) -> Result<(), String> {
        let expected = self.model.alone();
        for node in &self.nodes {
            let store = node.store();
            let moved = store
                .change_ledger(|ledger, now| {
                    let _ = ledger.alone(now);
                })
                .await;
            moved.map_err(text)?;
            let mut records = 0;
            loop {
                let collected = store.collect().await.map_err(text)?;
                records += collected.records;
                if !collected.more {
                    break;
                }
            }
            same(&format!("{}: records collected", node.name), records, expected as u64)?;
        }
        if expected > 0 {
            self.count("collected alone");
        }
        Ok(())
    }

    /// Sends what several steps ask at once, so that the writer finds it together. It must come to
    /// the same as one after the other.
    async fn together(&mut self, steps: &[Step]) -> Result<(), String> {
        let mut asked: Vec<_> = steps.iter().filter_map(|step| self.asked(step)).collect();
        for one in &mut asked {
            if let Asked::Request(request) = one {
                self.sent += 1;
                *request = among_others(request.clone(), self.sent);
            }
        }
        let mut answers = Vec::new();
        for node in &self.nodes {
            // the first look at each, in this order, hands it over
            answers.push(join_all(asked.iter().map(|asked| asked.ask(node.store()))).await);
        }
        let (memory, rocks) = (answers.remove(0), answers.remove(0));
        for ((asked, memory), rocks) in asked.iter().zip(memory).zip(rocks) {
            let told = |error| format!("of several, {asked:?}: {error}");
            self.judge(asked, &memory?, &rocks?).map_err(told)?;
        }
        self.count("sent together");
        Ok(())
    }

    /// Compares two answers with each other and with the model's.
    fn judge(&mut self, asked: &Asked, memory: &Reply, rocks: &Reply) -> Result<(), String> {
        same("the answer of rocks, next to that of memory", rocks, memory)?;
        match (asked, memory) {
            (Asked::Request(request), Reply::Answer(answer)) => self.judge_request(request, answer),
            (Asked::Apply(records), Reply::Applied(applied)) => {
                let lost = self.model.lost.len();
                let expected = self.model.apply(records);
                if self.model.lost.len() > lost {
                    self.count("superseded");
                }
                same("what became of records", *applied, expected)?;
                self.met.note(&self.model, records);
                self.count(match expected {
                    Applied { replaced: 1.., .. } => "merged",
                    Applied { held, .. } if held.is_any() => "held",
                    _ => "kept",
                });
                if expected.below_floor > 0 {
                    self.count("refused below the floor");
                }
                Ok(())
            }
            (Asked::Adopt(to), Reply::Floor(floor)) => {
                if self.model.collect(*to) > 0 {
                    self.count("collected");
                }
                same("the floor", *floor, self.model.floor)
            }
            _ => Err("an answer of another kind".to_owned()),
        }
    }

    fn judge_request(&mut self, request: &Request, first: &Answer) -> Result<(), String> {
        let remembered = self.model.is_remembered(request);
        if *first == Answer::RequestsFull {
            let may_be = self.bounds.requests < REQUESTS_BYTES[0];
            let new = request.uuid().is_some() && !remembered;
            self.count("memory full");
            self.model.group();
            return if may_be && new { Ok(()) } else { Err("the memory is not full".to_owned()) };
        }
        let mut uuid = Uuid::default();
        if request.uuid().is_none() {
            uuid = given(self.nodes[0].store(), request, first)?.unwrap_or_default();
            if self.met.knows(uuid) {
                return Err(format!("{uuid} was there before"));
            }
        }
        let (store, forgotten) = (self.nodes[0].store().clone(), self.model.forgotten_early);
        let cost = |uuid, key: Option<&Key>| cost(&store, uuid, key);
        let expected = self.model.ask(request, uuid, cost);
        if self.model.forgotten_early > forgotten {
            self.count("forgotten early");
        }
        same(&format!("the answer to {request:?}"), first, &expected)?;
        self.met.note(&self.model, &[]);
        self.met.requests.push(request.clone());
        self.count(match (&expected, remembered) {
            (Answer::Written(_), false) => "written",
            (Answer::Done(_), false) => "transaction done",
            (Answer::Written(_) | Answer::Done(_), true) => "answered from memory",
            (Answer::Precondition(Some(_)), _) => "precondition failed on a value",
            (Answer::Precondition(None), _) => "precondition failed on none",
            (Answer::NotFound, _) => "not found",
            (Answer::OtherRequest, _) => "other request",
            (Answer::RequestsFull, _) => "memory full",
            (Answer::ContentTooLarge, _) => "content too large",
            (Answer::ClockSkewed(..), _) => "clock skewed",
        });
        Ok(())
    }

    // --- comparing -------------------------------------------------------------------------------

    /// Everything that can be read cheaply.
    async fn compare(&mut self) -> Result<(), String> {
        let fresh = self.model.feed.get(self.feed_read..).unwrap_or_default().to_vec();
        self.feed_read = self.model.feed.len();
        let mut fingerprints = BTreeSet::new();
        for node in &mut self.nodes {
            let running = node.running.as_mut().unwrap();
            let found = unread(running)?;
            same(&format!("{}: new in the feed", node.name), &found, &fresh)?;
            let store = &running.store;
            compare_reads(store, &self.model).await.map_err(|e| format!("{}: {e}", node.name))?;
            let fingerprint = store.fingerprint();
            let recomputed = store.recomputed_fingerprint().map_err(text)?;
            same(&format!("{}: fingerprint", node.name), fingerprint, recomputed)?;
            fingerprints.insert(fingerprint);
        }
        self.model.read_all();
        self.compare_watermark().await?;
        same("fingerprints", fingerprints.len(), 1)
    }

    /// The watermark on the disk covers all that the model says. It may be further on where jobs
    /// that were sent together saw a value expire for a moment; then all continue from there alike.
    async fn compare_watermark(&mut self) -> Result<(), String> {
        let mut more = false;
        for node in &self.nodes {
            let kept = crate::store::meta(node.store().shared.engine.as_ref(), layout::WATERMARK);
            let kept: Timestamp = kept.map_err(text)?.unwrap_or_default();
            if kept != self.model.disk_watermark() {
                same(&format!("{}: the watermark", node.name), kept, self.model.expiry_now())?;
                more = true;
            }
        }
        if more {
            for node in &self.nodes {
                let keep = |reply| crate::store::write::job::Job::AdvanceWatermark { reply };
                node.store().submit(keep).await.map_err(text)?;
            }
            self.model.advance_watermark();
        }
        Ok(())
    }

    /// What costs more: revisions, and every entry of every family.
    async fn compare_all(&mut self, swept: bool) -> Result<(), String> {
        let mut truncated = false;
        for node in &self.nodes {
            let store = node.store();
            let compared = async {
                compare_revisions(store, &self.model, &self.met).await?;
                compare_families(store, &self.model)?;
                compare_feed(store, &self.model)?;
                truncated |= compare_superseded(store, &self.model, self.bounds.reports)?;
                store.check_invariants(true);
                verify(store)?;
                compare_requests(store, &self.model, self.bounds.requests, swept)
            };
            compared.await.map_err(|error| format!("{}: {error}", node.name))?;
        }
        if truncated {
            self.count("reports dropped");
        }
        Ok(())
    }
}

fn verify(store: &Store) -> Result<(), String> {
    let (verified, found) = verified(store.shared.engine.as_ref());
    if !found.is_empty() || verified.fingerprint != Some(store.fingerprint()) {
        return Err(format!("verified {verified:?}, found {found:?}"));
    }
    Ok(())
}

/// The changes that the feed holds and this reader has not read.
fn unread(running: &mut Running) -> Result<Vec<Told>, String> {
    let mut found = Vec::new();
    while let Some(entry) = running.feed.next().now_or_never() {
        let entry = entry.map_err(|missed| format!("{missed:?}"))?;
        found.push(told(&entry));
    }
    Ok(found)
}

fn told(entry: &FeedEntry) -> Told {
    (entry.key.clone(), entry.header.clone(), entry.cause)
}

/// The feed on the disk holds all changes, also those from before a restart.
fn compare_feed(store: &Store, model: &Model) -> Result<(), String> {
    let begin = FeedPosition { position: 0, ..store.feed_position() };
    let found = store.read_feed(begin, usize::MAX).map_err(text)?;
    let found = found.ok_or_else(|| "the feed does not hold its first change".to_owned())?;
    let ascend = (1..).zip(&found).all(|(position, entry)| entry.position == position);
    same("consecutive positions", ascend, true)?;
    same("the feed", found.iter().map(told).collect(), model.feed.clone())
}

/// The store reports all that was lost, or the latest of it as far as there is room; tells whether
/// some are left out.
fn compare_superseded(store: &Store, model: &Model, bytes_max: u64) -> Result<bool, String> {
    let read = |prefix: &Prefix, since, limit, bytes| {
        store.superseded_now(prefix, since, limit, bytes).map_err(text)
    };
    let expected = model.superseded();
    let whole = read(&Prefix::all(), None, usize::MAX, usize::MAX)?;
    let missing = expected.len().saturating_sub(whole.items.len());
    let (dropped, kept) = expected.split_at(missing);
    same("what was lost", &whole.items[..], kept)?;
    same("truncated", whole.truncated, missing > 0)?;
    same("where the reports end", whole.next.position, expected.len() as u64)?;
    let (_, bytes) = entries(store, Family::Superseded)?;
    let fits = bytes <= bytes_max || kept.len() == 1;
    same(&format!("{bytes} bytes of reports fit"), fits, true)?;
    // what was dropped last would not have fitted; it took no more than this
    let room = dropped.last().map(|last| last.lost.header.content.size() + 2_000);
    same("dropped for want of room", room.is_none_or(|room| bytes + room > bytes_max), true)?;
    // page by page
    let (below, mut since, mut paged) = (Prefix::parse("a").unwrap(), None, Vec::new());
    loop {
        let page = read(&below, since, 2, 100)?;
        let small =
            |items: &[Superseded]| items.iter().map(Superseded::content_bytes).sum::<usize>();
        let is_small = page.items.len() < 2 || small(&page.items) <= 100;
        same("a small page", page.items.len() <= 2 && is_small, true)?;
        same("a gap after the first page", since.is_some() && page.truncated, false)?;
        since = Some(page.next);
        if page.items.is_empty() {
            break;
        }
        paged.extend(page.items);
    }
    let matching = kept.iter().filter(|item| item.key.as_str().starts_with("a/")).cloned();
    same("what was lost below a", paged, matching.collect())?;
    let other = since.map(|at| FeedPosition { epoch: !at.epoch, ..at });
    let again = read(&Prefix::all(), other, usize::MAX, usize::MAX)?;
    same("after a position of another epoch", (&again.items[..], again.truncated), (kept, true))?;
    Ok(missing > 0)
}

async fn compare_reads(store: &Store, model: &Model) -> Result<(), String> {
    for index in 0..KEYS.len() {
        let key = key_at(index);
        let expected = model.records.get(&key).map(|held| held.record.clone());
        same(&format!("record {key}"), store.record(&key).await.map_err(text)?, expected)?;
        let expected = model.get(&key);
        let header = expected.as_ref().map(|entry| entry.header.clone());
        same(&format!("get {key}"), store.get(&key).await.map_err(text)?, expected)?;
        same(&format!("head {key}"), store.head(&key).await.map_err(text)?, header)?;
    }
    same("counts", store.counts(), model.counts())?;
    let page = store.scan(&Prefix::all(), None, 100, Some(1 << 30)).await.map_err(text)?;
    same("scan", page.items, model.scan())?;
    same("the end of the scan", page.next, None)?;
    let page = store.scan(&Prefix::parse("a").unwrap(), None, 2, None).await.map_err(text)?;
    let below = model.scan().into_iter().filter(|(key, _)| key.as_str().starts_with("a/"));
    let below: Vec<_> = below.map(|(key, entry)| (key, entry.header)).take(2).collect();
    let found: Vec<_> = page.items.into_iter().map(|(key, entry)| (key, entry.header)).collect();
    same("scan of a, two at most", found, below)
}

async fn compare_revisions(store: &Store, model: &Model, met: &Met) -> Result<(), String> {
    if model.rules.history_depth == 0 {
        // history is off
        return Ok(());
    }
    for index in 0..KEYS.len() {
        let key = key_at(index);
        let expected = model.revisions(&key);
        let found = store.history(&key, 100, u64::MAX).await.map_err(text)?;
        same(&format!("history of {key}"), &found, &expected)?;
        let few = store.history(&key, 2, 64).await.map_err(text)?;
        let small = expected.iter().take(2).cloned().map(|mut revision| {
            revision.body = revision.body.filter(|body| body.len() <= 64);
            revision
        });
        same(&format!("a little history of {key}"), few, small.collect())?;
        let some = met.uuids().into_iter().take(3);
        for uuid in expected.iter().map(|r| r.header.version.uuid).chain(some) {
            let found = store.revision(&key, uuid).await.map_err(text)?;
            let first = expected.iter().find(|r| r.header.version.uuid == uuid).cloned();
            same(&format!("revision {uuid} of {key}"), found, first)?;
        }
    }
    Ok(())
}

/// All entries of a family: their keys, and the bytes that keys and values take together.
fn entries(store: &Store, family: Family) -> Result<(BTreeSet<Vec<u8>>, u64), String> {
    let (mut keys, mut bytes) = (BTreeSet::new(), 0);
    let scanned = store.shared.engine.scan(family, &[], None, &mut |key, value| {
        bytes += (key.len() + value.len()) as u64;
        keys.insert(key.to_vec());
        ControlFlow::Continue(())
    });
    scanned.map_err(text)?;
    Ok((keys, bytes))
}

/// Each family holds exactly the entries that the model needs.
fn compare_families(store: &Store, model: &Model) -> Result<(), String> {
    let (mut values, mut expiry) = (BTreeSet::new(), BTreeSet::new());
    let (mut dead, mut revisions) = (BTreeSet::new(), 0);
    for (key, held) in &model.records {
        let old = model.history.get(key).into_iter().flatten().map(|old| &old.held);
        revisions += old.clone().count();
        for held in old.chain([held]).filter(|held| held.apart) {
            values.insert(layout::blob_key(key, &held.record.header.hash()));
        }
        if let Some(at) = held.record.header.expires_at.filter(|_| !held.swept) {
            expiry.insert(layout::expiry_key(at, key));
        }
        if let Some(at) = goes_at(&held.record.header) {
            dead.insert(layout::expiry_key(at, key));
        }
    }
    let shown = |keys: &BTreeSet<Vec<u8>>| -> Vec<_> {
        keys.iter().map(|key| String::from_utf8_lossy(key).escape_debug().to_string()).collect()
    };
    let (found, _) = entries(store, Family::Values)?;
    same("entries of values", shown(&found), shown(&values))?;
    let (found, _) = entries(store, Family::Expiry)?;
    same("entries of expiry", shown(&found), shown(&expiry))?;
    let (found, _) = entries(store, Family::Dead)?;
    same("entries of dead", shown(&found), shown(&dead))?;
    let (found, _) = entries(store, Family::History)?;
    same("entries of history", found.len(), revisions)
}

/// What remembering a request takes on the disk.
fn cost(store: &Store, uuid: Uuid, key: Option<&Key>) -> u64 {
    let at = layout::request_key(uuid, key.map(Key::as_bytes).unwrap_or_default());
    let value = store.shared.engine.get(Family::Requests, &at).unwrap();
    let value = value.expect("what is remembered is on the disk");
    (2 * at.len() + 8 + value.len()) as u64
}

/// The remembered requests stay in their bound, and a sweep removes those whose window has ended.
fn compare_requests(
    store: &Store,
    model: &Model,
    bytes_max: u64,
    swept: bool,
) -> Result<(), String> {
    let (found, bytes) = entries(store, Family::Requests)?;
    if bytes > bytes_max {
        return Err(format!("{bytes} bytes of requests, {bytes_max} at most"));
    }
    // an answer, and when it was accepted
    same("the sum of their bytes", store.shared.requests_bytes.load(Relaxed), bytes)?;
    let (found, expected) = (found.len(), 2 * model.remembered_count());
    if !swept && found > expected {
        return Ok(());
    }
    same("entries of requests", found, expected)
}

// --- playing -------------------------------------------------------------------------------------

async fn play(steps: &[Step], bounds: Bounds) -> Result<Tally, String> {
    let dir = tempfile::tempdir().map_err(text)?;
    let mut machine = Machine::new(dir.path(), bounds)?;
    for node in &machine.nodes {
        node.store().found(false).await.map_err(text)?;
    }
    // reading looks at the clock for the first time
    machine.compare().await?;
    for (n, step) in steps.iter().enumerate() {
        let told = |error| format!("step {n}, {step:?}: {error}");
        machine.take(step).await.map_err(told)?;
        machine.compare().await.map_err(told)?;
        let swept = matches!(step, Step::Sweep);
        if swept || n % 8 == 7 {
            machine.compare_all(swept).await.map_err(told)?;
        }
    }
    // sweep first, so that nothing due is left
    machine.take(&Step::Sweep).await?;
    machine.compare().await?;
    machine.compare_all(true).await.map_err(|error| format!("at the end: {error}"))?;
    for node in &mut machine.nodes {
        node.close()?;
    }
    Ok(machine.tally)
}

/// Plays on a new runtime. A panic counts as a failure.
fn played(steps: &[Step], bounds: Bounds) -> Result<Tally, String> {
    let play = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(play(steps, bounds))
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(play))
        .unwrap_or_else(|_| Err("a panic, see above".to_owned()))
}

/// Leaves out what can be left out, as long as something still fails.
fn shortened(mut steps: Vec<Step>, mut why: String, bounds: Bounds) -> (Vec<Step>, String) {
    let mut size = steps.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < steps.len() {
            let mut shorter = steps.clone();
            shorter.drain(at..steps.len().min(at + size));
            match played(&shorter, bounds) {
                Err(error) => (steps, why) = (shorter, error),
                Ok(_) => at += size,
            }
        }
        size /= 2;
    }
    (steps, why)
}

fn play_seed(seed: u64) -> Tally {
    let bounds = Bounds::of_seed(seed);
    let steps = draw(seed);
    match played(&steps, bounds) {
        Ok(tally) => tally,
        Err(why) => {
            println!("seed {seed} fails: {why}");
            let (steps, why) = shortened(steps, why, bounds);
            panic!("seed {seed}, shortened to {steps:#?}\nfails: {why}");
        }
    }
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no whole number")))
}

#[test]
fn both_engines_and_plain_maps_agree_on_long_histories() {
    let clock = Clock::system();
    let began = clock.instant();
    let first = number("KVS_MACHINE_FIRST")
        .unwrap_or_else(|| u64::from(u32::from_le_bytes(clock.random())));
    let time = Duration::from_secs(number("KVS_MACHINE_SECONDS").unwrap_or(SECONDS));
    let (mut seed, mut total) = (first, Tally::new());
    while began.elapsed() < time || seed - first < HISTORIES_MIN {
        for (what, count) in play_seed(seed) {
            *total.entry(what).or_default() += count;
        }
        seed += 1;
    }
    println!("{} histories from seed {first}: {total:?}", seed - first);
    // one in which nothing happens proves nothing
    assert_eq!(total.len(), KINDS, "too little happened: {total:?}");
}

/// So many histories are played in any case; in fewer, not all that can happen does.
const HISTORIES_MIN: u64 = 24;

/// Kinds of what can happen.
const KINDS: usize = 25;

#[test]
fn one_history() {
    println!("{:?}", play_seed(number("KVS_MACHINE_SEED").unwrap_or(1)));
}
