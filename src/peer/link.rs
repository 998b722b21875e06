//! The ports of this module: what replication dials, opens and receives.
//!
//! The endpoint implements them over QUIC, the simulator in memory. Must not know quinn.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::error::PeerError;
use super::framing::Stream;
use crate::model::Member;

/// What a stream is for. Its first frame carries this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Fresh commits and reports, sent by the side that opened the stream.
    Push,
    /// One reconcile session, driven by the side that opened the stream.
    Session,
}

impl StreamKind {
    /// The `stream` label in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Session => "session",
        }
    }

    /// The first frame of a stream: its body is one byte, the kind.
    pub(super) fn frame(self) -> [u8; 5] {
        let code = match self {
            Self::Push => 1,
            Self::Session => 2,
        };
        [1, 0, 0, 0, code]
    }

    pub(super) fn from_frame(frame: [u8; 5]) -> Option<Self> {
        [Self::Push, Self::Session].into_iter().find(|kind| kind.frame() == frame)
    }
}

/// Opens connections to members.
pub trait Dialer: Send + Sync + 'static {
    /// Connects to `to` and returns once both sides have proven their identity, which takes one
    /// round trip after the handshake.
    fn dial<'a>(&'a self, to: &'a Member) -> BoxFuture<'a, Result<Arc<dyn Link>, PeerError>>;
}

/// An open connection to one member. It closes when the link and all its streams are dropped.
pub trait Link: Send + Sync + 'static {
    /// Opens a stream. The frame that names `kind` travels with the caller's first frame, so the
    /// peer does not see the stream before that.
    fn open(&self, kind: StreamKind) -> BoxFuture<'_, Result<Stream, PeerError>>;
    /// Resolves when the connection has ended.
    fn closed(&self) -> BoxFuture<'_, ()>;
}

/// A stream that a peer opened. The peer's identity is proven.
pub struct Incoming {
    /// The peer, as its hello describes it.
    pub from: Member,
    /// What the peer wants to do on the stream.
    pub kind: StreamKind,
    /// The stream, positioned after the frame that named `kind`.
    pub stream: Stream,
}
