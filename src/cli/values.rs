//! `get`, `put` and `del`: one key at a time.
//!
//! Values pass through byte for byte; a value from standard input is bounded by the largest value
//! that any node stores. Whether a condition holds is the node's to decide.

use std::ffi::OsString;
use std::io;

use clap::Args;
use reqwest::header::{CONTENT_TYPE, HeaderName, IF_MATCH, IF_NONE_MATCH};
use reqwest::{Method, RequestBuilder};
use uuid::Uuid;

use super::client::{Client, key_path};
use super::error::CliError;
use super::output::Output;
use super::write::{Life, Retry, Ttl, value_or_stdin, written};
use crate::model::{ContentType, Key};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

const PUT_AFTER_HELP: &str = "\
Examples:
  kvs put app/name hello
  kvs put app/logo --content-type image/png < logo.png
  kvs put sessions/7 alice --ttl 15m       gone in a quarter of an hour
  kvs put sessions/7 bob --ttl keep        still gone then
  U=$(uuidgen); kvs put n 1 --uuid $U || kvs put n 1 --uuid $U     tried twice, done once";

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
    #[arg(long, value_name = "UUID")]
    if_uuid: Option<Uuid>,
    #[command(flatten)]
    retry: Retry,
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
    let path = key_path("kv", &args.key) + &args.life.ttl.map(Ttl::query).unwrap_or_default();
    let mut request =
        client.request(Method::PUT, &path).header(CONTENT_TYPE, content_type.as_str());
    if args.if_absent {
        request = request.header(IF_NONE_MATCH, "*");
    }
    let request = only_version(request, args.if_uuid);
    let request = repeatable(request, &args.retry);
    let value = value_or_stdin(args.value, &mut io::stdin().lock())?;
    written(client, request.body(value), "put", out).await
}

/// Deletes a key.
///
/// # Errors
/// What stopped it.
pub async fn del(client: &Client, args: &Del, out: &mut Output<'_>) -> Result<(), CliError> {
    let request = client.request(Method::DELETE, &key_path("kv", &args.key));
    let request = repeatable(only_version(request, args.if_uuid), &args.retry);
    written(client, request, "deleted", out).await
}

fn only_version(request: RequestBuilder, uuid: Option<Uuid>) -> RequestBuilder {
    match uuid {
        Some(uuid) => request.header(IF_MATCH, format!("\"{uuid}\"")),
        None => request,
    }
}

fn repeatable(request: RequestBuilder, retry: &Retry) -> RequestBuilder {
    match retry.uuid {
        Some(uuid) => request.header(IDEMPOTENCY_KEY, uuid.to_string()),
        None => request,
    }
}

#[cfg(test)]
#[path = "values_tests.rs"]
mod tests;
