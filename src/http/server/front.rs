//! The front of the API: what all requests and answers have in common, of any resource.
//!
//! Adds request id and common headers, says whether the connection goes on, counts, logs, and catches
//! panics. Leaves the answers of handlers as they are; the cause of a failure goes to the log and
//! never to the client.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderMap, HeaderName,
    HeaderValue, RETRY_AFTER,
};
use axum::http::{Method, Request, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use hyper::body::{Body as _, Incoming};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::activity::{ConnectionState, TrackedAnswer, TrackedBody};
use super::browsers::{self, Admission, Wall};
use super::counts::{RequestCounts, template};
use crate::clock::Clock;
use crate::http::answer::error::{Error, Unavailable};
use crate::http::answer::problem::{Cause, PROBLEM_JSON};
use crate::http::resources;
use crate::http::state::{App, State};

const KVS_NODE: HeaderName = HeaderName::from_static("kvs-node");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_BYTES_MAX: usize = 128;
/// A proxy that compressed an answer would weaken its tag, and `If-Match` would never hold again.
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache, no-transform");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Answers the requests of all connections.
pub(crate) struct Front {
    pub(crate) app: Arc<App>,
    router: Router,
    node: HeaderValue,
    counts: RequestCounts,
    wall: Wall,
    /// How long an idle connection stays open, as clients are told.
    keep_alive: HeaderValue,
    stop: CancellationToken,
}

impl Front {
    /// `loopback`: whether it is reached at a loopback address only.
    pub(crate) fn new(state: State, loopback: bool, stop: CancellationToken) -> Self {
        let node = state.me.id.to_string();
        let node = HeaderValue::from_str(&node).unwrap_or(HeaderValue::from_static("unknown"));
        let counts = RequestCounts::new(&state.metrics);
        let wall = Wall::new(&state.config.http, loopback);
        let seconds = state.config.limits.idle_timeout.as_secs();
        let keep_alive = HeaderValue::from_str(&format!("timeout={seconds}"))
            .unwrap_or(HeaderValue::from_static("timeout=1"));
        let app = Arc::new(App::new(state));
        let router = resources::router(Arc::clone(&app));
        Self { router, app, node, counts, wall, keep_alive, stop }
    }

    /// Answers one request.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        seen: &Arc<ConnectionState>,
    ) -> Response<TrackedAnswer> {
        let began = self.app.state.clock.instant();
        seen.begin();
        let id = request_id(request.headers(), &self.app.state.clock);
        let route = resources::find(request.uri().path());
        let method = request.method().clone();
        let debug = tracing::enabled!(tracing::Level::DEBUG);
        let path = if debug { request.uri().path().to_owned() } else { String::new() };
        let admission = self.wall.admission(request.headers());
        let expects_continue = request.headers().contains_key(EXPECT);
        let (version, goes_on) = (request.version(), goes_on(request.version(), request.headers()));
        let mut response = self.dispatch(request, &admission, seen).await;
        let status = response.status();
        if status.is_server_error() {
            log_failure(&response, &id, &method, route);
        }
        let took = self.app.state.clock.instant() - began;
        tracing::debug!(?id, %method, path, status = status.as_u16(), ?took, "request");
        self.counts.count(&method, route, status, took.as_secs_f64());
        if status == StatusCode::NOT_MODIFIED {
            // axum adds the length of the empty body; a 304 must give the value's length or none
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        self.dress(response.headers_mut(), id);
        admission.dress(response.headers_mut());
        // HTTP/1.0 shows the end of a body of unknown length by the end of the connection
        let ends = version < Version::HTTP_11 && response.body().size_hint().exact().is_none();
        let goes_on = goes_on && !ends && seen.can_go_on(expects_continue).await;
        self.tell_end(response.headers_mut(), goes_on && !seen.is_surplus());
        // hyper would announce to HTTP/1.0 that an answer of a later version keeps the connection
        *response.version_mut() = version;
        response.map(|body| seen.send(body))
    }

    async fn dispatch(
        &self,
        request: Request<Incoming>,
        admission: &Admission,
        seen: &Arc<ConnectionState>,
    ) -> Response {
        let request = request.map(|body| {
            if body.is_end_stream() {
                return Body::empty();
            }
            Body::new(TrackedBody::new(body, Arc::clone(seen)))
        });
        let (parts, body) = request.into_parts();
        if let Err(error) =
            self.admit(parts.uri.path(), seen).and_then(|()| self.wall.check(&parts))
        {
            return error.into_response();
        }
        if let Some(answer) = browsers::preflight(&parts, admission) {
            return answer;
        }
        let request = Request::from_parts(parts, body);
        let mut router = self.router.clone();
        match AssertUnwindSafe(router.call(request)).catch_unwind().await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => {
                let never: Infallible = never;
                match never {}
            }
            Err(panic) => Error::internal(panic_text(&*panic)).into_response(),
        }
    }

    /// Refuses what this node cannot serve now, whatever it is. Health is answered in any case.
    fn admit(&self, path: &str, seen: &ConnectionState) -> Result<(), Error> {
        let is_health = path.starts_with("/health/");
        if self.stop.is_cancelled() && is_health && path != "/health/live" {
            return Err(Unavailable::ShuttingDown.into());
        }
        if seen.is_surplus() && !is_health {
            return Err(Unavailable::Crowded.into());
        }
        Ok(())
    }

    /// Says whether the connection goes on, and for how long it may be idle.
    fn tell_end(&self, headers: &mut HeaderMap, goes_on: bool) {
        if goes_on && !self.stop.is_cancelled() {
            headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
            headers.insert(KEEP_ALIVE, self.keep_alive.clone());
        } else {
            headers.insert(CONNECTION, CLOSE);
        }
    }

    /// Adds the headers that every answer carries.
    fn dress(&self, headers: &mut HeaderMap, id: HeaderValue) {
        headers.insert(KVS_NODE, self.node.clone());
        headers.insert(REQUEST_ID, id);
        headers.insert(CACHE_CONTROL, NO_CACHE);
    }

    /// The bytes of the answer to a request that could not be parsed; the connection ends with it.
    pub(crate) fn raw_refusal(&self, error: &Error) -> Vec<u8> {
        let (status, body) = error.problem();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        headers.insert(CONNECTION, CLOSE);
        if let Some(seconds) = error.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        self.dress(&mut headers, new_id(&self.app.state.clock));
        let mut bytes = format!("HTTP/1.1 {status}\r\n").into_bytes();
        for (name, value) in &headers {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&body);
        bytes
    }
}

/// Whether the client expects to send further requests on the connection.
fn goes_on(version: Version, headers: &HeaderMap) -> bool {
    let has = |wanted: &str| {
        let options = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        let mut options = options.flat_map(|value| value.split(','));
        options.any(|option| option.trim().eq_ignore_ascii_case(wanted))
    };
    !has("close") && (version >= Version::HTTP_11 || has("keep-alive"))
}

/// The client's id, so that it finds the request in both logs; a new one if the client's is missing
/// or unprintable.
fn request_id(headers: &HeaderMap, clock: &Clock) -> HeaderValue {
    let sane = |id: &&HeaderValue| {
        let id = id.as_bytes();
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
    };
    headers.get(REQUEST_ID).filter(sane).cloned().unwrap_or_else(|| new_id(clock))
}

fn new_id(clock: &Clock) -> HeaderValue {
    let mut buffer = uuid::Uuid::encode_buffer();
    HeaderValue::from_str(clock.uuid().hyphenated().encode_lower(&mut buffer))
        .unwrap_or(HeaderValue::from_static("none"))
}

fn log_failure(response: &Response, id: &HeaderValue, method: &Method, route: Option<usize>) {
    let cause = response.extensions().get::<Cause>().map_or("", |cause| cause.0.as_str());
    let (route, status) = (template(route), response.status().as_u16());
    if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(?id, %method, route, status, cause, "request failed");
    } else {
        // the answer already says why
        tracing::debug!(?id, %method, route, status, "request refused");
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("a handler panicked: {}", text.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printable_request_id_is_returned_and_any_other_replaced() {
        let clock = Clock::system();
        let given = |id: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(id).unwrap());
            request_id(&headers, &clock).as_bytes() == id
        };
        assert!(given(b"abc-1") && given(&[b'x'; 128]));
        assert!(!given(b"") && !given(b"a b") && !given(b"\xff") && !given(&[b'x'; 129]));
        assert_eq!(request_id(&HeaderMap::new(), &clock).len(), 36);
    }

    #[test]
    fn a_connection_goes_on_as_the_client_asks() {
        let asks = |version, values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONNECTION, HeaderValue::from_static(value));
            }
            goes_on(version, &headers)
        };
        assert!(asks(Version::HTTP_11, &[]) && asks(Version::HTTP_11, &["keep-alive, te"]));
        assert!(!asks(Version::HTTP_11, &["te, Close"]));
        assert!(!asks(Version::HTTP_11, &["keep-alive", "close"]));
        assert!(asks(Version::HTTP_10, &["Keep-Alive"]) && !asks(Version::HTTP_10, &[]));
    }
}
