//! A value as an answer: its bytes and its headers.
//!
//! The bytes are never copied.

use std::time::{Duration, UNIX_EPOCH};

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName,
    LAST_MODIFIED, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;

use crate::http::request::etag;
use crate::http::request::range::ValuePart;
use crate::model::{Content, Header, Timestamp};

const KVS_TIMESTAMP: HeaderName = HeaderName::from_static("kvs-timestamp");
const KVS_ORIGIN: HeaderName = HeaderName::from_static("kvs-origin");
const KVS_EXPIRES_AT: HeaderName = HeaderName::from_static("kvs-expires-at");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox");
const BYTES: HeaderValue = HeaderValue::from_static("bytes");

/// A whole value.
pub(crate) fn whole(headers: HeaderMap, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.headers_mut() = headers;
    response
}

/// A value, or the requested part of it with status 206.
pub(crate) fn part(headers: HeaderMap, body: Bytes, part: ValuePart) -> Response {
    let size = body.len();
    let (body, range) = match part {
        ValuePart::Whole => (body, None),
        ValuePart::Bytes(range) => (body.slice(range.clone()), Some(range)),
    };
    let mut response = whole(headers, body);
    accept_ranges(response.headers_mut());
    if let Some(range) = range {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let (first, last) = (range.start, range.end.saturating_sub(1));
        let text = format!("bytes {first}-{last}/{size}");
        insert_text(response.headers_mut(), CONTENT_RANGE, &text);
    }
    response
}

/// Announces that the resource serves ranges.
pub(crate) fn accept_ranges(headers: &mut HeaderMap) {
    headers.insert(ACCEPT_RANGES, BYTES);
}

/// The headers of a value, at the time `now`.
pub(crate) fn headers(header: &Header, now: Timestamp) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    if let Content::Value { content_type, .. } = &header.content {
        let value = match content_type.as_str() {
            "application/octet-stream" => HeaderValue::from_static("application/octet-stream"),
            "application/json" => HeaderValue::from_static("application/json"),
            other => HeaderValue::from_str(other)
                .unwrap_or(HeaderValue::from_static("application/octet-stream")),
        };
        headers.insert(CONTENT_TYPE, value);
    }
    headers.insert(ETAG, etag::of(header.version.uuid));
    // Last-Modified must not lie in the future (RFC 9110, section 8.8.2.1)
    let modified = header.version.timestamp.min(now);
    let modified = UNIX_EPOCH + Duration::from_micros(modified.micros());
    insert_text(&mut headers, LAST_MODIFIED, &httpdate::fmt_http_date(modified));
    headers.insert(KVS_TIMESTAMP, HeaderValue::from(header.version.timestamp.micros()));
    let mut buffer = uuid::Uuid::encode_buffer();
    let origin = header.origin.uuid().hyphenated().encode_lower(&mut buffer);
    insert_text(&mut headers, KVS_ORIGIN, origin);
    if let Some(at) = header.expires_at {
        insert_text(&mut headers, KVS_EXPIRES_AT, &at.rfc3339());
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers.insert(CONTENT_SECURITY_POLICY, SANDBOX);
    headers
}

fn insert_text(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
