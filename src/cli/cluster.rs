//! `status`, `members` and `sync`: a node and its cluster, as that node sees them.
//!
//! Puts the node's report into words and judges nothing itself. Shows fields that the report lacks
//! as unknown, so that it works with newer and older nodes too.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use reqwest::Method;
use serde::Deserialize;

use super::client::{self, Client};
use super::envelope::{or_dash, short_time};
use super::error::CliError;
use super::note;
use super::output::{Grid, Output, printable, size};
use super::words::span;
use crate::model::Timestamp;

/// How many digits of a fingerprint to show: enough to distinguish two.
const FINGERPRINT_CHARS_MAX: usize = 12;

/// How many digits of a node's id to show: the last ones, as the first ones are its time.
const ID_CHARS_MAX: usize = 8;

/// `kvs status`
#[derive(Debug, Args)]
pub struct Status;

/// `kvs members`
#[derive(Debug, Args)]
pub struct Members;

/// `kvs sync`
#[derive(Debug, Args)]
pub struct Sync;

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
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Node {
    id: Option<String>,
    name: Option<String>,
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
    last_sync_at: Option<String>,
    clock_skew_ms: Option<i64>,
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
    if let Some(micros) = cluster.in_sync_through {
        lines.push(("in sync through", Timestamp::saturating(micros).rfc3339()));
    }
    lines
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
        None => "unknown".to_owned(),
        Some(true) if alive().next().is_none() => "yes, with no other alive member".to_owned(),
        Some(true) => "yes, every alive member reports the same fingerprint".to_owned(),
        Some(false) => {
            let reasons: Vec<_> = alive()
                .filter_map(|m| match &m.fingerprint {
                    None => Some(format!("{} has not reported yet", m.label())),
                    reported if *reported == cluster.fingerprint => None,
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
            "CLOCK SKEW",
        ]
    } else {
        vec!["NAME", "STATE", "HTTP", "DATA", "LAST SYNC", "SKEW"]
    };
    let row = |member| if wide { wide_row(&cluster, member) } else { short_row(&cluster, member) };
    let rows: Vec<_> = cluster.members.iter().map(row).collect();
    out.table(&mut Grid::new(header, if wide { &[8] } else { &[5] }), &rows)
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

fn short_row(cluster: &Cluster, member: &Member) -> Vec<String> {
    let this = cluster.node.id.as_deref() == Some(member.id.as_str());
    let data = match &member.fingerprint {
        _ if this => "(this node)",
        None => "unknown",
        reported if *reported == cluster.fingerprint => "equal",
        Some(_) => "differs",
    };
    let synced = member.last_sync_at.as_deref().unwrap_or("-");
    vec![
        member.label(),
        dash(member.state.as_ref()),
        dash(member.http.as_ref()),
        data.to_owned(),
        short_time(synced, false),
        skew(member),
    ]
}

fn wide_row(cluster: &Cluster, member: &Member) -> Vec<String> {
    let this = cluster.node.id.as_deref() == Some(member.id.as_str());
    let fingerprint = match &member.fingerprint {
        _ if this => "(this node)".to_owned(),
        None => "unknown".to_owned(),
        reported if *reported == cluster.fingerprint => "equal".to_owned(),
        Some(other) => format!("differs: {}", short(other)),
    };
    vec![
        dash(member.name.as_ref()),
        member.id.clone(),
        dash(member.state.as_ref()),
        dash(member.http.as_ref()),
        dash(member.gossip.as_ref()),
        dash(member.peer.as_ref()),
        fingerprint,
        dash(member.last_sync_at.as_ref()),
        skew(member),
    ]
}

#[derive(Deserialize)]
struct SyncAnswer {
    peers: Vec<Session>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Session {
    id: String,
    rounds: u64,
    bytes_sent: u64,
    bytes_received: u64,
    records_sent: u64,
    records_received: u64,
    duration_ms: u64,
    error: Option<String>,
}

/// Makes the node hold a session with every alive peer, and prints the result of each.
///
/// # Errors
/// [`CliError::Sessions`] if some failed; the others have finished.
pub async fn sync(client: &Client, out: &mut Output<'_>) -> Result<(), CliError> {
    let body = ask(client, Method::POST, "/cluster/sync").await?;
    let answer: SyncAnswer = client.parse(&body)?;
    if out.is_json() {
        out.json(&body)?;
    } else if answer.peers.is_empty() {
        note("this node has no alive peer to sync with");
    } else {
        let names = names(client).await;
        let wide = out.is_wide();
        let header = if wide {
            vec![
                "PEER",
                "ID",
                "ROUNDS",
                "SENT",
                "RECEIVED",
                "RECORDS SENT",
                "RECORDS RECEIVED",
                "TIME",
                "RESULT",
            ]
        } else {
            vec!["PEER", "RECORDS SENT", "RECORDS RECEIVED", "TIME", "RESULT"]
        };
        let numbers: &[usize] = if wide { &[2, 3, 4, 5, 6, 7] } else { &[1, 2, 3] };
        let row = |session| session_row(session, &names, wide);
        let rows: Vec<_> = answer.peers.iter().map(row).collect();
        // an error is not cut
        let last = header.len() - 1;
        out.table(&mut Grid::new(header, numbers).whole(&[last]), &rows)?;
    }
    let failed = answer.peers.iter().filter(|peer| peer.error.is_some()).count();
    if failed > 0 {
        return Err(CliError::Sessions { failed, all: answer.peers.len() });
    }
    Ok(())
}

/// The names of the members, by id; none if the node does not tell.
async fn names(client: &Client) -> BTreeMap<String, String> {
    let answer = client.send(client.request(Method::GET, "/cluster")).await;
    let Ok(response) = answer else { return BTreeMap::new() };
    let body = client.body(response).await.unwrap_or_default();
    let cluster: Cluster = serde_json::from_slice(&body).unwrap_or_default();
    let named = cluster.members.into_iter().filter_map(|m| Some((m.id, m.name?)));
    named.collect()
}

fn session_row(session: &Session, names: &BTreeMap<String, String>, wide: bool) -> Vec<String> {
    let name = names.get(&session.id);
    let result = session.error.clone().unwrap_or_else(|| "done".to_owned());
    let time = span(Duration::from_millis(session.duration_ms));
    let (sent, received) = (size(session.bytes_sent), size(session.bytes_received));
    if wide {
        return vec![
            dash(name),
            session.id.clone(),
            session.rounds.to_string(),
            sent,
            received,
            session.records_sent.to_string(),
            session.records_received.to_string(),
            time,
            result,
        ];
    }
    vec![
        name.cloned().unwrap_or_else(|| short_id(&session.id)),
        format!("{} ({sent})", session.records_sent),
        format!("{} ({received})", session.records_received),
        time,
        result,
    ]
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
