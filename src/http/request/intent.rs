//! The members that the bodies of `POST /cas` and `POST /txn` share: the expectation of a key, the
//! value to put, its lifetime, the request id.
//!
//! The body was checked as a whole before. Values share its memory.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::json::{self, JsonMember};
use super::query::Param;
use super::{headers, retry};
use crate::http::answer::error::Error;
use crate::http::answer::schema::{
    AnySchema, Base64Schema, LifetimeTextSchema, MicrosSchema, TrueSchema, schema_of,
};
use crate::model::json::Text;
use crate::model::{ContentType, Expected, Timestamp, duration};
use crate::store::{Change, Lifetime};

const KEEP: &str = "keep";

/// How long a value lives.
pub(crate) const TTL: Param<Lifetime> = Param {
    name: "ttl",
    doc: "How long the value lives, as in `10s`, or `keep` for the current expiry.",
    schema: schema_of::<LifetimeTextSchema>,
    read: lifetime,
};

/// Reads a lifetime in a query.
fn lifetime(text: &str) -> Result<Lifetime, Error> {
    if text == KEEP {
        return Ok(Lifetime::Keep);
    }
    duration::parse(text).map(Lifetime::For).map_err(Error::BadDuration)
}

/// Reads a lifetime in a body: a text, or a whole number of seconds.
fn lifetime_member(raw: &RawValue) -> Result<Lifetime, Error> {
    match serde_json::from_str::<String>(raw.get()) {
        Ok(text) => lifetime(&text),
        // a JSON number has the form of a duration without a unit; no other JSON text has
        Err(_) => duration::parse(raw.get()).map(Lifetime::For).map_err(Error::BadDuration),
    }
}

/// Reads the request id.
pub(crate) fn uuid(raw: &RawValue) -> Result<Uuid, Error> {
    let text = json::text(raw, "uuid")?;
    retry::parse(&text).ok_or(Error::bad("`uuid` must be a UUID with hyphens"))
}

/// The exact text of a member, sharing the memory of the body.
fn text_of(raw: &RawValue, body: &Bytes) -> Bytes {
    body.slice_ref(raw.get().as_bytes())
}

/// The four members that make a value, as exact texts.
pub(crate) struct ValueMembers<'a> {
    /// The value as JSON.
    pub(crate) data: Option<&'a RawValue>,
    /// The value as bytes.
    pub(crate) data_base64: Option<&'a RawValue>,
    /// The type of the bytes.
    pub(crate) content_type: Option<&'a RawValue>,
    /// The lifetime.
    pub(crate) ttl: Option<&'a RawValue>,
}

impl ValueMembers<'_> {
    /// Whether there is content.
    pub(crate) fn has_content(&self) -> bool {
        self.data.is_some() || self.data_base64.is_some()
    }

    /// The name of the first given member, for requests that put no value.
    pub(crate) fn first_given(&self) -> Option<&'static str> {
        let members = [
            ("data", self.data),
            ("data_base64", self.data_base64),
            ("content_type", self.content_type),
            ("ttl", self.ttl),
        ];
        members.into_iter().find_map(|(name, member)| member.map(|_| name))
    }

    /// The put of this value.
    ///
    /// # Errors
    /// `value_too_large` beyond `bytes_max`; `bad_request` or `bad_duration` for members that are
    /// wrong or do not go together.
    pub(crate) fn put(self, body: &Bytes, bytes_max: usize) -> Result<Change, Error> {
        if self.content_type.is_some() && self.data_base64.is_none() {
            return Err(Error::bad(
                "`content_type` goes with `data_base64` only; leave it out with `data`",
            ));
        }
        let lifetime = self.ttl.map(lifetime_member).transpose()?.unwrap_or_default();
        let too_large = || Error::ValueTooLarge(bytes_max);
        match (self.data, self.data_base64) {
            (Some(data), None) if data.get().len() > bytes_max => Err(too_large()),
            (Some(data), None) => {
                Ok(Change::put(ContentType::json(), text_of(data, body), lifetime))
            }
            (None, Some(base64)) => {
                let bytes = json::bytes(base64, "data_base64", bytes_max)?.ok_or_else(too_large)?;
                let content_type = match self.content_type {
                    Some(raw) => headers::parse_content_type(&json::text(raw, "content_type")?)?,
                    None => ContentType::octet_stream(),
                };
                Ok(Change::put(content_type, bytes, lifetime))
            }
            _ => Err(Error::bad("give exactly one of `data` and `data_base64`")),
        }
    }
}

/// An expectation: exactly one form.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    { "required": ["uuid"], "maxProperties": 1 },
    { "required": ["timestamp"], "maxProperties": 1 },
    { "required": ["uuid", "timestamp"], "maxProperties": 2 },
    { "required": ["data"], "maxProperties": 1 },
    { "required": ["data_base64"], "maxProperties": 1 },
    { "required": ["absent"], "maxProperties": 1 },
    { "required": ["exists"], "maxProperties": 1 }
]))]
pub(crate) struct ExpectedBody<'a> {
    /// The live value has this version; with `timestamp`, both must match.
    #[serde(borrow = "'a", default)]
    uuid: JsonMember<'a, Uuid>,
    /// The live value has this timestamp, as it was read from this node.
    #[serde(borrow = "'a", default)]
    timestamp: JsonMember<'a, MicrosSchema>,
    /// The live value is JSON and equal to this.
    #[serde(borrow = "'a", default)]
    data: JsonMember<'a, AnySchema>,
    /// The live value has exactly these bytes.
    #[serde(borrow = "'a", default)]
    data_base64: JsonMember<'a, Base64Schema>,
    /// There is no live value.
    #[serde(borrow = "'a", default)]
    absent: JsonMember<'a, TrueSchema>,
    /// There is a live value.
    #[serde(borrow = "'a", default)]
    exists: JsonMember<'a, TrueSchema>,
}

const EXPECTED_FORM: &str = "`expected` must be a JSON object that says what the key holds, as in \
    `{\"data\": 1}`, `{\"uuid\": \"...\"}` or, for no value, `{\"absent\": true}`";

/// The error for a body without an expectation.
pub(crate) fn expected_is_missing() -> Error {
    Error::bad(
        "`expected` is missing: what the key must hold, as in `{\"uuid\": \"...\"}` or, for no \
         value, `{\"absent\": true}`",
    )
}

/// Reads an expectation.
pub(crate) fn expected(raw: &RawValue, body: &Bytes) -> Result<Expected, Error> {
    let object = json::object(raw, "expected").map_err(|_| Error::bad(EXPECTED_FORM))?;
    let members: ExpectedBody<'_> = object.members()?;
    let version = (members.uuid.text(), members.timestamp.text());
    let content = (members.data.text(), members.data_base64.text());
    let presence = (members.absent.text(), members.exists.text());
    Ok(match (version, content, presence) {
        ((Some(id), None), (None, None), (None, None)) => Expected::Uuid(uuid(id)?),
        ((None, Some(at)), (None, None), (None, None)) => Expected::Timestamp(timestamp(at)?),
        ((Some(id), Some(at)), (None, None), (None, None)) => {
            Expected::Version { uuid: uuid(id)?, timestamp: timestamp(at)? }
        }
        ((None, None), (Some(data), None), (None, None)) => {
            Expected::Json(Text::of_checked(text_of(data, body)))
        }
        ((None, None), (None, Some(base64)), (None, None)) => {
            // the body is bounded, so its decoded bytes are, too
            let bytes = json::bytes(base64, "expected.data_base64", body.len())?;
            Expected::Bytes(bytes.unwrap_or_default())
        }
        ((None, None), (None, None), (Some(absent), None)) => {
            json::only_true(absent, "expected.absent")?;
            Expected::Absent
        }
        ((None, None), (None, None), (None, Some(exists))) => {
            json::only_true(exists, "expected.exists")?;
            Expected::Exists
        }
        _ => {
            return Err(Error::bad(
                "`expected` must have exactly one of `uuid`, `timestamp`, both of these, `data`, \
                 `data_base64`, `absent` and `exists`",
            ));
        }
    })
}

/// Reads a timestamp.
pub(crate) fn timestamp(raw: &RawValue) -> Result<Timestamp, Error> {
    let bad = || Error::bad("`timestamp` must be a whole number of microseconds below 2^53");
    raw.get().parse().ok().and_then(|micros| Timestamp::new(micros).ok()).ok_or_else(bad)
}

#[cfg(test)]
#[path = "intent_tests.rs"]
mod tests;
