//! Setting aside: what a newcomer holds and its source does not, where the source's state is the
//! truth.
//!
//! Promises that a record is kept durably elsewhere before it leaves the store.

use std::io;

use super::context::Context;
use super::ended::PullError;
use crate::model::{Key, Record};
use crate::proto::stability::Follow;
use crate::store::{Store, WriteError};

/// Where records go that are set aside.
pub trait Aside: Send + Sync {
    /// Keeps these records; they are durable when this returns. May block.
    ///
    /// # Errors
    /// When they cannot be kept: nothing may be dropped then.
    fn keep(&self, records: &[(Key, Record)]) -> io::Result<()>;
}

/// Sets aside what this node holds at these keys, as far as its source's state is the truth there.
/// Returns how many records.
pub(super) async fn set_aside(
    context: &Context,
    follow: &Follow,
    keys: Vec<Key>,
) -> Result<u64, PullError> {
    let (rule, aside) = (follow.clone(), context.aside.clone());
    let keep = move |store: &Store| -> Result<Vec<_>, PullError> {
        let mut records = Vec::new();
        for key in keys {
            let record = store.record_now(&key).map_err(WriteError::Failed)?;
            if let Some(record) = record.filter(|record| rule.sets_aside(&record.header, None)) {
                records.push((key, record));
            }
        }
        if !records.is_empty() {
            aside.keep(&records).map_err(PullError::Aside)?;
        }
        Ok(records)
    };
    let kept = context.store.blocking(keep).await?;
    let count = kept.len() as u64;
    if count > 0 {
        let headers = kept.into_iter().map(|(key, record)| (key, record.header)).collect();
        context.store.set_aside(headers).await?;
        context.metrics.set_aside.inc_by(count);
    }
    Ok(count)
}
