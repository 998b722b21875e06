//! `/cluster/mode`: whether this node takes writes of clients.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::on;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::operation::{AnswerForm, ApiOperation, BodyForm, Example, Resource, Verb};
use crate::http::answer::code::Code;
use crate::http::answer::error::Error;
use crate::http::answer::schema::schema_of;
use crate::http::answer::text::{self, JSON};
use crate::http::request::json::{self, JsonMember};
use crate::http::request::query::Query;
use crate::http::request::{body, headers};
use crate::http::state::Ctx;
use crate::store::NodeMode;

const BASE: &str = "/cluster/mode";

pub(crate) static RESOURCE: Resource =
    Resource { base: BASE, template: BASE, has_rest: false, operations: &[&READ, &SET] };

static READ: ApiOperation = ApiOperation {
    id: "mode",
    verb: Verb::Get,
    route: |filter| on(filter, read),
    summary: "Shows whether this node takes writes of clients.",
    query: &[],
    headers: &[],
    body: None,
    answers: &[AnswerForm {
        status: 200,
        when: "Always.",
        media_types: &[JSON],
        schema: Some(schema_of::<ModeAnswer>),
        headers: &[],
    }],
    errors: &[],
    example: Example {
        path: BASE,
        headers: &[],
        body: "",
        status: 200,
        answer: r#"{"mode":"normal"}"#,
    },
};

static SET: ApiOperation = ApiOperation {
    id: "set_mode",
    verb: Verb::Put,
    route: |filter| on(filter, set),
    summary: "Sets whether this node takes writes of clients, and keeps that over restarts. What \
              other members write arrives in every mode.",
    query: &[],
    headers: &[],
    body: Some(BodyForm { media_types: &[JSON], schema: Some(schema_of::<ModeBody<'static>>) }),
    answers: &[AnswerForm {
        status: 200,
        when: "The mode is durable, and every later write is judged by it.",
        media_types: &[JSON],
        schema: Some(schema_of::<ModeAnswer>),
        headers: &[],
    }],
    errors: &[&[Code::BadJson, Code::BodyTooLarge, Code::StorageFull]],
    example: Example {
        path: BASE,
        headers: &[],
        body: r#"{"mode":"normal"}"#,
        status: 200,
        answer: r#"{"mode":"normal"}"#,
    },
};

/// The name of a mode.
#[derive(Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ModeName {
    /// Writes of clients are taken.
    Normal,
    /// Writes of clients are refused with 503 `read_only`; merges and sweeps go on.
    ReadOnly,
}

impl ModeName {
    pub(super) fn of(mode: NodeMode) -> Self {
        match mode {
            NodeMode::Normal => Self::Normal,
            NodeMode::ReadOnly => Self::ReadOnly,
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct ModeAnswer {
    mode: ModeName,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["mode"]))]
struct ModeBody<'a> {
    #[serde(borrow = "'a", default)]
    mode: JsonMember<'a, ModeName>,
}

async fn read(ctx: Ctx, request: Request) -> Result<Response, Error> {
    Query::parse(READ.query, request.uri().query())?.finish()?;
    answer(ctx.0.state.store.mode())
}

async fn set(ctx: Ctx, request: Request) -> Result<Response, Error> {
    Query::parse(SET.query, request.uri().query())?.finish()?;
    headers::check_encoding(request.headers())?;
    let (mode, _permit) = body::parsed(&ctx.0, request.into_body(), 0, parse).await?;
    ctx.0.state.store.set_mode(mode).await.map_err(Error::of_txn)?;
    answer(mode)
}

fn answer(mode: NodeMode) -> Result<Response, Error> {
    text::json(StatusCode::OK, &ModeAnswer { mode: ModeName::of(mode) })
}

fn parse(body: &Bytes) -> Result<NodeMode, Error> {
    let members: ModeBody<'_> = json::body(body)?;
    match members.mode.text().map(RawValue::get) {
        Some(r#""normal""#) => Ok(NodeMode::Normal),
        Some(r#""read_only""#) => Ok(NodeMode::ReadOnly),
        _ => Err(Error::bad("`mode` must be \"normal\" or \"read_only\"")),
    }
}
