//! Frames on a stream of bytes: a length (u32, little-endian), then as many bytes.
//!
//! Promises that a frame arrives whole or not at all, that memory grows only with bytes that have
//! come, never with a length that was announced, and that [`Receiver::receive`] may be dropped at
//! any await and called again. Must not know what carries the bytes nor what the frames say.

use std::time::Duration;

use bytes::{BufMut, Bytes};
use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::PeerError;
use crate::telemetry::Metrics;

pub use crate::proto::wire::FRAME_BYTES_MAX;
/// The longest hello.
pub(super) const HELLO_BYTES_MAX: usize = 4 << 10;
/// The bytes of a frame's length.
pub(super) const LENGTH_BYTES: usize = 4;
/// How far a frame's memory may be ahead of the bytes that have come, at its beginning.
const STEP_BYTES: usize = 64 << 10;
/// Frames up to this size are copied behind their length, so that they leave in one write.
const COALESCE_BYTES_MAX: usize = 16 << 10;

/// What is counted of a stream; the default counts into nothing.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    sent: Counter,
    received: Counter,
    malformed: Counter,
    oversized: Counter,
}

impl Counters {
    /// Counts into `metrics`, as `stream`: hello, push or session.
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

/// Why a frame did not come or go. The stream is of no further use.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("the stream was cut: {0}")]
    Lost(#[from] std::io::Error),
    #[error("the stream ended inside a frame")]
    Truncated,
    #[error("a frame of {bytes} bytes, at most {bytes_max} are allowed")]
    Oversized { bytes: usize, bytes_max: usize },
    #[error("nothing came for {0:?}")]
    Silent(Duration),
    #[error("an earlier frame was sent in part")]
    Broken,
}

impl From<FrameError> for PeerError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Truncated | FrameError::Oversized { .. } => {
                Self::Malformed(error.to_string())
            }
            FrameError::Lost(_) | FrameError::Silent(_) | FrameError::Broken => {
                Self::Unreachable(error.to_string())
            }
        }
    }
}

/// A bidirectional stream of frames. Dropping it without [`Stream::finish`] ends it too, but where
/// a [`Stream::send`] was dropped half-way the peer sees a frame that is cut.
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

    /// The same, where `preamble` goes out together with the first frame.
    pub(super) fn with_preamble(mut self, preamble: &[u8]) -> Self {
        self.sender.scratch.extend_from_slice(preamble);
        self
    }

    /// The same, where `bytes` of it have been received before.
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

    /// The next frame, `None` after a clean end; see [`Receiver::receive`].
    ///
    /// # Errors
    /// As [`Receiver::receive`].
    pub async fn receive(&mut self) -> Result<Option<Bytes>, PeerError> {
        self.receiver.receive().await
    }

    /// The same, with a bound on silence; see [`Receiver::receive_within`].
    ///
    /// # Errors
    /// As [`Receiver::receive_within`].
    pub async fn receive_within(&mut self, idle: Duration) -> Result<Option<Bytes>, PeerError> {
        self.receiver.receive_within(idle).await
    }

    /// Says that no more frames will be sent; see [`Sender::finish`].
    ///
    /// # Errors
    /// As [`Sender::finish`].
    pub async fn finish(&mut self) -> Result<(), PeerError> {
        self.sender.finish().await
    }

    /// Bytes sent, lengths of frames included.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.sender.bytes()
    }

    /// Bytes received in whole frames, their lengths included.
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        self.receiver.bytes()
    }

    /// The two directions, for two owners.
    #[must_use]
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }
}

/// The direction that sends.
pub struct Sender {
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// What goes out before the next frame; its memory is used again.
    scratch: Vec<u8>,
    /// Whether a frame was begun and not ended: then nothing may follow it.
    broken: bool,
    bytes: u64,
    counter: Counter,
}

impl Sender {
    fn new(writer: impl AsyncWrite + Send + Unpin + 'static, counters: &Counters) -> Self {
        let (writer, counter) = (Box::new(writer), counters.sent.clone());
        Self { writer, scratch: Vec::new(), broken: false, bytes: 0, counter }
    }

    /// Sends one frame. Returns when the stream has taken it, which is not when the peer has. Must
    /// not be dropped half-way: the stream is of no further use then, and later calls say so.
    ///
    /// # Errors
    /// `Unreachable` when the stream is cut; `Malformed`, with nothing sent, when the frame is
    /// longer than [`FRAME_BYTES_MAX`].
    pub async fn send(&mut self, frame: &[u8]) -> Result<(), PeerError> {
        self.put(frame).await.map_err(PeerError::from)
    }

    pub(super) async fn put(&mut self, frame: &[u8]) -> Result<(), FrameError> {
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
        self.writer.write_all(&self.scratch).await?;
        let mut sent = self.scratch.len();
        if !coalesced {
            self.writer.write_all(frame).await?;
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

    /// Says that no more frames will be sent. What was sent still arrives, while the connection
    /// lives.
    ///
    /// # Errors
    /// `Unreachable` when the stream is cut.
    pub async fn finish(&mut self) -> Result<(), PeerError> {
        if self.broken {
            return Err(FrameError::Broken.into());
        }
        self.writer.shutdown().await.map_err(|e| FrameError::Lost(e).into())
    }

    /// Bytes sent, lengths of frames included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The direction that receives.
pub struct Receiver {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    bytes_max: usize,
    /// What came of the frame's length, at most [`LENGTH_BYTES`]; empty once `expected` is known.
    length: Vec<u8>,
    /// How long the frame will be, once that is known; at most `bytes_max`.
    expected: Option<usize>,
    /// The frame as far as it came; empty while `expected` is not known.
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

    /// The same, with a smaller limit to a frame.
    pub(super) fn with_limit(mut self, bytes_max: usize) -> Self {
        self.bytes_max = bytes_max;
        self
    }

    /// The next frame, `None` after a clean end. May be dropped at any await and called again:
    /// nothing is lost, so it can stand in a select.
    ///
    /// # Errors
    /// `Unreachable` when the stream is cut, `Malformed` when it ends inside a frame or a frame is
    /// announced that is too long (nothing of it is kept). Both are for good.
    pub async fn receive(&mut self) -> Result<Option<Bytes>, PeerError> {
        let came = self.next(None).await;
        self.judge(came)
    }

    /// The same, but gives up when no byte comes for `idle`. A call that was dropped does not count
    /// towards it.
    ///
    /// # Errors
    /// As [`Receiver::receive`], and `Unreachable` when nothing came for `idle`; then it may be
    /// called again.
    pub async fn receive_within(&mut self, idle: Duration) -> Result<Option<Bytes>, PeerError> {
        let came = self.next(Some(idle)).await;
        self.judge(came)
    }

    fn judge(&self, came: Result<Option<Bytes>, FrameError>) -> Result<Option<Bytes>, PeerError> {
        match &came {
            Err(FrameError::Truncated) => {
                self.counters.malformed.inc();
            }
            Err(FrameError::Oversized { .. }) => {
                self.counters.oversized.inc();
            }
            _ => {}
        }
        came.map_err(PeerError::from)
    }

    pub(super) async fn next(
        &mut self,
        idle: Option<Duration>,
    ) -> Result<Option<Bytes>, FrameError> {
        loop {
            let Some(expected) = self.expected else {
                if self.read_length(idle).await? {
                    continue;
                }
                return Ok(None);
            };
            let missing = expected.saturating_sub(self.frame.len());
            if missing == 0 {
                return Ok(Some(self.take_frame()));
            }
            // Doubles, so that copying stays linear, and never reserves beyond the frame.
            if self.frame.len() == self.frame.capacity() {
                let step = self.frame.len().max(STEP_BYTES).min(missing);
                self.frame.reserve_exact(step);
            }
            let mut room = (&mut self.frame).limit(missing);
            if read(self.reader.read_buf(&mut room), idle).await? == 0 {
                return Err(FrameError::Truncated);
            }
        }
    }

    /// Reads on at the frame's length; says whether there will be a frame.
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
            let missing = LENGTH_BYTES.saturating_sub(self.length.len());
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

    /// Bytes received in whole frames, their lengths included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// One read, bounded by `idle`. Dropping it loses nothing, as tokio says of `read_buf`.
async fn read(
    reading: impl Future<Output = std::io::Result<usize>>,
    idle: Option<Duration>,
) -> Result<usize, FrameError> {
    let Some(idle) = idle else { return Ok(reading.await?) };
    match tokio::time::timeout(idle, reading).await {
        Ok(came) => Ok(came?),
        Err(_) => Err(FrameError::Silent(idle)),
    }
}

#[cfg(test)]
#[path = "framing_tests.rs"]
mod tests;
