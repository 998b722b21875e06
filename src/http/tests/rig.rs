//! The API over a real store in memory, without a listener.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

use crate::clock::Clock;
use crate::config::Config;
use crate::http::resources::{self, operation::ApiOperation};
use crate::http::state::{App, LeaveRequest, State};
use crate::model::{Member, NodeId, Timestamp};
use crate::store::engine::Engine;
use crate::store::{Settings, Store};
use crate::telemetry::Metrics;

/// The API over `engine`, with the default configuration after `change`.
pub(crate) fn app(engine: Arc<dyn Engine>, change: impl FnOnce(&mut Config)) -> Arc<App> {
    let mut config = Config::defaults().unwrap();
    change(&mut config);
    let settings = Settings {
        blob_threshold_bytes: config.storage.blob_threshold_bytes,
        clock_drift_max: Duration::from_secs(60),
        feed_entries_max: 16,
        feed_bytes_max: 1 << 20,
        superseded_bytes_max: 1 << 20,
        free_bytes_min: 0,
        boot: None,
        digest_key: [5; 32],
        cluster: None,
        history_depth: config.history_depth(),
        idempotency_window: config.limits.idempotency_window,
        idempotency_bytes_max: config.limits.idempotency_bytes_max,
        compared_bytes_max: config.limits.body_bytes_max,
    };
    let (clock, metrics) = (Clock::system(), Metrics::new());
    let (store, writer) = Store::open(engine, clock.clone(), metrics.clone(), &settings).unwrap();
    // the thread ends with the last handle of the store
    std::thread::spawn(move || writer.run_blocking());
    let (leave, mut requests) = mpsc::channel::<LeaveRequest>(1);
    // a node that may leave at any time
    std::thread::spawn(move || {
        while let Some(request) = requests.blocking_recv() {
            let _ = request.answer.send(Ok(Ok(())));
        }
    });
    let at = config.http.listen;
    let me = Member { id: store.identity().node, gossip: at, peer: at, http: at, ..member(1) };
    let state = State {
        store,
        config: Arc::new(config),
        metrics,
        clock,
        me,
        cluster_id: None,
        members: watch::channel(Vec::new()).1,
        peers: watch::channel(BTreeMap::new()).1,
        sync: mpsc::channel(1).0,
        syncing: watch::channel(false).1,
        may_join: watch::channel(false).0,
        rewrites: watch::channel(false).0,
        leave,
        outlook: crate::http::Outlook::default(),
    };
    Arc::new(App::new(state))
}

/// A member with this id and the name that belongs to it.
pub(crate) fn member(id: u128) -> Member {
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    Member {
        id: NodeId::from_u128(id),
        name: format!("n{id}"),
        joined_at: Timestamp::ZERO,
        started_at: Timestamp::ZERO,
        gossip: at,
        peer: at,
        http: at,
        software: String::new(),
    }
}

/// Sends one request through the routes. Fails if the answer is an error that the operation does
/// not declare.
pub(crate) async fn send(app: &Arc<App>, request: Request<Body>) -> Response {
    let operation = operation(request.method().as_str(), request.uri().path());
    let response = resources::router(Arc::clone(app)).oneshot(request).await.unwrap();
    if !(response.status().is_client_error() || response.status().is_server_error()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    if let Some(operation) = operation
        && let Ok(problem) = serde_json::from_slice::<serde_json::Value>(&body)
    {
        let declared = operation.all_errors().any(|code| problem["code"] == code.info().name);
        assert!(declared, "{} does not declare {problem}", operation.id);
    }
    Response::from_parts(parts, Body::from(body))
}

/// The operation of a request.
fn operation(method: &str, path: &str) -> Option<&'static ApiOperation> {
    let resource = resources::RESOURCES[resources::find(path)?];
    let method = if method == "HEAD" { "GET" } else { method };
    resource.operations.iter().copied().find(|operation| operation.verb.name() == method)
}

/// A request without headers.
pub(crate) fn request(method: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder().method(method).uri(path).body(body.into()).unwrap()
}

/// The whole body of an answer.
pub(crate) async fn body(response: Response) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

/// The whole body of an answer, as JSON.
pub(crate) async fn json(response: Response) -> serde_json::Value {
    serde_json::from_slice(&body(response).await).unwrap()
}
