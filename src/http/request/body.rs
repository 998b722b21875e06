//! Request bodies, bounded: each by its limit, all together by a budget of memory.
//!
//! A body that is announced as too large is refused before a byte is read, any other as soon as it
//! exceeds its limit. A body that is too large is never in memory as a whole.

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::http::answer::error::Error;
use crate::http::server::limits::{LARGE_BYTES_MIN, Permit};
use crate::http::state::{App, PARSING_FACTOR};

/// Reads a value, and takes the memory for it.
///
/// # Errors
/// `value_too_large`, `request_timeout`, `overloaded`, or `bad_request` for a body that is cut.
pub(crate) async fn value(app: &App, body: Body) -> Result<(Bytes, Permit), Error> {
    let max = app.state.config.limits.value_bytes_max;
    read(app, body, max, |size| size).await?.ok_or(Error::ValueTooLarge(max))
}

/// How many times its size a large JSON body takes, itself included: bytes that are decoded from
/// base64 stay until the end of the request.
const BODY_FACTOR: usize = 2;
/// The least text of an entry of a list, as in `{"get":{"key":"a"}},`.
const ENTRY_TEXT_BYTES_MIN: usize = 20;
/// The memory of an entry besides its text and content.
const ENTRY_BYTES: usize = 512;

/// Reads the JSON body of an operation and parses it with `parse`; also takes the memory for it.
/// The body has lists of at most `entries_max` entries together.
///
/// # Errors
/// Those of `parse`, `body_too_large`, `request_timeout`, `overloaded`, or `bad_request` for a body
/// that is cut.
pub(crate) async fn parsed<T: Send + 'static>(
    app: &App,
    body: Body,
    entries_max: usize,
    parse: impl FnOnce(&Bytes) -> Result<T, Error> + Send + 'static,
) -> Result<(T, Permit), Error> {
    let max = app.state.config.limits.body_bytes_max;
    let needs = |size: usize| {
        let entries = entries_max.min(size / ENTRY_TEXT_BYTES_MIN) * ENTRY_BYTES;
        entries + if size < LARGE_BYTES_MIN { size } else { BODY_FACTOR * size }
    };
    let (body, permit) = read(app, body, max, needs).await?.ok_or(Error::BodyTooLarge(max))?;
    let size = body.len();
    let parse = move || parse(&body);
    if size < LARGE_BYTES_MIN {
        return Ok((parse()?, permit));
    }
    // separate budget: holders never wait for more, so no deadlock
    let _parsing = app.parsing.permit(PARSING_FACTOR * size).await?;
    Ok((app.work(size, parse).await?, permit))
}

/// Reads a body of at most `max` bytes, `None` if it is larger. Takes `needs(size)` of memory.
async fn read(
    app: &App,
    body: Body,
    max: usize,
    needs: impl Fn(usize) -> usize,
) -> Result<Option<(Bytes, Permit)>, Error> {
    let announced = body.size_hint().exact().map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    if announced.is_some_and(|n| n > max) {
        return Ok(None);
    }
    let mut permit = app.bodies.permit(needs(announced.unwrap_or(max))).await?;
    let collected = collect(body, announced.unwrap_or(0), max);
    let Ok(collected) = timeout(app.state.config.limits.request_timeout, collected).await else {
        return Err(Error::RequestTimeout);
    };
    let Some(bytes) = collected? else { return Ok(None) };
    if announced.is_none() {
        app.bodies.shrink(&mut permit, needs(bytes.len()));
    }
    Ok(Some((bytes, permit)))
}

/// Copies the body into one buffer, so that a small value does not keep the connection's large read
/// buffer alive. `None` if the body is larger than `max`.
async fn collect(mut body: Body, expected: usize, max: usize) -> Result<Option<Bytes>, Error> {
    let mut bytes = Vec::with_capacity(expected);
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|_| Error::bad("the body is cut or badly framed; send it again"))?;
        if let Ok(data) = frame.into_data() {
            if data.len() > max - bytes.len() {
                return Ok(None);
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(Some(Bytes::from(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_stops_at_its_limit() {
        let chunks = |n: usize| {
            let chunk = || Ok::<_, std::io::Error>(Bytes::from_static(b"12345"));
            Body::from_stream(futures_util::stream::iter((0..n).map(move |_| chunk())))
        };
        assert_eq!(collect(chunks(2), 0, 10).await.unwrap().unwrap().len(), 10);
        assert!(collect(chunks(3), 0, 10).await.unwrap().is_none());
        assert!(collect(chunks(0), 0, 10).await.unwrap().unwrap().is_empty());
        let cut = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("cut"))]);
        assert!(collect(Body::from_stream(cut), 0, 10).await.is_err());
    }
}
