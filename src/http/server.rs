//! Connections: accepted up to a limit, served, and ended in order.
//!
//! Every task lives in a set inside the future of [`serve`]; dropping that ends them all.

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

use super::State;
use super::connection::{Line, Socket, close, write_last};
use super::error::Error;
use super::front::Front;

/// How long accepting rests after it failed, as it does when file descriptors run out.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// The largest header of a request, and what a connection buffers of a body. The longest key, fully
/// escaped, takes 3 KiB.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Serves the API on `listener` until `stop`; then takes no more connections, gives the requests
/// under way `limits.shutdown_wait`, and returns.
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
        tracing::warn!(open = connections.len(), "connections are cut: requests took too long");
    }
    connections.shutdown().await;
    let detached = front.app.detached.lock().map(|mut set| std::mem::take(&mut *set)).ok();
    if let Some(mut detached) = detached {
        // the writer answers each of them, or is gone
        let _ = timeout(shutdown_wait, join_all(&mut detached)).await;
    }
}

async fn join_all(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// The next connection, once there is a slot for it; further ones wait in the system's queue.
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
                tracing::warn!(%error, "accepting a connection failed");
                sleep(ACCEPT_REST).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, front: Arc<Front>, stop: CancellationToken) {
    let _open = Open::count(&front);
    // answers are written whole, so there is nothing to wait for; where it fails, it is slower
    let _ = stream.set_nodelay(true);
    let (stream, line) = (Arc::new(stream), Arc::new(Line::default()));
    let ended = converse(&stream, &line, &front, &stop).await;
    let refused = match &ended {
        Err(error) => refusal(error, &line),
        Ok(()) => None,
    };
    if let Some(refused) = &refused {
        front.app.state.metrics.http_bad_connections.inc();
        // after a first request hyper has already written a refusal of what it could not parse
        if matches!(refused, Error::RequestTimeout) || !line.heard() {
            write_last(&stream, &front.raw_refusal(refused)).await;
        }
    }
    close(&stream, refused.is_some() || line.unread()).await;
}

/// What to say when a connection ended by what came, rather than by the client's leaving.
fn refusal(error: &hyper::Error, line: &Line) -> Option<Error> {
    if error.is_timeout() {
        // between two requests, silence is no fault
        return line.head_begun().then_some(Error::RequestTimeout);
    }
    error.is_parse().then(|| Error::bad("this is not a request of HTTP/1.1, or one too large"))
}

fn converse(
    stream: &Arc<TcpStream>,
    line: &Arc<Line>,
    front: &Arc<Front>,
    stop: &CancellationToken,
) -> impl Future<Output = Result<(), hyper::Error>> {
    let request_timeout = front.app.state.config.limits.request_timeout;
    let socket = Socket::new(Arc::clone(stream), Arc::clone(line), request_timeout);
    let (front, line, stop) = (Arc::clone(front), Arc::clone(line), stop.clone());
    let service = service_fn(move |request| {
        let (front, line) = (Arc::clone(&front), Arc::clone(&line));
        async move { Ok::<_, Infallible>(front.answer(request, &line).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(request_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        // a client that has said all may close its side and still wait for the answer
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

/// Counts one open connection for as long as it lives.
struct Open(Arc<Front>);

impl Open {
    fn count(front: &Arc<Front>) -> Self {
        front.app.state.metrics.http_connections.inc();
        Self(Arc::clone(front))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.app.state.metrics.http_connections.dec();
    }
}
