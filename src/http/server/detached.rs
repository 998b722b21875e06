//! Work that runs to its end even if its client leaves.
//!
//! hyper drops a handler when the connection ends. A write that is under way must not stop there:
//! what holds its memory, and its answer to a retry, depend on its end.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::limits::BodyPermit;
use crate::http::state::App;
use crate::store::{Write, WriteError, Written};

/// Submits `write` to the store and waits until it is durable or refused. `permit`, the memory of
/// its body, is returned then.
pub(crate) fn submit(
    app: &Arc<App>,
    write: Write,
    permit: Option<BodyPermit>,
) -> ToItsEnd<Result<Written, WriteError>> {
    let store = app.state.store.clone();
    to_its_end(app, async move {
        let answer = store.write(write).await;
        drop(permit);
        answer
    })
}

/// Makes `work` independent of its caller: if the returned future is dropped, the work goes on in
/// [`App::detached`].
pub(crate) fn to_its_end<T>(
    app: &Arc<App>,
    work: impl Future<Output = T> + Send + 'static,
) -> ToItsEnd<T> {
    ToItsEnd { work: Some(Box::pin(work)), app: Arc::clone(app) }
}

/// The future of [`to_its_end`].
pub(crate) struct ToItsEnd<T: 'static> {
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    app: Arc<App>,
}

impl<T> Future for ToItsEnd<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // taken out while it is polled, so that work that panics is not detached
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<T> Drop for ToItsEnd<T> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::rig;
    use crate::store::memory::Memory;

    #[tokio::test]
    async fn work_that_was_begun_goes_on_when_its_client_leaves() {
        let app = rig::app(Arc::new(Memory::default()), |_| {});
        let (go, going) = tokio::sync::oneshot::channel::<()>();
        let (done, finished) = tokio::sync::oneshot::channel();
        let mut running = to_its_end(&app, async move {
            let _ = going.await;
            let _ = done.send("done");
        });
        assert!(futures_util::poll!(&mut running).is_pending());
        drop(running);
        drop(go);
        assert_eq!(finished.await, Ok("done"));
    }
}
