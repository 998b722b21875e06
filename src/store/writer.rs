//! The one writer.
//!
//! Jobs of all connections and peers are gathered into groups; a group is one transaction and one
//! sync, so durability costs one sync a group, and writes of one key are decided in order instead
//! of by a storm of retries. Answers, the digest and the feed follow the commit: nothing is
//! readable, nor told to anybody, before it is durable.

use std::sync::{Arc, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::decide::Verdicts;
use super::expiry::Swept;
use super::group::{CommitError, Done, Effect, Group, Rules};
use super::requests::RequestId;
use super::{Applied, ReadError, Settings, Shared, Txn, TxnDone, Write, WriteError, Written};
use crate::model::{Key, Record};
use crate::proto::digest::Delta;
use crate::telemetry::Metrics;

/// A group takes no further job once it has read and written this many bytes (or one larger job).
const GROUP_BYTES_MAX: usize = 1 << 20;
/// Nor more than this many jobs.
const GROUP_JOBS_MAX: usize = 1024;

type Answer<T> = oneshot::Sender<Result<T, WriteError>>;

/// What the writer is asked to do.
#[derive(Debug)]
pub enum Job {
    /// A client's write.
    Write {
        /// What to write, and on which conditions.
        write: Write,
        /// Its name, if it has one.
        name: Option<RequestId>,
        /// What comparing contents gave.
        verdicts: Verdicts,
        /// Where the outcome goes; `None`: the verdicts do not hold any more.
        answer: Answer<Option<Written>>,
    },
    /// A client's transaction.
    Txn {
        /// What to do, and on which conditions.
        txn: Arc<Txn>,
        /// Its name, if it has one.
        name: Option<RequestId>,
        /// What comparing contents gave.
        verdicts: Verdicts,
        /// Where the outcome goes; `None`: the verdicts do not hold any more.
        answer: Answer<Option<TxnDone>>,
    },
    /// Frees what is due.
    Sweep {
        /// Where the outcome goes.
        answer: Answer<Swept>,
    },
    /// Keeps the time by which values are judged.
    KeepTime {
        /// Where the outcome goes.
        answer: Answer<()>,
    },
    /// Records from a peer.
    Apply {
        /// The records.
        records: Vec<(Key, Record)>,
        /// Where the outcome goes.
        answer: Answer<Applied>,
    },
    /// An entry of the meta family.
    Meta {
        /// Its name.
        key: &'static str,
        /// Its bytes.
        value: Vec<u8>,
        /// Where the outcome goes.
        answer: Answer<()>,
    },
}

impl Job {
    /// Answers it without having done anything.
    pub(super) fn refuse(self, why: WriteError) {
        // a receiver that is gone belongs to a client that left
        let _ = match self {
            Self::Write { answer, .. } => answer.send(Err(why)).map_err(drop),
            Self::Txn { answer, .. } => answer.send(Err(why)).map_err(drop),
            Self::Sweep { answer } => answer.send(Err(why)).map_err(drop),
            Self::Apply { answer, .. } => answer.send(Err(why)).map_err(drop),
            Self::KeepTime { answer } | Self::Meta { answer, .. } => {
                answer.send(Err(why)).map_err(drop)
            }
        };
    }
}

/// A decision that waits for the commit.
enum Decided {
    Write(Answer<Option<Written>>, Result<Option<Written>, WriteError>),
    Txn(Answer<Option<TxnDone>>, Result<Option<TxnDone>, WriteError>),
    Sweep(Answer<Swept>, Result<Swept, WriteError>),
    Apply(Answer<Applied>, Result<Applied, WriteError>),
    Meta(Answer<()>, Result<(), WriteError>),
}

/// A group after its commit, which may have failed.
struct Committed {
    decided: Vec<Decided>,
    outcome: Result<Done, CommitError>,
}

impl Committed {
    /// Of a group that was not even begun.
    fn refused(job: Job, why: ReadError) -> Self {
        job.refuse(WriteError::Failed(why.clone()));
        Self { decided: Vec::new(), outcome: Err(CommitError::Unknown(why)) }
    }
}

/// Where the work on a group may be held up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Its first job is here; nothing is decided yet.
    BeforeCommit,
    /// It is durable, or failed to be; neither the digest nor anybody who waits knows of it.
    AfterCommit,
    /// Everybody knows.
    Published,
}

/// Owns every change of the data.
pub struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: mpsc::Receiver<Job>,
    metrics: Arc<Metrics>,
    rules: Rules,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        queue: mpsc::Receiver<Job>,
        metrics: Arc<Metrics>,
        settings: &Settings,
    ) -> Self {
        let rules = Rules {
            blob_threshold_bytes: settings.blob_threshold_bytes,
            clock_drift_max: settings.clock_drift_max,
            history_depth: u64::from(settings.history_depth),
            idempotency_bytes_max: settings.idempotency_bytes_max,
            compared_bytes_max: settings.compared_bytes_max,
        };
        let writer = Self { shared, queue, metrics, rules };
        writer.count_records();
        writer
    }

    /// Serves jobs on a thread of its own until every store handle is gone.
    pub fn run_blocking(mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            let group = self.commit(first);
            if let Err(error) = self.publish(group) {
                self.recover_blocking(error);
            }
        }
    }

    /// The same as a task, for a runtime of one thread (the simulator's). `hold` may keep it
    /// waiting, as a slow disk or a busy machine would.
    pub async fn run(mut self, mut hold: impl AsyncFnMut(Moment)) {
        while let Some(first) = self.queue.recv().await {
            hold(Moment::BeforeCommit).await;
            let group = self.commit(first);
            hold(Moment::AfterCommit).await;
            if let Err(error) = self.publish(group) {
                self.recover(error).await;
            }
            hold(Moment::Published).await;
        }
    }

    /// Takes what is waiting behind `first`, decides it as one group, and commits that.
    fn commit(&mut self, first: Job) -> Committed {
        let shared = self.shared.clone();
        let opened = match shared.engine.opened() {
            Ok(opened) => opened,
            Err(error) => return Committed::refused(first, error.into()),
        };
        let mut group = Group::new(&shared, opened.as_ref(), self.rules);
        let mut decided = vec![decide(&mut group, first)];
        while group.bytes() < GROUP_BYTES_MAX && decided.len() < GROUP_JOBS_MAX {
            let Ok(job) = self.queue.try_recv() else { break };
            decided.push(decide(&mut group, job));
        }
        let size = u32::try_from(decided.len()).unwrap_or(u32::MAX);
        self.metrics.store_group_writes.observe(f64::from(size));
        let (began, changes) = (shared.clock.instant(), group.changes());
        let committed = group.commit();
        if changes {
            self.metrics.store_commit_seconds.observe(began.elapsed().as_secs_f64());
        }
        Committed { decided, outcome: committed }
    }

    /// Brings the digest, the feed and those who wait up to what was committed. After an error
    /// nobody knows what was, until the store is opened again.
    fn publish(&self, group: Committed) -> Result<(), ReadError> {
        let outcome = group.outcome.and_then(|done| {
            self.shared.follow(&done);
            self.follow(done.effects).map_err(CommitError::Unknown)?;
            for commit in done.commits {
                self.shared.feed.publish(commit);
            }
            Ok(())
        });
        self.answer(group.decided, outcome.as_ref().err());
        match outcome {
            Err(CommitError::Unknown(error)) => Err(error),
            Ok(()) | Err(CommitError::Nothing(_)) => Ok(()),
        }
    }

    /// Brings digest and counts to what was committed.
    fn follow(&self, effects: Vec<Effect>) -> Result<(), ReadError> {
        let mut tree = self.shared.tree.write().unwrap_or_else(PoisonError::into_inner);
        let mut deltas = Vec::with_capacity(effects.len());
        for Effect { key, old, new } in effects {
            let bytes = key.as_bytes();
            if let Some((_, was_dead)) = old {
                tree.counts.remove(was_dead);
            }
            tree.counts.add(new.1);
            deltas.push(Delta {
                key: bytes.into(),
                old: old.map(|(hash, _)| tree.digest.element(bytes, &hash)),
                new: Some(tree.digest.element(bytes, &new.0)),
            });
        }
        tree.follow(self.shared.engine.as_ref(), &deltas)?;
        drop(tree);
        self.count_records();
        Ok(())
    }

    pub(super) fn count_records(&self) {
        let counts = self.shared.tree().counts;
        for (state, count) in [("live", counts.keys), ("dead", counts.tombstones)] {
            let gauge = self.metrics.store_records.get_or_create(&[("state", state)]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Answers every job.
    fn answer(&self, decided: Vec<Decided>, failure: Option<&CommitError>) {
        let count = |kind, outcome| {
            self.metrics.store_writes.get_or_create(&[("kind", kind), ("outcome", outcome)]).inc();
        };
        for decision in decided {
            // a receiver that is gone belongs to a client that left
            let _ = match decision {
                Decided::Write(answer, result) => {
                    let result = settle(result, failure);
                    count("write", outcome(&result));
                    answer.send(result).map_err(drop)
                }
                Decided::Txn(answer, result) => {
                    let result = settle(result, failure);
                    count("txn", outcome(&result));
                    answer.send(result).map_err(drop)
                }
                Decided::Sweep(answer, result) => {
                    let result = settle(result, failure);
                    count("sweep", outcome(&result));
                    answer.send(result).map_err(drop)
                }
                Decided::Apply(answer, result) => {
                    let result = settle(result, failure);
                    count("merge", outcome(&result));
                    answer.send(result).map_err(drop)
                }
                Decided::Meta(answer, result) => answer.send(settle(result, failure)).map_err(drop),
            };
        }
    }
}

fn decide(group: &mut Group<'_>, job: Job) -> Decided {
    match job {
        Job::Write { write, name, verdicts, answer } => {
            Decided::Write(answer, group.write(&write, name.as_ref(), &verdicts))
        }
        Job::Txn { txn, name, verdicts, answer } => {
            Decided::Txn(answer, group.txn(&txn, name.as_ref(), &verdicts))
        }
        Job::Sweep { answer } => Decided::Sweep(answer, group.sweep()),
        Job::KeepTime { answer } => {
            group.keeps_time = true;
            Decided::Meta(answer, Ok(()))
        }
        Job::Apply { records, answer } => Decided::Apply(answer, group.apply(&records)),
        Job::Meta { key, value, answer } => Decided::Meta(answer, group.put_meta(key, &value)),
    }
}

/// Without a commit nothing was accepted; when it failed, nobody can say what became of what was. A
/// refusal does not stand either: it may rest on what was accepted before it.
fn settle<T>(
    result: Result<T, WriteError>,
    failure: Option<&CommitError>,
) -> Result<T, WriteError> {
    match failure {
        None => result,
        Some(CommitError::Nothing(error)) => Err(WriteError::Failed(error.clone())),
        Some(CommitError::Unknown(error)) => Err(WriteError::OutcomeUnknown(error.to_string())),
    }
}

fn outcome<T>(result: &Result<T, WriteError>) -> &'static str {
    match result {
        Ok(_) => "done",
        Err(WriteError::PreconditionFailed { .. }) => "precondition_failed",
        Err(WriteError::NotFound) => "not_found",
        Err(WriteError::OtherRequest) => "other_request",
        Err(WriteError::RequestsFull | WriteError::ContentTooLarge) => "too_much",
        Err(WriteError::ClockSkewed { .. }) => "clock_skewed",
        Err(WriteError::ShuttingDown | WriteError::StorageFull(_) | WriteError::Failed(_)) => {
            "failed"
        }
        Err(WriteError::OutcomeUnknown(_)) => "unknown",
    }
}
