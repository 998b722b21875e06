//! `get`, `put` and `del`: one key at a time.
//!
//! Passes values through byte for byte, and bounds a value from standard input. The node checks the
//! conditions.

use std::ffi::OsString;
use std::io;

use clap::Args;
use reqwest::header::{CONTENT_TYPE, HeaderName, IF_MATCH, IF_NONE_MATCH};
use reqwest::{Method, RequestBuilder};
use uuid::Uuid;

use super::client::{Client, key_path};
use super::error::CliError;
use super::output::Output;
use super::ttl::Ttl;
use super::write::{Life, Retry, Written, check_json, parse_uuid, read_value, send_write};
use crate::model::{ContentType, Key};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

const PUT_AFTER_HELP: &str = "\
Examples:
  kvs put app/name hello
  kvs put app/limits '{\"n\": 5}' --json
  kvs put app/logo @logo.png               a file; its name tells the content type
  kvs put app/logo --content-type image/png < logo.png
  kvs put sessions/7 alice --ttl 15m       expires in 15 minutes
  kvs put sessions/7 bob --ttl keep        expires when the value before would have
  U=$(uuidgen); kvs put n 1 --uuid $U || kvs put n 1 --uuid $U     tries twice, writes once

The node that is asked decides --if-absent and --if-uuid alone, without asking the others; the
answer says \"scope\": \"local\". Send all clients of a key to one node.";

/// `kvs get`
#[derive(Debug, Args)]
pub struct Get {
    /// The key, as in `app/name`
    #[arg(value_parser = Key::parse)]
    key: Key,
}

/// `kvs put`
#[derive(Debug, Args)]
#[command(after_help = PUT_AFTER_HELP)]
pub struct Put {
    /// The key, as in `app/name`
    #[arg(value_parser = Key::parse)]
    key: Key,
    /// The value, at most 16 MiB, or `@FILE` for that file's content; without it, or with `-`,
    /// standard input. Put `--` before a value that starts with a hyphen
    #[arg(allow_negative_numbers = true)]
    value: Option<OsString>,
    /// Store only if the current version has this uuid
    #[arg(
        long,
        value_name = "UUID",
        conflicts_with = "if_absent",
        value_parser = parse_uuid
    )]
    if_uuid: Option<Uuid>,
    /// Store only if the key has no live value
    #[arg(long)]
    if_absent: bool,
    /// Check that the value is JSON and store it as such, exactly as written
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

/// `kvs del`
#[derive(Debug, Args)]
pub struct Del {
    /// The key, as in `app/name`
    #[arg(value_parser = Key::parse)]
    key: Key,
    /// Delete only if the current version has this uuid
    #[arg(long, value_name = "UUID", value_parser = parse_uuid)]
    if_uuid: Option<Uuid>,
    #[command(flatten)]
    retry: Retry,
}

/// Prints the value, or with `-o json` its envelope. On a terminal a line end follows a value that
/// has none, and a value that is no text is refused.
///
/// # Errors
/// [`CliError::Cut`] if the answer broke off, after printing a part of it; else see
/// [`Client::send`].
pub async fn get(client: &Client, args: &Get, out: &mut Output<'_>) -> Result<(), CliError> {
    let path = key_path("kv", &args.key);
    if out.is_json() {
        let request = client.request(Method::GET, &format!("{path}?format=envelope"));
        let body = client.body(client.send(request).await?).await?;
        client.parse::<Written>(&body)?;
        return out.json(&body);
    }
    let response = client.send(client.request(Method::GET, &path)).await?;
    client.copy(response, out).await
}

/// Stores a value and prints the answer.
///
/// # Errors
/// [`CliError::Refused`] for a condition that does not hold; else see [`Client::send`].
pub async fn put(client: &Client, args: Put, out: &mut Output<'_>) -> Result<(), CliError> {
    let value = read_value(args.value, &mut io::stdin().lock())?;
    let content_type = if args.json {
        check_json(&value.bytes)?;
        ContentType::json()
    } else {
        let told = args.content_type.or(value.content_type);
        told.unwrap_or_else(ContentType::octet_stream)
    };
    let path = key_path("kv", &args.key) + &args.life.ttl.map(Ttl::query).unwrap_or_default();
    let mut request =
        client.request(Method::PUT, &path).header(CONTENT_TYPE, content_type.as_str());
    if args.if_absent {
        request = request.header(IF_NONE_MATCH, "*");
    }
    let request = with_retry_uuid(if_version(request, args.if_uuid), &args.retry);
    send_write(client, request.body(value.bytes), "put", out).await
}

/// Deletes a key and prints the answer.
///
/// # Errors
/// [`CliError::Refused`] for a condition that does not hold; else see [`Client::send`].
pub async fn del(client: &Client, args: &Del, out: &mut Output<'_>) -> Result<(), CliError> {
    let request = client.request(Method::DELETE, &key_path("kv", &args.key));
    let request = with_retry_uuid(if_version(request, args.if_uuid), &args.retry);
    send_write(client, request, "deleted", out).await
}

fn if_version(request: RequestBuilder, uuid: Option<Uuid>) -> RequestBuilder {
    match uuid {
        Some(uuid) => request.header(IF_MATCH, format!("\"{uuid}\"")),
        None => request,
    }
}

fn with_retry_uuid(request: RequestBuilder, retry: &Retry) -> RequestBuilder {
    match retry.uuid {
        Some(uuid) => request.header(IDEMPOTENCY_KEY, uuid.to_string()),
        None => request,
    }
}

#[cfg(test)]
#[path = "values_tests.rs"]
mod tests;
