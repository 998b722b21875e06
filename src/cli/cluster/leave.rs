//! `leave`: takes a node out of its cluster.

use clap::Args;
use reqwest::Method;
use serde::Deserialize;

use super::tell;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::output::Output;

/// `kvs leave`
#[derive(Debug, Args)]
pub struct Leave {
    /// Leave although no other member holds all writes of this node; they stay in its directory
    #[arg(long)]
    force: bool,
}

#[derive(Deserialize)]
struct Left {
    superseded: u64,
}

/// Lets the node leave its cluster, and end.
///
/// # Errors
/// See [`Client::send`] and [`Client::body`].
pub async fn leave(
    client: &Client,
    arguments: &Leave,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let force = serde_json::json!({ "force": arguments.force });
    let body = tell(client, Method::POST, "/cluster/leave", &force).await?;
    let answer: Left = client.parse(&body)?;
    if out.is_json() {
        return out.json(&body);
    }
    out.line("left the cluster; the node ends, and its directory would begin anew")?;
    match answer.superseded {
        0 => Ok(()),
        count => out.line(&format!("{count} reports of superseded writes go with it")),
    }
}
