//! What the handlers of all requests share: the node as the API sees it, and the memory budgets.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::answer::error::{Error, Unavailable};
use super::server::limits::{BodyBudget, Budget, LARGE_BYTES_MIN, PERMIT_WAIT, Permit};
use crate::clock::Clock;
use crate::config::{Config, LimitsConfig};
use crate::model::member::{CertificateLife, ClockOff, PeerStatus, SeedAnswer, SyncReport};
use crate::model::{Member, MemberState, NodeId};
use crate::store::{Store, WriteError};
use crate::telemetry::Metrics;

/// How many times its size a JSON body takes while it is parsed, besides the body itself.
pub(crate) const PARSING_FACTOR: usize = 2;

/// How many of the largest JSON bodies are parsed at once.
const PARSED_AT_ONCE: usize = 2;

/// How many times its size a large JSON body takes, itself included: bytes that are decoded from
/// base64 stay until the end of the request.
const BODY_FACTOR: usize = 2;
/// The least text of an entry of a list, as in `{"get":{"key":"a"}},`.
const ENTRY_TEXT_BYTES_MIN: usize = 20;
/// The memory of an entry besides its text and content.
const ENTRY_BYTES: usize = 512;
/// The most lists in a body.
const LISTS_MAX: usize = 3;

/// The memory of a JSON body of this size whose lists have at most `entries_max` entries together.
pub(crate) fn parsed_bytes(size: usize, entries_max: usize) -> usize {
    let entries = entries_max.min(size / ENTRY_TEXT_BYTES_MIN) * ENTRY_BYTES;
    entries + if size < LARGE_BYTES_MIN { size } else { BODY_FACTOR * size }
}

/// The most memory that one body takes.
fn body_bytes_max(limits: &LimitsConfig) -> usize {
    let entries_max = LISTS_MAX * limits.txn_operations_max;
    limits.value_bytes_max.max(parsed_bytes(limits.body_bytes_max, entries_max))
}

/// What the API serves, and what the other parts of the node report to it.
pub struct State {
    /// The data.
    pub store: Store,
    /// The settings of this node.
    pub config: Arc<Config>,
    /// Counts requests and connections; `/metrics` shows them all.
    pub metrics: Arc<Metrics>,
    /// Time, and entropy for request ids.
    pub clock: Clock,
    /// This node as the other members know it.
    pub me: Member,
    /// The cluster that this node belongs to; `None` without clustering.
    pub cluster_id: Option<Uuid>,
    /// All members that gossip knows.
    pub members: watch::Receiver<Vec<(Member, MemberState)>>,
    /// What replication knows of each peer.
    pub peers: watch::Receiver<BTreeMap<NodeId, PeerStatus>>,
    /// Requests a session with every alive peer. The reports are sent when all sessions have
    /// ended.
    pub sync: mpsc::Sender<oneshot::Sender<Vec<SyncReport>>>,
    /// `true` while this node waits for its first data and refuses reads and writes.
    pub syncing: watch::Receiver<bool>,
    /// The operator's word that this node may join a cluster that was founded apart from it.
    pub may_join: watch::Sender<bool>,
    /// The operator's word that what this node sets aside is written anew once it has joined.
    pub rewrites: watch::Sender<bool>,
    /// Lets this node leave the cluster.
    pub leave: mpsc::Sender<LeaveRequest>,
    /// What else the API shows of the cluster.
    pub outlook: Outlook,
}

/// A request to leave the cluster. If it succeeds, the node ends after the answer.
pub struct LeaveRequest {
    /// Leave although no other member holds all writes of this node.
    pub force: bool,
    /// Receives the outcome: the text says why no other member holds them.
    pub answer: oneshot::Sender<Result<Result<(), String>, WriteError>>,
}

/// What the parts of the node report about its place in the cluster.
pub struct Outlook {
    /// What a node waits for that waits for its first data, in words; empty when there is nothing
    /// to say.
    pub waits_for: watch::Receiver<String>,
    /// Which seeds answer.
    pub seeds: watch::Receiver<Vec<SeedAnswer>>,
    /// The certificates of this node.
    pub certificates: watch::Receiver<Vec<CertificateLife>>,
}

impl Default for Outlook {
    /// That of a node without a cluster.
    fn default() -> Self {
        Self {
            waits_for: watch::channel(String::new()).1,
            seeds: watch::channel(Vec::new()).1,
            certificates: watch::channel(Vec::new()).1,
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("me", &self.me.id).finish_non_exhaustive()
    }
}

/// [`State`] and the limits that all requests share.
pub(crate) struct App {
    pub(crate) state: State,
    /// Memory for the bodies of requests.
    pub(crate) bodies: BodyBudget,
    /// Memory for parsing bodies. Separate: its holders never wait for more, so no deadlock.
    pub(crate) parsing: Budget,
    /// Memory for answers until they are sent. Separate, so slow readers cannot block writers.
    pub(crate) answers: Budget,
    /// Writes whose client left before the answer; they run to their end.
    pub(crate) detached: Mutex<JoinSet<()>>,
}

/// How a handler receives the [`App`].
pub(crate) type Ctx = axum::extract::State<Arc<App>>;

impl State {
    /// How this node's clock disagrees with those of its alive peers, if it does with most.
    pub(crate) fn clock_off(&self) -> Option<ClockOff> {
        let (members, peers) = (self.members.borrow(), self.peers.borrow());
        let alive = members.iter().filter(|(_, state)| *state == MemberState::Alive);
        let others = alive.map(|(member, _)| member.id).filter(|id| *id != self.me.id);
        let most = self.config.sync.clock_drift_max;
        ClockOff::judge(others.map(|id| peers.get(&id)), most)
    }
}

impl App {
    pub(crate) fn new(state: State) -> Self {
        let limits = &state.config.limits;
        let parsing_bytes_max = PARSED_AT_ONCE * PARSING_FACTOR * limits.body_bytes_max;
        Self {
            bodies: BodyBudget::new(
                limits.body_memory_bytes_max,
                body_bytes_max(limits),
                PERMIT_WAIT,
            ),
            parsing: Budget::new(parsing_bytes_max, PERMIT_WAIT),
            answers: Budget::new(limits.answer_memory_bytes_max, PERMIT_WAIT),
            detached: Mutex::new(JoinSet::new()),
            state,
        }
    }

    /// Waits for the memory of an answer of `bytes`; small answers are not counted.
    ///
    /// # Errors
    /// `overloaded` when there is none for [`PERMIT_WAIT`].
    pub(crate) async fn answer_permit(&self, bytes: usize) -> Result<Option<Permit>, Error> {
        if bytes < LARGE_BYTES_MIN { Ok(None) } else { self.answers.permit(bytes).await.map(Some) }
    }

    /// Runs `work` on `bytes` of content: in place where that is quick, otherwise on a thread
    /// where it holds up no other request.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if bytes < LARGE_BYTES_MIN { work() } else { self.state.store.blocking(|_| work()).await }
    }

    /// Refuses reads and writes as `syncing` until this node has its first data.
    pub(crate) fn check_serving(&self) -> Result<(), Error> {
        if !*self.state.syncing.borrow() {
            return Ok(());
        }
        let waits_for = self.state.outlook.waits_for.borrow().clone();
        Err(if waits_for.is_empty() {
            Unavailable::Syncing.into()
        } else {
            Error::WaitsFor(waits_for)
        })
    }
}
