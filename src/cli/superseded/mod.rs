//! `superseded`: lists the writes of one node that lost a merge; `resolve` shows one and writes
//! what is to be kept.

mod resolve;

use std::ffi::OsString;
use std::io;

use clap::Args;
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::client::{Client, prefix_path, query_value};
use super::envelope::{Envelope, or_dash, preview_chars, short_time};
use super::error::CliError;
use super::lines::present;
use super::note;
use super::output::{Grid, Output};
use super::write::{Life, parse_uuid};
use crate::model::{ContentType, Key, Prefix};
use resolve::{Resolution, show};

/// The most items in one page, by the contract.
const PAGE_ITEMS_MAX: u64 = 1000;
/// How much of a value to show in the table.
const PREVIEW_CHARS_MAX: usize = 40;

const AFTER_HELP: &str = "\
Examples:
  kvs superseded app                                   list them, in the order of the merges
  kvs superseded --resolve app/name                    show both writes, and what to type next
  kvs superseded --resolve app/name --get lost > mine  save the bytes of one
  kvs superseded --resolve app/name --keep lost        write the lost value again
  kvs superseded --resolve app/name --keep @merged     write what you merged by hand

When two nodes write one key without knowing of each other, one write loses as they merge. The node
that acknowledged it reports it, so ask that node, or each in turn. CAUSAL:
  concurrent  the winner did not know the lost write
  unknown     it may have known it: more than 16 nodes wrote the key

--keep writes only if the key still has the version that won; give another one that you have looked
at with --expect-uuid. The node stores the reports of `storage.superseded_bytes_max`; a report stays
when it is resolved.";

/// `kvs superseded`
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Superseded {
    /// Whole path segments: `app` takes in `app/x`, but not `apple/x`; default: all keys
    #[arg(default_value = "", hide_default_value = true, value_parser = Prefix::parse)]
    prefix: Prefix,
    /// List at most N of them; default: all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Show the latest lost write of this key and the one that won; with --keep, write one of them
    #[arg(
        long,
        value_name = "KEY",
        value_parser = Key::parse,
        conflicts_with_all = ["prefix", "limit"]
    )]
    resolve: Option<Key>,
    /// The lost write, if the key has several; default: the latest
    #[arg(long, value_name = "UUID", requires = "resolve", value_parser = parse_uuid)]
    lost: Option<Uuid>,
    /// Print the value of one of both, byte for byte
    #[arg(long, value_name = "WHICH", requires = "resolve", conflicts_with = "keep")]
    get: Option<Side>,
    /// Write this to the key: `lost` or `winner`, `@FILE` for that file's content, `-` for standard
    /// input
    #[arg(long, value_name = "lost|winner|@FILE|-", requires = "resolve", value_parser = keep)]
    keep: Option<Keep>,
    /// Write only if the key has this version; default: the one that won
    #[arg(long, value_name = "UUID", requires = "keep", value_parser = parse_uuid)]
    expect_uuid: Option<Uuid>,
    #[command(flatten)]
    life: Life,
}

/// One of both writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Side {
    Lost,
    Winner,
}

/// What to write.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Keep {
    Side(Side),
    /// As the value of `kvs put`.
    Value(OsString),
}

fn keep(text: &str) -> Result<Keep, String> {
    match text {
        "lost" => Ok(Keep::Side(Side::Lost)),
        "winner" => Ok(Keep::Side(Side::Winner)),
        "-" => Ok(Keep::Value(text.into())),
        _ if text.starts_with('@') => Ok(Keep::Value(text.into())),
        _ => Err("write `lost`, `winner`, `@FILE` for a file's content, or `-`".to_owned()),
    }
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Box<RawValue>>,
    next: String,
    truncated: bool,
}

/// A report.
#[derive(Deserialize)]
struct Item<'a> {
    key: String,
    #[serde(borrow)]
    lost: &'a RawValue,
    /// The write that won, if the node knows it.
    #[serde(borrow)]
    winner: Option<&'a RawValue>,
    causal: String,
    txn: Option<String>,
    at: String,
}

/// The fields of an envelope that writing it again takes.
#[derive(Deserialize)]
struct Shown<'a> {
    uuid: Uuid,
    #[serde(default)]
    deleted: bool,
    content_type: Option<ContentType>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
}

/// Lists the reports, or shows or resolves one.
///
/// # Errors
/// [`CliError::NoReport`] when there is none to resolve; [`CliError::MovedOn`] if the key has
/// another version than expected; else see [`Client::send`] and [`Client::body`].
pub async fn superseded(
    client: &Client,
    args: Superseded,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let Some(key) = &args.resolve else { return list(client, &args, out).await };
    if args.life.ttl.is_some() && args.keep.is_none() {
        return Err(CliError::Usage("--ttl goes with --keep".to_owned()));
    }
    let raw = find(client, key, args.lost).await?;
    let item: Item<'_> = client.parse(raw.get().as_bytes())?;
    match (args.get, args.keep) {
        (Some(side), _) => {
            let (bytes, content_type) = side.value(client, key, &item).await?;
            if out.is_terminal() {
                out.text_value(&bytes, content_type.as_str())
            } else {
                out.raw(&bytes)
            }
        }
        (None, Some(keep)) => {
            let resolution = Resolution { key, expect_uuid: args.expect_uuid, ttl: args.life.ttl };
            resolution.write(client, &item, keep, &mut io::stdin().lock(), out).await
        }
        (None, None) if out.is_json() => out.json(raw.get().as_bytes()),
        (None, None) => show(client, key, &item, out).await,
    }
}

fn envelope<'a>(client: &Client, raw: &'a RawValue) -> Result<Envelope<'a>, CliError> {
    client.parse(raw.get().as_bytes())
}

async fn page(
    client: &Client,
    prefix: &Prefix,
    limit: u64,
    since: Option<&str>,
) -> Result<Page, CliError> {
    let mut path = format!("{}?exact=true&limit={limit}", prefix_path("superseded", prefix));
    if let Some(since) = since {
        path.push_str("&since=");
        path.push_str(&query_value(since));
    }
    let body = client.body(client.send(client.request(Method::GET, &path)).await?).await?;
    let page: Page = client.parse(&body)?;
    if !page.items.is_empty() && since == Some(page.next.as_str()) {
        return Err(client.bad_answer("it returned the same page twice"));
    }
    Ok(page)
}

async fn list(client: &Client, args: &Superseded, out: &mut Output<'_>) -> Result<(), CliError> {
    let mut left = args.limit.unwrap_or(u64::MAX);
    let (mut since, mut empty): (Option<String>, _) = (None, true);
    let mut grid = grid(out.is_wide());
    while left > 0 {
        let page = page(client, &args.prefix, left.min(PAGE_ITEMS_MAX), since.as_deref()).await?;
        if page.truncated {
            out.flush()?;
            note("older reports are gone, to make room (storage.superseded_bytes_max)");
        }
        if page.items.is_empty() {
            break;
        }
        empty = false;
        left = left.saturating_sub(page.items.len() as u64);
        print(client, &page, &mut grid, out)?;
        since = Some(page.next);
    }
    if empty && !out.is_json() {
        note("no write of this node below this prefix has lost a merge");
    }
    Ok(())
}

fn grid(wide: bool) -> Grid {
    let mut header = vec!["KEY", "LOST", "MERGED", "CAUSAL", "SIZE"];
    if wide {
        header.extend(["TXN", "WINNER", "WON BY"]);
    }
    header.push("VALUE");
    Grid::new(header, &[4]).whole(&[1, 2])
}

fn print(
    client: &Client,
    page: &Page,
    grid: &mut Grid,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    if out.is_json() {
        return page.items.iter().try_for_each(|item| out.json(item.get().as_bytes()));
    }
    let wide = out.is_wide();
    let mut rows = Vec::with_capacity(page.items.len());
    for raw in &page.items {
        let item: Item<'_> = client.parse(raw.get().as_bytes())?;
        let lost = envelope(client, item.lost)?;
        let merged = short_time(&item.at, wide);
        let mut row = vec![item.key, lost.uuid.clone(), merged, item.causal, lost.size()];
        if wide {
            let winner = item.winner.map(|winner| envelope(client, winner)).transpose()?;
            let (uuid, origin) = match &winner {
                Some(winner) => (winner.uuid.clone(), winner.origin()),
                None => (or_dash(None), or_dash(None)),
            };
            row.extend([or_dash(item.txn.as_deref()), uuid, origin]);
        }
        row.push(lost.preview(preview_chars(wide, PREVIEW_CHARS_MAX)));
        rows.push(row);
    }
    out.table(grid, &rows)
}

/// The latest report of `key`, or that of the lost write `uuid`.
async fn find(client: &Client, key: &Key, uuid: Option<Uuid>) -> Result<Box<RawValue>, CliError> {
    // no prefix covers the key of its name
    let parent = key.as_str().rsplit_once('/').map_or("", |(parent, _)| parent);
    let prefix = Prefix::parse(parent).unwrap_or_else(|_| Prefix::all());
    let (mut found, mut since): (_, Option<String>) = (None, None);
    loop {
        let page = page(client, &prefix, PAGE_ITEMS_MAX, since.as_deref()).await?;
        if page.items.is_empty() {
            break;
        }
        for raw in page.items {
            let item: Item<'_> = client.parse(raw.get().as_bytes())?;
            let lost: Shown<'_> = client.parse(item.lost.get().as_bytes())?;
            if item.key == key.as_str() && uuid.is_none_or(|uuid| uuid == lost.uuid) {
                found = Some(raw);
            }
        }
        since = Some(page.next);
    }
    found.ok_or_else(|| CliError::NoReport { key: key.to_string(), url: client.url().to_owned() })
}

#[cfg(test)]
mod tests;
