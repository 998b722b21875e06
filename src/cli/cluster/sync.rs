//! `sync`: a session with every alive peer, and the result of each.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use reqwest::Method;
use serde::Deserialize;

use super::{Cluster, ask, dash, short_id};
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::note;
use crate::cli::output::{Grid, Output, size};
use crate::cli::words::span;

/// `kvs sync`
#[derive(Debug, Args)]
pub struct Sync;

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
