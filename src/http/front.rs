//! What every request and every answer have in common, whatever the resource.
//!
//! Request id, common headers, counting, logging, the net under a panic. What a handler says is not
//! changed here; what is logged of a failure does not reach the client.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
};
use axum::http::{Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use hyper::body::{Body as _, Incoming};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::connection::{Line, Watched};
use super::error::{Cause, Error, PROBLEM_JSON};
use super::routes::{self, NO_ROUTE, RESOURCES};
use super::{App, State};
use crate::clock::Clock;
use crate::telemetry::Metrics;

const KVS_NODE: HeaderName = HeaderName::from_static("kvs-node");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_BYTES_MAX: usize = 128;
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

/// The one entrance for requests from all connections.
pub(super) struct Front {
    pub(super) app: Arc<App>,
    router: Router,
    node: HeaderValue,
    counts: Counts,
    stop: CancellationToken,
}

impl Front {
    pub(super) fn new(state: State, stop: CancellationToken) -> Self {
        let node = state.me.id.to_string();
        let node = HeaderValue::from_str(&node).unwrap_or(HeaderValue::from_static("unknown"));
        let counts = Counts::new(&state.metrics);
        let app = Arc::new(App::new(state));
        Self { router: routes::router(Arc::clone(&app)), app, node, counts, stop }
    }

    /// Answers one request.
    pub(super) async fn answer(&self, request: Request<Incoming>, line: &Arc<Line>) -> Response {
        let began = self.app.state.clock.instant();
        line.begin();
        let id = request_id(request.headers(), &self.app.state.clock);
        let route = routes::find(request.uri().path());
        let method = request.method().clone();
        let debug = tracing::enabled!(tracing::Level::DEBUG);
        let path = if debug { request.uri().path().to_owned() } else { String::new() };
        let mut response = self.dispatch(request, line).await;
        let status = response.status();
        if status.is_server_error() {
            log_failure(&response, &id, &method, route);
        }
        let took = self.app.state.clock.instant() - began;
        tracing::debug!(?id, %method, path, status = status.as_u16(), ?took, "request");
        self.counts.count(&method, route, status, took.as_secs_f64());
        if status == StatusCode::NOT_MODIFIED {
            // axum would announce an empty body, where a length means that of the value
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        self.dress(response.headers_mut(), id);
        line.end();
        response
    }

    async fn dispatch(&self, request: Request<Incoming>, line: &Arc<Line>) -> Response {
        if self.stop.is_cancelled() {
            let mut response = Error::ShuttingDown.into_response();
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return response;
        }
        let request = request.map(|body| {
            if body.is_end_stream() {
                return Body::empty();
            }
            Body::new(Watched::new(body, Arc::clone(line)))
        });
        let mut router = self.router.clone();
        match AssertUnwindSafe(router.call(request)).catch_unwind().await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => {
                let never: Infallible = never;
                match never {}
            }
            Err(panic) => Error::Internal(panic_text(&*panic)).into_response(),
        }
    }

    /// Adds the headers that every answer carries.
    fn dress(&self, headers: &mut HeaderMap, id: HeaderValue) {
        headers.insert(KVS_NODE, self.node.clone());
        headers.insert(REQUEST_ID, id);
        headers.insert(CACHE_CONTROL, NO_CACHE);
    }

    /// The answer to what never became a request, as bytes; the connection ends with it.
    pub(super) fn raw_refusal(&self, error: &Error) -> Vec<u8> {
        let (status, body) = error.problem();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
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

/// The client's id where it is sane, so that its logs and ours meet; else a new one.
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
        // refused for a reason that the client was told
        tracing::debug!(?id, %method, route, status, "request refused");
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("a handler panicked: {}", text.unwrap_or_default())
}

fn template(route: Option<usize>) -> &'static str {
    route.and_then(|at| RESOURCES.get(at)).map_or(NO_ROUTE, |resource| resource.template)
}

const METHODS: [&str; 7] = ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"];
const STATUSES: [u16; 19] =
    [200, 201, 206, 304, 400, 401, 403, 404, 405, 408, 409, 412, 413, 415, 416, 429, 500, 501, 503];
const OTHER: &str = "other";

/// The counters of all label sets that can occur. The registry is asked once for each, so that a
/// request costs no allocation and no lookup of labels.
struct Counts {
    metrics: Arc<Metrics>,
    requests: Vec<OnceLock<Counter>>,
    seconds: Vec<Histogram>,
}

impl Counts {
    fn new(metrics: &Arc<Metrics>) -> Self {
        let sets = (RESOURCES.len() + 1) * (METHODS.len() + 1) * (STATUSES.len() + 1);
        let routes = (0..RESOURCES.len()).map(Some).chain([None]);
        let histogram = |route| {
            metrics.http_request_seconds.get_or_create(&[("route", template(route))]).clone()
        };
        Self {
            metrics: Arc::clone(metrics),
            requests: (0..sets).map(|_| OnceLock::new()).collect(),
            seconds: routes.map(histogram).collect(),
        }
    }

    fn count(&self, method: &Method, route: Option<usize>, status: StatusCode, seconds: f64) {
        let position = |found: Option<usize>, others: usize| found.unwrap_or(others);
        let route_at = position(route, RESOURCES.len());
        let known_method = METHODS.iter().position(|known| method.as_str() == *known);
        let known_status = STATUSES.iter().position(|known| status.as_u16() == *known);
        let method_at = position(known_method, METHODS.len());
        let status_at = position(known_status, STATUSES.len());
        let at = (route_at * (METHODS.len() + 1) + method_at) * (STATUSES.len() + 1) + status_at;
        if let Some(counter) = self.requests.get(at) {
            let labels = || {
                let method = known_method.map_or(OTHER, |_| method.as_str());
                let status = known_status.map_or(OTHER.to_owned(), |_| status.as_str().to_owned());
                [
                    ("method", method.to_owned()),
                    ("route", template(route).to_owned()),
                    ("status", status),
                ]
            };
            let create = || self.metrics.http_requests.get_or_create(&labels()).clone();
            counter.get_or_init(create).inc();
        }
        if let Some(histogram) = self.seconds.get(route_at) {
            histogram.observe(seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_request_id_is_kept_and_another_replaced() {
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
    fn whatever_clients_send_the_label_sets_are_few() {
        let metrics = Metrics::new();
        let counts = Counts::new(&metrics);
        for name in ["GET", "BREW", "X1", "X2"] {
            let method = Method::from_bytes(name.as_bytes()).unwrap();
            counts.count(&method, None, StatusCode::NOT_FOUND, 0.1);
            counts.count(&method, Some(0), StatusCode::IM_A_TEAPOT, 0.1);
        }
        let text = metrics.text();
        assert!(
            text.contains(r#"kvs_http_requests_total{method="other",route="none",status="404"} 3"#)
        );
        assert!(text.contains(
            r#"kvs_http_requests_total{method="GET",route="/kv/{key}",status="other"} 1"#
        ));
        assert!(!text.contains("BREW"));
    }
}
