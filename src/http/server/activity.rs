//! What a connection is doing, seen from outside of hyper.
//!
//! hyper does not tell whether a connection is idle, reads a head or still writes an answer. Its
//! socket, the bodies of its requests and those of its answers pass through this file, which notes
//! it. Promises that an answer counts as under way until its last byte is with the system.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body as AxumBody;
use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::clock::Clock;

/// How much of an unread body is read before the answer, so that the connection can go on.
const REST_BYTES_MAX: u64 = 64 << 10;
/// How long the answer waits for such a rest. A rest this small has usually arrived.
const REST_WAIT: Duration = Duration::from_millis(50);
/// How long a client has in any case to send the head of a request.
const HEAD_WAIT_MIN: Duration = Duration::from_secs(1);

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Activity {
    /// It waits for a request, of which no byte has come.
    Idle = 0,
    /// Idle, and told to end in favour of another connection.
    Leaving = 1,
    /// A part of the head of a request has come.
    Head = 2,
    /// A request is being answered.
    Handling = 3,
    /// The head of the answer is with hyper, its body is not yet.
    Sending = 4,
    /// The whole answer is with hyper, and not yet with the system.
    Flushing = 5,
}

impl Activity {
    fn from_number(number: u8) -> Self {
        let all = [Self::Idle, Self::Leaving, Self::Head, Self::Handling, Self::Sending];
        all.get(usize::from(number)).copied().unwrap_or(Self::Flushing)
    }
}

/// What a connection is doing, and since when. Changed by the connection's task; [`Self::tell`]
/// alone may be called from elsewhere.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    clock: Clock,
    opened: Instant,
    activity: AtomicU8,
    /// When the activity began, in milliseconds since `opened`. Kept for `Idle` and `Head` only.
    since_ms: AtomicU64,
    /// The connection came while all were busy; see [`Crowd`](super::crowd::Crowd).
    is_surplus: bool,
    /// The body of the last request was not read to its end.
    has_unread_body: AtomicBool,
    /// What is left of that body.
    rest: Mutex<Option<Incoming>>,
    told: Notify,
}

impl ConnectionState {
    pub(crate) fn new(clock: Clock, is_surplus: bool) -> Self {
        Self {
            opened: clock.instant(),
            clock,
            activity: AtomicU8::new(Activity::Idle as u8),
            since_ms: AtomicU64::new(0),
            is_surplus,
            has_unread_body: AtomicBool::new(false),
            rest: Mutex::new(None),
            told: Notify::new(),
        }
    }

    pub(crate) fn activity(&self) -> Activity {
        Activity::from_number(self.activity.load(SeqCst))
    }

    /// When the activity `Idle` or `Head` began.
    pub(crate) fn since(&self) -> Instant {
        self.opened + Duration::from_millis(self.since_ms.load(SeqCst))
    }

    pub(crate) fn is_surplus(&self) -> bool {
        self.is_surplus
    }

    /// Whether a request is being answered, down to the last byte of the answer.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self.activity(), Activity::Handling | Activity::Sending | Activity::Flushing)
    }

    /// Whether the client has a part of an answer, and not all of it.
    pub(crate) fn is_answer_cut(&self) -> bool {
        matches!(self.activity(), Activity::Sending | Activity::Flushing)
    }

    pub(crate) fn has_unread_body(&self) -> bool {
        self.has_unread_body.load(SeqCst)
    }

    fn enter(&self, activity: Activity) {
        if matches!(activity, Activity::Idle | Activity::Head) {
            let since = self.clock.instant() - self.opened;
            self.since_ms.store(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), SeqCst);
        }
        self.activity.store(activity as u8, SeqCst);
    }

    /// Bytes of a request arrived.
    pub(crate) fn has_read(&self) {
        if matches!(self.activity(), Activity::Idle | Activity::Leaving) {
            self.enter(Activity::Head);
        }
    }

    /// All that hyper had is with the system.
    pub(crate) fn has_flushed(&self) {
        if self.activity() == Activity::Flushing {
            self.enter(Activity::Idle);
        }
    }

    /// A request was parsed.
    pub(crate) fn begin(&self) {
        // hyper parses a request only after it has passed the body of the last one
        self.has_unread_body.store(false, SeqCst);
        if let Ok(mut rest) = self.rest.lock() {
            *rest = None;
        }
        self.enter(Activity::Handling);
    }

    /// The answer is made: `body` goes to hyper.
    pub(crate) fn send(self: &Arc<Self>, body: AxumBody) -> TrackedAnswer {
        // hyper would wait for a body that nobody reads
        if let Ok(mut rest) = self.rest.lock() {
            *rest = None;
        }
        self.enter(Activity::Sending);
        TrackedAnswer { body, seen: Arc::clone(self) }
    }

    /// Tells an idle connection to end. `false` if it is not idle any more.
    pub(crate) fn tell(&self) -> bool {
        let (idle, leaving) = (Activity::Idle as u8, Activity::Leaving as u8);
        let told = self.activity.compare_exchange(idle, leaving, SeqCst, SeqCst).is_ok();
        if told {
            self.told.notify_one();
        }
        told
    }

    /// Tells a connection to end that has sent only a part of a head, for longer than
    /// [`HEAD_WAIT_MIN`].
    pub(crate) fn tell_in_head(&self) {
        self.told.notify_one();
    }

    /// Whether a head has been under way for so long that the connection may be told to end.
    pub(crate) fn has_slow_head(&self) -> bool {
        self.activity() == Activity::Head && self.clock.instant() - self.since() >= HEAD_WAIT_MIN
    }

    /// Waits until it is told to end.
    pub(crate) async fn told(&self) {
        self.told.notified().await;
    }

    /// Goes on: a request had come before it was told to end.
    pub(crate) fn stay(&self) {
        let (idle, leaving) = (Activity::Idle as u8, Activity::Leaving as u8);
        // fails if it goes on already
        let _ = self.activity.compare_exchange(leaving, idle, SeqCst, SeqCst);
    }

    /// Whether hyper can read the next request: the body of this one was read, or its rest is short
    /// and read now. Otherwise the connection must end with this answer.
    pub(crate) async fn can_go_on(&self, expects_continue: bool) -> bool {
        let rest = self.rest.lock().ok().and_then(|mut rest| rest.take());
        if !self.has_unread_body() {
            return true;
        }
        // reading would ask a client for the body that waits for `100 Continue`
        let Some(mut rest) = rest.filter(|_| !expects_continue) else { return false };
        if rest.size_hint().lower() > REST_BYTES_MAX {
            return false;
        }
        let read = async {
            let mut left = REST_BYTES_MAX;
            while let Some(frame) = rest.frame().await {
                let bytes = frame.ok().and_then(|frame| frame.into_data().ok()).map(|d| d.len());
                left = left.checked_sub(bytes.unwrap_or(usize::MAX) as u64)?;
            }
            Some(())
        };
        let read = timeout(REST_WAIT, read).await.ok().flatten().is_some();
        if read {
            self.has_unread_body.store(false, SeqCst);
        }
        read
    }
}

/// Whether the client has sent bytes that are not read yet.
pub(crate) fn holds_bytes(stream: &tokio::net::TcpStream) -> bool {
    matches!(stream.peek(&mut [0]).now_or_never(), Some(Ok(1..)))
}

/// The body of a request; notes whether it was read to its end.
pub(crate) struct TrackedBody {
    body: Option<Incoming>,
    seen: Arc<ConnectionState>,
}

impl TrackedBody {
    pub(crate) fn new(body: Incoming, seen: Arc<ConnectionState>) -> Self {
        seen.has_unread_body.store(true, SeqCst);
        Self { body: Some(body), seen }
    }
}

impl Body for TrackedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        let ended = frame.is_none() || body.is_end_stream();
        if matches!(frame, Some(Err(_))) {
            // a body that is cut or badly framed has no end
            this.body = None;
        } else if ended {
            this.seen.has_unread_body.store(false, SeqCst);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        if let Ok(mut rest) = self.seen.rest.lock()
            && self.seen.has_unread_body()
        {
            *rest = self.body.take();
        }
    }
}

/// The body of an answer; notes when hyper has all of it, or drops it.
pub(crate) struct TrackedAnswer {
    body: AxumBody,
    seen: Arc<ConnectionState>,
}

impl Body for TrackedAnswer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for TrackedAnswer {
    fn drop(&mut self) {
        if self.seen.activity() == Activity::Sending {
            self.seen.enter(Activity::Flushing);
        }
    }
}
