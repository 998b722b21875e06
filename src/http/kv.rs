//! `/kv/{key}`: read, write and delete one value.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use bytes::Bytes;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::answer::{self, Accepted};
use super::body::Held;
use super::envelope::{Envelope, MEMORY_FACTOR, text_bytes};
use super::error::Error;
use super::query::Query;
use super::routes::Resource;
use super::{App, Ctx, LARGE_BYTES_MIN, body, etag, path, write};
use crate::model::condition::Current;
use crate::model::{Condition, Content, Header, Key, Tags};
use crate::store::{CURRENT_BYTES_MAX, Change, Entry, Lifetime, Write};

const BASE: &str = "/kv";
const KVS_TIMESTAMP: HeaderName = HeaderName::from_static("kvs-timestamp");
const KVS_ORIGIN: HeaderName = HeaderName::from_static("kvs-origin");
const KVS_EXPIRES_AT: HeaderName = HeaderName::from_static("kvs-expires-at");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox");

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
    if matches.is_some() || differs.is_some() {
        if let Some(answer) = not_modified(app, &key, matches, differs).await? {
            return Ok(answer);
        }
    } else if request.method() == Method::HEAD && !envelope {
        let header = app.state.store.head(&key)?.ok_or(Error::KeyNotFound)?;
        let mut response = Response::new(Body::empty());
        *response.headers_mut() = value_headers(app, &header);
        let size = HeaderValue::from(header.content.size());
        response.headers_mut().insert(CONTENT_LENGTH, size);
        return Ok(response);
    }
    let (entry, held) = fetch(app, &key, if envelope { MEMORY_FACTOR } else { 1 }).await?;
    if envelope {
        let tag = etag::of(entry.header.version.uuid);
        let size = body_bytes(&entry);
        let text = move || answer::text(&Envelope::of(&key, &entry), text_bytes(size));
        let text = app.work(size, text).await?;
        let mut response = answer::json_bytes(StatusCode::OK, answer::fitted(app, text, held));
        response.headers_mut().insert(ETAG, tag);
        return Ok(response);
    }
    let headers = value_headers(app, &entry.header);
    let body = answer::with_room(entry.body.unwrap_or_default(), held);
    let mut response = Response::new(Body::from(body));
    *response.headers_mut() = headers;
    Ok(response)
}

fn body_bytes(entry: &Entry) -> usize {
    entry.body.as_ref().map_or(0, Bytes::len)
}

/// The live value, and the memory for an answer of `factor` times its size, which is taken before a
/// large value is read.
async fn fetch(app: &App, key: &Key, factor: usize) -> Result<(Entry, Option<Held>), Error> {
    loop {
        let found = app.state.store.peek(key)?.ok_or(Error::KeyNotFound)?;
        let size = usize::try_from(found.header.content.size()).unwrap_or(usize::MAX);
        let bytes = size.saturating_mul(factor);
        if found.body.is_some() && bytes < LARGE_BYTES_MIN {
            return Ok((found, None));
        }
        drop(found);
        let held = app.room(bytes).await?;
        let entry = app.state.store.get(key).await?.ok_or(Error::KeyNotFound)?;
        // a larger value came in between: room for that one, or for none
        if body_bytes(&entry) <= size {
            return Ok((entry, held));
        }
    }
}

/// Decides a conditional read by the header alone: a 304, a refusal, or `None` to go on. A value
/// that is written in between is newer than the decision and is sent whole, which is as good an
/// answer.
async fn not_modified(
    app: &App,
    key: &Key,
    matches: Option<Tags>,
    differs: Option<Tags>,
) -> Result<Option<Response>, Error> {
    let header = app.state.store.head(key)?;
    let current = header.as_ref();
    let current = current.map(|header| Current { header, displaced_twin: false, body: None });
    let holds = |condition: Condition| condition.holds(current);
    if matches.is_some_and(|tags| !holds(Condition::Match(tags))) {
        let current = match &header {
            Some(header) => Some((key.clone(), Box::new(current_entry(app, key, header).await?))),
            None => None,
        };
        return Err(Error::PreconditionFailed { current, swap: false });
    }
    let Some(header) = header.as_ref() else { return Ok(None) };
    if differs.is_none_or(|tags| holds(Condition::NoneMatch(tags))) {
        return Ok(None);
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    let mut headers = value_headers(app, header);
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
    Query::none(request.uri().query())?;
    let conditions = conditions(app, request.headers())?;
    write::check_encoding(request.headers())?;
    let content_type = write::content_type(request.headers())?;
    app.check_serving()?;
    let (body, held) = body::value(app, request.into_body()).await?;
    let change = Change::put(content_type, body, Lifetime::Unbounded);
    let write = Write { key: key.clone(), change, conditions, uuid: None };
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
    app.check_serving()?;
    let write = Write { key: key.clone(), change: Change::Delete, conditions, uuid: None };
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

/// The headers of a value.
fn value_headers(app: &App, header: &Header) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    if let Content::Value { content_type, .. } = &header.content {
        let value = match content_type.as_str() {
            "application/octet-stream" => HeaderValue::from_static("application/octet-stream"),
            "application/json" => HeaderValue::from_static("application/json"),
            other => HeaderValue::from_str(other)
                .unwrap_or(HeaderValue::from_static("application/octet-stream")),
        };
        headers.insert(CONTENT_TYPE, value);
    }
    headers.insert(ETAG, etag::of(header.version.uuid));
    // a date in the future is not for Last-Modified (RFC 9110, section 8.8.2.1)
    let modified = header.version.timestamp.min(app.state.clock.now());
    let modified = UNIX_EPOCH + Duration::from_micros(modified.micros());
    insert_text(&mut headers, LAST_MODIFIED, &httpdate::fmt_http_date(modified));
    headers.insert(KVS_TIMESTAMP, HeaderValue::from(header.version.timestamp.micros()));
    let mut buffer = uuid::Uuid::encode_buffer();
    let origin = header.origin.uuid().hyphenated().encode_lower(&mut buffer);
    insert_text(&mut headers, KVS_ORIGIN, origin);
    if let Some(at) = header.expires_at {
        insert_text(&mut headers, KVS_EXPIRES_AT, &at.rfc3339());
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers.insert(CONTENT_SECURITY_POLICY, SANDBOX);
    headers
}

fn insert_text(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
