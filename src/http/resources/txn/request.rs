//! The body of a transaction: three lists, read strictly and up to their limits.
//!
//! An error names the part of the body that it concerns, as in `success[3].put`.

use std::collections::BTreeMap;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::http::answer::error::Error;
use crate::http::answer::schema::{AnySchema, Base64Schema, KeySchema, LifetimeSchema};
use crate::http::request::intent::{self, ExpectedBody, ValueMembers};
use crate::http::request::json::{self, JsonMember, ObjectText};
use crate::model::{Condition, Key};
use crate::store::{Change, Operation, Txn};

/// The limits that a body must keep.
#[derive(Clone, Copy)]
pub(crate) struct TxnLimits {
    /// Of each list.
    pub(crate) entries_max: usize,
    /// Of each value.
    pub(crate) value_bytes_max: usize,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TxnBody<'a> {
    /// What must hold for `success` to be done.
    #[serde(borrow = "'a", default)]
    compare: JsonMember<'a, Vec<CompareBody<'static>>>,
    /// Done in order if all compares hold; writes each key at most once.
    #[serde(borrow = "'a", default)]
    success: JsonMember<'a, Vec<OperationBody<'static>>>,
    /// Done in order if a compare does not hold; writes each key at most once.
    #[serde(borrow = "'a", default)]
    failure: JsonMember<'a, Vec<OperationBody<'static>>>,
    /// The request id, as in `Idempotency-Key`.
    #[serde(borrow = "'a", default)]
    uuid: JsonMember<'a, Uuid>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["key", "expected"]))]
struct CompareBody<'a> {
    #[serde(borrow = "'a", default)]
    key: JsonMember<'a, KeySchema>,
    #[serde(borrow = "'a", default)]
    expected: JsonMember<'a, ExpectedBody<'static>>,
}

/// Exactly one operation.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
struct OperationBody<'a> {
    #[serde(borrow = "'a", default)]
    put: JsonMember<'a, PutBody<'static>>,
    #[serde(borrow = "'a", default)]
    delete: JsonMember<'a, KeyBody<'static>>,
    #[serde(borrow = "'a", default)]
    get: JsonMember<'a, KeyBody<'static>>,
}

/// Exactly one of `data` and `data_base64`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "required" = ["key"],
    "dependentRequired" = { "content_type": ["data_base64"] },
    "oneOf" = [{ "required": ["data"] }, { "required": ["data_base64"] }]
))]
struct PutBody<'a> {
    #[serde(borrow = "'a", default)]
    key: JsonMember<'a, KeySchema>,
    /// The value as JSON; its exact text is stored.
    #[serde(borrow = "'a", default)]
    data: JsonMember<'a, AnySchema>,
    /// The value as bytes.
    #[serde(borrow = "'a", default)]
    data_base64: JsonMember<'a, Base64Schema>,
    /// The type of `data_base64`; `application/octet-stream` without it.
    #[serde(borrow = "'a", default)]
    content_type: JsonMember<'a, String>,
    /// How long the value lives; without it, until it is replaced.
    #[serde(borrow = "'a", default)]
    ttl: JsonMember<'a, LifetimeSchema>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["key"]))]
struct KeyBody<'a> {
    #[serde(borrow = "'a", default)]
    key: JsonMember<'a, KeySchema>,
}

/// Reads a body. The limit on content stays 0; the caller sets it.
pub(crate) fn parse(body: &Bytes, limits: TxnLimits) -> Result<Txn, Error> {
    let members: TxnBody<'_> = json::body(body)?;
    let compare = entries(members.compare.text(), "compare", limits);
    let success = entries(members.success.text(), "success", limits);
    let failure = entries(members.failure.text(), "failure", limits);
    Ok(Txn {
        compare: compares(&compare?, body)?,
        success: operations("success", &success?, body, limits)?,
        failure: operations("failure", &failure?, body, limits)?,
        uuid: members.uuid.text().map(intent::uuid).transpose()?,
        content_bytes_max: 0,
    })
}

/// The entries of a list; none if the list is missing.
fn entries<'a>(
    raw: Option<&'a RawValue>,
    name: &'static str,
    limits: TxnLimits,
) -> Result<Vec<&'a RawValue>, Error> {
    let Some(raw) = raw else { return Ok(Vec::new()) };
    let too_many = Error::TooManyOperations { list: name, max: limits.entries_max };
    json::list(raw, name, limits.entries_max)?.ok_or(too_many)
}

fn compares(raw: &[&RawValue], body: &Bytes) -> Result<Vec<(Key, Condition)>, Error> {
    let one = |(at, raw): (usize, &&RawValue)| {
        let place = format!("compare[{at}]");
        let object = json::object(raw, &place)?;
        compare(object, body).map_err(|error| error.at(place))
    };
    raw.iter().enumerate().map(one).collect()
}

fn compare(object: ObjectText<'_>, body: &Bytes) -> Result<(Key, Condition), Error> {
    let members: CompareBody<'_> = object.members()?;
    let key = key(&members.key)?;
    let expected = members.expected.text().ok_or_else(intent::expected_is_missing)?;
    let expected = intent::expected(expected, body).map_err(|error| error.at("expected"))?;
    Ok((key, Condition::Expect(expected)))
}

fn operations(
    list: &'static str,
    raw: &[&RawValue],
    body: &Bytes,
    limits: TxnLimits,
) -> Result<Vec<Operation>, Error> {
    let mut written = BTreeMap::new();
    let one = |(at, raw): (usize, &&RawValue)| {
        let place = format!("{list}[{at}]");
        let object = json::object(raw, &place)?;
        let operation =
            operation(object, body, limits).map_err(|error| error.at(place.as_str()))?;
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

fn operation(object: ObjectText<'_>, body: &Bytes, limits: TxnLimits) -> Result<Operation, Error> {
    let members: OperationBody<'_> = object.members()?;
    match (members.put.text(), members.delete.text(), members.get.text()) {
        (Some(raw), None, None) => {
            let object = json::object(raw, "put")?;
            put(object, body, limits.value_bytes_max).map_err(|error| error.at("put"))
        }
        (None, Some(raw), None) => {
            let object = json::object(raw, "delete")?;
            let key = only_key(object).map_err(|error| error.at("delete"))?;
            Ok(Operation::Write(key, Change::Delete))
        }
        (None, None, Some(raw)) => {
            let object = json::object(raw, "get")?;
            only_key(object).map(Operation::Get).map_err(|error| error.at("get"))
        }
        _ => Err(Error::bad("give exactly one of `put`, `delete` and `get`")),
    }
}

fn put(object: ObjectText<'_>, body: &Bytes, bytes_max: usize) -> Result<Operation, Error> {
    let members: PutBody<'_> = object.members()?;
    let value = ValueMembers {
        data: members.data.text(),
        data_base64: members.data_base64.text(),
        content_type: members.content_type.text(),
        ttl: members.ttl.text(),
    };
    Ok(Operation::Write(key(&members.key)?, value.put(body, bytes_max)?))
}

fn only_key(object: ObjectText<'_>) -> Result<Key, Error> {
    let members: KeyBody<'_> = object.members()?;
    key(&members.key)
}

fn key(member: &JsonMember<'_, KeySchema>) -> Result<Key, Error> {
    let raw = member.text().ok_or(Error::bad("`key` is missing"))?;
    Ok(Key::parse(&json::text(raw, "key")?)?)
}
