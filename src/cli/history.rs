//! `history`: lists the revisions of a key that one node saw, prints one, or restores one.
//!
//! Restoring is an ordinary swap. It expects the version that was current when the history was
//! read, so it never overwrites a later write. The node decides; nothing is decided here.

use clap::Args;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::cas::{Expected, Swap};
use super::client::{Client, key_path};
use super::envelope::{Envelope, or_dash, preview_chars};
use super::error::CliError;
use super::note;
use super::output::{Grid, Output};
use super::write::parse_uuid;
use crate::model::{ContentType, Key};

/// How much of a value to show in the table.
const PREVIEW_CHARS_MAX: usize = 40;
/// The greatest `limit` that a node accepts. No key has as many revisions.
const LIMIT_MAX: u64 = 1000;

const AFTER_HELP: &str = "\
Examples:
  kvs history app/name                     list the revisions, newest first
  kvs history app/name --get UUID > old    save the bytes of one revision
  kvs history app/name --restore UUID      store those bytes again

OUTCOME of a revision:
  current     the key has it now
  replaced    the write under BY replaced it
  superseded  it lost against the write under BY, which did not know it (`kvs superseded`)
  expired     its time to live ended

A node keeps the last `revision_history_depth` (8) revisions of a key that it saw. Other nodes may
have seen others. A write that this node never saw, or that lost against another one before it
arrived, is not in its history; the node that acknowledged it reports it.

--restore writes a new version with the old bytes and content type, and without an expiry. It writes
only if the key has not changed since the command read its history.";

/// `kvs history`
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct History {
    /// The key, as in `app/name`
    #[arg(value_parser = Key::parse)]
    key: Key,
    /// List at most N revisions; default: all that the node keeps
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..),
        conflicts_with_all = ["get", "restore"]
    )]
    limit: Option<u64>,
    /// Print the value of this revision, byte for byte
    #[arg(
        long,
        value_name = "UUID",
        conflicts_with = "restore",
        value_parser = parse_uuid
    )]
    get: Option<Uuid>,
    /// Store the value of this revision again, unless the key changes meanwhile
    #[arg(long, value_name = "UUID", value_parser = parse_uuid)]
    restore: Option<Uuid>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    revisions: Vec<&'a RawValue>,
}

/// The fields of a revision that an envelope lacks.
#[derive(Deserialize)]
struct Ending {
    outcome: String,
    by: Option<String>,
}

/// Lists the revisions, prints one, or restores one.
///
/// # Errors
/// [`CliError::Overtaken`] if the key changed before the revision was restored; else see
/// [`Client::send`] and [`Client::body`].
pub async fn history(
    client: &Client,
    args: &History,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let key = &args.key;
    if let Some(uuid) = args.get {
        let response = client.send(client.request(Method::GET, &revision_path(key, uuid))).await?;
        return client.copy(response, out).await;
    }
    let query = args.limit.map(|limit| format!("?limit={}", limit.min(LIMIT_MAX)));
    let path = key_path("history", key) + &query.unwrap_or_default();
    let body = client.body(client.send(client.request(Method::GET, &path)).await?).await?;
    let revisions = revisions(client, &body)?;
    match args.restore {
        Some(uuid) => restore(client, key, uuid, &revisions, out).await,
        None if out.is_json() => out.json(&body),
        None => table(&revisions, out),
    }
}

fn revision_path(key: &Key, uuid: Uuid) -> String {
    format!("{}?uuid={uuid}", key_path("history", key))
}

type Revision<'a> = (Envelope<'a>, Ending);

fn revisions<'a>(client: &Client, body: &'a [u8]) -> Result<Vec<Revision<'a>>, CliError> {
    let answer: Answer<'_> = client.parse(body)?;
    let parse = |raw: &&'a RawValue| -> Result<Revision<'a>, CliError> {
        let text = raw.get().as_bytes();
        Ok((client.parse(text)?, client.parse(text)?))
    };
    answer.revisions.iter().map(parse).collect()
}

fn table(revisions: &[Revision<'_>], out: &mut Output<'_>) -> Result<(), CliError> {
    if revisions.is_empty() {
        note("this node keeps no revision of this key");
        return Ok(());
    }
    let expiring = revisions.iter().any(|(envelope, _)| envelope.expires_at.is_some());
    let wide = out.is_wide();
    let mut header = vec!["UUID", "TIME", "OUTCOME", "SIZE"];
    if wide {
        header.extend(["ORIGIN", "BY"]);
    }
    if expiring {
        header.push("EXPIRES");
    }
    header.push("VALUE");
    let row = |(envelope, ending): &Revision<'_>| {
        let mut row = vec![
            envelope.uuid.clone(),
            envelope.time(wide),
            ending.outcome.clone(),
            envelope.size(),
        ];
        if wide {
            row.extend([envelope.origin(), or_dash(ending.by.as_deref())]);
        }
        if expiring {
            row.push(envelope.expires(wide));
        }
        row.push(envelope.preview(preview_chars(wide, PREVIEW_CHARS_MAX)));
        row
    };
    // a revision is got and restored by its uuid
    let mut grid = Grid::new(header, &[3]).whole(&[0]);
    out.table(&mut grid, &revisions.iter().map(row).collect::<Vec<_>>())
}

/// Stores the bytes of revision `uuid` again. `revisions` is the history, the current one first.
async fn restore(
    client: &Client,
    key: &Key,
    uuid: Uuid,
    revisions: &[Revision<'_>],
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let text = uuid.to_string();
    if revisions.iter().any(|(envelope, _)| envelope.deleted && envelope.uuid == text) {
        return Err(CliError::Usage(format!(
            "revision {uuid} is a delete and has no value; to delete the key, use `kvs del`"
        )));
    }
    let expected = expect_unchanged(client, revisions)?;
    let response = client.send(client.request(Method::GET, &revision_path(key, uuid))).await?;
    let content_type = match response.headers().get(CONTENT_TYPE) {
        Some(value) => value.to_str().ok().and_then(|text| ContentType::parse(text).ok()),
        None => Some(ContentType::octet_stream()),
    };
    let content_type = content_type
        .ok_or_else(|| client.bad_answer("its revision has an impossible content type"))?;
    let value = client.value(response).await?;
    let swap = Swap::of_bytes(expected, &value, content_type);
    match swap.send(client, key, "restored", out).await {
        Err(CliError::Refused(refusal)) if refusal.status == 412 => {
            Err(CliError::Overtaken { key: key.to_string(), refusal })
        }
        answer => answer,
    }
}

/// The expectation that the key still has the version that its history begins with.
fn expect_unchanged(client: &Client, revisions: &[Revision<'_>]) -> Result<Expected, CliError> {
    match revisions.first() {
        Some((envelope, ending)) if !envelope.deleted && ending.outcome == "current" => {
            let uuid = envelope.uuid.parse::<Uuid>();
            let uuid = uuid.map_err(|_| client.bad_answer("its current version has no uuid"))?;
            Ok(Expected { uuid: Some(uuid), ..Expected::default() })
        }
        _ => Ok(Expected { absent: true, ..Expected::default() }),
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
