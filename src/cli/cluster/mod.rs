//! `status`, `members` and `sync`: a node and its cluster, as that node sees them.
//!
//! Puts the node's report into words and judges nothing itself. Shows fields that the report lacks
//! as unknown, so that it works with newer and older nodes too.

mod forget;
mod leave;
mod mode;
mod sync;
mod troubles;

use std::time::Duration;

use clap::Args;
use reqwest::Method;
use serde::Deserialize;

use super::client::{self, Client};
use super::envelope::{or_dash, short_time};
use super::error::CliError;
use super::output::{Grid, Output, printable, size};
use super::words::span;
use crate::model::Timestamp;
pub use forget::{Forget, Join, forget, join};
pub use leave::{Leave, leave};
pub use mode::{ModeArguments, mode};
pub use sync::{Sync, sync};

/// How many digits of a fingerprint to show: enough to distinguish two.
const FINGERPRINT_CHARS_MAX: usize = 12;

/// How many digits of a node's id to show: the last ones, as the first ones are its time.
const ID_CHARS_MAX: usize = 8;

/// Shows how old a report is from this age on. Members report every few seconds.
const REPORT_AGED: Duration = Duration::from_secs(15);

/// `kvs status`
#[derive(Debug, Args)]
pub struct Status;

/// `kvs members`
#[derive(Debug, Args)]
pub struct Members;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cluster {
    #[serde(rename = "cluster_id")]
    id: Option<String>,
    node: Node,
    members: Vec<Member>,
    fingerprint: Option<String>,
    keys: Option<u64>,
    tombstones: Option<u64>,
    converged: Option<bool>,
    in_sync_through: Option<u64>,
    floor: Option<u64>,
    floor_waits_for: Vec<WaitedFor>,
    apart: Vec<Apart>,
}

/// A member that holds the floor back.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WaitedFor {
    id: String,
    since: String,
}

/// A member whose cluster was founded apart.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Apart {
    id: String,
    name: String,
    keys: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Node {
    id: Option<String>,
    name: Option<String>,
    syncing: bool,
    waits_for: String,
    clock_skewed: Option<String>,
    seeds: Vec<Seed>,
    certificates: Vec<Certificate>,
    mode: Option<String>,
    storage: Storage,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Storage {
    writable: Option<bool>,
    free_bytes: Option<u64>,
    used_bytes: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Seed {
    seed: String,
    error: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Certificate {
    door: String,
    expires_at: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Member {
    id: String,
    name: Option<String>,
    state: Option<String>,
    gossip: Option<String>,
    peer: Option<String>,
    http: Option<String>,
    fingerprint: Option<String>,
    fingerprint_at: Option<String>,
    last_sync_at: Option<String>,
    clock_skew_ms: Option<i64>,
    replication_lag_ms: Option<u64>,
    held_records: u64,
    error: Option<String>,
}

impl Member {
    fn label(&self) -> String {
        self.name.as_deref().map_or_else(|| short_id(&self.id), printable)
    }

    fn is_alive(&self) -> bool {
        self.state.as_deref() == Some("alive")
    }
}

/// The end of a node's id, for people.
fn short_id(id: &str) -> String {
    let start = id.char_indices().nth_back(ID_CHARS_MAX - 1).map_or(0, |(start, _)| start);
    if start == 0 {
        printable(id)
    } else {
        format!("..{}", printable(id.get(start..).unwrap_or_default()))
    }
}

async fn ask(client: &Client, method: Method, path: &str) -> Result<Vec<u8>, CliError> {
    let request = client.request(method, path);
    client.body(client.send_within(request, client::WORK_MAX).await?).await
}

/// Sends a JSON body and gives the answer's.
async fn tell(
    client: &Client,
    method: Method,
    path: &str,
    body: &serde_json::Value,
) -> Result<Vec<u8>, CliError> {
    let request = client.request(method, path).body(body.to_string());
    client.body(client.send(request).await?).await
}

/// Prints the state of the node and its cluster. Succeeds even if the cluster has not converged.
///
/// # Errors
/// See [`Client::send`] and [`Client::body`].
pub async fn status(client: &Client, out: &mut Output<'_>) -> Result<(), CliError> {
    let body = client.body(client.send(client.request(Method::GET, "/cluster")).await?).await?;
    let cluster: Cluster = client.parse(&body)?;
    client.parse::<MembersOnly<'_>>(&body)?;
    if out.is_json() {
        return out.json(&body);
    }
    for (name, words) in status_lines(&cluster) {
        out.line(&format!("{name:<16} {}", printable(&words)))?;
    }
    Ok(())
}

fn status_lines(cluster: &Cluster) -> Vec<(&'static str, String)> {
    let unknown = || "unknown".to_owned();
    let id = cluster.node.id.clone().unwrap_or_else(unknown);
    let own = cluster.members.iter().find(|m| m.id == id);
    let name = cluster.node.name.clone().or_else(|| own.and_then(|m| m.name.clone()));
    let number = |n: Option<u64>| n.map_or_else(unknown, |n| n.to_string());
    let mut lines = vec![
        ("node", format!("{}  {id}", name.unwrap_or_default()).trim_start().to_owned()),
        ("cluster", cluster.id.clone().unwrap_or_else(|| "none".to_owned())),
        ("members", member_counts(&cluster.members)),
        ("keys", number(cluster.keys)),
        ("tombstones", number(cluster.tombstones)),
        ("fingerprint", cluster.fingerprint.as_deref().map_or_else(unknown, short)),
        ("converged", convergence(cluster, &id)),
    ];
    lines.extend(own_state(&cluster.node));
    lines.extend(troubles::troubles(cluster, &id));
    if let Some(micros) = cluster.in_sync_through {
        lines.push(("in sync through", Timestamp::saturating(micros).rfc3339()));
    }
    lines.extend(troubles::floor(cluster));
    lines
}

/// The node's mode, and its disk.
fn own_state(node: &Node) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(mode) = &node.mode {
        lines.push(("mode", mode.clone()));
    }
    let Storage { writable, free_bytes, used_bytes } = node.storage;
    let sizes = [(used_bytes, "used"), (free_bytes, "free")];
    let sizes =
        sizes.iter().filter_map(|(bytes, what)| Some(format!("{} {what}", size((*bytes)?))));
    let full = (writable == Some(false)).then(|| "takes no writes".to_owned());
    let words: Vec<_> = sizes.chain(full).collect();
    if !words.is_empty() {
        lines.push(("storage", words.join(", ")));
    }
    lines
}

/// The node's own clock, which stands beside its own fingerprint.
fn reported_at(members: &[Member], id: &str) -> Option<Timestamp> {
    let own = members.iter().find(|member| member.id == id)?;
    Timestamp::from_rfc3339(own.fingerprint_at.as_deref()?)
}

/// How long ago a member reported, by the node's clock, where that is worth telling.
fn report_age(cluster: &Cluster, member: &Member) -> Option<Duration> {
    let now = reported_at(&cluster.members, cluster.node.id.as_deref()?)?;
    let age = now.since(Timestamp::from_rfc3339(member.fingerprint_at.as_deref()?)?);
    (age >= REPORT_AGED).then_some(age)
}

fn short(fingerprint: &str) -> String {
    fingerprint.chars().take(FINGERPRINT_CHARS_MAX).collect()
}

/// `3: 2 alive, 1 down`, the healthiest state first.
fn member_counts(members: &[Member]) -> String {
    let known = ["alive", "suspect", "down", "left"];
    let count = |state: &str| members.iter().filter(|m| m.state.as_deref() == Some(state)).count();
    let mut counts: Vec<_> = known
        .iter()
        .map(|&state| (count(state), state))
        .filter(|&(n, _)| n > 0)
        .map(|(n, state)| format!("{n} {state}"))
        .collect();
    let others = members.len() - known.iter().map(|&state| count(state)).sum::<usize>();
    if others > 0 {
        counts.push(format!("{others} unknown"));
    }
    format!("{}: {}", members.len(), counts.join(", "))
}

fn convergence(cluster: &Cluster, own: &str) -> String {
    let alive = || cluster.members.iter().filter(|m| m.id != own && m.is_alive());
    match cluster.converged {
        None => {
            let silent: Vec<_> = alive()
                .filter_map(|m| match (&m.fingerprint, report_age(cluster, m)) {
                    (None, _) => Some(format!("{} has not reported yet", m.label())),
                    (_, Some(age)) => Some(format!("{} reported {} ago", m.label(), span(age))),
                    _ => None,
                })
                .collect();
            ["unknown".to_owned()].into_iter().chain(silent).collect::<Vec<_>>().join(", ")
        }
        Some(true) if alive().next().is_none() => "yes, with no other alive member".to_owned(),
        Some(true) => "yes, every alive member reports the same fingerprint".to_owned(),
        Some(false) => {
            let reasons: Vec<_> = alive()
                .filter_map(|m| match &m.fingerprint {
                    None => Some(format!("{} has not reported yet", m.label())),
                    reported if *reported == cluster.fingerprint => None,
                    Some(_) if m.held_records > 0 => {
                        Some(format!("{} differs by held records", m.label()))
                    }
                    Some(_) => Some(format!("{} differs", m.label())),
                })
                .collect();
            if reasons.is_empty() { "no".to_owned() } else { format!("no: {}", reasons.join(", ")) }
        }
    }
}

/// Prints the members as the node sees them.
///
/// # Errors
/// See [`Client::send`] and [`Client::body`].
pub async fn members(client: &Client, out: &mut Output<'_>) -> Result<(), CliError> {
    let body = client.body(client.send(client.request(Method::GET, "/cluster")).await?).await?;
    let cluster: Cluster = client.parse(&body)?;
    if out.is_json() {
        return out.json(client.parse::<MembersOnly<'_>>(&body)?.members.get().as_bytes());
    }
    let wide = out.is_wide();
    let header = if wide {
        vec![
            "NAME",
            "ID",
            "STATE",
            "HTTP",
            "GOSSIP",
            "PEER",
            "FINGERPRINT",
            "LAST SYNC",
            "LAG",
            "CLOCK SKEW",
        ]
    } else {
        vec!["NAME", "STATE", "HTTP", "DATA", "LAST SYNC", "LAG", "SKEW"]
    };
    let row = |member| if wide { wide_row(&cluster, member) } else { short_row(&cluster, member) };
    let rows: Vec<_> = cluster.members.iter().map(row).collect();
    out.table(&mut Grid::new(header, if wide { &[8, 9] } else { &[5, 6] }), &rows)
}

/// The members, unparsed, for `-o json`.
#[derive(Deserialize)]
struct MembersOnly<'a> {
    #[serde(borrow)]
    members: &'a serde_json::value::RawValue,
}

fn dash(text: Option<&String>) -> String {
    or_dash(text.map(String::as_str))
}

fn skew(member: &Member) -> String {
    member.clock_skew_ms.map_or_else(|| or_dash(None), |ms| format!("{ms} ms"))
}

fn lag(member: &Member) -> String {
    member.replication_lag_ms.map_or_else(|| or_dash(None), |ms| format!("{ms} ms"))
}

/// How a member's data compares to this node's; `wide` shows another fingerprint, too.
fn data(cluster: &Cluster, member: &Member, wide: bool) -> String {
    if cluster.node.id.as_deref() == Some(member.id.as_str()) {
        return "(this node)".to_owned();
    }
    let compared = match &member.fingerprint {
        None => return "unknown".to_owned(),
        reported if *reported == cluster.fingerprint => "equal".to_owned(),
        Some(other) if wide => format!("differs: {}", short(other)),
        Some(_) => "differs".to_owned(),
    };
    // what a member reported long ago is no statement about now
    match report_age(cluster, member) {
        Some(age) => format!("{compared}, {} ago", span(age)),
        None => compared,
    }
}

/// The state of a member by gossip, and whether sessions with it fail.
fn state(member: &Member) -> String {
    let state = dash(member.state.as_ref());
    if member.error.is_some() { format!("{state}, no sync") } else { state }
}

fn short_row(cluster: &Cluster, member: &Member) -> Vec<String> {
    let synced = member.last_sync_at.as_deref().unwrap_or("-");
    vec![
        member.label(),
        state(member),
        dash(member.http.as_ref()),
        data(cluster, member, false),
        short_time(synced, false),
        lag(member),
        skew(member),
    ]
}

fn wide_row(cluster: &Cluster, member: &Member) -> Vec<String> {
    vec![
        dash(member.name.as_ref()),
        member.id.clone(),
        state(member),
        dash(member.http.as_ref()),
        dash(member.gossip.as_ref()),
        dash(member.peer.as_ref()),
        data(cluster, member, true),
        dash(member.last_sync_at.as_ref()),
        lag(member),
        skew(member),
    ]
}

#[cfg(test)]
mod tests;
