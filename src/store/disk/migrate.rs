//! Brings a data directory of an older format to the present one.
//!
//! Format 3 has an index of the dead beside the records of format 2, and changes nothing else. The
//! index is built in bounded transactions, and the format is written last: after a crash the older
//! kvs still opens the directory, and a newer one begins again.

use std::ops::ControlFlow;

use super::engine::{Engine, Family};
use super::layout::{self, FORMAT, FORMAT_VERSION};
use crate::proto::stability::floor;
use crate::store::read::digest::visit_headers;
use crate::store::{ReadError, checked_key};

/// The oldest format that is migrated.
pub(super) const FROM: u32 = 2;
/// How many entries one transaction changes at most.
const TRANSACTION_ENTRIES_MAX: usize = 4096;
/// How many records are read for one line of the log.
const LOGGED_RECORDS: u64 = 1_000_000;

/// Brings the data from format `found`, at least [`FROM`], to the present one.
///
/// # Errors
/// When storage fails or a record is damaged. The data still has the format `found`, and this can
/// be called again.
pub(super) fn run(engine: &dyn Engine, found: u32) -> Result<(), ReadError> {
    tracing::info!(
        from = found,
        to = FORMAT_VERSION,
        "bringing the data directory to a new format"
    );
    clear(engine)?;
    let (records, dead) = index_the_dead(engine)?;
    let opened = engine.opened()?;
    let mut transaction = opened.begin();
    transaction.put(Family::Meta, FORMAT.as_bytes(), &FORMAT_VERSION.to_le_bytes())?;
    transaction.commit()?;
    tracing::info!(records, dead, format = FORMAT_VERSION, "the data directory has a new format");
    Ok(())
}

/// Removes what an attempt before left: the older kvs may have changed records since.
fn clear(engine: &dyn Engine) -> Result<(), ReadError> {
    let mut from = Vec::new();
    loop {
        let mut entries = Vec::new();
        engine.scan(Family::Dead, &from, None, &mut |entry, _| {
            entries.push(entry.to_vec());
            break_if(entries.len() >= TRANSACTION_ENTRIES_MAX)
        })?;
        let Some(last) = entries.last() else { return Ok(()) };
        from.clone_from(last);
        let opened = engine.opened()?;
        let mut transaction = opened.begin();
        for entry in &entries {
            transaction.delete(Family::Dead, entry)?;
        }
        transaction.commit()?;
    }
}

/// Builds the index; gives how many records were read, and how many entries it has.
fn index_the_dead(engine: &dyn Engine) -> Result<(u64, u64), ReadError> {
    let (mut records, mut dead) = (0, 0);
    let mut from = Vec::new();
    loop {
        let (mut entries, mut last, mut damaged) = (Vec::new(), None, Ok(()));
        visit_headers(engine, &from, None, |key, summary| {
            records += 1;
            if records % LOGGED_RECORDS == 0 {
                tracing::info!(records, "indexing the dead records");
            }
            if let Some(at) = floor::goes_at(&summary.header) {
                match checked_key(key) {
                    Ok(key) => entries.push(layout::expiry_key(at.0, &key)),
                    Err(error) => damaged = Err(error),
                }
            }
            last = Some(key.to_vec());
            break_if(damaged.is_err() || entries.len() >= TRANSACTION_ENTRIES_MAX)
        })?;
        damaged?;
        let Some(last) = last else { return Ok((records, dead)) };
        // the next key in order
        from = [last, vec![0]].concat();
        dead += entries.len() as u64;
        let opened = engine.opened()?;
        let mut transaction = opened.begin();
        for entry in &entries {
            transaction.put(Family::Dead, entry, &[])?;
        }
        transaction.commit()?;
    }
}

fn break_if(done: bool) -> ControlFlow<()> {
    if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
