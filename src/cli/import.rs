//! `import`: stores a directory tree, or the records that `export` wrote, by ordinary writes.
//!
//! - A thread reads the source, so that a slow source does not delay writes in flight.
//! - Many writes are in flight at once, bounded in number and bytes, but never two of one key: of
//!   two lines with one key, the later wins.
//! - A record with an expiry gets the rest of its time to live, by this machine's clock.
//! - The first refusal ends the import. Stored records stay; running the import again is harmless.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, IF_NONE_MATCH};
use tokio::sync::mpsc;

use super::client::{Client, key_path};
use super::error::CliError;
use super::kept_versions;
use super::note;
use super::output::{Output, printable, size};
use super::progress::Counter;
use super::retry::{RETRIES_MAX, RETRY_WAIT, RETRY_WAIT_MAX, retry_after};
use super::source::{self, Expired, Found, Record};
use super::words::count;
use super::write::Written;
use crate::clock::Clock;
use crate::model::{Key, Prefix};

/// The most writes in flight.
const WRITES_MAX: usize = 64;
/// The most bytes of values in flight, unless a single value is larger.
const WRITE_BYTES_MAX: usize = 32 << 20;
/// Records to read ahead.
const READ_AHEAD_MAX: usize = 4;
/// How many skipped entries to list; the rest is only counted.
const SKIPPED_LINES_MAX: usize = 20;

const AFTER_HELP: &str = "\
Examples:
  kvs import site/ --prefix www          the files below site/, as keys below www/
  kvs import all.ndjson                  the records that `kvs export` wrote
  echo '{\"key\": \"a\", \"data\": 1}' | kvs import -

A directory becomes one key for each regular file, and for each link to one inside the directory.
The name of a file tells its content type. Skipped and listed: other links, names that begin with
`..`, and what not everybody may read, unless you add --private.

A line needs `key`, and `data` or `data_base64`; it may have `content_type`, and `expires_at` or
`ttl`. The versions that an export has (`uuid`, `timestamp`, `origin`) are left behind, as an import
makes new writes; with --keep-versions they are kept, and a line needs them. Any other member is an
error. A value with `expires_at` gets the rest of its time to live, by the clock of this machine;
one that has expired is skipped and listed.

An import stops at the first failure. What it stored stays; to go on, run it again.";

/// `kvs import`
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
#[expect(clippy::struct_excessive_bools, reason = "one for each switch on the command line")]
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
    /// Store only what is missing: leave a key that has a live value as it is
    #[arg(long)]
    if_absent: bool,
    /// Read and check everything and show what would be stored, but send nothing
    #[arg(long, conflicts_with = "if_absent")]
    dry_run: bool,
    /// Store each line under the version that it had (uuid, timestamp, origin) where that wins, and
    /// leave alone what the node has in a newer one
    #[arg(long, conflicts_with_all = ["prefix", "private", "if_absent", "dry_run"])]
    keep_versions: bool,
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
    if args.keep_versions {
        return kept_versions::import(client, &args.from, out).await;
    }
    let (to, found) = mpsc::channel(READ_AHEAD_MAX);
    source::start(args.from.clone(), args.prefix.clone(), args.private, to)?;
    if args.dry_run {
        return rehearse(found, clock, out).await;
    }
    let mut run = Run::new(client, clock, args.if_absent);
    run.all(found).await;
    run.counter.end();
    run.skipped.report();
    let (stored, kept, skipped) = (run.stored, run.kept, run.skipped.count);
    if let Some((at, cause)) = run.failure {
        return Err(CliError::Stopped { at, stored, cause: Box::new(cause) });
    }
    if out.is_json() {
        let kept = if args.if_absent { format!(r#","kept":{kept}"#) } else { String::new() };
        return out.line(&format!(r#"{{"imported":{stored},"skipped":{skipped}{kept}}}"#));
    }
    let kept = if args.if_absent { format!(", {kept} left as they were") } else { String::new() };
    out.line(&format!("imported {}, {skipped} skipped{kept}", count(stored, "record")))
}

/// Shows what an import would store.
async fn rehearse(
    mut found: mpsc::Receiver<Found>,
    clock: &Clock,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let (mut records, mut skipped) = (0, Skipped::default());
    while let Some(item) = found.recv().await {
        match item {
            Found::Failed { at, cause } => {
                skipped.report();
                return Err(CliError::Stopped { at, stored: 0, cause: Box::new(cause) });
            }
            Found::Skipped(reason) => skipped.add(reason),
            Found::Record { at, record } => {
                if let Err(expired) = record.query(clock) {
                    skipped.add(expired.reason(&at));
                    continue;
                }
                records += 1;
                if !out.is_json() {
                    let size = size(record.value.len() as u64);
                    let line = format!("{}  {size}  {}", record.key, record.content_type);
                    out.line(&printable(&line))?;
                }
            }
        }
    }
    skipped.report();
    let skipped = skipped.count;
    if out.is_json() {
        return out.line(&format!(r#"{{"would_import":{records},"skipped":{skipped}}}"#));
    }
    out.line(&format!("would import {}, {skipped} skipped", count(records, "record")))
}

/// The entries that were left out.
#[derive(Default)]
struct Skipped {
    count: u64,
    lines: Vec<String>,
}

impl Skipped {
    fn add(&mut self, reason: String) {
        self.count += 1;
        if self.lines.len() < SKIPPED_LINES_MAX {
            self.lines.push(reason);
        }
    }

    fn report(&self) {
        for line in &self.lines {
            note(&format!("skipped {line}"));
        }
        let more = self.count - self.lines.len() as u64;
        if more > 0 {
            note(&format!("skipped {more} more"));
        }
    }
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
    /// Not stored, because the key has a live value.
    Kept,
    /// Not sent, because the record has expired.
    Expired(Expired),
}

/// The state of a running import.
struct Run<'a> {
    client: &'a Client,
    clock: &'a Clock,
    if_absent: bool,
    counter: Counter,
    in_flight: FuturesUnordered<LocalBoxFuture<'a, Ended>>,
    /// Keys of the writes in flight: two writes of one key would race.
    keys: BTreeSet<Key>,
    bytes: usize,
    stored: u64,
    kept: u64,
    skipped: Skipped,
    failure: Option<(String, CliError)>,
}

impl<'a> Run<'a> {
    fn new(client: &'a Client, clock: &'a Clock, if_absent: bool) -> Self {
        Self {
            client,
            clock,
            if_absent,
            counter: Counter::new("imported"),
            in_flight: FuturesUnordered::new(),
            keys: BTreeSet::new(),
            bytes: 0,
            stored: 0,
            kept: 0,
            skipped: Skipped::default(),
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
                Some(Found::Skipped(reason)) => self.skipped.add(reason),
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
        assert!(self.keys.insert(record.key.clone()), "two writes of one key never race");
        let (client, clock, if_absent) = (self.client, self.clock, self.if_absent);
        let reached = self.stored > 0;
        self.in_flight.push(Box::pin(async move {
            let result = store_one(client, clock, &record, if_absent, reached).await;
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
        assert!(self.bytes >= ended.bytes, "a write in flight is counted");
        self.bytes -= ended.bytes;
        assert!(self.keys.remove(&ended.key), "a write in flight has its key here");
        match ended.result {
            Ok(Done::Stored) => {
                self.stored += 1;
                self.counter.set(self.stored);
            }
            Ok(Done::Kept) => self.kept += 1,
            Ok(Done::Expired(expired)) => self.skipped.add(expired.reason(&ended.at)),
            Err(cause) if self.failure.is_none() => self.failure = Some((ended.at, cause)),
            Err(_) => {}
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
    if_absent: bool,
    reached: bool,
) -> Result<Done, CliError> {
    let mut wait = RETRY_WAIT;
    let mut tries = 0;
    loop {
        let query = match record.query(clock) {
            Ok(query) => query,
            Err(expired) => return Ok(Done::Expired(expired)),
        };
        let error = match write_one(client, record, &query, if_absent).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let retry_after = retry_after(&error, reached, wait);
        let Some(retry_after) = retry_after.filter(|_| tries < RETRIES_MAX) else {
            return Err(error);
        };
        tries += 1;
        tokio::time::sleep(retry_after.max(wait).min(RETRY_WAIT_MAX)).await;
        wait *= 2;
    }
}

async fn write_one(
    client: &Client,
    record: &Record,
    query: &str,
    if_absent: bool,
) -> Result<Done, CliError> {
    let path = key_path("kv", &record.key);
    let mut request = client
        .request(Method::PUT, &format!("{path}{query}"))
        .header(CONTENT_TYPE, record.content_type.as_str())
        .body(record.value.clone());
    if if_absent {
        request = request.header(IF_NONE_MATCH, "*");
    }
    let response = match client.send(request).await {
        Err(CliError::Refused(refusal)) if if_absent && refusal.status == 412 => {
            return Ok(Done::Kept);
        }
        answer => answer?,
    };
    let body = client.body(response).await?;
    let written: Written = client.parse(&body)?;
    if written.key == record.key.as_str() {
        Ok(Done::Stored)
    } else {
        Err(client.bad_answer("it tells of another key than the one that was written"))
    }
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
