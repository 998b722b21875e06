//! Streams of frames between the nodes of one cluster, over QUIC with mutual TLS.
//!
//! `endpoint` (quinn), `tls` (rustls) and `framing` make real streams; the simulator puts its own
//! streams behind the same [`Dialer`] and [`Incoming`]. Must not know what the frames say.
//!
//! A connection belongs to the side that dialed it: only that side opens streams on it. The first
//! stream carries one `hello` each way. Neither side reads anything else before it has checked the
//! other's certificate, cluster and name.

mod accept;
pub mod certificate;
mod check;
mod connections;
mod dial;
pub mod endpoint;
mod error;
pub mod framing;
mod hello;
mod link;
mod pem;
mod refusal;
mod tls;

pub use check::{FileFindings, check_files};
pub use endpoint::{Bound, Endpoint, StartError};
pub use error::PeerError;
pub use framing::{Counters, FRAME_BYTES_MAX, Receiver, Sender, Stream};
pub use hello::Hello;
pub use link::{Dialer, Incoming, Link, StreamKind};
pub use refusal::Refusal;
