//! The error codes of the API: one table from code to status, title, meaning and retry hint.
//!
//! Promises that [`Code::ALL`] holds every code this version can give, so that the answers, the
//! operations and the API description cannot disagree. A code that was published keeps its name and
//! status. Knows nothing of requests or of the store.

use axum::http::StatusCode;

/// What the table says of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CodeInfo {
    /// The stable name: the member `code`, and the end of `type`.
    pub(crate) name: &'static str,
    /// The status of every answer with this code.
    pub(crate) status: StatusCode,
    /// The member `title`.
    pub(crate) title: &'static str,
    /// When the API gives it, for its description.
    pub(crate) when: &'static str,
    /// The seconds of `Retry-After`, where an error does not give others. `None`: no such header,
    /// as repeating the request unchanged does not help.
    pub(crate) retry_after: Option<u64>,
}

macro_rules! codes {
    ($(
        $code:ident = $name:literal, $status:ident, $retry:expr, $title:literal, $when:literal;
    )*) => {
        /// A stable error code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Code {
            $(#[doc = $when] $code,)*
        }

        impl Code {
            /// Every code, in the order of the table.
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$code),*];

            /// The row of the table.
            pub(crate) const fn info(self) -> CodeInfo {
                match self {
                    $(Self::$code => CodeInfo {
                        name: $name,
                        status: StatusCode::$status,
                        title: $title,
                        when: $when,
                        retry_after: $retry,
                    },)*
                }
            }
        }
    };
}

codes! {
    BadRequest = "bad_request", BAD_REQUEST, None, "Bad request",
        "The request makes no sense as it is.";
    BadKey = "bad_key", BAD_REQUEST, None, "Bad key",
        "The path or the body names no possible key or prefix.";
    BadJson = "bad_json", BAD_REQUEST, None, "Bad JSON",
        "The body is not JSON, repeats a member, or is nested too deep.";
    BadDuration = "bad_duration", BAD_REQUEST, None, "Bad duration",
        "A time to live is neither a duration nor `keep`.";
    BadCursor = "bad_cursor", BAD_REQUEST, None, "Bad cursor",
        "`after` is not the `next` of a page of this prefix.";
    UnknownField = "unknown_field", BAD_REQUEST, None, "Unknown field",
        "The query or the body has a member that the operation does not have.";
    Forbidden = "forbidden", FORBIDDEN, None, "Forbidden",
        "A web page of another origin sent the request, and `http.origins` does not name it.";
    KeyNotFound = "key_not_found", NOT_FOUND, None, "Key not found",
        "The key has no live value.";
    RevisionNotFound = "revision_not_found", NOT_FOUND, None, "Revision not found",
        "This node has no bytes of that revision.";
    NoSuchRoute = "no_such_route", NOT_FOUND, None, "No such route",
        "No resource has this path.";
    MemberNotFound = "member_not_found", NOT_FOUND, None, "Member not found",
        "No member of the cluster has this id.";
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, None, "Method not allowed",
        "The resource does not have this method; `Allow` lists those that it has.";
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, None, "Request timeout",
        "The header did not arrive within `limits.request_timeout`, or the body was silent or \
         slow.";
    IdempotencyMismatch = "idempotency_mismatch", CONFLICT, None, "Idempotency mismatch",
        "The uuid already names another request or version, or the expected one.";
    MemberAlive = "member_alive", CONFLICT, None, "Member alive",
        "The member runs, so it cannot be forgotten.";
    NotReplicated = "not_replicated", CONFLICT, None, "Not replicated",
        "No other member holds all writes of this node, so it does not leave.";
    PreconditionFailed = "precondition_failed", PRECONDITION_FAILED, None, "Precondition failed",
        "A condition does not hold; `current` shows the live value.";
    ValueTooLarge = "value_too_large", PAYLOAD_TOO_LARGE, None, "Value too large",
        "A value is larger than `limits.value_bytes_max`.";
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, None, "Body too large",
        "The JSON body, or what a transaction reads, is larger than `limits.body_bytes_max`.";
    KeyTooLong = "key_too_long", PAYLOAD_TOO_LARGE, None, "Key too long",
        "A key is longer than 1,024 bytes.";
    TooManyOperations = "too_many_operations", PAYLOAD_TOO_LARGE, None, "Too many operations",
        "A list of a transaction is longer than `limits.txn_operations_max`.";
    UnsupportedMedia = "unsupported_media", UNSUPPORTED_MEDIA_TYPE, None, "Unsupported media",
        "The body has a `Content-Encoding` besides `identity`, or a transfer coding besides \
         `chunked`.";
    RangeNotSatisfiable = "range_not_satisfiable", RANGE_NOT_SATISFIABLE, None,
        "Range not satisfiable",
        "The range lies outside of the value; `Content-Range` gives its size.";
    Misdirected = "misdirected", MISDIRECTED_REQUEST, None, "Misdirected request",
        "This node listens on a loopback address, and `Host` names neither that nor a host of \
         `http.hosts`.";
    FeatureDisabled = "feature_disabled", NOT_IMPLEMENTED, None, "Feature disabled",
        "The configuration of this node turns the feature off; the text names the key.";
    Syncing = "syncing", SERVICE_UNAVAILABLE, Some(1), "Syncing",
        "This node waits for its first data from a peer.";
    ClockSkewed = "clock_skewed", SERVICE_UNAVAILABLE, Some(1), "Clock skewed",
        "The write's timestamp would lie too far ahead of this node's clock, or that clock \
         disagrees with those of most peers.";
    StorageFull = "storage_full", SERVICE_UNAVAILABLE, Some(5), "Storage full",
        "The disk of this node is full.";
    ReadOnly = "read_only", SERVICE_UNAVAILABLE, None, "Read only",
        "The mode of this node is `read_only`: it takes no writes of clients.";
    ShuttingDown = "shutting_down", SERVICE_UNAVAILABLE, Some(1), "Shutting down",
        "This node is stopping.";
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, Some(1), "Overloaded",
        "A limit of this node on memory, connections or remembered requests is reached.";
    Internal = "internal", INTERNAL_SERVER_ERROR, None, "Internal error",
        "This node failed; `X-Request-Id` finds the line in its log.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_only_503_says_when_to_retry() {
        let names: BTreeSet<_> = Code::ALL.iter().map(|code| code.info().name).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            let info = code.info();
            let passes = info.status == 503 && *code != Code::ReadOnly;
            assert_eq!(info.retry_after.is_some(), passes, "{info:?}");
            assert!(info.status.is_client_error() || info.status.is_server_error(), "{info:?}");
            assert!(!info.title.is_empty() && info.when.ends_with('.'), "{info:?}");
        }
    }
}
