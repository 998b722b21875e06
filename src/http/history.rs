//! `/history/{key}`: what this node saw of a key, and the bytes of its earlier values.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{ETAG, LAST_MODIFIED};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::body::Held;
use super::envelope::{self, Base64, MEMORY_FACTOR, text_bytes};
use super::error::Error;
use super::query::{LIMIT_MAX, Query};
use super::routes::Resource;
use super::{App, Ctx, answer, path, retry, value};
use crate::model::{Content, Key, Timestamp};
use crate::store::{CURRENT_BYTES_MAX, Outcome, Revision};

const BASE: &str = "/history";
/// The most that a revision takes besides its content.
const REVISION_BYTES_MAX: usize = 2 << 10;

pub(super) const RESOURCE: Resource =
    Resource { base: BASE, template: "/history/{key}", has_rest: true, methods };

fn methods() -> MethodRouter<Arc<App>> {
    get(history)
}

async fn history(ctx: Ctx, request: Request) -> Result<Response, Error> {
    let app = &ctx.0;
    let key = path::key(request.uri().path(), BASE)?;
    let mut query = Query::parse(request.uri().query())?;
    let limit = query.take_limit()?;
    let uuid = query.take("uuid");
    query.finish()?;
    let bad = || Error::bad("`uuid` is that of a revision, as `/history` shows it");
    let uuid = uuid.map(|text| retry::parse(&text).ok_or_else(bad)).transpose()?;
    if uuid.is_some() && limit.is_some() {
        return Err(Error::bad("`uuid` names one revision; leave `limit` out"));
    }
    if !app.state.config.revision_history_enabled {
        return Err(Error::FeatureDisabled("revision_history_enabled"));
    }
    app.check_serving()?;
    match uuid {
        Some(uuid) => one(app, &key, uuid).await,
        None => all(app, key, limit.unwrap_or(LIMIT_MAX)).await,
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    key: &'a str,
    revisions: Vec<Shown<'a>>,
}

#[derive(Serialize)]
struct Shown<'a> {
    uuid: Uuid,
    timestamp: Timestamp,
    origin: Uuid,
    parent: Option<Uuid>,
    deleted: bool,
    expires_at: Option<String>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<Base64<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted: Option<bool>,
}

impl<'a> Shown<'a> {
    fn of(revision: &'a Revision) -> Self {
        let header = &revision.header;
        let mut shown = Self {
            uuid: header.version.uuid,
            timestamp: header.version.timestamp,
            origin: header.origin.uuid(),
            parent: header.parent,
            deleted: false,
            expires_at: header.expires_at.map(Timestamp::rfc3339),
            outcome: match revision.outcome {
                Outcome::Current => "current",
                Outcome::Replaced => "replaced",
                Outcome::Expired => "expired",
            },
            by: revision.by,
            content_type: None,
            size: None,
            data: None,
            data_base64: None,
            omitted: None,
        };
        let Content::Value { content_type, size, .. } = &header.content else {
            return Self { deleted: true, ..shown };
        };
        (shown.content_type, shown.size) = (Some(content_type.as_str()), Some(*size));
        match &revision.body {
            Some(body) => (shown.data, shown.data_base64) = envelope::content(content_type, body),
            None => shown.omitted = Some(true),
        }
        shown
    }
}

/// The revisions, newest first.
async fn all(app: &App, key: Key, limit: usize) -> Result<Response, Error> {
    let (revisions, held) = read(app, &key, limit).await?;
    let size = content_bytes(&revisions);
    let text = move || {
        let shown = revisions.iter().map(Shown::of).collect();
        let bytes = revisions.iter().map(|revision| text_bytes(revision.content_bytes())).sum();
        answer::text(&Answer { key: key.as_str(), revisions: shown }, bytes)
    };
    let text = app.work(size, text).await?;
    Ok(answer::json_bytes(StatusCode::OK, answer::fitted(app, text, held)))
}

/// Reads them, with the memory for the answer, which is taken before.
async fn read(app: &App, key: &Key, limit: usize) -> Result<(Vec<Revision>, Option<Held>), Error> {
    let store = &app.state.store;
    loop {
        let known = store.history(key, limit, 0).await?;
        if known.is_empty() {
            return Err(Error::KeyUnknown);
        }
        let sizes = known.iter().map(|revision| revision.header.content.size());
        let shown = sizes.filter(|size| *size <= CURRENT_BYTES_MAX).sum::<u64>();
        let shown = usize::try_from(shown).unwrap_or(usize::MAX);
        let held = app.room(MEMORY_FACTOR * shown + known.len() * REVISION_BYTES_MAX).await?;
        let revisions = store.history(key, limit, CURRENT_BYTES_MAX).await?;
        // more came in between: room for that, too
        if content_bytes(&revisions) <= shown && revisions.len() <= known.len() {
            return Ok((revisions, held));
        }
    }
}

fn content_bytes(revisions: &[Revision]) -> usize {
    revisions.iter().map(Revision::content_bytes).sum()
}

/// The bytes of one revision, with the headers of a value.
async fn one(app: &App, key: &Key, uuid: Uuid) -> Result<Response, Error> {
    let store = &app.state.store;
    loop {
        let known = store.history(key, LIMIT_MAX, 0).await?;
        if known.is_empty() {
            return Err(Error::KeyUnknown);
        }
        let Some(found) = known.iter().find(|revision| revision.header.version.uuid == uuid) else {
            break;
        };
        let Content::Value { size, .. } = found.header.content else {
            return Err(Error::RevisionNotFound("this revision is a delete and has no bytes"));
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let held = app.room(size).await?;
        let Some(revision) = store.revision(key, uuid).await? else { break };
        if revision.content_bytes() > size {
            continue;
        }
        let body = revision.body.ok_or(Error::RevisionNotFound(
            "this revision expired and its bytes were freed; `/history` still shows that it was",
        ))?;
        let mut headers = value::headers(app, &revision.header);
        // the uuid is asked for by name: there is nothing to validate, and nothing is
        headers.remove(ETAG);
        headers.remove(LAST_MODIFIED);
        return Ok(value::whole(headers, answer::with_room(body, held)));
    }
    Err(Error::RevisionNotFound(
        "this node keeps no such revision of the key (revision_history_depth bounds how many); \
         `/history` without `uuid` lists those that it keeps",
    ))
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
