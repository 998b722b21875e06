//! `get`, `put`, `del` and `cas`: one key at a time.
//!
//! Values pass through byte for byte; a value from standard input is bounded by the largest value
//! that any node stores. Whether a condition holds is the node's to decide.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::{ArgGroup, Args};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::client::{Client, key_path};
use super::error::CliError;
use super::output::{Output, printable};
use crate::model::{ContentType, Key, Timestamp, json};

/// The largest value that any node stores.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// `kvs get`
#[derive(Debug, Args)]
pub struct Get {
    /// The key, as in `app/name`
    #[arg(value_parser = Key::parse)]
    key: Key,
}

/// `kvs put`
#[derive(Debug, Args)]
pub struct Put {
    /// The key, as in `app/name`
    #[arg(value_parser = Key::parse)]
    key: Key,
    /// The value; `-` or nothing: standard input, at most 16 MiB. After `--` it may
    /// start with a hyphen
    #[arg(allow_negative_numbers = true)]
    value: Option<OsString>,
    /// Store only if the current version has this uuid
    #[arg(long, value_name = "UUID", conflicts_with = "if_absent")]
    if_uuid: Option<Uuid>,
    /// Store only if the key has no live value
    #[arg(long)]
    if_absent: bool,
    /// Media type of the value; default: application/octet-stream
    #[arg(long, value_name = "TYPE", value_parser = ContentType::parse)]
    content_type: Option<ContentType>,
}

/// `kvs del`
#[derive(Debug, Args)]
pub struct Del {
    /// The key, as in `app/name`
    #[arg(value_parser = Key::parse)]
    key: Key,
    /// Delete only if the current version has this uuid
    #[arg(long, value_name = "UUID")]
    if_uuid: Option<Uuid>,
}

/// `kvs cas`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("expected").required(true).multiple(true))]
pub struct Cas {
    /// The key, as in `app/name`
    #[arg(value_parser = Key::parse)]
    key: Key,
    /// The new value; `-` or nothing: standard input, at most 16 MiB. After `--` it may
    /// start with a hyphen
    #[arg(allow_negative_numbers = true)]
    value: Option<OsString>,
    /// Swap only if the current version has this uuid; may go with --expect-timestamp
    #[arg(long, value_name = "UUID", group = "expected")]
    expect_uuid: Option<Uuid>,
    /// Swap only if the current version has this timestamp, in microseconds since 1970
    #[arg(long, value_name = "TIMESTAMP", group = "expected", value_parser = timestamp)]
    expect_timestamp: Option<Timestamp>,
    /// Swap only if the current value has exactly these bytes
    #[arg(
        long,
        value_name = "VALUE",
        group = "expected",
        allow_hyphen_values = true,
        conflicts_with_all = ["expect_uuid", "expect_timestamp", "expect_absent"]
    )]
    expect_value: Option<OsString>,
    /// Swap only if the key has no live value
    #[arg(long, group = "expected", conflicts_with_all = ["expect_uuid", "expect_timestamp"])]
    expect_absent: bool,
    /// Delete the key instead of storing a value
    #[arg(long, conflicts_with_all = ["value", "json", "content_type", "expect_absent"])]
    delete: bool,
    /// Store the value as JSON, kept exactly as written
    #[arg(long, conflicts_with = "content_type")]
    json: bool,
    /// Media type of the value; default: application/octet-stream
    #[arg(long, value_name = "TYPE", value_parser = ContentType::parse)]
    content_type: Option<ContentType>,
}

fn timestamp(text: &str) -> Result<Timestamp, String> {
    let micros = text.parse().map_err(|_| "not a whole number of microseconds".to_owned())?;
    Timestamp::new(micros).map_err(|e| e.to_string())
}

/// Prints the value, or with JSON its envelope.
///
/// # Errors
/// What stopped it; a value that was cut has been printed in part.
pub async fn get(client: &Client, args: &Get, out: &mut Output<'_>) -> Result<(), CliError> {
    let path = key_path("kv", &args.key);
    if out.is_json() {
        let request = client.request(Method::GET, &format!("{path}?format=envelope"));
        let body = client.body(client.send(request).await?).await?;
        return out.json(&body);
    }
    let response = client.send(client.request(Method::GET, &path)).await?;
    client.copy(response, out).await
}

/// Stores a value.
///
/// # Errors
/// What stopped it.
pub async fn put(client: &Client, args: Put, out: &mut Output<'_>) -> Result<(), CliError> {
    let content_type = args.content_type.unwrap_or_else(ContentType::octet_stream);
    let mut request = client
        .request(Method::PUT, &key_path("kv", &args.key))
        .header(CONTENT_TYPE, content_type.as_str());
    if let Some(uuid) = args.if_uuid {
        request = request.header(IF_MATCH, format!("\"{uuid}\""));
    }
    if args.if_absent {
        request = request.header(IF_NONE_MATCH, "*");
    }
    let value = value_or_stdin(args.value, &mut io::stdin().lock())?;
    written(client, request.body(value), "put", out).await
}

/// Deletes a key.
///
/// # Errors
/// What stopped it.
pub async fn del(client: &Client, args: &Del, out: &mut Output<'_>) -> Result<(), CliError> {
    let mut request = client.request(Method::DELETE, &key_path("kv", &args.key));
    if let Some(uuid) = args.if_uuid {
        request = request.header(IF_MATCH, format!("\"{uuid}\""));
    }
    written(client, request, "deleted", out).await
}

/// Swaps a value if the key is as expected.
///
/// # Errors
/// What stopped it; [`CliError::Refused`] with the current version if the key was otherwise.
pub async fn cas(client: &Client, args: Cas, out: &mut Output<'_>) -> Result<(), CliError> {
    let path = key_path("cas", &args.key);
    let word = if args.delete { "swapped for nothing:" } else { "swapped" };
    let body = cas_body(args, &mut io::stdin().lock())?;
    let request = client
        .request(Method::POST, &path)
        .header(CONTENT_TYPE, ContentType::json().as_str())
        .body(body);
    written(client, request, word, out).await
}

#[derive(Serialize, Default)]
struct Expected {
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    absent: bool,
}

#[derive(Serialize)]
struct CasBody {
    expected: Expected,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    delete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<ContentType>,
}

fn cas_body(args: Cas, stdin: &mut dyn Read) -> Result<Vec<u8>, CliError> {
    let expected = Expected {
        uuid: args.expect_uuid,
        timestamp: args.expect_timestamp,
        data_base64: args.expect_value.map(|value| BASE64_STANDARD.encode(value.into_vec())),
        absent: args.expect_absent,
    };
    let delete = args.delete;
    let mut body = CasBody { expected, data: None, data_base64: None, delete, content_type: None };
    if !delete {
        let value = value_or_stdin(args.value, stdin)?;
        if args.json {
            body.data = Some(json_value(value)?);
        } else {
            body.data_base64 = Some(BASE64_STANDARD.encode(value));
            body.content_type = Some(args.content_type.unwrap_or_else(ContentType::octet_stream));
        }
    }
    serde_json::to_vec(&body).map_err(|e| CliError::Usage(format!("cannot send this value: {e}")))
}

fn json_value(value: Vec<u8>) -> Result<Box<RawValue>, CliError> {
    let not_json = |e: &dyn std::fmt::Display| {
        CliError::Usage(format!("the value is not JSON: {e}; leave --json out to store any bytes"))
    };
    json::check(&value).map_err(|e| not_json(&e))?;
    let text = String::from_utf8(value).map_err(|e| not_json(&e))?;
    RawValue::from_string(text).map_err(|e| not_json(&e))
}

fn value_or_stdin(value: Option<OsString>, stdin: &mut dyn Read) -> Result<Vec<u8>, CliError> {
    if let Some(value) = value.filter(|value| value != "-") {
        return Ok(value.into_vec());
    }
    let mut bytes = Vec::new();
    let read = stdin.take(VALUE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| CliError::File { verb: "read", path: "standard input".into(), error })?;
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(CliError::Usage(
            "the value on standard input has more than 16 MiB, the most that a key can hold"
                .to_owned(),
        ));
    }
    Ok(bytes)
}

#[derive(Deserialize)]
struct Written {
    key: String,
    uuid: String,
    timestamp: u64,
}

/// Sends a write and prints its answer. For a program the refusal of a condition is an answer too:
/// it carries the current record.
async fn written(
    client: &Client,
    request: reqwest::RequestBuilder,
    word: &str,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let response = match client.send(request).await {
        Err(CliError::Refused(refusal))
            if refusal.status == 412 && refusal.code.is_some() && out.is_json() =>
        {
            out.json(&refusal.body)?;
            return Err(CliError::Refused(refusal));
        }
        answer => answer?,
    };
    let body = client.body(response).await?;
    if out.is_json() {
        return out.json(&body);
    }
    let written: Written = client.parse(&body)?;
    let key = printable(&written.key);
    out.line(&format!("{word} {key}  uuid={}  timestamp={}", written.uuid, written.timestamp))
}

#[cfg(test)]
#[path = "values_tests.rs"]
mod tests;
