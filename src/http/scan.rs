//! `/scan/{prefix}`: live values in key order, by page or as a stream of lines.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, VARY};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::Serialize;

use super::body::Held;
use super::envelope::{Envelope, MEMORY_FACTOR, text_bytes};
use super::error::Error;
use super::query::{LIMIT_MAX, Query};
use super::routes::Resource;
use super::{App, Ctx, answer, path};
use crate::model::{Key, Prefix};
use crate::store::Page;

const BASE: &str = "/scan";
const LIMIT_DEFAULT: usize = 100;
/// How much content one step of a stream reads at once.
const STEP_BYTES_MAX: usize = 1 << 20;
/// The most that an item takes besides its content: key and type, every character escaped.
const ITEM_BYTES_MAX: usize = 8 << 10;
const NDJSON_ESSENCE: &str = "application/x-ndjson";
const NDJSON: HeaderValue = HeaderValue::from_static(NDJSON_ESSENCE);

pub(super) const RESOURCE: Resource =
    Resource { base: BASE, template: "/scan/{prefix}", has_rest: true, methods };

fn methods() -> MethodRouter<Arc<App>> {
    get(scan)
}

/// What is asked for.
struct Asked {
    prefix: Prefix,
    limit: Option<usize>,
    after: Option<Key>,
    values: bool,
}

#[derive(Serialize)]
struct Listing<'a> {
    prefix: &'a str,
    items: Vec<Envelope<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

async fn scan(ctx: Ctx, request: Request) -> Result<Response, Error> {
    let app = &ctx.0;
    let asked = Asked::parse(request.uri().path(), request.uri().query())?;
    app.check_serving()?;
    let mut response = if wants_lines(request.headers()) {
        lines(app, asked).await?
    } else {
        page(app, asked).await?
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

async fn page(app: &App, mut asked: Asked) -> Result<Response, Error> {
    let limit = asked.limit.unwrap_or(LIMIT_DEFAULT);
    let content = asked.values.then_some(app.state.config.limits.body_bytes_max);
    let (page, held) = loop {
        let (page, held) = read(app, &asked, limit, content).await?;
        // all that was found died meanwhile: read on, as an empty page looks like the end
        match page.next {
            Some(next) if page.items.is_empty() => asked.after = Some(next),
            _ => break (page, held),
        }
    };
    let (prefix, size) = (asked.prefix, content_bytes(&page));
    let text = move || {
        let listing = Listing {
            prefix: prefix.as_str(),
            items: page.items.iter().map(|(key, entry)| Envelope::of(key, entry)).collect(),
            next: page.next.as_ref().map(cursor),
        };
        answer::text(&listing, page_text_bytes(&page))
    };
    let text = app.work(size, text).await?;
    Ok(answer::json_bytes(StatusCode::OK, answer::fitted(app, text, held)))
}

/// Reads a page, with the memory for it and for its text, which is taken before.
async fn read(
    app: &App,
    asked: &Asked,
    limit: usize,
    content: Option<usize>,
) -> Result<(Page, Option<Held>), Error> {
    // a page has one item at least, however large
    let value_bytes_max = app.state.config.limits.value_bytes_max;
    let all = limit.saturating_mul(value_bytes_max);
    let most = content.map_or(0, |max| all.min(max.max(value_bytes_max)));
    let held = app.room(MEMORY_FACTOR * most + limit * ITEM_BYTES_MAX).await?;
    let page = app.state.store.scan(&asked.prefix, asked.after.as_ref(), limit, content).await?;
    Ok((page, held))
}

fn content_bytes(page: &Page) -> usize {
    page.items.iter().filter_map(|(_, entry)| entry.body.as_ref()).map(Bytes::len).sum()
}

fn page_text_bytes(page: &Page) -> usize {
    let bytes = page.items.iter().map(|(_, entry)| entry.content_bytes());
    bytes.map(text_bytes).sum()
}

/// All items, one a line. The first step is read before the answer begins, so that a failure there
/// is still a refusal; a later failure cuts the connection, which the client sees.
async fn lines(app: &Arc<App>, asked: Asked) -> Result<Response, Error> {
    let left = asked.limit.unwrap_or(usize::MAX);
    let mut lines = Lines { app: Arc::clone(app), asked, left, ended: false };
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
    response.headers_mut().insert(CONTENT_TYPE, NDJSON);
    Ok(response)
}

/// A stream that ends before its end.
#[derive(Debug, thiserror::Error)]
#[error("the scan failed; what was sent is incomplete")]
struct Cut;

async fn cut(error: Error) -> Cut {
    tracing::error!(?error, "a scan was cut");
    // what is ready is sent before the connection goes
    tokio::task::yield_now().await;
    Cut
}

/// A stream of lines under way.
struct Lines {
    app: Arc<App>,
    asked: Asked,
    left: usize,
    ended: bool,
}

impl Lines {
    /// The next lines, `None` at the end.
    async fn step(&mut self) -> Result<Option<Bytes>, Error> {
        // a step whose values all died while they were read is no end
        while !self.ended && self.left > 0 {
            let content = self.asked.values.then_some(STEP_BYTES_MAX);
            let limit = self.left.min(LIMIT_MAX);
            let (page, held) = read(&self.app, &self.asked, limit, content).await?;
            self.left -= page.items.len().min(self.left);
            self.ended = page.next.is_none();
            self.asked.after.clone_from(&page.next);
            let lines = self.app.work(content_bytes(&page), move || render(&page)).await?;
            if !lines.is_empty() {
                return Ok(Some(answer::fitted(&self.app, lines, held)));
            }
        }
        Ok(None)
    }
}

fn render(page: &Page) -> Result<Vec<u8>, Error> {
    let mut lines = Vec::with_capacity(page_text_bytes(page));
    for (key, entry) in &page.items {
        let envelope = Envelope::of_line(key, entry);
        envelope.write_line(&mut lines).map_err(|e| Error::Internal(e.to_string()))?;
    }
    Ok(lines)
}

impl Asked {
    fn parse(raw_path: &str, query: Option<&str>) -> Result<Self, Error> {
        let prefix = path::prefix(raw_path, BASE)?;
        let mut query = Query::parse(query)?;
        let limit = query.take_limit()?;
        let after = query.take("after").map(|text| parse_cursor(&text, &prefix)).transpose()?;
        let values = match query.take("values").as_deref() {
            None => false,
            Some("true") => true,
            Some(_) => return Err(Error::bad("`values` can only be true; otherwise leave it out")),
        };
        query.finish()?;
        Ok(Self { prefix, limit, after, values })
    }
}

/// The key after which the next page begins, as clients are to hand it back.
fn cursor(key: &Key) -> String {
    URL_SAFE_NO_PAD.encode(key.as_bytes())
}

fn parse_cursor(text: &str, prefix: &Prefix) -> Result<Key, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Error::BadCursor)?;
    let key = Key::from_bytes(&bytes).map_err(|_| Error::BadCursor)?;
    if prefix.covers(&key) { Ok(key) } else { Err(Error::BadCursor) }
}

/// Whether `Accept` names the media type of lines, with a weight above zero.
fn wants_lines(headers: &HeaderMap) -> bool {
    let mut ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    ranges.any(|value| value.split(',').any(names_lines))
}

fn names_lines(range: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let named = parts.next().is_some_and(|e| e.eq_ignore_ascii_case(NDJSON_ESSENCE));
    let refused = parts.any(|parameter| {
        let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
        weight.and_then(|q| q.parse::<f32>().ok()).is_some_and(|q| q <= 0.0)
    });
    named && !refused
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
