//! Every reason for which a request is refused, and the code of each.
//!
//! Errors of the layers below become an [`Error`] here and nowhere else, each by name: a new error
//! of the store does not compile until it has a code. Must not know how a refusal is written; see
//! [`problem`](super::problem).

use std::borrow::Cow;

use uuid::Uuid;

use super::code::Code;
use super::envelope::ContentForm;
use crate::model::duration::DurationError;
use crate::model::member::ClockOff;
use crate::model::{Key, KeyError, NodeId};
use crate::store::{Entry, Obstacle, ReadError, WriteError};

/// Why a request is refused. The store is unchanged, unless a variant says otherwise.
#[derive(Debug)]
pub(crate) enum Error {
    /// The request makes no sense; the text says what to change.
    BadRequest(Cow<'static, str>),
    /// The path or body names no possible key or prefix, or a too long one.
    Key(KeyError),
    /// The body is not JSON, repeats a member, or is nested too deep; the text says which.
    BadJson(String),
    /// A time to live is neither a duration nor `keep`.
    BadDuration(DurationError),
    /// `after` is not the `next` of a page of this prefix.
    BadCursor,
    /// A query parameter or JSON member does not exist.
    UnknownField {
        /// The beginning of its name.
        name: String,
        /// The known name that was probably meant, if there is one.
        nearest: Option<&'static str>,
        /// What it takes, or what to do instead.
        hint: Option<&'static str>,
        /// All names that are known there.
        known: Vec<&'static str>,
    },
    /// `error` concerns one part of the body.
    At {
        /// The path of the part, as in `success[3].put`.
        place: String,
        /// What is wrong with the part.
        error: Box<Error>,
    },
    /// The key has no live value.
    KeyNotFound,
    /// This node has no record of the key, neither current nor earlier.
    KeyUnknown,
    /// No bytes exist for the revision; the text says why.
    RevisionNotFound(&'static str),
    /// No member has this id.
    MemberNotFound(Uuid),
    /// The member runs; the text says what to do.
    MemberAlive(String),
    /// No other member holds all writes of this node, which therefore does not leave; the text
    /// says why.
    NotReplicated(String),
    /// No resource has the path; the text says which one was probably meant.
    NoSuchRoute(String),
    /// The resource does not have the method; the text says which it has.
    MethodNotAllowed(String),
    /// `Host` names another place than this node; the beginning of what it names.
    Misdirected(String),
    /// Who sends the request may not; the text says why, and what to do.
    Forbidden(&'static str),
    /// The header or body did not arrive in time.
    RequestTimeout,
    /// A condition does not hold.
    PreconditionFailed {
        /// The live value at the moment of the decision.
        current: Option<(Key, Box<Entry>)>,
        /// How the answer is written.
        form: RefusalForm,
    },
    /// The value is larger than this limit, in bytes.
    ValueTooLarge(usize),
    /// The JSON body is larger than this limit, in bytes.
    BodyTooLarge(usize),
    /// What a transaction reads or compares is larger than `limits.body_bytes_max`.
    AnswerTooLarge,
    /// A list of a transaction is longer than its limit.
    TooManyOperations {
        /// The name of the list.
        list: &'static str,
        /// The limit, in entries.
        max: usize,
    },
    /// The range lies outside of a value of this size, in bytes.
    RangeNotSatisfiable(usize),
    /// The body has a content encoding.
    UnsupportedMedia,
    /// The body has a transfer coding besides `chunked`.
    TransferCoding,
    /// This configuration key turns the feature off.
    FeatureDisabled(&'static str),
    /// The uuid of the request names another request or version, or the expected one.
    IdempotencyMismatch,
    /// This node cannot serve the request now; another node may, or this one later.
    Unavailable(Unavailable),
    /// This node waits for its first data; the text says for which members, and why they do not
    /// give it.
    WaitsFor(String),
    /// This node failed.
    Failed(NodeFailure),
}

/// How the answer to a condition that does not hold is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct RefusalForm {
    /// Whether the request was a swap, whose answers say `swapped`.
    pub(crate) swap: bool,
    /// How the live value is shown.
    pub(crate) content: ContentForm,
    /// The versions that `If-Match` names by weak tags, which never match.
    pub(crate) weak: Vec<Uuid>,
}

/// Why a node cannot serve a request now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unavailable {
    /// It waits for its first data.
    Syncing,
    /// The record that the write replaces lies too far ahead of its clock.
    ClockSkewed {
        /// How far ahead of it, in milliseconds.
        ahead_ms: u64,
        /// The node that wrote that record.
        origin: Option<NodeId>,
    },
    /// Its clock disagrees with those of most peers.
    ClockOff(ClockOff),
    /// Its mode is `read_only`.
    ReadOnly,
    /// Its disk is full.
    StorageFull,
    /// It is stopping.
    ShuttingDown,
    /// It has had no memory for the body, or for the answer, for a while.
    Overloaded,
    /// All connections that it serves are busy.
    Crowded,
    /// Its storage failed and is being opened again.
    Reopening,
    /// Its process has no file descriptor left to open a file of the data.
    NoDescriptor,
    /// Its storage takes no writes, which a question for its health is told.
    Storage(Obstacle),
    /// It cannot remember one more request that has a uuid.
    RequestsFull,
}

/// A failure of this node. The texts are for its log alone.
#[derive(Debug)]
pub(crate) enum NodeFailure {
    /// A read failed, or a bug was met.
    Internal(String),
    /// Storage failed before the write; nothing was written.
    NothingWritten(String),
    /// Storage failed during the write; whether the write took place is unknown.
    OutcomeUnknown(String),
}

impl NodeFailure {
    /// The text for the log.
    pub(crate) fn into_cause(self) -> String {
        match self {
            Self::Internal(cause) | Self::NothingWritten(cause) | Self::OutcomeUnknown(cause) => {
                cause
            }
        }
    }
}

impl Error {
    /// A request that makes no sense; `detail` says what to change.
    pub(crate) fn bad(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::BadRequest(detail.into())
    }

    /// A failure that is not the client's; `cause` goes to the log.
    pub(crate) fn internal(cause: impl Into<String>) -> Self {
        Self::Failed(NodeFailure::Internal(cause.into()))
    }

    /// This error, of the part `place` of the body. Places of nested calls are joined by dots.
    pub(crate) fn at(self, place: impl Into<String>) -> Self {
        let place = place.into();
        match self {
            Self::At { place: inner, error } => Self::At { place: place + "." + &inner, error },
            error => Self::At { place, error: Box::new(error) },
        }
    }

    /// Its code, and with it its status and title.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::BadRequest(_) => Code::BadRequest,
            Self::Key(KeyError::TooLong { .. }) => Code::KeyTooLong,
            Self::Key(_) => Code::BadKey,
            Self::BadJson(_) => Code::BadJson,
            Self::BadDuration(_) => Code::BadDuration,
            Self::BadCursor => Code::BadCursor,
            Self::UnknownField { .. } => Code::UnknownField,
            Self::At { error, .. } => error.code(),
            Self::KeyNotFound | Self::KeyUnknown => Code::KeyNotFound,
            Self::RevisionNotFound(_) => Code::RevisionNotFound,
            Self::MemberNotFound(_) => Code::MemberNotFound,
            Self::MemberAlive(_) => Code::MemberAlive,
            Self::NotReplicated(_) => Code::NotReplicated,
            Self::NoSuchRoute(_) => Code::NoSuchRoute,
            Self::MethodNotAllowed(_) => Code::MethodNotAllowed,
            Self::Misdirected(_) => Code::Misdirected,
            Self::Forbidden(_) => Code::Forbidden,
            Self::RequestTimeout => Code::RequestTimeout,
            Self::PreconditionFailed { .. } => Code::PreconditionFailed,
            Self::ValueTooLarge(_) => Code::ValueTooLarge,
            Self::BodyTooLarge(_) | Self::AnswerTooLarge => Code::BodyTooLarge,
            Self::TooManyOperations { .. } => Code::TooManyOperations,
            Self::RangeNotSatisfiable(_) => Code::RangeNotSatisfiable,
            Self::UnsupportedMedia | Self::TransferCoding => Code::UnsupportedMedia,
            Self::FeatureDisabled(_) => Code::FeatureDisabled,
            Self::IdempotencyMismatch => Code::IdempotencyMismatch,
            Self::Unavailable(reason) => reason.code(),
            Self::WaitsFor(_) => Code::Syncing,
            Self::Failed(
                NodeFailure::Internal(_)
                | NodeFailure::NothingWritten(_)
                | NodeFailure::OutcomeUnknown(_),
            ) => Code::Internal,
        }
    }

    /// The seconds of `Retry-After`, if the code has that header.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        let usual = self.code().info().retry_after?;
        Some(match self {
            Self::Unavailable(Unavailable::RequestsFull) => 60,
            Self::Unavailable(Unavailable::ClockSkewed { ahead_ms, .. }) => {
                ahead_ms.div_ceil(1000).clamp(1, 3600)
            }
            _ => usual,
        })
    }
}

impl Unavailable {
    fn code(self) -> Code {
        match self {
            Self::Syncing => Code::Syncing,
            Self::ClockSkewed { .. } | Self::ClockOff(_) => Code::ClockSkewed,
            Self::StorageFull | Self::Storage(Obstacle::Full | Obstacle::Low { .. }) => {
                Code::StorageFull
            }
            Self::ReadOnly => Code::ReadOnly,
            Self::ShuttingDown => Code::ShuttingDown,
            Self::Storage(Obstacle::Gone | Obstacle::Failed)
            | Self::Overloaded
            | Self::Crowded
            | Self::Reopening
            | Self::NoDescriptor
            | Self::RequestsFull => Code::Overloaded,
        }
    }
}

impl From<Unavailable> for Error {
    fn from(reason: Unavailable) -> Self {
        Self::Unavailable(reason)
    }
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Full(_) => Unavailable::StorageFull.into(),
            ReadError::Reopening => Unavailable::Reopening.into(),
            ReadError::NoDescriptor(_) => Unavailable::NoDescriptor.into(),
            ReadError::Engine(_) | ReadError::Damaged { .. } => Self::internal(error.to_string()),
        }
    }
}

impl Error {
    /// Why a write of `key` was not accepted.
    pub(crate) fn of_write(error: WriteError, key: &Key, form: RefusalForm) -> Self {
        match error {
            WriteError::PreconditionFailed { current } => {
                Self::PreconditionFailed { current: current.map(|e| (key.clone(), e)), form }
            }
            WriteError::NotFound => Self::KeyNotFound,
            error => Self::of_txn(error),
        }
    }

    /// Why a transaction was not accepted.
    pub(crate) fn of_txn(error: WriteError) -> Self {
        match error {
            WriteError::OtherRequest => Self::IdempotencyMismatch,
            WriteError::RequestsFull => Unavailable::RequestsFull.into(),
            WriteError::ContentTooLarge => Self::AnswerTooLarge,
            WriteError::ClockSkewed { ahead_ms, origin } => {
                Unavailable::ClockSkewed { ahead_ms, origin }.into()
            }
            WriteError::ReadOnly => Unavailable::ReadOnly.into(),
            WriteError::ShuttingDown => Unavailable::ShuttingDown.into(),
            WriteError::StorageFull(_) | WriteError::Failed(ReadError::Full(_)) => {
                Unavailable::StorageFull.into()
            }
            WriteError::Failed(ReadError::Reopening) => Unavailable::Reopening.into(),
            WriteError::Failed(ReadError::NoDescriptor(_)) => Unavailable::NoDescriptor.into(),
            WriteError::Failed(cause @ (ReadError::Engine(_) | ReadError::Damaged { .. })) => {
                Self::Failed(NodeFailure::NothingWritten(cause.to_string()))
            }
            WriteError::OutcomeUnknown(cause) => Self::Failed(NodeFailure::OutcomeUnknown(cause)),
            // the store reports a compare that does not hold in its result
            WriteError::PreconditionFailed { .. } | WriteError::NotFound => {
                Self::internal(format!("the store refused a transaction like one write: {error}"))
            }
        }
    }
}
