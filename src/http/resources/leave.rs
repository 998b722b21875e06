//! `/cluster/leave`: leaving the cluster in order.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::on;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::operation::{AnswerForm, ApiOperation, BodyForm, Example, Resource, Verb};
use crate::http::answer::code::Code;
use crate::http::answer::error::{Error, Unavailable};
use crate::http::answer::schema::schema_of;
use crate::http::answer::text::{self, JSON};
use crate::http::request::json::{self, JsonMember};
use crate::http::request::query::Query;
use crate::http::request::{body, headers};
use crate::http::state::{Ctx, LeaveRequest};

const BASE: &str = "/cluster/leave";

pub(crate) static RESOURCE: Resource =
    Resource { base: BASE, template: BASE, has_rest: false, operations: &[&LEAVE] };

static LEAVE: ApiOperation = ApiOperation {
    id: "leave",
    verb: Verb::Post,
    route: |filter| on(filter, leave),
    summary: "Lets this node leave the cluster for good and end: it takes no more writes, brings \
              all that it has to the others, and the floor waits for it no longer. Its directory \
              begins anew as a new member if it is started again.",
    query: &[],
    headers: &[],
    body: Some(BodyForm { media_types: &[JSON], schema: Some(schema_of::<LeaveBody<'static>>) }),
    answers: &[AnswerForm {
        status: 200,
        when: "The node has left and ends with this answer.",
        media_types: &[JSON],
        schema: Some(schema_of::<LeaveAnswer>),
        headers: &[],
    }],
    errors: &[&[
        Code::BadJson,
        Code::BodyTooLarge,
        Code::NotReplicated,
        Code::FeatureDisabled,
        Code::Syncing,
        Code::StorageFull,
    ]],
    example: Example {
        path: BASE,
        headers: &[],
        body: r#"{"force":true}"#,
        status: 200,
        answer: r#"{"superseded":0}"#,
    },
};

#[derive(Serialize, JsonSchema)]
struct LeaveAnswer {
    /// How many reports of superseded writes go with this node: `/superseded` shows them as long as
    /// it runs.
    superseded: u64,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LeaveBody<'a> {
    /// Leave although no other member holds all writes of this node: they stay in its directory.
    #[serde(borrow = "'a", default)]
    force: JsonMember<'a, bool>,
}

async fn leave(ctx: Ctx, request: Request) -> Result<Response, Error> {
    Query::parse(LEAVE.query, request.uri().query())?.finish()?;
    headers::check_encoding(request.headers())?;
    let (force, _permit) = body::parsed(&ctx.0, request.into_body(), 0, parse).await?;
    let state = &ctx.0.state;
    if !state.config.clustering_enabled {
        return Err(Error::FeatureDisabled("clustering_enabled"));
    }
    ctx.0.check_serving()?;
    let (answer, answered) = oneshot::channel();
    let sent = state.leave.send(LeaveRequest { force, answer }).await;
    sent.map_err(|_| Unavailable::ShuttingDown)?;
    let left = answered.await.map_err(|_| Unavailable::ShuttingDown)?;
    left.map_err(Error::of_txn)?.map_err(Error::NotReplicated)?;
    text::json(StatusCode::OK, &LeaveAnswer { superseded: state.store.superseded_count() })
}

fn parse(body: &Bytes) -> Result<bool, Error> {
    if body.is_empty() {
        return Ok(false);
    }
    let members: LeaveBody<'_> = json::body(body)?;
    match members.force.text().map(RawValue::get) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Error::bad("`force` must be true or false")),
    }
}
