//! `/scan/{prefix}`: live values in key order, as a page or as a stream of lines.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, VARY};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::on;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use schemars::{JsonSchema, json_schema};
use serde::Serialize;

use super::operation::{
    self, AnswerForm, ApiOperation, Example, KEY_ERRORS, READ_ERRORS, Resource, Verb,
};
use crate::http::answer::code::Code;
use crate::http::answer::envelope::{ContentForm, Envelope};
use crate::http::answer::error::Error;
use crate::http::answer::schema::schema_of;
use crate::http::answer::size::{CONTENT_FACTOR, ITEM_BYTES_MAX, envelope_text_bytes};
use crate::http::answer::text::{self, JSON, NDJSON};
use crate::http::request::path;
use crate::http::request::query::{EXACT, LIMIT, LIMIT_MAX, Param, Query};
use crate::http::server::limits::Permit;
use crate::http::state::{App, Ctx};
use crate::model::{Key, Prefix};
use crate::store::Page;

const BASE: &str = "/scan";
const LIMIT_DEFAULT: usize = 100;
/// The content that one step of a stream reads at once.
const STEP_BYTES_MAX: usize = 1 << 20;

pub(crate) static RESOURCE: Resource =
    Resource { base: BASE, template: "/scan/{prefix}", has_rest: true, operations: &[&SCAN] };

/// Where the page begins.
const AFTER: Param<Key> = Param {
    name: "after",
    doc: "Begins after an earlier page of the same prefix, whose `next` this is.",
    schema: |_| json_schema!({ "type": "string" }),
    read: parse_cursor,
};

/// Whether the envelopes have content.
const VALUES: Param<()> = Param {
    name: "values",
    doc: "`true` asks for the values, too; a page then ends early at `limits.body_bytes_max`.",
    schema: |_| json_schema!({ "const": "true" }),
    read: |text| match text {
        "true" => Ok(()),
        _ => Err(Error::bad("`values` can only be true; otherwise leave it out")),
    },
};

/// Whether the lines have an end of their own.
const END: Param<()> = Param {
    name: "end",
    doc: "`true` adds a last line to `application/x-ndjson`, such as \
          `{\"end\":true,\"items\":12}`: without it the lines are cut, whatever the \
          connection says.",
    schema: |_| json_schema!({ "const": "true" }),
    read: |text| match text {
        "true" => Ok(()),
        _ => Err(Error::bad("`end` can only be true; otherwise leave it out")),
    },
};

static SCAN: ApiOperation = ApiOperation {
    id: "scan",
    verb: Verb::Get,
    route: |filter| on(filter, scan),
    summary: "Lists the live values below a prefix in the order of their keys.",
    query: &[&LIMIT, &AFTER, &VALUES, &EXACT, &END],
    headers: &[&operation::ACCEPT],
    body: None,
    answers: &[
        AnswerForm {
            status: 200,
            when: "A page of at most `limit` (100) values; `next` leads to the next page.",
            media_types: &[JSON],
            schema: Some(schema_of::<PageBody<'static>>),
            headers: &[&operation::VARY],
        },
        AnswerForm {
            status: 200,
            when: "With `Accept: application/x-ndjson`: one envelope a line, all of them without \
                   `limit`, and with `end=true` a last line that counts them. A stream that is cut \
                   was not finished: its connection is reset.",
            media_types: &[NDJSON],
            schema: Some(schema_of::<Line<'static>>),
            headers: &[&operation::VARY],
        },
    ],
    errors: &[KEY_ERRORS, READ_ERRORS, &[Code::BadCursor]],
    example: Example {
        path: "/scan/app?limit=1&values=true",
        headers: &[],
        body: "",
        status: 200,
        answer: r#"{"prefix":"app","items":[{"key":"app/config",
            "uuid":"6f3c9a52-7c3c-4b6f-9d11-0f5f0c2b9a10","timestamp":1700000000000001,
            "origin":"c5a8b1de-59a4-4d3e-8a51-6f0a3c1d2e4f",
            "origin_joined_at":"2023-11-01T00:00:00.000000Z","parent":null,"expires_at":null,
            "content_type":"application/json","size":7,"data":{"a":1}}],"next":"YXBwL2NvbmZpZw"}"#,
    },
};

/// The parameters of a scan.
struct ScanQuery {
    prefix: Prefix,
    limit: Option<usize>,
    after: Option<Key>,
    values: bool,
    form: ContentForm,
    end: bool,
}

impl ScanQuery {
    fn parse(raw_path: &str, query: Option<&str>) -> Result<Self, Error> {
        let prefix = path::prefix(raw_path, BASE)?;
        let mut query = Query::parse(SCAN.query, query)?;
        let limit = query.take(&LIMIT)?;
        let after = query.take(&AFTER)?;
        if after.as_ref().is_some_and(|key| !prefix.covers(key)) {
            return Err(Error::BadCursor);
        }
        let values = query.take(&VALUES)?.is_some();
        let form = query.take(&EXACT)?.unwrap_or_default();
        let end = query.take(&END)?.is_some();
        query.finish()?;
        Ok(Self { prefix, limit, after, values, form, end })
    }
}

#[derive(Serialize, JsonSchema)]
struct PageBody<'a> {
    prefix: &'a str,
    items: Vec<Envelope<'a>>,
    /// The `after` of the next page; missing on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    next: Option<String>,
}

/// A line of `application/x-ndjson`.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what is written; see render() and end_line()")]
enum Line<'a> {
    /// A value.
    Envelope(Envelope<'a>),
    /// The last line with `end=true`.
    End(EndLine),
}

#[derive(Serialize, JsonSchema)]
struct EndLine {
    /// `true`.
    end: bool,
    /// How many lines came before.
    items: usize,
}

async fn scan(ctx: Ctx, request: Request) -> Result<Response, Error> {
    let app = &ctx.0;
    let query = ScanQuery::parse(request.uri().path(), request.uri().query())?;
    app.check_serving()?;
    let mut response = if wants_lines(request.headers()) {
        lines(app, query).await?
    } else if query.end {
        return Err(Error::bad("`end` goes with `Accept: application/x-ndjson` only"));
    } else {
        page(app, query).await?
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

async fn page(app: &App, mut query: ScanQuery) -> Result<Response, Error> {
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    let content = query.values.then_some(app.state.config.limits.body_bytes_max);
    let (page, permit) = loop {
        let (page, permit) = read(app, &query, limit, content).await?;
        // values that die during the read are left out; read on, as an empty page would look like
        // the last one
        match page.next {
            Some(next) if page.items.is_empty() => query.after = Some(next),
            _ => break (page, permit),
        }
    };
    let (prefix, form, size) = (query.prefix, query.form, content_bytes(&page));
    let text = move || {
        let body = PageBody {
            prefix: prefix.as_str(),
            items: page.items.iter().map(|(key, e)| Envelope::of(key, e, form)).collect(),
            next: page.next.as_ref().map(cursor),
        };
        text::text(&body, text_bytes(&page))
    };
    let text = app.work(size, text).await?;
    let body = text::with_fitting_permit(&app.answers, text, permit);
    Ok(text::json_bytes(StatusCode::OK, body))
}

/// Reads a page of at most `limit` values and about `content` bytes, `None` for headers only. Takes
/// the memory for it and for its text before it reads.
async fn read(
    app: &App,
    query: &ScanQuery,
    limit: usize,
    content: Option<usize>,
) -> Result<(Page, Option<Permit>), Error> {
    // a page has at least one value, however large
    let value_bytes_max = app.state.config.limits.value_bytes_max;
    let all = limit.saturating_mul(value_bytes_max);
    let most = content.map_or(0, |max| all.min(max.max(value_bytes_max)));
    let permit = app.answer_permit(CONTENT_FACTOR * most + limit * ITEM_BYTES_MAX).await?;
    let page = app.state.store.scan(&query.prefix, query.after.as_ref(), limit, content).await?;
    Ok((page, permit))
}

fn content_bytes(page: &Page) -> usize {
    page.items.iter().map(|(_, entry)| entry.content_bytes()).sum()
}

fn text_bytes(page: &Page) -> usize {
    page.items.iter().map(|(_, entry)| envelope_text_bytes(entry.content_bytes())).sum()
}

/// All values, one a line. Reads the first step before the answer begins, so that a failure there
/// is a refusal; a later failure cuts the connection, which the client notices.
async fn lines(app: &Arc<App>, query: ScanQuery) -> Result<Response, Error> {
    let left = query.limit.unwrap_or(usize::MAX);
    let mut lines = Lines { app: Arc::clone(app), query, left, items: 0, ended: false };
    let first = lines.step().await?;
    let stream = futures_util::stream::try_unfold((first, lines), async |(ready, mut lines)| {
        let chunk = match ready {
            Some(chunk) => Some(chunk),
            None => match lines.step().await {
                Ok(chunk) => chunk,
                Err(error) => return Err(cut(error).await),
            },
        };
        Ok(chunk.map(|chunk| (chunk, (None, lines))))
    });
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    Ok(response)
}

/// Ends a stream before its last line.
#[derive(Debug, thiserror::Error)]
#[error("the scan failed; the lines that were sent are incomplete")]
struct Cut;

async fn cut(error: Error) -> Cut {
    tracing::error!(?error, "a scan failed; its connection is cut, the client should scan again");
    // lets hyper send the lines that are ready before the connection goes
    tokio::task::yield_now().await;
    Cut
}

/// A stream of lines under way.
struct Lines {
    app: Arc<App>,
    query: ScanQuery,
    left: usize,
    /// How many lines were made.
    items: usize,
    ended: bool,
}

impl Lines {
    /// The next lines; `None` at the end.
    async fn step(&mut self) -> Result<Option<Bytes>, Error> {
        // a step is empty, and not the end, when all its values died during the read
        while !self.ended && self.left > 0 {
            let content = self.query.values.then_some(STEP_BYTES_MAX);
            let limit = self.left.min(LIMIT_MAX);
            let (page, permit) = read(&self.app, &self.query, limit, content).await?;
            self.left -= page.items.len().min(self.left);
            self.items += page.items.len();
            self.ended = page.next.is_none();
            self.query.after.clone_from(&page.next);
            let (bytes, form) = (content_bytes(&page), self.query.form);
            let lines = self.app.work(bytes, move || render(&page, form)).await?;
            if !lines.is_empty() {
                return Ok(Some(text::with_fitting_permit(&self.app.answers, lines, permit)));
            }
        }
        // told once
        std::mem::take(&mut self.query.end).then(|| end_line(self.items)).transpose()
    }
}

fn end_line(items: usize) -> Result<Bytes, Error> {
    let mut line = text::text(&EndLine { end: true, items }, 40)?;
    line.push(b'\n');
    Ok(line.into())
}

fn render(page: &Page, form: ContentForm) -> Result<Vec<u8>, Error> {
    let mut lines = Vec::with_capacity(text_bytes(page));
    for (key, entry) in &page.items {
        let envelope = Envelope::of_line(key, entry, form);
        envelope.write_line(&mut lines).map_err(|e| Error::internal(e.to_string()))?;
    }
    Ok(lines)
}

/// The opaque form of the last key of a page, which clients send back as `after`.
fn cursor(key: &Key) -> String {
    URL_SAFE_NO_PAD.encode(key.as_bytes())
}

fn parse_cursor(text: &str) -> Result<Key, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Error::BadCursor)?;
    Key::from_bytes(&bytes).map_err(|_| Error::BadCursor)
}

/// Whether `Accept` names NDJSON with a weight above zero.
fn wants_lines(headers: &HeaderMap) -> bool {
    let mut ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    ranges.any(|value| value.split(',').any(names_lines))
}

fn names_lines(range: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let named = parts.next().is_some_and(|e| e.eq_ignore_ascii_case(NDJSON));
    let refused = parts.any(|parameter| {
        let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
        weight.and_then(|q| q.parse::<f32>().ok()).is_some_and(|q| q <= 0.0)
    });
    named && !refused
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
