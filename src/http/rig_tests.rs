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

use super::{App, State, routes};
use crate::clock::Clock;
use crate::config::Config;
use crate::model::{Member, Timestamp};
use crate::store::engine::Engine;
use crate::store::{Settings, Store};
use crate::telemetry::Metrics;

/// An application over `engine`, with what `change` makes of the default configuration.
pub(super) fn app(engine: Arc<dyn Engine>, change: impl FnOnce(&mut Config)) -> Arc<App> {
    let mut config = Config::defaults().unwrap();
    change(&mut config);
    let settings = Settings {
        blob_threshold_bytes: config.storage.blob_threshold_bytes,
        clock_drift_max: Duration::from_secs(60),
        feed_entries_max: 16,
        feed_bytes_max: 1 << 20,
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
    // ends with the last handle of the store
    std::thread::spawn(move || writer.run_blocking());
    let at = config.http.listen;
    let me = Member {
        id: store.identity().node,
        name: "n1".to_owned(),
        joined_at: Timestamp::ZERO,
        started_at: Timestamp::ZERO,
        gossip: at,
        peer: at,
        http: at,
        software: String::new(),
    };
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
    };
    Arc::new(App::new(state))
}

/// Sends one request through the routes.
pub(super) async fn send(app: &Arc<App>, request: Request<Body>) -> Response {
    routes::router(Arc::clone(app)).oneshot(request).await.unwrap()
}

/// A request without headers.
pub(super) fn request(method: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder().method(method).uri(path).body(body.into()).unwrap()
}

/// The whole body of an answer.
pub(super) async fn body(response: Response) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

/// The same as JSON.
pub(super) async fn json(response: Response) -> serde_json::Value {
    serde_json::from_slice(&body(response).await).unwrap()
}
