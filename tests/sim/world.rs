//! Nodes, clients and faults of one simulation, drawn from its seed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use kvs::clock::{Clock, Source};
use kvs::config::{self, Config};
use kvs::gossip::Gossip;
use kvs::model::{Condition, ContentType, Expected, Key, Member, MemberState, NodeId, Timestamp};
use kvs::proto::secret::Secret;
use kvs::replication::Replication;
use kvs::store::memory::Memory;
use kvs::store::{Change, Settings, Store, Write, WriteError};
use kvs::telemetry::Metrics;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::audit::Audit;
use crate::network::{Faults, Network, peer_of};

const NODES: usize = 3;
/// How long faults and clients go on, in virtual time.
const TROUBLE: Duration = Duration::from_secs(20);
/// How long the nodes may then take to agree.
const AGREE: Duration = Duration::from_secs(60);

/// What a run tells.
#[derive(Debug)]
pub struct Outcome {
    /// A hash over everything that happened.
    pub trace: String,
    /// Writes that were acknowledged.
    pub acked: u64,
    /// Datagrams, dials and chunks that were lost.
    pub lost: u64,
    /// How many times a node was killed.
    pub crashes: u64,
    /// How long the nodes took to agree after the faults ended.
    pub agreed_after: Duration,
}

/// Virtual time with a skew, entropy from the seed.
struct SimClock {
    start: Instant,
    skew_ms: u64,
    rng: Mutex<StdRng>,
}

impl Source for SimClock {
    fn now(&self) -> Timestamp {
        let epoch = Timestamp::saturating(1_800_000_000_000_000);
        epoch.plus(self.start.elapsed() + Duration::from_millis(self.skew_ms))
    }
    fn fill(&self, bytes: &mut [u8]) {
        self.rng.lock().expect("one thread").fill_bytes(bytes);
    }
}

/// The description of the node at an address. Its id and age are the auditor's business, not
/// replication's, so a hello may leave them at what the address says.
pub fn member(gossip: SocketAddr) -> Member {
    Member {
        id: NodeId::from_u128(u128::from(gossip.port())),
        name: format!("n{}", gossip.port()),
        joined_at: Timestamp::ZERO,
        started_at: Timestamp::ZERO,
        gossip,
        peer: peer_of(gossip),
        http: SocketAddr::new(gossip.ip(), gossip.port() + 2),
        software: "sim".to_owned(),
    }
}

fn address(at: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 1000 + 10 * u16::try_from(at).expect("few nodes")))
}

/// One node: what survives a crash, and what runs while it is up.
struct Node {
    engine: Arc<Memory>,
    clock: Clock,
    up: Option<Up>,
}

struct Up {
    store: Store,
    _tasks: JoinSet<()>,
    clients: JoinSet<()>,
    no_more: CancellationToken,
    syncing: watch::Receiver<bool>,
}

impl Up {
    /// Lets every client finish what it does.
    async fn stop_clients(&mut self) {
        self.no_more.cancel();
        while self.clients.join_next().await.is_some() {}
    }
}

struct World {
    network: Network,
    nodes: Vec<Node>,
    config: Config,
    secret: Arc<Secret>,
    audit: Arc<Mutex<Audit>>,
    rng: StdRng,
    crashes: u64,
}

/// Runs one seed to its end.
///
/// # Panics
/// When something that was promised does not hold; the message names the seed.
pub fn run_seed(seed: u64) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let guard = SeedOnPanic(seed);
    // made inside, where time is virtual
    let outcome = runtime.block_on(async { World::new(seed).run().await });
    drop(guard);
    outcome
}

struct SeedOnPanic(u64);

impl Drop for SeedOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {0}: KVS_SIM_SEED={0} cargo test --test sim one_seed", self.0);
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let faults =
            Faults { loss: rng.random_range(0.0..0.3), delay_ms_max: rng.random_range(1..100) };
        let network = Network::new(rng.random(), faults);
        let mut entropy = [0; 64];
        rng.fill_bytes(&mut entropy);
        let mut config = Config::defaults().expect("valid defaults");
        config.sync.interval = Duration::from_secs(2);
        config.sync.bootstrap_wait = Duration::from_secs(1);
        config.sync.push = rng.random_bool(0.8);
        // small, so that slow peers miss pushes
        config.sync.push_queue_max = 16;
        let start = Instant::now();
        let nodes = (0..NODES).map(|_| {
            let rng = Mutex::new(StdRng::from_rng(&mut rng));
            let skew_ms = rng.lock().expect("one thread").random_range(0..500);
            let clock = Clock::from_source(Arc::new(SimClock { start, skew_ms, rng }));
            Node { engine: Arc::default(), clock, up: None }
        });
        let nodes = nodes.collect();
        let (secret, audit) = (Arc::new(Secret::from_entropy(entropy)), Arc::default());
        Self { network, nodes, config, secret, audit, rng, crashes: 0 }
    }

    async fn run(mut self) -> Outcome {
        (0..NODES).for_each(|at| self.start(at));
        let end = Instant::now() + TROUBLE;
        while Instant::now() < end {
            let pause = self.rng.random_range(100..2_000);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            self.trouble();
            self.audit_all(false).await;
        }
        self.network.heal();
        for at in 0..NODES {
            // what is up goes on as it is: it must recover by itself
            match &mut self.nodes[at].up {
                Some(up) => up.stop_clients().await,
                None => self.start_without_clients(at),
            }
        }
        let healed = Instant::now();
        while !self.all_agree() {
            assert!(healed.elapsed() < AGREE, "the nodes do not agree:\n{}", self.describe());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let agreed_after = healed.elapsed();
        self.audit_all(true).await;
        let fingerprint = self.nodes.iter().find_map(|n| Some(n.up.as_ref()?.store.fingerprint()));
        self.network.note(&format!("{fingerprint:?} {agreed_after:?}"));
        let acked = self.audit.lock().expect("one thread").count();
        let (trace, lost) = (self.network.trace(), self.network.lost());
        Outcome { trace, acked, lost, crashes: self.crashes, agreed_after }
    }

    /// One step of what goes wrong.
    fn trouble(&mut self) {
        let at = self.rng.random_range(0..NODES);
        let other = (at + self.rng.random_range(1..NODES)) % NODES;
        match self.rng.random_range(0..6) {
            0 if self.nodes[at].up.is_some() => self.crash(at),
            1 => self.network.cut(address(at), address(other)),
            2 => {
                self.network.cut(address(at), address(other));
                self.network.cut(address(other), address(at));
            }
            3 => self.network.uncut(),
            _ => {
                if let Some(down) = self.nodes.iter().position(|node| node.up.is_none()) {
                    self.start(down);
                }
            }
        }
    }

    fn crash(&mut self, at: usize) {
        if self.nodes[at].up.take().is_some() {
            self.network.detach(address(at));
            self.network.note(&format!("crash {at};"));
            self.crashes += 1;
        }
    }

    fn start(&mut self, at: usize) {
        self.start_without_clients(at);
        let clients = self.rng.random_range(1..4);
        let push = self.config.sync.push;
        for _ in 0..clients {
            let rng = StdRng::from_rng(&mut self.rng);
            let (audit, network) = (self.audit.clone(), self.network.clone());
            let Some(up) = &mut self.nodes[at].up else { continue };
            let (no_more, syncing) = (up.no_more.clone(), up.syncing.clone());
            let store = up.store.clone();
            let client = Client { store, audit, network, rng, at, no_more, syncing };
            // without push, less is written, so that sessions have their turn
            up.clients.spawn(client.run(if push { 50 } else { 200 }));
        }
    }

    fn start_without_clients(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let (metrics, clock) = (Metrics::new(), node.clock.clone());
        let settings = Settings {
            blob_threshold_bytes: 64,
            clock_drift_max: self.config.sync.clock_drift_max,
            feed_commits_max: self.config.sync.push_queue_max,
            digest_key: self.secret.digest_key(),
            cluster: Some(self.secret.cluster_id()),
        };
        let engine = node.engine.clone();
        let (store, writer) = Store::open(engine, clock.clone(), metrics.clone(), &settings)
            .expect("what was written can be opened");
        let recomputed = store.recomputed_fingerprint().expect("memory does not fail");
        assert_eq!(store.fingerprint(), recomputed, "the digest after a restart");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { writer.run().await.expect("memory does not fail") });
        let (socket, incoming) = self.network.attach(address(at));
        // its address names it: the simulated hello knows no more
        let me = member(address(at));
        let others = (0..NODES).filter(|other| *other != at);
        let gossip_settings = config::Gossip {
            seeds: others.map(|other| address(other).to_string()).collect(),
            ..self.config.gossip.clone()
        };
        // as HTTP would, clients wait while a node waits for its first data
        let waits = !store.is_bootstrapped().expect("memory does not fail");
        let (syncing_told, syncing) = watch::channel(waits);
        let (members_told, members) = watch::channel(vec![(me.clone(), MemberState::Alive)]);
        let gossip = Gossip {
            socket,
            me: me.clone(),
            secret: self.secret.clone(),
            settings: gossip_settings,
            known: Vec::new(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            members: members_told,
        };
        let replication = Replication {
            store: store.clone(),
            dialer: self.network.dialer(address(at)),
            incoming,
            members,
            me,
            settings: self.config.sync.clone(),
            clock,
            metrics,
            peers: watch::channel(BTreeMap::new()).0,
            requests: mpsc::channel(1).1,
            syncing: syncing_told,
        };
        tasks.spawn(gossip.run(CancellationToken::new()));
        tasks.spawn(replication.run(CancellationToken::new()));
        node.up = Some(Up {
            store,
            _tasks: tasks,
            clients: JoinSet::new(),
            no_more: CancellationToken::new(),
            syncing,
        });
    }

    fn all_agree(&self) -> bool {
        let serves = |up: &&Up| !*up.syncing.borrow();
        let print = |node: &Node| node.up.as_ref().filter(serves).map(|up| up.store.fingerprint());
        let prints: Vec<_> = self.nodes.iter().map(print).collect();
        prints.iter().all(|print| print.is_some() && *print == prints[0])
    }

    fn describe(&self) -> String {
        let describe = |(at, node): (usize, &Node)| match &node.up {
            Some(up) => {
                let (counts, syncing) = (up.store.counts(), *up.syncing.borrow());
                format!("node {at}: {counts:?}, syncing: {syncing}")
            }
            None => format!("node {at} is down"),
        };
        self.nodes.iter().enumerate().map(describe).collect::<Vec<_>>().join("\n")
    }

    async fn audit_all(&self, at_the_end: bool) {
        let keys: Vec<Key> = self.audit.lock().expect("one thread").keys().cloned().collect();
        for up in self.nodes.iter().filter_map(|node| node.up.as_ref()) {
            for key in &keys {
                let record = up.store.record(key).await.expect("memory does not fail");
                let header = record.as_ref().map(|record| &record.header);
                self.audit.lock().expect("one thread").check(key, header, at_the_end);
                assert!(record.is_none_or(|record| record.is_whole()), "{key}: other bytes");
            }
            let recomputed = up.store.recomputed_fingerprint().expect("memory does not fail");
            assert_eq!(up.store.fingerprint(), recomputed, "the digest in operation");
        }
    }
}

/// A client of one node: writes, deletes and swaps a few keys for as long as its node is up.
struct Client {
    store: Store,
    audit: Arc<Mutex<Audit>>,
    network: Network,
    rng: StdRng,
    at: usize,
    no_more: CancellationToken,
    syncing: watch::Receiver<bool>,
}

/// Counts a write that is cut off by a crash.
struct Pending<'a>(&'a Mutex<Audit>, &'a Key, bool);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.2 {
            self.0.lock().expect("one thread").outcome_unknown(self.1);
        }
    }
}

impl Client {
    async fn run(mut self, pause_ms_max: u64) {
        while !self.no_more.is_cancelled() {
            let pause = self.rng.random_range(0..pause_ms_max);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if !*self.syncing.borrow() {
                self.act().await;
            }
        }
    }

    async fn act(&mut self) {
        let key = Key::parse(&format!("k/{}", self.rng.random_range(0..40))).expect("a key");
        let mut conditions = Vec::new();
        let mut expected = None;
        if self.rng.random_bool(0.4)
            && let Some(current) = self.store.head(&key).expect("memory does not fail")
        {
            expected = Some(current.version.uuid);
            conditions.push(Condition::Expect(Expected::Uuid(current.version.uuid)));
            // time for others to come first
            let pause = self.rng.random_range(0..20);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        let change = if self.rng.random_bool(0.2) {
            Change::Delete
        } else {
            // some small, some kept apart
            let length = self.rng.random_range(0..200);
            let mut body = vec![0; length];
            self.rng.fill_bytes(&mut body);
            Change::Put { content_type: ContentType::octet_stream(), body: Bytes::from(body) }
        };
        let write = Write { key: key.clone(), change, conditions };
        let mut pending = Pending(&self.audit, &key, false);
        let result = self.store.write(write).await;
        pending.2 = true;
        match result {
            Ok(written) => {
                let mut audit = self.audit.lock().expect("one thread");
                audit.acknowledged(&key, &written.header);
                if let Some(expected) = expected {
                    audit.swapped(expected, self.at, written.header.version.uuid);
                    let previous = written.previous.map(|(uuid, _)| uuid);
                    assert_eq!(previous, Some(expected), "{key}: a swap replaced another version");
                }
                drop(audit);
                self.network.note(&format!("{} {key} {:?};", self.at, written.header.version));
            }
            Err(WriteError::PreconditionFailed { .. } | WriteError::NotFound) => {}
            Err(error) => panic!("{key}: {error}"),
        }
    }
}
