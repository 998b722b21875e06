//! Streams of frames between nodes of one cluster: QUIC with mutual TLS.
//!
//! `endpoint` (quinn), `tls` (rustls) and `framing` make real streams; the simulator puts streams
//! of its own behind the same [`Dialer`] and [`Incoming`]. Knows nothing of what the frames say.
//!
//! A connection belongs to the side that dialed it: that side alone opens streams on it. The first
//! stream carries one `hello` each way; nothing else is heard before both sides have judged the
//! other's certificate, cluster and name.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::model::Member;

mod accept;
pub mod certificate;
mod dial;
pub mod endpoint;
pub mod framing;
mod hello;
mod refusal;
mod tls;

pub use endpoint::{Bound, Endpoint, StartError};
pub use framing::{Counters, FRAME_BYTES_MAX, Receiver, Sender, Stream};
pub use hello::Hello;
pub use refusal::Refusal;

/// What a stream is for; its first frame says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Fresh commits and reports, from the side that opened it.
    Push,
    /// One reconcile session, driven by the side that opened it.
    Session,
}

impl StreamKind {
    /// Its name in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Session => "session",
        }
    }

    /// The frame that opens a stream: one byte, which is the kind.
    fn frame(self) -> [u8; 5] {
        let code = match self {
            Self::Push => 1,
            Self::Session => 2,
        };
        [1, 0, 0, 0, code]
    }

    fn from_frame(frame: [u8; 5]) -> Option<Self> {
        [Self::Push, Self::Session].into_iter().find(|kind| kind.frame() == frame)
    }
}

/// Why a peer or a stream cannot be used. Nothing was changed in any store.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// It could not be reached, or the connection was lost. Try again later.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// It is not who it should be, or holds that of this node: another cluster, another name,
    /// another certificate. Trying again helps only after somebody has changed that.
    #[error("refused: {0}")]
    Refused(String),
    /// It sent what no peer sends. Drop the stream.
    #[error("malformed: {0}")]
    Malformed(String),
}

/// Opens connections to members.
pub trait Dialer: Send + Sync + 'static {
    /// Connects to `to` and proves both sides' identity by one round trip.
    fn dial<'a>(&'a self, to: &'a Member) -> BoxFuture<'a, Result<Arc<dyn Link>, PeerError>>;
}

/// An open connection to one member. It lives as long as this or one of its streams.
pub trait Link: Send + Sync + 'static {
    /// Opens a stream. Its first frame (which says `kind`) goes out with the first frame of the
    /// caller.
    fn open(&self, kind: StreamKind) -> BoxFuture<'_, Result<Stream, PeerError>>;
    /// Resolves when the connection is gone.
    fn closed(&self) -> BoxFuture<'_, ()>;
}

/// A stream that a peer opened, after its identity was proven.
pub struct Incoming {
    /// Who opened it.
    pub from: Member,
    /// What it is for.
    pub kind: StreamKind,
    /// The stream.
    pub stream: Stream,
}
