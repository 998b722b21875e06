//! `/health/live` and `/health/ready`: whether the process runs, and whether it serves.

use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::on;
use schemars::JsonSchema;
use serde::Serialize;

use super::operation::{AnswerForm, ApiOperation, Example, Resource, Verb};
use crate::http::answer::code::Code;
use crate::http::answer::error::Error;
use crate::http::answer::schema::schema_of;
use crate::http::answer::text::{self, JSON};
use crate::http::state::Ctx;

pub(crate) static LIVE_RESOURCE: Resource = Resource {
    base: "/health/live",
    template: "/health/live",
    has_rest: false,
    operations: &[&LIVE],
};

pub(crate) static READY_RESOURCE: Resource = Resource {
    base: "/health/ready",
    template: "/health/ready",
    has_rest: false,
    operations: &[&READY],
};

static LIVE: ApiOperation = ApiOperation {
    id: "health_live",
    verb: Verb::Get,
    route: |filter| on(filter, live),
    summary: "Answers while the process runs.",
    query: &[],
    headers: &[],
    body: None,
    answers: &[AnswerForm {
        status: 200,
        when: "The process runs.",
        media_types: &[JSON],
        schema: Some(schema_of::<HealthBody>),
        headers: &[],
    }],
    errors: &[],
    example: Example {
        path: "/health/live",
        headers: &[],
        body: "",
        status: 200,
        answer: r#"{"status":"live"}"#,
    },
};

static READY: ApiOperation = ApiOperation {
    id: "health_ready",
    verb: Verb::Get,
    route: |filter| on(filter, ready),
    summary: "Answers whether this node serves reads and writes.",
    query: &[],
    headers: &[],
    body: None,
    answers: &[AnswerForm {
        status: 200,
        when: "Reads and writes are served.",
        media_types: &[JSON],
        schema: Some(schema_of::<HealthBody>),
        headers: &[],
    }],
    errors: &[&[Code::Syncing]],
    example: Example {
        path: "/health/ready",
        headers: &[],
        body: "",
        status: 200,
        answer: r#"{"status":"ready"}"#,
    },
};

#[derive(Serialize, JsonSchema)]
struct HealthBody {
    status: Health,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Health {
    Live,
    Ready,
}

/// Ignores parameters, as [`ready`] does: some load balancers add their own.
async fn live() -> Result<Response, Error> {
    text::json(StatusCode::OK, &HealthBody { status: Health::Live })
}

/// A node that is stopping does not get here: its front refuses every new request.
async fn ready(ctx: Ctx) -> Result<Response, Error> {
    ctx.0.check_serving()?;
    text::json(StatusCode::OK, &HealthBody { status: Health::Ready })
}
