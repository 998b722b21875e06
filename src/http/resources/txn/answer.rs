//! The answer to a transaction, and how much memory it takes.

use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use crate::http::answer::envelope::{ContentForm, Envelope};
use crate::http::answer::schema::{KeySchema, MicrosSchema};
use crate::http::answer::size::{
    KEY_TEXT_FACTOR, REVISION_BYTES_MAX, WRITTEN_BYTES_MAX, envelope_text_bytes,
};
use crate::model::{Key, Timestamp};
use crate::store::{Operation, OperationResult, Txn, TxnDone};

#[derive(Serialize, JsonSchema)]
pub(crate) struct TxnAnswer<'a> {
    /// Whether all compares held, so that `success` was done, and not `failure`.
    succeeded: bool,
    /// The positions in `compare` that did not hold, ascending.
    failed: &'a [u32],
    /// What the operations gave, in their order.
    results: Vec<ResultBody<'a>>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ResultBody<'a> {
    Put {
        #[schemars(with = "KeySchema")]
        key: &'a str,
        uuid: Uuid,
        #[schemars(with = "MicrosSchema")]
        timestamp: Timestamp,
    },
    Delete {
        #[schemars(with = "KeySchema")]
        key: &'a str,
        /// Whether there was a live value.
        deleted: bool,
    },
    /// `null` without a live value.
    Get(Option<Box<Envelope<'a>>>),
}

impl<'a> TxnAnswer<'a> {
    /// `keys` are those of the operations that were done, in order.
    pub(crate) fn of(done: &'a TxnDone, keys: &'a [Key], form: ContentForm) -> Self {
        let results = keys.iter().zip(&done.results);
        Self {
            succeeded: done.failed.is_empty(),
            failed: &done.failed,
            results: results.map(|(key, result)| ResultBody::of(key, result, form)).collect(),
        }
    }
}

impl<'a> ResultBody<'a> {
    fn of(key: &'a Key, result: &'a OperationResult, form: ContentForm) -> Self {
        let envelope = |entry| Box::new(Envelope::of_read(key, entry, form));
        match result {
            OperationResult::Put(uuid, timestamp) => {
                Self::Put { key: key.as_str(), uuid: *uuid, timestamp: *timestamp }
            }
            OperationResult::Deleted(deleted) => {
                Self::Delete { key: key.as_str(), deleted: *deleted }
            }
            OperationResult::Got(entry) => Self::Get(entry.as_deref().map(envelope)),
        }
    }
}

/// The length to reserve for the text of the answer.
pub(crate) fn text_bytes(done: &TxnDone, keys: &[Key]) -> usize {
    let result = |(key, result): (&Key, &OperationResult)| {
        let bytes = match result {
            OperationResult::Got(_) => envelope_text_bytes(result.content_bytes()),
            OperationResult::Put(..) | OperationResult::Deleted(_) => WRITTEN_BYTES_MAX,
        };
        key.as_str().len() + bytes
    };
    WRITTEN_BYTES_MAX + keys.iter().zip(&done.results).map(result).sum::<usize>()
}

/// The most that the results of `txn` take, besides the content of what it reads.
pub(crate) fn results_bytes_max(txn: &Txn) -> usize {
    let bytes = |operations: &[Operation]| -> usize {
        let one = |operation: &Operation| {
            let key = KEY_TEXT_FACTOR * operation.key().as_str().len();
            match operation {
                Operation::Get(_) => REVISION_BYTES_MAX + key,
                Operation::Write(..) => WRITTEN_BYTES_MAX + key,
            }
        };
        operations.iter().map(one).sum()
    };
    bytes(&txn.success).max(bytes(&txn.failure))
}
