//! `verify`: verifies the data directory of a node that does not run.
//!
//! The store finds what disagrees; this file opens the directory and shows it. An offline command:
//! it reaches the data without a node, and changes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::error::CliError;
use super::output::{Output, printable};
use super::progress::Counter;
use super::words::count;
use crate::proto::secret::Secret;
use crate::store::rocks::{Rocks, RocksSettings};
use crate::store::verify::{ClusterKeys, Disagreement, Verified, VerifyNews, verify as verify_all};

/// Where a node keeps its database, below its data directory.
const DATABASE_DIR: &str = "db";
/// The memory for blocks that are read more than once.
const CACHE_BYTES: usize = 64 << 20;
/// How many data files are open at once.
const DATA_FILES_MAX: u32 = 256;

const AFTER_HELP: &str = "\
Examples:
  kvs verify --data-dir /var/lib/kvs
  kvs verify --data-dir /var/lib/kvs --key-file cluster.key   with the fingerprint, to compare with
                                                              that of `kvs status` on other nodes

Stop the node first, or verify a copy of the directory. Nothing is changed. A line for each thing
that disagrees names the part of the data, the key, what disagrees, and what to do.

Exit status: 0 if everything agrees, 1 if something disagrees, 2 if the directory cannot be read.";

/// `kvs verify`
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Verify {
    /// The directory that `node.data_dir` names
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The cluster's secret (`gossip.key_file`), for the fingerprint of a cluster's data
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// Verifies a data directory.
///
/// # Errors
/// [`CliError::Usage`] if it cannot be read; [`CliError::Disagrees`] if something disagrees.
pub fn verify(command: &Verify, out: &mut Output<'_>) -> Result<(), CliError> {
    let keys = match &command.key_file {
        Some(file) => Some(cluster_keys(file)?),
        None => None,
    };
    let engine = open(&command.data_dir)?;
    let counter = Counter::of("verified", "entries");
    let mut printed = Ok(());
    let verified = verify_all(&engine, keys.as_ref(), &mut |news| match news {
        VerifyNews::Progress(entries) => counter.set(entries),
        VerifyNews::Found(found) if printed.is_ok() => {
            printed = counter.suspended(|| show(&found, out));
        }
        VerifyNews::Found(_) => {}
    });
    counter.end();
    printed?;
    let verified = verified.map_err(|error| CliError::Usage(error.to_string()))?;
    sum_up(&verified, out)?;
    match verified.found {
        0 => Ok(()),
        found => Err(CliError::Disagrees { found }),
    }
}

fn cluster_keys(file: &Path) -> Result<ClusterKeys, CliError> {
    let text = fs::read_to_string(file).map_err(|error| CliError::File {
        verb: "read",
        path: file.to_owned(),
        error,
    })?;
    let secret = Secret::parse(&text)
        .map_err(|error| CliError::Usage(format!("{}: {error}", file.display())))?;
    Ok(ClusterKeys { cluster: secret.cluster_id(), digest_key: secret.digest_key() })
}

fn open(dir: &Path) -> Result<Rocks, CliError> {
    let database = dir.join(DATABASE_DIR);
    let fail = |problem: String| CliError::Usage(format!("cannot verify: {problem}"));
    if !database.is_dir() {
        return Err(fail(format!(
            "{} is not the data directory of a node; name the one that node.data_dir names",
            dir.display()
        )));
    }
    let (cache_bytes, data_files_max) = (CACHE_BYTES, DATA_FILES_MAX);
    let settings = RocksSettings { cache_bytes, data_files_max, sync: true };
    Rocks::open_unchanged(&database, settings).map_err(|error| fail(error.to_string()))
}

#[derive(Serialize)]
struct FoundAsJson<'a> {
    part: &'a str,
    key: &'a str,
    problem: &'a str,
    advice: &'a str,
}

/// Prints one thing that disagrees.
fn show(found: &Disagreement, out: &mut Output<'_>) -> Result<(), CliError> {
    let Disagreement { family, key, problem, advice } = found;
    let part = family.name();
    if out.is_json() {
        let line = serde_json::to_string(&FoundAsJson { part, key, problem, advice });
        return out.line(&line.unwrap_or_default());
    }
    let name = if key.is_empty() { String::new() } else { format!(" {key}") };
    out.line(&printable(&format!("{part}{name}: {problem}; {advice}")))
}

#[derive(Serialize)]
struct SumAsJson {
    keys: u64,
    tombstones: u64,
    revisions: u64,
    large_values: u64,
    expiring: u64,
    requests: u64,
    changes: u64,
    superseded: u64,
    fingerprint: Option<String>,
    disagreements: u64,
}

/// Prints what was verified.
fn sum_up(verified: &Verified, out: &mut Output<'_>) -> Result<(), CliError> {
    let Verified { counts, revisions, values, expiring, requests, changes, reports, .. } =
        *verified;
    let fingerprint = verified.fingerprint.map(|print| blake3::Hash::from_bytes(print).to_hex());
    if out.is_json() {
        let sum = SumAsJson {
            keys: counts.keys,
            tombstones: counts.tombstones,
            revisions,
            large_values: values,
            expiring,
            requests,
            changes,
            superseded: reports,
            fingerprint: fingerprint.map(|print| print.to_string()),
            disagreements: verified.found,
        };
        return out.line(&serde_json::to_string(&sum).unwrap_or_default());
    }
    let parts = [
        count(counts.keys, "live record"),
        count(counts.tombstones, "dead record"),
        count(revisions, "revision"),
        count(values, "large value"),
        count(expiring, "expiring value"),
        count(requests, "remembered request"),
        count(changes, "change"),
        count(reports, "superseded write"),
    ];
    out.line(&format!("verified {}", parts.join(", ")))?;
    let print = fingerprint.map_or_else(
        || "unknown; name the cluster's secret with --key-file".to_owned(),
        |print| print.to_string(),
    );
    out.line(&format!("fingerprint {print}"))?;
    if verified.found == 0 { out.line("everything agrees") } else { Ok(()) }
}
