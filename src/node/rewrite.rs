//! Writes anew what this node has set aside, where the operator wants that: `kvs join --own
//! rewrite`.
//!
//! Promises that a line is written at most once, under the uuid that it had, and only over what is
//! older than it: what the cluster has in a newer version stays. The file is kept under another
//! name. The word ends with the process; `kvs import --keep-versions` does the same by hand.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::aside::AsideFile;
use super::parts::{self, RunningPart};
use super::views::Views;
use crate::config::Config;
use crate::http::{self, AsideLine};
use crate::model::condition::{Condition, Expected};
use crate::model::{Key, Member, Version};
use crate::store::{Change, Imported, ReadError, Store, Write, WriteError};

/// How often to look whether there is something to write, once that is wanted.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The pause after a failure.
const AGAIN: Duration = Duration::from_secs(5);
/// How many bytes of lines to write at a time, about.
const PART_BYTES_MAX: usize = 1 << 20;

/// Starts the part that writes anew what this life of the node sets aside, once `wanted` says so.
pub(super) fn start(
    config: &Config,
    store: &Store,
    me: &Member,
    views: &Views,
    wanted: &watch::Sender<bool>,
    parts: &mut Vec<RunningPart>,
) {
    let rewriting = Rewriting {
        store: store.clone(),
        wanted: wanted.clone(),
        syncing: views.syncing.clone(),
        file: AsideFile::new(&config.node.data_dir, me.started_at).into_path(),
        value_bytes_max: config.limits.value_bytes_max,
    };
    parts::start(parts, "writing anew", |stop| rewriting.run(stop));
}

/// What was set aside, and whether to write it anew.
struct Rewriting {
    store: Store,
    /// The operator's word.
    wanted: watch::Sender<bool>,
    /// Whether this node still follows a source.
    syncing: watch::Receiver<bool>,
    /// Where this life of the node sets records aside.
    file: PathBuf,
    /// The largest value, in bytes.
    value_bytes_max: usize,
}

/// Why not all lines were written.
#[derive(Debug, thiserror::Error)]
enum RewriteError {
    #[error(transparent)]
    File(#[from] io::Error),
    #[error("a line cannot be read: {0}")]
    Line(String),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Rewriting {
    /// Waits until this node has joined and has set something aside, and writes it anew. Runs until
    /// `stop`.
    async fn run(self, stop: CancellationToken) {
        let (mut wanted, mut pause) = (self.wanted.subscribe(), LOOK_EVERY);
        loop {
            let due = async {
                // an error means that the sender is gone, and it is in `self`
                let _ = wanted.wait_for(|wanted| *wanted).await;
                tokio::time::sleep(pause).await;
            };
            if stop.run_until_cancelled(due).await.is_none() {
                return;
            }
            pause = LOOK_EVERY;
            if *self.syncing.borrow() || !self.file.exists() {
                continue;
            }
            match stop.run_until_cancelled(self.rewrite()).await {
                None => return,
                Some(Ok(())) => drop(self.wanted.send_replace(false)),
                Some(Err(error)) => {
                    let file = self.file.display();
                    tracing::warn!(%error, "cannot write anew what is in {file}; trying again");
                    pause = AGAIN;
                }
            }
        }
    }

    async fn rewrite(&self) -> Result<(), RewriteError> {
        let mut lines = BufReader::new(File::open(&self.file)?);
        let (mut all, mut deleted) = (Imported::default(), 0_u64);
        loop {
            let part = self.next_part(&mut lines)?;
            if part.is_empty() {
                break;
            }
            let mut records = Vec::new();
            for line in part {
                match line {
                    AsideLine::Live(record) => records.push(*record),
                    AsideLine::Deleted(key, version) => {
                        deleted += u64::from(self.delete(key, version).await?);
                    }
                }
            }
            all.add(self.store.import(records).await?);
        }
        let done = self.file.with_extension("rewritten.ndjson");
        std::fs::rename(&self.file, &done)?;
        tracing::info!(
            written = all.written + all.restamped,
            deleted,
            kept_newer = all.lost,
            expired = all.expired,
            "wrote anew what was set aside; its lines are in {}",
            done.display()
        );
        Ok(())
    }

    /// The next lines, some at a time; none at the end.
    fn next_part(&self, lines: &mut BufReader<File>) -> Result<Vec<AsideLine>, RewriteError> {
        let (mut part, mut bytes) = (Vec::new(), 0);
        while bytes < PART_BYTES_MAX {
            let mut line = Vec::new();
            if lines.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            bytes += line.len();
            let read = http::read_aside_line(&Bytes::from(line), self.value_bytes_max);
            part.push(read.map_err(RewriteError::Line)?);
        }
        Ok(part)
    }

    /// Deletes what the key has, if that is older than the delete that was set aside. Answers
    /// whether it did.
    async fn delete(&self, key: Key, version: Version) -> Result<bool, RewriteError> {
        let read = key.clone();
        let held = self.store.blocking(move |store| store.record_now(&read)).await?;
        let Some(held) = held.filter(|held| held.header.version < version) else {
            return Ok(false);
        };
        let conditions = vec![Condition::Expect(Expected::Uuid(held.header.version.uuid))];
        let write = Write { key, change: Change::Delete, conditions, uuid: None };
        match self.store.write(write).await {
            Ok(_) => Ok(true),
            // it is dead, or was written anew meanwhile
            Err(WriteError::PreconditionFailed { .. } | WriteError::NotFound) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
