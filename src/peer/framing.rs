//! Frames on a stream of bytes: a length (u32, little-endian), then as many bytes.
//!
//! Promises that a frame arrives whole or not at all; that memory grows with the bytes received,
//! never with an announced length; and that [`Receiver::receive`] is cancel-safe. Must not know
//! what carries the bytes or what the frames say.

use std::time::Duration;

use bytes::{BufMut, Bytes};
use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::error::{FrameError, PeerError};
use super::pace::{StreamPace, read, write};
use crate::telemetry::Metrics;

pub use crate::proto::wire::FRAME_BYTES_MAX;
/// The longest hello.
pub(super) const HELLO_BYTES_MAX: usize = 4 << 10;
/// Size of a frame's length field.
pub(super) const LENGTH_BYTES: usize = 4;
/// The first allocation for a frame; it doubles as bytes arrive.
const STEP_BYTES: usize = 64 << 10;
/// Frames up to this size are copied behind their length, so that both leave in one write.
const COALESCE_BYTES_MAX: usize = 16 << 10;

/// The counters of one kind of stream. The default belongs to no metrics.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    sent: Counter,
    received: Counter,
    malformed: Counter,
    oversized: Counter,
}

impl Counters {
    /// Counts into `metrics` under the label `stream`: hello, push or session.
    #[must_use]
    pub fn new(metrics: &Metrics, stream: &'static str) -> Self {
        let bytes = |direction| {
            let labels = [("direction", direction), ("stream", stream)];
            metrics.peer_bytes.get_or_create_owned(&labels)
        };
        let refused = |reason| metrics.peer_refused.get_or_create_owned(&[("reason", reason)]);
        Self {
            sent: bytes("sent"),
            received: bytes("received"),
            malformed: refused("malformed"),
            oversized: refused("oversized"),
        }
    }
}

/// A bidirectional stream of frames. Dropping it ends it like [`Stream::finish`], except after a
/// [`Stream::send`] that was dropped half-way: then the peer receives a truncated frame.
pub struct Stream {
    sender: Sender,
    receiver: Receiver,
}

impl Stream {
    /// Frames over `reader` and `writer`, counted into `counters`.
    #[must_use]
    pub fn new(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
        counters: &Counters,
    ) -> Self {
        Self { sender: Sender::new(writer, counters), receiver: Receiver::new(reader, counters) }
    }

    /// Puts `preamble` in front of the first frame, in the same write.
    pub(super) fn with_preamble(mut self, preamble: &[u8]) -> Self {
        self.sender.scratch.extend_from_slice(preamble);
        self
    }

    /// Counts `bytes` that were read from the stream before framing began.
    pub(super) fn with_received(mut self, bytes: usize) -> Self {
        self.receiver.count(bytes);
        self
    }

    /// Sends one frame; see [`Sender::send`].
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn send(&mut self, frame: &[u8]) -> Result<(), PeerError> {
        self.sender.send(frame).await
    }

    /// Sends one frame, with a bound on silence; see [`Sender::send_within`].
    ///
    /// # Errors
    /// As [`Sender::send_within`].
    pub async fn send_within(&mut self, frame: &[u8], idle: Duration) -> Result<(), PeerError> {
        self.sender.send_within(frame, idle).await
    }

    /// The next frame, `None` after a clean end; see [`Receiver::receive`].
    ///
    /// # Errors
    /// As [`Receiver::receive`].
    pub async fn receive(&mut self) -> Result<Option<Bytes>, PeerError> {
        self.receiver.receive().await
    }

    /// The next frame, with a bound on silence; see [`Receiver::receive_within`].
    ///
    /// # Errors
    /// As [`Receiver::receive_within`].
    pub async fn receive_within(&mut self, idle: Duration) -> Result<Option<Bytes>, PeerError> {
        self.receiver.receive_within(idle).await
    }

    /// Ends the sending direction; see [`Sender::finish`].
    ///
    /// # Errors
    /// As [`Sender::finish`].
    pub async fn finish(&mut self) -> Result<(), PeerError> {
        self.sender.finish().await
    }

    /// Bytes sent, including frame lengths.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.sender.bytes()
    }

    /// Bytes received in complete frames, including their lengths.
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        self.receiver.bytes()
    }

    /// Splits the stream into its two directions, which work independently.
    #[must_use]
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }
}

/// The sending direction of a [`Stream`].
pub struct Sender {
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// Bytes that precede the next frame; empty except for a preamble. Reused between frames.
    scratch: Vec<u8>,
    /// Set while a frame is partly written. If it stays set, the stream cannot be used any more.
    broken: bool,
    bytes: u64,
    counter: Counter,
}

impl Sender {
    fn new(writer: impl AsyncWrite + Send + Unpin + 'static, counters: &Counters) -> Self {
        let (writer, counter) = (Box::new(writer), counters.sent.clone());
        Self { writer, scratch: Vec::new(), broken: false, bytes: 0, counter }
    }

    /// Sends one frame. Returns when the stream has buffered it; the peer may not have received it
    /// yet. Not cancel-safe: after a dropped call every later call fails.
    ///
    /// # Errors
    /// `Unreachable` when the stream broke; `Malformed`, with nothing sent, when the frame is
    /// longer than [`FRAME_BYTES_MAX`].
    pub async fn send(&mut self, frame: &[u8]) -> Result<(), PeerError> {
        self.put(frame).await.map_err(PeerError::from)
    }

    /// Like [`Sender::send`], but gives up when the stream takes no byte for `idle`, or, after the
    /// first `idle`, fewer than 1,000 bytes a second. The length of the frame sets no limit.
    ///
    /// # Errors
    /// As [`Sender::send`], and `Unreachable` when it gave up.
    pub async fn send_within(&mut self, frame: &[u8], idle: Duration) -> Result<(), PeerError> {
        self.put_paced(frame, Some(StreamPace::new(idle))).await.map_err(PeerError::from)
    }

    pub(super) async fn put(&mut self, frame: &[u8]) -> Result<(), FrameError> {
        self.put_paced(frame, None).await
    }

    async fn put_paced(
        &mut self,
        frame: &[u8],
        mut pace: Option<StreamPace>,
    ) -> Result<(), FrameError> {
        let bytes = frame.len();
        let oversized = FrameError::Oversized { bytes, bytes_max: FRAME_BYTES_MAX };
        let Some(length) = u32::try_from(bytes).ok().filter(|_| bytes <= FRAME_BYTES_MAX) else {
            return Err(oversized);
        };
        if self.broken {
            return Err(FrameError::Broken);
        }
        self.broken = true;
        self.scratch.put_u32_le(length);
        let coalesced = bytes <= COALESCE_BYTES_MAX;
        if coalesced {
            self.scratch.extend_from_slice(frame);
        }
        write(&mut self.writer, &self.scratch, &mut pace).await?;
        let mut sent = self.scratch.len();
        if !coalesced {
            write(&mut self.writer, frame, &mut pace).await?;
            sent += bytes;
        }
        self.writer.flush().await?;
        self.scratch.clear();
        self.broken = false;
        let sent = u64::try_from(sent).unwrap_or(u64::MAX);
        self.bytes += sent;
        self.counter.inc_by(sent);
        Ok(())
    }

    /// Ends this direction: the peer's next receive after the last frame gives `None`. Frames sent
    /// before still arrive, as long as the connection lives.
    ///
    /// # Errors
    /// `Unreachable` when the stream broke.
    pub async fn finish(&mut self) -> Result<(), PeerError> {
        if self.broken {
            return Err(FrameError::Broken.into());
        }
        self.writer.shutdown().await.map_err(|e| FrameError::Lost(e).into())
    }

    /// Bytes sent, including frame lengths.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The receiving direction of a [`Stream`].
pub struct Receiver {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    bytes_max: usize,
    /// The received part of the length field, at most [`LENGTH_BYTES`]; empty once `expected` is
    /// set.
    length: Vec<u8>,
    /// The length of the current frame, once known; at most `bytes_max`.
    expected: Option<usize>,
    /// The received part of the current frame, at most `expected`; empty while that is `None`.
    frame: Vec<u8>,
    bytes: u64,
    counters: Counters,
}

impl Receiver {
    pub(super) fn new(
        reader: impl AsyncRead + Send + Unpin + 'static,
        counters: &Counters,
    ) -> Self {
        Self {
            reader: Box::new(reader),
            bytes_max: FRAME_BYTES_MAX,
            length: Vec::with_capacity(LENGTH_BYTES),
            expected: None,
            frame: Vec::new(),
            bytes: 0,
            counters: counters.clone(),
        }
    }

    /// Lowers the limit for each frame.
    pub(super) fn with_limit(mut self, bytes_max: usize) -> Self {
        self.bytes_max = bytes_max;
        self
    }

    /// The next frame, `None` after a clean end. Cancel-safe: a dropped call loses no bytes, so
    /// it can be a branch of `select!`.
    ///
    /// # Errors
    /// `Unreachable` when the stream broke; `Malformed` when it ends inside a frame or announces an
    /// oversized one, of which nothing is read. Both are final.
    pub async fn receive(&mut self) -> Result<Option<Bytes>, PeerError> {
        let received = self.next(None).await;
        self.counted(received)
    }

    /// Like [`Receiver::receive`], but gives up when no byte arrives for `idle`, or when a frame
    /// that has begun brings, after another `idle`, fewer than 1,000 bytes a second. Each call
    /// starts anew.
    ///
    /// # Errors
    /// As [`Receiver::receive`], and `Unreachable` when it gave up; then it can be called again.
    pub async fn receive_within(&mut self, idle: Duration) -> Result<Option<Bytes>, PeerError> {
        let received = self.next(Some(idle)).await;
        self.counted(received)
    }

    /// Counts a violation of the protocol.
    fn counted(
        &self,
        received: Result<Option<Bytes>, FrameError>,
    ) -> Result<Option<Bytes>, PeerError> {
        match &received {
            Err(FrameError::Truncated) => {
                self.counters.malformed.inc();
            }
            Err(FrameError::Oversized { .. }) => {
                self.counters.oversized.inc();
            }
            _ => {}
        }
        received.map_err(PeerError::from)
    }

    pub(super) async fn next(
        &mut self,
        idle: Option<Duration>,
    ) -> Result<Option<Bytes>, FrameError> {
        let mut pace = None;
        loop {
            let Some(expected) = self.expected else {
                if self.read_length(idle).await? {
                    continue;
                }
                return Ok(None);
            };
            assert!(self.frame.len() <= expected, "reads are limited to the missing bytes");
            let missing = expected - self.frame.len();
            if missing == 0 {
                return Ok(Some(self.take_frame()));
            }
            // doubling keeps the copying linear; `missing` bounds it by the frame
            if self.frame.len() == self.frame.capacity() {
                let step = self.frame.len().max(STEP_BYTES).min(missing);
                self.frame.reserve_exact(step);
            }
            let mut room = (&mut self.frame).limit(missing);
            let reading = self.reader.read_buf(&mut room);
            let came = match idle.map(|idle| pace.get_or_insert_with(|| StreamPace::new(idle))) {
                Some(pace) => pace.keep(reading, FrameError::Silent).await?,
                None => reading.await?,
            };
            if came == 0 {
                return Err(FrameError::Truncated);
            }
        }
    }

    /// Reads the rest of the length field and sets `expected`; `false` after a clean end.
    async fn read_length(&mut self, idle: Option<Duration>) -> Result<bool, FrameError> {
        loop {
            if let Ok(length) = <[u8; LENGTH_BYTES]>::try_from(self.length.as_slice()) {
                let bytes = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
                let bytes_max = self.bytes_max;
                if bytes > bytes_max {
                    return Err(FrameError::Oversized { bytes, bytes_max });
                }
                self.length.clear();
                self.expected = Some(bytes);
                return Ok(true);
            }
            assert!(self.length.len() < LENGTH_BYTES, "a complete length was handled above");
            let missing = LENGTH_BYTES - self.length.len();
            let mut room = (&mut self.length).limit(missing);
            if read(self.reader.read_buf(&mut room), idle).await? == 0 {
                let clean = self.length.is_empty();
                return if clean { Ok(false) } else { Err(FrameError::Truncated) };
            }
        }
    }

    fn take_frame(&mut self) -> Bytes {
        self.expected = None;
        let frame = Bytes::from(std::mem::take(&mut self.frame));
        self.count(frame.len() + LENGTH_BYTES);
        frame
    }

    fn count(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.bytes += bytes;
        self.counters.received.inc_by(bytes);
    }

    /// Bytes received in complete frames, including their lengths.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
#[path = "framing_tests.rs"]
mod tests;
