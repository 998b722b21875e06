//! `/admin/import`: stores lines of an export under the versions that they had.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::on;
use schemars::JsonSchema;
use serde::Serialize;

use super::operation::{
    AnswerForm, ApiOperation, BODY_ERRORS, BodyForm, Example, KEY_ERRORS, Resource, Verb,
    WRITE_ERRORS,
};
use crate::http::answer::code::Code;
use crate::http::answer::error::Error;
use crate::http::answer::schema::schema_of;
use crate::http::answer::text::{self, JSON, NDJSON};
use crate::http::request::import_lines::{self, ImportLine};
use crate::http::request::query::Query;
use crate::http::request::{body, headers};
use crate::http::server::detached;
use crate::http::state::Ctx;
use crate::store::Imported;

const BASE: &str = "/admin/import";

pub(crate) static RESOURCE: Resource =
    Resource { base: BASE, template: BASE, has_rest: false, operations: &[&IMPORT] };

static IMPORT: ApiOperation = ApiOperation {
    id: "import",
    verb: Verb::Post,
    route: |filter| on(filter, import),
    summary: "Stores lines as an export writes them, each under the version that it had: at most \
              `limits.txn_operations_max` lines, and `limits.body_bytes_max` bytes. A line that \
              loses against what its key has is left alone, and so is one that has expired. One \
              that cannot keep its version, as it lies ahead of this node's clock or where the \
              members already agree on all writes, is written as new under its uuid. A body with \
              a bad line is refused as a whole. To send a body again changes nothing.",
    query: &[],
    headers: &[],
    body: Some(BodyForm { media_types: &[NDJSON], schema: Some(schema_of::<ImportLine<'static>>) }),
    answers: &[AnswerForm {
        status: 200,
        when: "Every line was judged, and what was taken is durable.",
        media_types: &[JSON],
        schema: Some(schema_of::<ImportAnswer>),
        headers: &[],
    }],
    errors: &[KEY_ERRORS, BODY_ERRORS, WRITE_ERRORS, &[Code::TooManyOperations]],
    example: Example {
        path: BASE,
        headers: &[],
        body: concat!(
            r#"{"key":"app/old","uuid":"1f3c9a52-7c3c-4b6f-9d11-0f5f0c2b9a10","#,
            r#""timestamp":1600000000000001,"origin":"c5a8b1de-59a4-4d3e-8a51-6f0a3c1d2e4f","#,
            r#""origin_joined_at":"2020-09-01T00:00:00.000000Z","data":{"a":1}}"#,
        ),
        status: 200,
        answer: r#"{"written":1,"lost":0,"restamped":0,"expired":0}"#,
    },
};

/// What became of the lines.
#[derive(Serialize, JsonSchema)]
struct ImportAnswer {
    /// Stored under their versions.
    written: u64,
    /// Left alone, as the key has a newer write, or this one.
    lost: u64,
    /// Stored as new writes, under their uuids.
    restamped: u64,
    /// Left alone, as they have expired.
    expired: u64,
}

async fn import(ctx: Ctx, request: Request) -> Result<Response, Error> {
    let app = &ctx.0;
    Query::parse(IMPORT.query, request.uri().query())?.finish()?;
    headers::check_supported(request.headers())?;
    headers::check_encoding(request.headers())?;
    app.check_serving()?;
    let limits = &app.state.config.limits;
    let (lines_max, value_bytes_max) = (limits.txn_operations_max, limits.value_bytes_max);
    let parse = move |body: &bytes::Bytes| import_lines::parse(body, lines_max, value_bytes_max);
    let (records, permit) = body::parsed(app, request.into_body(), lines_max, parse).await?;
    let submitted = {
        let app = Arc::clone(app);
        async move {
            let imported = app.state.store.import(records).await.map_err(Error::of_txn);
            drop(permit);
            imported
        }
    };
    let imported = detached::to_its_end(app, submitted).await?;
    let Imported { written, lost, restamped, expired } = imported;
    text::json(StatusCode::OK, &ImportAnswer { written, lost, restamped, expired })
}
