//! The lines of `POST /admin/import`: envelopes as an export writes them.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::headers;
use super::intent::{timestamp, uuid};
use super::json::{self, JsonMember};
use crate::http::answer::error::Error;
use crate::http::answer::schema::{AnySchema, Base64Schema, KeySchema, MicrosSchema, MomentSchema};
use crate::model::{Content, ContentType, Header, Key, NodeId, Record, Seen, Timestamp, Version};
use crate::store::ImportedRecord;

/// A live value with its version, on one line.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["key", "uuid", "timestamp", "origin", "origin_joined_at"]))]
pub(crate) struct ImportLine<'a> {
    #[serde(borrow = "'a", default)]
    key: JsonMember<'a, KeySchema>,
    #[serde(borrow = "'a", default)]
    uuid: JsonMember<'a, Uuid>,
    #[serde(borrow = "'a", default)]
    timestamp: JsonMember<'a, MicrosSchema>,
    /// The node that accepted the write.
    #[serde(borrow = "'a", default)]
    origin: JsonMember<'a, Uuid>,
    #[serde(borrow = "'a", default)]
    origin_joined_at: JsonMember<'a, MomentSchema>,
    /// The version that the write replaced on its origin.
    #[serde(borrow = "'a", default)]
    parent: JsonMember<'a, Option<Uuid>>,
    #[serde(borrow = "'a", default)]
    expires_at: JsonMember<'a, Option<MomentSchema>>,
    /// Without one, `application/json` for `data` and `application/octet-stream` else.
    #[serde(borrow = "'a", default)]
    content_type: JsonMember<'a, String>,
    /// Of the value, in bytes; where it is given, it must be right.
    #[serde(borrow = "'a", default)]
    size: JsonMember<'a, u64>,
    /// The value as JSON.
    #[serde(borrow = "'a", default)]
    data: JsonMember<'a, AnySchema>,
    /// The value as bytes.
    #[serde(borrow = "'a", default)]
    data_base64: JsonMember<'a, Base64Schema>,
}

/// Reads all lines of a body; blank ones are passed over.
///
/// # Errors
/// `too_many_operations` beyond `lines_max`; else the error of the first bad line, with its number.
pub(crate) fn parse(
    body: &Bytes,
    lines_max: usize,
    value_bytes_max: usize,
) -> Result<Vec<ImportedRecord>, Error> {
    let mut records = Vec::new();
    for (number, line) in (1_usize..).zip(body.split(|byte| *byte == b'\n')) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        if records.len() == lines_max {
            return Err(Error::TooManyOperations { list: "lines", max: lines_max });
        }
        let read = record(&body.slice_ref(line), value_bytes_max);
        records.push(read.map_err(|error| error.at(format!("line {number}")))?);
    }
    Ok(records)
}

/// A line of what a node set aside.
pub(crate) enum AsideLine {
    /// A value with its version.
    Live(Box<ImportedRecord>),
    /// A delete, under this version.
    Deleted(Key, Version),
}

/// The members of a line that says that a key was deleted.
#[derive(Deserialize)]
struct DeletedLine {
    #[serde(default)]
    deleted: bool,
    key: String,
    uuid: Uuid,
    timestamp: u64,
    origin_joined_at: String,
}

/// Reads a line that a node wrote as it set a record aside.
///
/// # Errors
/// What is wrong with it, for the log.
pub(crate) fn read_aside_line(line: &Bytes, value_bytes_max: usize) -> Result<AsideLine, String> {
    let members: DeletedLine = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if !members.deleted {
        let record = record(line, value_bytes_max);
        let record = record.map_err(|error| format!("{:?}", error.code()))?;
        return Ok(AsideLine::Live(Box::new(record)));
    }
    let key = Key::parse(&members.key).map_err(|error| error.to_string())?;
    let joined_at = Timestamp::from_rfc3339(&members.origin_joined_at);
    let origin_joined_at = joined_at.ok_or("`origin_joined_at` is no moment")?;
    let timestamp = Timestamp::saturating(members.timestamp);
    Ok(AsideLine::Deleted(key, Version { timestamp, origin_joined_at, uuid: members.uuid }))
}

fn record(line: &Bytes, value_bytes_max: usize) -> Result<ImportedRecord, Error> {
    let members: ImportLine<'_> = json::body(line)?;
    let key = json::text(needed(members.key.text(), "key")?, "key")?;
    let key = Key::parse(&key)?;
    let joined_at = needed(members.origin_joined_at.text(), "origin_joined_at")?;
    let version = Version {
        timestamp: timestamp(needed(members.timestamp.text(), "timestamp")?)?,
        origin_joined_at: moment(joined_at, "origin_joined_at")?,
        uuid: uuid(needed(members.uuid.text(), "uuid")?)?,
    };
    let origin = uuid_of(needed(members.origin.text(), "origin")?, "origin")?;
    let origin = NodeId::from_bytes(*origin.as_bytes());
    let parent = given(members.parent.text()).map(|raw| uuid_of(raw, "parent")).transpose()?;
    let expires_at = given(members.expires_at.text());
    let expires_at = expires_at.map(|raw| moment(raw, "expires_at")).transpose()?;
    let (content_type, body) = value(&members, line, value_bytes_max)?;
    if members.size.text().is_some_and(|size| size.get() != body.len().to_string()) {
        return Err(Error::bad("`size` is not that of the value; export with `exact=true`"));
    }
    let content = Content::value(content_type, &body);
    let seen = Seen::of_unknown_line(origin, version.timestamp);
    let header = Header { version, origin, parent, seen, expires_at, content };
    Ok(ImportedRecord { key, record: Record { header, body } })
}

fn needed<'a>(raw: Option<&'a RawValue>, name: &str) -> Result<&'a RawValue, Error> {
    raw.ok_or_else(|| {
        Error::bad(format!(
            "`{name}` is missing: a line keeps the version that it names; import lines that name \
             none as ordinary writes (`kvs import` without --keep-versions)"
        ))
    })
}

/// A member that is there and not `null`.
fn given(raw: Option<&RawValue>) -> Option<&RawValue> {
    raw.filter(|raw| raw.get() != "null")
}

fn moment(raw: &RawValue, name: &str) -> Result<Timestamp, Error> {
    let bad = || Error::bad(format!("`{name}` must be like \"2026-11-25T23:00:00.000000Z\""));
    Timestamp::from_rfc3339(&json::text(raw, name)?).ok_or_else(bad)
}

fn uuid_of(raw: &RawValue, name: &str) -> Result<Uuid, Error> {
    let bad = || Error::bad(format!("`{name}` must be a UUID with hyphens"));
    Uuid::try_parse(&json::text(raw, name)?).map_err(|_| bad())
}

/// The value, which shares the memory of the line where it is JSON.
fn value(
    members: &ImportLine<'_>,
    line: &Bytes,
    bytes_max: usize,
) -> Result<(ContentType, Bytes), Error> {
    let too_large = || Error::ValueTooLarge(bytes_max);
    let (usual, body) = match (members.data.text(), members.data_base64.text()) {
        (Some(data), None) if data.get().len() > bytes_max => return Err(too_large()),
        (Some(data), None) => (ContentType::json(), line.slice_ref(data.get().as_bytes())),
        (None, Some(base64)) => {
            let bytes = json::bytes(base64, "data_base64", bytes_max)?.ok_or_else(too_large)?;
            (ContentType::octet_stream(), bytes)
        }
        _ => return Err(Error::bad("give exactly one of `data` and `data_base64`")),
    };
    let content_type = match members.content_type.text() {
        Some(raw) => headers::parse_content_type(&json::text(raw, "content_type")?)?,
        None => usual,
    };
    Ok((content_type, body))
}
