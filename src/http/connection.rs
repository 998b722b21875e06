//! The bytes of one connection, as hyper reads and writes them, and what is known of it beyond
//! them.
//!
//! Adds to a TCP stream what hyper leaves to its user: a client that does not read its answer is
//! not waited for without end, and the end of the connection is left to the server, which first
//! lets the client read what it was told. Knows nothing of what is sent.

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

/// How much of an unread body is taken in after the answer. Twice the largest value: a client that
/// sends all before it reads still gets the answer to a value that was too large.
const DRAIN_BYTES_MAX: usize = 32 << 20;
/// For how long.
const DRAIN_WAIT: Duration = Duration::from_secs(5);

/// Where a connection stands. All of it is touched by the connection's own task alone.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// A request was understood. Before that, whatever hyper writes is a refusal of its own, which
    /// lacks what our answers carry; it is dropped and the server writes one.
    heard: AtomicBool,
    /// A request is being answered.
    busy: AtomicBool,
    /// Bytes came since the last request: the beginning of another one.
    head_begun: AtomicBool,
    /// The body of the last request was not read to its end.
    unread: AtomicBool,
}

impl Line {
    pub(super) fn begin(&self) {
        self.heard.store(true, Relaxed);
        self.busy.store(true, Relaxed);
        self.head_begun.store(false, Relaxed);
        // a further request is understood only after the body of the last one has passed
        self.unread.store(false, Relaxed);
    }

    pub(super) fn end(&self) {
        self.busy.store(false, Relaxed);
    }

    pub(super) fn heard(&self) -> bool {
        self.heard.load(Relaxed)
    }

    pub(super) fn head_begun(&self) -> bool {
        self.head_begun.load(Relaxed)
    }

    pub(super) fn unread(&self) -> bool {
        self.unread.load(Relaxed)
    }
}

/// A request's body that notes whether it was read to its end.
pub(super) struct Watched {
    body: Incoming,
    line: Arc<Line>,
}

impl Watched {
    pub(super) fn new(body: Incoming, line: Arc<Line>) -> Self {
        line.unread.store(true, Relaxed);
        Self { body, line }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.line.unread.store(false, Relaxed);
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

/// The stream as hyper sees it.
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    line: Arc<Line>,
    stall_max: Duration,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    /// `stall_max`: for how long a client may take nothing of an answer.
    pub(super) fn new(stream: Arc<TcpStream>, line: Arc<Line>, stall_max: Duration) -> Self {
        Self { stream, line, stall_max, stalled: None }
    }

    /// Repeats `write` until it does not block; gives up when the client takes nothing for too
    /// long.
    fn poll_with(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.stream.poll_write_ready(cx)?.is_pending() {
                let stall_max = self.stall_max;
                let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(stall_max)));
                ready!(stalled.as_mut().poll(cx));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            match write(&self.stream) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => {
                    self.stalled = None;
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
                    if read > 0 && !self.line.busy.load(Relaxed) {
                        self.line.head_begun.store(true, Relaxed);
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
        if !self.line.heard() {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.poll_with(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.line.heard() {
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

    /// Nothing: [`close`] does it, after hyper is done.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Writes a last answer, as far as the client takes it.
pub(super) async fn write_last(stream: &TcpStream, bytes: &[u8]) {
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
    // a client that does not take it in time does without
    let _ = timeout(DRAIN_WAIT, write_all).await;
}

/// Ends a connection. With `drain`, a bounded rest of what the client sends is taken in first:
/// closing over unread bytes would reset the connection and could destroy the answer on its way.
pub(super) async fn close(stream: &TcpStream, drain: bool) {
    // it fails where the client has closed already
    let _ = socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write);
    if !drain {
        return;
    }
    let take_in = async {
        let mut buffer = vec![0; 16 << 10];
        let mut taken = 0;
        while taken < DRAIN_BYTES_MAX && stream.readable().await.is_ok() {
            match stream.try_read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => taken += read,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    let _ = timeout(DRAIN_WAIT, take_in).await;
}
