//! Several clients that load one node, and the book of their writes: those acknowledged, and those
//! without an answer when the node ended.
//!
//! Each client has its own keys, which must hold its last acknowledged write exactly. All clients
//! write to a few shared keys, which must hold the last write of all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kvs::clock::Clock;
use rand::RngExt;
use rand::rngs::StdRng;
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Answer, Client, SOON, ensure, eventually};

const CLIENTS: usize = 8;
const OWN_KEYS: usize = 6;
const SHARED_KEYS: usize = 4;
/// Sizes of values, below and above the size from which the store uses blob files.
const SIZES: [usize; 6] = [0, 10, 100, 1000, 5000, 50_000];

/// What a write leaves in a key.
#[derive(Clone, Debug, PartialEq)]
enum State {
    Value(String),
    Gone,
}

/// An acknowledged write.
#[derive(Clone, Debug)]
struct Acked {
    state: State,
    uuid: String,
    timestamp: u64,
}

/// What the book knows about a key.
#[derive(Clone, Debug, Default)]
struct Fate {
    acked: Option<Acked>,
    /// Writes without an answer: each may have happened.
    under_way: Vec<State>,
}

/// The book over all rounds.
#[derive(Default)]
pub struct Load {
    book: BTreeMap<String, Fate>,
    writes: usize,
    /// Makes each value unique.
    rounds: usize,
}

/// The running clients.
pub struct Running {
    clients: JoinSet<(usize, BTreeMap<String, Fate>)>,
    acked: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

/// What the clients of a round wrote.
pub struct Written {
    books: Vec<BTreeMap<String, Fate>>,
    writes: usize,
}

impl Load {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn writes(&self) -> usize {
        self.writes
    }

    /// Starts the clients on a node.
    pub fn start(&mut self, target: &Client) -> Running {
        self.begin(target, false)
    }

    /// Like [`start`](Self::start), but the clients also end when a stopping node refuses them.
    pub fn start_until_refused(&mut self, target: &Client) -> Running {
        self.begin(target, true)
    }

    fn begin(&mut self, target: &Client, stopping: bool) -> Running {
        self.rounds += 1;
        let (acked, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let worker = Worker {
                client: target.clone(),
                number,
                round: self.rounds,
                book: self.book.clone(),
                rng: Clock::system().rng(),
                sent: 0,
                writes: 0,
                stopping,
            };
            clients.spawn(worker.run(acked.clone(), stop.clone()));
        }
        Running { clients, acked, stop }
    }

    /// Adds the writes of a round to the book.
    pub fn take(&mut self, written: Written) {
        self.writes += written.writes;
        for book in written.books {
            for (key, fate) in book {
                let held = self.book.entry(key).or_default();
                let newer =
                    |a: &Acked| held.acked.as_ref().is_none_or(|h| h.timestamp < a.timestamp);
                if fate.acked.as_ref().is_some_and(newer) {
                    held.acked = fate.acked;
                }
                held.under_way.extend(fate.under_way);
            }
        }
    }

    /// Checks that every key on `node` holds its last acknowledged write or an unanswered one.
    /// Later checks start from what this one finds.
    pub async fn verify(&mut self, node: &Client) {
        for (key, fate) in &mut self.book {
            let answer = node.get(&format!("/kv/{key}?format=envelope")).await;
            let found = match answer.status {
                404 => State::Gone,
                200 => State::Value(node.get(&format!("/kv/{key}")).await.expect(200).text()),
                _ => panic!("{key}: {}", answer.text()),
            };
            let last = fate.acked.as_ref().map_or(State::Gone, |acked| acked.state.clone());
            let allowed = found == last || fate.under_way.contains(&found);
            assert!(allowed, "{key} is {}: {}", short(&found), shown(fate));
            if let (State::Value(_), Some(acked), true) = (&found, &fate.acked, found == last) {
                assert_eq!(answer.json()["uuid"], acked.uuid, "{key}: another version");
            }
            if found != last || found == State::Gone {
                let version = (answer.status == 200).then(|| answer.json());
                fate.acked = version.map(|version| Acked {
                    state: found,
                    uuid: version["uuid"].as_str().expect("a uuid").to_owned(),
                    timestamp: version["timestamp"].as_u64().expect("a timestamp"),
                });
            }
            fate.under_way.clear();
        }
    }
}

fn short(state: &State) -> String {
    match state {
        State::Value(value) => value.chars().take(20).collect(),
        State::Gone => "gone".to_owned(),
    }
}

fn shown(fate: &Fate) -> String {
    let acked = fate.acked.as_ref().map(|a| format!("{} at {}", short(&a.state), a.timestamp));
    let under_way: Vec<_> = fate.under_way.iter().map(short).collect();
    format!("acknowledged {acked:?}, under way {under_way:?}")
}

impl Running {
    /// Waits for `acks` acknowledgements.
    pub async fn reaches(&self, acks: usize) {
        eventually(SOON, "enough is acknowledged", async || {
            let acked = self.acked.load(SeqCst);
            ensure(acked >= acks, || format!("{acked} of {acks}"))
        })
        .await;
    }

    /// Waits until every client has noticed that its node ended.
    pub async fn end(self) -> Written {
        let ended = self.clients.join_all().await;
        let writes = ended.iter().map(|(writes, _)| writes).sum();
        Written { books: ended.into_iter().map(|(_, book)| book).collect(), writes }
    }

    /// Like [`end`](Self::end) after an orderly stop: a write without an answer has not happened.
    pub async fn end_in_order(self) -> Written {
        let mut written = self.end().await;
        for fate in written.books.iter_mut().flat_map(BTreeMap::values_mut) {
            fate.under_way.clear();
        }
        written
    }

    /// Lets every client finish its request.
    pub async fn stop(self) -> Written {
        self.stop.store(true, SeqCst);
        let written = self.end().await;
        let open = written.books.iter().flat_map(BTreeMap::values).any(|f| !f.under_way.is_empty());
        assert!(!open, "a request was not answered");
        written
    }
}

struct Worker {
    client: Client,
    number: usize,
    round: usize,
    book: BTreeMap<String, Fate>,
    rng: StdRng,
    sent: usize,
    writes: usize,
    /// Whether the node may answer that it is stopping.
    stopping: bool,
}

impl Worker {
    /// Writes until `stop` is set or no answer comes; returns what this run learned.
    async fn run(
        mut self,
        acked: Arc<AtomicUsize>,
        stop: Arc<AtomicBool>,
    ) -> (usize, BTreeMap<String, Fate>) {
        // the book already has what earlier rounds learned
        self.book.values_mut().for_each(|fate| fate.under_way.clear());
        while !stop.load(SeqCst) {
            let shared = self.rng.random_range(0..4) == 0;
            let key = if shared {
                format!("shared/{}", self.rng.random_range(0..SHARED_KEYS))
            } else {
                format!("own/{}/{}", self.number, self.rng.random_range(0..OWN_KEYS))
            };
            if !self.write(&key, shared).await {
                break;
            }
            acked.fetch_add(1, SeqCst);
        }
        (self.writes, self.book)
    }

    /// One write; false when no answer came.
    async fn write(&mut self, key: &str, shared: bool) -> bool {
        self.sent += 1;
        let fate = self.book.entry(key.to_owned()).or_default().clone();
        let size = SIZES[self.rng.random_range(0..SIZES.len())];
        let value = format!("{}-{}-{}-{}", self.round, self.number, self.sent, "x".repeat(size));
        let live = fate.acked.as_ref().filter(|acked| acked.state != State::Gone);
        let kind = self.rng.random_range(0..10);
        let (method, path, body, state) = match (kind, live) {
            (0..2, _) => (Method::DELETE, format!("/kv/{key}"), String::new(), State::Gone),
            (2..5, Some(acked)) => {
                let encoded = BASE64_STANDARD.encode(&value);
                let swap = json!({ "expected": { "uuid": acked.uuid }, "data_base64": encoded });
                (Method::POST, format!("/cas/{key}"), swap.to_string(), State::Value(value))
            }
            _ => (Method::PUT, format!("/kv/{key}"), value.clone(), State::Value(value)),
        };
        let held = self.book.get_mut(key).expect("it was entered");
        held.under_way.push(state.clone());
        let answer = self.client.try_send(method, &path, &[], body).await;
        let Ok(answer) = answer else { return false };
        let held = self.book.get_mut(key).expect("it was entered");
        held.under_way.pop();
        match answer.status {
            200 | 201 => {
                let (uuid, timestamp) = (answer.uuid(), answer.timestamp());
                let before = held.acked.as_ref().map_or(0, |acked| acked.timestamp);
                assert!(timestamp > before, "{key}: {timestamp} after {before}");
                held.acked = Some(Acked { state, uuid, timestamp });
                self.writes += 1;
                true
            }
            status => self.refused(&answer, status, key, shared, live.is_some()),
        }
    }

    /// Checks a refusal. On shared keys any may be right; on own keys only one is.
    fn refused(&self, answer: &Answer, status: u16, key: &str, shared: bool, live: bool) -> bool {
        match status {
            404 => assert!(shared || !live, "{key}: {}", answer.text()),
            412 => assert!(shared, "{key}: {}", answer.text()),
            503 if self.stopping => {
                assert_eq!(answer.code(), "shutting_down");
                return false;
            }
            _ => panic!("{key}: {status} {}", answer.text()),
        }
        true
    }
}
