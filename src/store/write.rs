//! Writes whose conditions look into the value.
//!
//! Comparing JSON takes time, and the one writer has none to spare. So it is done here, outside,
//! against the live record of the moment; the writer then only checks that the record is still that
//! one. The writer stays the only place that decides.

use super::writer::Job;
use super::{CURRENT_BYTES_MAX, Entry, ReadError, Store, Write, WriteError, Written};
use crate::model::condition::Current;
use crate::model::record::RecordHash;
use crate::model::{Condition, Key};

/// How many comparisons run at once. Each reads a value and may take some times its size.
pub(super) const COMPARISONS_MAX: usize = 2;

/// What comparing the live value gave.
enum Compared {
    /// All conditions hold for the record with this hash.
    Equal(RecordHash),
    /// One does not hold, or there is no live value.
    Unequal(Option<Box<Entry>>),
}

impl Store {
    /// Decides and, if it is accepted, performs one write. When this returns `Ok`, the write is
    /// durable. Dropping the future does not undo the write.
    ///
    /// # Errors
    /// Why it was not accepted; see [`WriteError`] for whether anything changed.
    pub async fn write(&self, mut write: Write) -> Result<Written, WriteError> {
        let (content, plain): (Vec<_>, Vec<_>) =
            std::mem::take(&mut write.conditions).into_iter().partition(Condition::needs_body);
        if content.is_empty() {
            write.conditions = plain;
            return self.ask(|answer| Job::Write { write, answer }).await;
        }
        // Each further round follows a write of somebody else, so not all can go on for ever.
        loop {
            let hash = match self.compare(&write.key, &content).await.map_err(WriteError::Failed)? {
                Compared::Equal(hash) => hash,
                Compared::Unequal(current) => {
                    return Err(WriteError::PreconditionFailed { current });
                }
            };
            // The hash covers the whole record, its content included. So what was compared is
            // what the writer finds, or the write is refused: nothing comes in between.
            let mut conditions = plain.clone();
            conditions.push(Condition::Record(hash));
            let attempt = Write { conditions, ..write.clone() };
            let outcome = self.ask(|answer| Job::Write { write: attempt, answer }).await;
            match &outcome {
                Err(WriteError::PreconditionFailed { current })
                    if current.as_ref().is_none_or(|entry| entry.header.hash() != hash) => {}
                _ => return outcome,
            }
        }
    }

    /// Holds `conditions` against the live value of `key`, on a thread that may block.
    async fn compare(&self, key: &Key, conditions: &[Condition]) -> Result<Compared, ReadError> {
        // the semaphore is never closed
        let _turn = self.shared.comparisons.acquire().await.ok();
        let (key, conditions) = (key.clone(), conditions.to_vec());
        self.blocking(move |store| store.compare_now(&key, &conditions)).await
    }

    fn compare_now(&self, key: &Key, conditions: &[Condition]) -> Result<Compared, ReadError> {
        let now = self.shared.clock.now();
        let live = self.record_now(key)?.filter(|record| record.header.is_live(now));
        let Some(record) = live else { return Ok(Compared::Unequal(None)) };
        let current =
            Current { header: &record.header, displaced_twin: false, body: Some(&record.body) };
        if conditions.iter().all(|condition| condition.holds(Some(current))) {
            return Ok(Compared::Equal(record.header.hash()));
        }
        let shown = record.header.content.size() <= CURRENT_BYTES_MAX;
        let entry = Entry { header: record.header, body: shown.then_some(record.body) };
        Ok(Compared::Unequal(Some(Box::new(entry))))
    }
}
