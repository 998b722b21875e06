//! An HTTP client of one node, and its answers.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;

/// Longer than any answer should take.
const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// A client of one node. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

/// A complete answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWER_WAIT).build();
        Self { http: http.expect("a client"), base: format!("http://{address}") }
    }

    pub fn url(&self) -> &str {
        &self.base
    }

    /// Sends a request and reads the complete answer; an error means that no answer came.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body: Bytes = body.into();
        if !body.is_empty() {
            request = request.body(body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, body: response.bytes().await? })
    }

    /// Sends a request and panics if no answer comes.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let answer = self.try_send(method.clone(), path, headers, body).await;
        answer.unwrap_or_else(|e| panic!("{method} {path}: no answer from {}: {e:?}", self.base))
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    pub async fn head(&self, path: &str) -> Answer {
        self.send(Method::HEAD, path, &[], Bytes::new()).await
    }

    pub async fn put(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send(Method::PUT, path, &[], body).await
    }

    pub async fn put_json(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send(Method::PUT, path, &[("content-type", "application/json")], body).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], Bytes::new()).await
    }

    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send(Method::POST, path, &[], body).await
    }

    pub async fn post_json(&self, path: &str, body: &Value) -> Answer {
        self.post(path, body.to_string()).await
    }

    /// `GET /cluster`.
    pub async fn cluster(&self) -> Value {
        self.get("/cluster").await.expect(200).json()
    }

    pub async fn fingerprint(&self) -> String {
        text(&self.cluster().await["fingerprint"])
    }

    /// Runs a session with every peer now; panics if one fails.
    pub async fn sync(&self) -> Value {
        let answer = self.post("/cluster/sync", "").await.expect(200).json();
        let peers = answer["peers"].as_array().expect("peers");
        assert!(peers.iter().all(|peer| peer.get("error").is_none()), "a session failed: {answer}");
        answer
    }

    /// The sum of the samples of `name` with all of `labels`; 0 if there are none.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let text = self.get("/metrics").await.expect(200).text();
        let wanted: Vec<_> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        let samples = text.lines().filter_map(|line| {
            let (sample, value) = line.rsplit_once(' ')?;
            let (found, rest) = sample.split_once('{').unwrap_or((sample, ""));
            let given: Vec<_> = rest.trim_end_matches('}').split(',').collect();
            let all = wanted.iter().all(|label| given.contains(&label.as_str()));
            (found == name && all).then(|| value.parse::<u64>().expect("a whole number"))
        });
        samples.sum()
    }
}

impl Answer {
    /// Asserts the status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.shown());
        self
    }

    /// Asserts the refusal's status, code and form.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Self {
        assert_eq!((self.status, self.code().as_str()), (status, code), "{}", self.shown());
        let problem = self.json();
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(problem["type"], format!("urn:kvs:{code}"));
        assert_eq!(problem["status"].as_u64(), Some(u64::from(status)));
        for member in ["title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|t| !t.is_empty()), "{problem}");
        }
        let waits = status == 503 && code != "read_only";
        assert_eq!(self.header("retry-after").is_some(), waits, "{:?}", self.headers);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("no JSON ({e}): {}", self.shown()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The `code` of a refusal; empty for other answers.
    pub fn code(&self) -> String {
        let body: Option<Value> = serde_json::from_slice(&self.body).ok();
        body.and_then(|body| body["code"].as_str().map(str::to_owned)).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The `uuid` of an accepted write.
    #[track_caller]
    pub fn uuid(&self) -> String {
        text(&self.json()["uuid"])
    }

    #[track_caller]
    pub fn timestamp(&self) -> u64 {
        self.json()["timestamp"].as_u64().expect("a timestamp")
    }

    fn shown(&self) -> String {
        let body: String = self.text().chars().take(600).collect();
        format!("status {}: {body}", self.status)
    }
}

#[track_caller]
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// `text` escaped for a path: all but unreserved characters and `/`.
pub fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    let one = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(one).collect()
}
