//! The only place where an error becomes a status.
//!
//! Every refusal is an [`Error`]; its answer is `application/problem+json` (RFC 9457) with a stable
//! code. What an internal failure was about goes to the log alone, as a [`Cause`] that rides on the
//! response; the client learns only the request id.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::answer::MaybeNull;
use super::envelope::Envelope;
use crate::model::duration::DurationError;
use crate::model::{Key, KeyError};
use crate::store::{Entry, ReadError, WriteError};

/// The reason that is told to the operator instead of the client.
#[derive(Clone, Debug)]
pub(super) struct Cause(pub String);

/// Why a request is refused. Nothing was changed, unless a variant says otherwise.
#[derive(Debug)]
pub(super) enum Error {
    /// The request makes no sense as it is; the text says what to change.
    BadRequest(Cow<'static, str>),
    /// The path names no possible key or prefix, or one that is too long.
    Key(KeyError),
    /// The body is no JSON, holds a member twice, or is nested too deep.
    BadJson(String),
    /// A time to live that is neither a duration nor `keep`.
    BadDuration(DurationError),
    /// `after` was not given out as `next` for this prefix.
    BadCursor,
    /// A query parameter or JSON member that does not exist.
    UnknownField(String),
    /// One of the above, or of those on limits, in one part of the body.
    At {
        /// Which part, as in `success[3]`.
        place: String,
        /// What is wrong with it.
        error: Box<Error>,
    },
    /// There is no live value.
    KeyNotFound,
    /// There is no record of the key, neither now nor earlier.
    KeyUnknown,
    /// There is no such revision whose bytes could be given; the text says why.
    RevisionNotFound(&'static str),
    /// There is nothing at this path.
    NoSuchRoute,
    /// There is something at this path, but not for this method.
    MethodNotAllowed,
    /// The request's header or body came too slowly.
    RequestTimeout,
    /// A condition does not hold.
    PreconditionFailed {
        /// The live value at the moment of the decision.
        current: Option<(Key, Box<Entry>)>,
        /// Whether the request was a swap, whose answers say `swapped`.
        swap: bool,
    },
    /// The value is larger than the limit, in bytes.
    ValueTooLarge(usize),
    /// The JSON body is larger than the limit, in bytes.
    BodyTooLarge(usize),
    /// A list of a transaction has more entries than the limit.
    TooManyOperations {
        /// Its name.
        list: &'static str,
        /// The limit.
        max: usize,
    },
    /// The value has these many bytes, and none where they are asked for.
    RangeNotSatisfiable(usize),
    /// The body is compressed or otherwise encoded.
    UnsupportedMedia,
    /// The configuration key that turns the feature on.
    FeatureDisabled(&'static str),
    /// This node has no data yet.
    Syncing,
    /// The current record's timestamp is this many milliseconds too far ahead.
    ClockSkewed(u64),
    /// There is no room on the disk.
    StorageFull,
    /// The node is stopping.
    ShuttingDown,
    /// No memory for the body, or for the answer, for a while.
    Overloaded,
    /// Storage failed and is being opened again.
    Reopening,
    /// The uuid of the request is that of another one.
    IdempotencyMismatch,
    /// No further request with a uuid can be remembered now.
    RequestMemoryFull,
    /// What a transaction reads does not fit into an answer.
    AnswerTooLarge,
    /// A failure that is not the client's; the text is for the log.
    Internal(String),
    /// The same of a write, of which nothing took place.
    NothingWritten(String),
    /// The same after the write was begun: whether it took place is unknown.
    OutcomeUnknown(String),
}

/// The members that every problem has, and the two that a failed condition adds.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: Cow<'a, str>,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    swapped: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<MaybeNull<Envelope<'a>>>,
}

impl Error {
    /// A request that makes no sense, with what to do about it.
    pub(super) fn bad(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::BadRequest(detail.into())
    }

    /// The same in a part of the body.
    pub(super) fn at(self, place: impl Into<String>) -> Self {
        let place = place.into();
        match self {
            Self::At { place: inner, error } => Self::At { place: place + "." + &inner, error },
            error => Self::At { place, error: Box::new(error) },
        }
    }

    /// Status, code and title.
    fn kind(&self) -> (StatusCode, &'static str, &'static str) {
        type S = StatusCode;
        match self {
            Self::BadRequest(_) => (S::BAD_REQUEST, "bad_request", "Bad request"),
            Self::Key(KeyError::TooLong { .. }) => {
                (S::PAYLOAD_TOO_LARGE, "key_too_long", "Key too long")
            }
            Self::Key(_) => (S::BAD_REQUEST, "bad_key", "Bad key"),
            Self::BadJson(_) => (S::BAD_REQUEST, "bad_json", "Bad JSON"),
            Self::BadDuration(_) => (S::BAD_REQUEST, "bad_duration", "Bad duration"),
            Self::BadCursor => (S::BAD_REQUEST, "bad_cursor", "Bad cursor"),
            Self::UnknownField(_) => (S::BAD_REQUEST, "unknown_field", "Unknown field"),
            Self::At { error, .. } => error.kind(),
            Self::KeyNotFound | Self::KeyUnknown => {
                (S::NOT_FOUND, "key_not_found", "Key not found")
            }
            Self::RevisionNotFound(_) => (S::NOT_FOUND, "revision_not_found", "Revision not found"),
            Self::NoSuchRoute => (S::NOT_FOUND, "no_such_route", "No such route"),
            Self::MethodNotAllowed => {
                (S::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed")
            }
            Self::RequestTimeout => (S::REQUEST_TIMEOUT, "request_timeout", "Request timeout"),
            Self::PreconditionFailed { .. } => {
                (S::PRECONDITION_FAILED, "precondition_failed", "Precondition failed")
            }
            Self::ValueTooLarge(_) => (S::PAYLOAD_TOO_LARGE, "value_too_large", "Value too large"),
            Self::BodyTooLarge(_) | Self::AnswerTooLarge => {
                (S::PAYLOAD_TOO_LARGE, "body_too_large", "Body too large")
            }
            Self::TooManyOperations { .. } => {
                (S::PAYLOAD_TOO_LARGE, "too_many_operations", "Too many operations")
            }
            Self::RangeNotSatisfiable(_) => {
                (S::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", "Range not satisfiable")
            }
            Self::UnsupportedMedia => {
                (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media", "Unsupported media")
            }
            Self::FeatureDisabled(_) => {
                (S::NOT_IMPLEMENTED, "feature_disabled", "Feature disabled")
            }
            Self::Syncing => (S::SERVICE_UNAVAILABLE, "syncing", "Syncing"),
            Self::ClockSkewed(_) => (S::SERVICE_UNAVAILABLE, "clock_skewed", "Clock skewed"),
            Self::StorageFull => (S::SERVICE_UNAVAILABLE, "storage_full", "Storage full"),
            Self::ShuttingDown => (S::SERVICE_UNAVAILABLE, "shutting_down", "Shutting down"),
            Self::Overloaded | Self::Reopening | Self::RequestMemoryFull => {
                (S::SERVICE_UNAVAILABLE, "overloaded", "Overloaded")
            }
            Self::IdempotencyMismatch => {
                (S::CONFLICT, "idempotency_mismatch", "Idempotency mismatch")
            }
            Self::Internal(_) | Self::NothingWritten(_) | Self::OutcomeUnknown(_) => {
                (S::INTERNAL_SERVER_ERROR, "internal", "Internal error")
            }
        }
    }

    /// What happened and what to do, in plain words.
    fn detail(&self) -> Cow<'_, str> {
        match self {
            Self::BadRequest(detail) => Cow::Borrowed(detail),
            Self::Key(error) => error.to_string().into(),
            Self::BadJson(problem) => format!("the body is not acceptable JSON: {problem}").into(),
            Self::BadDuration(error) => {
                format!("{error}, or `keep` to keep the current expiry").into()
            }
            Self::BadCursor => {
                "`after` takes the `next` of an earlier page of the same prefix".into()
            }
            Self::UnknownField(name) => format!("there is no `{name}` here; leave it out").into(),
            Self::At { place, error } => format!("in `{place}`: {}", error.detail()).into(),
            Self::KeyNotFound => "the key has no live value".into(),
            Self::KeyUnknown => "this node knows of no value that the key has or had".into(),
            Self::RevisionNotFound(why) => (*why).into(),
            Self::NoSuchRoute => "there is nothing at this path".into(),
            Self::MethodNotAllowed => "this path takes the methods that `Allow` lists".into(),
            Self::RequestTimeout => "the request came too slowly; send it again, faster".into(),
            Self::PreconditionFailed { .. } => {
                "the condition does not hold; `current` is what is there now".into()
            }
            Self::ValueTooLarge(max) => format!("a value has at most {max} bytes").into(),
            Self::BodyTooLarge(max) => format!("a JSON body has at most {max} bytes").into(),
            Self::TooManyOperations { list, max } => format!(
                "`{list}` has more than {max} entries (limits.txn_operations_max); split what need \
                 not be decided together"
            )
            .into(),
            Self::RangeNotSatisfiable(size) => {
                format!("the value has {size} bytes; ask for a range that begins among them").into()
            }
            Self::UnsupportedMedia => {
                "values are stored as they come; send no Content-Encoding but `identity`".into()
            }
            Self::FeatureDisabled(key) => {
                format!("turned off by the configuration key `{key}`").into()
            }
            Self::ClockSkewed(ahead_ms) => format!(
                "the current record's timestamp is {ahead_ms} ms ahead of this node's clock; check \
                 the clocks, or try again later"
            )
            .into(),
            Self::IdempotencyMismatch => {
                "this uuid names another request that was accepted on this node, or a version of \
                 the key, or is the one that is expected; take a new uuid"
                    .into()
            }
            Self::AnswerTooLarge => {
                "what the transaction reads, or compares by its content, is more than \
                 limits.body_bytes_max; do less at once"
                    .into()
            }
            of_this_node => of_this_node.trouble().into(),
        }
    }

    /// The same of what is no fault of the request.
    fn trouble(&self) -> &'static str {
        match self {
            Self::Syncing => "this node waits for its first data from a peer; try again",
            Self::StorageFull => {
                "the disk of this node is full, and nothing was written; it goes on by itself when \
                 there is room"
            }
            Self::ShuttingDown => "this node is stopping; use another one",
            Self::Overloaded => "no memory for the request or its answer; try again",
            Self::Reopening => {
                "storage failed, nothing was read or written, and it is being opened again; try \
                 again"
            }
            Self::RequestMemoryFull => {
                "limits.idempotency_bytes_max is reached: no further request with a uuid can be \
                 remembered; try again later, or send it without one"
            }
            Self::NothingWritten(_) => {
                "storage failed, and nothing was written; the request's id finds the log line"
            }
            Self::OutcomeUnknown(_) => {
                "storage failed, and whether the write took place is unknown; read the key before \
                 writing again"
            }
            _ => "the request failed; its id finds the log line",
        }
    }

    /// Seconds until it may help to ask again.
    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Syncing | Self::ShuttingDown | Self::Overloaded | Self::Reopening => Some(1),
            Self::StorageFull => Some(5),
            Self::RequestMemoryFull => Some(60),
            Self::ClockSkewed(ahead_ms) => Some(ahead_ms.div_ceil(1000).clamp(1, 3600)),
            _ => None,
        }
    }

    /// Status and body, for where there is no [`Response`] to make.
    pub(super) fn problem(&self) -> (StatusCode, Vec<u8>) {
        let (status, code, title) = self.kind();
        let (swapped, current) = match self {
            Self::PreconditionFailed { current, swap } => (
                swap.then_some(false),
                Some(MaybeNull(
                    current.as_ref().map(|(key, entry)| Envelope::of_current(key, entry)),
                )),
            ),
            _ => (None, None),
        };
        let problem = Problem {
            r#type: format!("urn:kvs:{code}"),
            title,
            status: status.as_u16(),
            detail: self.detail(),
            code,
            swapped,
            current,
        };
        (status, serde_json::to_vec(&problem).unwrap_or_default())
    }
}

/// The media type of every refusal.
pub(super) const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, body) = self.problem();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        if let Some(seconds) = self.retry_after() {
            headers.insert::<HeaderName>(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Self::RangeNotSatisfiable(size) = self
            && let Ok(range) = HeaderValue::from_str(&format!("bytes */{size}"))
        {
            headers.insert(CONTENT_RANGE, range);
        }
        if let Self::Internal(cause) | Self::NothingWritten(cause) | Self::OutcomeUnknown(cause) =
            self
        {
            response.extensions_mut().insert(Cause(cause));
        }
        response
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
            ReadError::Full(_) => Self::StorageFull,
            ReadError::Reopening => Self::Reopening,
            ReadError::Engine(_) | ReadError::Damaged { .. } => Self::Internal(error.to_string()),
        }
    }
}

impl Error {
    /// The answer to a write of `key` that was not accepted; `swap` for compare-and-swap.
    pub(super) fn of_write(error: WriteError, key: &Key, swap: bool) -> Self {
        match error {
            WriteError::PreconditionFailed { current } => {
                Self::PreconditionFailed { current: current.map(|e| (key.clone(), e)), swap }
            }
            WriteError::NotFound => Self::KeyNotFound,
            error => Self::of_txn(error),
        }
    }

    /// The answer to a transaction that was not accepted.
    pub(super) fn of_txn(error: WriteError) -> Self {
        match error {
            WriteError::OtherRequest => Self::IdempotencyMismatch,
            WriteError::RequestsFull => Self::RequestMemoryFull,
            WriteError::ContentTooLarge => Self::AnswerTooLarge,
            WriteError::ClockSkewed { ahead_ms } => Self::ClockSkewed(ahead_ms),
            WriteError::ShuttingDown => Self::ShuttingDown,
            WriteError::StorageFull(_) | WriteError::Failed(ReadError::Full(_)) => {
                Self::StorageFull
            }
            WriteError::Failed(ReadError::Reopening) => Self::Reopening,
            WriteError::Failed(cause) => Self::NothingWritten(cause.to_string()),
            WriteError::OutcomeUnknown(cause) => Self::OutcomeUnknown(cause),
            // a compare that does not hold is no failure of the transaction
            WriteError::PreconditionFailed { .. } | WriteError::NotFound => {
                Self::Internal(format!("a transaction was refused as one write is: {error}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_its_members_and_leaks_nothing() {
        let (status, body) = Error::Internal("secret path".to_owned()).problem();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, 500);
        assert_eq!(body["type"], "urn:kvs:internal");
        assert_eq!(body["status"].as_u64(), Some(500));
        assert!(!body.to_string().contains("secret"));
        assert!(body.get("current").is_none() && body.get("swapped").is_none());
    }

    #[test]
    fn a_failed_condition_shows_null_where_nothing_is() {
        let failed = |swap| Error::PreconditionFailed { current: None, swap }.problem().1;
        let text = String::from_utf8(failed(true)).unwrap();
        assert!(text.ends_with(r#""swapped":false,"current":null}"#), "{text}");
        let text = String::from_utf8(failed(false)).unwrap();
        assert!(!text.contains("swapped") && text.ends_with(r#""current":null}"#), "{text}");
    }

    #[test]
    fn a_part_of_a_body_is_named_and_keeps_its_code() {
        let error = Error::UnknownField("x".to_owned()).at("put").at("success[3]");
        let (status, body) = error.problem();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status.as_u16(), body["code"].as_str()), (400, Some("unknown_field")));
        assert_eq!(
            body["detail"].as_str(),
            Some("in `success[3].put`: there is no `x` here; leave it out")
        );
    }

    #[test]
    fn a_range_outside_says_how_large_the_value_is() {
        let response = Error::RangeNotSatisfiable(7).into_response();
        assert_eq!(response.status(), 416);
        assert_eq!(response.headers()[CONTENT_RANGE], "bytes */7");
    }

    #[test]
    fn every_503_says_when_to_come_back() {
        let errors = [
            Error::Syncing,
            Error::ClockSkewed(1),
            Error::StorageFull,
            Error::ShuttingDown,
            Error::Overloaded,
            Error::Reopening,
        ];
        for error in errors.into_iter().chain([Error::RequestMemoryFull]) {
            let response = error.into_response();
            assert_eq!(response.status(), 503);
            assert!(response.headers().contains_key(RETRY_AFTER));
        }
    }

    #[test]
    fn a_long_key_is_413_and_any_other_bad_key_400() {
        assert_eq!(Error::Key(KeyError::TooLong { bytes: 2000 }).problem().0, 413);
        assert_eq!(Error::Key(KeyError::Nul).problem().0, 400);
    }
}
