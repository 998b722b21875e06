//! The front of the API: what all requests and answers have in common, of any resource.
//!
//! Adds request id and common headers, counts, logs, and catches panics. Leaves the answers of
//! handlers as they are; the cause of a failure goes to the log and never to the client.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
};
use axum::http::{Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use hyper::body::{Body as _, Incoming};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::connection::{ConnectionState, TrackedBody};
use super::counts::{RequestCounts, template};
use crate::clock::Clock;
use crate::http::answer::error::{Error, Unavailable};
use crate::http::answer::problem::{Cause, PROBLEM_JSON};
use crate::http::resources;
use crate::http::state::{App, State};

const KVS_NODE: HeaderName = HeaderName::from_static("kvs-node");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_BYTES_MAX: usize = 128;
/// A proxy that compresses answers would weaken their tags, which then match nothing.
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache, no-transform");

/// Answers the requests of all connections.
pub(crate) struct Front {
    pub(crate) app: Arc<App>,
    router: Router,
    node: HeaderValue,
    counts: RequestCounts,
    stop: CancellationToken,
}

impl Front {
    pub(crate) fn new(state: State, stop: CancellationToken) -> Self {
        let node = state.me.id.to_string();
        let node = HeaderValue::from_str(&node).unwrap_or(HeaderValue::from_static("unknown"));
        let counts = RequestCounts::new(&state.metrics);
        let app = Arc::new(App::new(state));
        Self { router: resources::router(Arc::clone(&app)), app, node, counts, stop }
    }

    /// Answers one request.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        seen: &Arc<ConnectionState>,
    ) -> Response {
        let began = self.app.state.clock.instant();
        seen.begin();
        let id = request_id(request.headers(), &self.app.state.clock);
        let route = resources::find(request.uri().path());
        let method = request.method().clone();
        let debug = tracing::enabled!(tracing::Level::DEBUG);
        let path = if debug { request.uri().path().to_owned() } else { String::new() };
        let mut response = self.dispatch(request, seen).await;
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
        seen.end();
        response
    }

    async fn dispatch(&self, request: Request<Incoming>, seen: &Arc<ConnectionState>) -> Response {
        if self.stop.is_cancelled() {
            let mut response = Error::from(Unavailable::ShuttingDown).into_response();
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return response;
        }
        let request = request.map(|body| {
            if body.is_end_stream() {
                return Body::empty();
            }
            Body::new(TrackedBody::new(body, Arc::clone(seen)))
        });
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
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
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
}
