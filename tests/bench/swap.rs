//! The cost of conditional writes, transactions, retries, expiry and history in time, disk and
//! memory, compared to plain puts of the same run.
//!
//! `cargo bench --bench swap` measures real nodes of the release build over HTTP, the store alone
//! in this process, and RocksDB alone. `KVS_BENCH_SECONDS` (2) sets the time for each rate,
//! `KVS_BENCH_CLIENTS` (64) the clients, `KVS_BENCH_RECORDS` (50000) the records for the sizes. It
//! asserts nothing: machines are shared and noisy.

#![allow(clippy::disallowed_methods, reason = "time is real here")]

#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the integration tests use the rest")]
mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use kvs::clock::Clock;
use kvs::model::{ContentType, Key};
use kvs::store::engine::{Engine as _, Family};
use kvs::store::rocks::Rocks;
use kvs::store::{Change, Lifetime, Settings, Store, Write};
use kvs::telemetry::Metrics;
use reqwest::Method;
use serde_json::{Value, json};
use support::{Client, Node, Site};

const DEPTH: u32 = 8;
/// Concurrent writers that fill a store.
const FILLERS: usize = 256;
/// Overwrites that fill a history of [`DEPTH`] and drop its oldest revision.
const OVERWRITES: usize = 9;

fn number(name: &str, otherwise: usize) -> usize {
    let text = std::env::var(name).ok();
    text.map_or(otherwise, |text| text.parse().expect("a whole number"))
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let span = Duration::from_secs(number("KVS_BENCH_SECONDS", 2) as u64);
        let raw = raw_rate(span);
        row("raw RocksDB, groups of 64 puts of 100 B, a sync each, puts/s", format!("{raw:.0}"));
        for depth in [DEPTH, 0] {
            println!("\n{}", if depth > 0 { "history on (depth 8)" } else { "history off" });
            store_rates(span, depth).await;
            node_rates(span, depth > 0).await;
        }
        println!();
        sizes().await;
    });
}

fn row(what: &str, value: impl std::fmt::Display) {
    println!("{what:<66} {value}");
}

/// A rate, compared to that of plain puts.
fn ratio_row(what: &str, rate: f64, puts: f64) {
    row(what, format!("{rate:.0} ({:.2} of puts)", rate / puts));
}

/// Bytes that do not compress, different for each `n`.
fn noise(n: usize) -> Bytes {
    let mut bytes = vec![0; 100];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&n.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// Puts a second of the engine alone.
fn raw_rate(span: Duration) -> f64 {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Rocks::open(dir.path(), 64 << 20, true).expect("it opens");
    let (began, mut done) = (Instant::now(), 0_u32);
    while began.elapsed() < span {
        let opened = engine.opened().expect("it is open");
        let mut transaction = opened.begin();
        for _ in 0..64 {
            let key = format!("b/{done}");
            transaction.put(Family::Records, key.as_bytes(), &noise(0)).expect("it is put");
            done += 1;
        }
        transaction.commit().expect("it is durable");
    }
    f64::from(done) / began.elapsed().as_secs_f64()
}

/// Operations a second of clients that repeat `act`, which gets the number of the client and of its
/// earlier operations.
async fn rate(span: Duration, act: impl AsyncFn(usize, usize)) -> f64 {
    let act = &act;
    let began = Instant::now();
    let clients = (0..number("KVS_BENCH_CLIENTS", 64)).map(|client| async move {
        let mut done = 0_usize;
        while began.elapsed() < span {
            act(client, done).await;
            done += 1;
        }
        done
    });
    let done: usize = join_all(clients).await.into_iter().sum();
    f64::from(u32::try_from(done).expect("few")) / began.elapsed().as_secs_f64()
}

// --- the store alone -----------------------------------------------------------------------------

struct Opened {
    store: Store,
    writer: std::thread::JoinHandle<()>,
}

impl Opened {
    fn new(dir: &Path, sync: bool, history_depth: u32) -> Self {
        let settings = Settings {
            feed_entries_max: 16,
            feed_bytes_max: 64 << 20,
            superseded_bytes_max: 64 << 20,
            free_bytes_min: 0,
            boot: None,
            history_depth,
            idempotency_bytes_max: 4 << 30,
            ..Settings::default()
        };
        let engine = Arc::new(Rocks::open(dir, 64 << 20, sync).expect("it opens"));
        let opened = Store::open(engine, Clock::system(), Metrics::new(), &settings);
        let (store, writer) = opened.expect("the store opens");
        let writer = std::thread::spawn(move || writer.run_blocking());
        Self { store, writer }
    }

    fn close(self) {
        drop(self.store);
        self.writer.join().expect("the writer ends");
    }
}

fn put(key: &str, n: usize, lifetime: Lifetime, named: bool) -> Write {
    Write {
        key: Key::parse(key).expect("a key"),
        change: Change::put(ContentType::octet_stream(), noise(n), lifetime),
        conditions: Vec::new(),
        uuid: named.then(|| Clock::system().uuid()),
    }
}

async fn store_rates(span: Duration, depth: u32) {
    let dir = tempfile::tempdir().expect("a directory");
    let opened = Opened::new(dir.path(), true, depth);
    let store = &opened.store;
    let hour = Lifetime::For(Duration::from_secs(3600));
    let puts = async |lifetime, named| {
        rate(span, async |client, n| {
            // each client writes the same thousand keys, so that it replaces records
            let write = put(&format!("k/{client}/{}", n % 1000), n, lifetime, named);
            store.write(write).await.expect("it is written");
        })
        .await
    };
    let plain = puts(Lifetime::Unbounded, false).await;
    row("store alone, in this process: puts of 100 B/s", format!("{plain:.0}"));
    ratio_row("  with a uuid", puts(Lifetime::Unbounded, true).await, plain);
    ratio_row("  with a lifetime", puts(hour, false).await, plain);
    opened.close();
}

// --- a node over HTTP ----------------------------------------------------------------------------

async fn node_rates(span: Duration, history: bool) {
    let site = Site::alone().set("revision_history_enabled", history);
    let node = site.node("n1", &[]).await;
    let client = &node.client;
    let key = |client: usize, n: usize| format!("k/{client}/{}", n % 1000);
    let puts = async |query: &'static str, named: bool| {
        rate(span, async |number, n| {
            let path = format!("/kv/{}{query}", key(number, n));
            let uuid = Clock::system().uuid().to_string();
            let headers: &[_] = if named { &[("idempotency-key", uuid.as_str())] } else { &[] };
            let answer = client.send(Method::PUT, &path, headers, noise(n)).await;
            assert!(answer.status < 300, "{}", answer.text());
        })
        .await
    };
    let plain = puts("", false).await;
    row("a node over HTTP: puts of 100 B/s", format!("{plain:.0}"));
    ratio_row("  with a uuid", puts("", true).await, plain);
    ratio_row("  with ?ttl=1h", puts("?ttl=1h", false).await, plain);
    let many = rate(span, async |number, n| {
        let body = json!({"expected": {"exists": true}, "data": n}).to_string();
        client.post(&format!("/cas/{}", key(number, n % 500)), body).await.expect(200);
    });
    ratio_row("  swaps of many keys/s (expecting a value)", many.await, plain);
    let txns = rate(span, async |number, n| {
        let put = |part: &str| {
            let key = format!("t/{number}/{}/{part}", n % 500);
            json!({"put": {"key": key, "data": n}})
        };
        let compare = json!([{"key": key(number, n), "expected": {"exists": true}}]);
        let success = [put("a"), put("b"), put("c")];
        let body = json!({"compare": compare, "success": success, "failure": []}).to_string();
        client.post("/txn", body).await.expect(200);
    });
    ratio_row("  transactions of one compare and three puts/s", txns.await, plain);
    hot(client, span, plain).await;
}

/// The result of one client of the hot key: its swaps, its refusals, and its waits.
struct Contender {
    tries: usize,
    waits: Vec<Duration>,
    total: Duration,
}

/// All clients swap one key. Each expects the uuid from its last answer; a wait is the time
/// from its first attempt to its success.
async fn hot(client: &Client, span: Duration, puts: f64) {
    let first = client.put("/kv/hot", "0").await;
    assert!(first.status < 300, "{}", first.text());
    let uuid = first.uuid();
    let clients = number("KVS_BENCH_CLIENTS", 64);
    let began = Instant::now();
    let contend = async || {
        let (mut uuid, mut wanted) = (uuid.clone(), Instant::now());
        let mut contender = Contender { tries: 0, waits: Vec::new(), total: Duration::ZERO };
        while began.elapsed() < span {
            let body = json!({"expected": {"uuid": uuid}, "data": contender.tries}).to_string();
            let answer = client.post("/cas/hot", body).await;
            contender.tries += 1;
            let json: Value = answer.json();
            uuid = match answer.status {
                200 => json["uuid"].as_str(),
                _ => json["current"]["uuid"].as_str(),
            }
            .expect("a uuid")
            .to_owned();
            if answer.status == 200 {
                contender.waits.push(wanted.elapsed());
                wanted = Instant::now();
            }
        }
        // a client that still waits has waited this long
        contender.total = wanted.elapsed();
        contender
    };
    let contenders = join_all((0..clients).map(|_| contend())).await;
    let took = began.elapsed().as_secs_f64();
    let done: usize = contenders.iter().map(|c| c.waits.len()).sum();
    let tries: usize = contenders.iter().map(|c| c.tries).sum();
    let rate = f64::from(u32::try_from(done).expect("few")) / took;
    ratio_row("  swaps of one hot key/s (each expects the uuid it read last)", rate, puts);
    let tried = f64::from(u32::try_from(tries).expect("few")) / took;
    row("    answers/s on it, refusals included", format!("{tried:.0}"));
    let mean = |c: &Contender| {
        let (waits, count) = (&c.waits, u32::try_from(c.waits.len()).expect("few"));
        // a client without a success has waited for the whole run
        if count == 0 { c.total } else { waits.iter().sum::<Duration>() / count }
    };
    shown("    mean wait of a client for a swap", contenders.iter().map(mean).collect());
    let longest = |c: &Contender| c.waits.iter().copied().max().unwrap_or(c.total).max(c.total);
    shown("    longest wait of a client for a swap", contenders.iter().map(longest).collect());
}

/// The median client, the slowest, and their ratio.
fn shown(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    let ratio = slowest.as_secs_f64() / median.as_secs_f64();
    row(what, format!("median {median:.1?}, slowest {slowest:.1?} ({ratio:.1} times)"));
}

// --- sizes ---------------------------------------------------------------------------------------

/// Bytes on the disk and in memory for records of 100 B.
async fn sizes() {
    let records = number("KVS_BENCH_RECORDS", 50_000);
    let empty = Site::alone().node("n1", &[]).await.memory_now();
    println!(
        "{records} records of 100 B that do not compress, keys of 14 B; bytes a record, after"
    );
    println!(
        "reopening (which writes all to tables); memory: a node that was started on them, less"
    );
    println!("an empty one; the digest of all keys, and what of them is in the block cache");
    let hour = Lifetime::For(Duration::from_secs(3600));
    let forever = Lifetime::Unbounded;
    sized("written once", records, (forever, false), (1, 0), empty).await;
    sized("  with a lifetime", records, (hour, false), (1, 0), empty).await;
    sized("  with a uuid (remembered)", records, (forever, true), (1, 0), empty).await;
    let times = OVERWRITES + 1;
    sized("overwritten 9 times, no history", records, (forever, false), (times, 0), empty).await;
    let kept = (times, DEPTH);
    sized("overwritten 9 times, history of 8", records, (forever, false), kept, empty).await;
    sized("  with a lifetime", records, (hour, false), kept, empty).await;
}

async fn sized(
    what: &str,
    records: usize,
    (lifetime, named): (Lifetime, bool),
    (times, depth): (usize, u32),
    empty: u64,
) {
    let site = Site::alone()
        .set("revision_history_enabled", depth > 0)
        .set("limits.idempotency_bytes_max", 4_i64 << 30);
    let place = site.place("n1", &[]);
    let dir = place.data_dir().join("db");
    std::fs::create_dir_all(&dir).expect("a directory");
    let opened = Opened::new(&dir, false, depth);
    for time in 0..times {
        fill(&opened.store, records, time, lifetime, named).await;
    }
    opened.close();
    // restarts turn the log into tables; two of them, because the first leaves its own log
    for _ in 0..2 {
        Opened::new(&dir, false, depth).close();
    }
    let (tables, logs) = disk(&dir);
    let node: Node = place.start().await;
    let memory = node.memory_now().saturating_sub(empty);
    let each = |bytes: u64| bytes / records as u64;
    row(what, format!("disk {} (and logs {}), memory {}", each(tables), each(logs), each(memory)));
}

async fn fill(store: &Store, records: usize, time: usize, lifetime: Lifetime, named: bool) {
    let fillers = (0..FILLERS).map(|filler| async move {
        for n in (filler..records).step_by(FILLERS) {
            let write = put(&format!("bytes/{n:08}"), n + time * records, lifetime, named);
            store.write(write).await.expect("it is written");
        }
    });
    join_all(fillers).await;
}

/// Bytes of the database's tables and blobs, and of its logs.
fn disk(dir: &Path) -> (u64, u64) {
    let (mut tables, mut logs) = (0, 0);
    for file in std::fs::read_dir(dir).expect("a directory").map(|file| file.expect("a file")) {
        let bytes = file.metadata().map_or(0, |found| found.len());
        let path = file.path();
        match path.extension().and_then(|end| end.to_str()) {
            Some("sst" | "blob") => tables += bytes,
            Some("log") => logs += bytes,
            _ => {}
        }
    }
    (tables, logs)
}
