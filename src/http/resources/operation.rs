//! The form in which a resource describes itself: once, for routing, metrics, parsers and the
//! coming API description.
//!
//! Promises that the description is data: reading it allocates nothing. Knows no resource.

use std::sync::Arc;

use axum::routing::{MethodFilter, MethodRouter};

use crate::http::answer::code::Code;
use crate::http::answer::schema::SchemaOf;
use crate::http::request::query::Parameters;
use crate::http::state::App;

/// A resource: its paths, and its operations.
pub(crate) struct Resource {
    /// The path before a key or prefix.
    pub(crate) base: &'static str,
    /// The path as the API description and the label `route` show it.
    pub(crate) template: &'static str,
    /// Whether a key or prefix follows the base.
    pub(crate) has_rest: bool,
    /// At most one a method.
    pub(crate) operations: &'static [&'static ApiOperation],
}

/// One method of a resource.
pub(crate) struct ApiOperation {
    /// A unique name.
    pub(crate) id: &'static str,
    /// The method.
    pub(crate) verb: Verb,
    /// Makes the route of the handler for the method.
    pub(crate) route: fn(MethodFilter) -> MethodRouter<Arc<App>>,
    /// What it does, in one sentence.
    pub(crate) summary: &'static str,
    /// All parameters that the handler can read; see [`Query`](crate::http::request::query::Query).
    pub(crate) query: Parameters,
    /// The header fields of requests that mean something to it.
    pub(crate) headers: &'static [&'static HeaderField],
    /// The body of requests, if they have one.
    pub(crate) body: Option<BodyForm>,
    /// Its answers, errors excepted.
    pub(crate) answers: &'static [AnswerForm],
    /// The errors that it can give, besides [`COMMON_ERRORS`].
    pub(crate) errors: &'static [&'static [Code]],
    /// A request and its answer.
    pub(crate) example: Example,
}

/// A method that a resource can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// `GET`, and `HEAD` with the same answer without its body.
    Get,
    Put,
    Post,
    Delete,
}

impl Verb {
    /// The name of the method.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }

    /// The method for the router.
    pub(crate) const fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Put => MethodFilter::PUT,
            Self::Post => MethodFilter::POST,
            Self::Delete => MethodFilter::DELETE,
        }
    }
}

/// A header field of requests or answers.
pub(crate) struct HeaderField {
    /// The name, in its usual case.
    pub(crate) name: &'static str,
    /// What it does, in one sentence.
    pub(crate) doc: &'static str,
}

/// The body of a request.
pub(crate) struct BodyForm {
    /// The media types that the operation reads; `*/*` for any.
    pub(crate) media_types: &'static [&'static str],
    /// The schema of JSON; `None` for opaque bytes.
    pub(crate) schema: Option<SchemaOf>,
}

/// An answer that is not an error.
pub(crate) struct AnswerForm {
    /// The status.
    pub(crate) status: u16,
    /// When the operation gives it, in one sentence.
    pub(crate) when: &'static str,
    /// The media types of the body: none without a body, `*/*` for the type of the value.
    pub(crate) media_types: &'static [&'static str],
    /// The schema of JSON, or of each line of it; `None` for opaque bytes and without a body.
    pub(crate) schema: Option<SchemaOf>,
    /// The header fields besides those that every answer has.
    pub(crate) headers: &'static [&'static HeaderField],
}

/// A request and its answer, as the API description shows them. A test sends the request.
pub(crate) struct Example {
    /// Path and query.
    pub(crate) path: &'static str,
    /// The header fields.
    pub(crate) headers: &'static [(&'static str, &'static str)],
    /// The body; empty for none.
    pub(crate) body: &'static str,
    /// The status of the answer.
    pub(crate) status: u16,
    /// The body of the answer; uuids, times and counts differ from node to node.
    pub(crate) answer: &'static str,
}

/// The errors that every operation can give: of its query, of the place that the request is for or
/// comes from, of a coded, slow or cut request, of a node that is busy, stops or fails.
pub(crate) const COMMON_ERRORS: &[Code] = &[
    Code::BadRequest,
    Code::UnknownField,
    Code::Forbidden,
    Code::Misdirected,
    Code::UnsupportedMedia,
    Code::RequestTimeout,
    Code::Overloaded,
    Code::ShuttingDown,
    Code::Internal,
];

/// The errors of a key in the path.
pub(crate) const KEY_ERRORS: &[Code] = &[Code::BadKey, Code::KeyTooLong];

/// The errors of reading from the store.
pub(crate) const READ_ERRORS: &[Code] = &[Code::Syncing, Code::StorageFull];

/// The errors of writing to the store.
pub(crate) const WRITE_ERRORS: &[Code] = &[
    Code::Syncing,
    Code::ReadOnly,
    Code::StorageFull,
    Code::ClockSkewed,
    Code::IdempotencyMismatch,
];

/// The errors of a JSON body that holds values.
pub(crate) const BODY_ERRORS: &[Code] =
    &[Code::BadJson, Code::BadDuration, Code::BodyTooLarge, Code::ValueTooLarge];

impl ApiOperation {
    /// Every error that it can give.
    #[cfg(test)]
    pub(crate) fn all_errors(&self) -> impl Iterator<Item = Code> {
        COMMON_ERRORS.iter().chain(self.errors.iter().copied().flatten()).copied()
    }
}

pub(crate) const IF_MATCH: HeaderField = HeaderField {
    name: "If-Match",
    doc: "Goes on only if the live value has one of these tags; `*` for any.",
};
pub(crate) const IF_NONE_MATCH: HeaderField = HeaderField {
    name: "If-None-Match",
    doc: "Goes on only if the live value has none of these tags; `*` for no live value.",
};
pub(crate) const IF_MODIFIED_SINCE: HeaderField = HeaderField {
    name: "If-Modified-Since",
    doc: "Asks for 304 if the live value has not changed since; does not count beside \
          `If-None-Match`.",
};
pub(crate) const IF_UNMODIFIED_SINCE: HeaderField = HeaderField {
    name: "If-Unmodified-Since",
    doc: "Goes on only if the live value has not changed since; does not count beside `If-Match`.",
};
pub(crate) const IDEMPOTENCY_KEY: HeaderField = HeaderField {
    name: "Idempotency-Key",
    doc: "A uuid that makes the request safe to send again to the same node; on another node it \
          is another write.",
};
pub(crate) const CONTENT_TYPE: HeaderField =
    HeaderField { name: "Content-Type", doc: "The type of the value; an empty value needs one." };
pub(crate) const RANGE: HeaderField =
    HeaderField { name: "Range", doc: "Asks for one range of bytes of the value." };
pub(crate) const IF_RANGE: HeaderField = HeaderField {
    name: "If-Range",
    doc: "Asks for the whole value instead if its tag is not this one.",
};
pub(crate) const ACCEPT: HeaderField =
    HeaderField { name: "Accept", doc: "`application/x-ndjson` asks for one envelope a line." };
pub(crate) const ETAG: HeaderField =
    HeaderField { name: "ETag", doc: "The uuid of the version in quotes." };
pub(crate) const LAST_MODIFIED: HeaderField =
    HeaderField { name: "Last-Modified", doc: "The timestamp of the version, to the second." };
pub(crate) const KVS_TIMESTAMP: HeaderField =
    HeaderField { name: "Kvs-Timestamp", doc: "The timestamp of the version, in microseconds." };
pub(crate) const KVS_ORIGIN: HeaderField =
    HeaderField { name: "Kvs-Origin", doc: "The node that accepted the write." };
pub(crate) const KVS_EXPIRES_AT: HeaderField =
    HeaderField { name: "Kvs-Expires-At", doc: "When the value expires; missing if it does not." };
pub(crate) const ACCEPT_RANGES: HeaderField =
    HeaderField { name: "Accept-Ranges", doc: "`bytes`: ranges of the value are served." };
pub(crate) const CONTENT_RANGE: HeaderField =
    HeaderField { name: "Content-Range", doc: "The range in the answer, and the whole size." };
pub(crate) const VARY: HeaderField =
    HeaderField { name: "Vary", doc: "`accept`: the form of the answer depends on `Accept`." };
