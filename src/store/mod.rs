//! The one door to the data.
//!
//! Reads go to the engine; every change, of a client or from a peer, goes through the one
//! [`Writer`], which decides, commits with sync and only then lets anybody see it.
//! Knows nothing of HTTP or of peers.

mod ask;
mod decide;
pub mod engine;
mod expiry;
pub mod feed;
mod group;
mod history;
pub mod identity;
pub mod layout;
#[cfg(test)]
#[path = "machine_tests.rs"]
mod machine;
pub mod memory;
#[cfg(test)]
#[path = "racing_tests.rs"]
pub(crate) mod racing;
mod read;
mod recovery;
mod requests;
pub mod rocks;
mod scan;
mod tree;
mod write;
pub mod writer;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::clock::Clock;
use crate::model::{Key, NodeId, Record};
use crate::proto::digest::ElementKey;
use crate::telemetry::Metrics;
pub use ask::{
    Applied, CURRENT_BYTES_MAX, Change, Counts, Entry, Lifetime, Operation, OperationResult,
    Outcome, Page, ReadError, Revision, Txn, TxnDone, Write, WriteError, Written,
};
use engine::{Engine, Family};
pub use expiry::Swept;
use expiry::{Due, ExpiryClock};
use feed::{Commit, Feed};
use identity::{Identity, OpenError};
use tree::Tree;
use writer::{Job, Writer};

/// Writes of clients that may wait for the writer; more wait outside.
const QUEUE_JOBS_MAX: usize = 1024;

/// What a store needs to know of its node.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Values of at least this size are kept apart from their headers.
    pub blob_threshold_bytes: usize,
    /// How far ahead of the clock a write's timestamp may lie while there are other members.
    pub clock_drift_max: Duration,
    /// Commits that the feed keeps for its slowest reader.
    pub feed_commits_max: usize,
    /// The key of the digest, common to the cluster.
    pub digest_key: [u8; 32],
    /// The cluster that the data must belong to, if any.
    pub cluster: Option<Uuid>,
    /// Earlier revisions that are kept of a key; 0: none.
    pub history_depth: u32,
    /// How long requests that have a name are remembered.
    pub idempotency_window: Duration,
    /// What remembering them may take on the disk, in bytes, before compression.
    pub idempotency_bytes_max: u64,
    /// How many bytes of values the compares of one request may look into together, apart from the
    /// first.
    pub compared_bytes_max: usize,
}

impl Default for Settings {
    /// Those of the default configuration, outside of any cluster.
    fn default() -> Self {
        Self {
            blob_threshold_bytes: 4096,
            clock_drift_max: Duration::from_secs(60),
            feed_commits_max: 4096,
            digest_key: [0; 32],
            cluster: None,
            history_depth: 8,
            idempotency_window: Duration::from_secs(24 * 3600),
            idempotency_bytes_max: 256 << 20,
            compared_bytes_max: 24 << 20,
        }
    }
}

/// What all holders of a [`Store`] and the writer share.
struct Shared {
    engine: Arc<dyn Engine>,
    clock: Clock,
    tree: RwLock<Tree>,
    feed: Feed,
    identity: Identity,
    /// Whether there are other members: set by the node, read by the writer.
    others: AtomicBool,
    /// Turns for comparing contents.
    comparisons: tokio::sync::Semaphore,
    /// Tells by what time values are judged.
    judge: ExpiryClock,
    /// Where what is due begins.
    due: Due,
    /// Whether storage has failed and is not open again.
    recovers: AtomicBool,
    /// What remembered requests take.
    requests_bytes: AtomicU64,
    idempotency_window: Duration,
    compared_bytes_max: usize,
}

/// A handle to the data of this node. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Opens what `engine` holds: checks format, identity and cluster, and builds the digest by one
    /// scan. The writer must be run for writes to be answered.
    ///
    /// # Errors
    /// When the data is damaged, of a newer format, or another cluster's.
    pub fn open(
        engine: Arc<dyn Engine>,
        clock: Clock,
        metrics: Arc<Metrics>,
        settings: &Settings,
    ) -> Result<(Self, Writer), OpenError> {
        let identity = identity::open(engine.as_ref(), &clock, settings.cluster)?;
        let tree = Tree::build(engine.as_ref(), ElementKey::new(&settings.digest_key))?;
        let judged = meta(engine.as_ref(), layout::JUDGED)?.unwrap_or_default();
        let requests_bytes: u64 =
            meta(engine.as_ref(), layout::REQUESTS_BYTES)?.unwrap_or_default();
        let shared = Arc::new(Shared {
            engine,
            clock,
            tree: RwLock::new(tree),
            feed: Feed::new(settings.feed_commits_max),
            identity,
            others: AtomicBool::new(false),
            comparisons: tokio::sync::Semaphore::new(write::COMPARISONS_MAX),
            judge: ExpiryClock::new(judged, settings.clock_drift_max),
            due: Due::default(),
            recovers: AtomicBool::new(false),
            requests_bytes: requests_bytes.into(),
            idempotency_window: settings.idempotency_window,
            compared_bytes_max: settings.compared_bytes_max,
        });
        let (jobs, queue) = mpsc::channel(QUEUE_JOBS_MAX);
        let writer = Writer::new(shared.clone(), queue, metrics, settings);
        Ok((Self { shared, jobs }, writer))
    }

    /// Who this node is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.shared.identity
    }

    /// Says whether there are other members, which bounds how far ahead timestamps may lie.
    pub fn set_others(&self, others: bool) {
        self.shared.others.store(others, Ordering::Relaxed);
    }

    /// Merges records from a peer. When this returns `Ok`, all of them are durable or were beaten
    /// by what is, but for those that came without their bytes ([`Record::is_swept`]) and are not
    /// over here: they are left out. The others must be whole ([`Record::is_whole`]).
    ///
    /// # Errors
    /// When the node is stopping or storage failed; some may then have been merged.
    pub async fn apply(&self, records: Vec<(Key, Record)>) -> Result<Applied, WriteError> {
        self.ask(|answer| Job::Apply { records, answer }).await
    }

    /// Keeps what is known of the members, durably.
    ///
    /// # Errors
    /// When the node is stopping or storage failed.
    pub async fn put_members(&self, members: &[crate::model::Member]) -> Result<(), WriteError> {
        let value = layout::encode_meta(&members);
        self.ask(|answer| Job::Meta { key: layout::MEMBERS, value, answer }).await
    }

    /// The members that were kept.
    ///
    /// # Errors
    /// When storage fails or the entry is damaged.
    pub fn members(&self) -> Result<Vec<crate::model::Member>, ReadError> {
        Ok(meta(self.shared.engine.as_ref(), layout::MEMBERS)?.unwrap_or_default())
    }

    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, WriteError>>) -> Job,
    ) -> Result<T, WriteError> {
        let (answer, answered) = oneshot::channel();
        self.jobs.send(job(answer)).await.map_err(|_| WriteError::ShuttingDown)?;
        // the writer answers every job that it takes, unless it fails
        let failed = || WriteError::OutcomeUnknown("the writer has failed".to_owned());
        answered.await.unwrap_or_else(|_| Err(failed()))
    }

    /// Whether the writer has stopped, so that nothing can be written any more.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.jobs.is_closed()
    }

    /// A reader of all writes of this node's clients from now on.
    #[must_use]
    pub fn subscribe(&self) -> tokio::sync::broadcast::Receiver<Arc<Commit>> {
        self.shared.feed.subscribe()
    }

    /// The fingerprint of the whole store.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        self.shared.tree().digest.root().fingerprint()
    }

    /// How many records there are. Of values that are dead and not swept yet, ten thousand at most
    /// count as dead, and none while storage fails.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let Counts { keys, tombstones } = self.shared.tree().counts;
        // they may be swept, and counted, in between
        let due = self.shared.count_due().unwrap_or_default().min(keys);
        Counts { keys: keys - due, tombstones: tombstones + due }
    }

    /// Checks the digest: its sums against each other and, with `settled`, the whole tree against
    /// all records. `settled` demands that no write is under way.
    ///
    /// # Panics
    /// When an invariant does not hold, or the store cannot be read: for tests and the simulator.
    #[expect(clippy::expect_used, reason = "the caller knows that the store can be read")]
    pub fn check_invariants(&self, settled: bool) {
        let tree = self.shared.tree();
        tree.digest.check_invariants();
        if settled {
            let scanned = Tree::build(self.shared.engine.as_ref(), tree.element_key());
            tree.digest.check_against(&scanned.expect("the store can be read").digest);
        }
    }

    /// Whether this node has had its first data, from its clients or from a peer that had all.
    ///
    /// # Errors
    /// When storage fails.
    pub fn is_bootstrapped(&self) -> Result<bool, ReadError> {
        let entry = self.shared.engine.get(Family::Meta, layout::BOOTSTRAPPED.as_bytes())?;
        Ok(entry.is_some())
    }

    /// Keeps for good that this node has had its first data.
    ///
    /// # Errors
    /// When the node is stopping or storage failed.
    pub async fn set_bootstrapped(&self) -> Result<(), WriteError> {
        if self.is_bootstrapped().map_err(WriteError::Failed)? {
            return Ok(());
        }
        let value = layout::encode_meta(&());
        self.ask(|answer| Job::Meta { key: layout::BOOTSTRAPPED, value, answer }).await
    }

    /// Computes the fingerprint anew from every record, to be compared with [`Self::fingerprint`].
    ///
    /// # Errors
    /// When storage fails or a record is damaged.
    pub fn recomputed_fingerprint(&self) -> Result<[u8; 32], ReadError> {
        let key = self.shared.tree().element_key();
        let tree = Tree::build(self.shared.engine.as_ref(), key)?;
        Ok(tree.digest.root().fingerprint())
    }

    /// Runs `work`, which may read a lot, where it does not hold up others: on a blocking thread,
    /// or in place on a runtime that has one thread only (the simulator's).
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> T {
        let store = self.clone();
        let runtime = tokio::runtime::Handle::current();
        if runtime.runtime_flavor() == tokio::runtime::RuntimeFlavor::CurrentThread {
            return work(&store);
        }
        match runtime.spawn_blocking(move || work(&store)).await {
            Ok(result) => result,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // only a runtime that is going down cancels; this future will not be polled again
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl Shared {
    fn tree(&self) -> std::sync::RwLockReadGuard<'_, Tree> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings what is kept beside the engine up to a group that was committed.
    fn follow(&self, done: &group::Done) {
        if let Some(bytes) = done.requests_bytes {
            self.requests_bytes.store(bytes, Ordering::Relaxed);
        }
        self.due.follow(done.swept_to, done.noted);
        done.kept_time.into_iter().for_each(|time| self.judge.follow(time));
    }

    fn node(&self) -> NodeId {
        self.identity.node
    }
}

/// A meta entry, if it is there.
fn meta<T: serde::de::DeserializeOwned>(
    engine: &dyn Engine,
    name: &str,
) -> Result<Option<T>, ReadError> {
    let entry = engine.get(Family::Meta, name.as_bytes())?;
    entry.map(|bytes| layout::decode_meta(name, &bytes)).transpose()
}

fn missing_value(key: &Key) -> ReadError {
    ReadError::Damaged { key: key.to_string(), problem: "its value is missing".to_owned() }
}

fn checked_key(bytes: &[u8]) -> Result<Key, ReadError> {
    Key::from_bytes(bytes).map_err(|error| ReadError::Damaged {
        key: String::from_utf8_lossy(bytes).into_owned(),
        problem: error.to_string(),
    })
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "lives_tests.rs"]
mod lives_tests;
