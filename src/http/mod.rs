//! The HTTP API: axum in front of the store.
//!
//! One file a resource (`kv`, `cas`, `txn`, `history`, `scan`, `cluster`, `health`, `metrics`), and
//! around them what all share: `server` (connections), `connection` (bytes), `front` (what every
//! request and answer has in common), `routes` (the table), `error` (the only place where an error
//! becomes a status), `body`, `path`, `query`, `json`, `intent`, `etag`, `range`, `retry` (what
//! comes in), `write` (what becomes of it) and `value`, `envelope`, `answer` (what goes out). Knows
//! the store; of gossip and replication only the values that [`State`] carries.

mod answer;
mod body;
#[cfg(test)]
mod budget_tests;
mod cas;
mod cluster;
mod connection;
mod envelope;
mod error;
mod etag;
mod front;
mod health;
mod history;
mod intent;
mod json;
mod kv;
mod metrics;
mod path;
mod query;
mod range;
mod retry;
#[cfg(test)]
#[path = "rig_tests.rs"]
mod rig;
mod routes;
mod scan;
mod server;
mod txn;
mod value;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::clock::Clock;
use crate::config::Config;
use crate::model::member::{PeerStatus, SyncReport};
use crate::model::{Member, MemberState, NodeId};
use crate::store::Store;
use crate::telemetry::Metrics;

pub use server::serve;

/// What the API is made of: the store, and what others know.
pub struct State {
    /// The data.
    pub store: Store,
    /// The settings.
    pub config: Arc<Config>,
    /// Where requests are counted.
    pub metrics: Arc<Metrics>,
    /// Time, and entropy for request ids.
    pub clock: Clock,
    /// This node.
    pub me: Member,
    /// The cluster that this node belongs to, if any.
    pub cluster_id: Option<Uuid>,
    /// All members, this node included; from gossip.
    pub members: watch::Receiver<Vec<(Member, MemberState)>>,
    /// What is known of peers beyond gossip; from replication.
    pub peers: watch::Receiver<BTreeMap<NodeId, PeerStatus>>,
    /// Asks for a session with every alive peer; the answer comes when all are done.
    pub sync: mpsc::Sender<oneshot::Sender<Vec<SyncReport>>>,
    /// Whether this node still waits for its first data and refuses reads and writes.
    pub syncing: watch::Receiver<bool>,
}

/// The resources as a service: for requests that come in this process instead of by a connection.
/// What [`serve`] puts around every answer (its id, the node's, the count, the net under a panic)
/// is not here.
pub fn router(state: State) -> axum::Router {
    routes::router(Arc::new(App::new(state)))
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("me", &self.me.id).finish_non_exhaustive()
    }
}

/// From this size on, memory is counted and work is done on a thread of its own.
const LARGE_BYTES_MIN: usize = 64 << 10;

/// How many of the largest JSON bodies are parsed at once.
const PARSED_AT_ONCE: usize = 2;

/// What every handler is handed.
struct App {
    state: State,
    /// Memory for the bodies of requests.
    budget: body::Budget,
    /// Memory for parsing some of them at a time.
    parsing: body::Budget,
    /// Memory for answers until they are sent: of its own, so that who reads slowly keeps nobody
    /// from writing.
    answers: body::Budget,
    /// Writes whose client left before the answer; they run to their end.
    detached: Mutex<JoinSet<()>>,
}

/// How a handler receives it.
type Ctx = axum::extract::State<Arc<App>>;

impl App {
    fn new(state: State) -> Self {
        let limits = &state.config.limits;
        let budget = body::Budget::new(limits.body_memory_bytes_max, body::ROOM_WAIT);
        let answers = body::Budget::new(limits.answer_memory_bytes_max, body::ROOM_WAIT);
        let parsing = PARSED_AT_ONCE * body::PARSING_FACTOR * limits.body_bytes_max;
        let parsing = body::Budget::new(parsing, body::ROOM_WAIT);
        Self { state, budget, parsing, answers, detached: Mutex::new(JoinSet::new()) }
    }

    /// Waits a while for the memory of an answer of `bytes`, if that is worth counting.
    async fn room(&self, bytes: usize) -> Result<Option<body::Held>, error::Error> {
        if bytes < LARGE_BYTES_MIN { Ok(None) } else { self.answers.hold(bytes).await.map(Some) }
    }

    /// Runs `work` on `bytes` of content: in place where that takes no time, else where it does not
    /// hold up other requests.
    async fn work<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if bytes < LARGE_BYTES_MIN { work() } else { self.state.store.blocking(|_| work()).await }
    }

    /// Lets reads and writes through, unless this node has no data yet.
    fn check_serving(&self) -> Result<(), error::Error> {
        if *self.state.syncing.borrow() { Err(error::Error::Syncing) } else { Ok(()) }
    }
}
