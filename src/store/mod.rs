//! The store: the one door to this node's data.
//!
//! Reads go to the engine (`read`). Every change, of a client, from a peer or by expiry, passes
//! the one writer (`write`), which decides, commits with sync, and only then lets anybody see it
//! ([`feed`]). `ask` holds what can be asked and answered, `disk` the engines and the bytes,
//! `expiry` the clock of lifetimes. Knows nothing of HTTP or of peers.

mod ask;
mod disk;
mod expiry;
pub mod feed;
mod import;
mod mode;
mod read;
mod state;
pub mod verify;
mod write;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::clock::Clock;
use crate::model::{Key, NodeId};
use crate::proto::digest::ElementKey;
use crate::proto::stability::Ledger;
use crate::telemetry::Metrics;
pub use ask::{
    Applied, CURRENT_BYTES_MAX, Causal, Change, Collected, Counts, Entry, Lifetime, Operation,
    OperationResult, Outcome, Page, ReadError, Revision, Superseded, SupersededPage, Txn, TxnDone,
    Write, WriteError, Written,
};
pub use disk::{engine, identity, layout, memory, rocks};
use engine::{Engine, Family};
pub use expiry::Swept;
use expiry::{Due, ExpiryClock, SteadyClock};
use feed::{Feed, Window};
use identity::{Identity, OpenError};
use import::ImportFate;
pub use import::{Imported, ImportedRecord};
use mode::ModeState;
pub use mode::NodeMode;
use read::digest::Tree;
use read::large::LargeReads;
use state::DiskState;
pub use state::{Obstacle, StorageRoom};
use write::durable::Durable;
use write::job::Job;
use write::reports::Reports;
pub use write::writer;
use writer::Writer;

/// How many jobs wait in the writer's queue; further ones wait before it.
const QUEUE_JOBS_MAX: usize = 1024;

/// The settings of a store.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Values of at least this size lie apart from their headers.
    pub blob_threshold_bytes: usize,
    /// How far ahead of the clock the timestamp of a write may lie while there are other members,
    /// and how far the clock may step back without reviving an expired value.
    pub clock_drift_max: Duration,
    /// How many changes the feed's ring holds for its slowest reader.
    pub feed_entries_max: usize,
    /// How many bytes the feed's window may take on the disk.
    pub feed_bytes_max: u64,
    /// When less is free on the disk, deletes are the only writes of clients that are taken.
    pub free_bytes_min: u64,
    /// Which boot of the machine this is, where commits do not wait for the disk: positions of the
    /// feed then end with a boot. `None` where they do wait.
    pub boot: Option<String>,
    /// The secret key of the digest, common to the cluster.
    pub digest_key: [u8; 32],
    /// The cluster that the data must belong to, if any.
    pub cluster: Option<Uuid>,
    /// How many earlier revisions of a key stay; 0: none.
    pub history_depth: u32,
    /// How long requests with a uuid are remembered.
    pub idempotency_window: Duration,
    /// What remembering them may take on the disk, in bytes, before compression.
    pub idempotency_bytes_max: u64,
    /// What reports of superseded writes may take on the disk, in bytes, before compression.
    pub superseded_bytes_max: u64,
    /// How many bytes of values the compares of one request may look into together, the first value
    /// apart.
    pub compared_bytes_max: usize,
}

impl Default for Settings {
    /// The defaults of the configuration, outside of any cluster.
    fn default() -> Self {
        Self {
            blob_threshold_bytes: 4096,
            clock_drift_max: Duration::from_secs(60),
            feed_entries_max: 4096,
            feed_bytes_max: 64 << 20,
            free_bytes_min: 0,
            boot: None,
            digest_key: [0; 32],
            cluster: None,
            history_depth: 8,
            idempotency_window: Duration::from_secs(24 * 3600),
            idempotency_bytes_max: 256 << 20,
            superseded_bytes_max: 64 << 20,
            compared_bytes_max: 24 << 20,
        }
    }
}

/// The state that all handles of a [`Store`] and its writer share.
struct Shared {
    engine: Arc<dyn Engine>,
    clock: Clock,
    tree: RwLock<Tree>,
    feed: Feed,
    identity: Identity,
    /// The ids that it had before it began anew, the oldest first.
    former_ids: Vec<NodeId>,
    /// What this node knows of stability, as it is durable.
    ledger: watch::Sender<Arc<Ledger>>,
    /// Whether there are other members: set by the node, read by the writer.
    others: AtomicBool,
    /// Bounds how many requests compare contents at once.
    comparisons: tokio::sync::Semaphore,
    expiry_clock: ExpiryClock,
    due: Due,
    disk: DiskState,
    mode: ModeState,
    large_reads: LargeReads,
    /// How many bytes the remembered requests take.
    requests_bytes: AtomicU64,
    /// Which reports of superseded writes there are.
    reports: Mutex<Reports>,
    /// The time that requests are remembered by.
    steady: SteadyClock,
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
    /// scan. Run the writer, or no write will be answered.
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
        let watermark = meta(engine.as_ref(), layout::WATERMARK)?.unwrap_or_default();
        let requests_bytes: u64 =
            meta(engine.as_ref(), layout::REQUESTS_BYTES)?.unwrap_or_default();
        let reports: Option<Reports> = meta(engine.as_ref(), layout::REPORTS)?;
        let (boot, feed_bytes_max) = (settings.boot.as_deref(), settings.feed_bytes_max);
        let window = Window::open(engine.as_ref(), &clock, boot, feed_bytes_max)?;
        let steady = SteadyClock::open(engine.as_ref(), &clock)?;
        let former_ids = meta(engine.as_ref(), layout::FORMER_IDS)?.unwrap_or_default();
        let ledger = write::ledger::load(engine.as_ref(), &identity)?;
        let mode = ModeState::open(engine.as_ref(), metrics.clone())?;
        let shared = Arc::new(Shared {
            engine,
            clock,
            tree: RwLock::new(tree),
            feed: Feed::new(window, settings.feed_entries_max),
            identity,
            former_ids,
            ledger: watch::channel(Arc::new(ledger)).0,
            others: AtomicBool::new(false),
            comparisons: tokio::sync::Semaphore::new(write::COMPARISONS_MAX),
            expiry_clock: ExpiryClock::new(watermark, settings.clock_drift_max),
            due: Due::default(),
            large_reads: LargeReads::default(),
            disk: DiskState::new(settings.free_bytes_min, metrics.clone()),
            mode,
            requests_bytes: requests_bytes.into(),
            reports: Mutex::new(reports.unwrap_or_default()),
            steady,
            idempotency_window: settings.idempotency_window,
            compared_bytes_max: settings.compared_bytes_max,
        });
        shared.begin_disk_state();
        let (jobs, queue) = mpsc::channel(QUEUE_JOBS_MAX);
        let writer = Writer::new(shared.clone(), queue, metrics, settings);
        Ok((Self { shared, jobs }, writer))
    }

    /// The persistent identity of this node.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.shared.identity
    }

    /// Sets whether there are other members, which bounds how far ahead timestamps may lie.
    pub fn set_others(&self, others: bool) {
        self.shared.others.store(others, Ordering::Relaxed);
    }

    /// Makes the known members durable.
    ///
    /// # Errors
    /// When the node is stopping or storage failed.
    pub async fn put_members(&self, members: &[crate::model::Member]) -> Result<(), WriteError> {
        let value = layout::encode_meta(&members);
        self.submit(|reply| Job::Meta { name: layout::MEMBERS, value, reply }).await
    }

    /// The members of the last [`Self::put_members`].
    ///
    /// # Errors
    /// When storage fails or the entry is damaged.
    pub fn members(&self) -> Result<Vec<crate::model::Member>, ReadError> {
        Ok(meta(self.shared.engine.as_ref(), layout::MEMBERS)?.unwrap_or_default())
    }

    /// Whether the writer has stopped, so that nothing can be written.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.jobs.is_closed()
    }

    /// The fingerprint of the whole store.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        self.shared.tree().digest.root().fingerprint()
    }

    /// How many records there are. Expired values that were not swept yet count as dead, but no
    /// more than ten thousand of them, and none while storage fails.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let Counts { keys, tombstones } = self.shared.tree().counts;
        // some may have been swept, and counted, in between
        let due = self.shared.count_due().unwrap_or_default().min(keys);
        Counts { keys: keys - due, tombstones: tombstones + due }
    }

    /// Checks the digest's sums against each other and, with `settled`, digest, counts, the
    /// feed's window, the reports and the index of the dead against the disk. `settled` demands
    /// that no write is under way.
    ///
    /// # Panics
    /// When an invariant does not hold, or the store cannot be read: for tests and the simulator.
    #[expect(clippy::expect_used, reason = "the caller knows that the store can be read")]
    pub fn check_invariants(&self, settled: bool) {
        let tree = self.shared.tree();
        tree.digest.check_invariants();
        if settled {
            let engine = self.shared.engine.as_ref();
            let scanned = Tree::build(engine, tree.element_key()).expect("the store can be read");
            tree.digest.check_against(&scanned.digest);
            assert_eq!(tree.counts, scanned.counts, "the counts are not those of the records");
            let window = self.shared.feed.window().check_invariants(engine);
            window.expect("the feed can be read");
            self.shared.check_reports().expect("the reports can be read");
            self.shared.check_dead().expect("the index of the dead can be read");
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

    /// Makes it durable that this node has had its first data.
    ///
    /// # Errors
    /// When the node is stopping or storage failed.
    pub async fn set_bootstrapped(&self) -> Result<(), WriteError> {
        if self.is_bootstrapped().map_err(WriteError::Failed)? {
            return Ok(());
        }
        let value = layout::encode_meta(&());
        self.submit(|reply| Job::Meta { name: layout::BOOTSTRAPPED, value, reply }).await
    }

    /// Computes the fingerprint from every record, for comparison with [`Self::fingerprint`].
    ///
    /// # Errors
    /// When storage fails or a record is damaged.
    pub fn recomputed_fingerprint(&self) -> Result<[u8; 32], ReadError> {
        let key = self.shared.tree().element_key();
        let tree = Tree::build(self.shared.engine.as_ref(), key)?;
        Ok(tree.digest.root().fingerprint())
    }

    /// Runs `work`, which may read a lot, without holding up others: on a blocking thread, or in
    /// place on a runtime of one thread (the simulator's).
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
                // only a runtime that shuts down cancels, and it will not poll this future again
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl Shared {
    fn tree(&self) -> std::sync::RwLockReadGuard<'_, Tree> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn reports(&self) -> Reports {
        *self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_reports(&self, reports: Reports) {
        *self.reports.lock().unwrap_or_else(PoisonError::into_inner) = reports;
    }

    /// Brings expiry, remembered requests and reports to what a group has made durable.
    fn follow(&self, durable: &Durable) {
        if let Some(bytes) = durable.requests_bytes {
            self.requests_bytes.store(bytes, Ordering::Relaxed);
        }
        if let Some(reports) = durable.reports {
            self.set_reports(reports);
        }
        if let Some(distance) = durable.distance {
            self.steady.kept(distance);
        }
        if let Some(mode) = durable.mode {
            self.mode.set(mode);
        }
        self.due.apply(durable.due_records, durable.due_requests);
        if let Some(watermark) = durable.watermark {
            self.expiry_clock.advance(watermark);
        }
    }

    fn node(&self) -> NodeId {
        self.identity.node
    }
}

/// The meta entry `name`, if there is one.
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
