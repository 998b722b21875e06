//! Clients that send every kind of request, retries included, and the book of their writes.
//!
//! A *spot* is written as a whole: one key, or three keys that only transactions write, all three
//! with one token. Each client has its own spots, whose content it knows, and all clients write to
//! a few shared ones. A *named* request (`Idempotency-Key` or `uuid`) is recorded with its
//! answer, to be sent again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use kvs::clock::Clock;
use kvs::model::Timestamp;
use rand::RngExt;
use rand::rngs::StdRng;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Answer, Client, SOON, ensure, eventually};

const CLIENTS: usize = 16;
/// The spots of a client and the shared ones, with one key and with three.
const OWN: (usize, usize) = (4, 2);
const SHARED: (usize, usize) = (3, 2);
/// Sizes of values, below and above the size from which the store uses blob files.
const SIZES: [usize; 6] = [0, 10, 100, 1000, 5000, 50_000];

/// A request as it was sent.
#[derive(Clone, Debug)]
pub struct Request {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: String,
    /// Its idempotency key, if it has one.
    pub uuid: Option<String>,
}

/// What a write leaves in a spot: a token until it expires, or nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    pub token: Option<String>,
    pub ttl_ms: Option<u64>,
}

/// An accepted write.
#[derive(Clone, Debug)]
pub struct Acked {
    pub token: Option<String>,
    pub uuid: String,
    pub timestamp: u64,
    /// In microseconds.
    pub expires_at: Option<u64>,
}

/// A write without an answer.
#[derive(Clone, Debug)]
pub struct UnderWay {
    pub made: Made,
    /// When it was sent, in microseconds.
    pub sent_at: u64,
}

/// What the book knows about a spot.
#[derive(Clone, Debug, Default)]
pub struct Fate {
    pub acked: Option<Acked>,
    pub under_way: Vec<UnderWay>,
}

/// A named request, its answer if one came, and what it leaves in its spot.
#[derive(Clone, Debug)]
pub struct Named {
    pub request: Request,
    pub answer: Option<(u16, Bytes)>,
    pub spot: String,
    pub made: Made,
}

/// What one client learned.
pub struct Learned {
    /// The number of the client.
    pub number: usize,
    pub book: BTreeMap<String, Fate>,
    pub named: Vec<Named>,
    pub writes: usize,
    pub retries: usize,
}

/// The running clients.
pub struct Running {
    clients: JoinSet<Learned>,
    acked: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

/// Microseconds since the epoch by this machine's clock, which the node uses too.
pub fn now() -> u64 {
    Clock::system().now().micros()
}

/// Converts a timestamp of the API into microseconds since the epoch.
pub fn micros(rfc3339: &str) -> u64 {
    Timestamp::from_rfc3339(rfc3339).expect("a time").micros()
}

/// The keys of a spot.
pub fn keys(spot: &str) -> Vec<String> {
    if spot.contains("/three/") {
        ["a", "b", "c"].map(|end| format!("{spot}/{end}")).to_vec()
    } else {
        vec![spot.to_owned()]
    }
}

/// The value of a token. The token determines its length.
fn value(token: &str) -> String {
    let size = token.rsplit('-').next().and_then(|size| size.parse().ok()).expect("a size");
    format!("{token}|{}", "x".repeat(size))
}

/// The token of a value; panics when the value is not whole.
pub fn token_of(found: &str) -> String {
    let token = found.split('|').next().unwrap_or_default().to_owned();
    assert_eq!(value(&token), found, "a value that nobody wrote");
    token
}

impl Request {
    pub async fn send(&self, client: &Client) -> Result<Answer, reqwest::Error> {
        let headers: Vec<_> = self.headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        client.try_send(self.method.clone(), &self.path, &headers, self.body.clone()).await
    }
}

/// Sends a named request again and checks that its first answer comes again.
pub async fn answered_alike(client: &Client, named: &Named) -> Result<(), reqwest::Error> {
    let Some((status, body)) = &named.answer else { return Ok(()) };
    let again = named.request.send(client).await?;
    let alike = again.status == *status && again.body == *body;
    let first = String::from_utf8_lossy(body);
    assert!(
        alike,
        "{:?} is answered anew:\n{status} {first}\n{} {}",
        named.request,
        again.status,
        again.text()
    );
    Ok(())
}

/// The write that an accepting answer describes; `None` for a transaction that wrote nothing.
pub fn accepted(answer: &Answer, made: &Made) -> Option<Acked> {
    let json = answer.json();
    let written = match json.get("succeeded") {
        None => json,
        Some(Value::Bool(true)) => {
            let first = &json["results"][0];
            // the answer to a transaction has no version for a delete
            first.get("put").unwrap_or(&Value::Null).clone()
        }
        Some(_) => return None,
    };
    let expires_at = written["expires_at"].as_str().map(micros);
    assert_eq!(expires_at.is_some(), made.ttl_ms.is_some(), "{}", answer.text());
    Some(Acked {
        token: made.token.clone(),
        uuid: written["uuid"].as_str().unwrap_or_default().to_owned(),
        timestamp: written["timestamp"].as_u64().unwrap_or_default(),
        expires_at,
    })
}

/// Starts the clients on a node; `round` makes their tokens unique.
pub fn start(client: &Client, round: usize, book: &BTreeMap<String, Fate>) -> Running {
    let (acked, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let worker = Worker {
            client: client.clone(),
            round,
            learned: Learned {
                number,
                book: book.clone(),
                named: Vec::new(),
                writes: 0,
                retries: 0,
            },
            rng: Clock::system().rng(),
            sent: 0,
        };
        clients.spawn(worker.run(acked.clone(), stop.clone()));
    }
    Running { clients, acked, stop }
}

impl Running {
    /// Waits for `acks` answers.
    pub async fn reaches(&self, acks: usize) {
        eventually(SOON, "enough is answered", async || {
            let acked = self.acked.load(SeqCst);
            ensure(acked >= acks, || format!("{acked} of {acks}"))
        })
        .await;
    }

    /// Waits until every client has noticed that its node ended.
    pub async fn end(self) -> Vec<Learned> {
        self.clients.join_all().await
    }

    /// Lets every client finish its request.
    pub async fn stop(self) -> Vec<Learned> {
        self.stop.store(true, SeqCst);
        self.end().await
    }
}

struct Worker {
    client: Client,
    round: usize,
    learned: Learned,
    rng: StdRng,
    sent: usize,
}

/// The last accepted write of a spot, if its value may still be live.
fn live(fate: &Fate) -> Option<&Acked> {
    fate.acked.as_ref().filter(|acked| acked.token.is_some())
}

fn expired(acked: &Acked, now: u64) -> bool {
    acked.expires_at.is_some_and(|at| at <= now)
}

impl Worker {
    /// Sends requests until `stop` is set or no answer comes.
    async fn run(mut self, acked: Arc<AtomicUsize>, stop: Arc<AtomicBool>) -> Learned {
        while !stop.load(SeqCst) {
            let spot = self.spot();
            let answered = match self.rng.random_range(0..10) {
                0 => self.retry().await,
                1 if spot.contains("/three/") => self.read(&spot).await,
                _ => self.write(&spot).await,
            };
            if !answered {
                break;
            }
            acked.fetch_add(1, SeqCst);
        }
        self.learned
    }

    fn spot(&mut self) -> String {
        let shared = self.rng.random_range(0..4) == 0;
        let (base, (single, three)) = match shared {
            true => ("shared".to_owned(), SHARED),
            false => (format!("own/{}", self.learned.number), OWN),
        };
        let at = self.rng.random_range(0..single + three);
        if at < single { format!("{base}/one/{at}") } else { format!("{base}/three/{at}") }
    }

    async fn retry(&mut self) -> bool {
        if self.learned.named.is_empty() {
            return true;
        }
        let at = self.rng.random_range(0..self.learned.named.len());
        self.learned.retries += 1;
        answered_alike(&self.client, &self.learned.named[at]).await.is_ok()
    }

    /// Reads three keys in one transaction: all hold the token of one write.
    async fn read(&mut self, spot: &str) -> bool {
        let gets: Vec<_> = keys(spot).iter().map(|key| json!({"get": {"key": key}})).collect();
        let body = json!({"compare": [], "success": gets, "failure": []}).to_string();
        let Ok(answer) = self.client.try_send(Method::POST, "/txn", &[], body).await else {
            return false;
        };
        let json = answer.expect(200).json();
        let tokens = json["results"].as_array().expect("results").iter().map(|result| {
            let data = result["get"]["data_base64"].as_str()?;
            let bytes = BASE64_STANDARD.decode(data).expect("base64");
            Some(token_of(std::str::from_utf8(&bytes).expect("text")))
        });
        let tokens: Vec<_> = tokens.collect();
        assert!(tokens.windows(2).all(|two| two[0] == two[1]), "{spot} is torn: {tokens:?}");
        if spot.starts_with("own/") {
            let fate = self.learned.book.get(spot);
            let expected = fate.and_then(live).and_then(|acked| acked.token.clone());
            assert_eq!(tokens[0], expected, "{spot}: {fate:?}");
        }
        true
    }

    /// Sends one write; returns false when no answer came.
    async fn write(&mut self, spot: &str) -> bool {
        self.sent += 1;
        let fate = self.learned.book.entry(spot.to_owned()).or_default().clone();
        let (mut request, made, expects) = match keys(spot).as_slice() {
            [key] => self.single(key, &fate),
            three => self.three(three, &fate, spot.starts_with("own/")),
        };
        if self.rng.random_range(0..2) == 0 {
            self.name(&mut request);
        }
        let sent_at = now();
        let held = self.learned.book.get_mut(spot).expect("it was entered");
        held.under_way.push(UnderWay { made: made.clone(), sent_at });
        let answer = request.send(&self.client).await.ok();
        let remembered = |answer| Named {
            request: request.clone(),
            answer,
            spot: spot.to_owned(),
            made: made.clone(),
        };
        let Some(answer) = answer else {
            if request.uuid.is_some() {
                self.learned.named.push(remembered(None));
            }
            return false;
        };
        let held = self.learned.book.get_mut(spot).expect("it was entered");
        held.under_way.pop();
        if !(200..300).contains(&answer.status) {
            self.refused(&answer, spot, &fate, &request);
            return true;
        }
        if request.uuid.is_some() {
            self.learned.named.push(remembered(Some((answer.status, answer.body.clone()))));
        }
        let Some(acked) = accepted(&answer, &made) else {
            let alone = spot.starts_with("own/");
            assert!(!alone, "{spot}: {request:?} did not succeed: {fate:?}");
            return true;
        };
        if expects && spot.starts_with("own/") {
            // the expected value cannot have expired yet
            let was_live = live(&fate).is_some_and(|acked| !expired(acked, sent_at));
            assert!(was_live, "{request:?}: {fate:?}");
        }
        if let Some(uuid) = request.uuid.as_ref().filter(|_| !acked.uuid.is_empty()) {
            assert_eq!(*uuid, acked.uuid, "{request:?}");
        }
        held.acked = Some(acked);
        self.learned.writes += 1;
        true
    }

    /// Names the request, by header or in the body.
    fn name(&mut self, request: &mut Request) {
        let uuid = Clock::system().uuid().to_string();
        if request.method == Method::POST && self.rng.random_range(0..2) == 0 {
            let open = request.body.strip_suffix('}').expect("an object");
            request.body = format!("{open},\"uuid\":\"{uuid}\"}}");
        } else {
            request.headers.push(("idempotency-key", uuid.clone()));
        }
        request.uuid = Some(uuid);
    }

    fn token(&mut self) -> String {
        let size = SIZES[self.rng.random_range(0..SIZES.len())];
        format!("{}-{}-{}-{size}", self.round, self.learned.number, self.sent)
    }

    /// Draws a write of one key: the request, what it leaves, and whether it needs a live value.
    fn single(&mut self, key: &str, fate: &Fate) -> (Request, Made, bool) {
        let token = self.token();
        let ttl_ms = match self.rng.random_range(0..8) {
            0 => Some(self.rng.random_range(20..1500)),
            1 => Some(3_600_000),
            _ => None,
        };
        let gone = Made { token: None, ttl_ms: None };
        let made = Made { token: Some(token.clone()), ttl_ms };
        let ttl = ttl_ms.map(|ms| format!("{ms}ms"));
        let query = ttl.as_ref().map_or(String::new(), |ttl| format!("?ttl={ttl}"));
        let text = vec![("content-type", "text/plain".to_owned())];
        let kv = |method, query: &str, headers, body| Request {
            method,
            path: format!("/kv/{key}{query}"),
            headers,
            body,
            uuid: None,
        };
        let cas = |body: Value| Request {
            method: Method::POST,
            path: format!("/cas/{key}"),
            headers: Vec::new(),
            body: body.to_string(),
            uuid: None,
        };
        let encoded = BASE64_STANDARD.encode(value(&token));
        match (self.rng.random_range(0..10), live(fate)) {
            (0, _) => (kv(Method::DELETE, "", Vec::new(), String::new()), gone, true),
            (1, Some(acked)) => {
                (cas(json!({"expected": {"uuid": acked.uuid}, "delete": true})), gone, true)
            }
            (2..5, Some(acked)) => {
                let mut swap = json!({
                    "expected": {"uuid": acked.uuid},
                    "data_base64": encoded,
                    "content_type": "text/plain",
                });
                if let Some(ttl) = ttl {
                    swap["ttl"] = ttl.into();
                }
                (cas(swap), made, true)
            }
            (5, Some(acked)) => {
                let mut headers = text;
                headers.push(("if-match", format!("\"{}\"", acked.uuid)));
                (kv(Method::PUT, &query, headers, value(&token)), made, true)
            }
            _ => (kv(Method::PUT, &query, text, value(&token)), made, false),
        }
    }

    /// Draws a transaction that writes or deletes three keys.
    fn three(&mut self, three: &[String], fate: &Fate, own: bool) -> (Request, Made, bool) {
        let token = self.token();
        let encoded = BASE64_STANDARD.encode(value(&token));
        let put = |key: &String| {
            let value = json!({"key": key, "data_base64": encoded, "content_type": "text/plain"});
            json!({ "put": value })
        };
        let (mut compare, mut made) = (Vec::new(), Made { token: Some(token), ttl_ms: None });
        let mut success: Vec<_> = three.iter().map(put).collect();
        let kind = self.rng.random_range(0..6);
        if kind == 0 && own && live(fate).is_some() {
            success = three.iter().map(|key| json!({"delete": {"key": key}})).collect();
            made.token = None;
        } else if kind < 4 {
            let expected = match live(fate) {
                Some(acked) => json!({"uuid": acked.uuid}),
                None => json!({"absent": true}),
            };
            compare.push(json!({"key": three[1], "expected": expected}));
        }
        let body = json!({"compare": compare, "success": success, "failure": []}).to_string();
        let (method, path) = (Method::POST, "/txn".to_owned());
        (Request { method, path, headers: Vec::new(), body, uuid: None }, made, false)
    }

    /// Checks a refusal. On shared spots any may be right; on own ones only for an absent value.
    fn refused(&self, answer: &Answer, spot: &str, fate: &Fate, request: &Request) {
        let alone = spot.starts_with("own/");
        let dead = live(fate).is_none_or(|acked| expired(acked, now()));
        let expected = matches!(answer.status, 404 | 412) && (!alone || dead);
        assert!(expected, "{spot}, {fate:?}: {request:?}: {} {}", answer.status, answer.text());
    }
}
