//! The command line: parses arguments and hands them to the file that implements the command.
//!
//! Each command family has one file. The exit status is part of the contract: 0 done, 1 refused by
//! the server, 2 usage or configuration, 3 cannot reach the server. Results go to standard output,
//! everything else to standard error, so every command works in a pipe. Client commands reach a
//! node only through its HTTP API, never through its store.

use std::future::Future;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod cas;
pub mod check;
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
pub mod superseded;
pub mod txn;
pub mod values;
pub mod verify;

mod envelope;
mod files;
mod hints;
mod kept_versions;
mod media;
mod progress;
mod retry;
mod source;
mod tree;
mod ttl;
mod words;
mod write;

#[cfg(test)]
mod arguments_tests;
#[cfg(test)]
mod canned;
#[cfg(test)]
mod lines_tests;
#[cfg(test)]
mod tree_tests;

use client::{Client, Connection};
use error::CliError;
use output::{Format, Output};

use crate::clock::Clock;
use crate::telemetry::log;

const AFTER_HELP: &str = "\
Examples:
  kvs serve --dev                            one node, temporary data, http://127.0.0.1:8080
  kvs put app/name hello
  kvs get app/name
  kvs cas app/name new --expect-value hello  writes only if the value is still `hello`
  kvs put app/limits @limits.json            stores a file
  kvs scan app                               lists the keys below app/
  kvs history app/name                       lists earlier values; --restore UUID brings one back
  kvs txn changes.json                       changes several keys, all or nothing
  kvs export > all.ndjson; kvs import all.ndjson

One node decides a swap, a conditional write or a transaction, without asking the others. It holds
between clients of that node only: send all clients of a key to one node.

With -o json a failure is one JSON object on standard error, with `code` and `detail`.

Exit status: 0 done, 1 refused by the server, 2 usage or configuration, 3 cannot reach the server.
`kvs COMMAND --help` explains a command.";

/// A masterless key-value store: every node holds all data, serves it locally and merges with the
/// other nodes
#[derive(Debug, Parser)]
#[command(name = "kvs", bin_name = "kvs", version, after_help = AFTER_HELP, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Output format: text for people, json for programs
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value_t,
        help_heading = "Client options"
    )]
    output: Format,
    /// Show tables whole: all columns, whole ids and values, wider than the terminal
    #[arg(long, global = true, help_heading = "Client options")]
    wide: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node until SIGTERM or SIGINT
    Serve(serve::Serve),
    /// Print the value of a key, byte for byte
    ///
    /// With `-o json`, print its envelope: the value with its version, expiry and content type.
    Get(values::Get),
    /// Store a value under a key
    #[command(visible_alias = "set")]
    Put(values::Put),
    /// Delete a key
    #[command(visible_alias = "rm")]
    Del(values::Del),
    /// Compare and swap: write a key only if it is as expected
    Cas(cas::Cas),
    /// List earlier values of a key, print one, or restore one
    History(history::History),
    /// List the writes of a node that lost a merge with another node's, and resolve them
    Superseded(superseded::Superseded),
    /// Compare, write and read several keys in one step, all or nothing
    Txn(txn::Txn),
    /// List the keys below a prefix, in key order
    #[command(visible_alias = "list")]
    Scan(listing::Scan),
    /// Show the state of a node and its cluster
    Status(cluster::Status),
    /// List the members of the cluster as a node sees them
    Members(cluster::Members),
    /// Compare and exchange records with every alive peer now, and show each result
    Sync(cluster::Sync),
    /// Show whether a node takes writes of clients, or set it: normal or `read_only`
    ///
    /// A node keeps its mode over restarts. In `read_only` it answers reads, and receives what the
    /// other members write.
    Mode(cluster::ModeArguments),
    /// Take a node out of its cluster for good, and end it: no write of it is lost
    Leave(cluster::Leave),
    /// Forget a member that is gone for good: dead records wait for it no longer
    Forget(cluster::Forget),
    /// Let this node join a cluster that was founded apart from it, or that has forgotten it
    Join(cluster::Join),
    /// Store a directory tree, or the records that `export` wrote
    Import(import::Import),
    /// Print all live records in key order, one JSON object per line
    Export(listing::Export),
    /// Make and show the certificates that identify the nodes of a cluster
    #[command(subcommand)]
    Cert(identity::Cert),
    /// Make the secret that the nodes of a cluster share
    #[command(subcommand)]
    GossipKey(identity::GossipKey),
    /// Verify the data of a node that does not run: every record, index and digest
    Verify(verify::Verify),
    /// Print the default configuration, check a file and what it names, or show what is in force
    #[command(subcommand)]
    Config(check::ConfigCommand),
}

/// Parses the arguments of this process, runs the command and returns the exit status.
#[must_use]
pub fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(arguments) => run(arguments),
        Err(error) => usage(&hints::with_hint(error)),
    }
}

/// Reports arguments that do not parse; or prints the help that was asked for.
fn usage(error: &clap::Error) -> ExitCode {
    let json = error.use_stderr() && hints::asks_for_json(std::env::args_os());
    if json {
        let text = error.to_string();
        let error = CliError::Usage(text.trim_start_matches("error: ").trim_end().to_owned());
        let _ = writeln!(io::stderr(), "{}", error.json());
    } else {
        // a closed output is no failure
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Runs the command, reports a failure on standard error, and returns the exit status.
#[must_use]
pub fn run(arguments: Arguments) -> ExitCode {
    // not locked, because a node prints its ready line from another thread
    let mut stdout = BufWriter::new(io::stdout());
    let format = arguments.output;
    let mut out = Output::new(&mut stdout, format);
    out.set_screen(output::terminal_width(), arguments.wide);
    let done = dispatch(arguments, &mut out).and_then(|()| out.flush());
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // output from before the failure still reaches the caller
            let flushed = out.flush();
            if !error.is_closed_output() {
                report(&error, format);
            }
            drop(flushed);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Prints a failure on standard error: a line for people, or one of JSON. Several faults of a
/// configuration are a line each.
fn report(error: &CliError, format: Format) {
    match (format, error) {
        (Format::Json, _) => print_line(&error.json()),
        (Format::Text, CliError::Config(_) | CliError::Faults(_)) => {
            error.to_string().lines().for_each(note);
        }
        (Format::Text, _) => note(&error.to_string()),
    }
}

/// Prints one line on standard error.
fn note(text: &str) {
    print_line(&format!("kvs: {}", output::printable(text)));
}

/// Prints a line on standard error; ignores a closed one, where nobody could read the failure. A
/// running node leaves it to its log, so that a pipe that nobody reads cannot hold up its end.
fn print_line(line: &str) {
    if log::print(line) {
        log::flush();
    } else {
        let _ = writeln!(io::stderr(), "{line}");
    }
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
        Command::Superseded(command) => block_on(superseded::superseded(&open()?, command, out)),
        Command::Txn(command) => block_on(txn::txn(&open()?, &command, out)),
        Command::Scan(command) => block_on(listing::scan(&open()?, &command, out)),
        Command::Status(_) => block_on(cluster::status(&open()?, out)),
        Command::Members(_) => block_on(cluster::members(&open()?, out)),
        Command::Sync(_) => block_on(cluster::sync(&open()?, out)),
        Command::Mode(command) => block_on(cluster::mode(&open()?, &command, out)),
        Command::Leave(command) => block_on(cluster::leave(&open()?, &command, out)),
        Command::Forget(command) => block_on(cluster::forget(&open()?, &command, out)),
        Command::Join(command) => block_on(cluster::join(&open()?, &command, out)),
        Command::Import(command) => {
            block_on(import::import(&open()?, &command, &Clock::system(), out))
        }
        Command::Export(command) => block_on(listing::export(&open()?, &command, out)),
        Command::Cert(command) => identity::cert(command, out),
        Command::GossipKey(command) => identity::gossip_key(&command, out),
        Command::Verify(command) => verify::verify(&command, out),
        Command::Config(command) => check::config(&command, out),
    }
}

/// Runs a client command. It does one thing at a time, so one thread is enough.
fn block_on(work: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::Usage(format!("cannot start: {e}")))?;
    runtime.block_on(work)
}
