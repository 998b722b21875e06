//! Answers in JSON: the one body that all accepted writes share, and the way any body is sent.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use super::App;
use super::body::Held;
use super::error::Error;
use crate::model::{Key, Timestamp};
use crate::store::Written;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// `value` as the body of an answer.
pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Result<Response, Error> {
    let body = serde_json::to_vec(value).map_err(|e| Error::Internal(e.to_string()))?;
    Ok(json_bytes(status, body))
}

/// `value` as JSON text; `bytes` is about how long it gets, so that memory is taken once.
pub(super) fn text<T: Serialize>(value: &T, bytes: usize) -> Result<Vec<u8>, Error> {
    let mut text = Vec::with_capacity(bytes);
    serde_json::to_writer(&mut text, value).map_err(|e| Error::Internal(e.to_string()))?;
    Ok(text)
}

/// `bytes` together with the memory that is held for them. It is given back when the last of them
/// was handed to the system, or the connection is gone: not before, wherever they are buffered.
pub(super) fn with_room(bytes: Bytes, held: Option<Held>) -> Bytes {
    struct Kept {
        bytes: Bytes,
        _held: Held,
    }
    impl AsRef<[u8]> for Kept {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    match held {
        Some(held) => Bytes::from_owner(Kept { bytes, _held: held }),
        None => bytes,
    }
}

/// Text that was made of content for which `held` was taken: keeps no more than the text needs.
pub(super) fn fitted(app: &App, text: Vec<u8>, mut held: Option<Held>) -> Bytes {
    if let Some(held) = &mut held {
        app.answers.shrink(held, text.capacity());
    }
    with_room(Bytes::from(text), held)
}

/// JSON text as the body of an answer.
pub(super) fn json_bytes(status: StatusCode, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// The body that tells of an accepted write.
#[derive(Serialize)]
pub(super) struct Accepted<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    swapped: Option<bool>,
    key: &'a str,
    uuid: Uuid,
    timestamp: Timestamp,
    origin: Uuid,
    /// The decision was made on this node alone.
    scope: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<MaybeNull<Previous>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

/// A member that is there and may be `null`, unlike one that is left out.
#[derive(Debug)]
pub(super) struct MaybeNull<T>(pub Option<T>);

impl<T: Serialize> Serialize for MaybeNull<T> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

#[derive(Serialize)]
struct Previous {
    uuid: Uuid,
    timestamp: Timestamp,
}

impl<'a> Accepted<'a> {
    /// Of a put.
    pub(super) fn put(key: &'a Key, written: &Written) -> Self {
        let header = &written.header;
        Self {
            swapped: None,
            key: key.as_str(),
            uuid: header.version.uuid,
            timestamp: header.version.timestamp,
            origin: header.origin.uuid(),
            scope: "local",
            deleted: None,
            previous: None,
            expires_at: header.expires_at.map(Timestamp::rfc3339),
        }
    }

    /// Of a delete.
    pub(super) fn delete(key: &'a Key, written: &Written) -> Self {
        Self { deleted: Some(true), ..Self::put(key, written) }
    }

    /// Of a compare-and-swap.
    pub(super) fn swap(key: &'a Key, written: &Written) -> Self {
        let previous = written.previous.map(|(uuid, timestamp)| Previous { uuid, timestamp });
        Self { swapped: Some(true), previous: Some(MaybeNull(previous)), ..Self::put(key, written) }
    }
}
