//! `/kv/{key}`: read, write and delete one value.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use axum::routing::on;
use bytes::Bytes;
use schemars::json_schema;

use super::operation::{
    self, AnswerForm, ApiOperation, BodyForm, Example, HeaderField, KEY_ERRORS, READ_ERRORS,
    Resource, Verb, WRITE_ERRORS,
};
use crate::http::answer::code::Code;
use crate::http::answer::envelope::Envelope;
use crate::http::answer::error::Error;
use crate::http::answer::schema::schema_of;
use crate::http::answer::size::{CONTENT_FACTOR, content_bytes, envelope_text_bytes};
use crate::http::answer::text::{self, JSON};
use crate::http::answer::value;
use crate::http::answer::written::WrittenBody;
use crate::http::request::intent::TTL;
use crate::http::request::query::{Param, Query};
use crate::http::request::{body, etag, headers, path, range, retry};
use crate::http::server::detached;
use crate::http::server::limits::{LARGE_BYTES_MIN, Permit};
use crate::http::state::{App, Ctx};
use crate::model::condition::Current;
use crate::model::{Condition, Header, Key, Tags};
use crate::store::{CURRENT_BYTES_MAX, Change, Entry, Write};

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
    route: |filter| on(filter, read),
    summary: "Reads the live value of a key.",
    query: &[&FORMAT],
    headers: &[
        &operation::IF_MATCH,
        &operation::IF_NONE_MATCH,
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
            when: "A tag of `If-None-Match` names the live value.",
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
    route: |filter| on(filter, put),
    summary: "Writes a value, whether or not the key has one.",
    query: &[&TTL],
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
    route: |filter| on(filter, delete),
    summary: "Deletes the live value of a key.",
    query: &[],
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

/// GET and HEAD.
async fn read(ctx: Ctx, request: Request) -> Result<Response, Error> {
    let app = &ctx.0;
    let key = path::key(request.uri().path(), BASE)?;
    let mut query = Query::parse(READ.query, request.uri().query())?;
    let envelope = query.take(&FORMAT)?.is_some();
    query.finish()?;
    let matches = etag::if_match(request.headers())?;
    let differs = etag::if_none_match(request.headers())?;
    app.check_serving()?;
    let (entry, permit) = loop {
        if matches.is_some() || differs.is_some() {
            let decided = not_modified(app, &key, matches.as_ref(), differs.as_ref()).await?;
            if let Some(answer) = decided {
                return Ok(answer);
            }
        }
        if request.method() == Method::HEAD && !envelope {
            let header = app.state.store.head(&key).await?;
            match &matches {
                Some(tags) if !matching(tags, header.as_ref()) => continue,
                _ => return Ok(head(app, &header.ok_or(Error::KeyNotFound)?)),
            }
        }
        let fetched = fetch(app, &key, if envelope { CONTENT_FACTOR } else { 1 }).await;
        // the value may have changed since the decision: decide again, so that a client that joins
        // ranges never gets one of another value
        match (&fetched, &matches) {
            (Ok((entry, _)), Some(tags)) if !matching(tags, Some(&entry.header)) => {}
            (Err(Error::KeyNotFound), Some(_)) => {}
            _ => break fetched?,
        }
    };
    let tag = etag::of(entry.header.version.uuid);
    if envelope {
        let size = entry.content_bytes();
        let text = move || text::text(&Envelope::of(&key, &entry), envelope_text_bytes(size));
        let text = app.work(size, text).await?;
        let body = text::with_fitting_permit(&app.answers, text, permit);
        let mut response = text::json_bytes(StatusCode::OK, body);
        response.headers_mut().insert(ETAG, tag);
        return Ok(response);
    }
    let part = range::part(request.headers(), entry.content_bytes(), &tag)?;
    let headers = value::headers(&entry.header, app.state.clock.now());
    let body = text::with_permit(entry.body.unwrap_or_default(), permit);
    Ok(value::part(headers, body, part))
}

/// The answer to HEAD; does not read the bytes of the value.
fn head(app: &App, header: &Header) -> Response {
    let mut headers = value::headers(header, app.state.clock.now());
    value::accept_ranges(&mut headers);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(header.content.size()));
    value::whole(headers, Bytes::new())
}

/// The live value, and a permit for an answer of `factor` times its size. Takes the permit of a
/// large value before it reads the value.
async fn fetch(app: &App, key: &Key, factor: usize) -> Result<(Entry, Option<Permit>), Error> {
    loop {
        let found = app.state.store.peek(key).await?.ok_or(Error::KeyNotFound)?;
        let size = content_bytes(&found.header);
        let bytes = size.saturating_mul(factor);
        if found.body.is_some() && bytes < LARGE_BYTES_MIN {
            return Ok((found, None));
        }
        drop(found);
        let permit = app.answer_permit(bytes).await?;
        let entry = app.state.store.get(key).await?.ok_or(Error::KeyNotFound)?;
        // otherwise a larger value came in between: start over with memory for that one
        if entry.content_bytes() <= size {
            return Ok((entry, permit));
        }
    }
}

/// Whether a tag of `If-Match` names the live value.
fn matching(tags: &Tags, header: Option<&Header>) -> bool {
    Condition::Match(tags.clone()).holds(current(header))
}

/// A live value as conditions on tags see it.
fn current(header: Option<&Header>) -> Option<Current<'_>> {
    header.map(|header| Current { header, displaced_twin: false, body: None })
}

/// Decides a conditional read by the header of the value: a 304, a refusal, or `None` to go on. A
/// value that is written after this decision is newer and as good an answer, provided that
/// `If-Match` names it.
async fn not_modified(
    app: &App,
    key: &Key,
    matches: Option<&Tags>,
    differs: Option<&Tags>,
) -> Result<Option<Response>, Error> {
    let header = app.state.store.head(key).await?;
    let header = header.as_ref();
    if matches.is_some_and(|tags| !matching(tags, header)) {
        let current = match header {
            Some(header) => Some((key.clone(), Box::new(current_entry(app, key, header).await?))),
            None => None,
        };
        return Err(Error::PreconditionFailed { current, swap: false });
    }
    let Some(header) = header else { return Ok(None) };
    let differs = differs.cloned().map(Condition::NoneMatch);
    if differs.is_none_or(|condition| condition.holds(current(Some(header)))) {
        return Ok(None);
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    let mut headers = value::headers(header, app.state.clock.now());
    headers.remove(CONTENT_TYPE);
    *response.headers_mut() = headers;
    Ok(Some(response))
}

/// The live value for a refusal, with its bytes if they are few.
async fn current_entry(app: &App, key: &Key, header: &Header) -> Result<Entry, Error> {
    if header.content.size() <= CURRENT_BYTES_MAX
        && let Some(entry) = app.state.store.get(key).await?
    {
        return Ok(entry);
    }
    Ok(Entry { header: header.clone(), body: None })
}

async fn put(ctx: Ctx, request: Request) -> Result<Response, Error> {
    let app = &ctx.0;
    let key = path::key(request.uri().path(), BASE)?;
    let mut query = Query::parse(PUT.query, request.uri().query())?;
    let lifetime = query.take(&TTL)?;
    query.finish()?;
    let conditions = conditions(app, request.headers())?;
    let uuid = retry::header(request.headers())?;
    headers::check_encoding(request.headers())?;
    let content_type = headers::content_type(request.headers())?;
    app.check_serving()?;
    let (body, permit) = body::value(app, request.into_body()).await?;
    let size = body.len();
    let change = move || Change::put(content_type, body, lifetime.unwrap_or_default());
    let change = app.work(size, change).await;
    let write = Write { key: key.clone(), change, conditions, uuid };
    let written = detached::submit(app, write, Some(permit))
        .await
        .map_err(|error| Error::of_write(error, &key, false))?;
    let status = if written.previous.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = text::json(status, &WrittenBody::put(&key, &written))?;
    response.headers_mut().insert(ETAG, etag::of(written.header.version.uuid));
    Ok(response)
}

async fn delete(ctx: Ctx, request: Request) -> Result<Response, Error> {
    let app = &ctx.0;
    let key = path::key(request.uri().path(), BASE)?;
    Query::parse(DELETE.query, request.uri().query())?.finish()?;
    let conditions = conditions(app, request.headers())?;
    let uuid = retry::header(request.headers())?;
    app.check_serving()?;
    let write = Write { key: key.clone(), change: Change::Delete, conditions, uuid };
    let written = detached::submit(app, write, None)
        .await
        .map_err(|error| Error::of_write(error, &key, false))?;
    text::json(StatusCode::OK, &WrittenBody::delete(&key, &written))
}

/// The conditions of a write.
///
/// # Errors
/// `feature_disabled` for any condition, where `cas_enabled = false`.
fn conditions(app: &App, headers: &HeaderMap) -> Result<Vec<Condition>, Error> {
    headers::check_supported(headers)?;
    let conditions = etag::conditions(headers)?;
    if conditions.is_empty() || app.state.config.cas_enabled {
        Ok(conditions)
    } else {
        Err(Error::FeatureDisabled("cas_enabled"))
    }
}
