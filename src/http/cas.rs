//! `POST /cas/{key}`: compare-and-swap with any form of expectation.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use bytes::Bytes;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::answer::{self, Accepted};
use super::error::Error;
use super::json::{self, Members};
use super::query::Query;
use super::routes::Resource;
use super::{App, Ctx, LARGE_BYTES_MIN, body, path, write};
use crate::model::json::Text;
use crate::model::{Condition, ContentType, Expected, Timestamp};
use crate::store::{Change, Lifetime, Write};

const BASE: &str = "/cas";

/// How many times its size a large body takes while it is read, itself included: the places of its
/// members, and what is decoded from base64.
const READING_FACTOR: usize = 4;
/// The same from then on.
const READ_FACTOR: usize = 2;

pub(super) const RESOURCE: Resource =
    Resource { base: BASE, template: "/cas/{key}", has_rest: true, methods };

fn methods() -> MethodRouter<Arc<App>> {
    post(swap)
}

async fn swap(ctx: Ctx, request: Request) -> Result<Response, Error> {
    let app = &ctx.0;
    let key = path::key(request.uri().path(), BASE)?;
    Query::none(request.uri().query())?;
    write::check_headers(request.headers())?;
    if !app.state.config.cas_enabled {
        return Err(Error::FeatureDisabled("cas_enabled"));
    }
    write::check_encoding(request.headers())?;
    app.check_serving()?;
    let (body, mut held) = body::json(app, request.into_body()).await?;
    let size = body.len();
    if size >= LARGE_BYTES_MIN {
        app.budget.hold_more(&mut held, (READING_FACTOR - 1) * size).await?;
    }
    let value_bytes_max = app.state.config.limits.value_bytes_max;
    let swap = app.work(size, move || Swap::parse(&body, value_bytes_max)).await?;
    if size >= LARGE_BYTES_MIN {
        app.budget.shrink(&mut held, READ_FACTOR * size);
    }
    let conditions = vec![Condition::Expect(swap.expected)];
    let write = Write { key: key.clone(), change: swap.change, conditions, uuid: None };
    let written = write::commit(app, write, Some(held))
        .await
        .map_err(|error| Error::of_write(error, &key, true))?;
    answer::json(StatusCode::OK, &Accepted::swap(&key, &written))
}

/// A checked body.
struct Swap {
    change: Change,
    expected: Expected,
}

impl Swap {
    fn parse(body: &Bytes, value_bytes_max: usize) -> Result<Self, Error> {
        let mut members = Members::of_body(body)?;
        let expected = members.take("expected");
        let data = members.take("data");
        let base64 = members.take("data_base64");
        let delete = members.take("delete");
        let content_type = members.take("content_type");
        members.finish()?;
        let expected = expected.ok_or(Error::bad("`expected` is missing"))?;
        let expected = parse_expected(expected, body)?;
        if content_type.is_some() && base64.is_none() {
            return Err(Error::bad("`content_type` goes with `data_base64` only"));
        }
        let too_large = || Error::ValueTooLarge(value_bytes_max);
        let change = match (data, base64, delete) {
            (Some(data), None, None) if data.get().len() > value_bytes_max => {
                return Err(too_large());
            }
            (Some(data), None, None) => {
                Change::put(ContentType::json(), text_of(data, body), Lifetime::Unbounded)
            }
            (None, Some(base64), None) => {
                let bytes = json::bytes(base64, "data_base64", value_bytes_max)?;
                let content_type = match content_type {
                    Some(raw) => write::parse_content_type(&json::text(raw, "content_type")?)?,
                    None => ContentType::octet_stream(),
                };
                Change::put(content_type, bytes.ok_or_else(too_large)?, Lifetime::Unbounded)
            }
            (None, None, Some(delete)) => {
                json::only_true(delete, "delete")?;
                Change::Delete
            }
            _ => {
                return Err(Error::bad(
                    "give exactly one of `data`, `data_base64` and `\"delete\": true`",
                ));
            }
        };
        Ok(Self { change, expected })
    }
}

/// The exact text of a member, which shares the memory of the body.
fn text_of(raw: &RawValue, body: &Bytes) -> Bytes {
    body.slice_ref(raw.get().as_bytes())
}

fn parse_expected(raw: &RawValue, body: &Bytes) -> Result<Expected, Error> {
    let mut members = Members::of(raw, "expected")?;
    let uuid = members.take("uuid").map(parse_uuid).transpose()?;
    let timestamp = members.take("timestamp").map(parse_timestamp).transpose()?;
    let data = members.take("data");
    let base64 = members.take("data_base64");
    let absent = members.take("absent");
    let exists = members.take("exists");
    members.finish()?;
    let expected = match (uuid, timestamp, data, base64, absent, exists) {
        (Some(uuid), None, None, None, None, None) => Expected::Uuid(uuid),
        (None, Some(timestamp), None, None, None, None) => Expected::Timestamp(timestamp),
        (Some(uuid), Some(timestamp), None, None, None, None) => {
            Expected::Version { uuid, timestamp }
        }
        (None, None, Some(data), None, None, None) => {
            Expected::Json(Text::of_checked(text_of(data, body)))
        }
        (None, None, None, Some(base64), None, None) => {
            // the body is bounded, and so is what it decodes to
            let bytes = json::bytes(base64, "expected.data_base64", body.len())?;
            Expected::Bytes(bytes.unwrap_or_default())
        }
        (None, None, None, None, Some(absent), None) => {
            json::only_true(absent, "expected.absent")?;
            Expected::Absent
        }
        (None, None, None, None, None, Some(exists)) => {
            json::only_true(exists, "expected.exists")?;
            Expected::Exists
        }
        _ => {
            return Err(Error::bad(
                "`expected` holds exactly one of `uuid`, `timestamp`, both of these, `data`, \
                 `data_base64`, `absent` and `exists`",
            ));
        }
    };
    Ok(expected)
}

fn parse_uuid(raw: &RawValue) -> Result<Uuid, Error> {
    let bad = || Error::bad("`uuid` must be a UUID as answers show it");
    let text = json::text(raw, "uuid")?;
    // 36 bytes is the hyphenated form alone
    if text.len() == 36 { Uuid::try_parse(&text).map_err(|_| bad()) } else { Err(bad()) }
}

fn parse_timestamp(raw: &RawValue) -> Result<Timestamp, Error> {
    let bad = || Error::bad("`timestamp` must be a whole number of microseconds below 2^53");
    raw.get().parse().ok().and_then(|micros| Timestamp::new(micros).ok()).ok_or_else(bad)
}

#[cfg(test)]
#[path = "cas_tests.rs"]
mod tests;
