//! The one place where an error becomes an answer: `application/problem+json` (RFC 9457).
//!
//! Promises that what failed inside the node stays in its log, as a [`Cause`] that rides on the
//! response; the client learns the request id alone.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::envelope::Envelope;
use super::error::{Error, NodeFailure, Unavailable};
use super::nullable::Nullable;
use crate::model::duration::DurationError;

/// The media type of every refusal.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

const TOO_SLOW: &str = "the header did not arrive within limits.request_timeout, or no byte of the \
                        body came for that time, or fewer than 1,000 bytes a second; send it again";
const TRANSFER_CODED: &str =
    "the only transfer coding is `chunked`; send the body without any other";

/// Why this node failed, for its log; an extension of the response.
#[derive(Clone, Debug)]
pub(crate) struct Cause(pub(crate) String);

/// The body of every refusal.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Problem<'a> {
    /// `urn:kvs:` and the code.
    r#type: String,
    /// The code in words.
    title: &'static str,
    /// The status of the answer.
    status: u16,
    /// What happened, and what to do about it.
    detail: Cow<'a, str>,
    /// The stable name of the error.
    code: &'static str,
    /// `false` where a swap was refused because its expectation does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    swapped: Option<bool>,
    /// The live value where a condition does not hold; `null` without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Nullable<Envelope<'_>>")]
    current: Option<Nullable<Envelope<'a>>>,
    /// The node that wrote the record that lies too far ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Uuid")]
    origin: Option<Uuid>,
}

impl Error {
    /// Status and body, for callers that have no [`Response`] to make.
    pub(crate) fn problem(&self) -> (StatusCode, Vec<u8>) {
        let info = self.code().info();
        let (swapped, current) = match self {
            Self::PreconditionFailed { current, form } => {
                let current = current.as_ref();
                let current =
                    current.map(|(key, entry)| Envelope::of_current(key, entry, form.content));
                (form.swap.then_some(false), Some(Nullable(current)))
            }
            _ => (None, None),
        };
        let origin = match self {
            Self::Unavailable(Unavailable::ClockSkewed { origin, .. }) => *origin,
            _ => None,
        };
        let problem = Problem {
            r#type: format!("urn:kvs:{}", info.name),
            title: info.title,
            status: info.status.as_u16(),
            detail: self.detail(),
            code: info.name,
            swapped,
            current,
            origin: origin.map(|origin| origin.uuid()),
        };
        (info.status, serde_json::to_vec(&problem).unwrap_or_default())
    }

    /// What happened and what to do about it.
    fn detail(&self) -> Cow<'_, str> {
        match self {
            Self::BadRequest(detail) => Cow::Borrowed(detail),
            Self::Key(error) => error.to_string().into(),
            Self::BadJson(problem) => {
                format!("the body cannot be read as JSON: {problem}; correct it").into()
            }
            Self::BadDuration(error) => bad_duration(error).into(),
            Self::BadCursor => {
                "`after` must be the `next` of an earlier page of the same prefix, and `since` \
                 that of an earlier answer"
                    .into()
            }
            Self::UnknownField { name, nearest, hint, known } => {
                unknown(name, *nearest, *hint, known).into()
            }
            Self::At { place, error } => format!("in `{place}`: {}", error.detail()).into(),
            Self::KeyNotFound => "the key has no live value".into(),
            Self::KeyUnknown => "this node has no value of the key, neither now nor earlier".into(),
            Self::RevisionNotFound(why) | Self::Forbidden(why) => (*why).into(),
            Self::MemberNotFound(id) => no_member(*id).into(),
            Self::NoSuchRoute(detail)
            | Self::MethodNotAllowed(detail)
            | Self::MemberAlive(detail) => detail.into(),
            Self::NotReplicated(why) => not_replicated(why).into(),
            Self::Misdirected(host) => misdirected(host).into(),
            Self::RequestTimeout => TOO_SLOW.into(),
            Self::PreconditionFailed { current, form } => {
                let uuid = current.as_ref().map(|(_, entry)| entry.header.version.uuid);
                condition_failed(uuid, &form.weak).into()
            }
            Self::ValueTooLarge(max) => {
                format!("the value is larger than {max} bytes (limits.value_bytes_max)").into()
            }
            Self::BodyTooLarge(max) => {
                format!("the JSON body is larger than {max} bytes (limits.body_bytes_max)").into()
            }
            Self::AnswerTooLarge => {
                "the transaction reads, or compares by content, more than limits.body_bytes_max; \
                 split it"
                    .into()
            }
            Self::TooManyOperations { list, max } => format!(
                "`{list}` has more than {max} entries (limits.txn_operations_max); split the \
                 transaction"
            )
            .into(),
            Self::RangeNotSatisfiable(size) => {
                format!("the value has {size} bytes; ask for a range that begins inside it").into()
            }
            Self::UnsupportedMedia => {
                "bodies must not be encoded; send no Content-Encoding but `identity`".into()
            }
            Self::TransferCoding => TRANSFER_CODED.into(),
            Self::FeatureDisabled(key) => format!(
                "this node's configuration turns this off; set `{key} = true` and restart the \
                     node. Another node is no way out: each node decides for itself"
            )
            .into(),
            Self::IdempotencyMismatch => {
                "the uuid already names another request, or a version of the key, or the version \
                 that the request expects; take a new uuid for each request"
                    .into()
            }
            Self::Unavailable(reason) => reason.detail(),
            Self::WaitsFor(members) => waits_for(members).into(),
            Self::Failed(failure) => failure.detail().into(),
        }
    }
}

/// Why a condition does not hold for the live value of this uuid, or for none; `weak` are the
/// versions that it names by weak tags.
fn condition_failed(uuid: Option<Uuid>, weak: &[Uuid]) -> &'static str {
    match uuid {
        Some(uuid) if weak.contains(&uuid) => WEAK_TAG,
        Some(_) => "the condition does not hold; `current` shows the live value",
        None => "the condition does not hold; the key has no live value",
    }
}

/// A refused condition that names the right version, and cannot hold.
const WEAK_TAG: &str = "If-Match names the live value, but by a weak tag (`W/\"...\"`), which \
    never matches: a proxy between you and this node compresses answers and weakens their ETag. \
    Send the tag without `W/`, or let the proxy pass these answers as they are (they say \
    `Cache-Control: no-transform`)";

/// The refusal of a name that is not known.
fn unknown(name: &str, nearest: Option<&str>, hint: Option<&str>, known: &[&str]) -> String {
    let known: Vec<_> = known.iter().map(|known| format!("`{known}`")).collect();
    match (nearest, hint) {
        (Some(nearest), Some(hint)) => {
            format!("`{name}` is not known here; did you mean `{nearest}` ({hint})?")
        }
        (Some(nearest), None) => format!("`{name}` is not known here; did you mean `{nearest}`?"),
        (None, Some(hint)) => format!("`{name}` is not known here: {hint}"),
        (None, None) if known.is_empty() => {
            format!("`{name}` is not known here, nor is any other name; leave it out")
        }
        (None, None) => format!("`{name}` is not known here; known are {}", known.join(", ")),
    }
}

fn bad_duration(error: &DurationError) -> String {
    format!("{error}, or `keep` to keep the current expiry; a value without `ttl` does not expire")
}

fn no_member(id: Uuid) -> String {
    format!("no member has the id {id}; `kvs members -o wide` lists the ids")
}

fn not_replicated(why: &str) -> String {
    format!(
        "no other member is known to hold all writes of this node ({why}), so it does not leave; \
         try again when one is up, or leave without them: `{{\"force\":true}}`, `kvs leave --force`"
    )
}

fn misdirected(host: &str) -> String {
    format!(
        "this node listens on a loopback address, and the Host of the request, `{host}`, is \
         another place; use localhost or 127.0.0.1, or add the name to http.hosts"
    )
}

/// What a node that waits for its first data lacks, and what to do.
fn waits_for(members: &str) -> String {
    format!("this node waits for its first data: {members}; try again")
}

impl Unavailable {
    /// What is wrong, and what to do about it.
    pub(crate) fn detail(self) -> Cow<'static, str> {
        match self {
            Self::Syncing => "this node waits for its first data from a peer; try again",
            Self::ClockSkewed { ahead_ms, origin } => {
                let what = origin.map_or_else(
                    || "the latest time that this node has confirmed to others".to_owned(),
                    |origin| format!("the current record, written by node {origin},"),
                );
                return format!(
                    "{what} lies {ahead_ms} ms ahead of this node's clock; set the wrong clock \
                     right, or try again later"
                )
                .into();
            }
            Self::ReadOnly => {
                "the mode of this node is read_only, and nothing was written; write to another \
                 node, or end the mode: `kvs mode normal`"
            }
            Self::ClockOff(off) => return off.to_string().into(),
            Self::StorageFull => {
                "the disk of this node is full, and nothing was written; try again when it has \
                 room, no restart is needed"
            }
            Self::ShuttingDown => {
                "this node is stopping; read from another one, or try again when it is back. \
                 Writes on conditions go to one node: move all clients of a key together"
            }
            Self::Overloaded => {
                "this node has no memory for the request or its answer now; try again"
            }
            Self::Crowded => {
                "all connections of this node are busy (limits.connections_max); try again"
            }
            Self::Reopening => {
                "storage failed and is being opened again; nothing was read or written; try again"
            }
            Self::NoDescriptor => {
                "this node's process has no file descriptor left to open a data file; try again"
            }
            Self::Storage(obstacle) => return obstacle.to_string().into(),
            Self::RequestsFull => {
                "this node remembers as many requests with a uuid as \
                 limits.idempotency_bytes_max allows, all of the last 10 minutes; try again in a \
                 minute, or raise the limit"
            }
        }
        .into()
    }
}

impl NodeFailure {
    fn detail(&self) -> &'static str {
        match self {
            Self::Internal(_) => "the request failed; X-Request-Id finds the cause in the log",
            Self::NothingWritten(_) => {
                "storage failed, and nothing was written; X-Request-Id finds the cause in the log"
            }
            Self::OutcomeUnknown(_) => {
                "storage failed, and whether the write took place is unknown; read the key before \
                 you write again"
            }
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, body) = self.problem();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after() {
            headers.insert::<HeaderName>(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Self::RangeNotSatisfiable(size) = self
            && let Ok(range) = HeaderValue::from_str(&format!("bytes */{size}"))
        {
            headers.insert(CONTENT_RANGE, range);
        }
        if let Self::Failed(failure) = self {
            response.extensions_mut().insert(Cause(failure.into_cause()));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::answer::error::RefusalForm;
    use crate::model::KeyError;

    #[test]
    fn a_problem_has_its_members_and_leaks_nothing() {
        let (status, body) = Error::internal("secret path").problem();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, 500);
        assert_eq!(body["type"], "urn:kvs:internal");
        assert_eq!(body["status"].as_u64(), Some(500));
        assert!(!body.to_string().contains("secret"));
        assert!(body.get("current").is_none() && body.get("swapped").is_none());
        let response = Error::internal("secret path").into_response();
        assert_eq!(response.extensions().get::<Cause>().unwrap().0, "secret path");
    }

    #[test]
    fn a_failed_condition_shows_null_where_nothing_is() {
        let failed = |swap| {
            let form = RefusalForm { swap, ..RefusalForm::default() };
            Error::PreconditionFailed { current: None, form }.problem().1
        };
        let text = String::from_utf8(failed(true)).unwrap();
        assert!(text.ends_with(r#""swapped":false,"current":null}"#), "{text}");
        let text = String::from_utf8(failed(false)).unwrap();
        assert!(!text.contains("swapped") && text.ends_with(r#""current":null}"#), "{text}");
    }

    #[test]
    fn a_part_of_a_body_is_named_and_keeps_its_code() {
        let known = vec!["y", "z"];
        let unknown = |nearest| Error::UnknownField {
            name: "x".to_owned(),
            nearest,
            hint: None,
            known: known.clone(),
        };
        let error = unknown(None).at("put").at("success[3]");
        let (status, body) = error.problem();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status.as_u16(), body["code"].as_str()), (400, Some("unknown_field")));
        assert_eq!(
            body["detail"].as_str(),
            Some("in `success[3].put`: `x` is not known here; known are `y`, `z`")
        );
        assert_eq!(unknown(Some("y")).detail(), "`x` is not known here; did you mean `y`?");
    }

    #[test]
    fn a_range_outside_says_how_large_the_value_is() {
        let response = Error::RangeNotSatisfiable(7).into_response();
        assert_eq!(response.status(), 416);
        assert_eq!(response.headers()[CONTENT_RANGE], "bytes */7");
    }

    #[test]
    fn every_503_says_when_to_come_back() {
        let reasons = [
            Unavailable::Syncing,
            Unavailable::ClockSkewed { ahead_ms: 1, origin: None },
            Unavailable::StorageFull,
            Unavailable::ShuttingDown,
            Unavailable::Overloaded,
            Unavailable::Crowded,
            Unavailable::Reopening,
            Unavailable::RequestsFull,
        ];
        for reason in reasons {
            let error = Error::from(reason);
            assert!(error.code().info().retry_after.is_some(), "{reason:?}");
            let response = error.into_response();
            assert_eq!(response.status(), 503);
            assert!(response.headers().contains_key(RETRY_AFTER));
        }
        assert!(Error::KeyNotFound.retry_after().is_none());
    }

    #[test]
    fn a_long_key_is_413_and_any_other_bad_key_400() {
        assert_eq!(Error::Key(KeyError::TooLong { bytes: 2000 }).problem().0, 413);
        assert_eq!(Error::Key(KeyError::Nul).problem().0, 400);
    }
}
