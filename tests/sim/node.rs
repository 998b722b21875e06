//! One simulated node: the parts that survive a crash, and those that run while it is up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kvs::clock::Clock;
use kvs::config::{self, Config};
use kvs::gossip::Gossip;
use kvs::model::member::PeerStatus;
use kvs::model::{Key, Member, MemberState, NodeId, Record, Version};
use kvs::node::members;
use kvs::proto::secret::Secret;
use kvs::replication::{Aside, Replication, SyncRequest};
use kvs::store::engine::Engine;
use kvs::store::identity::Identity;
use kvs::store::identity::OpenError;
use kvs::store::writer::{Moment, Writer};
use kvs::store::{Settings, Store};
use kvs::telemetry::Metrics;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::audit::Audit;
use crate::client::lock;
use crate::clock::SimClock;
use crate::disk::Disk;
use crate::network::{Network, peer_of};

/// Values of at least this size are stored apart.
pub const BLOB_THRESHOLD_BYTES: usize = 64;

/// How often a held-up writer checks whether it can go on.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The place of a node: its disk and its clock stay when the process ends.
pub struct Node {
    pub slot: usize,
    pub disk: Arc<Disk>,
    pub clock: Arc<SimClock>,
    /// The longest that a group waits for the disk at present.
    pub disk_ms_max: Arc<AtomicU64>,
    pub up: Option<Up>,
    /// Whether a process ever ran over this disk.
    pub was_started: bool,
    /// The id that the latest process began with.
    pub id: Option<NodeId>,
    /// Whether its disk was ever set back.
    pub was_set_back: bool,
    /// Whether the operator lets it join a cluster that was founded apart.
    pub may_join: watch::Sender<bool>,
}

/// A process.
pub struct Up {
    pub store: Store,
    pub identity: Identity,
    pub metrics: Arc<Metrics>,
    pub syncing: watch::Receiver<bool>,
    members: watch::Receiver<Vec<(Member, MemberState)>>,
    /// The members that this node saw up and serving when it ended its wait for first data; the
    /// auditor takes them.
    pub full: Arc<Mutex<Option<BTreeSet<NodeId>>>>,
    /// What it knows of each peer.
    pub peers: watch::Receiver<BTreeMap<NodeId, PeerStatus>>,
    /// Asks for sessions with all peers.
    pub sync: mpsc::Sender<SyncRequest>,
    /// Set when the node has left, to how long it is absent.
    pub left: Arc<Mutex<Option<Duration>>>,
    /// What the serving nodes held when this node began to wait.
    pub sources: Vec<Source>,
    pub clients: JoinSet<()>,
    /// Ends the clients.
    pub no_more: CancellationToken,
    /// Set while a group is durable that the digest does not show yet.
    between: Arc<AtomicBool>,
    writer: JoinHandle<()>,
    tasks: JoinSet<()>,
    /// Stops the process in order.
    stop: CancellationToken,
}

/// What a serving node held, and its process.
pub struct Source {
    pub id: NodeId,
    pub process: Arc<Metrics>,
    pub held: BTreeMap<Key, Version>,
}

impl Drop for Up {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

/// What all nodes of a simulation share.
#[derive(Clone)]
pub struct Common {
    pub network: Network,
    pub config: Config,
    pub secret: Arc<Secret>,
    /// The seeds of a node that starts.
    pub seeds: Vec<String>,
}

pub fn address(slot: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 1000 + 10 * u16::try_from(slot).expect("few nodes")))
}

impl Up {
    /// Whether the writer has ended by itself, which it must not do.
    pub fn has_ended(&self) -> bool {
        self.writer.is_finished()
    }

    /// Whether it waits for no data.
    pub fn serves(&self) -> bool {
        !*self.syncing.borrow()
    }

    /// Whether the digest must agree with the records now.
    pub fn is_settled(&self) -> bool {
        !self.between.load(Ordering::Relaxed)
    }

    /// The state in which this node sees another one.
    pub fn sees(&self, id: NodeId) -> Option<MemberState> {
        let members = self.members.borrow();
        members.iter().find(|(member, _)| member.id == id).map(|(_, state)| *state)
    }

    /// Runs a task that ends with the process.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Lets each client finish its request.
    pub async fn stop_clients(&mut self) {
        self.no_more.cancel();
        while self.clients.join_next().await.is_some() {}
    }

    /// Stops in the order of a process that is asked to: first the clients, then gossip, which
    /// announces it to the others, last the store.
    pub async fn stop(mut self) {
        self.stop_clients().await;
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Node {
    pub fn new(slot: usize, clock: Arc<SimClock>, disk: Disk, disk_ms_max: u64) -> Self {
        let disk_ms_max = Arc::new(AtomicU64::new(disk_ms_max));
        let disk = Arc::new(disk);
        let may_join = watch::channel(false).0;
        Self {
            slot,
            disk,
            clock,
            disk_ms_max,
            up: None,
            was_started: false,
            id: None,
            was_set_back: false,
            may_join,
        }
    }

    /// Starts the process. Returns false when the disk cannot be read or written, which keeps a
    /// real node from starting too.
    pub fn start(&mut self, common: &Common, audit: Arc<Mutex<Audit>>, rng: &mut StdRng) -> bool {
        if self.disk.reopen().is_err() {
            return false;
        }
        let (metrics, clock) = (Metrics::new(), Clock::from_source(self.clock.clone()));
        let failures = self.disk.failures();
        let (store, writer) = match self.open(common, self.disk.clone(), &metrics) {
            Ok(opened) => opened,
            Err(_) if self.disk.failures() != failures => return false,
            Err(error) => panic!("the store does not open what it wrote: {error}"),
        };
        self.was_started = true;
        let recomputed = store.recomputed_fingerprint().expect("the disk can be read");
        assert_eq!(store.fingerprint(), recomputed, "VIOLATION: the digest after a restart");
        let (between, writer) = self.spawn_writer(writer, common.network.clone(), rng);
        let identity = store.identity();
        self.id = Some(identity.node);
        let me = member(self.slot, identity, &clock);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (metrics_shared, aside) =
            (metrics.clone(), Arc::new(SetAside { slot: self.slot, audit }));
        let may_join = self.may_join.subscribe();
        let parts = Parts { store: &store, me, clock, metrics: metrics_shared, aside, may_join };
        let Views { syncing, members, full, peers, sync } = parts.spawn(common, &stop, &mut tasks);
        self.up = Some(Up {
            store,
            identity,
            metrics,
            syncing,
            members,
            full,
            peers,
            sync,
            left: Arc::default(),
            sources: Vec::new(),
            clients: JoinSet::new(),
            no_more: CancellationToken::new(),
            between,
            writer,
            tasks,
            stop,
        });
        true
    }

    fn open(
        &self,
        common: &Common,
        disk: Arc<Disk>,
        metrics: &Arc<Metrics>,
    ) -> Result<(Store, Writer), OpenError> {
        let settings = Settings {
            blob_threshold_bytes: BLOB_THRESHOLD_BYTES,
            clock_drift_max: common.config.sync.clock_drift_max,
            feed_entries_max: common.config.sync.push_queue_max,
            feed_bytes_max: 16 << 10,
            superseded_bytes_max: 64 << 20,
            free_bytes_min: 0,
            boot: None,
            digest_key: common.secret.digest_key(),
            cluster: Some(common.secret.cluster_id()),
            history_depth: common.config.revision_history_depth,
            idempotency_window: common.config.limits.idempotency_window,
            idempotency_bytes_max: common.config.limits.idempotency_bytes_max,
            compared_bytes_max: common.config.limits.body_bytes_max,
        };
        let clock = Clock::from_source(self.clock.clone());
        Store::open(disk, clock, metrics.clone(), &settings)
    }

    /// The versions of these keys on this disk, whether the process is up or not.
    pub fn kept(&self, common: &Common, keys: &BTreeSet<Key>) -> BTreeMap<Key, Version> {
        if !self.was_started {
            return BTreeMap::new();
        }
        let disk = Arc::new(self.disk.copy());
        let opened = self.open(common, disk, &Metrics::new());
        let (store, _) = opened.expect("the store opens what it wrote");
        let version = |key: &Key| {
            let record = store.record_now(key).expect("the disk can be read")?;
            Some((key.clone(), record.header.version))
        };
        keys.iter().filter_map(version).collect()
    }

    /// Runs the writer over this disk, which is slow at times.
    fn spawn_writer(
        &self,
        writer: Writer,
        network: Network,
        rng: &mut StdRng,
    ) -> (Arc<AtomicBool>, JoinHandle<()>) {
        let between = Arc::new(AtomicBool::new(false));
        let (settling, ms_max, own) =
            (between.clone(), self.disk_ms_max.clone(), address(self.slot));
        let mut rng = StdRng::from_rng(rng);
        let hold = async move |moment| {
            settling.store(moment == Moment::AfterCommit, Ordering::Relaxed);
            if moment == Moment::Published {
                return;
            }
            let ms_max = ms_max.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..=ms_max))).await;
            while network.is_paused(own) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        (between, tokio::spawn(writer.run(hold)))
    }
}

/// The member that the process describes itself as.
fn member(slot: usize, identity: Identity, clock: &Clock) -> Member {
    let gossip = address(slot);
    Member {
        id: identity.node,
        name: format!("n{slot}"),
        joined_at: identity.joined_at,
        started_at: clock.now(),
        gossip,
        peer: peer_of(gossip),
        http: SocketAddr::new(gossip.ip(), gossip.port() + 2),
        software: "sim".to_owned(),
    }
}

/// The parts that `node.rs` wires together, without sockets and HTTP.
struct Parts<'a> {
    store: &'a Store,
    me: Member,
    clock: Clock,
    metrics: Arc<Metrics>,
    aside: Arc<SetAside>,
    may_join: watch::Receiver<bool>,
}

/// Tells the auditor what a node sets aside.
pub struct SetAside {
    slot: usize,
    audit: Arc<Mutex<Audit>>,
}

impl Aside for SetAside {
    fn keep(&self, records: &[(Key, Record)]) -> std::io::Result<()> {
        let mut audit = lock(&self.audit);
        for (key, record) in records {
            audit.set_aside(self.slot, key, record.header.version);
        }
        Ok(())
    }
}

/// What the running parts show.
struct Views {
    /// Whether the node waits for data.
    syncing: watch::Receiver<bool>,
    /// The members that it sees.
    members: watch::Receiver<Vec<(Member, MemberState)>>,
    full: Arc<Mutex<Option<BTreeSet<NodeId>>>>,
    /// What it knows of each peer.
    peers: watch::Receiver<BTreeMap<NodeId, PeerStatus>>,
    /// Asks for sessions with all peers.
    sync: mpsc::Sender<SyncRequest>,
}

impl Views {
    /// Notes which members are up and serve, as this node sees them, when it ends its wait.
    async fn note_end(
        me: Member,
        mut waits: watch::Receiver<bool>,
        members: watch::Receiver<Vec<(Member, MemberState)>>,
        syncing: watch::Receiver<BTreeSet<NodeId>>,
        full: Arc<Mutex<Option<BTreeSet<NodeId>>>>,
    ) {
        if !*waits.borrow() || waits.wait_for(|waits| !waits).await.is_err() {
            return;
        }
        let (members, syncing) = (members.borrow(), syncing.borrow());
        let others = members.iter().filter(|(member, state)| {
            member.gossip != me.gossip && state.is_up() && !syncing.contains(&member.id)
        });
        let ids = others.map(|(member, _)| member.id).collect();
        *full.lock().expect("one thread") = Some(ids);
    }
}

impl Parts<'_> {
    /// Starts gossip, the member table and replication.
    fn spawn(self, common: &Common, stop: &CancellationToken, tasks: &mut JoinSet<()>) -> Views {
        let Self { store, me, clock, metrics, aside, may_join } = self;
        let (socket, incoming) = common.network.attach(&me);
        let (peers, peers_seen) = watch::channel(BTreeMap::new());
        // The list names this node itself, too.
        let seeds = common.seeds.clone();
        let (has_seeds, ledger) = (!seeds.is_empty(), store.ledger());
        let bootstrapped = store.is_bootstrapped().expect("the disk can be read");
        let is_new = ledger.set.is_none() && !bootstrapped && has_seeds;
        let (syncing_sender, syncing) = watch::channel(is_new || ledger.begins_anew());
        let (members_sender, members) = watch::channel(vec![(me.clone(), MemberState::Alive)]);
        let (syncing_members_sender, syncing_members) = watch::channel(BTreeSet::new());
        let known = store.members().expect("the disk can be read");
        let gossip = Gossip {
            socket,
            me: me.clone(),
            secret: common.secret.clone(),
            settings: config::GossipConfig { seeds, ..common.config.gossip.clone() },
            known: known.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            members: members_sender,
            syncing: syncing.clone(),
            syncing_members: syncing_members_sender,
            seeds: watch::channel(Vec::new()).0,
        };
        let (sync, requests) = mpsc::channel(1);
        let replication = Replication {
            store: store.clone(),
            dialer: common.network.dialer(me.clone()),
            incoming,
            members: members.clone(),
            me: me.clone(),
            settings: common.config.sync.clone(),
            clock,
            metrics,
            peers,
            requests,
            aside,
            may_join,
            has_seeds,
            syncing: syncing_sender,
            syncing_members: syncing_members.clone(),
            waits_for: watch::channel(String::new()).0,
        };
        tasks.spawn(gossip.run(stop.clone()));
        tasks.spawn(store.clone().keep_swept(stop.clone()));
        tasks.spawn(store.clone().keep_collected(stop.clone()));
        tasks.spawn(members::persist(store.clone(), known, members.clone(), stop.clone()));
        tasks.spawn(replication.run(stop.clone()));
        let full = Arc::default();
        let (waits, noted) = (syncing.clone(), Arc::clone(&full));
        tasks.spawn(Views::note_end(me, waits, members.clone(), syncing_members, noted));
        Views { syncing, members, full, peers: peers_seen, sync }
    }
}
