//! A value as an answer: its bytes, and the headers that go with them.

use std::time::{Duration, UNIX_EPOCH};

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName,
    LAST_MODIFIED, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;

use super::range::Part;
use super::{App, etag};
use crate::model::{Content, Header};

const KVS_TIMESTAMP: HeaderName = HeaderName::from_static("kvs-timestamp");
const KVS_ORIGIN: HeaderName = HeaderName::from_static("kvs-origin");
const KVS_EXPIRES_AT: HeaderName = HeaderName::from_static("kvs-expires-at");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox");
const BYTES: HeaderValue = HeaderValue::from_static("bytes");

/// The value, whole.
pub(super) fn whole(headers: HeaderMap, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.headers_mut() = headers;
    response
}

/// The value, or the part of it that was asked for; it is not copied.
pub(super) fn part(headers: HeaderMap, body: Bytes, part: Part) -> Response {
    let size = body.len();
    let (body, range) = match part {
        Part::Whole => (body, None),
        Part::Bytes(range) => (body.slice(range.clone()), Some(range)),
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

/// Says that parts of the value can be had.
pub(super) fn accept_ranges(headers: &mut HeaderMap) {
    headers.insert(ACCEPT_RANGES, BYTES);
}

/// The headers of a value.
pub(super) fn headers(app: &App, header: &Header) -> HeaderMap {
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
    // a date in the future is not for Last-Modified (RFC 9110, section 8.8.2.1)
    let modified = header.version.timestamp.min(app.state.clock.now());
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
