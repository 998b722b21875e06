//! Refusals: why a peer is turned away. Counts every one and logs at a bounded rate.
//!
//! Promises that a flood of garbage fills neither the log nor the memory. Must not know what a
//! connection carries.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::{Connection, VarInt};
use tokio::time::Instant;

use super::error::FrameError;
use super::framing::HELLO_BYTES_MAX;
use crate::clock::Clock;
use crate::model::Member;
use crate::telemetry::Metrics;

/// Refusals logged per [`LOG_SPAN`]; further ones are only counted.
const LOGGED_MAX: u32 = 10;
const LOG_SPAN: Duration = Duration::from_secs(10);
/// Characters of a peer's text that a log line or an error repeats.
const QUOTED_CHARS_MAX: usize = 400;

/// Why a peer is refused: the `reason` label of `peer_refused`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// One side rejects the other's certificate.
    Tls,
    /// The peer belongs to another cluster.
    Cluster,
    /// The peer's name or id is not what its certificate or this node's member list says.
    Name,
    /// The peer broke the protocol.
    Malformed,
    /// The peer announced a frame above the limit.
    Oversized,
    /// The peer missed a deadline.
    Timeout,
    /// Another process runs under the peer's id: one data directory is a copy of the other.
    Copy,
}

impl Reason {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Cluster => "cluster",
            Self::Name => "name",
            Self::Malformed => "malformed",
            Self::Oversized => "oversized",
            Self::Timeout => "timeout",
            Self::Copy => "copy",
        }
    }

    /// The QUIC code that closes the connection or the stream; 0 is an orderly end.
    pub(super) fn code(self) -> u32 {
        match self {
            Self::Tls => 1,
            Self::Cluster => 2,
            Self::Name => 3,
            Self::Malformed => 4,
            Self::Oversized => 5,
            Self::Timeout => 6,
            Self::Copy => 7,
        }
    }
}

/// One refusal. `detail` says what is wrong and what to do; text from the peer appears in it only
/// escaped and bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub(super) reason: Reason,
    pub(super) detail: String,
    /// For [`Reason::Copy`], the process that runs under the peer's id.
    double: Option<Box<Member>>,
}

impl Refusal {
    pub(super) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), double: None }
    }

    /// Refuses a peer under whose id `double` runs.
    pub(super) fn copy(double: Member, detail: String) -> Self {
        Self { reason: Reason::Copy, detail, double: Some(Box::new(double)) }
    }

    /// Closes the connection for this reason, and tells the peer why.
    pub(super) fn close(&self, connection: &Connection) {
        let said = self.double.as_ref().and_then(|double| encode_double(double).ok());
        let said = said.as_deref().unwrap_or(self.detail.as_bytes());
        connection.close(VarInt::from_u32(self.reason.code()), said);
    }
}

/// Why no connection was made.
#[derive(Debug)]
pub(super) enum Failure {
    /// This node refuses the peer.
    Refused(Refusal),
    /// The peer refuses this node, for this reason.
    RefusedByPeer(String),
    /// The peer refuses this node, because it knows this process under the same id.
    Copy(Box<Member>),
    /// The connection broke, or the peer cannot be reached.
    Lost(String),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<FrameError> for Failure {
    fn from(error: FrameError) -> Self {
        let detail = format!("the hello cannot be read: {error}");
        match error {
            FrameError::Truncated => Refusal::new(Reason::Malformed, detail).into(),
            FrameError::Oversized { .. } => Refusal::new(Reason::Oversized, detail).into(),
            _ => Self::Lost(error.to_string()),
        }
    }
}

fn encoding() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<HELLO_BYTES_MAX>()
}

/// A member as the reason for which a connection is closed carries it.
pub(super) fn encode_double(double: &Member) -> Result<Vec<u8>, bincode::error::EncodeError> {
    bincode::serde::encode_to_vec(double, encoding())
}

/// The member in the reason for which the peer closed the connection; `None` when it is none.
pub(super) fn decode_double(bytes: &[u8]) -> Option<Member> {
    let (double, _) = bincode::serde::decode_from_slice::<Member, _>(bytes, encoding()).ok()?;
    double.check().is_ok().then_some(double)
}

/// Makes a peer's text fit for a log line or an error: bounded, without control characters.
pub(super) fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().take(QUOTED_CHARS_MAX).map(shown).collect()
}

/// Counts and logs refusals.
pub struct Refusals {
    metrics: Arc<Metrics>,
    clock: Clock,
    window: Mutex<LogWindow>,
}

/// What was logged in the current span. `logged` is at most [`LOGGED_MAX`].
struct LogWindow {
    began: Instant,
    logged: u32,
    silenced: u64,
}

impl LogWindow {
    /// Whether to log a refusal at `now`, and how many the span before it left out.
    fn admit(&mut self, now: Instant) -> (bool, u64) {
        let mut silenced = 0;
        if now.duration_since(self.began) >= LOG_SPAN {
            silenced = self.silenced;
            *self = Self { began: now, logged: 0, silenced: 0 };
        }
        let admitted = self.logged < LOGGED_MAX;
        if admitted {
            self.logged += 1;
        } else {
            self.silenced += 1;
        }
        (admitted, silenced)
    }
}

impl Refusals {
    pub(super) fn new(metrics: Arc<Metrics>, clock: Clock) -> Self {
        let window = LogWindow { began: clock.instant(), logged: 0, silenced: 0 };
        Self { metrics, clock, window: Mutex::new(window) }
    }

    /// Counts a refusal of the peer at `address`, and logs it unless too many were logged lately.
    pub(super) fn note(&self, address: SocketAddr, refusal: &Refusal) {
        let Refusal { reason, detail, .. } = refusal;
        self.metrics.peer_refused.get_or_create(&[("reason", reason.label())]).inc();
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let (admitted, silenced) = window.admit(self.clock.instant());
        drop(window);
        if silenced > 0 {
            tracing::warn!("{silenced} more refused peers were counted, but not logged");
        }
        if admitted {
            tracing::warn!(reason = reason.label(), "refused the peer at {address}: {detail}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_peer_is_bounded_and_prints_on_one_line() {
        assert_eq!(printable("no\n\u{1b}[31m \"n1\""), "no\u{fffd}\u{fffd}[31m \"n1\"");
        assert_eq!(printable(&"é".repeat(1000)).chars().count(), 400);
    }

    #[test]
    fn a_flood_of_refusals_is_logged_at_a_bounded_rate_and_summed_up_later() {
        let start = Clock::system().instant();
        let mut window = LogWindow { began: start, logged: 0, silenced: 0 };
        let logged = (0..1000).filter(|_| window.admit(start).0).count();
        assert_eq!(logged, 10);
        assert_eq!(window.admit(start + LOG_SPAN), (true, 990));
        assert_eq!(window.admit(start + LOG_SPAN), (true, 0));
    }
}
