//! `/history/{key}`: the revisions of a key that this node saw, and the bytes of each.

use std::borrow::Cow;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{ETAG, LAST_MODIFIED};
use axum::response::Response;
use axum::routing::on;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::operation::{
    self, AnswerForm, ApiOperation, Example, KEY_ERRORS, READ_ERRORS, Resource, Verb,
};
use crate::http::answer::code::Code;
use crate::http::answer::envelope::{self, Base64, ContentForm};
use crate::http::answer::error::Error;
use crate::http::answer::schema::{
    AnySchema, Base64Schema, KeySchema, MicrosSchema, MomentSchema, schema_of,
};
use crate::http::answer::size::{self, CONTENT_FACTOR, REVISION_BYTES_MAX, envelope_text_bytes};
use crate::http::answer::text::{self, JSON};
use crate::http::answer::value;
use crate::http::request::query::{EXACT, LIMIT, LIMIT_MAX, Param, Query};
use crate::http::request::{path, retry};
use crate::http::server::limits::Permit;
use crate::http::state::{App, Ctx};
use crate::model::{Content, Key, Timestamp};
use crate::store::{CURRENT_BYTES_MAX, Outcome, Revision};

const BASE: &str = "/history";

pub(crate) static RESOURCE: Resource =
    Resource { base: BASE, template: "/history/{key}", has_rest: true, operations: &[&HISTORY] };

/// The revision whose bytes are wanted.
const REVISION: Param<Uuid> = Param {
    name: "uuid",
    doc: "Asks for the bytes of this revision instead of the list.",
    schema: schema_of::<Uuid>,
    read: |text| {
        let bad = || Error::bad("`uuid` must be the uuid of a revision, as `/history` shows it");
        retry::parse(text).ok_or_else(bad)
    },
};

static HISTORY: ApiOperation = ApiOperation {
    id: "history",
    verb: Verb::Get,
    route: |filter| on(filter, history),
    summary: "Lists the revisions of a key that this node saw, newest first, or reads one.",
    query: &[&LIMIT, &REVISION, &EXACT],
    headers: &[],
    body: None,
    answers: &[
        AnswerForm {
            status: 200,
            when: "Without `uuid`: the revisions.",
            media_types: &[JSON],
            schema: Some(schema_of::<HistoryBody<'static>>),
            headers: &[],
        },
        AnswerForm {
            status: 200,
            when: "With `uuid`: the bytes of the revision.",
            media_types: &["*/*"],
            schema: None,
            headers: &[
                &operation::KVS_TIMESTAMP,
                &operation::KVS_ORIGIN,
                &operation::KVS_EXPIRES_AT,
            ],
        },
    ],
    errors: &[
        KEY_ERRORS,
        READ_ERRORS,
        &[Code::KeyNotFound, Code::RevisionNotFound, Code::FeatureDisabled],
    ],
    example: Example {
        path: "/history/app/config?limit=1",
        headers: &[],
        body: "",
        status: 200,
        answer: r#"{"key":"app/config","revisions":[{
            "uuid":"6f3c9a52-7c3c-4b6f-9d11-0f5f0c2b9a10","timestamp":1700000000000001,
            "origin":"c5a8b1de-59a4-4d3e-8a51-6f0a3c1d2e4f","parent":null,"deleted":false,
            "expires_at":null,"outcome":"current","content_type":"application/json","size":7,
            "data":{"a":1}}]}"#,
    },
};

#[derive(Serialize, JsonSchema)]
struct HistoryBody<'a> {
    #[schemars(with = "KeySchema")]
    key: &'a str,
    /// Newest first.
    revisions: Vec<RevisionBody<'a>>,
}

/// A revision as answers show it, its members in the order of the contract.
#[derive(Serialize, JsonSchema)]
struct RevisionBody<'a> {
    uuid: Uuid,
    #[schemars(with = "MicrosSchema")]
    timestamp: Timestamp,
    /// The node that accepted the write.
    origin: Uuid,
    /// The version that the write replaced on its origin.
    parent: Option<Uuid>,
    deleted: bool,
    #[schemars(with = "Option<MomentSchema>")]
    expires_at: Option<String>,
    outcome: OutcomeName,
    /// The version that replaced it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Uuid")]
    by: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    content_type: Option<&'a str>,
    /// Of the value, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64")]
    size: Option<u64>,
    /// The value, where it is JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AnySchema")]
    data: Option<Cow<'a, RawValue>>,
    /// The value, where it is not shown as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Base64Schema")]
    data_base64: Option<Base64<'a>>,
    /// `true` where the value is too large to be shown, or its bytes are gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    omitted: Option<bool>,
}

/// An [`Outcome`] by its name.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum OutcomeName {
    Current,
    Replaced,
    Superseded,
    Expired,
}

impl<'a> RevisionBody<'a> {
    fn of(revision: &'a Revision, form: ContentForm) -> Self {
        let header = &revision.header;
        let mut shown = Self {
            uuid: header.version.uuid,
            timestamp: header.version.timestamp,
            origin: header.origin.uuid(),
            parent: header.parent,
            deleted: false,
            expires_at: header.expires_at.map(Timestamp::rfc3339),
            outcome: match revision.outcome {
                Outcome::Current => OutcomeName::Current,
                Outcome::Replaced => OutcomeName::Replaced,
                Outcome::Superseded => OutcomeName::Superseded,
                Outcome::Expired => OutcomeName::Expired,
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
            Some(body) => {
                (shown.data, shown.data_base64) = envelope::content(content_type, body, form);
            }
            None => shown.omitted = Some(true),
        }
        shown
    }
}

async fn history(ctx: Ctx, request: Request) -> Result<Response, Error> {
    let app = &ctx.0;
    let key = path::key(request.uri().path(), BASE)?;
    let mut query = Query::parse(HISTORY.query, request.uri().query())?;
    let limit = query.take(&LIMIT)?;
    let uuid = query.take(&REVISION)?;
    let form = query.take(&EXACT)?.unwrap_or_default();
    query.finish()?;
    if uuid.is_some() && limit.is_some() {
        return Err(Error::bad("`uuid` asks for one revision; leave `limit` out"));
    }
    if !app.state.config.revision_history_enabled {
        return Err(Error::FeatureDisabled("revision_history_enabled"));
    }
    app.check_serving()?;
    match uuid {
        Some(uuid) => one(app, &key, uuid).await,
        None => all(app, key, limit.unwrap_or(LIMIT_MAX), form).await,
    }
}

/// The revisions, newest first.
async fn all(app: &App, key: Key, limit: usize, form: ContentForm) -> Result<Response, Error> {
    let (revisions, permit) = read(app, &key, limit).await?;
    let size = content_bytes(&revisions);
    let text = move || {
        let bytes = revisions.iter().map(|r| envelope_text_bytes(r.content_bytes())).sum();
        let shown = revisions.iter().map(|revision| RevisionBody::of(revision, form)).collect();
        text::text(&HistoryBody { key: key.as_str(), revisions: shown }, bytes)
    };
    let text = app.work(size, text).await?;
    let body = text::with_fitting_permit(&app.answers, text, permit);
    Ok(text::json_bytes(StatusCode::OK, body))
}

/// Reads the revisions. Takes the memory for their text before it reads their contents.
async fn read(
    app: &App,
    key: &Key,
    limit: usize,
) -> Result<(Vec<Revision>, Option<Permit>), Error> {
    let store = &app.state.store;
    loop {
        let known = store.history(key, limit, 0).await?;
        if known.is_empty() {
            return Err(Error::KeyUnknown);
        }
        let small = known.iter().filter(|r| r.header.content.size() <= CURRENT_BYTES_MAX);
        let shown = small.map(|r| size::content_bytes(&r.header)).fold(0, usize::saturating_add);
        let bytes = CONTENT_FACTOR * shown + known.len() * REVISION_BYTES_MAX;
        let permit = app.answer_permit(bytes).await?;
        let revisions = store.history(key, limit, CURRENT_BYTES_MAX).await?;
        // otherwise more revisions came in between: start over with memory for those, too
        if content_bytes(&revisions) <= shown && revisions.len() <= known.len() {
            return Ok((revisions, permit));
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
        if matches!(found.header.content, Content::Tombstone) {
            return Err(Error::RevisionNotFound(
                "this revision is a delete and has no bytes; ask for an earlier one",
            ));
        }
        let size = size::content_bytes(&found.header);
        let permit = app.answer_permit(size).await?;
        let Some(revision) = store.revision(key, uuid).await? else { break };
        if revision.content_bytes() > size {
            continue;
        }
        let body = revision.body.ok_or(Error::RevisionNotFound(
            "this revision expired and its bytes are gone; `/history` still lists it",
        ))?;
        let mut headers = value::headers(&revision.header, app.state.clock.now());
        // the request names the version, so that there is nothing to validate
        headers.remove(ETAG);
        headers.remove(LAST_MODIFIED);
        return Ok(value::whole(headers, text::with_permit(body, permit)));
    }
    Err(Error::RevisionNotFound(
        "this node has no such revision of the key (revision_history_depth bounds how many it \
         has); `/history` without `uuid` lists them",
    ))
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
