//! The source of an import: a directory tree or lines, read as records by a thread of its own.
//!
//! Reads ahead no more than its channel holds. Must not know how records are written.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::error::CliError;
use super::lines::{Lifetime, Line, Lines, Parsed};
use super::tree;
use super::ttl::Ttl;
use crate::clock::Clock;
use crate::model::duration::{DURATION_MAX, DURATION_MIN};
use crate::model::{ContentType, Key, Prefix, Timestamp};

/// An item from the reading thread.
pub(super) enum Found {
    Record { at: String, record: Record },
    Skipped(String),
    Failed { at: String, cause: CliError },
}

/// A record to write.
#[derive(Clone)]
pub(super) struct Record {
    pub key: Key,
    pub content_type: ContentType,
    pub value: Bytes,
    life: Lifetime,
}

/// Opens the source and starts a thread that reads it. Nothing joins the thread, because standard
/// input may never end.
pub(super) fn start(
    path: PathBuf,
    prefix: Prefix,
    private: bool,
    to: mpsc::Sender<Found>,
) -> Result<(), CliError> {
    let fail = |error| CliError::File { verb: "read", path: path.clone(), error };
    if path.as_os_str() == "-" {
        std::thread::spawn(move || read_lines(io::stdin().lock(), &prefix, &to));
    } else if std::fs::metadata(&path).map_err(&fail)?.is_dir() {
        std::thread::spawn(move || read_tree(&path, private, &prefix, &to));
    } else {
        let file = File::open(&path).map_err(&fail)?;
        std::thread::spawn(move || read_lines(BufReader::new(file), &prefix, &to));
    }
    Ok(())
}

fn read_tree(root: &Path, private: bool, prefix: &Prefix, to: &mpsc::Sender<Found>) {
    tree::walk(root, private, |item| {
        let found = match item {
            Ok(line) => {
                let at = format!("{}", line.key);
                match with_prefix(prefix, line) {
                    Ok(record) => Found::Record { at: at_key(&record.key), record },
                    Err(reason) => Found::Skipped(format!("{at}: {reason}")),
                }
            }
            Err(reason) => Found::Skipped(reason),
        };
        to.blocking_send(found).is_ok()
    });
}

fn read_lines(from: impl BufRead, prefix: &Prefix, to: &mpsc::Sender<Found>) {
    let mut lines = Lines::new(from);
    let mut records = 0;
    loop {
        let read = lines.next_line().map(|line| line.map(Parsed::parse));
        let at = format!("at line {}", lines.number());
        let found = match read {
            Ok(None) => return,
            Err(error) => bad(at, error.to_string()),
            Ok(Some(Err(problem))) => bad(at, problem),
            // what follows may be another export
            Ok(Some(Ok(Parsed::End(items)))) if items == records => {
                records = 0;
                continue;
            }
            Ok(Some(Ok(Parsed::End(items)))) => bad(
                at,
                format!(
                    "the export says that {items} records came before its end, but there are \
                     {records}; export again"
                ),
            ),
            Ok(Some(Ok(Parsed::Record(line)))) => {
                records += 1;
                match with_prefix(prefix, line) {
                    Ok(record) => {
                        Found::Record { at: format!("{at} ({})", at_key(&record.key)), record }
                    }
                    Err(problem) => bad(at, problem),
                }
            }
        };
        let last = matches!(found, Found::Failed { .. });
        if to.blocking_send(found).is_err() || last {
            return;
        }
    }
}

fn bad(at: String, problem: String) -> Found {
    Found::Failed { at, cause: CliError::Usage(problem) }
}

fn at_key(key: &Key) -> String {
    format!("at key {key}")
}

fn with_prefix(prefix: &Prefix, line: Line) -> Result<Record, String> {
    let key = if prefix.as_str().is_empty() {
        line.key
    } else {
        Key::parse(&format!("{prefix}/{}", line.key)).map_err(|e| e.to_string())?
    };
    let Line { content_type, value, life, .. } = line;
    Ok(Record { key, content_type, value: value.into(), life })
}

/// A record whose time is over.
pub(super) struct Expired(Timestamp);

impl Expired {
    pub(super) fn reason(&self, at: &str) -> String {
        let which = at.trim_start_matches("at ");
        format!("{which}: expired at {}", self.0.rfc3339())
    }
}

impl Record {
    /// The query that gives the record the rest of its time to live.
    pub(super) fn query(&self, clock: &Clock) -> Result<String, Expired> {
        match self.life {
            Lifetime::Endless => Ok(String::new()),
            Lifetime::Ttl(ttl) => Ok(ttl.query()),
            Lifetime::Until(at) => match at.since(clock.now()) {
                // less than the shortest time to live: it has expired
                left if left < DURATION_MIN => Err(Expired(at)),
                // no node gives more than the longest one
                left => Ok(Ttl::For(left.min(DURATION_MAX)).query()),
            },
        }
    }
}
