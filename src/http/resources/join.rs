//! `/cluster/join`: the operator's word for a node that stands apart from a cluster.

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

const BASE: &str = "/cluster/join";

pub(crate) static RESOURCE: Resource =
    Resource { base: BASE, template: BASE, has_rest: false, operations: &[&JOIN] };

static JOIN: ApiOperation = ApiOperation {
    id: "join",
    verb: Verb::Post,
    route: |filter| on(filter, join),
    summary: "Lets this node join a cluster that was founded apart from it, or that has forgotten \
              it: what only it holds goes to a file, where it cannot be merged.",
    query: &[],
    headers: &[],
    body: Some(BodyForm { media_types: &[JSON], schema: Some(schema_of::<JoinBody<'static>>) }),
    answers: &[AnswerForm {
        status: 200,
        when: "The word stands until this process ends. A node that stands apart from nobody goes \
               on as before.",
        media_types: &[JSON],
        schema: Some(schema_of::<JoinAnswer>),
        headers: &[],
    }],
    errors: &[&[Code::BadJson, Code::BodyTooLarge]],
    example: Example {
        path: BASE,
        headers: &[],
        body: r#"{"own":"set_aside"}"#,
        status: 200,
        answer: r#"{"own":"set_aside"}"#,
    },
};

/// What becomes of what only this node holds.
#[derive(Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Own {
    /// It goes to a file in `set-aside` in the data directory, as `kvs export` writes it.
    SetAside,
    /// It goes there, too, and is written anew once the node has joined, where the cluster has
    /// nothing newer.
    Rewrite,
}

#[derive(Serialize, JsonSchema)]
struct JoinAnswer {
    own: Own,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["own"]))]
struct JoinBody<'a> {
    #[serde(borrow = "'a", default)]
    own: JsonMember<'a, Own>,
}

async fn join(ctx: Ctx, request: Request) -> Result<Response, Error> {
    Query::parse(JOIN.query, request.uri().query())?.finish()?;
    headers::check_encoding(request.headers())?;
    let (own, _permit) = body::parsed(&ctx.0, request.into_body(), 0, parse).await?;
    let rewrites = matches!(own, Own::Rewrite);
    ctx.0.state.rewrites.send_replace(rewrites);
    ctx.0.state.may_join.send_replace(true);
    text::json(StatusCode::OK, &JoinAnswer { own })
}

fn parse(body: &Bytes) -> Result<Own, Error> {
    let members: JoinBody<'_> = json::body(body)?;
    match members.own.text().map(RawValue::get) {
        Some(r#""set_aside""#) => Ok(Own::SetAside),
        Some(r#""rewrite""#) => Ok(Own::Rewrite),
        _ => Err(Error::bad("`own` must be \"set_aside\" or \"rewrite\"")),
    }
}
