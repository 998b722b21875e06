//! `history`: the revisions of a key as one node saw them, their bytes, and the way back to one.
//!
//! A revision is restored by an ordinary swap that expects the version that was current when the
//! history was read: whoever wrote in between keeps what they wrote. Must not decide anything that
//! a node decides.

use clap::Args;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::cas::{Expected, Swap};
use super::client::{Client, key_path};
use super::envelope::{Envelope, or_dash};
use super::error::CliError;
use super::note;
use super::output::{Grid, Output};
use crate::model::{ContentType, Key};

/// How much of a value a table shows.
const PREVIEW_CHARS_MAX: usize = 40;
/// The greatest limit that a node takes, far beyond what it keeps of a key.
const LIMIT_MAX: u64 = 1000;

const AFTER_HELP: &str = "\
Examples:
  kvs history app/name                     what there was, newest first
  kvs history app/name --get U > old       the bytes of the revision with uuid U
  kvs history app/name --restore U         the same bytes become the value again

The outcome of a revision: `current` is what the key has now; `replaced`: the write with the uuid
under BY took its place; `expired`: its time was up; `superseded`: it lost against a write that did
not know of it. A node keeps the last `revision_history_depth` (8) of a key, as it saw them: another
node may have seen others.

--restore writes a new version, with the bytes and the content type of the old one and without an
expiry, and only if the key still has the version that it had when the history was read.";

/// `kvs history`
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct History {
    /// The key, as in `app/name`
    #[arg(value_parser = Key::parse)]
    key: Key,
    /// List at most N revisions; default: all that the node has
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..),
        conflicts_with_all = ["get", "restore"]
    )]
    limit: Option<u64>,
    /// Write the value of this revision to standard output, byte for byte
    #[arg(long, value_name = "UUID", conflicts_with = "restore")]
    get: Option<Uuid>,
    /// Store the value of this revision again, if nobody writes the key meanwhile
    #[arg(long, value_name = "UUID")]
    restore: Option<Uuid>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    revisions: Vec<&'a RawValue>,
}

/// What a revision has beyond an envelope.
#[derive(Deserialize)]
struct Fate {
    outcome: String,
    by: Option<String>,
}

/// Prints the revisions, or the bytes of one; or restores one.
///
/// # Errors
/// What stopped it; [`CliError::Overtaken`] when somebody wrote before the restored value could be.
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
    match args.restore {
        Some(uuid) => restore(client, key, uuid, &revisions(client, &body)?, out).await,
        None if out.is_json() => out.json(&body),
        None => table(&revisions(client, &body)?, out),
    }
}

fn revision_path(key: &Key, uuid: Uuid) -> String {
    format!("{}?uuid={uuid}", key_path("history", key))
}

type Revision<'a> = (Envelope<'a>, Fate);

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
        note("this node has no revision of the key");
        return Ok(());
    }
    let expiring = revisions.iter().any(|(envelope, _)| envelope.expires_at.is_some());
    let mut header = vec!["UUID", "TIME", "ORIGIN", "OUTCOME", "BY", "SIZE"];
    if expiring {
        header.push("EXPIRES");
    }
    header.push("VALUE");
    let row = |(envelope, fate): &Revision<'_>| {
        let mut row = vec![
            envelope.uuid.clone(),
            envelope.time(),
            envelope.origin(),
            fate.outcome.clone(),
            or_dash(fate.by.as_deref()),
            envelope.size(),
        ];
        if expiring {
            row.push(envelope.expires());
        }
        row.push(envelope.preview(PREVIEW_CHARS_MAX));
        row
    };
    out.line(&Grid::new(header, &[5]).page(revisions.iter().map(row).collect()))
}

/// Writes the bytes of revision `uuid` in the place of the first of `revisions`.
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
            "revision {uuid} is a delete and has no value; `kvs del` deletes the key"
        )));
    }
    let expected = current(client, revisions)?;
    let response = client.send(client.request(Method::GET, &revision_path(key, uuid))).await?;
    let content_type = match response.headers().get(CONTENT_TYPE) {
        Some(value) => value.to_str().ok().and_then(|text| ContentType::parse(text).ok()),
        None => Some(ContentType::octet_stream()),
    };
    let content_type = content_type
        .ok_or_else(|| client.strange("its revision has an impossible content type"))?;
    let value = client.body(response).await?;
    let swap = Swap::of_bytes(expected, &value, content_type);
    match swap.send(client, key, "restored", out).await {
        Err(CliError::Refused(refusal)) if refusal.status == 412 => {
            Err(CliError::Overtaken { key: key.to_string(), refusal })
        }
        answer => answer,
    }
}

/// The version that is to be still there when the restored value is written.
fn current(client: &Client, revisions: &[Revision<'_>]) -> Result<Expected, CliError> {
    match revisions.first() {
        Some((envelope, fate)) if !envelope.deleted && fate.outcome == "current" => {
            let uuid = envelope.uuid.parse::<Uuid>();
            let uuid = uuid.map_err(|_| client.strange("its current version has no uuid"))?;
            Ok(Expected { uuid: Some(uuid), ..Expected::default() })
        }
        _ => Ok(Expected { absent: true, ..Expected::default() }),
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
