//! Request bodies, bounded: each by its limit, all together by a budget of memory.
//!
//! A body that is announced as too large is refused before a byte is read, any other as soon as it
//! exceeds its limit. A body that is too large is never in memory as a whole. Memory is taken for
//! bytes that came, never for bytes that were announced.

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::time::timeout_at;

use crate::http::answer::error::Error;
use crate::http::server::limits::{BodyPermit, LARGE_BYTES_MIN, Pace};
use crate::http::state::{App, PARSING_FACTOR, parsed_bytes};

/// Reads a value, and takes the memory for it.
///
/// # Errors
/// `value_too_large`, `request_timeout`, `overloaded`, or `bad_request` for a body that is cut.
pub(crate) async fn value(app: &App, body: Body) -> Result<(Bytes, BodyPermit), Error> {
    let max = app.state.config.limits.value_bytes_max;
    read(app, body, max, |size| size).await?.ok_or(Error::ValueTooLarge(max))
}

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
) -> Result<(T, BodyPermit), Error> {
    let max = app.state.config.limits.body_bytes_max;
    let needs = |size: usize| parsed_bytes(size, entries_max);
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
) -> Result<Option<(Bytes, BodyPermit)>, Error> {
    let announced = body.size_hint().exact().map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    if announced.is_some_and(|n| n > max) {
        return Ok(None);
    }
    let mut permit = BodyPermit::default();
    let Some(bytes) = collect(app, body, announced.unwrap_or(max), &mut permit, &needs).await?
    else {
        return Ok(None);
    };
    if announced.is_none() {
        app.bodies.shrink(&mut permit, needs(bytes.len()));
    }
    Ok(Some((bytes, permit)))
}

/// Copies the body into one buffer, so that a small value does not keep the connection's large read
/// buffer alive. `None` if the body is larger than `max`.
async fn collect(
    app: &App,
    mut body: Body,
    max: usize,
    permit: &mut BodyPermit,
    needs: impl Fn(usize) -> usize,
) -> Result<Option<Bytes>, Error> {
    let clock = &app.state.clock;
    let mut pace = Pace::new(clock.instant(), app.state.config.limits.request_timeout);
    let mut bytes = Vec::new();
    loop {
        let frame = timeout_at(pace.deadline, body.frame()).await;
        let Some(frame) = frame.map_err(|_| Error::RequestTimeout)? else { break };
        let frame =
            frame.map_err(|_| Error::bad("the body is cut or badly framed; send it again"))?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > max - bytes.len() {
            return Ok(None);
        }
        let came = clock.instant();
        pace.came(data.len(), came);
        let size = bytes.len() + data.len();
        if size > bytes.capacity() {
            // twice as much each time, so that bytes are copied about once
            let capacity = size.max(max.min(2 * bytes.capacity()));
            app.bodies.grow(permit, needs(capacity)).await?;
            pace.paused(clock.instant() - came);
            bytes.reserve_exact(capacity - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
    bytes.shrink_to_fit();
    Ok(Some(Bytes::from(bytes)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::http::tests::rig;
    use crate::store::memory::Memory;

    fn app() -> Arc<App> {
        rig::app(Arc::new(Memory::default()), |config| {
            config.limits.body_memory_bytes_max = 32 << 20;
        })
    }

    /// A body that sends `size` bytes, one chunk each `pause`, and then nothing.
    fn slow(size: usize, chunks: usize, pause: Duration) -> Body {
        let chunk = Bytes::from(vec![7; size]);
        let stream = futures_util::stream::unfold(0, move |sent| {
            let chunk = chunk.clone();
            async move {
                if sent == chunks {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(pause).await;
                Some((Ok::<_, std::io::Error>(chunk), sent + 1))
            }
        });
        Body::from_stream(stream)
    }

    #[tokio::test]
    async fn a_body_stops_at_its_limit() {
        let app = app();
        let chunks = |n: usize| {
            let chunk = || Ok::<_, std::io::Error>(Bytes::from_static(b"12345"));
            Body::from_stream(futures_util::stream::iter((0..n).map(move |_| chunk())))
        };
        let read = async |body| {
            let mut permit = BodyPermit::default();
            collect(&app, body, 10, &mut permit, |size| size).await
        };
        assert_eq!(read(chunks(2)).await.unwrap().unwrap().len(), 10);
        assert!(read(chunks(3)).await.unwrap().is_none());
        assert!(read(chunks(0)).await.unwrap().unwrap().is_empty());
        let cut = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("cut"))]);
        assert!(read(Body::from_stream(cut)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_silent_or_too_slow_ends_and_a_steady_one_does_not() {
        let app = app();
        let began = app.state.clock.instant();
        let timed_out = async |body| {
            let began = app.state.clock.instant();
            let read = value(&app, body).await;
            assert!(matches!(read, Err(Error::RequestTimeout)));
            app.state.clock.instant() - began
        };
        assert!(timed_out(slow(25, 1, Duration::from_secs(1))).await < Duration::from_secs(31));
        // a byte each 10 seconds is no silence, but too slow
        assert!(timed_out(slow(1, 1000, Duration::from_secs(10))).await < Duration::from_secs(41));
        // 1,500 bytes a second take as long as they take
        let steady = timed_out(slow(1500, 600, Duration::from_secs(1))).await;
        assert_eq!(steady.as_secs(), 630, "it ended only when the client fell silent");
        assert!(app.state.clock.instant() - began > Duration::from_secs(600));
    }

    /// Large bodies that stall hold what they sent, and small ones never wait for them.
    #[tokio::test(start_paused = true)]
    async fn announced_bytes_take_no_memory() {
        let app = app();
        let mut stalled = tokio::task::JoinSet::new();
        for _ in 0..500 {
            let app = Arc::clone(&app);
            let body = slow(25, 1, Duration::ZERO);
            stalled.spawn(async move { value(&app, body).await.is_ok() });
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        for size in [100, 60_000, 15 << 20] {
            let (bytes, _permit) = value(&app, Body::from(vec![7; size])).await.unwrap();
            assert_eq!(bytes.len(), size);
        }
        while let Some(read) = stalled.join_next().await {
            assert!(!read.unwrap());
        }
    }
}
