//! `scan` and `export`: many keys, in key order.
//!
//! Holds at most one page or one piece of the answer in memory. An export that breaks off is an
//! error, never a file that looks complete.

use clap::Args;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{Client, prefix_path, query_value};
use super::envelope::{Envelope, preview_chars};
use super::error::CliError;
use super::lines::{LINE_BYTES_MAX, end_of_export};
use super::note;
use super::output::{Grid, Output};
use super::progress::Counter;
use super::words::count;
use crate::model::Prefix;

/// The most items in one page, by the contract.
const PAGE_ITEMS_MAX: u64 = 1000;
/// How much of a value to show in the table.
const PREVIEW_CHARS_MAX: usize = 60;

/// `kvs scan`
#[derive(Debug, Args)]
pub struct Scan {
    /// Whole path segments: `app` takes in `app/x`, but not `apple/x`; default: all keys
    #[arg(default_value = "", hide_default_value = true, value_parser = Prefix::parse)]
    prefix: Prefix,
    /// Show the values too: shortened in a table, whole with `-o json`
    #[arg(long)]
    values: bool,
    /// List at most N keys; default: all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

/// `kvs export`
#[derive(Debug, Args)]
pub struct Export {
    /// Whole path segments: `app` takes in `app/x`, but not `apple/x`; default: all keys
    #[arg(default_value = "", hide_default_value = true, value_parser = Prefix::parse)]
    prefix: Prefix,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Box<RawValue>>,
    next: Option<String>,
}

/// Prints the keys below a prefix: a table, or with `-o json` one envelope per line.
///
/// # Errors
/// See [`Client::send`] and [`Client::body`]. Earlier pages have been printed.
pub async fn scan(client: &Client, args: &Scan, out: &mut Output<'_>) -> Result<(), CliError> {
    let mut listing = Listing::new(args, false, out.is_wide());
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut after: Option<String> = None;
    let mut empty = true;
    loop {
        let path = page_path(args, left.min(PAGE_ITEMS_MAX), after.as_deref());
        let body = client.body(client.send(client.request(Method::GET, &path)).await?).await?;
        let page: Page = client.parse(&body)?;
        left = left.saturating_sub(page.items.len() as u64);
        empty = empty && page.items.is_empty();
        listing.show(client, &page, out)?;
        match page.next {
            None => break,
            Some(next) if left > 0 => {
                if after.as_ref() == Some(&next) {
                    return Err(client.bad_answer("it returned the same page twice"));
                }
                after = Some(next);
            }
            Some(_) if out.is_json() => break,
            Some(_) => {
                out.flush()?;
                note("there are more keys; raise --limit to see them");
                break;
            }
        }
    }
    if empty && !out.is_json() {
        note("no live keys below this prefix");
    }
    Ok(())
}

fn page_path(args: &Scan, limit: u64, after: Option<&str>) -> String {
    let mut path = format!("{}?limit={limit}", prefix_path("scan", &args.prefix));
    if args.values {
        path.push_str("&values=true");
    }
    if let Some(after) = after {
        path.push_str("&after=");
        path.push_str(&query_value(after));
    }
    path
}

/// The table of a scan. It gets a column for the expiry with the first page that has one.
struct Listing<'a> {
    args: &'a Scan,
    expiring: bool,
    wide: bool,
    grid: Grid,
}

impl<'a> Listing<'a> {
    fn new(args: &'a Scan, expiring: bool, wide: bool) -> Self {
        let mut header = vec!["KEY", "SIZE", "TYPE", "TIME"];
        if wide {
            header.push("ORIGIN");
        }
        if expiring {
            header.push("EXPIRES");
        }
        if args.values {
            header.push("VALUE");
        }
        Self { args, expiring, wide, grid: Grid::new(header, &[1]) }
    }

    fn show(&mut self, client: &Client, page: &Page, out: &mut Output<'_>) -> Result<(), CliError> {
        if out.is_json() {
            return page.items.iter().try_for_each(|item| out.json(item.get().as_bytes()));
        }
        if page.items.is_empty() {
            return Ok(());
        }
        let items: Result<Vec<Envelope<'_>>, _> =
            page.items.iter().map(|item| client.parse(item.get().as_bytes())).collect();
        let items = items?;
        if !self.expiring && items.iter().any(|item| item.expires_at.is_some()) {
            *self = Self::new(self.args, true, self.wide);
        }
        let rows: Vec<_> = items.iter().map(|item| self.row(item)).collect();
        out.table(&mut self.grid, &rows)
    }

    fn row(&self, item: &Envelope<'_>) -> Vec<String> {
        let wide = self.wide;
        let mut row = vec![item.key.clone(), item.size(), item.content_type(), item.time(wide)];
        if wide {
            row.push(item.origin());
        }
        if self.expiring {
            row.push(item.expires(wide));
        }
        if self.args.values {
            row.push(item.preview(preview_chars(wide, PREVIEW_CHARS_MAX)));
        }
        row
    }
}

/// Prints every live record below a prefix, one envelope per line.
///
/// The node says in a last line how many records it sent, and that line is not printed: without it
/// the answer was cut, whatever the connection looked like.
///
/// # Errors
/// [`CliError::Cut`] if the answer broke off: the output is incomplete.
pub async fn export(client: &Client, args: &Export, out: &mut Output<'_>) -> Result<(), CliError> {
    // `exact`: what is imported again has the same bytes
    let query = "values=true&exact=true&end=true";
    let path = format!("{}?{query}", prefix_path("scan", &args.prefix));
    let request = client.request(Method::GET, &path).header(ACCEPT, "application/x-ndjson");
    let mut response = client.send(request).await?;
    let is_ndjson = |value: &reqwest::header::HeaderValue| {
        value.as_bytes().starts_with(b"application/x-ndjson")
    };
    if !response.headers().get(CONTENT_TYPE).is_some_and(is_ndjson) {
        return Err(client.bad_answer("it is not one record per line"));
    }
    let counter = Counter::unless_printing("exported");
    let mut lines = ExportLines::default();
    let so_far = |records| format!("{}, so the export is incomplete", count(records, "record"));
    while let Some(chunk) = client.chunk(&mut response, || so_far(lines.records)).await? {
        lines.take(client, &chunk, out)?;
        counter.set(lines.records);
    }
    counter.end();
    out.flush()?;
    let records = lines.records;
    let reason = match lines.end {
        Some(items) if items == records && lines.rest.is_empty() => return Ok(()),
        Some(items) => format!("its end tells of {}", count(items, "record")),
        None if lines.rest.is_empty() => "its end is missing".to_owned(),
        None => "its last line has no end".to_owned(),
    };
    Err(CliError::Cut { url: client.url().to_owned(), so_far: so_far(records), reason })
}

/// Prints the lines of an export as they become whole, and keeps its end to itself.
#[derive(Default)]
struct ExportLines {
    /// The start of a line.
    rest: Vec<u8>,
    records: u64,
    end: Option<u64>,
}

impl ExportLines {
    fn take(
        &mut self,
        client: &Client,
        chunk: &[u8],
        out: &mut Output<'_>,
    ) -> Result<(), CliError> {
        for piece in chunk.split_inclusive(|&b| b == b'\n') {
            self.rest.extend_from_slice(piece);
            if !piece.ends_with(b"\n") {
                if self.rest.len() > LINE_BYTES_MAX {
                    return Err(client.bad_answer("a line of it is longer than any record"));
                }
                continue;
            }
            if self.end.is_some() {
                return Err(client.bad_answer("it goes on after its end"));
            }
            assert!(self.rest.ends_with(b"\n"), "only whole lines are printed");
            self.end = end_of_export(&self.rest);
            if self.end.is_none() {
                self.records += 1;
                out.raw(&self.rest)?;
            }
            self.rest.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "listing_tests.rs"]
mod tests;
