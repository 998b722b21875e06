//! `POST /txn`: compares, writes and reads that are decided in one step.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::body::Held;
use super::envelope::{Envelope, MEMORY_FACTOR, text_bytes};
use super::error::Error;
use super::intent::{self, Value};
use super::json::{self, Members};
use super::query::Query;
use super::routes::Resource;
use super::{App, Ctx, answer, body, retry, write};
use crate::model::{Condition, Key, Timestamp};
use crate::store::{Change, Operation, OperationResult, Txn, TxnDone, WriteError};

const BASE: &str = "/txn";
const LISTS: usize = 3;
/// The most that the result of a read takes besides key and content.
const GOT_BYTES_MAX: usize = 2 << 10;
/// How many times its size a key takes as JSON text at most: each byte as `\u0001`.
const KEY_TEXT_FACTOR: usize = 6;
/// The same of a write.
const WRITTEN_BYTES_MAX: usize = 256;
/// How much content the reads may give where memory for the most that there can be is not taken at
/// once: most transactions read little, and would wait for each other. Beyond the first step the
/// next is tried, as nothing was done, and after the last one the limit itself.
const CONTENT_BYTES_STEPS: [usize; 2] = [16 << 10, 1 << 20];

pub(super) const RESOURCE: Resource =
    Resource { base: BASE, template: BASE, has_rest: false, methods };

fn methods() -> MethodRouter<Arc<App>> {
    post(txn)
}

async fn txn(ctx: Ctx, request: Request) -> Result<Response, Error> {
    let app = &ctx.0;
    Query::none(request.uri().query())?;
    write::check_headers(request.headers())?;
    write::check_unconditional(request.headers(), "compare")?;
    let name = retry::header(request.headers())?;
    write::check_encoding(request.headers())?;
    app.check_serving()?;
    let limits = &app.state.config.limits;
    let bounds = Bounds { entries: limits.txn_operations_max, value_bytes: limits.value_bytes_max };
    let parse = move |body: &Bytes| parse(body, bounds);
    let entries_max = LISTS * bounds.entries;
    let (mut txn, held) = body::parsed(app, request.into_body(), entries_max, parse).await?;
    if !txn.compare.is_empty() && !app.state.config.cas_enabled {
        return Err(Error::FeatureDisabled("cas_enabled"));
    }
    txn.uuid = retry::agreed(name, txn.uuid)?;
    let performing = perform(Arc::clone(app), txn, held);
    let (keys, done, held) = write::to_its_end(app, performing).await?;
    let size = answer_bytes(&done, &keys);
    let text = move || {
        let results = keys.iter().zip(&done.results).map(|(key, outcome)| Shown::of(key, outcome));
        let (succeeded, failed) = (done.failed.is_empty(), &done.failed);
        let shown = Answer { succeeded, failed, results: results.collect() };
        answer::text(&shown, size)
    };
    let text = app.work(size, text).await?;
    Ok(answer::json_bytes(StatusCode::OK, answer::fitted(app, text, held)))
}

/// Hands the transaction to the store, with memory for its answer, which is given with it. `held`,
/// the memory of its body, is given back then.
async fn perform(
    app: Arc<App>,
    txn: Txn,
    held: Held,
) -> Result<(Vec<Key>, TxnDone, Option<Held>), Error> {
    let most = app.state.config.limits.body_bytes_max;
    let (results, reads) = (results_bytes_max(&txn), reads(&txn));
    let steps = CONTENT_BYTES_STEPS.into_iter().filter(|step| reads && *step < most);
    for content_bytes_max in steps.chain([most]) {
        let content = if reads { MEMORY_FACTOR * content_bytes_max } else { 0 };
        let room = app.room(content + results).await?;
        let attempt = Txn { content_bytes_max, ..txn.clone() };
        match app.state.store.txn(attempt).await {
            Ok(done) => {
                let keys = keys(&txn, done.failed.is_empty());
                drop(held);
                return Ok((keys, done, room));
            }
            Err(WriteError::ContentTooLarge) if content_bytes_max < most => {}
            Err(error) => return Err(Error::of_txn(error)),
        }
    }
    Err(Error::AnswerTooLarge)
}

/// About how long the text of the answer gets.
fn answer_bytes(done: &TxnDone, keys: &[Key]) -> usize {
    let result = |(key, result): (&Key, &OperationResult)| {
        let bytes = match result {
            OperationResult::Got(_) => text_bytes(result.content_bytes()),
            OperationResult::Put(..) | OperationResult::Deleted(_) => WRITTEN_BYTES_MAX,
        };
        key.as_str().len() + bytes
    };
    WRITTEN_BYTES_MAX + keys.iter().zip(&done.results).map(result).sum::<usize>()
}

#[derive(Serialize)]
struct Answer<'a> {
    succeeded: bool,
    failed: &'a [u32],
    results: Vec<Shown<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Shown<'a> {
    Put { key: &'a str, uuid: Uuid, timestamp: Timestamp },
    Delete { key: &'a str, deleted: bool },
    Get(Option<Box<Envelope<'a>>>),
}

impl<'a> Shown<'a> {
    fn of(key: &'a Key, result: &'a OperationResult) -> Self {
        let envelope = |entry| Box::new(Envelope::of(key, entry));
        match result {
            OperationResult::Put(uuid, timestamp) => {
                Self::Put { key: key.as_str(), uuid: *uuid, timestamp: *timestamp }
            }
            OperationResult::Deleted(deleted) => {
                Self::Delete { key: key.as_str(), deleted: *deleted }
            }
            OperationResult::Got(entry) => Self::Get(entry.as_deref().map(envelope)),
        }
    }
}

/// Limits that a body is held to while it is read.
#[derive(Clone, Copy)]
struct Bounds {
    entries: usize,
    value_bytes: usize,
}

/// What a body asks, checked.
fn parse(body: &Bytes, bounds: Bounds) -> Result<Txn, Error> {
    let mut members = Members::of_body(body)?;
    let lists = ["compare", "success", "failure"].map(|name| (name, members.take(name)));
    let uuid = members.take("uuid");
    members.finish()?;
    let [compare, success, failure] = lists.map(|(name, raw)| entries(raw, name, bounds));
    Ok(Txn {
        compare: comparisons(&compare?, body)?,
        success: operations("success", &success?, body, bounds)?,
        failure: operations("failure", &failure?, body, bounds)?,
        uuid: uuid.map(intent::uuid).transpose()?,
        content_bytes_max: 0,
    })
}

/// Whether it may give content.
fn reads(txn: &Txn) -> bool {
    let mut operations = txn.success.iter().chain(&txn.failure);
    operations.any(|operation| matches!(operation, Operation::Get(_)))
}

/// The most that its results take, besides content.
fn results_bytes_max(txn: &Txn) -> usize {
    let bytes = |operations: &[Operation]| -> usize {
        let one = |operation: &Operation| {
            let key = KEY_TEXT_FACTOR * operation.key().as_str().len();
            match operation {
                Operation::Get(_) => GOT_BYTES_MAX + key,
                Operation::Write(..) => WRITTEN_BYTES_MAX + key,
            }
        };
        operations.iter().map(one).sum()
    };
    bytes(&txn.success).max(bytes(&txn.failure))
}

/// The keys of what was done, in order.
fn keys(txn: &Txn, succeeded: bool) -> Vec<Key> {
    let done = if succeeded { &txn.success } else { &txn.failure };
    done.iter().map(|operation| operation.key().clone()).collect()
}

/// The entries of one list; it may be missing.
fn entries<'a>(
    raw: Option<&'a RawValue>,
    name: &'static str,
    bounds: Bounds,
) -> Result<Vec<&'a RawValue>, Error> {
    let Some(raw) = raw else { return Ok(Vec::new()) };
    let too_many = Error::TooManyOperations { list: name, max: bounds.entries };
    json::list(raw, name, bounds.entries)?.ok_or(too_many)
}

fn comparisons(raw: &[&RawValue], body: &Bytes) -> Result<Vec<(Key, Condition)>, Error> {
    let one = |(at, raw): (usize, &&RawValue)| {
        let place = format!("compare[{at}]");
        let members = Members::of(raw, &place)?;
        comparison(members, body).map_err(|error| error.at(place))
    };
    raw.iter().enumerate().map(one).collect()
}

fn comparison(mut members: Members<'_>, body: &Bytes) -> Result<(Key, Condition), Error> {
    let (key, expected) = (members.take("key"), members.take("expected"));
    members.finish()?;
    let key = parse_key(key)?;
    let expected = expected.ok_or(Error::bad("`expected` is missing"))?;
    let expected = intent::expected(expected, body).map_err(|error| error.at("expected"))?;
    Ok((key, Condition::Expect(expected)))
}

fn operations(
    list: &'static str,
    raw: &[&RawValue],
    body: &Bytes,
    bounds: Bounds,
) -> Result<Vec<Operation>, Error> {
    let mut written = BTreeMap::new();
    let one = |(at, raw): (usize, &&RawValue)| {
        let place = format!("{list}[{at}]");
        let members = Members::of(raw, &place)?;
        let operation =
            operation(members, body, bounds).map_err(|error| error.at(place.as_str()))?;
        if let Operation::Write(key, _) = &operation
            && let Some(before) = written.insert(key.clone(), at)
        {
            let twice = format!("`{list}[{before}]` writes the same key; write each key once");
            return Err(Error::bad(twice).at(place));
        }
        Ok(operation)
    };
    raw.iter().enumerate().map(one).collect()
}

fn operation(mut members: Members<'_>, body: &Bytes, bounds: Bounds) -> Result<Operation, Error> {
    let (put, delete, get) = (members.take("put"), members.take("delete"), members.take("get"));
    members.finish()?;
    let of = |name: &'static str, raw| Members::of(raw, name);
    match (put, delete, get) {
        (Some(raw), None, None) => {
            put_of(of("put", raw)?, body, bounds.value_bytes).map_err(|error| error.at("put"))
        }
        (None, Some(raw), None) => {
            let key = only_key(of("delete", raw)?).map_err(|error| error.at("delete"))?;
            Ok(Operation::Write(key, Change::Delete))
        }
        (None, None, Some(raw)) => {
            only_key(of("get", raw)?).map(Operation::Get).map_err(|error| error.at("get"))
        }
        _ => Err(Error::bad("give exactly one of `put`, `delete` and `get`")),
    }
}

fn put_of(mut members: Members<'_>, body: &Bytes, bytes_max: usize) -> Result<Operation, Error> {
    let key = members.take("key");
    let value = Value::take(&mut members);
    members.finish()?;
    Ok(Operation::Write(parse_key(key)?, value.put(body, bytes_max)?))
}

fn only_key(mut members: Members<'_>) -> Result<Key, Error> {
    let key = members.take("key");
    members.finish()?;
    parse_key(key)
}

fn parse_key(raw: Option<&RawValue>) -> Result<Key, Error> {
    let raw = raw.ok_or(Error::bad("`key` is missing"))?;
    Ok(Key::parse(&json::text(raw, "key")?)?)
}

#[cfg(test)]
#[path = "txn_tests.rs"]
mod tests;
