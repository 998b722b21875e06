//! Kills, stops and pauses nodes at random while clients write the same keys on every node.
//! Afterwards all nodes agree, and each key holds the greatest acknowledged version, or a greater
//! one whose answer was lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures_util::future::join_all;
use kvs::clock::Clock;
use rand::RngExt;
use rand::rngs::StdRng;
use reqwest::Method;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{Client, Cluster, Node, SOON, Site, ensure, eventually, scale};

const NODES: usize = 3;
const WRITERS: usize = 6;
const KEYS: usize = 12;
const EVENTS: usize = 14;
/// The most writes between two events.
const WRITES_MAX: usize = 150;
/// How long a writer waits for an answer: a paused node gives none.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// What a write leaves in its key: a value, or nothing.
type Made = Option<String>;

/// Everything that the writers know about a key.
#[derive(Default)]
struct History {
    /// The timestamp and the content of each acknowledged write.
    acknowledged: Vec<(u64, Made)>,
    unanswered: Vec<Made>,
}

type Book = BTreeMap<String, History>;

struct Writer {
    number: usize,
    nodes: Vec<watch::Receiver<Client>>,
    rng: StdRng,
    book: Book,
}

impl Writer {
    async fn run(mut self, count: Arc<AtomicUsize>, stop: Arc<AtomicBool>) -> Book {
        let mut sent = 0;
        while !stop.load(SeqCst) {
            sent += 1;
            let node = self.nodes[self.rng.random_range(0..NODES)].borrow().clone();
            let key = format!("key/{}", self.rng.random_range(0..KEYS));
            let value = format!("{}-{sent}", self.number);
            let (method, made) = match self.rng.random_range(0..8) {
                0 => (Method::DELETE, None),
                _ => (Method::PUT, Some(value.clone())),
            };
            let path = format!("/kv/{key}");
            let asked = timeout(ANSWER_WAIT, node.try_send(method, &path, &[], value)).await;
            let history = self.book.entry(key).or_default();
            match asked {
                Ok(Ok(answer)) if answer.status < 300 => {
                    history.acknowledged.push((answer.timestamp(), made));
                    count.fetch_add(1, SeqCst);
                }
                Ok(Ok(answer)) => {
                    let known = ["key_not_found", "syncing", "shutting_down"];
                    assert!(known.contains(&answer.code().as_str()), "{}", answer.text());
                }
                Ok(Err(_)) | Err(_) => history.unanswered.push(made),
            }
        }
        self.book
    }
}

/// Disturbs one node; returns what happened to it.
async fn disturb(cluster: &mut Cluster, at: usize, kind: usize) -> &'static str {
    match kind {
        0 => {
            cluster.replace(at, Node::kill_and_restart).await;
            "killed"
        }
        1 => {
            cluster.nodes[at].stop().await;
            cluster.replace(at, Node::restart).await;
            "stopped"
        }
        2 => {
            let (paused, other) = (&cluster.nodes[at], &cluster.nodes[(at + 1) % NODES]);
            paused.pause();
            other.shows(&paused.id, "down").await;
            paused.resume();
            "paused until it was down"
        }
        _ => {
            // too short for the others to suspect it
            cluster.nodes[at].pause();
            cluster.nodes[(at + 1) % NODES].client.sync_or_not().await;
            cluster.nodes[at].resume();
            "paused"
        }
    }
}

impl Client {
    /// Runs a session with each peer that answers in time.
    async fn sync_or_not(&self) {
        let _ = timeout(Duration::from_millis(500), self.post("/cluster/sync", "")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_random_kills_all_nodes_hold_the_greatest_acknowledged_version() {
    let mut cluster = Site::clustered().cluster(NODES).await;
    let mut rng = Clock::system().rng();
    let clients: Vec<_> =
        cluster.nodes.iter().map(|node| watch::channel(node.client.clone()).0).collect();
    let (count, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let nodes = clients.iter().map(watch::Sender::subscribe).collect();
        let writer = Writer { number, nodes, rng: Clock::system().rng(), book: Book::new() };
        writers.spawn(writer.run(count.clone(), stop.clone()));
    }
    let mut events = Vec::new();
    for _ in 0..EVENTS * scale() {
        let enough = count.load(SeqCst) + rng.random_range(1..WRITES_MAX);
        eventually(SOON, "writes go on", async || {
            let now = count.load(SeqCst);
            ensure(now >= enough, || format!("{now} of {enough}"))
        })
        .await;
        let at = rng.random_range(0..NODES);
        events.push((at + 1, disturb(&mut cluster, at, rng.random_range(0..4)).await));
        clients[at].send_replace(cluster.nodes[at].client.clone());
    }
    stop.store(true, SeqCst);
    let books = writers.join_all().await;
    cluster.converged().await;
    audit(&cluster, books, &events).await;
}

async fn audit(cluster: &Cluster, books: Vec<Book>, events: &[(usize, &str)]) {
    let mut all = Book::new();
    for (key, mut history) in books.into_iter().flatten() {
        let known = all.entry(key).or_default();
        known.acknowledged.append(&mut history.acknowledged);
        known.unanswered.append(&mut history.unanswered);
    }
    let acknowledged: usize = all.values().map(|history| history.acknowledged.len()).sum();
    assert!(acknowledged > EVENTS * 10, "only {acknowledged} writes: this run proves nothing");
    for (key, history) in all {
        let path = format!("/kv/{key}");
        let reads = join_all(cluster.nodes.iter().map(|node| node.client.get(&path))).await;
        let found: Vec<Made> =
            reads.iter().map(|read| (read.status == 200).then(|| read.text())).collect();
        assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "{key}: {found:?}");
        // on one clock two origins seldom give the same timestamp; if they do, either may win
        let greatest = history.acknowledged.iter().map(|(at, _)| *at).max();
        let winners = history.acknowledged.iter().filter(|(at, _)| Some(*at) == greatest);
        let won = winners.map(|(_, made)| made).any(|made| *made == found[0]);
        let lost_answer = history.unanswered.contains(&found[0]);
        let at = reads[0].header("kvs-timestamp").and_then(|at| at.parse::<u64>().ok());
        let newer = found[0].is_none() || at >= greatest;
        assert!(
            won || (lost_answer && newer) || (greatest.is_none() && found[0].is_none()),
            "{key} holds {:?} of {at:?}, greatest acknowledged {greatest:?}; {events:?}",
            found[0],
        );
    }
}
