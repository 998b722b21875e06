//! Connections: accepted up to a limit, served, and ended in order.
//!
//! All tasks live in sets inside the future of [`serve`]; dropping it ends them.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::activity::{Activity, ConnectionState, holds_bytes};
use super::connection::{ResetOnCut, Socket, close, prepare, silence, write_last};
use super::crowd::{Crowd, Seat};
use super::front::Front;
use crate::config::LimitsConfig;
use crate::http::answer::error::{Error, Unavailable};
use crate::http::state::State;

/// The pause after a failed accept, as when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often a failure to accept is warned of.
const ACCEPT_WARNING_EVERY: Duration = Duration::from_secs(10);
/// The largest header of a request, and the read buffer of a connection. The longest key takes
/// 3 KiB with every byte escaped.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How much longer than it says the server keeps an idle connection, so that a client that uses the
/// time whole does not meet the end.
const IDLE_GRACE: Duration = Duration::from_secs(1);
/// How long a stopping node looks for requests that were sent before, on connections that seem
/// idle.
const STOP_GRACE: Duration = Duration::from_millis(300);
/// How long a stopping node waits for a connection that may be in the system's queue.
const STOP_ACCEPT_WAIT: Duration = Duration::from_millis(20);
/// How long an unread body is read after the answer.
const DRAIN_WAIT: Duration = Duration::from_secs(30);
/// How long that of a surplus connection.
const SURPLUS_DRAIN: Duration = Duration::from_secs(1);
/// How long a surplus connection may be silent.
const SURPLUS_SILENCE: Duration = Duration::from_secs(5);

/// Serves the API on `listener` until `stop`. Then answers what was sent before, accepts no more
/// connections, waits up to `limits.shutdown_wait` for requests under way, cuts the rest, and
/// returns.
pub async fn serve(listener: TcpListener, state: State, stop: CancellationToken) {
    let shutdown_wait = state.config.limits.shutdown_wait;
    let address = listener.local_addr().unwrap_or(state.config.http.listen);
    let crowd = Crowd::new(
        state.config.limits.connections_max,
        state.clock.clone(),
        Arc::clone(&state.metrics),
    );
    let loopback = address.ip().to_canonical().is_loopback();
    let front = Arc::new(Front::new(state, loopback, stop.clone()));
    let mut connections = JoinSet::new();
    let mut door = Door { listener, warned: None };
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            stream = door.accept(&crowd, &front), if connections.len() < crowd.capacity() => {
                connections.spawn(connection(stream, crowd.enter(), Arc::clone(&front), stop.clone()));
            }
            () = sleep(ACCEPT_PAUSE), if connections.len() >= crowd.capacity() => crowd.make_room(),
        }
    }
    // what waits in the system's queue may have been sent before the stop: closing would reset it
    let queued = async {
        while let Ok(Ok((stream, _))) = timeout(STOP_ACCEPT_WAIT, door.listener.accept()).await {
            connections.spawn(connection(stream, crowd.enter(), Arc::clone(&front), stop.clone()));
        }
    };
    // fails if connections keep coming
    let _ = timeout(STOP_GRACE, queued).await;
    drop(door);
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

/// Where connections come in.
struct Door {
    listener: TcpListener,
    /// When a failure was last warned of.
    warned: Option<Instant>,
}

impl Door {
    /// Waits for a connection; more connections wait in the system's queue.
    async fn accept(&mut self, crowd: &Crowd, front: &Front) -> TcpStream {
        loop {
            let error = match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => error,
            };
            let now = front.app.state.clock.instant();
            if self.warned.is_none_or(|warned| now - warned >= ACCEPT_WARNING_EVERY) {
                self.warned = Some(now);
                tracing::warn!(%error, "cannot accept connections; ending idle ones, trying again");
            }
            // the system may have no descriptor left
            crowd.make_room();
            sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// Why a connection ends.
enum Ending {
    /// hyper is done with it.
    Done(Result<(), hyper::Error>),
    /// The client was silent for too long.
    Silent,
    /// It makes room for another one.
    Leaves,
    /// The node stops.
    Stopped,
}

async fn connection(stream: TcpStream, seat: Seat, front: Arc<Front>, stop: CancellationToken) {
    prepare(&stream, front.app.state.config.limits.request_timeout);
    let (stream, seen) = (Arc::new(stream), Arc::clone(&seat.seen));
    let reset = ResetOnCut { stream: Arc::clone(&stream), seen: Arc::clone(&seen) };
    let ending = converse(&stream, &seen, &front, &stop).await;
    let refused = match ending {
        Ending::Done(Ok(())) => None,
        Ending::Done(Err(error)) => refusal(&error),
        _ if seen.activity() != Activity::Head => None,
        Ending::Silent => Some(Error::RequestTimeout),
        Ending::Leaves => Some(Unavailable::Crowded.into()),
        Ending::Stopped => Some(Unavailable::ShuttingDown.into()),
    };
    if let Some(refused) = &refused
        && !seen.is_busy()
    {
        if matches!(refused, Error::BadRequest(_) | Error::RequestTimeout) {
            front.app.state.metrics.http_bad_connections.inc();
        }
        write_last(&stream, &front.raw_refusal(refused)).await;
    }
    if !seen.is_answer_cut() {
        let drain = refused.is_some() || seen.has_unread_body();
        let drain_wait = if seen.is_surplus() { SURPLUS_DRAIN } else { DRAIN_WAIT };
        close(&stream, drain.then_some(drain_wait)).await;
    }
    drop((reset, seat));
}

/// The answer to a connection that ended because of its bytes; `None` if the client left.
fn refusal(error: &hyper::Error) -> Option<Error> {
    error.is_parse().then(|| {
        Error::bad("this is not an HTTP/1.1 request, or its header is too large; correct it")
    })
}

/// Serves the requests of a connection, one after the other.
async fn converse(
    stream: &Arc<TcpStream>,
    seen: &Arc<ConnectionState>,
    front: &Arc<Front>,
    stop: &CancellationToken,
) -> Ending {
    let state = &front.app.state;
    let (idle_max, head_max) = silence_max(&state.config.limits, seen);
    let clock = state.clock.clone();
    let socket = Socket::new(Arc::clone(stream), Arc::clone(seen), clock, head_max);
    let service =
        service_fn(
            move |request| async move { Ok::<_, Infallible>(front.answer(request, seen).await) },
        );
    let serving = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        // a client may close its sending side and still wait for the answer
        .half_close(true)
        .serve_connection(TokioIo::new(socket), service);
    let mut serving = pin!(serving);
    loop {
        tokio::select! {
            biased;
            ended = serving.as_mut() => return Ending::Done(ended),
            () = silence(seen, idle_max, head_max) => return Ending::Silent,
            () = seen.told() => match seen.activity() {
                Activity::Leaving if holds_bytes(stream) => seen.stay(),
                Activity::Leaving => return Ending::Leaves,
                Activity::Head if seen.has_slow_head() => return Ending::Leaves,
                _ => {}
            },
            () = stop.cancelled() => break,
        }
    }
    tokio::select! {
        biased;
        ended = serving.as_mut() => return Ending::Done(ended),
        () = busy(seen) => {}
        () = sleep(STOP_GRACE) => return Ending::Stopped,
    }
    serving.as_mut().graceful_shutdown();
    Ending::Done(serving.await)
}

/// How long a connection may be idle, and how long the head of a request may take.
fn silence_max(limits: &LimitsConfig, seen: &ConnectionState) -> (Duration, Duration) {
    let (idle, head) = (limits.idle_timeout + IDLE_GRACE, limits.request_timeout);
    if seen.is_surplus() { (SURPLUS_SILENCE, head.min(SURPLUS_SILENCE)) } else { (idle, head) }
}

/// Ends when a request is being answered. To be polled after the connection, by the same task.
async fn busy(seen: &ConnectionState) {
    poll_fn(|_| if seen.is_busy() { Poll::Ready(()) } else { Poll::Pending }).await;
}
