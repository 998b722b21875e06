//! `txn`: several compares, writes and reads that a node decides in one step.
//!
//! Sends the transaction unchanged, after checking only that it is JSON. Succeeds with either
//! branch: which one ran is an answer, not a failure.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::Client;
use super::envelope::{Envelope, or_dash};
use super::error::CliError;
use super::output::{Grid, Output, printable};
use super::write::read_all;
use crate::model::{ContentType, json};

/// The longest transaction that any node accepts; `limits.body_bytes_max` goes no higher.
const TXN_BYTES_MAX: usize = 64 << 20;
/// How much of a value to show in the table.
const PREVIEW_CHARS_MAX: usize = 40;

const AFTER_HELP: &str = r#"Example of a FILE:
  {
    "compare": [
      {"key": "app/stage", "expected": {"data_base64": "Z3JlZW4="}},
      {"key": "app/next", "expected": {"exists": true}}
    ],
    "success": [
      {"put": {"key": "app/stage", "data": "blue"}},
      {"put": {"key": "app/notice", "data": {"by": "me"}, "ttl": "30m"}},
      {"delete": {"key": "app/next"}},
      {"get": {"key": "app/limits"}}
    ],
    "failure": [{"get": {"key": "app/stage"}}],
    "uuid": "67e55044-10b1-426f-9247-bb680e5fe0c8"
  }

If all compares hold, the node runs `success`, else `failure`, in one step, all or nothing. Each
list may be missing. `expected` takes `uuid`, `timestamp`, both of these, `data`, `data_base64`,
`absent` or `exists`. A transaction writes each key at most once. With a `uuid`, new for each
transaction, it is safe to send the same transaction to the same node again.

One node decides, without asking the others: send all clients of a key to one node. The others
receive the writes one by one and may show a part of them for a moment.

The exit status is 0 with either branch; `-o json` shows in `succeeded` which one ran."#;

/// `kvs txn`
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Txn {
    /// File with the transaction in JSON, or `-` for standard input
    #[arg(value_name = "FILE|-")]
    from: PathBuf,
}

/// Sends a transaction and prints which branch ran, and its results.
///
/// # Errors
/// [`CliError::Usage`] if it is not JSON; else see [`Client::send`]. A failed compare is no error.
pub async fn txn(client: &Client, args: &Txn, out: &mut Output<'_>) -> Result<(), CliError> {
    let text = Bytes::from(read(&args.from)?);
    let request = client
        .request(Method::POST, "/txn")
        .header(CONTENT_TYPE, ContentType::json().as_str())
        .body(text.clone());
    let body = client.body(client.send(request).await?).await?;
    if out.is_json() {
        client.parse::<Ran<'_>>(&body)?;
        return out.json(&body);
    }
    let answer: Answer<'_> = client.parse(&body)?;
    // the node accepted it, so it has this shape
    let request: Request = serde_json::from_slice(&text).unwrap_or_default();
    out.line(&verdict(&request, &answer))?;
    if answer.results.is_empty() {
        return Ok(());
    }
    let (mut grid, rows) = table(&request, &answer);
    out.table(&mut grid, &rows)
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
        CliError::Usage(format!(
            "the transaction is not acceptable JSON: {e}; correct it (nothing was sent)"
        ))
    })?;
    Ok(text)
}

/// The parts of the request that the answer does not repeat.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Request {
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

/// What every answer to a transaction has, whatever its results are.
#[derive(Deserialize)]
struct Ran<'a> {
    #[serde(rename = "succeeded")]
    _succeeded: bool,
    #[serde(borrow, rename = "results")]
    _results: &'a RawValue,
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

/// Says which branch ran, and why.
fn verdict(request: &Request, answer: &Answer<'_>) -> String {
    let all = request.compare.len();
    if answer.succeeded {
        return match all {
            0 => "nothing to compare: ran `success`".to_owned(),
            1 => "the compare holds: ran `success`".to_owned(),
            all => format!("all {all} compares hold: ran `success`"),
        };
    }
    let name = |&index: &usize| match request.compare.get(index) {
        Some(Named { key }) => format!("{index} ({})", printable(key)),
        None => index.to_string(),
    };
    let failed: Vec<_> = answer.failed.iter().map(name).collect();
    format!("of {all} compares these do not hold: {}; ran `failure`", failed.join(", "))
}

fn table(request: &Request, answer: &Answer<'_>) -> (Grid, Vec<Vec<String>>) {
    // an answer has an expiry only for reads
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
    let branch = if answer.succeeded { &request.success } else { &request.failure };
    let requested_key =
        |index: usize| branch.get(index)?.get.as_ref().map(|named| named.key.clone());
    let rows = answer.results.iter().enumerate().map(|(index, done)| {
        let mut row = row(done, requested_key(index));
        if expiring {
            row.insert(4, expires_at(done));
        }
        row
    });
    // the next request may need the version
    (Grid::new(header, &[3]).whole(&[2, 3]), rows.collect())
}

/// Operation, key, uuid, timestamp and result. The answer to a read that finds nothing has no key,
/// so the row shows `requested_key`.
fn row(done: &Done<'_>, requested_key: Option<String>) -> Vec<String> {
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
            let key = requested_key.unwrap_or_else(dash);
            ("get", key, dash(), dash(), "(no live value)".to_owned())
        }
    };
    vec![operation.to_owned(), key, uuid, timestamp, result]
}

#[cfg(test)]
#[path = "txn_tests.rs"]
mod tests;
