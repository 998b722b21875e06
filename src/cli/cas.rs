//! `cas`: compare-and-swap of one key.
//!
//! The node compares and writes in one step. Nothing is compared here.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::{ArgGroup, Args};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::Serialize;
use uuid::Uuid;

use super::client::{Client, key_path};
use super::error::CliError;
use super::output::Output;
use super::ttl::Ttl;
use super::write::{Life, Retry, check_json, parse_uuid, read_value, send_write};
use crate::model::{ContentType, Key, Timestamp};

const AFTER_HELP: &str = "\
Examples:
  kvs cas app/stage blue --expect-uuid UUID         change the version that was read, or nothing
  kvs cas app/stage blue --expect-value green       the same, by its value
  kvs cas app/limits @limits.json --expect-absent   create a key, never overwrite one
  kvs cas app/limits '{\"n\": 5}' --json --expect-exists --ttl keep
  kvs cas app/stage --delete --expect-value blue

One node decides, without asking the others: that is what \"scope\": \"local\" in the answer says.
Of several swaps that expect one version, at most one succeeds on that node. Two nodes may each let
one succeed, even while they see each other; when they merge, one of the two is superseded. So send
all clients of a key to one node. Even then a swap is no lock: a client that was paused may still
act on what it took, and when the node dies, another may lack its latest writes.

A refused swap changes nothing, exits with status 1 and shows the current version and its value.";

/// `kvs cas`
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "one for each switch on the command line")]
#[command(group = ArgGroup::new("expected").required(true).multiple(true), after_help = AFTER_HELP)]
pub struct Cas {
    /// The key, as in `app/name`
    #[arg(value_parser = Key::parse)]
    key: Key,
    /// The new value, at most 16 MiB, or `@FILE` for that file's content; without it, or with `-`,
    /// standard input. Put `--` before a value that starts with a hyphen
    #[arg(allow_negative_numbers = true)]
    value: Option<OsString>,
    /// Swap only if the current version has this uuid; may be combined with --expect-timestamp
    #[arg(long, value_name = "UUID", group = "expected", value_parser = parse_uuid)]
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
    /// Swap only if the key has a live value, no matter which
    #[arg(
        long,
        group = "expected",
        conflicts_with_all = ["expect_uuid", "expect_timestamp", "expect_value", "expect_absent"]
    )]
    expect_exists: bool,
    /// Delete the key instead of storing a value
    #[arg(long, conflicts_with_all = ["value", "json", "content_type", "expect_absent", "ttl"])]
    delete: bool,
    /// Store the value as JSON, exactly as written
    #[arg(long, conflicts_with = "content_type")]
    json: bool,
    /// Content type of the value; default: as the name of FILE tells, else
    /// application/octet-stream
    #[arg(long, value_name = "TYPE", value_parser = ContentType::parse)]
    content_type: Option<ContentType>,
    #[command(flatten)]
    life: Life,
    #[command(flatten)]
    retry: Retry,
}

fn timestamp(text: &str) -> Result<Timestamp, String> {
    let micros = text.parse().map_err(|_| "expected a whole number of microseconds".to_owned())?;
    Timestamp::new(micros).map_err(|e| e.to_string())
}

/// Sends the swap and prints the answer.
///
/// # Errors
/// [`CliError::Refused`] with the current version if the key is not as expected; else see
/// [`Client::send`].
pub async fn cas(client: &Client, args: Cas, out: &mut Output<'_>) -> Result<(), CliError> {
    let key = args.key.clone();
    let verb = if args.delete { "deleted" } else { "swapped" };
    let swap = Swap::from_arguments(args, &mut io::stdin().lock())?;
    swap.send(client, &key, verb, out).await
}

/// The expectation of a swap, as the API takes it.
#[derive(Debug, Default, Serialize)]
pub(super) struct Expected {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub absent: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub exists: bool,
}

/// The body of `POST /cas/{key}`.
#[derive(Debug, Default, Serialize)]
pub(super) struct Swap {
    expected: Expected,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    delete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<ContentType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<Ttl>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<Uuid>,
}

impl Swap {
    /// A swap for `value`, which never expires.
    pub(super) fn of_bytes(expected: Expected, value: &[u8], content_type: ContentType) -> Self {
        let data_base64 = Some(BASE64_STANDARD.encode(value));
        Self { expected, data_base64, content_type: Some(content_type), ..Self::default() }
    }

    /// A swap that deletes.
    pub(super) fn of_delete(expected: Expected) -> Self {
        Self { expected, delete: true, ..Self::default() }
    }

    /// The same for a value that lives so long.
    pub(super) fn lasting(self, ttl: Option<Ttl>) -> Self {
        Self { ttl, ..self }
    }

    fn from_arguments(args: Cas, stdin: &mut dyn Read) -> Result<Self, CliError> {
        let expected = Expected {
            uuid: args.expect_uuid,
            timestamp: args.expect_timestamp,
            data_base64: args.expect_value.map(|value| BASE64_STANDARD.encode(value.into_vec())),
            absent: args.expect_absent,
            exists: args.expect_exists,
        };
        let swap = if args.delete {
            Self::of_delete(expected)
        } else {
            let value = read_value(args.value, stdin)?;
            if args.json {
                // not as `data`: the node would leave out white space around the JSON text
                check_json(&value.bytes)?;
                Self::of_bytes(expected, &value.bytes, ContentType::json())
            } else {
                let content_type = args.content_type.or(value.content_type);
                let content_type = content_type.unwrap_or_else(ContentType::octet_stream);
                Self::of_bytes(expected, &value.bytes, content_type)
            }
        };
        Ok(Self { ttl: args.life.ttl, uuid: args.retry.uuid, ..swap })
    }

    fn body(&self) -> Result<Vec<u8>, CliError> {
        serde_json::to_vec(self)
            .map_err(|e| CliError::Usage(format!("cannot send this value: {e}")))
    }

    /// Sends the swap of `key` and prints the answer, beginning with `verb`.
    ///
    /// # Errors
    /// See [`cas`].
    pub(super) async fn send(
        &self,
        client: &Client,
        key: &Key,
        verb: &str,
        out: &mut Output<'_>,
    ) -> Result<(), CliError> {
        let request = client
            .request(Method::POST, &key_path("cas", key))
            .header(CONTENT_TYPE, ContentType::json().as_str())
            .body(self.body()?);
        send_write(client, request, verb, out).await
    }
}

#[cfg(test)]
#[path = "cas_tests.rs"]
mod tests;
