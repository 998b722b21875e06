//! The bytes of one connection, as hyper reads and writes them, and its end.
//!
//! Promises that a client that reads nothing, or almost nothing, holds its connection for a bounded
//! time; that the server closes a connection so that the client can still read the last answer; and
//! that the end of a connection never looks like the end of an answer that was cut. Knows nothing of
//! requests and answers.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use super::activity::{Activity, ConnectionState};
use super::limits::BYTE_TIME;
use crate::clock::Clock;

/// How much of an unread body is read after the answer. Twice the default limit of a value: a
/// client that sends a too large value, and reads only then, still gets its answer.
const DRAIN_BYTES_MAX: usize = 32 << 20;
/// How long an unread body may be silent while it is read, or a last answer while it is written.
const DRAIN_SILENCE: Duration = Duration::from_secs(5);
/// How much of an answer the system takes ahead of the network. More would hide for longer whether
/// the client still reads; less would slow down a fast one.
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 64 << 10;
/// How much the system may take at once when it has room again, and must then see read.
const STEP_BYTES_MAX: u32 = 128 << 10;

/// Sets the options of a new connection. What the system refuses costs speed or patience only.
pub(crate) fn prepare(stream: &TcpStream, silence_max: Duration) {
    // answers are written whole, so that delaying helps nothing
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    {
        let socket = SockRef::from(stream);
        let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
        // only the system sees whether what it sent is read: ends a connection whose client stopped
        let _ = socket.set_tcp_user_timeout(Some(silence_max));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = silence_max;
}

/// A TCP stream as hyper sees it.
pub(crate) struct Socket {
    stream: Arc<TcpStream>,
    seen: Arc<ConnectionState>,
    clock: Clock,
    /// How long the client may read nothing. Bytes that it reads add to what is left of it.
    credit_max: Duration,
    credit: Duration,
    /// Since when the client reads nothing, and the end of its credit.
    stall: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Socket {
    /// Gives up when the client reads less than [`BYTE_TIME`] allows; a silence of `silence_max` is
    /// allowed in any case, and must be bounded by [`prepare`].
    pub(crate) fn new(
        stream: Arc<TcpStream>,
        seen: Arc<ConnectionState>,
        clock: Clock,
        silence_max: Duration,
    ) -> Self {
        let credit_max = silence_max + BYTE_TIME * STEP_BYTES_MAX;
        Self { stream, seen, clock, credit_max, credit: credit_max, stall: None }
    }

    /// Repeats `write` until it does not block; `TimedOut` when the client reads too little.
    fn poll_with(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.stream.poll_write_ready(cx)?.is_pending() {
                let (clock, credit) = (&self.clock, self.credit);
                let (_, stall) = self.stall.get_or_insert_with(|| {
                    let now = clock.instant();
                    (now, Box::pin(sleep_until(now + credit)))
                });
                ready!(stall.as_mut().poll(cx));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            match write(&self.stream) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => {
                    self.settle(done.as_ref().map_or(0, |written| *written));
                    return Poll::Ready(done);
                }
            }
        }
    }

    /// Takes the time of a stall from the client's credit, and adds that of the bytes.
    fn settle(&mut self, written: usize) {
        if let Some((since, _)) = self.stall.take() {
            self.credit = self.credit.saturating_sub(self.clock.instant() - since);
        }
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        self.credit = (self.credit + BYTE_TIME * written).min(self.credit_max);
    }

    /// Whether hyper writes a refusal of its own, which lacks the headers of ours: the server
    /// writes one instead.
    fn is_foreign(&self) -> bool {
        !self.seen.is_busy()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read_buf(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
                Ok(read) => {
                    if read > 0 {
                        self.seen.has_read();
                    }
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_foreign() {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.poll_with(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_foreign() {
            return Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
        }
        self.poll_with(cx, |stream| stream.try_write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.seen.has_flushed();
        Poll::Ready(Ok(()))
    }

    /// Does nothing: [`close`] shuts down after hyper is done, which flushes before that.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Resets the connection when it is dropped in the middle of an answer, whatever ended it. A plain
/// close would look like the end of the answer to a client, or a proxy, that speaks HTTP/1.0.
pub(crate) struct ResetOnCut {
    pub(crate) stream: Arc<TcpStream>,
    pub(crate) seen: Arc<ConnectionState>,
}

impl Drop for ResetOnCut {
    fn drop(&mut self) {
        if self.seen.is_answer_cut() {
            // fails if the connection is gone
            let _ = SockRef::from(&*self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Ends when a connection is silent for too long: idle for `idle_max`, or in the head of a request
/// for `head_max`. To be polled after the connection, by the same task.
pub(crate) async fn silence(seen: &ConnectionState, idle_max: Duration, head_max: Duration) {
    let deadline = || match seen.activity() {
        Activity::Idle | Activity::Leaving => Some(seen.since() + idle_max),
        Activity::Head => Some(seen.since() + head_max),
        Activity::Handling | Activity::Sending | Activity::Flushing => None,
    };
    let nearest = idle_max.min(head_max);
    let mut timer = std::pin::pin!(sleep(nearest));
    std::future::poll_fn(|cx| {
        loop {
            if let Some(deadline) = deadline()
                && deadline < timer.deadline()
            {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(cx));
            let fired = timer.deadline();
            match deadline() {
                Some(deadline) if deadline <= fired => return Poll::Ready(()),
                Some(deadline) => timer.as_mut().reset(deadline),
                None => timer.as_mut().reset(fired + nearest),
            }
        }
    })
    .await;
}

/// Writes a last answer, as far as the client reads it within [`DRAIN_SILENCE`].
pub(crate) async fn write_last(stream: &TcpStream, bytes: &[u8]) {
    let write_all = async {
        let mut rest = bytes;
        while !rest.is_empty() && stream.writable().await.is_ok() {
            match stream.try_write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    // a client that does not read it in time does not get it
    let _ = timeout(DRAIN_SILENCE, write_all).await;
}

/// Ends the answers of a connection. With `drain`, then reads a bounded rest of what the client
/// sends for so long: a close over unread bytes would reset the connection, and could destroy the
/// last answer on its way.
pub(crate) async fn close(stream: &TcpStream, drain: Option<Duration>) {
    // fails if the client has closed already
    let _ = SockRef::from(stream).shutdown(std::net::Shutdown::Write);
    let Some(drain_wait) = drain else { return };
    let drained = async {
        let mut buffer = vec![0; 16 << 10];
        let mut drained_bytes = 0;
        while drained_bytes < DRAIN_BYTES_MAX
            && let Ok(Ok(())) = timeout(DRAIN_SILENCE, stream.readable()).await
        {
            match stream.try_read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => drained_bytes += read,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    let _ = timeout(drain_wait, drained).await;
}
