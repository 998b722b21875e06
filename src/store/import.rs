//! Import under kept versions: what goes in, and what becomes of it.

use super::write::job::Job;
use super::{Store, WriteError};
use crate::model::{Key, Record};

/// How many bytes of values, about, and how many records one job has at most, so that an import
/// never holds up other writes for long.
const PART_BYTES_MAX: usize = 1 << 20;
const PART_RECORDS_MAX: usize = 256;
/// What a record takes besides its value, about.
const RECORD_BYTES: usize = 256;

/// A record of an export, under the version that it had.
#[derive(Clone, Debug)]
pub struct ImportedRecord {
    /// Its key.
    pub key: Key,
    /// The record, whole.
    pub record: Record,
}

/// What became of an imported record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ImportFate {
    /// It was stored under its version.
    Written,
    /// It was left alone, as its key has a newer record, or this one.
    Lost,
    /// It was stored as a new write, under its uuid.
    Restamped,
    /// It was left alone, as it has expired.
    Expired,
}

/// What became of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Stored under their versions.
    pub written: u64,
    /// Left alone, as their keys have newer records, or these.
    pub lost: u64,
    /// Stored as new writes, under their uuids.
    pub restamped: u64,
    /// Left alone, as they have expired.
    pub expired: u64,
}

impl Imported {
    pub(super) fn count(&mut self, fate: ImportFate) {
        *match fate {
            ImportFate::Written => &mut self.written,
            ImportFate::Lost => &mut self.lost,
            ImportFate::Restamped => &mut self.restamped,
            ImportFate::Expired => &mut self.expired,
        } += 1;
    }

    /// Adds what became of further records.
    pub fn add(&mut self, more: Self) {
        self.written += more.written;
        self.lost += more.lost;
        self.restamped += more.restamped;
        self.expired += more.expired;
    }
}

impl Store {
    /// Imports records in their order, each decided on its own. When this returns `Ok`, all that
    /// was stored is durable. To import them again changes nothing.
    ///
    /// # Errors
    /// When storage failed, or the node takes no writes now; records before the first that was
    /// refused may then be stored.
    pub async fn import(&self, records: Vec<ImportedRecord>) -> Result<Imported, WriteError> {
        let (mut imported, mut part, mut bytes) = (Imported::default(), Vec::new(), 0);
        for record in records {
            bytes += record.record.body.len() + RECORD_BYTES;
            part.push(record);
            if bytes >= PART_BYTES_MAX || part.len() == PART_RECORDS_MAX {
                imported.add(self.import_part(std::mem::take(&mut part)).await?);
                bytes = 0;
            }
        }
        if !part.is_empty() {
            imported.add(self.import_part(part).await?);
        }
        Ok(imported)
    }

    async fn import_part(&self, records: Vec<ImportedRecord>) -> Result<Imported, WriteError> {
        self.submit(|reply| Job::Import { records, reply }).await
    }
}
