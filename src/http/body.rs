//! Request bodies, bounded: each by its limit, all together by a budget of memory.
//!
//! A body that is announced too large is refused before a byte is read, one that turns out too
//! large as soon as it does; neither is ever in memory whole.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::error::Error;
use super::{App, LARGE_BYTES_MIN};

/// The unit of the budget.
const UNIT_BYTES: usize = 1024;
/// How long a request waits for room in the budget.
pub(super) const ROOM_WAIT: Duration = Duration::from_secs(5);

/// The memory that request bodies may take together.
pub(super) struct Budget {
    units: Arc<Semaphore>,
    total: u32,
    wait: Duration,
}

/// A share of the budget, given back on drop.
#[derive(Debug)]
pub(super) struct Held(OwnedSemaphorePermit);

impl Budget {
    /// `wait`: how long a request waits for room.
    pub(super) fn new(bytes_max: usize, wait: Duration) -> Self {
        let total = u32::try_from(bytes_max / UNIT_BYTES).unwrap_or(u32::MAX).max(1);
        Self { units: Arc::new(Semaphore::new(total as usize)), total, wait }
    }

    fn units(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).clamp(1, self.total)
    }

    /// Waits a while for room for `bytes`.
    pub(super) async fn hold(&self, bytes: usize) -> Result<Held, Error> {
        let units = self.units(bytes);
        if let Ok(permit) = Arc::clone(&self.units).try_acquire_many_owned(units) {
            return Ok(Held(permit));
        }
        let room = Arc::clone(&self.units).acquire_many_owned(units);
        match timeout(self.wait, room).await {
            Ok(Ok(permit)) => Ok(Held(permit)),
            Ok(Err(_)) | Err(_) => Err(Error::Overloaded),
        }
    }

    /// Gives back what `bytes` do not need.
    pub(super) fn shrink(&self, held: &mut Held, bytes: usize) {
        let excess = held.0.num_permits().saturating_sub(self.units(bytes) as usize);
        drop(held.0.split(excess));
    }
}

/// Reads a value.
pub(super) async fn value(app: &App, body: Body) -> Result<(Bytes, Held), Error> {
    let max = app.state.config.limits.value_bytes_max;
    read(app, body, max, |size| size).await?.ok_or(Error::ValueTooLarge(max))
}

/// How many times its size a large JSON body takes, itself included: what is decoded from base64
/// stays until the end of the request.
const BODY_FACTOR: usize = 2;
/// How many times its size is taken besides while it is parsed: the places of its members.
pub(super) const PARSING_FACTOR: usize = 2;
/// The least text that an entry of a list has, as in `{"get":{"key":"a"}},`.
const ENTRY_TEXT_BYTES_MIN: usize = 20;
/// What an entry takes besides its text and content.
const ENTRY_BYTES: usize = 512;

/// Reads the body of a JSON route and makes of it what `parse` says, with the memory for it. It has
/// lists of at most `entries_max` entries together.
pub(super) async fn parsed<T: Send + 'static>(
    app: &App,
    body: Body,
    entries_max: usize,
    parse: impl FnOnce(&Bytes) -> Result<T, Error> + Send + 'static,
) -> Result<(T, Held), Error> {
    let max = app.state.config.limits.body_bytes_max;
    let needs = |size: usize| {
        let entries = entries_max.min(size / ENTRY_TEXT_BYTES_MIN) * ENTRY_BYTES;
        entries + if size < LARGE_BYTES_MIN { size } else { BODY_FACTOR * size }
    };
    let (body, held) = read(app, body, max, needs).await?.ok_or(Error::BodyTooLarge(max))?;
    let size = body.len();
    let parse = move || parse(&body);
    if size < LARGE_BYTES_MIN {
        return Ok((parse()?, held));
    }
    // of a budget of its own: whoever holds a part of that needs nothing more to get done
    let _parsing = app.parsing.hold(PARSING_FACTOR * size).await?;
    Ok((app.work(size, parse).await?, held))
}

/// Reads a body with the memory that one of its size `needs`; `None`: more than `max` bytes.
async fn read(
    app: &App,
    body: Body,
    max: usize,
    needs: impl Fn(usize) -> usize,
) -> Result<Option<(Bytes, Held)>, Error> {
    let announced = body.size_hint().exact().map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    if announced.is_some_and(|n| n > max) {
        return Ok(None);
    }
    let mut held = app.budget.hold(needs(announced.unwrap_or(max))).await?;
    let collected = collect(body, announced.unwrap_or(0), max);
    let Ok(collected) = timeout(app.state.config.limits.request_timeout, collected).await else {
        return Err(Error::RequestTimeout);
    };
    let Some(bytes) = collected? else { return Ok(None) };
    if announced.is_none() {
        app.budget.shrink(&mut held, needs(bytes.len()));
    }
    Ok(Some((bytes, held)))
}

/// Copies the body into a buffer of its own, so that a small value does not keep a connection's
/// large read buffer alive.
async fn collect(mut body: Body, expected: usize, max: usize) -> Result<Option<Bytes>, Error> {
    let mut bytes = Vec::with_capacity(expected);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Error::bad("the body ended early or is badly framed"))?;
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
    async fn the_budget_is_shared_waited_for_and_given_back() {
        let budget = Budget::new(10 * UNIT_BYTES, Duration::from_millis(1));
        let mut most = budget.hold(9 * UNIT_BYTES).await.unwrap();
        assert!(matches!(budget.hold(2 * UNIT_BYTES).await, Err(Error::Overloaded)));
        let one = budget.hold(0).await.unwrap();
        budget.shrink(&mut most, UNIT_BYTES + 1);
        assert_eq!(most.0.num_permits(), 2);
        drop(one);
        drop(most);
        let all = budget.hold(100 * UNIT_BYTES).await.unwrap();
        assert_eq!(all.0.num_permits(), 10, "never more than there is");
        drop(all);
        assert_eq!(budget.units.available_permits(), 10);
    }

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
