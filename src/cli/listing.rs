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
use super::envelope::Envelope;
use super::error::CliError;
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
    let mut listing = Listing::new(args, false);
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
    grid: Grid,
}

impl<'a> Listing<'a> {
    fn new(args: &'a Scan, expiring: bool) -> Self {
        let mut header = vec!["KEY", "SIZE", "TYPE", "TIME", "ORIGIN"];
        if expiring {
            header.push("EXPIRES");
        }
        if args.values {
            header.push("VALUE");
        }
        Self { args, expiring, grid: Grid::new(header, &[1]) }
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
            *self = Self::new(self.args, true);
        }
        let rows = items.iter().map(|item| row(item, self.args, self.expiring)).collect();
        out.line(&self.grid.page(rows))
    }
}

fn row(item: &Envelope<'_>, args: &Scan, expiring: bool) -> Vec<String> {
    let mut row =
        vec![item.key.clone(), item.size(), item.content_type(), item.time(), item.origin()];
    if expiring {
        row.push(item.expires());
    }
    if args.values {
        row.push(item.preview(PREVIEW_CHARS_MAX));
    }
    row
}

/// Prints every live record below a prefix, one envelope per line.
///
/// # Errors
/// [`CliError::Cut`] if the answer broke off: the output is incomplete.
pub async fn export(client: &Client, args: &Export, out: &mut Output<'_>) -> Result<(), CliError> {
    let path = format!("{}?values=true&exact=true", prefix_path("scan", &args.prefix));
    let request = client.request(Method::GET, &path).header(ACCEPT, "application/x-ndjson");
    let mut response = client.send(request).await?;
    let is_ndjson = |value: &reqwest::header::HeaderValue| {
        value.as_bytes().starts_with(b"application/x-ndjson")
    };
    if !response.headers().get(CONTENT_TYPE).is_some_and(is_ndjson) {
        return Err(client.bad_answer("it did not answer with one record per line"));
    }
    let counter = Counter::unless_printing("exported");
    let (mut records, mut last) = (0_u64, b'\n');
    let so_far = |records| format!("{}, so the export is incomplete", count(records, "record"));
    while let Some(chunk) = client.chunk(&mut response, || so_far(records)).await? {
        // `split` gives one piece more than there are line ends
        records += chunk.split(|&b| b == b'\n').count() as u64 - 1;
        last = chunk.last().copied().unwrap_or(last);
        out.raw(&chunk)?;
        counter.set(records);
    }
    if last != b'\n' {
        return Err(CliError::Cut {
            url: client.url().to_owned(),
            so_far: so_far(records),
            reason: "its last line has no end".to_owned(),
        });
    }
    counter.end();
    out.flush()
}

#[cfg(test)]
#[path = "listing_tests.rs"]
mod tests;
