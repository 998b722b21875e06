//! `txn`: several compares, writes and reads that a node decides in one step.
//!
//! The transaction is sent as it was written; only that it is JSON is checked before. Which branch
//! was done is an answer, not a failure.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;

use super::client::Client;
use super::envelope::{Envelope, or_dash};
use super::error::CliError;
use super::output::{Grid, Output, printable};
use super::write::read_all;
use crate::model::{ContentType, json};

/// The longest transaction that any node takes.
const TXN_BYTES_MAX: usize = 64 << 20;
/// How much of a value a table shows.
const PREVIEW_CHARS_MAX: usize = 40;

const AFTER_HELP: &str = r#"Example of a FILE:
  {
    "compare": [
      {"key": "app/owner", "expected": {"data_base64": "bWU="}},
      {"key": "app/lock", "expected": {"absent": true}}
    ],
    "success": [
      {"put": {"key": "app/lock", "data": {"by": "me"}, "ttl": "30s"}},
      {"delete": {"key": "app/waiting"}},
      {"get": {"key": "app/limits"}}
    ],
    "failure": [{"get": {"key": "app/lock"}}],
    "uuid": "67e55044-10b1-426f-9247-bb680e5fe0c8"
  }

If all compares hold, the operations of `success` are done, else those of `failure`; each list may
be missing. It is one step on the node, all or nothing. `expected` is one of `uuid`, `timestamp`,
both of these, `data`, `data_base64`, `absent` and `exists`; a key is written at most once. With
`uuid`, a new one for each transaction, it is safe to send the same again to the same node.

The exit status is 0 whichever branch was done; `-o json` tells it as `succeeded`."#;

/// `kvs txn`
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Txn {
    /// A file with the transaction in JSON, or `-` for standard input
    #[arg(value_name = "FILE|-")]
    from: PathBuf,
}

/// Sends a transaction and prints what became of it.
///
/// # Errors
/// What stopped it. A compare that does not hold is no error.
pub async fn txn(client: &Client, args: &Txn, out: &mut Output<'_>) -> Result<(), CliError> {
    let text = Bytes::from(read(&args.from)?);
    let request = client
        .request(Method::POST, "/txn")
        .header(CONTENT_TYPE, ContentType::json().as_str())
        .body(text.clone());
    let body = client.body(client.send(request).await?).await?;
    if out.is_json() {
        return out.json(&body);
    }
    // the node took it, so this is how it looks
    let asked: Asked = serde_json::from_slice(&text).unwrap_or_default();
    let answer: Answer<'_> = client.parse(&body)?;
    out.line(&verdict(&asked, &answer))?;
    if answer.results.is_empty() {
        return Ok(());
    }
    out.line(&table(&asked, &answer))
}

fn read(from: &Path) -> Result<Vec<u8>, CliError> {
    let text = if from.as_os_str() == "-" {
        let what = "the transaction on standard input";
        read_all(&mut io::stdin().lock(), Path::new("standard input"), what, TXN_BYTES_MAX)?
    } else {
        let fail = |error| CliError::File { verb: "read", path: from.into(), error };
        let what = format!("the transaction in {}", from.display());
        read_all(&mut File::open(from).map_err(fail)?, from, &what, TXN_BYTES_MAX)?
    };
    json::check(&text).map_err(|e| {
        CliError::Usage(format!("the transaction is not acceptable JSON: {e}; nothing was sent"))
    })?;
    Ok(text)
}

/// What the answer does not repeat of the request.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Asked {
    compare: Vec<Named>,
    success: Vec<Operation>,
    failure: Vec<Operation>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    key: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Operation {
    get: Option<Named>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    succeeded: bool,
    #[serde(default)]
    failed: Vec<usize>,
    #[serde(borrow)]
    results: Vec<Done<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Done<'a> {
    Put {
        key: String,
        uuid: String,
        timestamp: u64,
    },
    Delete {
        key: String,
        deleted: bool,
    },
    #[serde(borrow)]
    Get(Option<Box<Envelope<'a>>>),
}

/// Which branch was done, and why.
fn verdict(asked: &Asked, answer: &Answer<'_>) -> String {
    let all = asked.compare.len();
    if answer.succeeded {
        return match all {
            0 => "nothing to compare: did `success`".to_owned(),
            1 => "the compare holds: did `success`".to_owned(),
            all => format!("all {all} compares hold: did `success`"),
        };
    }
    let name = |&index: &usize| match asked.compare.get(index) {
        Some(Named { key }) => format!("{index} ({})", printable(key)),
        None => index.to_string(),
    };
    let failed: Vec<_> = answer.failed.iter().map(name).collect();
    format!("of {all} compares these do not hold: {}: did `failure`", failed.join(", "))
}

fn table(asked: &Asked, answer: &Answer<'_>) -> String {
    // an answer says of reads alone when they expire
    let expires_at = |done: &Done<'_>| match done {
        Done::Get(Some(envelope)) => or_dash(envelope.expires_at.as_deref()),
        Done::Put { .. } => String::new(),
        Done::Delete { .. } | Done::Get(None) => or_dash(None),
    };
    let expires = |done: &Done<'_>| match done {
        Done::Get(Some(envelope)) => envelope.expires_at.is_some(),
        _ => false,
    };
    let expiring = answer.results.iter().any(expires);
    let mut header = vec!["OPERATION", "KEY", "UUID", "TIMESTAMP"];
    if expiring {
        header.push("EXPIRES");
    }
    header.push("RESULT");
    let branch = if answer.succeeded { &asked.success } else { &asked.failure };
    let asked_key = |index: usize| branch.get(index)?.get.as_ref().map(|named| named.key.clone());
    let rows = answer.results.iter().enumerate().map(|(index, done)| {
        let mut row = row(done, asked_key(index));
        if expiring {
            row.insert(4, expires_at(done));
        }
        row
    });
    Grid::new(header, &[3]).page(rows.collect())
}

/// Operation, key, uuid, timestamp and result; a read without a value does not tell its key.
fn row(done: &Done<'_>, asked_key: Option<String>) -> Vec<String> {
    let dash = || or_dash(None);
    let (operation, key, uuid, timestamp, result) = match done {
        Done::Put { key, uuid, timestamp } => {
            ("put", key.clone(), uuid.clone(), timestamp.to_string(), "written".to_owned())
        }
        Done::Delete { key, deleted } => {
            let result = if *deleted { "deleted" } else { "nothing to delete" };
            ("delete", key.clone(), dash(), dash(), result.to_owned())
        }
        Done::Get(Some(found)) => {
            let value = found.preview(PREVIEW_CHARS_MAX);
            ("get", found.key.clone(), found.uuid.clone(), found.timestamp.to_string(), value)
        }
        Done::Get(None) => {
            let key = asked_key.unwrap_or_else(dash);
            ("get", key, dash(), dash(), "(no live value)".to_owned())
        }
    };
    vec![operation.to_owned(), key, uuid, timestamp, result]
}

#[cfg(test)]
#[path = "txn_tests.rs"]
mod tests;
