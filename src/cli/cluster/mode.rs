//! `mode`: shows or sets whether a node takes writes of clients.

use clap::{Args, ValueEnum};
use reqwest::Method;
use serde::Deserialize;

use super::{ask, tell};
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::output::Output;

/// `kvs mode`
#[derive(Debug, Args)]
pub struct ModeArguments {
    /// The mode to set; without one, the mode is shown
    #[arg(value_enum)]
    mode: Option<ModeWord>,
}

/// A mode, as it is typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeWord {
    /// The node takes writes of clients
    Normal,
    /// The node refuses writes of clients; merges and expiry go on
    #[value(name = "read_only", alias = "read-only")]
    ReadOnly,
}

#[derive(Deserialize)]
struct ModeShown {
    mode: String,
}

/// Shows the mode of the node, or sets it; prints the mode that it has then.
///
/// # Errors
/// See [`Client::send`] and [`Client::body`].
pub async fn mode(
    client: &Client,
    arguments: &ModeArguments,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    const PATH: &str = "/cluster/mode";
    let body = match arguments.mode {
        None => ask(client, Method::GET, PATH).await?,
        Some(mode) => {
            let word = match mode {
                ModeWord::Normal => "normal",
                ModeWord::ReadOnly => "read_only",
            };
            tell(client, Method::PUT, PATH, &serde_json::json!({ "mode": word })).await?
        }
    };
    let shown: ModeShown = client.parse(&body)?;
    if out.is_json() { out.json(&body) } else { out.line(&shown.mode) }
}
