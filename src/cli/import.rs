//! `import`: stores a directory tree, or the records that `export` wrote, by ordinary writes.
//!
//! - A thread reads the source, so that a slow source does not delay writes in flight.
//! - Many writes are in flight at once, bounded in number and bytes, but never two of one key: of
//!   two lines with one key, the later wins.
//! - A record with an expiry gets the rest of its time to live, by this machine's clock.
//! - The first refusal ends the import. Stored records stay; running the import again is harmless.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use tokio::sync::mpsc;

use super::client::{Client, key_path};
use super::error::CliError;
use super::lines::{Line, Lines};
use super::note;
use super::output::Output;
use super::progress::Counter;
use super::tree;
use super::words::count;
use super::write::Ttl;
use crate::clock::Clock;
use crate::model::duration::{DURATION_MAX, DURATION_MIN};
use crate::model::{ContentType, Key, Prefix, Timestamp};

/// The most writes in flight.
const WRITES_MAX: usize = 64;
/// The most bytes of values in flight, unless a single value is larger.
const WRITE_BYTES_MAX: usize = 32 << 20;
/// Records to read ahead.
const READ_AHEAD_MAX: usize = 4;
/// How often to retry a write when the node is busy or the connection is lost.
const RETRIES_MAX: u32 = 6;
/// The wait before the first retry. It doubles each time; a longer Retry-After of the node wins.
const RETRY_WAIT: Duration = Duration::from_millis(100);
/// The longest wait before a retry, even if the node asks for more.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(10);
/// How many skipped entries to list; the rest is only counted.
const SKIPPED_LINES_MAX: usize = 20;

const AFTER_HELP: &str = "\
Examples:
  kvs import site/ --prefix www          the files below site/, as keys below www/
  kvs import all.ndjson                  the records that `kvs export` wrote
  echo '{\"key\": \"a\", \"data\": 1}' | kvs import -

A directory becomes one key for each regular file. Links are skipped, and so is what not everybody
may read, unless you add --private. Skipped files are listed.

A line needs `key`, and `data` or `data_base64`; it may have `content_type` and `expires_at`. Other
fields are ignored. A value with `expires_at` gets the rest of its time to live, by the clock of
this machine; one that has expired is skipped and listed.

An import stops at the first failure. What it stored stays; to go on, run it again.";

/// `kvs import`
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Import {
    /// A directory, a file that `export` wrote, or `-` for such lines on standard input
    #[arg(value_name = "DIR|FILE|-")]
    from: PathBuf,
    /// Segments to put before every key; default: none
    #[arg(
        long,
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true,
        value_parser = Prefix::parse
    )]
    prefix: Prefix,
    /// Import also files and directories that not everybody may read
    #[arg(long)]
    private: bool,
}

/// An item from the reading thread.
enum Found {
    Record { at: String, record: Record },
    Skipped(String),
    Failed { at: String, cause: CliError },
}

/// A record to write.
#[derive(Clone)]
struct Record {
    key: Key,
    content_type: ContentType,
    value: Bytes,
    expires_at: Option<Timestamp>,
}

/// Imports everything from the source.
///
/// # Errors
/// [`CliError::File`] if the source cannot be opened; [`CliError::Stopped`] with the first failure
/// after that.
pub async fn import(
    client: &Client,
    args: &Import,
    clock: &Clock,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let (to, found) = mpsc::channel(READ_AHEAD_MAX);
    start_reading(args, to)?;
    let mut run = Run::new(client, clock);
    run.all(found).await;
    run.counter.end();
    run.report_skipped();
    if let Some((at, cause)) = run.failure {
        return Err(CliError::Stopped { at, stored: run.stored, cause: Box::new(cause) });
    }
    if out.is_json() {
        return out.line(&format!(r#"{{"imported":{},"skipped":{}}}"#, run.stored, run.skipped));
    }
    out.line(&format!("imported {}, {} skipped", count(run.stored, "record"), run.skipped))
}

/// Opens the source and starts a thread that reads it. Nothing joins the thread, because standard
/// input may never end.
fn start_reading(args: &Import, to: mpsc::Sender<Found>) -> Result<(), CliError> {
    let path = args.from.clone();
    let fail = |error| CliError::File { verb: "read", path: path.clone(), error };
    let prefix = args.prefix.clone();
    let private = args.private;
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
    loop {
        let read = lines.next_line().map(|line| line.map(Line::parse));
        let at = format!("at line {}", lines.number());
        let line = match read {
            Ok(None) => return,
            Ok(Some(line)) => line,
            Err(error) => Err(error.to_string()),
        };
        let found = match line {
            Ok(line) => match with_prefix(prefix, line) {
                Ok(record) => {
                    Found::Record { at: format!("{at} ({})", at_key(&record.key)), record }
                }
                Err(problem) => bad(at, problem),
            },
            Err(problem) => bad(at, problem),
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
    let Line { content_type, value, expires_at, .. } = line;
    Ok(Record { key, content_type, value: value.into(), expires_at })
}

/// A write that ended.
struct Ended {
    at: String,
    key: Key,
    bytes: usize,
    result: Result<Done, CliError>,
}

/// How a write ended, unless it failed.
enum Done {
    Stored,
    /// Not sent, because the record has expired.
    Expired(Timestamp),
}

/// The state of a running import.
struct Run<'a> {
    client: &'a Client,
    clock: &'a Clock,
    counter: Counter,
    in_flight: FuturesUnordered<LocalBoxFuture<'a, Ended>>,
    /// Keys of the writes in flight: two writes of one key would race.
    keys: BTreeSet<Key>,
    bytes: usize,
    stored: u64,
    skipped: u64,
    skipped_lines: Vec<String>,
    failure: Option<(String, CliError)>,
}

impl<'a> Run<'a> {
    fn new(client: &'a Client, clock: &'a Clock) -> Self {
        Self {
            client,
            clock,
            counter: Counter::new("imported"),
            in_flight: FuturesUnordered::new(),
            keys: BTreeSet::new(),
            bytes: 0,
            stored: 0,
            skipped: 0,
            skipped_lines: Vec::new(),
            failure: None,
        }
    }

    /// Stores all items, or stops at the first failure; then waits for the writes in flight.
    async fn all(&mut self, mut found: mpsc::Receiver<Found>) {
        while self.failure.is_none() {
            match self.next(&mut found).await {
                None => break,
                Some(Found::Record { at, record }) => self.store(at, record).await,
                Some(Found::Failed { at, cause }) => self.failure = Some((at, cause)),
                Some(Found::Skipped(reason)) => self.skip(reason),
            }
        }
        while let Some(ended) = self.in_flight.next().await {
            self.ended(ended);
        }
    }

    /// Waits for the next item while writes in flight go on.
    async fn next(&mut self, found: &mut mpsc::Receiver<Found>) -> Option<Found> {
        while self.failure.is_none() {
            tokio::select! {
                biased;
                Some(ended) = self.in_flight.next() => self.ended(ended),
                next = found.recv() => return next,
            }
        }
        None
    }

    /// Starts a write as soon as there is room for it.
    async fn store(&mut self, at: String, record: Record) {
        while self.failure.is_none() && !self.has_room(&record) {
            match self.in_flight.next().await {
                Some(ended) => self.ended(ended),
                None => break,
            }
        }
        if self.failure.is_some() {
            return;
        }
        self.bytes += record.value.len();
        self.keys.insert(record.key.clone());
        let (client, clock) = (self.client, self.clock);
        let reached = self.stored > 0;
        self.in_flight.push(Box::pin(async move {
            let result = store_one(client, clock, &record, reached).await;
            Ended { at, key: record.key, bytes: record.value.len(), result }
        }));
    }

    fn has_room(&self, record: &Record) -> bool {
        self.in_flight.is_empty()
            || (self.in_flight.len() < WRITES_MAX
                && self.bytes + record.value.len() <= WRITE_BYTES_MAX
                && !self.keys.contains(&record.key))
    }

    fn ended(&mut self, ended: Ended) {
        self.bytes -= ended.bytes;
        self.keys.remove(&ended.key);
        match ended.result {
            Ok(Done::Stored) => {
                self.stored += 1;
                self.counter.set(self.stored);
            }
            Ok(Done::Expired(at)) => {
                let which = ended.at.trim_start_matches("at ");
                self.skip(format!("{which}: expired at {}", at.rfc3339()));
            }
            Err(cause) if self.failure.is_none() => self.failure = Some((ended.at, cause)),
            Err(_) => {}
        }
    }

    fn skip(&mut self, reason: String) {
        self.skipped += 1;
        if self.skipped_lines.len() < SKIPPED_LINES_MAX {
            self.skipped_lines.push(reason);
        }
    }

    fn report_skipped(&self) {
        for line in &self.skipped_lines {
            note(&format!("skipped {line}"));
        }
        let more = self.skipped - self.skipped_lines.len() as u64;
        if more > 0 {
            note(&format!("skipped {more} more"));
        }
    }
}

/// Writes one record, with retries while the node is busy or the connection is lost. A repeated
/// write is harmless: it stores the same value. `reached` is true once the node has answered;
/// before that a refused connection is final, so that a wrong URL fails at once.
async fn store_one(
    client: &Client,
    clock: &Clock,
    record: &Record,
    reached: bool,
) -> Result<Done, CliError> {
    let path = key_path("kv", &record.key);
    let mut wait = RETRY_WAIT;
    let mut tries = 0;
    loop {
        let life = match record.expires_at.map(|at| (at, at.since(clock.now()))) {
            // less than the shortest time to live: it has expired
            Some((at, left)) if left < DURATION_MIN => return Ok(Done::Expired(at)),
            // no node gives more than the longest one
            Some((_, left)) => Ttl::For(left.min(DURATION_MAX)).query(),
            None => String::new(),
        };
        let request = client
            .request(Method::PUT, &format!("{path}{life}"))
            .header(CONTENT_TYPE, record.content_type.as_str())
            .body(record.value.clone());
        let sent = async { client.body(client.send(request).await?).await };
        let Err(error) = sent.await else { return Ok(Done::Stored) };
        let retry_after = match &error {
            CliError::Refused(refusal) if refusal.status == 503 => refusal.retry_after,
            CliError::Unreachable { connected, .. } if *connected || reached => Some(wait),
            CliError::Cut { .. } => Some(wait),
            _ => None,
        };
        let Some(retry_after) = retry_after.filter(|_| tries < RETRIES_MAX) else {
            return Err(error);
        };
        tries += 1;
        tokio::time::sleep(retry_after.max(wait).min(RETRY_WAIT_MAX)).await;
        wait *= 2;
    }
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
