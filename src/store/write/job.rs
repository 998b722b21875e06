//! What the writer can be asked, and how each request is answered.

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::compare::Comparisons;
use super::durable::CommitError;
use super::requests::RequestId;
use crate::model::{Header, Key, Record, Timestamp};
use crate::proto::stability::{Bearer, Floor, Ledger};
use crate::store::identity::Identity;
use crate::store::{
    Applied, Collected, Imported, ImportedRecord, NodeMode, Swept, Txn, TxnDone, Write, WriteError,
    Written,
};
use crate::telemetry::Metrics;

/// Where an answer goes. A receiver that is gone belongs to a client that left.
pub(in crate::store) type Reply<T> = oneshot::Sender<Result<T, WriteError>>;

/// A request to the writer.
#[derive(Debug)]
pub enum Job {
    /// A client's write. Answered with `None` when its comparisons must be made again.
    Write {
        /// What to write, and on which conditions.
        write: Write,
        /// Identifies the request, where the client gave it a uuid.
        id: Option<RequestId>,
        /// Its conditions that look into values.
        comparisons: Comparisons,
        /// Where the answer goes.
        reply: Reply<Option<Written>>,
    },
    /// A client's transaction. Answered with `None` when its comparisons must be made again.
    Txn {
        /// What to do, and on which conditions.
        txn: Arc<Txn>,
        /// Identifies the request, where the client gave it a uuid.
        id: Option<RequestId>,
        /// Its conditions that look into values.
        comparisons: Comparisons,
        /// Where the answer goes.
        reply: Reply<Option<TxnDone>>,
    },
    /// A sweep of what is due.
    Sweep {
        /// Where the answer goes.
        reply: Reply<Swept>,
    },
    /// A step of collection.
    Collect {
        /// The floor to rise to; `None`: the one that the ledger allows.
        to: Option<Floor>,
        /// The floor that the asker has seen. One below it is that of a ledger that has begun anew
        /// since, and does not rise.
        since: Floor,
        /// Where the answer goes.
        reply: Reply<Collected>,
    },
    /// Makes the time of the group the durable watermark of the expiry clock.
    AdvanceWatermark {
        /// Where the answer goes.
        reply: Reply<()>,
    },
    /// Records from a peer, to be merged.
    Apply {
        /// The records.
        records: Vec<(Key, Record)>,
        /// How they came; `None` where stability has no say.
        bearer: Option<Bearer>,
        /// Where the answer goes.
        reply: Reply<Applied>,
    },
    /// Imports records of an export.
    Import {
        /// The records, under the versions that they had.
        records: Vec<ImportedRecord>,
        /// Where the answer goes.
        reply: Reply<Imported>,
    },
    /// A change of the ledger.
    Ledger {
        /// The change.
        change: LedgerChange,
        /// Where the answer goes.
        reply: Reply<()>,
    },
    /// Removes records that were set aside.
    SetAside {
        /// The keys, and the headers that they must have.
        records: Vec<(Key, Header)>,
        /// Where the answer goes.
        reply: Reply<()>,
    },
    /// Begins anew under another identity.
    Anew {
        /// The change of the ledger.
        change: LedgerChange,
        /// The identity from the next opening on.
        identity: Identity,
        /// Where the answer goes.
        reply: Reply<()>,
    },
    /// Changes the mode of the node.
    SetMode {
        /// The mode.
        mode: NodeMode,
        /// Where the answer goes.
        reply: Reply<()>,
    },
    /// Writes an entry of the meta family.
    Meta {
        /// Its name.
        name: &'static str,
        /// Its bytes.
        value: Vec<u8>,
        /// Where the answer goes.
        reply: Reply<()>,
    },
}

type LedgerEdit = dyn FnOnce(&mut Ledger, Timestamp) + Send;

/// One change of the ledger. It gets the wall clock, too.
pub struct LedgerChange(Box<LedgerEdit>);

impl fmt::Debug for LedgerChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LedgerChange")
    }
}

impl LedgerChange {
    pub(super) fn new(change: impl FnOnce(&mut Ledger, Timestamp) + Send + 'static) -> Self {
        Self(Box::new(change))
    }

    /// Makes the change on `ledger`.
    pub(super) fn make(self, ledger: &mut Ledger, now: Timestamp) {
        (self.0)(ledger, now);
    }
}

impl Job {
    /// Answers with `why`; nothing was done.
    pub(super) fn refuse(self, why: WriteError) {
        let _ = match self {
            Self::Write { reply, .. } => reply.send(Err(why)).map_err(drop),
            Self::Txn { reply, .. } => reply.send(Err(why)).map_err(drop),
            Self::Sweep { reply } => reply.send(Err(why)).map_err(drop),
            Self::Collect { reply, .. } => reply.send(Err(why)).map_err(drop),
            Self::Apply { reply, .. } => reply.send(Err(why)).map_err(drop),
            Self::Import { reply, .. } => reply.send(Err(why)).map_err(drop),
            Self::AdvanceWatermark { reply }
            | Self::Ledger { reply, .. }
            | Self::SetAside { reply, .. }
            | Self::Anew { reply, .. }
            | Self::SetMode { reply, .. }
            | Self::Meta { reply, .. } => reply.send(Err(why)).map_err(drop),
        };
    }
}

/// An answer that waits for the commit of its group.
pub(super) enum Decided {
    Write(Answer<Option<Written>>),
    Txn(Answer<Option<TxnDone>>),
    Sweep(Answer<Swept>),
    Collect(Answer<Collected>),
    Apply(Answer<Applied>),
    Import(Answer<Imported>),
    /// A watermark, the ledger, a mode or a meta entry, which are not counted.
    Meta(Answer<()>),
}

pub(super) struct Answer<T> {
    pub reply: Reply<T>,
    pub result: Result<T, WriteError>,
}

impl Decided {
    /// Answers, after the group was committed or `failure` kept it from that.
    pub fn send(self, failure: Option<&CommitError>, metrics: &Metrics) {
        match self {
            Self::Write(answer) => answer.send(failure, Some(("write", metrics))),
            Self::Txn(answer) => answer.send(failure, Some(("txn", metrics))),
            Self::Sweep(answer) => answer.send(failure, Some(("sweep", metrics))),
            Self::Collect(answer) => {
                let records = answer.done(failure).map_or(0, |collected| collected.records);
                metrics.store_collected.inc_by(records);
                answer.send(failure, Some(("collect", metrics)));
            }
            Self::Apply(answer) => {
                let below_floor = answer.done(failure).map_or(0, |applied| applied.below_floor);
                metrics.merges_below_floor.inc_by(below_floor);
                answer.send(failure, Some(("merge", metrics)));
            }
            Self::Import(answer) => answer.send(failure, Some(("import", metrics))),
            Self::Meta(answer) => answer.send(failure, None),
        }
    }
}

impl<T> Answer<T> {
    /// What was done, if it was.
    fn done(&self, failure: Option<&CommitError>) -> Option<&T> {
        self.result.as_ref().ok().filter(|_| failure.is_none())
    }

    fn send(self, failure: Option<&CommitError>, counted: Option<(&'static str, &Metrics)>) {
        let result = settle(self.result, failure);
        if let Some((kind, metrics)) = counted {
            let labels = [("kind", kind), ("outcome", outcome_label(&result))];
            metrics.store_writes.get_or_create(&labels).inc();
        }
        let _ = self.reply.send(result);
    }
}

/// What an answer becomes when its group was not committed. A refusal does not stand either: it may
/// rest on a write before it in the group.
fn settle<T>(
    result: Result<T, WriteError>,
    failure: Option<&CommitError>,
) -> Result<T, WriteError> {
    match failure {
        None => result,
        Some(CommitError::Nothing(error)) => Err(WriteError::Failed(error.clone())),
        Some(CommitError::Unknown(error) | CommitError::NoDescriptor { error, .. }) => {
            Err(WriteError::OutcomeUnknown(error.to_string()))
        }
    }
}

/// The `outcome` label of the metric of writes.
fn outcome_label<T>(result: &Result<T, WriteError>) -> &'static str {
    match result {
        Ok(_) => "done",
        Err(WriteError::PreconditionFailed { .. }) => "precondition_failed",
        Err(WriteError::NotFound) => "not_found",
        Err(WriteError::OtherRequest) => "other_request",
        Err(WriteError::RequestsFull | WriteError::ContentTooLarge) => "too_much",
        Err(WriteError::ClockSkewed { .. }) => "clock_skewed",
        Err(WriteError::ReadOnly) => "read_only",
        Err(WriteError::ShuttingDown | WriteError::StorageFull(_) | WriteError::Failed(_)) => {
            "failed"
        }
        Err(WriteError::OutcomeUnknown(_)) => "unknown",
    }
}
