//! HTTP: any request of a client, compared with a plain map.
//!
//! The real routes over a real store. For all requests: no 5xx, each refusal is a problem of the
//! contract, a refusal changes nothing, and an accepted write reads back as the client meant it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, Uri};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::BodyExt;
use kvs::cli::lines::Line;
use kvs::config::Config;
use kvs::http::{Outlook, State};
use kvs::model::{Key, Member};
use kvs::store::Store;
use kvs::telemetry::Metrics;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

use super::json::Reader;
use super::script::{Pen, Script};
use super::session::{Side, Still};

const REQUESTS_MAX: usize = 24;
/// Small, so that requests reach the limits.
const VALUE_BYTES_MAX: usize = 200;
const BODY_BYTES_MAX: usize = 600;
const OPERATIONS_MAX: usize = 4;

/// The codes of the contract, with their statuses.
const CODES: [(&str, u16); 29] = [
    ("bad_request", 400),
    ("bad_key", 400),
    ("bad_json", 400),
    ("bad_duration", 400),
    ("bad_cursor", 400),
    ("unknown_field", 400),
    ("key_not_found", 404),
    ("revision_not_found", 404),
    ("no_such_route", 404),
    ("member_not_found", 404),
    ("method_not_allowed", 405),
    ("request_timeout", 408),
    ("idempotency_mismatch", 409),
    ("precondition_failed", 412),
    ("value_too_large", 413),
    ("body_too_large", 413),
    ("key_too_long", 413),
    ("too_many_operations", 413),
    ("unsupported_media", 415),
    ("range_not_satisfiable", 416),
    ("feature_disabled", 501),
    ("read_only", 503),
    ("syncing", 503),
    ("clock_skewed", 503),
    ("shutting_down", 503),
    ("storage_full", 503),
    ("overloaded", 503),
    ("unauthenticated", 401),
    ("forbidden", 403),
];

// --- the node ------------------------------------------------------------------------------------

/// The map's record of a key's live value.
#[derive(Clone, Debug, PartialEq)]
struct Held {
    body: Vec<u8>,
    content_type: String,
    uuid: String,
    timestamp: u64,
}

struct Node {
    router: Router,
    store: Store,
    side: Side,
    map: BTreeMap<String, Held>,
    /// The last timestamp of every key that ever existed.
    last: BTreeMap<String, u64>,
    /// The uuids of requests, by key; transactions have the empty key.
    names: BTreeMap<(String, String), Remembered>,
}

/// What is known of an accepted request with a uuid.
struct Remembered {
    /// The request, if it can be retried.
    request: Option<String>,
    status: StatusCode,
    body: Bytes,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    /// Whether the store was replaced by another one.
    changed: bool,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("an answer in JSON")
    }

    fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII")).unwrap_or_default()
    }
}

fn config() -> Arc<Config> {
    static CONFIG: OnceLock<Arc<Config>> = OnceLock::new();
    let make = || {
        let mut config = Config::defaults().expect("they are sane");
        config.limits.value_bytes_max = VALUE_BYTES_MAX;
        config.limits.body_bytes_max = BODY_BYTES_MAX;
        config.limits.txn_operations_max = OPERATIONS_MAX;
        Arc::new(config)
    };
    CONFIG.get_or_init(make).clone()
}

impl Node {
    fn new() -> Self {
        let (side, config) = (Side::new(1), config());
        let store = side.store.clone();
        let me = Member { id: store.identity().node, ..super::frame::member() };
        let state = State {
            store: store.clone(),
            config,
            metrics: Metrics::new(),
            clock: Still::clock(2),
            me,
            cluster_id: None,
            members: watch::channel(Vec::new()).1,
            peers: watch::channel(BTreeMap::new()).1,
            sync: mpsc::channel(1).0,
            syncing: watch::channel(false).1,
            may_join: watch::channel(false).0,
            rewrites: watch::channel(false).0,
            leave: mpsc::channel(1).0,
            outlook: Outlook::default(),
        };
        let router = kvs::http::router(state);
        let (map, last, names) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { router, store, side, map, last, names }
    }

    /// Sends a request, and checks the answer against what all answers promise.
    async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let before = self.store.fingerprint();
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("it is whole").to_bytes();
        let changed = self.store.fingerprint() != before;
        let answer = Answer { status: parts.status, headers: parts.headers, body, changed };
        let status = answer.status.as_u16();
        let shown = String::from_utf8_lossy(&answer.body);
        // No replication runs that could hold a session.
        let alone = path == "/cluster/sync" && status == 503;
        assert!(status < 500 || alone, "{method} {path}: {status} {shown}");
        if status >= 400 && method != Method::HEAD {
            assert_eq!(answer.header("content-type"), "application/problem+json");
            let code = answer.code();
            assert!(CODES.contains(&(code.as_str(), status)), "{status} {code}");
            assert_eq!(answer.json()["type"], format!("urn:kvs:{code}"));
            assert_eq!(answer.json()["status"], status);
            assert!(!answer.json()["detail"].as_str().unwrap_or_default().is_empty());
        }
        if status == 405 {
            assert!(!answer.header("allow").is_empty());
        }
        let writes = matches!(method.as_str(), "PUT" | "POST" | "DELETE") && status < 300;
        assert!(!changed || writes, "{method} {path}: {status}");
        answer
    }

    async fn get(&self, key: &str, format: &str) -> Answer {
        let request = Request::get(format!("/kv/{}{format}", escaped(key)));
        self.send(request.body(Body::empty()).expect("a sane request")).await
    }

    /// Checks an accepted write: the key is that of the path, and it now has the value that was
    /// meant.
    async fn written(&mut self, key: &str, answer: &Answer, meant: Option<(Vec<u8>, String)>) {
        let told = answer.json();
        assert_eq!(told["key"], key, "the key is that of the path");
        let timestamp = told["timestamp"].as_u64().expect("a timestamp");
        let uuid = told["uuid"].as_str().expect("a uuid").to_owned();
        let name = (key.to_owned(), uuid.clone());
        if let Some(first) = self.names.get(&name) {
            assert_eq!((first.status, &first.body), (answer.status, &answer.body), "a retry");
            assert!(!answer.changed, "a retry changes nothing");
            return;
        }
        assert!(answer.changed, "what is accepted is done");
        let (status, body) = (answer.status, answer.body.clone());
        self.names.insert(name, Remembered { request: None, status, body });
        let last = self.last.insert(key.to_owned(), timestamp);
        assert!(last.is_none_or(|last| last < timestamp), "later writes are later");
        let Some((body, content_type)) = meant else {
            self.map.remove(key);
            assert_eq!(self.get(key, "").await.code(), "key_not_found");
            return;
        };
        let came = self.get(key, "").await;
        assert_eq!(came.status, StatusCode::OK);
        assert_eq!(came.body, body, "the value is that which was sent");
        assert_eq!(came.header("content-type"), content_type);
        assert_eq!(came.header("etag"), format!("\"{uuid}\""));
        assert_eq!(came.header("kvs-timestamp"), timestamp.to_string());
        self.map.insert(key.to_owned(), Held { body, content_type, uuid, timestamp });
    }

    /// Copies the store's record of `key` into the map.
    async fn look(&mut self, key: &str) {
        let came = self.get(key, "").await;
        if came.status != StatusCode::OK {
            self.map.remove(key);
            return;
        }
        let held = Held {
            body: came.body.to_vec(),
            content_type: came.header("content-type").to_owned(),
            uuid: came.header("etag").trim_matches('"').to_owned(),
            timestamp: came.header("kvs-timestamp").parse().expect("a timestamp"),
        };
        self.last.insert(key.to_owned(), held.timestamp);
        self.map.insert(key.to_owned(), held);
    }

    /// Checks that the history of `key` begins with its record, and that each revision names the
    /// next.
    async fn check_history(&self, key: &str) {
        let request = Request::get(format!("/history/{}", escaped(key))).body(Body::empty());
        let answer = self.send(request.expect("sane")).await;
        if answer.status != StatusCode::OK {
            assert_eq!(answer.code(), "key_not_found");
            assert!(!self.map.contains_key(key), "{key} is there and was never written");
            return;
        }
        let told = answer.json();
        let revisions = told["revisions"].as_array().expect("a list");
        assert!((1..=9).contains(&revisions.len()), "as deep as is configured");
        assert_eq!(
            (&revisions[0]["outcome"], &revisions[0]["by"]),
            (&json!("current"), &Value::Null)
        );
        assert_eq!(revisions[0]["deleted"], !self.map.contains_key(key));
        if let Some(held) = self.map.get(key) {
            assert_eq!(revisions[0]["uuid"], json!(held.uuid));
        }
        for pair in revisions.windows(2) {
            let [newer, older] = pair else { unreachable!("windows of two") };
            assert_eq!((&older["outcome"], &older["by"]), (&json!("replaced"), &newer["uuid"]));
            assert_eq!(newer["parent"], older["uuid"]);
            assert!(newer["timestamp"].as_u64() > older["timestamp"].as_u64());
        }
    }

    /// Checks that a scan lists exactly the entries of the map, in their order.
    async fn check(&self) {
        self.side.check();
        let request = Request::get("/scan/?limit=1000&values=true").body(Body::empty());
        let answer = self.send(request.expect("sane")).await;
        let listing = answer.json();
        let items = listing["items"].as_array().expect("items");
        assert_eq!(items.len(), self.map.len());
        for key in KEYS {
            self.check_history(key).await;
        }
        for (item, (key, held)) in items.iter().zip(&self.map) {
            assert_eq!((&item["key"], &item["uuid"]), (&json!(key), &json!(held.uuid)));
            assert_eq!(item["size"], held.body.len());
        }
        let lines = "/scan?values=true&exact=true";
        let request = Request::get(lines).header("accept", "application/x-ndjson");
        let answer = self.send(request.body(Body::empty()).expect("sane")).await;
        let lines: Vec<&[u8]> = answer.body.split_inclusive(|b| *b == b'\n').collect();
        assert_eq!(lines.len(), self.map.len());
        for (line, (key, held)) in lines.iter().zip(&self.map) {
            let line = Line::parse(line).expect("an export can be imported");
            assert_eq!((line.key.as_str(), &line.value), (key.as_str(), &held.body));
            assert_eq!(line.content_type.as_str(), held.content_type);
        }
    }
}

fn escaped(key: &str) -> String {
    key.bytes().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "%{byte:02X}");
        text
    })
}

/// The key that a raw path names, decoded in the simplest way; `None` when it names none.
fn key_of(raw: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = raw.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    let text = String::from_utf8(bytes).ok()?;
    let sane = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    (text.len() <= 1024 && text.split('/').all(sane)).then_some(text)
}

// --- any request ---------------------------------------------------------------------------------

const METHODS: [&str; 8] = ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "BREW"];
const PATHS: [&str; 14] = [
    "/kv/",
    "/cas/",
    "/scan/",
    "/kv",
    "/scan",
    "/cluster",
    "/cluster/sync",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/",
    "",
    "/txn",
    "/history/",
];
const HEADERS: [&str; 12] = [
    "if-match",
    "if-none-match",
    "content-type",
    "content-encoding",
    "idempotency-key",
    "if-unmodified-since",
    "accept",
    "range",
    "x-request-id",
    "transfer-encoding",
    "if-range",
    "content-range",
];

/// Characters that stand in a path unescaped. The rest is escaped, so that few inputs are not
/// requests.
fn pathlike(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        match byte {
            b'!' | b'$'..=b';' | b'=' | b'@'..=b'Z' | b'_' | b'a'..=b'z' | b'~' => {
                text.push(char::from(*byte));
            }
            byte => {
                let _ = write!(text, "%{byte:02x}");
            }
        }
        text
    })
}

async fn any(script: &mut Script<'_>, node: &mut Node) {
    let method = script.pick(&METHODS);
    let base = script.pick(&PATHS);
    let raw = pathlike(script.bytes());
    let query = pathlike(script.bytes());
    let mut path = format!("{base}{raw}");
    if !query.is_empty() {
        path = format!("{path}?{}", query.replace("%26", "&").replace("%3f", "?"));
    }
    let Ok(uri) = path.parse::<Uri>() else { return };
    let mut request = Request::builder().method(method).uri(&uri);
    for _ in 0..script.byte() % 4 {
        let name = script.pick(&HEADERS);
        request = request.header(name, script.bytes());
    }
    let body = script.bytes().to_vec();
    let content_type = request.headers_ref().and_then(|headers| headers.get("content-type"));
    let content_type = content_type.map_or("application/octet-stream".to_owned(), |value| {
        value.to_str().unwrap_or_default().to_owned()
    });
    let Ok(request) = request.body(Body::from(body.clone())) else { return };
    let answer = node.send(request).await;
    let (ok, named) = (answer.status.is_success(), uri.path());
    if ok && named == "/txn" {
        for result in answer.json()["results"].as_array().expect("results") {
            for kind in ["put", "delete"] {
                let Some(key) = result[kind]["key"].as_str() else { continue };
                node.look(key).await;
                let Some(uuid) = result[kind]["uuid"].as_str() else { continue };
                let part = Remembered { request: None, status: answer.status, body: Bytes::new() };
                node.names.entry((key.to_owned(), uuid.to_owned())).or_insert(part);
            }
        }
    }
    for (base, methods) in [("/kv/", &["GET", "PUT", "DELETE"][..]), ("/cas/", &["POST"])] {
        let Some(raw) = named.strip_prefix(base).filter(|_| methods.contains(&method)) else {
            continue;
        };
        let key = key_of(raw);
        let code = if answer.status.as_u16() >= 400 { answer.code() } else { String::new() };
        let bad = matches!(code.as_str(), "bad_key" | "key_too_long");
        assert_eq!(key.is_none(), bad, "{named}: {code}");
        let Some(key) = key.filter(|_| ok && method != "GET") else { continue };
        assert!(Key::parse(&key).is_ok());
        let meant = match method {
            "PUT" => Some((body.clone(), content_type.clone())),
            "DELETE" => None,
            _ => swap_of(&body),
        };
        node.written(&key, &answer, meant).await;
    }
}

/// The write that the body of an accepted swap asks for.
fn swap_of(body: &[u8]) -> Option<(Vec<u8>, String)> {
    assert!(Reader::read(body).is_some(), "an accepted body is JSON without duplicates");
    let told: BTreeMap<String, &serde_json::value::RawValue> =
        serde_json::from_slice(body).expect("an object");
    let text = |name: &str| told.get(name).map(|raw| serde_json::from_str::<String>(raw.get()));
    let text = |name| text(name).map(|text| text.expect("a string"));
    if let Some(data) = told.get("data") {
        return Some((data.get().as_bytes().to_vec(), "application/json".to_owned()));
    }
    let base64 = text("data_base64")?;
    let bytes = BASE64_STANDARD.decode(base64).expect("it was accepted");
    let content_type = text("content_type").unwrap_or("application/octet-stream".to_owned());
    Some((bytes, content_type))
}

// --- requests whose outcome the map knows --------------------------------------------------------

const KEYS: [&str; 6] = ["a", "a/b", "ü/%2F", "a+b c", "..a", "kv/kv"];
const OTHER: &str = "00000000-0000-0000-0000-00000000000a";

/// A list of tags, and those of them that count.
fn tags(script: &mut Script<'_>, held: Option<&Held>, weak_counts: bool) -> (String, bool) {
    if script.byte().is_multiple_of(5) {
        return ("*".to_owned(), held.is_some());
    }
    let (mut list, mut matches) = (Vec::new(), false);
    for _ in 0..=script.byte() % 3 {
        let uuid = held.map_or(OTHER, |held| &held.uuid);
        match script.byte() % 5 {
            0 => list.push(format!("\"{OTHER}\"")),
            1 => list.push("\"a,b\"".to_owned()),
            2 => {
                list.push(format!("W/\"{uuid}\""));
                matches |= weak_counts && held.is_some();
            }
            3 => list.push(format!("\"{}\"", uuid.replace('-', ""))),
            _ => {
                list.push(format!("\"{uuid}\""));
                matches |= held.is_some();
            }
        }
    }
    (list.join([", ", ",", " , ,"][script.below(3)]), matches)
}

/// An expectation, and whether it holds.
fn expectation(script: &mut Script<'_>, held: Option<&Held>) -> (Value, bool) {
    let (uuid, timestamp) =
        held.map_or((OTHER.to_owned(), 5), |held| (held.uuid.clone(), held.timestamp));
    let is = held.is_some();
    match script.byte() % 9 {
        0 => (json!({"absent": true}), !is),
        1 => (json!({"exists": true}), is),
        2 => (json!({"uuid": uuid}), is),
        3 => (json!({"uuid": OTHER}), false),
        4 => (json!({"timestamp": timestamp}), is),
        5 => (json!({"uuid": uuid, "timestamp": timestamp + 1}), false),
        6 => (json!({"uuid": uuid, "timestamp": timestamp}), is),
        7 => {
            let body = held.map(|held| held.body.clone()).unwrap_or_default();
            (json!({"data_base64": BASE64_STANDARD.encode(body)}), is)
        }
        _ => {
            let tree = held.and_then(|held| Reader::read(&held.body));
            let text = held.map(|held| held.body.clone()).unwrap_or_default();
            match serde_json::from_slice(&text) {
                // A large number is rounded, so that it can differ.
                Ok(value) => {
                    let said = Reader::read(Value::to_string(&value).as_bytes());
                    let holds = tree.is_some() && said == tree;
                    (json!({"data": value}), holds)
                }
                Err(_) => (json!({"data": 1}), false),
            }
        }
    }
}

async fn known(script: &mut Script<'_>, node: &mut Node) {
    let key = script.pick(&KEYS);
    let held = node.map.get(key).cloned();
    let held = held.as_ref();
    let path = escaped(key);
    match script.byte() % 8 {
        0 => {
            let (weak_counts, header) = match script.byte() % 3 {
                0 => (false, "if-match"),
                1 => (true, "if-none-match"),
                _ => (false, ""),
            };
            let body = script.bytes().to_vec();
            let mut request = Request::put(format!("/kv/{path}")).header("content-type", "a/b");
            let mut holds = true;
            if !header.is_empty() {
                let (list, matches) = tags(script, held, weak_counts);
                request = request.header(header, list);
                holds = matches != weak_counts;
            }
            let fits = body.len() <= VALUE_BYTES_MAX;
            let answer = node.send(request.body(body.clone().into()).expect("sane")).await;
            let expected = match (fits, holds) {
                (false, _) => 413,
                (true, false) => 412,
                (true, true) if held.is_some() => 200,
                (true, true) => 201,
            };
            assert_eq!(answer.status.as_u16(), expected, "{:?}", answer.body);
            if answer.status.is_success() {
                node.written(key, &answer, Some((body, "a/b".to_owned()))).await;
            }
        }
        1 => {
            let request = Request::delete(format!("/kv/{path}")).body(Body::empty());
            let answer = node.send(request.expect("sane")).await;
            assert_eq!(answer.status.is_success(), held.is_some());
            if answer.status.is_success() {
                node.written(key, &answer, None).await;
            }
        }
        2 => swap(script, node, key, held).await,
        3 => read(script, node, key, held).await,
        4 => named(script, node, key, held).await,
        5 => part(script, node, key, held).await,
        _ => transaction(script, node).await,
    }
}

const NAMES: [&str; 3] = [
    "00000000-0000-4000-8000-000000000001",
    "00000000-0000-4000-8000-000000000002",
    "00000000-0000-4000-8000-000000000003",
];

/// A put with a request id that other requests can have too.
async fn named(script: &mut Script<'_>, node: &mut Node, key: &str, held: Option<&Held>) {
    let name = (key.to_owned(), script.pick(&NAMES).to_owned());
    let (body, ttl) = (script.pick(&["x", "y"]), script.pick(&["", "?ttl=1h", "?ttl=keep"]));
    let path = format!("/kv/{}{ttl}", escaped(key));
    let request = Request::put(&path).header("idempotency-key", &name.1);
    let asked = format!("{path} {body}");
    let answer = node.send(request.body(body.into()).expect("sane")).await;
    if let Some(first) = node.names.get(&name) {
        assert!(!answer.changed);
        let retried = (answer.status, &answer.body) == (first.status, &first.body);
        match &first.request {
            Some(first) if *first == asked => assert!(retried, "{:?}", answer.body),
            Some(_) => assert_eq!(answer.code(), "idempotency_mismatch"),
            None => assert!(retried || answer.code() == "idempotency_mismatch"),
        }
        return;
    }
    assert_eq!(answer.status.as_u16(), if held.is_some() { 200 } else { 201 });
    assert_eq!(answer.json()["uuid"], name.1);
    let meant = (body.as_bytes().to_vec(), "application/octet-stream".to_owned());
    node.written(key, &answer, Some(meant)).await;
    node.names.get_mut(&name).expect("it was accepted").request = Some(asked);
}

/// A range of a value.
async fn part(script: &mut Script<'_>, node: &Node, key: &str, held: Option<&Held>) {
    let (first, last) = (usize::from(script.byte()), usize::from(script.byte()));
    let size = held.map_or(0, |held| held.body.len());
    let (range, expected) = match script.byte() % 3 {
        0 => (format!("bytes={first}-{last}"), first..size.min(last + 1)),
        1 => (format!("bytes={first}-"), first..size),
        _ => (format!("bytes=-{first}"), size.saturating_sub(first)..size),
    };
    let whole = (range.contains(&format!("{first}-{last}")) && last < first) || size == 0;
    let request = Request::get(format!("/kv/{}", escaped(key))).header("range", &range);
    let answer = node.send(request.body(Body::empty()).expect("sane")).await;
    let Some(held) = held else {
        assert_eq!(answer.code(), "key_not_found");
        return;
    };
    if whole {
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &held.body[..]), "{range}");
    } else if expected.is_empty() {
        assert_eq!(answer.code(), "range_not_satisfiable", "{range}");
        assert_eq!(answer.header("content-range"), format!("bytes */{size}"));
    } else {
        let shown = format!("bytes {}-{}/{size}", expected.start, expected.end - 1);
        assert_eq!(answer.header("content-range"), shown, "{range}");
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (206, &held.body[expected]));
    }
}

/// The expected result of an operation of a transaction.
enum Meant {
    Put(String, Vec<u8>),
    Delete(String, bool),
    /// The uuid and the size of the value read; `None` where the transaction itself wrote it.
    Get(Option<(Option<String>, usize)>),
}

/// Operations on the keys of `map`, each writing a key at most once, and their expected results.
fn operations(script: &mut Script<'_>, map: &BTreeMap<String, Held>) -> (Vec<Value>, Vec<Meant>) {
    let mut sizes: BTreeMap<&str, Option<(Option<String>, usize)>> = BTreeMap::new();
    let (mut written, mut list, mut meant) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..script.byte() % 4 {
        let key = script.pick(&KEYS);
        let held = map.get(key).map(|held| (Some(held.uuid.clone()), held.body.len()));
        let now = sizes.get(key).cloned().unwrap_or(held);
        let kind = if written.contains(&key) { 2 } else { script.byte() % 3 };
        match kind {
            0 => {
                let body = vec![b'v'; script.below(20)];
                list.push(
                    json!({"put": {"key": key, "data_base64": BASE64_STANDARD.encode(&body)}}),
                );
                sizes.insert(key, Some((None, body.len())));
                written.push(key);
                meant.push(Meant::Put(key.to_owned(), body));
            }
            1 => {
                list.push(json!({"delete": {"key": key}}));
                meant.push(Meant::Delete(key.to_owned(), now.is_some()));
                sizes.insert(key, None);
                written.push(key);
            }
            _ => {
                list.push(json!({"get": {"key": key}}));
                meant.push(Meant::Get(now));
            }
        }
    }
    (list, meant)
}

/// Whether the answer to a transaction is the first one again. Content that the node no longer
/// keeps is left out.
fn repeats(answer: &[u8], first: &[u8]) -> bool {
    let read = |text: &[u8]| serde_json::from_slice::<Value>(text).expect("JSON");
    let (answer, mut first) = (read(answer), read(first));
    let again = answer["results"].as_array().into_iter().flatten();
    let firsts = first["results"].as_array_mut().into_iter().flatten();
    for (again, first) in again.zip(firsts) {
        if again["get"]["omitted"] == true {
            let first = first["get"].as_object_mut().expect("it read something then");
            first.retain(|name, _| !name.starts_with("data"));
            first.insert("omitted".to_owned(), true.into());
        }
    }
    answer == first
}

async fn transaction(script: &mut Script<'_>, node: &mut Node) {
    let (mut compare, mut failed) = (Vec::new(), Vec::new());
    for at in 0..script.byte() % 3 {
        let key = script.pick(&KEYS);
        let (expected, holds) = expectation(script, node.map.get(key));
        compare.push(json!({"key": key, "expected": expected}));
        failed.extend((!holds).then_some(at));
    }
    let (success, succeeding) = operations(script, &node.map);
    let (failure, failing) = operations(script, &node.map);
    let meant = if failed.is_empty() { succeeding } else { failing };
    let mut body = json!({"compare": compare, "success": success, "failure": failure});
    let name = (script.byte().is_multiple_of(3)).then(|| script.pick(&NAMES));
    if let Some(name) = name {
        body["uuid"] = name.into();
    }
    let body = body.to_string();
    let sized = body.len() <= BODY_BYTES_MAX && Reader::read(body.as_bytes()).is_some();
    let request = Request::post("/txn").body(Body::from(body.clone()));
    let answer = node.send(request.expect("sane")).await;
    if !sized {
        assert!(matches!(answer.status.as_u16(), 400 | 413));
        return;
    }
    if let Some(name) = name {
        if let Some(first) = node.names.get(&(String::new(), name.to_owned())) {
            assert!(!answer.changed);
            if first.request.as_ref() == Some(&body) {
                assert_eq!(answer.status, first.status);
                assert!(repeats(&answer.body, &first.body), "{:?}", answer.body);
            } else {
                assert_eq!(answer.code(), "idempotency_mismatch");
            }
            return;
        }
        // A write cannot expect the value that it makes.
        if compare.iter().any(|entry| entry["expected"]["uuid"] == name) {
            assert!(!answer.changed && answer.code() == "idempotency_mismatch");
            return;
        }
        let taken = |key: &String| node.names.contains_key(&(key.clone(), name.to_owned()));
        let is_taken = meant.iter().any(|meant| match meant {
            Meant::Put(key, _) | Meant::Delete(key, _) => taken(key),
            Meant::Get(_) => false,
        });
        if is_taken {
            assert_eq!(answer.code(), "idempotency_mismatch");
            return;
        }
        let (status, body) = (answer.status, (answer.body.clone(), body));
        let first = Remembered { request: Some(body.1), status, body: body.0 };
        node.names.insert((String::new(), name.to_owned()), first);
    }
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    done(node, &answer, &failed, meant, name).await;
}

/// Checks a transaction that took place: its results are those expected, and the keys have the
/// values written.
async fn done(
    node: &mut Node,
    answer: &Answer,
    failed: &[u8],
    meant: Vec<Meant>,
    name: Option<&str>,
) {
    let told = answer.json();
    assert_eq!((&told["succeeded"], &told["failed"]), (&json!(failed.is_empty()), &json!(failed)));
    let results = told["results"].as_array().expect("results").clone();
    assert_eq!(results.len(), meant.len());
    let wrote = |meant: &Meant| matches!(meant, Meant::Put(..) | Meant::Delete(_, true));
    assert_eq!(answer.changed, meant.iter().any(wrote));
    let uuids: Vec<_> =
        results.iter().filter_map(|result| result["put"]["uuid"].as_str()).collect();
    let uuid = name.or(uuids.first().copied()).unwrap_or_default();
    assert!(uuids.iter().all(|put| *put == uuid));
    let part = || Remembered { request: None, status: answer.status, body: Bytes::new() };
    for (result, meant) in results.iter().zip(meant) {
        match meant {
            Meant::Put(key, body) => {
                assert_eq!(result["put"]["key"], json!(key));
                node.look(&key).await;
                let held = &node.map[&key];
                assert_eq!((&held.body, held.uuid.as_str()), (&body, uuid));
                assert_eq!(result["put"]["timestamp"], held.timestamp);
                node.names.insert((key, uuid.to_owned()), part());
            }
            Meant::Delete(key, deleted) => {
                assert_eq!(*result, json!({"delete": {"key": key, "deleted": deleted}}));
                node.look(&key).await;
                assert!(!node.map.contains_key(&key));
                if deleted && name.is_some() {
                    node.names.insert((key, uuid.to_owned()), part());
                }
            }
            Meant::Get(None) => assert_eq!(*result, json!({"get": null})),
            Meant::Get(Some((held, size))) => {
                assert_eq!(result["get"]["size"], size);
                let held = held.as_deref().unwrap_or(uuid);
                assert_eq!(result["get"]["uuid"], held);
            }
        }
    }
}

async fn swap(script: &mut Script<'_>, node: &mut Node, key: &str, held: Option<&Held>) {
    let (expected, holds) = expectation(script, held);
    let mut body = json!({"expected": expected});
    let meant = match script.byte() % 3 {
        0 => {
            let text = script.bytes();
            let data: Value = serde_json::from_slice(text).unwrap_or(json!({"x": [1, "ü"]}));
            let stored = data.to_string().into_bytes();
            body["data"] = data;
            Some((stored, "application/json".to_owned()))
        }
        1 => {
            let bytes = script.bytes();
            body["data_base64"] = BASE64_STANDARD.encode(bytes).into();
            Some((bytes.to_vec(), "application/octet-stream".to_owned()))
        }
        _ => {
            body["delete"] = true.into();
            None
        }
    };
    let body = body.to_string();
    let sized = body.len() <= BODY_BYTES_MAX
        && meant.as_ref().is_none_or(|(value, _)| value.len() <= VALUE_BYTES_MAX)
        && Reader::read(body.as_bytes()).is_some();
    let request = Request::post(format!("/cas/{}", escaped(key))).body(Body::from(body));
    let answer = node.send(request.expect("sane")).await;
    if !sized {
        assert!(matches!(answer.status.as_u16(), 400 | 413));
    } else if holds && meant.is_none() && held.is_none() {
        assert_eq!(answer.code(), "key_not_found");
    } else {
        assert_eq!(answer.status.as_u16(), if holds { 200 } else { 412 }, "{:?}", answer.body);
        let told = answer.json();
        assert_eq!(told["swapped"], holds);
        if holds {
            let previous = held.map(|held| json!({"uuid": held.uuid, "timestamp": held.timestamp}));
            assert_eq!(told["previous"], json!(previous));
            node.written(key, &answer, meant).await;
        } else {
            assert_eq!(told["current"]["uuid"], json!(held.map(|held| &held.uuid)));
        }
    }
}

async fn read(script: &mut Script<'_>, node: &Node, key: &str, held: Option<&Held>) {
    if script.byte().is_multiple_of(2) {
        let (list, matches) = tags(script, held, true);
        let path = format!("/kv/{}", escaped(key));
        let request = Request::get(path).header("if-none-match", list).body(Body::empty());
        let answer = node.send(request.expect("sane")).await;
        let expected = match (held, matches) {
            (None, _) => 404,
            (Some(_), true) => 304,
            (Some(_), false) => 200,
        };
        assert_eq!(answer.status.as_u16(), expected);
        return;
    }
    let answer = node.get(key, "?format=envelope&exact=true").await;
    assert_eq!(answer.status.is_success(), held.is_some());
    let Some(held) = held else { return };
    let mut line = answer.body.to_vec();
    line.retain(|b| !matches!(b, b'\n' | b'\r'));
    let line = Line::parse(&line).expect("an envelope is a line of an export");
    assert_eq!((line.key.as_str(), line.content_type.as_str()), (key, &*held.content_type));
    if !held.body.contains(&b'\n') && !held.body.contains(&b'\r') {
        assert_eq!(line.value, held.body);
    }
}

pub fn run(data: &[u8]) {
    super::block_on(async {
        let (mut script, mut node) = (Script::new(data), Node::new());
        for _ in 0..REQUESTS_MAX {
            if script.is_over() {
                break;
            }
            if script.byte().is_multiple_of(2) {
                known(&mut script, &mut node).await;
            } else {
                any(&mut script, &mut node).await;
            }
        }
        node.check().await;
    });
}

pub fn seeds() -> Vec<Vec<u8>> {
    let any = |pen: Pen, method: u8, base: u8, path: &str, query: &str| {
        let pen = pen.byte(1).byte(method).byte(base);
        pen.bytes(path.as_bytes()).bytes(query.as_bytes())
    };
    let plain = |method, base, path: &str, query: &str| {
        any(Pen::default(), method, base, path, query).byte(0).bytes(b"")
    };
    let put = |pen: Pen, body: &[u8]| any(pen, 2, 0, "a/b", "").byte(0).bytes(body);
    let cas = |pen: Pen, body: &str| any(pen, 3, 1, "a/b", "").byte(0).bytes(body.as_bytes());
    let swaps = [
        r#"{"expected":{"absent":true},"data":{"x":1.00}}"#,
        r#"{"expected":{"data":{"x":1}},"data_base64":"aGk=","content_type":"text/plain"}"#,
        r#"{"expected":{"data_base64":"aGk="},"delete":true}"#,
        r#"{"expected":{"uuid":"00000000-0000-0000-0000-00000000000a","timestamp":5},"data":1}"#,
        r#"{"expected":{"exists":true},"data":1,"data":2}"#,
        r#"{"expected":{"exists":true},"data":1,"ttl":5}"#,
        r#"{"expected":{"exists":true},"data":1,"ttl":"keep"}"#,
        r#"{"expected":{"absent":true},"data":1,"uuid":"00000000-0000-4000-8000-00000000000a"}"#,
        "[1]",
    ];
    let txn = |pen: Pen, body: &str| any(pen, 3, 12, "", "").byte(0).bytes(body.as_bytes());
    let txns = [
        "{}",
        r#"{"success":[{"put":{"key":"a/b","data":1,"ttl":"1h"}},{"get":{"key":"a/b"}}]}"#,
        r#"{"compare":[{"key":"a/b","expected":{"exists":true}}],"failure":[{"get":{"key":"a"}}],
            "success":[{"delete":{"key":"a/b"}},{"put":{"key":"a","data_base64":"aGk="}}]}"#,
        r#"{"success":[{"put":{"key":"a","data":1}},{"delete":{"key":"a"}}]}"#,
        r#"{"success":[1,2,3,4,5]}"#,
        r#"{"failure":[{"get":{"key":"a","x":1}}],"uuid":"00000000-0000-4000-8000-00000000000a"}"#,
    ];
    let mut seeds = vec![
        swaps.iter().fold(Pen::default(), |pen, body| cas(pen, body)).done(),
        txns.iter().fold(Pen::default(), |pen, body| txn(pen, body)).done(),
        put(put(Pen::default(), b"{\"x\": 1}"), b"two").done(),
        put(any(Pen::default(), 2, 0, "%41", "").byte(1).byte(2).bytes(b"a/b").bytes(b"v"), b"")
            .done(),
        any(Pen::default(), 2, 0, "k", "")
            .byte(2)
            .byte(0)
            .bytes(b"*")
            .byte(1)
            .bytes(b"\"x\"")
            .bytes(b"v")
            .done(),
    ];
    let gets = [
        (0, 0, "a%2Fb", "format=envelope"),
        (1, 0, "a", ""),
        (4, 0, "a/b", ""),
        (2, 0, "a/b", "ttl=1h"),
        (2, 0, "a/b", "ttl=keep"),
        (0, 13, "a%2Fb", "limit=3"),
        (1, 13, "a/b", "uuid=00000000-0000-4000-8000-00000000000a"),
        (0, 2, "a", "limit=3&values=true"),
        (0, 2, "", "after=x"),
        (0, 5, "", ""),
        (3, 6, "", ""),
        (0, 9, "", ""),
        (7, 10, "", ""),
        (2, 0, "../a", ""),
        (2, 0, "%ff", ""),
        (2, 0, "a+b%20c", ""),
    ];
    seeds.extend(gets.map(|(method, base, path, query)| plain(method, base, path, query).done()));
    // Puts, swaps, reads and deletes with known outcomes.
    let known = |pen: Pen, key: u8, bytes: &[u8]| pen.byte(0).byte(key).raw(bytes);
    let all = (0..9).fold(Pen::default(), |pen, kind| {
        let pen = known(pen, 1, &[2, kind, 0, 7, b'{', b'"', b'x', b'"', b':', b'1', b'}']);
        known(pen, 1, &[0, kind % 3, 2, b'h', b'i', 1, kind, 4, 0, 0])
    });
    seeds.push(all.done());
    // Request ids, ranges and transactions.
    let deep = (0..12).fold(Pen::default(), |pen, n| {
        let pen = known(pen, n % 2, &[4, n % 3, n % 2, n % 3]);
        let pen = known(pen, n % 2, &[5, 0, n, n % 3]);
        let pen = known(pen, 0, &[6, 1, n % 2, n % 9, 3, 0, n % 3, 5, 1, (n + 1) % 3, 0, 2]);
        known(pen, 0, &[6, 0, 2, 1, 0, n, 3, 1, 0, n % 3, 1])
    });
    seeds.push(deep.done());
    let some = known(known(Pen::default(), 2, &[0, 2, 1, b'v']), 2, &[3, 0, 1, 0, 4, 0]);
    seeds.push(known(known(some, 2, &[3, 1]), 2, &[1]).done());
    seeds
}
