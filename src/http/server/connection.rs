//! The bytes of one connection, as hyper reads and writes them, and the state that hyper does not
//! show.
//!
//! Promises that a client that reads nothing holds its connection for a bounded time, and that the
//! server closes a connection so that the client can still read the last answer. Knows nothing of
//! requests and answers.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};

/// How much of an unread body is read after the answer. Twice the default limit of a value: a
/// client that sends a too large value, and reads only then, still gets its answer.
const DRAIN_BYTES_MAX: usize = 32 << 20;
/// How long an unread body is read, or a last answer is written.
const DRAIN_WAIT: Duration = Duration::from_secs(5);

/// What a connection has seen so far. Only the connection's own task touches it.
#[derive(Debug, Default)]
pub(crate) struct ConnectionState {
    /// A request was parsed. Before that, all that hyper writes is its own refusal, which lacks the
    /// headers of ours: [`Socket`] drops it, and the server writes one.
    has_request: AtomicBool,
    /// A request is being answered.
    is_busy: AtomicBool,
    /// Bytes of another request arrived after the last one.
    has_partial_request: AtomicBool,
    /// The body of the last request was not read to its end.
    has_unread_body: AtomicBool,
}

impl ConnectionState {
    /// A request was parsed.
    pub(crate) fn begin(&self) {
        self.has_request.store(true, Relaxed);
        self.is_busy.store(true, Relaxed);
        self.has_partial_request.store(false, Relaxed);
        // hyper parses a request only after it has passed the body of the last one
        self.has_unread_body.store(false, Relaxed);
    }

    /// The request was answered.
    pub(crate) fn end(&self) {
        self.is_busy.store(false, Relaxed);
    }

    pub(crate) fn has_request(&self) -> bool {
        self.has_request.load(Relaxed)
    }

    pub(crate) fn has_partial_request(&self) -> bool {
        self.has_partial_request.load(Relaxed)
    }

    pub(crate) fn has_unread_body(&self) -> bool {
        self.has_unread_body.load(Relaxed)
    }
}

/// The body of a request; notes whether it was read to its end.
pub(crate) struct TrackedBody {
    body: Incoming,
    seen: Arc<ConnectionState>,
}

impl TrackedBody {
    pub(crate) fn new(body: Incoming, seen: Arc<ConnectionState>) -> Self {
        seen.has_unread_body.store(true, Relaxed);
        Self { body, seen }
    }
}

impl Body for TrackedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.seen.has_unread_body.store(false, Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A TCP stream as hyper sees it.
pub(crate) struct Socket {
    stream: Arc<TcpStream>,
    seen: Arc<ConnectionState>,
    stall_max: Duration,
    /// Runs while the client reads nothing.
    stall: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    /// Gives up when the client reads nothing of an answer for `stall_max`.
    pub(crate) fn new(
        stream: Arc<TcpStream>,
        seen: Arc<ConnectionState>,
        stall_max: Duration,
    ) -> Self {
        Self { stream, seen, stall_max, stall: None }
    }

    /// Repeats `write` until it does not block; `TimedOut` when the client reads nothing for
    /// `stall_max`.
    fn poll_with(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.stream.poll_write_ready(cx)?.is_pending() {
                let stall_max = self.stall_max;
                let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(stall_max)));
                ready!(stall.as_mut().poll(cx));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            match write(&self.stream) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => {
                    self.stall = None;
                    return Poll::Ready(done);
                }
            }
        }
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
                    if read > 0 && !self.seen.is_busy.load(Relaxed) {
                        self.seen.has_partial_request.store(true, Relaxed);
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
        if !self.seen.has_request() {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.poll_with(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.seen.has_request() {
            return Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
        }
        self.poll_with(cx, |stream| stream.try_write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Does nothing: [`close`] shuts down after hyper is done.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Writes a last answer, as far as the client reads it within [`DRAIN_WAIT`].
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
    let _ = timeout(DRAIN_WAIT, write_all).await;
}

/// Ends the answers of a connection. With `drain`, then reads a bounded rest of what the client
/// sends: a close over unread bytes would reset the connection, and could destroy the last answer
/// on its way.
pub(crate) async fn close(stream: &TcpStream, drain: bool) {
    // fails if the client has closed already
    let _ = socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write);
    if !drain {
        return;
    }
    let drained = async {
        let mut buffer = vec![0; 16 << 10];
        let mut drained_bytes = 0;
        while drained_bytes < DRAIN_BYTES_MAX && stream.readable().await.is_ok() {
            match stream.try_read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => drained_bytes += read,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    let _ = timeout(DRAIN_WAIT, drained).await;
}
