//! `import --keep-versions`: sends the lines of an export as they are, many in one request.
//!
//! A thread reads the source. One request is under way at a time, so that of two lines with one key
//! the later is judged later. Sending lines again is harmless: the node leaves alone what it has.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::client::Client;
use super::error::CliError;
use super::lines::{Lines, end_of_export};
use super::output::Output;
use super::progress::Counter;
use super::retry::{RETRIES_MAX, RETRY_WAIT, RETRY_WAIT_MAX, retry_after};
use super::words::count;

/// How many lines one request has at most.
const LINES_MAX: usize = 1000;
/// How many bytes one request has about, unless a line is larger.
const BYTES_MAX: usize = 4 << 20;
/// Requests to read ahead.
const READ_AHEAD_MAX: usize = 2;

/// Lines for one request.
struct Batch {
    /// The number of the first line in the source.
    first: u64,
    lines: Vec<Vec<u8>>,
}

/// What the thread that reads gives.
type Read = Result<Batch, (String, CliError)>;

/// What became of the lines.
#[derive(Default, Deserialize)]
struct Fates {
    written: u64,
    lost: u64,
    restamped: u64,
    expired: u64,
}

impl Fates {
    fn add(&mut self, more: &Self) {
        self.written += more.written;
        self.lost += more.lost;
        self.restamped += more.restamped;
        self.expired += more.expired;
    }

    fn all(&self) -> u64 {
        self.written + self.lost + self.restamped + self.expired
    }
}

/// Imports all lines of `from`.
///
/// # Errors
/// [`CliError::File`] or [`CliError::Usage`] if the source cannot be read; [`CliError::Stopped`]
/// with the first failure after that.
pub(super) async fn import(
    client: &Client,
    from: &Path,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let mut batches = start(from)?;
    let (counter, mut fates) = (Counter::new("imported"), Fates::default());
    while let Some(read) = batches.recv().await {
        let sent = match read {
            Ok(batch) => {
                let at = format!("in the {} from line {} on", lines(&batch), batch.first);
                send(client, batch, &mut fates).await.map_err(|cause| (at, cause))
            }
            Err(failure) => Err(failure),
        };
        if let Err((at, cause)) = sent {
            let stored = fates.written + fates.restamped;
            return Err(CliError::Stopped { at, stored, cause: Box::new(cause) });
        }
        counter.set(fates.all());
    }
    counter.end();
    let Fates { written, lost, restamped, expired } = fates;
    if out.is_json() {
        return out.line(&format!(
            r#"{{"written":{written},"lost":{lost},"restamped":{restamped},"expired":{expired}}}"#
        ));
    }
    out.line(&format!(
        "imported {}, {lost} left as the node has a newer or the same write, {restamped} written \
         as new, {expired} left as expired",
        count(written, "record")
    ))
}

fn lines(batch: &Batch) -> String {
    count(batch.lines.len() as u64, "line")
}

/// Sends a batch, in halves where the node takes only smaller ones.
async fn send(client: &Client, batch: Batch, fates: &mut Fates) -> Result<(), CliError> {
    let mut parts = vec![batch.lines];
    while let Some(mut part) = parts.pop() {
        match send_part(client, &part, fates.all() > 0).await {
            Ok(more) => fates.add(&more),
            Err(CliError::Refused(refusal)) if refusal.status == 413 && part.len() > 1 => {
                let second = part.split_off(part.len() / 2);
                parts.extend([second, part]);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends one request, with retries while the node is busy or the connection is lost.
async fn send_part(client: &Client, lines: &[Vec<u8>], reached: bool) -> Result<Fates, CliError> {
    let body = lines.join(&b'\n');
    let (mut wait, mut tries) = (RETRY_WAIT, 0);
    loop {
        let request = client
            .request(Method::POST, "/admin/import")
            .header(CONTENT_TYPE, "application/x-ndjson")
            .body(body.clone());
        let sent = async { client.body(client.send(request).await?).await };
        let error = match sent.await {
            Ok(answer) => return client.parse(&answer),
            Err(error) => error,
        };
        let again = retry_after(&error, reached, wait).filter(|_| tries < RETRIES_MAX);
        let Some(again) = again else { return Err(error) };
        tries += 1;
        tokio::time::sleep(again.max(wait).min(RETRY_WAIT_MAX)).await;
        wait *= 2;
    }
}

/// Opens the source and starts a thread that reads it.
fn start(from: &Path) -> Result<mpsc::Receiver<Read>, CliError> {
    let (to, batches) = mpsc::channel(READ_AHEAD_MAX);
    let fail = |error| CliError::File { verb: "read", path: from.to_owned(), error };
    if from.as_os_str() == "-" {
        std::thread::spawn(move || read_all(io::stdin().lock(), &to));
    } else if std::fs::metadata(from).map_err(&fail)?.is_dir() {
        return Err(CliError::Usage(format!(
            "the files below {} have no versions to keep; import a directory without \
             --keep-versions",
            from.display()
        )));
    } else {
        let file = File::open(from).map_err(&fail)?;
        std::thread::spawn(move || read_all(BufReader::new(file), &to));
    }
    Ok(batches)
}

/// Reads lines into batches until the end, a failure, or until nobody takes them.
fn read_all(from: impl BufRead, to: &mpsc::Sender<Read>) {
    let mut source = Lines::new(from);
    let (mut records, mut bytes) = (0_u64, 0);
    let mut batch = Batch { first: 1, lines: Vec::new() };
    loop {
        let read = source.next_line().map(|line| line.map(<[u8]>::to_vec));
        let number = source.number();
        let failed = |cause: String| Err((format!("at line {number}"), CliError::Usage(cause)));
        let (line, failure) = match read {
            Ok(line) => (line, None),
            Err(error) => (None, Some(failed(error.to_string()))),
        };
        let is_end = line.is_none();
        let mut failure = failure;
        if let Some(line) = line {
            match end_of_export(&line) {
                // what follows may be another export
                Some(items) if items == records => records = 0,
                Some(items) => {
                    failure = Some(failed(format!(
                        "the export says that {items} records came before its end, but there are \
                         {records}; export again"
                    )));
                }
                None => {
                    if batch.lines.is_empty() {
                        batch.first = number;
                    }
                    (records, bytes) = (records + 1, bytes + line.len());
                    batch.lines.push(line);
                }
            }
        }
        let is_last = is_end || failure.is_some();
        let is_full = batch.lines.len() == LINES_MAX || bytes >= BYTES_MAX;
        if !batch.lines.is_empty() && (is_full || is_last) {
            bytes = 0;
            let full = std::mem::replace(&mut batch, Batch { first: 1, lines: Vec::new() });
            if to.blocking_send(Ok(full)).is_err() {
                return;
            }
        }
        if let Some(failure) = failure {
            // nobody may wait for it any more
            let _ = to.blocking_send(failure);
        }
        if is_last {
            return;
        }
    }
}
