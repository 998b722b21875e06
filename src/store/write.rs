//! Writes of clients on their way to the writer.
//!
//! Comparing JSON takes time, and the one writer has none to spare. So a condition that looks into
//! the value is held against the live record of the moment here, outside; the writer then takes
//! over the verdict if that record is still the one. The writer stays the only place that decides.

use tokio::sync::oneshot;

use super::decide::Verdicts;
use super::requests::RequestId;
use super::writer::Job;
use super::{Store, Txn, TxnDone, Write, WriteError, Written};
use crate::model::condition::Current;
use crate::model::record::RecordHash;
use crate::model::{Condition, Key};

/// How many comparisons run at once. Each reads a value and may take some times its size.
pub(super) const COMPARISONS_MAX: usize = 2;
/// How often contents are compared outside, each time because somebody else wrote meanwhile. Then
/// the writer does it itself, so that nobody waits for ever.
const ROUNDS_MAX: u32 = 3;

/// How the writer answers a request: `None` when what was compared outside is not there any more.
type Answer<T> = oneshot::Sender<Result<Option<T>, WriteError>>;

/// How much content the compares of one request may still look into. The first value always may be.
pub(super) struct Room {
    left: usize,
    used: bool,
}

impl Room {
    /// For `bytes_max` together.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { left: bytes_max, used: false }
    }

    /// Takes room for a value.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), WriteError> {
        let first = !std::mem::replace(&mut self.used, true);
        let left = self.left.checked_sub(bytes);
        self.left = left.or(first.then_some(0)).ok_or(WriteError::ContentTooLarge)?;
        Ok(())
    }
}

impl Store {
    /// Decides and, if it is accepted, performs one write. When this returns `Ok`, the write is
    /// durable. Dropping the future does not undo the write.
    ///
    /// # Errors
    /// Why it was not accepted; see [`WriteError`] for whether anything changed.
    pub async fn write(&self, write: Write) -> Result<Written, WriteError> {
        let name = RequestId::of_write(&write);
        let content = write.conditions.iter().filter(|condition| condition.needs_body());
        let content = content.map(|condition| (write.key.clone(), condition.clone())).collect();
        let job = |verdicts, answer| Job::Write { write: write.clone(), name, verdicts, answer };
        self.decide(content, job).await
    }

    /// Decides and performs a transaction. When this returns `Ok`, it is durable as a whole.
    /// Dropping the future does not undo it.
    ///
    /// # Errors
    /// Why it was not accepted; see [`WriteError`] for whether anything changed.
    pub async fn txn(&self, txn: Txn) -> Result<TxnDone, WriteError> {
        let name = RequestId::of_txn(&txn);
        let content = txn.compare.iter().filter(|(_, condition)| condition.needs_body());
        let content = content.cloned().collect();
        let txn = std::sync::Arc::new(txn);
        let job = |verdicts, answer| Job::Txn { txn: txn.clone(), name, verdicts, answer };
        self.decide(content, job).await
    }

    /// Has the writer decide, with verdicts on the conditions of `content`, which look into values.
    async fn decide<T>(
        &self,
        content: Vec<(Key, Condition)>,
        job: impl Fn(Verdicts, Answer<T>) -> Job,
    ) -> Result<T, WriteError> {
        let mut rounds = if content.is_empty() { ROUNDS_MAX } else { 0 };
        let content = std::sync::Arc::new(content);
        loop {
            let verdicts = if rounds == ROUNDS_MAX {
                Verdicts::Open
            } else {
                Verdicts::Found(self.compare(content.clone()).await?)
            };
            if let Some(decided) = self.ask(|answer| job(verdicts, answer)).await? {
                return Ok(decided);
            }
            rounds += 1;
        }
    }

    /// Holds conditions against the live values of their keys, on a thread that may block.
    async fn compare(
        &self,
        conditions: std::sync::Arc<Vec<(Key, Condition)>>,
    ) -> Result<Vec<(Option<RecordHash>, bool)>, WriteError> {
        // the semaphore is never closed
        let _turn = self.shared.comparisons.acquire().await.ok();
        let compare = move |store: &Self| {
            let mut room = Room::new(store.shared.compared_bytes_max);
            let compare =
                |(key, condition): &(Key, Condition)| store.compare_now(key, condition, &mut room);
            conditions.iter().map(compare).collect()
        };
        self.blocking(compare).await
    }

    fn compare_now(
        &self,
        key: &Key,
        condition: &Condition,
        room: &mut Room,
    ) -> Result<(Option<RecordHash>, bool), WriteError> {
        let Some((stored, body)) = self.shared.live(key).map_err(WriteError::Failed)? else {
            return Ok((None, condition.holds(None)));
        };
        room.take(body.len())?;
        let current = Current { header: &stored.header, displaced_twin: false, body: Some(&body) };
        Ok((Some(stored.hash), condition.holds(Some(current))))
    }
}
