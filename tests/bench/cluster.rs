//! The cost of a node, as ratios against a baseline of the same run.
//!
//! `cargo bench --bench cluster` starts real nodes of the release build on this machine and prints
//! a table. Nothing is asserted: machines are shared and noisy.

#![allow(clippy::disallowed_methods, reason = "time is real here")]

#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the integration tests use the rest")]
mod support;

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use kvs::store::engine::{Engine, Family};
use kvs::store::rocks::Rocks;
use support::{Client, Cluster, Node, SOON, Site, ensure, eventually};

/// Records of the large store.
const RECORDS: usize = 60_000;
/// How long each rate is measured.
const SPAN: Duration = Duration::from_secs(3);
/// Connections that load one node.
const CLIENTS: usize = 64;
/// Writes whose delay to another node is measured.
const VISIBLE_WRITES: usize = 500;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        rates().await;
        visible().await;
        sessions().await;
    });
}

fn row(what: &str, value: impl std::fmt::Display) {
    println!("{what:<58} {value}");
}

/// Operations a second of `CLIENTS` clients that repeat `act`.
async fn rate(client: &Client, act: impl AsyncFn(&Client, usize) + Copy) -> f64 {
    let began = Instant::now();
    let clients = (0..CLIENTS).map(|number| async move {
        let mut done = 0_usize;
        while began.elapsed() < SPAN {
            act(client, number * 1_000_000 + done).await;
            done += 1;
        }
        done
    });
    let done: usize = join_all(clients).await.into_iter().sum();
    f64::from(u32::try_from(done).expect("few")) / began.elapsed().as_secs_f64()
}

/// Writes and reads of one node, compared to RocksDB alone on the same disk.
async fn rates() {
    let site = Site::alone();
    let node = site.node("n1", &[]).await;
    let client = &node.client;
    let raw = raw_group_rate(CLIENTS);
    row("raw RocksDB, groups of 64 puts of 100 B, a sync each, puts/s", format!("{raw:.0}"));
    let bare = rate(client, async |c, _| drop(c.get("/health/live").await)).await;
    row("HTTP and nothing behind it (GET /health/live), requests/s", format!("{bare:.0}"));
    let value = vec![b'v'; 100];
    let value = &value;
    let puts =
        rate(client, async |c, n| drop(c.put(&format!("/kv/b/{n}"), value.clone()).await)).await;
    row(
        "durable PUT of 100 B, 64 clients, puts/s",
        format!("{puts:.0} ({:.2} of bare)", puts / bare),
    );
    let gets = rate(client, async |c, n| drop(c.get(&format!("/kv/b/{n}")).await)).await;
    row("GET, 64 clients, gets/s", format!("{gets:.0} ({:.2} of bare)", gets / bare));
    let swaps = rate(client, async |c, _| {
        let body = r#"{"expected":{"exists":true},"data":1}"#;
        drop(c.post("/cas/b/0", body).await);
    });
    let swaps = swaps.await;
    row(
        "swap of one hot key, 64 clients, swaps/s",
        format!("{swaps:.0} ({:.2} of PUT)", swaps / puts),
    );
}

/// Puts a second of the engine alone, in groups of `group`.
fn raw_group_rate(group: usize) -> f64 {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Rocks::open(dir.path(), 64 << 20, true).expect("it opens");
    let (began, mut done) = (Instant::now(), 0_u32);
    while began.elapsed() < SPAN {
        let opened = engine.opened().expect("it is open");
        let mut transaction = opened.begin();
        for _ in 0..group {
            let key = format!("b/{done}");
            transaction.put(Family::Records, key.as_bytes(), &[b'v'; 100]).expect("it is put");
            done += 1;
        }
        transaction.commit().expect("it is durable");
    }
    f64::from(done) / began.elapsed().as_secs_f64()
}

/// The time from sending a write until another node serves it.
async fn visible() {
    let cluster = Site::clustered().set("sync.interval", "1h").cluster(3).await;
    let (near, far) = (&cluster.nodes[0].client, &cluster.nodes[1].client);
    let (mut acked, mut seen) = (Vec::new(), Vec::new());
    for n in 0..VISIBLE_WRITES {
        let path = format!("/kv/v/{n}");
        let began = Instant::now();
        near.put(&path, "value").await.expect(201);
        acked.push(began.elapsed());
        while far.get(&path).await.status != 200 {}
        seen.push(began.elapsed());
    }
    row("PUT acknowledged, one client, p50 / p99", quantiles(&mut acked));
    row("PUT sent to visible on another node, p50 / p99", quantiles(&mut seen));
    row("memory of an idle node of three", memory(&cluster.nodes[2]));
}

fn quantiles(times: &mut [Duration]) -> String {
    times.sort();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    format!("{:.1?} / {:.1?}", at(50), at(99))
}

fn memory(node: &Node) -> String {
    format!("{} MB", node.memory_now() / 1_000_000)
}

/// The cost of sessions, without push.
async fn sessions() {
    let site = Site::clustered().set("sync.push", false).set("sync.interval", "1h");
    let mut cluster = site.cluster(3).await;
    let mut lines = String::new();
    for n in 0..RECORDS {
        let value = format!("value {n} ").repeat(15);
        let _ = writeln!(lines, r#"{{"key":"app/{}/{n}","data":{{"v":"{value}"}}}}"#, n % 100);
    }
    let file = cluster.site.file("records.ndjson");
    fs::write(&file, &lines).expect("a file");
    row("the large store: records / bytes of NDJSON", format!("{RECORDS} / {}", lines.len()));
    let began = Instant::now();
    support::command::kvs(["--url", cluster.nodes[0].url(), "import", &file]).expect(0);
    row("kvs import into one node", format!("{:.1?}", began.elapsed()));
    cluster.nodes[0].client.sync().await;
    cluster.converged().await;
    row("memory of a node with them", memory(&cluster.nodes[0]));
    for differing in [0, 1, 1000] {
        session(&cluster, differing).await;
    }
    empty_third(&mut cluster).await;
}

/// One session over `differing` differences, spread over the key order.
async fn session(cluster: &Cluster, differing: usize) {
    for n in 0..differing {
        let n = n * (RECORDS / differing.max(1)) + 7;
        let path = format!("/kv/app/{}/{n}", n % 100);
        cluster.nodes[0].client.put(&path, vec![b'x'; 150]).await.expect(200);
    }
    let answer = cluster.nodes[1].client.sync().await;
    let id = &cluster.nodes[0].id;
    let peers = answer["peers"].as_array().expect("peers");
    let peer = peers.iter().find(|peer| peer["id"] == *id).expect("the first node");
    let (sent, received) = (&peer["bytes_sent"], &peer["bytes_received"]);
    let (rounds, took) = (&peer["rounds"], &peer["duration_ms"]);
    let what = format!("session, {differing} of {RECORDS} differ: sent / received / rounds");
    row(&what, format!("{sent} B / {received} B / {rounds}, {took} ms"));
    cluster.nodes[2].client.sync().await;
}

async fn empty_third(cluster: &mut Cluster) {
    let mut third = cluster.nodes.remove(2);
    third.stop().await;
    fs::remove_dir_all(third.place.data_dir()).expect("its data");
    let began = Instant::now();
    let third = third.restart().await;
    eventually(SOON, "the empty node has everything", async || {
        let keys = third.client.cluster().await["keys"].as_u64();
        ensure(keys == Some(RECORDS as u64), || format!("{keys:?}"))
    })
    .await;
    row("empty third node: start to all records", format!("{:.1?}", began.elapsed()));
    let received = third
        .client
        .metric("kvs_peer_bytes_total", &[("direction", "received"), ("stream", "session")]);
    row("empty third node: bytes received in sessions", received.await);
}
