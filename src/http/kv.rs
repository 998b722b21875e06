//! `/kv/{key}`: read, write and delete one value.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use bytes::Bytes;

use std::sync::Arc;

use super::answer::{self, Accepted};
use super::body::Held;
use super::envelope::{Envelope, MEMORY_FACTOR, text_bytes};
use super::error::Error;
use super::query::Query;
use super::routes::Resource;
use super::{App, Ctx, LARGE_BYTES_MIN, body, etag, intent, path, range, retry, value, write};
use crate::model::condition::Current;
use crate::model::{Condition, Header, Key, Tags};
use crate::store::{CURRENT_BYTES_MAX, Change, Entry, Write};

const BASE: &str = "/kv";

pub(super) const RESOURCE: Resource =
    Resource { base: BASE, template: "/kv/{key}", has_rest: true, methods };

fn methods() -> MethodRouter<Arc<App>> {
    get(read).put(put).delete(delete)
}

/// GET and HEAD.
async fn read(ctx: Ctx, request: Request) -> Result<Response, Error> {
    let app = &ctx.0;
    let key = path::key(request.uri().path(), BASE)?;
    let mut query = Query::parse(request.uri().query())?;
    let envelope = match query.take("format").as_deref() {
        None => false,
        Some("envelope") => true,
        Some(_) => return Err(Error::bad("`format` can only be `envelope`")),
    };
    query.finish()?;
    let matches = etag::if_match(request.headers())?;
    let differs = etag::if_none_match(request.headers())?;
    app.check_serving()?;
    let (entry, held) = loop {
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
        let fetched = fetch(app, &key, if envelope { MEMORY_FACTOR } else { 1 }).await;
        // another value, or none, may have come in between: whoever puts parts together must not
        // get a part of that
        match (&fetched, &matches) {
            (Ok((entry, _)), Some(tags)) if !matching(tags, Some(&entry.header)) => {}
            (Err(Error::KeyNotFound), Some(_)) => {}
            _ => break fetched?,
        }
    };
    let tag = etag::of(entry.header.version.uuid);
    if envelope {
        let size = entry.content_bytes();
        let text = move || answer::text(&Envelope::of(&key, &entry), text_bytes(size));
        let text = app.work(size, text).await?;
        let mut response = answer::json_bytes(StatusCode::OK, answer::fitted(app, text, held));
        response.headers_mut().insert(ETAG, tag);
        return Ok(response);
    }
    let part = range::part(request.headers(), entry.content_bytes(), &tag)?;
    let headers = value::headers(app, &entry.header);
    let body = answer::with_room(entry.body.unwrap_or_default(), held);
    Ok(value::part(headers, body, part))
}

/// The headers alone, for which a large value is not read.
fn head(app: &App, header: &Header) -> Response {
    let mut headers = value::headers(app, header);
    value::accept_ranges(&mut headers);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(header.content.size()));
    value::whole(headers, Bytes::new())
}

/// The live value, and the memory for an answer of `factor` times its size, which is taken before a
/// large value is read.
async fn fetch(app: &App, key: &Key, factor: usize) -> Result<(Entry, Option<Held>), Error> {
    loop {
        let found = app.state.store.peek(key).await?.ok_or(Error::KeyNotFound)?;
        let size = usize::try_from(found.header.content.size()).unwrap_or(usize::MAX);
        let bytes = size.saturating_mul(factor);
        if found.body.is_some() && bytes < LARGE_BYTES_MIN {
            return Ok((found, None));
        }
        drop(found);
        let held = app.room(bytes).await?;
        let entry = app.state.store.get(key).await?.ok_or(Error::KeyNotFound)?;
        // a larger value came in between: room for that one, or for none
        if entry.content_bytes() <= size {
            return Ok((entry, held));
        }
    }
}

/// Whether a tag of `If-Match` names what is there.
fn matching(tags: &Tags, header: Option<&Header>) -> bool {
    Condition::Match(tags.clone()).holds(current(header))
}

/// A live value as decisions by its tag see it.
fn current(header: Option<&Header>) -> Option<Current<'_>> {
    header.map(|header| Current { header, displaced_twin: false, body: None })
}

/// Decides a conditional read by the header alone: a 304, a refusal, or `None` to go on. A value
/// that is written after this is newer than the decision and is as good an answer, if `If-Match`
/// names it, too.
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
    let mut headers = value::headers(app, header);
    headers.remove(CONTENT_TYPE);
    *response.headers_mut() = headers;
    Ok(Some(response))
}

/// The live value as a refusal shows it, its bytes only where they are few.
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
    let mut query = Query::parse(request.uri().query())?;
    let lifetime = query.take("ttl").map(|text| intent::lifetime(&text)).transpose()?;
    query.finish()?;
    let conditions = conditions(app, request.headers())?;
    let uuid = retry::header(request.headers())?;
    write::check_encoding(request.headers())?;
    let content_type = write::content_type(request.headers())?;
    app.check_serving()?;
    let (body, held) = body::value(app, request.into_body()).await?;
    let size = body.len();
    let change = move || Change::put(content_type, body, lifetime.unwrap_or_default());
    let change = app.work(size, change).await;
    let write = Write { key: key.clone(), change, conditions, uuid };
    let written = write::commit(app, write, Some(held))
        .await
        .map_err(|error| Error::of_write(error, &key, false))?;
    let status = if written.previous.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = answer::json(status, &Accepted::put(&key, &written))?;
    response.headers_mut().insert(ETAG, etag::of(written.header.version.uuid));
    Ok(response)
}

async fn delete(ctx: Ctx, request: Request) -> Result<Response, Error> {
    let app = &ctx.0;
    let key = path::key(request.uri().path(), BASE)?;
    Query::none(request.uri().query())?;
    let conditions = conditions(app, request.headers())?;
    let uuid = retry::header(request.headers())?;
    app.check_serving()?;
    let write = Write { key: key.clone(), change: Change::Delete, conditions, uuid };
    let written = write::commit(app, write, None)
        .await
        .map_err(|error| Error::of_write(error, &key, false))?;
    answer::json(StatusCode::OK, &Accepted::delete(&key, &written))
}

/// The conditions of a write, if they are served here at all.
fn conditions(app: &App, headers: &HeaderMap) -> Result<Vec<Condition>, Error> {
    write::check_headers(headers)?;
    let conditions = etag::conditions(headers)?;
    if conditions.is_empty() || app.state.config.cas_enabled {
        Ok(conditions)
    } else {
        Err(Error::FeatureDisabled("cas_enabled"))
    }
}
