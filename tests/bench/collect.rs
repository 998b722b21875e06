//! How long it takes to collect many dead records, what puts feel of it meanwhile, and what scans
//! feel of it afterwards.
//!
//! `cargo bench --bench collect` measures one store over RocksDB in this process, with syncs.
//! `KVS_BENCH_DEAD` (1000000) sets how many records die, `KVS_BENCH_CLIENTS` (16) how many clients
//! put meanwhile. It asserts nothing: machines are shared and noisy.

#![allow(clippy::disallowed_methods, reason = "time is real here")]

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvs::clock::Clock;
use kvs::model::{
    Content, ContentType, Header, Key, NodeId, Prefix, Record, Seen, Timestamp, Version,
};
use kvs::proto::stability::{Floor, Founding, Ledger, Start, WhyGone, floor};
use kvs::store::engine::{Engine, Family};
use kvs::store::layout::{self, Body, FeedItem, Marks, Stored};
use kvs::store::rocks::Rocks;
use kvs::store::{Change, Lifetime, Settings, Store, Write};
use kvs::telemetry::Metrics;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How many records are merged at once to fill the store.
const BATCH: u64 = 1000;
const CACHE_BYTES: usize = 64 << 20;

fn number(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(otherwise, |text| text.parse().expect("a whole number"))
}

fn row(what: &str, value: impl std::fmt::Display) {
    println!("{what:<60} {value}");
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let dead = number("KVS_BENCH_DEAD", 1_000_000);
    costs();
    row("bytes of the index of the dead for each, on the disk", index_bytes(dead));
    for bounded in [true, false] {
        println!();
        runtime.block_on(collection(dead, bounded));
    }
}

/// What a record and a node pay for knowing who knew what, in bytes before compression.
fn costs() {
    let now = Clock::system().now();
    let seen_by = |origins: u128| {
        let ids = (0..origins).map(|n| NodeId::from_u128(u128::MAX / 3 + n));
        ids.fold(None, |seen, id| Some(Seen::after_write(seen.as_ref(), id, now)))
    };
    let header = |origins| {
        let Record { header, .. } = record(now, Some(b""));
        Header { seen: seen_by(origins).unwrap_or_default(), ..header }
    };
    let stored = |header: Header| {
        let hash = header.hash();
        let body = Body::Inline(Bytes::new());
        let marks = Marks::default();
        Stored { header, hash, marks, revisions: (0, 0), body }.encode().len()
    };
    for origins in [1, 2, 3, 16] {
        let bytes = stored(header(origins)) - stored(header(0));
        row(&format!("bytes of `seen` in a record that {origins} nodes wrote"), bytes);
    }
    row("bytes of all else of a record, key and value apart", stored(header(0)));
    let item = FeedItem {
        cause: 0,
        key: Cow::Borrowed("sessions/000000000001"),
        header: Cow::Owned(header(1)),
    };
    row("bytes of a change in the feed", layout::encode_feed(&[item], &[]).len());
    for members in [1, 3, 16] {
        let start = Start { at: now, random: u64::MAX };
        let founding = Founding { at: now, id: Uuid::from_u128(u128::MAX / 5) };
        let id = |n: u128| NodeId::from_u128(u128::MAX / 3 + n);
        let mut ledger = Ledger::founder(id(0), start, founding, false);
        let entry = ledger.set.as_ref().and_then(|set| set.joined.get(&id(0)).copied());
        for n in 1..members {
            if let (Some(set), Some(entry)) = (ledger.set.as_mut(), entry) {
                set.joined.insert(id(n), entry);
            }
        }
        ledger.remove(id(members), WhyGone::Forgotten);
        let bytes = layout::encode_meta(&ledger).len();
        row(&format!("bytes of the ledger of a node among {members} members, one gone"), bytes);
    }
}

fn key(n: u64) -> Key {
    Key::parse(&format!("sessions/{n:012}")).expect("a key")
}

/// A record of another node, written at `at`; `None` is a tombstone.
fn record(at: Timestamp, body: Option<&[u8]>) -> Record {
    let origin = NodeId::from_u128(7);
    let uuid = Uuid::from_u128(u128::from(at.micros()) << 1 | u128::from(body.is_some()));
    let version = Version { timestamp: at, origin_joined_at: Timestamp::saturating(1), uuid };
    let content = match body {
        Some(body) => Content::value(ContentType::octet_stream(), body),
        None => Content::Tombstone,
    };
    let seen = Seen::after_write(None, origin, at);
    let header = Header { version, origin, parent: None, seen, expires_at: None, content };
    Record { header, body: Bytes::copy_from_slice(body.unwrap_or_default()) }
}

/// Fills a store with values of 100 B that were deleted, before `now`, and as many live ones behind
/// them as make a page.
async fn fill(store: &Store, dead: u64, now: Timestamp) {
    for begin in (0..dead).step_by(usize::try_from(BATCH).expect("it fits")) {
        let numbers = begin..dead.min(begin + BATCH);
        for body in [Some(&[7_u8; 100][..]), None] {
            let at = |n: u64| {
                let micros = now.micros() - 10 * (dead - n) - u64::from(body.is_some());
                Timestamp::saturating(micros)
            };
            let records = numbers.clone().map(|n| (key(n), record(at(n), body))).collect();
            store.apply(records).await.expect("merged");
        }
    }
    for n in 0..1000 {
        store.write(put(format!("sessions/live/{n}"))).await.expect("written");
    }
}

fn put(at: String) -> Write {
    let body = Bytes::from_static(&[7; 100]);
    let change = Change::put(ContentType::octet_stream(), body, Lifetime::Unbounded);
    Write { key: Key::parse(&at).expect("a key"), change, conditions: Vec::new(), uuid: None }
}

/// Collects `dead` records, at the bounded rate or as one node adopts the floor of another.
async fn collection(dead: u64, bounded: bool) {
    let (dir, clock) = (tempfile::tempdir().expect("a directory"), Clock::system());
    let engine = Arc::new(Rocks::open(dir.path(), CACHE_BYTES, true).expect("a database"));
    let opened = Store::open(engine, clock.clone(), Metrics::new(), &Settings::default());
    let (store, writer) = opened.expect("a store");
    let writer = std::thread::spawn(move || writer.run_blocking());
    store.found(false).await.expect("founded");
    let now = clock.now();
    fill(&store, dead, now).await;
    row(
        if bounded { "collection at the bounded rate, dead" } else { "adopting a floor, dead" },
        store.counts().tombstones,
    );
    row("  bytes of the directory", bytes(dir.path()));
    row("  a page behind the dead, ms", page(&store).await);
    let stop = Arc::new(AtomicBool::new(false));
    let puts = tokio::spawn(putting(store.clone(), stop.clone()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    stop.store(true, Ordering::Relaxed);
    row("  puts without it", puts.await.expect("no panic"));
    let (stop, began) = (Arc::new(AtomicBool::new(false)), Instant::now());
    let puts = tokio::spawn(putting(store.clone(), stop.clone()));
    if bounded {
        let end = CancellationToken::new();
        let keeping = tokio::spawn(store.clone().keep_collected(end.clone()));
        store
            .change_ledger(|ledger, now| {
                let _ = ledger.alone(now);
            })
            .await
            .expect("durable");
        let mut ledger = store.watch_ledger();
        ledger.wait_for(|ledger| ledger.next_floor().is_none()).await.expect("a store");
        end.cancel();
        keeping.await.expect("no panic");
    } else {
        store.adopt_floor(Floor(now)).await.expect("collected");
    }
    row("  collection, s", format!("{:.1}", began.elapsed().as_secs_f64()));
    stop.store(true, Ordering::Relaxed);
    row("  puts during it", puts.await.expect("no panic"));
    row("  dead records left", store.counts().tombstones);
    for wait in [0, 2, 10] {
        tokio::time::sleep(Duration::from_secs(wait)).await;
        row(&format!("  a page behind the dead, ms, after {wait} s more"), page(&store).await);
    }
    row("  bytes of the directory", bytes(dir.path()));
    drop(store);
    writer.join().expect("no panic");
}

/// Puts with some clients until `stop`; tells how long each took.
async fn putting(store: Store, stop: Arc<AtomicBool>) -> String {
    let clients: Vec<_> = (0..number("KVS_BENCH_CLIENTS", 16))
        .map(|client| {
            let (store, stop) = (store.clone(), stop.clone());
            tokio::spawn(async move {
                let mut took = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let at = format!("puts/{client}/{}", took.len() % 1000);
                    store.write(put(at)).await.expect("written");
                    took.push(began.elapsed());
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for client in clients {
        took.append(&mut client.await.expect("no panic"));
    }
    took.sort_unstable();
    let of = |part: usize| took.get(took.len() * part / 1000).copied().unwrap_or_default();
    let ms = |part| of(part).as_secs_f64() * 1000.0;
    let (p50, p99, p999) = (ms(500), ms(990), ms(999));
    format!("p50 {p50:.2} ms, p99 {p99:.2} ms, p999 {p999:.2} ms, of {}", took.len())
}

/// How long a page of 100 takes whose range begins with the dead.
async fn page(store: &Store) -> String {
    let began = Instant::now();
    let prefix = Prefix::parse("sessions").expect("a prefix");
    let page = store.scan(&prefix, None, 100, None).await.expect("scanned");
    assert_eq!(page.items.len(), 100, "the live ones lie behind the dead");
    format!("{:.1}", began.elapsed().as_secs_f64() * 1000.0)
}

/// What an entry of the index of the dead takes on the disk, after compression.
fn index_bytes(dead: u64) -> u64 {
    let dir = tempfile::tempdir().expect("a directory");
    let fill = |engine: &Rocks, family| {
        for begin in (0..dead).step_by(usize::try_from(BATCH).expect("it fits")) {
            let opened = engine.opened().expect("open");
            let mut transaction = opened.begin();
            for n in begin..dead.min(begin + BATCH) {
                let at = Timestamp::saturating(1_800_000_000_000_000 + 10 * n);
                let at = floor::goes_at(&record(at, None).header).expect("it is dead");
                transaction.put(family, &layout::expiry_key(at.0, &key(n)), &[]).expect("put");
            }
            transaction.commit().expect("committed");
        }
    };
    let engine = Rocks::open(dir.path(), CACHE_BYTES, false).expect("a database");
    fill(&engine, Family::Dead);
    // opening writes all logs to tables
    engine.reopen().expect("open again");
    drop(engine);
    bytes(dir.path()) / dead.max(1)
}

fn bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("a directory");
    entries.map(|entry| entry.and_then(|e| e.metadata()).map_or(0, |m| m.len())).sum()
}
