//! `POST /cas/{key}`: compare-and-swap with any form of expectation.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use bytes::Bytes;
use uuid::Uuid;

use super::answer::{self, Accepted};
use super::error::Error;
use super::intent::{self, Value};
use super::json::{self, Members};
use super::query::Query;
use super::routes::Resource;
use super::{App, Ctx, body, path, retry, write};
use crate::model::{Condition, Expected};
use crate::store::{Change, Write};

const BASE: &str = "/cas";

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
    write::check_unconditional(request.headers(), "expected")?;
    let name = retry::header(request.headers())?;
    if !app.state.config.cas_enabled {
        return Err(Error::FeatureDisabled("cas_enabled"));
    }
    write::check_encoding(request.headers())?;
    app.check_serving()?;
    let value_bytes_max = app.state.config.limits.value_bytes_max;
    let parse = move |body: &Bytes| Swap::parse(body, value_bytes_max);
    let (swap, held) = body::parsed(app, request.into_body(), 0, parse).await?;
    let uuid = retry::agreed(name, swap.uuid)?;
    let conditions = vec![Condition::Expect(swap.expected)];
    let write = Write { key: key.clone(), change: swap.change, conditions, uuid };
    let written = write::commit(app, write, Some(held))
        .await
        .map_err(|error| Error::of_write(error, &key, true))?;
    answer::json(StatusCode::OK, &Accepted::swap(&key, &written))
}

/// A checked body.
struct Swap {
    change: Change,
    expected: Expected,
    uuid: Option<Uuid>,
}

impl Swap {
    fn parse(body: &Bytes, value_bytes_max: usize) -> Result<Self, Error> {
        let mut members = Members::of_body(body)?;
        let expected = members.take("expected");
        let value = Value::take(&mut members);
        let delete = members.take("delete");
        let uuid = members.take("uuid");
        members.finish()?;
        let expected = expected.ok_or(Error::bad("`expected` is missing"))?;
        let expected = intent::expected(expected, body)?;
        let change = match (delete, value.first()) {
            (Some(delete), None) => {
                json::only_true(delete, "delete")?;
                Change::Delete
            }
            (Some(_), Some(member @ ("content_type" | "ttl"))) => {
                return Err(Error::bad(format!(
                    "`{member}` goes with a value only; leave it out with `delete`"
                )));
            }
            (None, _) if value.is_there() => value.put(body, value_bytes_max)?,
            _ => {
                return Err(Error::bad(
                    "give exactly one of `data`, `data_base64` and `\"delete\": true`",
                ));
            }
        };
        Ok(Self { change, expected, uuid: uuid.map(intent::uuid).transpose()? })
    }
}

#[cfg(test)]
#[path = "cas_tests.rs"]
mod tests;
