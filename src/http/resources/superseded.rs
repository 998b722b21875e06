//! `/superseded/{prefix}`: clients' writes on this node that lost a merge, whole, in the order of
//! the merges.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::on;
use schemars::{JsonSchema, json_schema};
use serde::Serialize;
use uuid::Uuid;

use super::operation::{
    AnswerForm, ApiOperation, Example, KEY_ERRORS, READ_ERRORS, Resource, Verb,
};
use crate::http::answer::code::Code;
use crate::http::answer::envelope::{AnyEnvelope, ContentForm};
use crate::http::answer::error::Error;
use crate::http::answer::schema::{KeySchema, MomentSchema, schema_of};
use crate::http::answer::size::{CONTENT_FACTOR, ITEM_BYTES_MAX, envelope_text_bytes};
use crate::http::answer::text::{self, JSON};
use crate::http::request::path;
use crate::http::request::query::{EXACT, LIMIT, Param, Query};
use crate::http::server::limits::Permit;
use crate::http::state::{App, Ctx};
use crate::model::{Prefix, Timestamp};
use crate::store::feed::FeedPosition;
use crate::store::{CURRENT_BYTES_MAX, Causal, Superseded, SupersededPage};

const BASE: &str = "/superseded";
const LIMIT_DEFAULT: usize = 100;

pub(crate) static RESOURCE: Resource = Resource {
    base: BASE,
    template: "/superseded/{prefix}",
    has_rest: true,
    operations: &[&SUPERSEDED],
};

/// Where the page begins.
const SINCE: Param<FeedPosition> = Param {
    name: "since",
    doc: "Begins after an earlier answer, whose `next` this is; without it, with the oldest \
          report.",
    schema: |_| json_schema!({ "type": "string", "pattern": "^[0-9a-f]{16}-[0-9]+$" }),
    read: |text| FeedPosition::parse(text).ok_or(Error::BadCursor),
};

static SUPERSEDED: ApiOperation = ApiOperation {
    id: "superseded",
    verb: Verb::Get,
    route: |filter| on(filter, superseded),
    summary: "Lists the acknowledged writes of this node below a prefix that lost a merge against \
              a write that did not know them.",
    query: &[&LIMIT, &SINCE, &EXACT],
    headers: &[],
    body: None,
    answers: &[AnswerForm {
        status: 200,
        when: "At most `limit` (100) of them in the order of the merges, and fewer above \
               `limits.body_bytes_max`; `next` leads on, and an empty list says that there are no \
               more now.",
        media_types: &[JSON],
        schema: Some(schema_of::<SupersededBody<'static>>),
        headers: &[],
    }],
    errors: &[KEY_ERRORS, READ_ERRORS, &[Code::BadCursor]],
    example: Example {
        path: "/superseded/lost?limit=1",
        headers: &[],
        body: "",
        status: 200,
        answer: r#"{"items":[{"key":"lost/config","lost":{"key":"lost/config",
            "uuid":"6f3c9a52-7c3c-4b6f-9d11-0f5f0c2b9a10","timestamp":1700000000000001,
            "origin":"c5a8b1de-59a4-4d3e-8a51-6f0a3c1d2e4f",
            "origin_joined_at":"2023-11-01T00:00:00.000000Z","parent":null,"expires_at":null,
            "content_type":"application/json","size":7,"data":{"a":1}},
            "winner":{"key":"lost/config","uuid":"0f8fad5b-d9cb-469f-a165-70867728950e",
            "timestamp":1700000000000002,"origin":"7c9e6679-7425-40de-944b-e07fc1f90ae7",
            "origin_joined_at":"2023-11-02T00:00:00.000000Z","parent":null,"deleted":true},
            "causal":"concurrent","at":"2023-11-14T22:13:20.000500Z"}],
            "next":"a1b2c3d4e5f60718-1","truncated":false}"#,
    },
};

#[derive(Serialize, JsonSchema)]
struct SupersededBody<'a> {
    items: Vec<SupersededItem<'a>>,
    /// The `since` of the next request, also after the latest report.
    next: String,
    /// Whether reports may be missing between `since` and `next`: beyond
    /// `storage.superseded_bytes_max` the oldest are dropped.
    truncated: bool,
}

/// A report as answers show it, its members in the order of the contract.
#[derive(Serialize, JsonSchema)]
pub(crate) struct SupersededItem<'a> {
    #[schemars(with = "KeySchema")]
    key: &'a str,
    /// The write that lost.
    lost: AnyEnvelope<'a>,
    /// The write that took its place; `null` when this node set the lost one aside, as it began
    /// anew and the others had nothing in its place.
    winner: Option<AnyEnvelope<'a>>,
    causal: CausalName,
    /// The transaction that the lost write was a part of: all its writes have this uuid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Uuid")]
    txn: Option<Uuid>,
    /// When this node merged the two.
    #[schemars(with = "MomentSchema")]
    at: String,
}

/// A [`Causal`] by its name.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum CausalName {
    Concurrent,
    Unknown,
}

impl<'a> SupersededItem<'a> {
    fn of(item: &'a Superseded, form: ContentForm) -> Self {
        Self {
            key: item.key.as_str(),
            lost: AnyEnvelope::of(&item.key, &item.lost, form),
            winner: item.winner.as_ref().map(|winner| AnyEnvelope::of(&item.key, winner, form)),
            causal: match item.causal {
                Causal::Concurrent => CausalName::Concurrent,
                Causal::Unknown => CausalName::Unknown,
            },
            txn: item.txn,
            at: Timestamp::rfc3339(item.at),
        }
    }
}

async fn superseded(ctx: Ctx, request: Request) -> Result<Response, Error> {
    let app = &ctx.0;
    let prefix = path::prefix(request.uri().path(), BASE)?;
    let mut query = Query::parse(SUPERSEDED.query, request.uri().query())?;
    let limit = query.take(&LIMIT)?.unwrap_or(LIMIT_DEFAULT);
    let since = query.take(&SINCE)?;
    let form = query.take(&EXACT)?.unwrap_or_default();
    query.finish()?;
    app.check_serving()?;
    let (page, permit) = read(app, &prefix, since, limit).await?;
    let size = page.items.iter().map(Superseded::content_bytes).sum();
    let text = move || {
        let items = page.items.iter().map(|item| SupersededItem::of(item, form)).collect();
        let (next, truncated) = (page.next.to_string(), page.truncated);
        text::text(&SupersededBody { items, next, truncated }, text_bytes(&page))
    };
    let text = app.work(size, text).await?;
    let body = text::with_fitting_permit(&app.answers, text, permit);
    Ok(text::json_bytes(StatusCode::OK, body))
}

/// Reads a page. Takes the memory for it and for its text before it reads.
async fn read(
    app: &App,
    prefix: &Prefix,
    since: Option<FeedPosition>,
    limit: usize,
) -> Result<(SupersededPage, Option<Permit>), Error> {
    let limits = &app.state.config.limits;
    let shown_bytes_max = usize::try_from(CURRENT_BYTES_MAX).unwrap_or(usize::MAX);
    // a page has at least one report, however large; its value may be larger than a client may
    // send now
    let item_bytes_max = limits.value_bytes_max.saturating_add(shown_bytes_max);
    let content = limits.body_bytes_max.max(item_bytes_max);
    let most = content.min(limit.saturating_mul(item_bytes_max));
    let permit = app.answer_permit(CONTENT_FACTOR * most + 2 * limit * ITEM_BYTES_MAX).await?;
    let store = &app.state.store;
    let page = store.superseded(prefix, since, limit, limits.body_bytes_max).await?;
    Ok((page, permit))
}

fn text_bytes(page: &SupersededPage) -> usize {
    let bytes = |item: &Superseded| {
        envelope_text_bytes(item.lost.content_bytes())
            + item.winner.as_ref().map_or(0, |entry| envelope_text_bytes(entry.content_bytes()))
    };
    page.items.iter().map(bytes).sum()
}

#[cfg(test)]
#[path = "superseded_tests.rs"]
pub(crate) mod tests;
