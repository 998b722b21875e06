//! PUT and DELETE of a value.

use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::{BASE, DELETE, PUT};
use crate::http::answer::envelope::ContentForm;
use crate::http::answer::error::{Error, RefusalForm};
use crate::http::answer::text;
use crate::http::answer::written::WrittenBody;
use crate::http::request::intent::TTL;
use crate::http::request::query::{EXACT, Query};
use crate::http::request::{body, etag, headers, path, retry};
use crate::http::server::detached;
use crate::http::state::{App, Ctx};
use crate::model::Condition;
use crate::store::{Change, Write};

/// A PUT without body and type, which was hardly meant to empty the value.
const EMPTY_PUT: &str = "the request has no body and names no Content-Type; nothing was written. \
    To give the value a new lifetime, read it, then PUT it again with `ttl` and with its ETag in \
    If-Match. To store an empty value, name its Content-Type";

/// PUT.
pub(super) async fn put(ctx: Ctx, request: Request) -> Result<Response, Error> {
    let app = &ctx.0;
    let key = path::key(request.uri().path(), BASE)?;
    let mut query = Query::parse(PUT.query, request.uri().query())?;
    let lifetime = query.take(&TTL)?;
    let content = query.take(&EXACT)?.unwrap_or_default();
    query.finish()?;
    let (conditions, form) = conditions(app, request.headers(), content)?;
    let uuid = retry::header(request.headers())?;
    headers::check_encoding(request.headers())?;
    let names_type = request.headers().contains_key(CONTENT_TYPE);
    let content_type = headers::content_type(request.headers())?;
    app.check_serving()?;
    let (body, permit) = body::value(app, request.into_body()).await?;
    if body.is_empty() && !names_type {
        return Err(Error::bad(EMPTY_PUT));
    }
    let size = body.len();
    let change = move || Change::put(content_type, body, lifetime.unwrap_or_default());
    let change = app.work(size, change).await;
    let write = Write { key: key.clone(), change, conditions, uuid };
    let written = detached::submit(app, write, Some(permit))
        .await
        .map_err(|error| Error::of_write(error, &key, form))?;
    let status = if written.previous.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = text::json(status, &WrittenBody::put(&key, &written))?;
    response.headers_mut().insert(ETAG, etag::of(written.header.version.uuid));
    Ok(response)
}

/// DELETE.
pub(super) async fn delete(ctx: Ctx, request: Request) -> Result<Response, Error> {
    let app = &ctx.0;
    let key = path::key(request.uri().path(), BASE)?;
    let mut query = Query::parse(DELETE.query, request.uri().query())?;
    let content = query.take(&EXACT)?.unwrap_or_default();
    query.finish()?;
    let (conditions, form) = conditions(app, request.headers(), content)?;
    let uuid = retry::header(request.headers())?;
    app.check_serving()?;
    let write = Write { key: key.clone(), change: Change::Delete, conditions, uuid };
    let written = detached::submit(app, write, None)
        .await
        .map_err(|error| Error::of_write(error, &key, form))?;
    text::json(StatusCode::OK, &WrittenBody::delete(&key, &written))
}

/// The conditions of a write, and how it is refused where one does not hold.
///
/// # Errors
/// `feature_disabled` for any condition, where `cas_enabled = false`.
fn conditions(
    app: &App,
    headers: &HeaderMap,
    content: ContentForm,
) -> Result<(Vec<Condition>, RefusalForm), Error> {
    headers::check_supported(headers)?;
    let conditions = etag::conditions(headers)?;
    if conditions.is_empty() || app.state.config.cas_enabled {
        let form = RefusalForm { swap: false, content, weak: etag::weak_if_match(headers) };
        Ok((conditions, form))
    } else {
        Err(Error::FeatureDisabled("cas_enabled"))
    }
}
