//! Connections: accepted up to a limit, served, and ended in order.
//!
//! All tasks live in sets inside the future of [`serve`]; dropping it ends them.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{ConnectionState, Socket, close, write_last};
use super::front::Front;
use crate::http::answer::error::Error;
use crate::http::state::State;

/// The pause after a failed accept, as when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The largest header of a request, and the read buffer of a connection. The longest key takes
/// 3 KiB with every byte escaped.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Serves the API on `listener` until `stop`. Then accepts no more connections, waits up to
/// `limits.shutdown_wait` for requests under way, cuts the rest, and returns.
pub async fn serve(listener: TcpListener, state: State, stop: CancellationToken) {
    let limits = &state.config.limits;
    let shutdown_wait = limits.shutdown_wait;
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let front = Arc::new(Front::new(state, stop.clone()));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            (stream, slot) = accept(&listener, &slots) => {
                let connection = connection(stream, Arc::clone(&front), stop.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
        }
    }
    drop(listener);
    if timeout(shutdown_wait, join_all(&mut connections)).await.is_err() {
        tracing::warn!(
            open = connections.len(),
            "connections are cut: their requests took longer than limits.shutdown_wait"
        );
    }
    connections.shutdown().await;
    let detached = front.app.detached.lock().map(|mut set| std::mem::take(&mut *set)).ok();
    if let Some(mut detached) = detached {
        // the writer answers each of them, or has ended
        let _ = timeout(shutdown_wait, join_all(&mut detached)).await;
    }
}

async fn join_all(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// Waits for a free slot, then for a connection; more connections wait in the system's queue.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // the semaphore is never closed
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, slot),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; trying again");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, front: Arc<Front>, stop: CancellationToken) {
    let _open = OpenConnection::count(&front);
    // answers are written whole, so that delaying helps nothing; a failure only costs time
    let _ = stream.set_nodelay(true);
    let (stream, seen) = (Arc::new(stream), Arc::new(ConnectionState::default()));
    let ended = converse(&stream, &seen, &front, &stop).await;
    let refused = match &ended {
        Err(error) => refusal(error, &seen),
        Ok(()) => None,
    };
    if let Some(refused) = &refused {
        front.app.state.metrics.http_bad_connections.inc();
        // after a first request hyper itself answers what it cannot parse
        if matches!(refused, Error::RequestTimeout) || !seen.has_request() {
            write_last(&stream, &front.raw_refusal(refused)).await;
        }
    }
    close(&stream, refused.is_some() || seen.has_unread_body()).await;
}

/// The answer to a connection that ended because of its bytes; `None` if the client left.
fn refusal(error: &hyper::Error, seen: &ConnectionState) -> Option<Error> {
    if error.is_timeout() {
        // an idle connection just ends
        return seen.has_partial_request().then_some(Error::RequestTimeout);
    }
    error.is_parse().then(|| {
        Error::bad("this is not an HTTP/1.1 request, or its header is too large; correct it")
    })
}

fn converse(
    stream: &Arc<TcpStream>,
    seen: &Arc<ConnectionState>,
    front: &Arc<Front>,
    stop: &CancellationToken,
) -> impl Future<Output = Result<(), hyper::Error>> {
    let request_timeout = front.app.state.config.limits.request_timeout;
    let socket = Socket::new(Arc::clone(stream), Arc::clone(seen), request_timeout);
    let (front, seen, stop) = (Arc::clone(front), Arc::clone(seen), stop.clone());
    let service = service_fn(move |request| {
        let (front, seen) = (Arc::clone(&front), Arc::clone(&seen));
        async move { Ok::<_, Infallible>(front.answer(request, &seen).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(request_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        // a client may close its sending side and still wait for the answer
        .half_close(true)
        .serve_connection(TokioIo::new(socket), service);
    async move {
        let mut connection = pin!(connection);
        tokio::select! {
            biased;
            ended = connection.as_mut() => return ended,
            () = stop.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    }
}

/// Counts one open connection until it is dropped.
struct OpenConnection(Arc<Front>);

impl OpenConnection {
    fn count(front: &Arc<Front>) -> Self {
        front.app.state.metrics.http_connections.inc();
        Self(Arc::clone(front))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.app.state.metrics.http_connections.dec();
    }
}
