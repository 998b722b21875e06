//! `/health/live`, `/health/ready` and `/health/readable`: whether the process runs, whether it
//! serves reads and writes, and whether it serves reads.

use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::on;
use schemars::JsonSchema;
use serde::Serialize;

use super::mode::ModeName;
use super::operation::{AnswerForm, ApiOperation, Example, Resource, Verb};
use crate::http::answer::code::Code;
use crate::http::answer::error::{Error, Unavailable};
use crate::http::answer::schema::schema_of;
use crate::http::answer::text::{self, JSON};
use crate::http::state::{Ctx, State};
use crate::store::{NodeMode, Obstacle, Store};

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

pub(crate) static READABLE_RESOURCE: Resource = Resource {
    base: "/health/readable",
    template: "/health/readable",
    has_rest: false,
    operations: &[&READABLE],
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
        when: "Reads and writes are served, or writes are refused by the `mode` alone.",
        media_types: &[JSON],
        schema: Some(schema_of::<HealthBody>),
        headers: &[],
    }],
    errors: &[&[Code::Syncing, Code::StorageFull, Code::ClockSkewed]],
    example: Example {
        path: "/health/ready",
        headers: &[],
        body: "",
        status: 200,
        answer: r#"{"status":"ready"}"#,
    },
};

static READABLE: ApiOperation = ApiOperation {
    id: "health_readable",
    verb: Verb::Get,
    route: |filter| on(filter, readable),
    summary: "Answers whether this node serves reads, also where it takes no writes.",
    query: &[],
    headers: &[],
    body: None,
    answers: &[AnswerForm {
        status: 200,
        when: "Reads are served; `unready` says why writes are not, if they are not.",
        media_types: &[JSON],
        schema: Some(schema_of::<HealthBody>),
        headers: &[],
    }],
    errors: &[&[Code::Syncing, Code::StorageFull]],
    example: Example {
        path: "/health/readable",
        headers: &[],
        body: "",
        status: 200,
        answer: r#"{"status":"readable"}"#,
    },
};

#[derive(Serialize, JsonSchema)]
struct HealthBody {
    status: Health,
    /// Why this node is not ready, where it serves reads and no writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "UnreadyBody")]
    unready: Option<UnreadyBody>,
    /// `read_only` while writes of clients are refused, as somebody has decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ModeName")]
    mode: Option<ModeName>,
}

/// What `/health/ready` answers, in short.
#[derive(Serialize, JsonSchema)]
struct UnreadyBody {
    /// The code that a write gets.
    code: &'static str,
    /// What happened, and what to do about it.
    detail: String,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Health {
    Live,
    Ready,
    Readable,
}

/// Ignores parameters, as the others do: some load balancers add their own.
async fn live() -> Result<Response, Error> {
    healthy(Health::Live, None, None)
}

/// A node that is stopping does not get here: its front refuses every new request.
async fn ready(ctx: Ctx) -> Result<Response, Error> {
    ctx.0.check_serving()?;
    match obstacle(&ctx.0.state) {
        Some(obstacle) => Err(obstacle.into()),
        None => healthy(Health::Ready, None, special_mode(&ctx.0.state.store)),
    }
}

async fn readable(ctx: Ctx) -> Result<Response, Error> {
    ctx.0.check_serving()?;
    let state = &ctx.0.state;
    let obstacle = obstacle(state);
    if let Some(gone @ Unavailable::Storage(Obstacle::Gone)) = obstacle {
        return Err(gone.into());
    }
    // while storage is opened again there is nothing to read from
    state.store.is_bootstrapped()?;
    let unready = obstacle.map(|obstacle| UnreadyBody {
        code: Error::from(obstacle).code().info().name,
        detail: obstacle.detail().into_owned(),
    });
    healthy(Health::Readable, unready, special_mode(&state.store))
}

/// The mode, unless it is the usual one.
fn special_mode(store: &Store) -> Option<ModeName> {
    (store.mode() != NodeMode::Normal).then(|| ModeName::of(store.mode()))
}

/// Why this node is not ready, although it may serve reads.
fn obstacle(state: &State) -> Option<Unavailable> {
    let storage = state.store.obstacle().map(Unavailable::Storage);
    storage.or_else(|| state.clock_off().map(Unavailable::ClockOff))
}

fn healthy(
    status: Health,
    unready: Option<UnreadyBody>,
    mode: Option<ModeName>,
) -> Result<Response, Error> {
    text::json(StatusCode::OK, &HealthBody { status, unready, mode })
}
