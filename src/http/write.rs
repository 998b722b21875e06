//! What all writes have in common: they run to their end, whether or not the client stays.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::HeaderMap;
use axum::http::header::{
    CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE,
};

use super::App;
use super::body::Held;
use super::error::Error;
use crate::model::ContentType;
use crate::store::{Write, WriteError, Written};

/// Hands `write` to the store. `held`, the memory of its body, is given back with the answer.
pub(super) fn commit(
    app: &Arc<App>,
    write: Write,
    held: Option<Held>,
) -> Running<Result<Written, WriteError>> {
    let store = app.state.store.clone();
    to_its_end(app, async move {
        let answer = store.write(write).await;
        drop(held);
        answer
    })
}

/// Work that goes on without the returned future when that is dropped, because the client left.
pub(super) fn to_its_end<T>(
    app: &Arc<App>,
    work: impl Future<Output = T> + Send + 'static,
) -> Running<T> {
    Running { work: Some(Box::pin(work)), app: Arc::clone(app) }
}

/// A write under way.
pub(super) struct Running<T: 'static> {
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    app: Arc<App>,
}

impl<T> Future for Running<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // taken out meanwhile, so that a write that panics is not gone on with
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        // without a runtime nothing can go on
        let stopped = tokio::runtime::Handle::try_current().is_err();
        let Some(work) = self.work.take().filter(|_| !stopped) else { return };
        if let Ok(mut detached) = self.app.detached.lock() {
            while detached.try_join_next().is_some() {}
            detached.spawn(async move {
                let _ = work.await;
            });
        }
    }
}

/// Refuses the headers that would change what a write means and are not understood.
pub(super) fn check_headers(headers: &HeaderMap) -> Result<(), Error> {
    if headers.contains_key(IF_UNMODIFIED_SINCE) {
        return Err(Error::bad("If-Unmodified-Since is not supported; use If-Match"));
    }
    // a part of a value that is taken for the whole would destroy the rest (RFC 9110, section 14.5)
    if headers.contains_key(CONTENT_RANGE) {
        return Err(Error::bad("Content-Range is not supported; send the whole value"));
    }
    Ok(())
}

/// Refuses conditions in headers where the body has a member for them: `instead`.
pub(super) fn check_unconditional(headers: &HeaderMap, instead: &str) -> Result<(), Error> {
    for (header, name) in [(IF_MATCH, "If-Match"), (IF_NONE_MATCH, "If-None-Match")] {
        if headers.contains_key(header) {
            return Err(Error::bad(format!("{name} is not for this route; use `{instead}`")));
        }
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
    use super::super::rig;
    use super::*;
    use crate::store::memory::Memory;

    #[tokio::test]
    async fn what_was_begun_goes_on_when_whoever_asked_is_gone() {
        let app = rig::app(std::sync::Arc::new(Memory::default()), |_| {});
        let (go, going) = tokio::sync::oneshot::channel::<()>();
        let (tell, told) = tokio::sync::oneshot::channel();
        let mut running = to_its_end(&app, async move {
            let _ = going.await;
            let _ = tell.send("done");
        });
        assert!(futures_util::poll!(&mut running).is_pending());
        drop(running);
        drop(go);
        assert_eq!(told.await, Ok("done"));
    }

    #[tokio::test]
    async fn conditions_in_headers_are_refused_where_the_body_has_them() {
        let app = rig::app(std::sync::Arc::new(Memory::default()), |_| {});
        for path in ["/cas/k", "/txn"] {
            for header in ["if-match", "if-none-match", "if-unmodified-since", "content-range"] {
                let mut request = rig::request("POST", path, "{}");
                request.headers_mut().insert(header, "*".parse().unwrap());
                assert_eq!(rig::send(&app, request).await.status(), 400, "{path} {header}");
            }
        }
    }

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
