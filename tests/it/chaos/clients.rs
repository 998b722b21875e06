//! The clients of a chaos run: they put, delete, swap and read the same keys on all nodes, and
//! record each request with the instants of its call and its answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kvs::model::{Timestamp, Version};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::support::linear::Over;
use crate::support::{Answer, Client, SOON, ensure, eventually};

const CLIENTS: usize = 16;
/// Keys that all clients write often, and keys that they write seldom.
const HOT_KEYS: usize = 5;
const WIDE_KEYS: usize = 60;
/// How long a client waits for an answer: a paused node gives none.
const ANSWER_WAIT: Duration = Duration::from_millis(1500);
/// The longest pause between two requests of a client; it leaves time for tests that run beside.
const REST_MAX: Duration = Duration::from_millis(40);
/// One of this many values is so large that the store puts it into a blob file.
const LARGE_EVERY: usize = 16;

/// One request and its result.
pub struct Event {
    pub client: usize,
    pub key: String,
    pub from: Duration,
    pub to: Duration,
    pub asked: Asked,
    /// The node and its answer; `None` without an answer or when the outcome is unknown.
    pub answer: Option<(Uuid, Told)>,
}

#[derive(Clone, Debug)]
pub enum Asked {
    Read,
    /// Writes a value or a delete, if the key is as `over` expects.
    Write {
        made: Option<String>,
        over: Over,
        by_swap: bool,
    },
}

/// What an answer says about a key.
#[derive(Clone, Debug)]
pub enum Told {
    /// The write succeeded; whether it created the key, where the answer says so.
    Wrote { uuid: Uuid, timestamp: Timestamp, created: Option<bool> },
    /// This is the current value.
    Saw { version: Version, value: String },
    /// There is no live value.
    SawNothing,
}

/// The running clients.
pub struct Crowd {
    tasks: JoinSet<Vec<Event>>,
    answered: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    began: Instant,
}

impl Crowd {
    /// Starts clients on the nodes. A restarted node publishes its new client in `nodes`.
    pub fn start(nodes: &[watch::Receiver<Client>], seed: u64) -> Self {
        let (answered, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for number in 0..CLIENTS {
            let one = One {
                number,
                nodes: nodes.to_vec(),
                rng: StdRng::seed_from_u64(seed.wrapping_add(number as u64)),
                began,
                known: BTreeMap::new(),
                events: Vec::new(),
            };
            tasks.spawn(one.run(answered.clone(), stop.clone()));
        }
        Self { tasks, answered, stop, began }
    }

    /// The current time on the scale of [`Event`]s.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Waits until `count` more requests have been answered.
    pub async fn goes_on(&self, count: usize) {
        let enough = self.answered.load(SeqCst) + count;
        eventually(SOON, "clients get answers", async || {
            let now = self.answered.load(SeqCst);
            ensure(now >= enough, || format!("{now} of {enough}"))
        })
        .await;
    }

    /// Stops the clients and returns all events.
    pub async fn end(self) -> Vec<Event> {
        self.stop.store(true, SeqCst);
        self.tasks.join_all().await.into_iter().flatten().collect()
    }
}

struct One {
    number: usize,
    nodes: Vec<watch::Receiver<Client>>,
    rng: StdRng,
    began: Instant,
    /// The version that this client last saw, by node and key.
    known: BTreeMap<(usize, String), Uuid>,
    events: Vec<Event>,
}

impl One {
    async fn run(mut self, answered: Arc<AtomicUsize>, stop: Arc<AtomicBool>) -> Vec<Event> {
        while !stop.load(SeqCst) {
            // mostly its own node, so that every part of a cut cluster gets requests
            let own = self.number % self.nodes.len();
            let any = self.rng.random_range(0..self.nodes.len());
            let node = if self.rng.random_bool(0.8) { own } else { any };
            let key = match self.rng.random_range(0..10) {
                0..7 => format!("hot/{}", self.rng.random_range(0..HOT_KEYS)),
                _ => format!("wide/{}", self.rng.random_range(0..WIDE_KEYS)),
            };
            let asked = self.choose(node, &key);
            if self.ask(node, key, asked).await {
                answered.fetch_add(1, SeqCst);
            }
            sleep(REST_MAX.mul_f64(self.rng.random_range(0.0..1.0))).await;
        }
        self.events
    }

    fn choose(&mut self, node: usize, key: &str) -> Asked {
        let known = self.known.get(&(node, key.to_owned())).copied();
        let value = || {
            let long = self.events.len().is_multiple_of(LARGE_EVERY);
            let padding = if long { "x".repeat(6000) } else { String::new() };
            Some(format!("{}-{}{padding}", self.number, self.events.len()))
        };
        let by_swap = self.rng.random_bool(0.6);
        let (made, over) = match (self.rng.random_range(0..20), known) {
            (0..5, _) | (9..15, None) => return Asked::Read,
            (5..8, _) => (value(), Over::Anything),
            (8, _) => (value(), Over::Live),
            (9..14, Some(uuid)) => (value(), Over::Exactly(uuid)),
            (14, Some(uuid)) => (None, Over::Exactly(uuid)),
            (15..18, _) => (value(), Over::Nothing),
            _ => (None, Over::Live),
        };
        Asked::Write { made, over, by_swap }
    }

    /// Sends a request and records it; returns whether an answer came.
    async fn ask(&mut self, at: usize, key: String, asked: Asked) -> bool {
        let node = self.nodes[at].borrow().clone();
        let from = self.began.elapsed();
        let sent = timeout(ANSWER_WAIT, send(&node, &key, &asked)).await;
        let to = self.began.elapsed();
        let answer = match sent {
            Ok(Ok(answer)) => match judge(&asked, &answer) {
                Judged::Told(told) => {
                    let id = answer.header("kvs-node").and_then(|id| id.parse().ok());
                    Some((id.expect("every answer names its node"), told))
                }
                Judged::Refused => return false,
                Judged::Unknown => None,
            },
            // the request never reached the node
            Ok(Err(error)) if error.is_connect() => return false,
            Ok(Err(_)) | Err(_) => None,
        };
        if let Some((_, Told::Wrote { uuid, .. })) = &answer {
            self.known.insert((at, key.clone()), *uuid);
        } else if let Some((_, Told::Saw { version, .. })) = &answer {
            self.known.insert((at, key.clone()), version.uuid);
        }
        let told = answer.is_some();
        self.events.push(Event { client: self.number, key, from, to, asked, answer });
        told
    }
}

async fn send(node: &Client, key: &str, asked: &Asked) -> Result<Answer, reqwest::Error> {
    let path = format!("/kv/{key}");
    let Asked::Write { made, over, by_swap } = asked else {
        return node.try_send(Method::GET, &format!("{path}?format=envelope"), &[], "").await;
    };
    if *by_swap && *over != Over::Anything && (made.is_some() || *over != Over::Live) {
        let mut body = match made {
            Some(value) => json!({ "data_base64": BASE64_STANDARD.encode(value) }),
            None => json!({ "delete": true }),
        };
        body["expected"] = match over {
            Over::Exactly(uuid) => json!({ "uuid": uuid }),
            Over::Nothing => json!({ "absent": true }),
            Over::Live | Over::Anything => json!({ "exists": true }),
        };
        return node.try_send(Method::POST, &format!("/cas/{key}"), &[], body.to_string()).await;
    }
    let tag = match over {
        Over::Exactly(uuid) => format!("\"{uuid}\""),
        _ => "*".to_owned(),
    };
    let headers = match (over, made) {
        (Over::Anything, _) | (Over::Live, None) => vec![],
        (Over::Exactly(_) | Over::Live, _) => vec![("if-match", tag.as_str())],
        (Over::Nothing, _) => vec![("if-none-match", tag.as_str())],
    };
    let method = if made.is_some() { Method::PUT } else { Method::DELETE };
    node.try_send(method, &path, &headers, made.clone().unwrap_or_default()).await
}

enum Judged {
    Told(Told),
    /// The request had no effect and shows nothing about the key.
    Refused,
    /// The outcome is unknown.
    Unknown,
}

fn judge(asked: &Asked, answer: &Answer) -> Judged {
    let write = matches!(asked, Asked::Write { .. });
    let told = match (answer.status, write, answer.code().as_str()) {
        (200 | 201, true, _) => {
            let body = answer.json();
            check_previous(asked, &body);
            let by_put = matches!(asked, Asked::Write { made: Some(_), by_swap: false, .. });
            Told::Wrote {
                uuid: answer.uuid().parse().expect("a uuid"),
                timestamp: Timestamp::saturating(answer.timestamp()),
                created: match body.get("previous") {
                    Some(previous) => Some(previous.is_null()),
                    None => by_put.then_some(answer.status == 201),
                },
            }
        }
        (200, false, _) => saw(&answer.json()),
        (404, _, "key_not_found") => Told::SawNothing,
        (412, true, "precondition_failed") => {
            let body = answer.json();
            match &body["current"] {
                Value::Null => Told::SawNothing,
                current => saw(current),
            }
        }
        (503, _, "syncing" | "clock_skewed" | "overloaded" | "shutting_down" | "storage_full") => {
            return Judged::Refused;
        }
        (500, _, "internal") => return if write { Judged::Unknown } else { Judged::Refused },
        _ => panic!("{asked:?} was answered {}: {}", answer.status, answer.text()),
    };
    Judged::Told(told)
}

/// Checks that a swap replaced the version that it expected.
fn check_previous(asked: &Asked, body: &Value) {
    if let (Asked::Write { over: Over::Exactly(uuid), .. }, Some(previous)) =
        (asked, body.get("previous"))
    {
        assert_eq!(previous["uuid"], json!(uuid), "{asked:?} was answered {body}");
    }
}

fn saw(envelope: &Value) -> Told {
    let text = |name: &str| envelope[name].as_str().unwrap_or_else(|| panic!("{envelope}"));
    let version = Version {
        timestamp: Timestamp::saturating(envelope["timestamp"].as_u64().expect("a timestamp")),
        origin_joined_at: Timestamp::from_rfc3339(text("origin_joined_at")).expect("a time"),
        uuid: text("uuid").parse().expect("a uuid"),
    };
    let bytes = BASE64_STANDARD.decode(text("data_base64")).expect("base64");
    Told::Saw { version, value: String::from_utf8(bytes).expect("text") }
}
