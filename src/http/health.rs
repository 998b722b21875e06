//! `/health/live` and `/health/ready`: whether the process runs, and whether it serves.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{MethodRouter, get};

use super::error::Error;
use super::query::Query;
use super::routes::Resource;
use super::{App, Ctx, answer};

pub(super) const LIVE: Resource = Resource {
    base: "/health/live",
    template: "/health/live",
    has_rest: false,
    methods: || -> MethodRouter<Arc<App>> { get(live) },
};

pub(super) const READY: Resource = Resource {
    base: "/health/ready",
    template: "/health/ready",
    has_rest: false,
    methods: || -> MethodRouter<Arc<App>> { get(ready) },
};

async fn live(request: Request) -> Result<Response, Error> {
    Query::none(request.uri().query())?;
    Ok(answer::json_bytes(StatusCode::OK, br#"{"status":"live"}"#.to_vec()))
}

/// A node that is stopping does not get here: its front refuses every new request.
async fn ready(ctx: Ctx, request: Request) -> Result<Response, Error> {
    Query::none(request.uri().query())?;
    ctx.0.check_serving()?;
    Ok(answer::json_bytes(StatusCode::OK, br#"{"status":"ready"}"#.to_vec()))
}
