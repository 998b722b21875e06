//! `/kv/{key}`: read, write and delete one value.
//!
//! This file describes the operations; [`read`] and [`write`](mod@write) carry them out.

mod read;
#[cfg(test)]
mod tests;
mod write;

use axum::routing::on;
use schemars::json_schema;

use super::operation::{
    self, AnswerForm, ApiOperation, BodyForm, Example, HeaderField, KEY_ERRORS, READ_ERRORS,
    Resource, Verb, WRITE_ERRORS,
};
use crate::http::answer::code::Code;
use crate::http::answer::envelope::Envelope;
use crate::http::answer::error::Error;
use crate::http::answer::schema::schema_of;
use crate::http::answer::text::JSON;
use crate::http::answer::written::WrittenBody;
use crate::http::request::intent::TTL;
use crate::http::request::query::{EXACT, Param};

const BASE: &str = "/kv";

pub(crate) static RESOURCE: Resource = Resource {
    base: BASE,
    template: "/kv/{key}",
    has_rest: true,
    operations: &[&READ, &PUT, &DELETE],
};

/// Asks for the envelope in the place of the bytes.
const FORMAT: Param<()> = Param {
    name: "format",
    doc: "`envelope` asks for the value with its version, as JSON.",
    schema: |_| json_schema!({ "const": "envelope" }),
    read: |text| match text {
        "envelope" => Ok(()),
        _ => Err(Error::bad("`format` can only be `envelope`; otherwise leave it out")),
    },
};

/// The header fields of a value.
const VALUE_HEADERS: &[&HeaderField] = &[
    &operation::ETAG,
    &operation::LAST_MODIFIED,
    &operation::KVS_TIMESTAMP,
    &operation::KVS_ORIGIN,
    &operation::KVS_EXPIRES_AT,
    &operation::ACCEPT_RANGES,
];

static READ: ApiOperation = ApiOperation {
    id: "read",
    verb: Verb::Get,
    route: |filter| on(filter, read::read),
    summary: "Reads the live value of a key.",
    query: &[&FORMAT, &EXACT],
    headers: &[
        &operation::IF_MATCH,
        &operation::IF_NONE_MATCH,
        &operation::IF_MODIFIED_SINCE,
        &operation::IF_UNMODIFIED_SINCE,
        &operation::RANGE,
        &operation::IF_RANGE,
    ],
    body: None,
    answers: &[
        AnswerForm {
            status: 200,
            when: "The value as it was written, or its envelope.",
            media_types: &["*/*", JSON],
            schema: Some(schema_of::<Envelope<'static>>),
            headers: VALUE_HEADERS,
        },
        AnswerForm {
            status: 206,
            when: "The range of the value that was asked for.",
            media_types: &["*/*"],
            schema: None,
            headers: &[
                &operation::ETAG,
                &operation::LAST_MODIFIED,
                &operation::KVS_TIMESTAMP,
                &operation::KVS_ORIGIN,
                &operation::KVS_EXPIRES_AT,
                &operation::ACCEPT_RANGES,
                &operation::CONTENT_RANGE,
            ],
        },
        AnswerForm {
            status: 304,
            when: "A tag of `If-None-Match` names the live value, or it has not changed since \
                   `If-Modified-Since`.",
            media_types: &[],
            schema: None,
            headers: VALUE_HEADERS,
        },
    ],
    errors: &[
        KEY_ERRORS,
        READ_ERRORS,
        &[Code::KeyNotFound, Code::PreconditionFailed, Code::RangeNotSatisfiable],
    ],
    example: Example {
        path: "/kv/app/config?format=envelope",
        headers: &[],
        body: "",
        status: 200,
        answer: r#"{"key":"app/config","uuid":"6f3c9a52-7c3c-4b6f-9d11-0f5f0c2b9a10",
            "timestamp":1700000000000001,"origin":"c5a8b1de-59a4-4d3e-8a51-6f0a3c1d2e4f",
            "origin_joined_at":"2023-11-01T00:00:00.000000Z","parent":null,"expires_at":null,
            "content_type":"application/json","size":7,"data":{"a":1}}"#,
    },
};

static PUT: ApiOperation = ApiOperation {
    id: "put",
    verb: Verb::Put,
    route: |filter| on(filter, write::put),
    summary: "Writes a value, whether or not the key has one. An empty value needs a \
              `Content-Type`. Conditions are decided by this node alone: two nodes can both accept \
              a write on the same condition, so send all clients of a key to one node.",
    query: &[&TTL, &EXACT],
    headers: &[
        &operation::CONTENT_TYPE,
        &operation::IF_MATCH,
        &operation::IF_NONE_MATCH,
        &operation::IDEMPOTENCY_KEY,
    ],
    body: Some(BodyForm { media_types: &["*/*"], schema: None }),
    answers: &[
        AnswerForm {
            status: 201,
            when: "The key had no live value; the write is durable.",
            media_types: &[JSON],
            schema: Some(schema_of::<WrittenBody<'static>>),
            headers: &[&operation::ETAG],
        },
        AnswerForm {
            status: 200,
            when: "The live value was replaced; the write is durable.",
            media_types: &[JSON],
            schema: Some(schema_of::<WrittenBody<'static>>),
            headers: &[&operation::ETAG],
        },
    ],
    errors: &[
        KEY_ERRORS,
        WRITE_ERRORS,
        &[Code::BadDuration, Code::PreconditionFailed, Code::ValueTooLarge, Code::FeatureDisabled],
    ],
    example: Example {
        path: "/kv/app/new?ttl=1h",
        headers: &[("content-type", "text/plain"), ("if-none-match", "*")],
        body: "hello",
        status: 201,
        answer: r#"{"key":"app/new","uuid":"0d6a3c1e-8c0f-4e0e-a6f0-2f4f7f0c7d3b",
            "timestamp":1700000000000002,"origin":"c5a8b1de-59a4-4d3e-8a51-6f0a3c1d2e4f",
            "scope":"local","expires_at":"2023-11-14T23:13:20.000002Z"}"#,
    },
};

static DELETE: ApiOperation = ApiOperation {
    id: "delete",
    verb: Verb::Delete,
    route: |filter| on(filter, write::delete),
    summary: "Deletes the live value of a key. Conditions are decided by this node alone, as for \
              a put.",
    query: &[&EXACT],
    headers: &[&operation::IF_MATCH, &operation::IF_NONE_MATCH, &operation::IDEMPOTENCY_KEY],
    body: None,
    answers: &[AnswerForm {
        status: 200,
        when: "The delete is durable.",
        media_types: &[JSON],
        schema: Some(schema_of::<WrittenBody<'static>>),
        headers: &[],
    }],
    errors: &[
        KEY_ERRORS,
        WRITE_ERRORS,
        &[Code::KeyNotFound, Code::PreconditionFailed, Code::FeatureDisabled],
    ],
    example: Example {
        path: "/kv/app/config",
        headers: &[],
        body: "",
        status: 200,
        answer: r#"{"key":"app/config","uuid":"4b0a7d2e-3a54-4c1c-9b5e-7e1d6a9f3c21",
            "timestamp":1700000000000003,"origin":"c5a8b1de-59a4-4d3e-8a51-6f0a3c1d2e4f",
            "scope":"local","deleted":true}"#,
    },
};
