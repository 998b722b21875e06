//! What all writes have in common: they run to their end, whether or not the client stays.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, IF_UNMODIFIED_SINCE};

use super::App;
use super::body::Held;
use super::error::Error;
use crate::model::ContentType;
use crate::store::{Write, WriteError, Written};

type Answer = Result<Written, WriteError>;

/// Hands `write` to the store. `held`, the memory of its body, is given back with the answer. When
/// the returned future is dropped, because the client left, the write goes on without it.
pub(super) fn commit(app: &Arc<App>, write: Write, held: Option<Held>) -> Commit {
    let store = app.state.store.clone();
    let running = Box::pin(async move {
        let answer = store.write(write).await;
        drop(held);
        answer
    });
    Commit { running: Some(running), app: Arc::clone(app) }
}

/// A write under way.
pub(super) struct Commit {
    running: Option<Pin<Box<dyn Future<Output = Answer> + Send>>>,
    app: Arc<App>,
}

impl Future for Commit {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        // taken out meanwhile, so that a write that panics is not gone on with
        let Some(mut running) = self.running.take() else { return Poll::Pending };
        let polled = running.as_mut().poll(cx);
        if polled.is_pending() {
            self.running = Some(running);
        }
        polled
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        // without a runtime nothing can go on
        let stopped = tokio::runtime::Handle::try_current().is_err();
        let Some(running) = self.running.take().filter(|_| !stopped) else { return };
        if let Ok(mut detached) = self.app.detached.lock() {
            while detached.try_join_next().is_some() {}
            detached.spawn(async move {
                let _ = running.await;
            });
        }
    }
}

/// Refuses the headers that would change what a write means and are not understood.
pub(super) fn check_headers(headers: &HeaderMap) -> Result<(), Error> {
    if headers.contains_key("idempotency-key") {
        return Err(Error::bad("Idempotency-Key is not supported; leave it out"));
    }
    if headers.contains_key(IF_UNMODIFIED_SINCE) {
        return Err(Error::bad("If-Unmodified-Since is not supported; use If-Match"));
    }
    Ok(())
}

/// Refuses a value that is not sent as it is.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), Error> {
    let identity = |value: &[u8]| {
        value.split(|b| *b == b',').all(|c| c.trim_ascii().eq_ignore_ascii_case(b"identity"))
    };
    if headers.get_all(CONTENT_ENCODING).iter().all(|value| identity(value.as_bytes())) {
        Ok(())
    } else {
        Err(Error::UnsupportedMedia)
    }
}

/// The content type of a value, as its header gives it.
pub(super) fn content_type(headers: &HeaderMap) -> Result<ContentType, Error> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let Some(value) = values.next() else { return Ok(ContentType::octet_stream()) };
    if values.next().is_some() {
        return Err(Error::bad("Content-Type is there twice; give it once"));
    }
    parse_content_type(value.to_str().unwrap_or_default())
}

/// Checks a content type: what the model asks, and the form `type/subtype` (RFC 9110, section
/// 8.3.1).
pub(super) fn parse_content_type(text: &str) -> Result<ContentType, Error> {
    let token = |text: &str| {
        let symbol = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        !text.is_empty() && text.bytes().all(symbol)
    };
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    let formed = essence.split_once('/').is_some_and(|(a, b)| token(a) && token(b));
    match ContentType::parse(text) {
        Ok(content_type) if formed => Ok(content_type),
        Ok(_) => Err(Error::bad("a content type has the form `type/subtype`")),
        Err(error) => Err(Error::bad(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_have_a_type_and_a_subtype() {
        for good in ["text/plain", "text/plain; charset=utf-8", "application/problem+json"] {
            assert!(parse_content_type(good).is_ok(), "{good}");
        }
        for bad in ["", "text", "/", "text/", "te xt/plain", "text/plain/x", " text/plain"] {
            assert!(parse_content_type(bad).is_err(), "{bad}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(content_type(&headers).unwrap().as_str(), "application/octet-stream");
        headers.append(CONTENT_TYPE, "text/plain".parse().unwrap());
        assert_eq!(content_type(&headers).unwrap().as_str(), "text/plain");
        headers.append(CONTENT_TYPE, "text/html".parse().unwrap());
        assert!(content_type(&headers).is_err());
    }

    #[test]
    fn only_identity_is_an_encoding() {
        let check = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_ENCODING, value.parse().unwrap());
            check_encoding(&headers).is_ok()
        };
        assert!(check_encoding(&HeaderMap::new()).is_ok());
        assert!(check("identity") && check("Identity, identity"));
        assert!(!check("gzip") && !check("identity, br") && !check(""));
    }
}
