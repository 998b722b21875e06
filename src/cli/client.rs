//! The client of a node's HTTP API: builds paths, sends requests, reads answers and refusals.
//!
//! Bounds every answer and turns every failure into a [`CliError`] that says what to do. Takes no
//! answer from anything but a kvs node: this is the one place that checks it, for all commands.
//! Sends requests straight to the node: uses no proxy and follows no redirect. Must not know which
//! command it serves.

use std::error::Error as _;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{CONTENT_TYPE, HeaderName, LOCATION, RETRY_AFTER, TRANSFER_ENCODING};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::envelope::Envelope;
use super::error::{CliError, Current, Refusal};
use super::lines::present;
use super::output::{self, Output};
use crate::model::{Key, Prefix};

const DEFAULT_URL: &str = "http://127.0.0.1:8080";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest silence before an answer and within it.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The longest silence before an answer that takes work, such as sessions with all peers.
pub const WORK_MAX: Duration = Duration::from_secs(3600);
/// The longest JSON answer to read: the largest page of a scan, in base64.
const ANSWER_BYTES_MAX: usize = 128 << 20;
/// The longest refusal to read; its `current` holds up to 64 KiB of data.
const REFUSAL_BYTES_MAX: usize = 1 << 20;
/// How much to show of a refusal that is no problem document.
const STRANGE_CHARS_MAX: usize = 200;
/// How much to show of a header of a server that is no node.
const HEADER_CHARS_MAX: usize = 80;
/// How much to show of the value that a refused condition found.
const CURRENT_CHARS_MAX: usize = 60;

/// The header by which every answer of a node names it. No other server sends it.
const KVS_NODE: HeaderName = HeaderName::from_static("kvs-node");

/// Escapes everything but the unreserved characters of RFC 3986 and the separator `/`.
const PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// The option that says which node to ask.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Client options")]
pub struct Connection {
    /// URL of the node to ask
    #[arg(long, global = true, env = "KVS_URL", value_name = "URL", default_value = DEFAULT_URL)]
    pub url: String,
}

/// The encoded path of a key below `route`, as in `/kv/app/name`.
#[must_use]
pub fn key_path(route: &str, key: &Key) -> String {
    format!("/{route}/{}", utf8_percent_encode(key.as_str(), PATH))
}

/// The encoded path of a prefix below `route`. The empty prefix gives `/route/`.
#[must_use]
pub fn prefix_path(route: &str, prefix: &Prefix) -> String {
    format!("/{route}/{}", utf8_percent_encode(prefix.as_str(), PATH))
}

/// Encodes `text` as a value in a query.
#[must_use]
pub fn query_value(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Sends requests to one node.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    /// Prepares requests to the node at `connection`. Sends nothing yet.
    ///
    /// # Errors
    /// [`CliError::Usage`] if the URL is malformed.
    pub fn open(connection: &Connection) -> Result<Self, CliError> {
        let base = check_url(&connection.url)?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|e| CliError::Usage(format!("cannot start the HTTP client: {e}")))?;
        Ok(Self { http, base })
    }

    /// The node's URL, without a trailing `/`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.base
    }

    /// Builds a request. `path` is already encoded and may have a query.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// Sends a request and waits for the head of a successful answer. Leaves the body unread.
    ///
    /// # Errors
    /// [`CliError::Unreachable`], [`CliError::Stranger`] if no kvs node answered, or
    /// [`CliError::Refused`] with the node's reason.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, CliError> {
        self.send_within(request, SILENCE_MAX).await
    }

    /// Like [`Self::send`], but waits up to `wait_max`.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_within(
        &self,
        request: RequestBuilder,
        wait_max: Duration,
    ) -> Result<Response, CliError> {
        let sent = tokio::time::timeout(wait_max, request.send()).await;
        let response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.unreachable(&error)),
            Err(_) => {
                let reason = silence(wait_max);
                return Err(CliError::Unreachable {
                    url: self.base.clone(),
                    reason,
                    connected: true,
                });
            }
        };
        self.check_node(&response)?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.refusal(response).await)
        }
    }

    /// Fails unless a kvs node gave the answer.
    fn check_node(&self, response: &Response) -> Result<(), CliError> {
        let named = response.headers().get(KVS_NODE).and_then(|value| value.to_str().ok());
        if named.is_some_and(|id| id.parse::<Uuid>().is_ok()) {
            return Ok(());
        }
        Err(CliError::Stranger {
            url: self.base.clone(),
            status: response.status().as_u16(),
            answer: describe(response),
        })
    }

    /// Reads the next piece of an answer, `None` at its end. `so_far` says how much came before,
    /// for the error.
    ///
    /// # Errors
    /// [`CliError::Cut`] if the answer breaks off.
    pub async fn chunk(
        &self,
        response: &mut Response,
        so_far: impl FnOnce() -> String,
    ) -> Result<Option<bytes::Bytes>, CliError> {
        let reason = match tokio::time::timeout(SILENCE_MAX, response.chunk()).await {
            Ok(Ok(chunk)) => return Ok(chunk),
            Ok(Err(error)) => root_cause(&error),
            Err(_) => silence(SILENCE_MAX),
        };
        Err(CliError::Cut { url: self.base.clone(), so_far: so_far(), reason })
    }

    /// Reads the whole answer.
    ///
    /// # Errors
    /// [`CliError::Cut`], or [`CliError::Answer`] if it is longer than any node's answer.
    pub async fn body(&self, mut response: Response) -> Result<Vec<u8>, CliError> {
        let mut body = Vec::new();
        while let Some(chunk) =
            self.chunk(&mut response, || output::size(body.len() as u64)).await?
        {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(self.bad_answer("its answer is too long"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Parses an answer that was read whole.
    ///
    /// # Errors
    /// [`CliError::Answer`] if it is not JSON of the expected shape.
    pub fn parse<'a, T: serde::Deserialize<'a>>(&self, body: &'a [u8]) -> Result<T, CliError> {
        serde_json::from_slice(body)
            .map_err(|e| self.bad_answer(&format!("its answer is not the expected JSON ({e})")))
    }

    /// Reads an answer that is a value. As [`Self::body`], but the end of the answer is announced,
    /// so that a value that was cut on the way is never taken for a whole one.
    ///
    /// # Errors
    /// As [`Self::body`].
    pub async fn value(&self, response: Response) -> Result<Vec<u8>, CliError> {
        self.check_end(&response)?;
        self.body(response).await
    }

    /// Copies an answer that is a value to the output as it arrives; to a terminal only text, once
    /// it has arrived whole.
    ///
    /// # Errors
    /// [`CliError::Cut`], [`CliError::Answer`] or [`CliError::Output`]; [`CliError::Usage`] for
    /// what a terminal cannot show.
    pub async fn copy(&self, mut response: Response, out: &mut Output<'_>) -> Result<(), CliError> {
        self.check_end(&response)?;
        if out.is_terminal() {
            let content_type = header_text(&response, CONTENT_TYPE);
            let value = self.body(response).await?;
            return out.text_value(&value, &content_type.unwrap_or_default());
        }
        let mut copied = 0;
        while let Some(chunk) = self.chunk(&mut response, || output::size(copied)).await? {
            copied += chunk.len() as u64;
            out.raw(&chunk)?;
        }
        Ok(())
    }

    /// Fails if the answer ends with its connection, where a cut one looks like a whole one.
    fn check_end(&self, response: &Response) -> Result<(), CliError> {
        let announced = response.content_length().is_some()
            || response.headers().contains_key(TRANSFER_ENCODING)
            || response.version() >= reqwest::Version::HTTP_2;
        if announced {
            return Ok(());
        }
        Err(self.bad_answer(
            "it does not say where the value ends, so that a part would look like the whole (is \
             there a proxy that speaks HTTP/1.0?)",
        ))
    }

    /// The error for an answer that no node gives. `problem` says what is wrong with it.
    #[must_use]
    pub fn bad_answer(&self, problem: &str) -> CliError {
        CliError::Answer { url: self.base.clone(), problem: problem.to_owned() }
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        CliError::Unreachable {
            url: self.base.clone(),
            reason: root_cause(error),
            connected: !error.is_connect() && !error.is_builder(),
        }
    }

    async fn refusal(&self, mut response: Response) -> CliError {
        let status = response.status().as_u16();
        let retry_after = retry_after(&response);
        let mut body = Vec::new();
        // a refusal that breaks off or is too long is still a refusal
        while let Ok(Some(chunk)) = self.chunk(&mut response, String::new).await {
            body.extend_from_slice(&chunk);
            if body.len() > REFUSAL_BYTES_MAX {
                break;
            }
        }
        CliError::Refused(Box::new(read_refusal(status, retry_after, body)))
    }
}

/// An answer in a few words, as in `200 OK with a page in HTML`. Its content is not quoted.
fn describe(response: &Response) -> String {
    let status = response.status();
    if status.is_redirection()
        && let Some(to) = header_text(response, LOCATION)
    {
        return format!("{status}, a redirect to {to}");
    }
    let content_type = header_text(response, CONTENT_TYPE);
    match content_type.as_deref().map(|text| text.split(';').next().unwrap_or_default()) {
        Some("text/html") => format!("{status} with a page in HTML"),
        Some(other) => format!("{status} with {other}"),
        None => status.to_string(),
    }
}

/// The start of a header.
fn header_text(response: &Response, name: HeaderName) -> Option<String> {
    let text = response.headers().get(name)?.to_str().ok()?;
    Some(text.chars().take(HEADER_CHARS_MAX).collect())
}

fn silence(waited: Duration) -> String {
    format!("no answer within {} s", waited.as_secs())
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn read_refusal(status: u16, retry_after: Option<Duration>, body: Vec<u8>) -> Refusal {
    let problem: Problem<'_> = serde_json::from_slice(&body).unwrap_or_default();
    let detail = problem.detail.or(problem.title).unwrap_or_else(|| {
        let text = String::from_utf8_lossy(&body);
        let start: String = text.trim().chars().take(STRANGE_CHARS_MAX).collect();
        // markup is no reason
        let no_reason = start.is_empty() || start.starts_with(['<', '{']);
        if no_reason { "it gave no reason; is this a kvs node?".to_owned() } else { start }
    });
    let current = match problem.current.map(|raw| (raw, serde_json::from_str(raw.get()))) {
        Some((raw, Ok(Some(CurrentVersion { uuid, timestamp })))) => {
            let envelope = serde_json::from_str::<Envelope<'_>>(raw.get());
            let value = envelope.ok().map(|envelope| envelope.preview(CURRENT_CHARS_MAX));
            Current::Version { uuid, timestamp, value: value.filter(|text| text != "-") }
        }
        Some((_, Ok(None))) => Current::None,
        None | Some((_, Err(_))) => Current::Unknown,
    };
    Refusal { status, code: problem.code, detail, current, retry_after, body }
}

/// The fields of a problem document (RFC 9457) that the client uses. `current` stays unparsed at
/// first, because it may hold any JSON, even numbers that fit no machine type.
#[derive(Default, Deserialize)]
struct Problem<'a> {
    code: Option<String>,
    title: Option<String>,
    detail: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    current: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct CurrentVersion {
    uuid: String,
    timestamp: u64,
}

/// The deepest cause of a failed request, as in `Connection refused (os error 111)`.
fn root_cause(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = cause.to_string();
        next = cause.source();
    }
    text
}

/// Checks a node's URL and removes a trailing `/`.
fn check_url(text: &str) -> Result<String, CliError> {
    let text = if text.is_empty() { DEFAULT_URL } else { text };
    let fail = |problem: &str| {
        let message = format!("--url (or KVS_URL) `{text}` {problem}; use one like {DEFAULT_URL}");
        Err(CliError::Usage(message))
    };
    let Ok(url) = Url::parse(text) else { return fail("is not a URL") };
    if url.scheme() == "https" {
        return fail("uses https, which this version does not speak");
    }
    if url.scheme() != "http" || !url.has_host() {
        return fail("is not an http:// URL");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return fail("has a query or a fragment");
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
