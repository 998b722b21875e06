//! The command line: what the binary understands, and which file does it.
//!
//! One file a command family. The exit status is the contract's: 0 done, 1 refused by the server,
//! 2 usage or configuration, 3 cannot reach the server. Results go to standard output and
//! everything else to standard error, so that every command can stand in a pipe. The commands of a
//! client know a node only by its HTTP API, never by its store.

use std::future::Future;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod cas;
pub mod client;
pub mod cluster;
pub mod error;
pub mod history;
pub mod identity;
pub mod import;
pub mod lines;
pub mod listing;
pub mod output;
pub mod serve;
pub mod txn;
pub mod values;

mod envelope;
mod files;
mod progress;
mod tree;
mod write;

#[cfg(test)]
mod canned;

use client::{Client, Connection};
use error::CliError;
use output::{Format, Output};

use crate::clock::Clock;

const AFTER_HELP: &str = "\
Examples:
  kvs serve --dev                            one node, temporary data, http://127.0.0.1:8080
  kvs put app/name hello
  kvs get app/name
  kvs cas app/name new --expect-value hello  swaps only if nobody was faster
  kvs scan app                               what lies below app/
  kvs history app/name                       what it was before; --restore U brings it back
  kvs txn changes.json                       several keys, all or nothing
  kvs export > all.ndjson; kvs import all.ndjson

Exit status: 0 done, 1 refused by the server, 2 usage or configuration, 3 cannot reach the server.
`kvs COMMAND --help` tells more about a command.";

/// A masterless key-value store: every node holds all data, serves it locally and merges with the
/// others.
#[derive(Debug, Parser)]
#[command(name = "kvs", bin_name = "kvs", version, after_help = AFTER_HELP, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Form of what is printed: text for people, json for programs
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        value_name = "FORM",
        default_value_t,
        help_heading = "Client options"
    )]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node until SIGTERM or SIGINT
    Serve(serve::Serve),
    /// Write the value of a key to standard output, byte for byte
    ///
    /// With `-o json`: its envelope, with the version, the expiry and the content type.
    Get(values::Get),
    /// Store a value under a key
    Put(values::Put),
    /// Delete a key
    Del(values::Del),
    /// Compare and swap: write only if the key still is as expected
    Cas(cas::Cas),
    /// Show what a key was before, or bring it back
    History(history::History),
    /// Compare, write and read several keys in one step: all or nothing
    Txn(txn::Txn),
    /// List the keys below a prefix, in key order
    Scan(listing::Scan),
    /// Say how a node and its cluster are
    Status(cluster::Status),
    /// List the members of the cluster as a node knows them
    Members(cluster::Members),
    /// Compare and exchange with every alive peer now, and say what it took
    Sync(cluster::Sync),
    /// Store a directory tree, or the lines that `export` writes
    Import(import::Import),
    /// Write all live records to standard output, one JSON object a line, in key order
    Export(listing::Export),
    /// Make and show the certificates by which the nodes of a cluster know each other
    #[command(subcommand)]
    Cert(identity::Cert),
    /// Make the secret that the nodes of a cluster share
    #[command(subcommand)]
    GossipKey(identity::GossipKey),
    /// Print the default configuration, or check a file
    #[command(subcommand)]
    Config(serve::ConfigCommand),
}

/// Does what the arguments ask for, reports what went wrong in one line on standard error, and
/// gives the exit status.
#[must_use]
pub fn run(arguments: Arguments) -> ExitCode {
    // not locked: a node prints its ready line from any thread
    let mut stdout = BufWriter::new(io::stdout());
    let mut out = Output::new(&mut stdout, arguments.output);
    let done = dispatch(arguments, &mut out).and_then(|()| out.flush());
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // what was printed before the failure still belongs to the caller
            let flushed = out.flush();
            if !error.is_closed_output() {
                note(&error.to_string());
            }
            drop(flushed);
            ExitCode::from(error.exit_code())
        }
    }
}

/// One line on standard error. Nothing can be done when that is closed.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "kvs: {}", output::printable(text));
}

fn dispatch(arguments: Arguments, out: &mut Output<'_>) -> Result<(), CliError> {
    let connection = arguments.connection;
    let open = || Client::open(&connection);
    match arguments.command {
        Command::Serve(command) => serve::serve(command, out),
        Command::Get(command) => block_on(values::get(&open()?, &command, out)),
        Command::Put(command) => block_on(values::put(&open()?, command, out)),
        Command::Del(command) => block_on(values::del(&open()?, &command, out)),
        Command::Cas(command) => block_on(cas::cas(&open()?, command, out)),
        Command::History(command) => block_on(history::history(&open()?, &command, out)),
        Command::Txn(command) => block_on(txn::txn(&open()?, &command, out)),
        Command::Scan(command) => block_on(listing::scan(&open()?, &command, out)),
        Command::Status(_) => block_on(cluster::status(&open()?, out)),
        Command::Members(_) => block_on(cluster::members(&open()?, out)),
        Command::Sync(_) => block_on(cluster::sync(&open()?, out)),
        Command::Import(command) => {
            block_on(import::import(&open()?, &command, &Clock::system(), out))
        }
        Command::Export(command) => block_on(listing::export(&open()?, &command, out)),
        Command::Cert(command) => identity::cert(command, out),
        Command::GossipKey(command) => identity::gossip_key(&command, out),
        Command::Config(command) => serve::config(&command, out),
    }
}

/// A client does one thing at a time: one thread is enough.
fn block_on(work: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::Usage(format!("cannot start: {e}")))?;
    runtime.block_on(work)
}

#[cfg(test)]
#[path = "arguments_tests.rs"]
mod tests;
