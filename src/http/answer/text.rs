//! JSON answers, and the memory that large ones hold until they are sent.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;

use super::error::Error;
use crate::http::server::limits::{Budget, Permit};

/// The media type of JSON.
pub(crate) const JSON: &str = "application/json";
/// The media type of lines of JSON.
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// Answers with `value` as JSON.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Result<Response, Error> {
    let body = serde_json::to_vec(value).map_err(|e| Error::internal(e.to_string()))?;
    Ok(json_bytes(status, body))
}

/// Answers with `body`, which is JSON text.
pub(crate) fn json_bytes(status: StatusCode, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}

/// `value` as JSON text; reserves `bytes`, so that a good estimate saves copies.
pub(crate) fn text<T: Serialize>(value: &T, bytes: usize) -> Result<Vec<u8>, Error> {
    let mut text = Vec::with_capacity(bytes);
    serde_json::to_writer(&mut text, value).map_err(|e| Error::internal(e.to_string()))?;
    Ok(text)
}

/// Ties `permit` to `bytes`: it is returned when their last clone is dropped, wherever they were
/// buffered until then.
pub(crate) fn with_permit(bytes: Bytes, permit: Option<Permit>) -> Bytes {
    struct Owner {
        bytes: Bytes,
        _permit: Permit,
    }
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    match permit {
        Some(permit) => Bytes::from_owner(Owner { bytes, _permit: permit }),
        None => bytes,
    }
}

/// Ties `permit`, taken from `budget` for the content that `text` shows, to the text, and returns
/// what the text does not need.
pub(crate) fn with_fitting_permit(
    budget: &Budget,
    text: Vec<u8>,
    mut permit: Option<Permit>,
) -> Bytes {
    if let Some(permit) = &mut permit {
        budget.shrink(permit, text.capacity());
    }
    with_permit(Bytes::from(text), permit)
}
