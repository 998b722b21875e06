//! `/metrics`: what the node counts, for Prometheus.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use axum::routing::{MethodRouter, get};

use super::error::Error;
use super::query::Query;
use super::routes::Resource;
use super::{App, Ctx};

const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

pub(super) const RESOURCE: Resource =
    Resource { base: "/metrics", template: "/metrics", has_rest: false, methods };

fn methods() -> MethodRouter<Arc<App>> {
    get(read)
}

async fn read(ctx: Ctx, request: Request) -> Result<Response, Error> {
    Query::none(request.uri().query())?;
    let mut response = Response::new(Body::from(ctx.0.state.metrics.text()));
    response.headers_mut().insert(CONTENT_TYPE, OPEN_METRICS);
    Ok(response)
}
