//! `forget` and `join`: an operator's words on who belongs to the cluster.

use clap::{Args, ValueEnum};
use reqwest::Method;
use serde::Deserialize;
use uuid::Uuid;

use super::{ask, tell};
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::output::Output;

/// `kvs forget`
#[derive(Debug, Args)]
pub struct Forget {
    /// The id of the member, as `kvs members -o wide` shows it
    id: Uuid,
}

/// `kvs join`
#[derive(Debug, Args)]
pub struct Join {
    /// What becomes of records that only this node holds and that cannot be merged
    #[arg(long, value_enum)]
    own: Own,
}

/// What becomes of what a node alone holds.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Own {
    /// They go to a file in `set-aside` in the data directory, which `kvs import` reads
    #[value(name = "set_aside", alias = "set-aside")]
    SetAside,
    /// They go there, too, and are written anew once the node has joined, where the cluster has
    /// nothing newer
    Rewrite,
}

#[derive(Deserialize)]
struct Forgotten {
    forgotten: String,
}

/// Forgets a member for good.
///
/// # Errors
/// See [`Client::send`] and [`Client::body`].
pub async fn forget(
    client: &Client,
    arguments: &Forget,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let body = ask(client, Method::DELETE, &format!("/cluster/members/{}", arguments.id)).await?;
    let answer: Forgotten = client.parse(&body)?;
    if out.is_json() {
        return out.json(&body);
    }
    out.line(&format!("forgot {}; its id is refused from now on", answer.forgotten))
}

/// Gives the operator's word for a node that stands apart.
///
/// # Errors
/// See [`Client::send`] and [`Client::body`].
pub async fn join(client: &Client, arguments: &Join, out: &mut Output<'_>) -> Result<(), CliError> {
    let own = match arguments.own {
        Own::SetAside => "set_aside",
        Own::Rewrite => "rewrite",
    };
    let own = serde_json::json!({ "own": own });
    let body = tell(client, Method::POST, "/cluster/join", &own).await?;
    if out.is_json() {
        return out.json(&body);
    }
    out.line("this node joins the cluster that it meets; `kvs status` tells how that goes")
}
