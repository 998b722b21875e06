//! What the bodies of `POST /cas` and `POST /txn` have in common: what a key is expected to be, the
//! value that is put, how long it is to live, the name of the request.
//!
//! A body was checked as a whole before it comes here; content shares its memory.

use bytes::Bytes;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::error::Error;
use super::json::{self, Members};
use super::{retry, write};
use crate::model::json::Text;
use crate::model::{ContentType, Expected, Timestamp, duration};
use crate::store::{Change, Lifetime};

const KEEP: &str = "keep";

/// How long a value is to live, as a query says it.
pub(super) fn lifetime(text: &str) -> Result<Lifetime, Error> {
    if text == KEEP {
        return Ok(Lifetime::Keep);
    }
    duration::parse(text).map(Lifetime::For).map_err(Error::BadDuration)
}

/// The same as a member: the text, or a whole number of seconds.
fn lifetime_member(raw: &RawValue) -> Result<Lifetime, Error> {
    match serde_json::from_str::<String>(raw.get()) {
        Ok(text) => lifetime(&text),
        // a number of seconds reads alike in JSON and without a unit; all else is no duration
        Err(_) => duration::parse(raw.get()).map(Lifetime::For).map_err(Error::BadDuration),
    }
}

/// The name of a request.
pub(super) fn uuid(raw: &RawValue) -> Result<Uuid, Error> {
    let text = json::text(raw, "uuid")?;
    retry::parse(&text).ok_or(Error::bad("`uuid` must be a UUID as answers show it"))
}

/// The exact text of a member, which shares the memory of the body.
fn text_of(raw: &RawValue, body: &Bytes) -> Bytes {
    body.slice_ref(raw.get().as_bytes())
}

/// The members that make a value to be put.
pub(super) struct Value<'a> {
    data: Option<&'a RawValue>,
    base64: Option<&'a RawValue>,
    content_type: Option<&'a RawValue>,
    ttl: Option<&'a RawValue>,
}

impl<'a> Value<'a> {
    /// Takes them out.
    pub(super) fn take(members: &mut Members<'a>) -> Self {
        Self {
            data: members.take("data"),
            base64: members.take("data_base64"),
            content_type: members.take("content_type"),
            ttl: members.take("ttl"),
        }
    }

    /// Whether there is content.
    pub(super) fn is_there(&self) -> bool {
        self.data.is_some() || self.base64.is_some()
    }

    /// The first member that makes no sense where nothing is put.
    pub(super) fn first(&self) -> Option<&'static str> {
        let members = [
            ("data", self.data),
            ("data_base64", self.base64),
            ("content_type", self.content_type),
            ("ttl", self.ttl),
        ];
        members.into_iter().find_map(|(name, member)| member.map(|_| name))
    }

    /// The put, of at most `bytes_max` bytes.
    pub(super) fn put(self, body: &Bytes, bytes_max: usize) -> Result<Change, Error> {
        if self.content_type.is_some() && self.base64.is_none() {
            return Err(Error::bad("`content_type` goes with `data_base64` only"));
        }
        let lifetime = self.ttl.map(lifetime_member).transpose()?.unwrap_or_default();
        let too_large = || Error::ValueTooLarge(bytes_max);
        match (self.data, self.base64) {
            (Some(data), None) if data.get().len() > bytes_max => Err(too_large()),
            (Some(data), None) => {
                Ok(Change::put(ContentType::json(), text_of(data, body), lifetime))
            }
            (None, Some(base64)) => {
                let bytes = json::bytes(base64, "data_base64", bytes_max)?.ok_or_else(too_large)?;
                let content_type = match self.content_type {
                    Some(raw) => write::parse_content_type(&json::text(raw, "content_type")?)?,
                    None => ContentType::octet_stream(),
                };
                Ok(Change::put(content_type, bytes, lifetime))
            }
            _ => Err(Error::bad("give exactly one of `data` and `data_base64`")),
        }
    }
}

/// What a key is expected to be.
pub(super) fn expected(raw: &RawValue, body: &Bytes) -> Result<Expected, Error> {
    let mut members = Members::of(raw, "expected")?;
    let version = (members.take("uuid"), members.take("timestamp"));
    let content = (members.take("data"), members.take("data_base64"));
    let presence = (members.take("absent"), members.take("exists"));
    members.finish()?;
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
            // the body is bounded, and so is what it decodes to
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
                "`expected` holds exactly one of `uuid`, `timestamp`, both of these, `data`, \
                 `data_base64`, `absent` and `exists`",
            ));
        }
    })
}

fn timestamp(raw: &RawValue) -> Result<Timestamp, Error> {
    let bad = || Error::bad("`timestamp` must be a whole number of microseconds below 2^53");
    raw.get().parse().ok().and_then(|micros| Timestamp::new(micros).ok()).ok_or_else(bad)
}

#[cfg(test)]
#[path = "intent_tests.rs"]
mod tests;
