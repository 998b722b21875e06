//! `POST /cas/{key}`: compare-and-swap with any form of expectation.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::on;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;

use super::operation::{
    AnswerForm, ApiOperation, BODY_ERRORS, BodyForm, Example, IDEMPOTENCY_KEY, KEY_ERRORS,
    Resource, Verb, WRITE_ERRORS,
};
use crate::http::answer::code::Code;
use crate::http::answer::error::{Error, RefusalForm};
use crate::http::answer::schema::{AnySchema, Base64Schema, LifetimeSchema, TrueSchema, schema_of};
use crate::http::answer::text::{self, JSON};
use crate::http::answer::written::WrittenBody;
use crate::http::request::intent::{self, ExpectedBody, ValueMembers};
use crate::http::request::json::{self, JsonMember};
use crate::http::request::query::{EXACT, Query};
use crate::http::request::{body, headers, path, retry};
use crate::http::server::detached;
use crate::http::state::Ctx;
use crate::model::{Condition, Expected};
use crate::store::{Change, Write};

const BASE: &str = "/cas";

pub(crate) static RESOURCE: Resource =
    Resource { base: BASE, template: "/cas/{key}", has_rest: true, operations: &[&SWAP] };

static SWAP: ApiOperation = ApiOperation {
    id: "swap",
    verb: Verb::Post,
    route: |filter| on(filter, swap),
    summary: "Writes or deletes a key if its live value is the expected one, atomically on this \
              node. Other nodes are not asked (`scope` is `local`): two nodes can both accept a \
              swap of the same version. As a lock it works only while all clients of the key use \
              one node.",
    query: &[&EXACT],
    headers: &[&IDEMPOTENCY_KEY],
    body: Some(BodyForm { media_types: &[JSON], schema: Some(schema_of::<SwapBody<'static>>) }),
    answers: &[AnswerForm {
        status: 200,
        when: "The expectation held, and the write is durable.",
        media_types: &[JSON],
        schema: Some(schema_of::<WrittenBody<'static>>),
        headers: &[],
    }],
    errors: &[
        KEY_ERRORS,
        BODY_ERRORS,
        WRITE_ERRORS,
        &[Code::PreconditionFailed, Code::KeyNotFound, Code::FeatureDisabled],
    ],
    example: Example {
        path: "/cas/app/leader",
        headers: &[],
        body: r#"{"expected":{"absent":true},"data":{"node":"n1"},"ttl":"15s"}"#,
        status: 200,
        answer: r#"{"swapped":true,"key":"app/leader",
            "uuid":"6f3c9a52-7c3c-4b6f-9d11-0f5f0c2b9a10","timestamp":1700000000000001,
            "origin":"c5a8b1de-59a4-4d3e-8a51-6f0a3c1d2e4f","scope":"local","previous":null,
            "expires_at":"2023-11-14T22:13:35.000001Z"}"#,
    },
};

/// Exactly one of `data`, `data_base64` and `delete`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "required" = ["expected"],
    "dependentRequired" = { "content_type": ["data_base64"] },
    "oneOf" = [
        { "required": ["data"] },
        { "required": ["data_base64"] },
        { "required": ["delete"], "not": { "required": ["ttl"] } }
    ]
))]
struct SwapBody<'a> {
    #[serde(borrow = "'a", default)]
    expected: JsonMember<'a, ExpectedBody<'static>>,
    /// The new value as JSON; its exact text is stored.
    #[serde(borrow = "'a", default)]
    data: JsonMember<'a, AnySchema>,
    /// The new value as bytes.
    #[serde(borrow = "'a", default)]
    data_base64: JsonMember<'a, Base64Schema>,
    /// Deletes the key.
    #[serde(borrow = "'a", default)]
    delete: JsonMember<'a, TrueSchema>,
    /// The type of `data_base64`; `application/octet-stream` without it.
    #[serde(borrow = "'a", default)]
    content_type: JsonMember<'a, String>,
    /// How long the value lives; without it, until it is replaced.
    #[serde(borrow = "'a", default)]
    ttl: JsonMember<'a, LifetimeSchema>,
    /// The request id, as in `Idempotency-Key`.
    #[serde(borrow = "'a", default)]
    uuid: JsonMember<'a, Uuid>,
}

async fn swap(ctx: Ctx, request: Request) -> Result<Response, Error> {
    let app = &ctx.0;
    let key = path::key(request.uri().path(), BASE)?;
    let mut query = Query::parse(SWAP.query, request.uri().query())?;
    let content = query.take(&EXACT)?.unwrap_or_default();
    query.finish()?;
    headers::check_supported(request.headers())?;
    headers::check_unconditional(request.headers(), "expected")?;
    let request_id = retry::header(request.headers())?;
    if !app.state.config.cas_enabled {
        return Err(Error::FeatureDisabled("cas_enabled"));
    }
    headers::check_encoding(request.headers())?;
    app.check_serving()?;
    let value_bytes_max = app.state.config.limits.value_bytes_max;
    let parse = move |body: &Bytes| Swap::parse(body, value_bytes_max);
    let (swap, permit) = body::parsed(app, request.into_body(), 0, parse).await?;
    let uuid = retry::agreed(request_id, swap.uuid)?;
    let conditions = vec![Condition::Expect(swap.expected)];
    let write = Write { key: key.clone(), change: swap.change, conditions, uuid };
    let form = RefusalForm { swap: true, content, weak: Vec::new() };
    let written = detached::submit(app, write, Some(permit))
        .await
        .map_err(|error| Error::of_write(error, &key, form))?;
    text::json(StatusCode::OK, &WrittenBody::swap(&key, &written))
}

/// A checked body.
struct Swap {
    change: Change,
    expected: Expected,
    uuid: Option<Uuid>,
}

impl Swap {
    fn parse(body: &Bytes, value_bytes_max: usize) -> Result<Self, Error> {
        let members: SwapBody<'_> = json::body(body)?;
        let value = ValueMembers {
            data: members.data.text(),
            data_base64: members.data_base64.text(),
            content_type: members.content_type.text(),
            ttl: members.ttl.text(),
        };
        let expected = members.expected.text().ok_or_else(intent::expected_is_missing)?;
        let expected = intent::expected(expected, body)?;
        let change = match (members.delete.text(), value.first_given()) {
            (Some(delete), None) => {
                json::only_true(delete, "delete")?;
                Change::Delete
            }
            (Some(_), Some(member @ ("content_type" | "ttl"))) => {
                return Err(Error::bad(format!(
                    "`{member}` goes with a value only; leave it out with `delete`"
                )));
            }
            (None, _) if value.has_content() => value.put(body, value_bytes_max)?,
            _ => {
                return Err(Error::bad(
                    "give exactly one of `data`, `data_base64` and `\"delete\": true`",
                ));
            }
        };
        Ok(Self { change, expected, uuid: members.uuid.text().map(intent::uuid).transpose()? })
    }
}

#[cfg(test)]
#[path = "cas_tests.rs"]
mod tests;
