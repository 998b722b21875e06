//! The write wing: how a change becomes durable.
//!
//! In the order in which a write passes: [`Store::write`] here submits a [`job`] to the
//! [`writer`], which gathers jobs into a [`group`] and has each decided. A decision ([`decide`] for
//! clients, [`merge`] for peers, [`import`] for exports, `expiry::sweep` for time, [`collect`] for
//! the floor) reads a [`view`] and returns named [`effects`]; [`replace`], [`requests`] and
//! [`superseded`] add those of replacing a record, of remembering a request and of reporting a lost
//! write. [`ledger`] changes what this node knows of stability. The group applies the effects in
//! one transaction and commits it; the writer publishes what is [`durable`]. [`compare`] takes work
//! off the writer before, [`recovery`] takes over after storage has failed, and [`gate`] says what
//! is taken while the disk has little room.

mod aside;
pub(super) mod collect;
mod compare;
mod decide;
pub(super) mod durable;
pub(super) mod effects;
mod gate;
pub(super) mod group;
mod import;
mod indexes;
pub(super) mod job;
pub(super) mod ledger;
mod merge;
mod recovery;
pub(super) mod replace;
pub(super) mod reports;
pub(super) mod requests;
mod superseded;
pub(super) mod view;
pub mod writer;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Settings, Store, Txn, TxnDone, Write, WriteError, Written};
pub(super) use compare::COMPARISONS_MAX;
use compare::{Comparisons, ContentConditions};
use job::{Job, Reply};
use requests::RequestId;

/// How often contents are compared before the writer decides, each time because another write came
/// in between. After that the writer compares, so that no client waits for ever.
const COMPARE_ROUNDS_MAX: u32 = 3;

/// The settings that decisions read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Values of at least this size lie apart from their headers.
    pub blob_threshold_bytes: usize,
    /// How far clocks of healthy nodes may differ.
    pub clock_drift_max: Duration,
    /// How many earlier revisions of a key stay.
    pub history_depth: u64,
    /// What all remembered requests may take.
    pub idempotency_bytes_max: u64,
    /// What all reports of superseded writes may take.
    pub superseded_bytes_max: u64,
    /// How much content the compares of one request may look into, the first value apart.
    pub compared_bytes_max: usize,
}

impl Rules {
    fn of(settings: &Settings) -> Self {
        Self {
            blob_threshold_bytes: settings.blob_threshold_bytes,
            clock_drift_max: settings.clock_drift_max,
            history_depth: u64::from(settings.history_depth),
            idempotency_bytes_max: settings.idempotency_bytes_max,
            superseded_bytes_max: settings.superseded_bytes_max,
            compared_bytes_max: settings.compared_bytes_max,
        }
    }
}

impl Store {
    /// Decides one write and, if it is accepted, makes it durable before this returns `Ok`.
    /// Dropping the future does not undo the write.
    ///
    /// # Errors
    /// Why it was refused; see [`WriteError`] for whether anything changed.
    pub async fn write(&self, write: Write) -> Result<Written, WriteError> {
        let id = RequestId::of_write(&write);
        let content = write.conditions.iter().filter(|condition| condition.needs_body());
        let content = content.map(|condition| (write.key.clone(), condition.clone())).collect();
        let job = |comparisons, reply| Job::Write { write: write.clone(), id, comparisons, reply };
        self.submit_compared(Arc::new(content), job).await
    }

    /// Decides a transaction and makes it durable as a whole before this returns `Ok`. Dropping the
    /// future does not undo it.
    ///
    /// # Errors
    /// Why it was refused; see [`WriteError`] for whether anything changed.
    pub async fn txn(&self, txn: Txn) -> Result<TxnDone, WriteError> {
        let id = RequestId::of_txn(&txn);
        let content = txn.compare.iter().filter(|(_, condition)| condition.needs_body());
        let content = content.cloned().collect();
        let txn = Arc::new(txn);
        let job = |comparisons, reply| Job::Txn { txn: txn.clone(), id, comparisons, reply };
        self.submit_compared(Arc::new(content), job).await
    }

    /// Submits a job whose conditions of `content` look into values, again whenever a record has
    /// changed since it was compared.
    async fn submit_compared<T>(
        &self,
        content: ContentConditions,
        job: impl Fn(Comparisons, Reply<Option<T>>) -> Job,
    ) -> Result<T, WriteError> {
        let mut rounds = if content.is_empty() { COMPARE_ROUNDS_MAX } else { 0 };
        loop {
            let comparisons = if rounds == COMPARE_ROUNDS_MAX {
                Comparisons::Open
            } else {
                Comparisons::Done(self.compare(Arc::clone(&content)).await?)
            };
            if let Some(answer) = self.submit(|reply| job(comparisons, reply)).await? {
                return Ok(answer);
            }
            rounds += 1;
        }
    }

    /// Hands a job to the writer and waits for its answer.
    pub(super) async fn submit<T>(
        &self,
        job: impl FnOnce(Reply<T>) -> Job,
    ) -> Result<T, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(job(reply)).await.map_err(|_| WriteError::ShuttingDown)?;
        // the writer answers every job that it takes, unless it panics
        let failed = || WriteError::OutcomeUnknown("the writer has failed".to_owned());
        answer.await.unwrap_or_else(|_| Err(failed()))
    }
}
