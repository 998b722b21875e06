//! The composition root: opens the store and the sockets, connects the parts with bounded channels,
//! owns their tasks, and stops them in order.
//!
//! Promises that the ready line appears only once the node serves, and that a signal or the end of
//! any part stops all of them. Knows every part and contains the logic of none.

mod error;
pub mod members;
mod mode;
mod news;
mod process;
mod ready;
mod signals;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Config, Durability};
use crate::gossip::Gossip;
use crate::http;
use crate::model::member::CertificateLife;
use crate::model::{Member, MemberState, Timestamp};
use crate::peer::{Bound, Endpoint};
use crate::proto::secret::Secret;
use crate::replication::Replication;
use crate::store::identity::{Identity, OpenError};
use crate::store::rocks::{Rocks, RocksSettings};
use crate::store::writer::Writer;
use crate::store::{self, Store};
use crate::telemetry::Metrics;
pub use error::NodeError;
use news::News;
use signals::Signals;
use views::{Views, alone, waits_for_data};

/// Streams that peers opened and that may wait for replication.
const INCOMING_MAX: usize = 64;
/// Requests for sessions that may wait for replication.
const SYNC_REQUESTS_MAX: usize = 16;
/// The names of parts in [`NodeError::Ended`].
const WRITER: &str = "the writer";
const GOSSIP: &str = "gossip";

/// A running part of the node.
struct RunningPart {
    /// Its name in log lines and in [`NodeError::Ended`].
    name: &'static str,
    task: JoinHandle<()>,
    /// Makes `task` end in order.
    stop: CancellationToken,
}

/// The secret and the bound sockets of a clustered node. Made before the store opens, so that a
/// taken address or a bad file leaves the data directory untouched.
struct ClusterSockets {
    secret: Arc<Secret>,
    gossip: UdpSocket,
    peer: Bound,
}

impl ClusterSockets {
    /// The addresses that gossip and peers listen on.
    fn addresses(&self) -> Result<(SocketAddr, SocketAddr), NodeError> {
        let gossip = self.gossip.local_addr().map_err(NodeError::System)?;
        Ok((gossip, self.peer.local_addr()))
    }
}

/// Runs a node until SIGTERM, SIGINT or a failure. Returns when all parts have stopped and the
/// database is closed; after a failure of the writer, or a second signal, without waiting for that.
///
/// # Errors
/// Why the node cannot start, or which part ended by itself.
pub async fn run(mut config: Config) -> Result<(), NodeError> {
    process::keep_private();
    let descriptors = process::share_descriptors(config.limits.connections_max)?;
    config.limits.connections_max = descriptors.connections_max;
    let config = Arc::new(config);
    let (clock, metrics) = (Clock::system(), Metrics::new());
    let mut signals = Signals::new().map_err(NodeError::System)?;
    let sockets =
        if config.clustering_enabled { Some(bind_cluster(&config, &clock).await?) } else { None };
    let listener = bind_http(&config).await?;
    let data_files_max = descriptors.data_files_max;
    let (store, writer) = open_store(&config, data_files_max, &clock, &metrics, sockets.as_ref())?;
    let identity = store.identity();
    let http_address = listener.local_addr().map_err(NodeError::System)?;
    let me = describe(&config, identity, clock.now(), http_address, sockets.as_ref())?;
    let bound = sockets.as_ref().map(ClusterSockets::addresses).transpose()?;
    let mut writer = spawn_writer(writer)?;
    mode::start(&config, &store).await?;
    let mut parts = Vec::new();
    let stop = CancellationToken::new();
    let task = tokio::spawn(store.clone().keep_swept(stop.clone()));
    parts.push(RunningPart { name: "the sweep", task, stop });
    let stop = CancellationToken::new();
    let task = tokio::spawn(store.clone().watch_disk(stop.clone()));
    parts.push(RunningPart { name: "the watch on the disk", task, stop });
    let cluster_id = sockets.as_ref().map(|sockets| sockets.secret.cluster_id());
    let views = if let Some(sockets) = sockets {
        start_cluster(&config, &clock, &metrics, &store, &me, sockets, &mut parts)?
    } else {
        // alone, its data is complete, and stays so if it joins a cluster later
        store.set_bootstrapped().await.map_err(NodeError::FirstWrite)?;
        alone(&me)
    };
    let state = http::State {
        store,
        config: config.clone(),
        metrics,
        clock,
        me: me.clone(),
        cluster_id,
        members: views.members,
        peers: views.peers,
        sync: views.sync,
        syncing: views.syncing,
        outlook: views.outlook,
    };
    let stop = CancellationToken::new();
    let task = tokio::spawn(http::serve(listener, state, stop.clone()));
    parts.push(RunningPart { name: "the HTTP front end", task, stop });
    ready::announce(&config, &me, http_address, bound);
    let ended = tokio::select! {
        biased;
        () = signals.stop() => Ok(()),
        _ = &mut writer => Err(NodeError::Ended(WRITER)),
        name = first_ended(&mut parts) => Err(NodeError::Ended(name)),
    };
    tracing::info!("stopping; a second signal stops immediately");
    let stopped = tokio::select! {
        biased;
        () = signals.stop() => Ok(()),
        stopped = shut_down(parts, writer, ended.is_ok()) => stopped,
    };
    ended.and(stopped)
}

/// Stops the parts in reverse order of their start: HTTP first, so that the parts that serve its
/// last requests still run.
async fn shut_down(
    mut parts: Vec<RunningPart>,
    writer: JoinHandle<Result<(), NodeError>>,
    orderly: bool,
) -> Result<(), NodeError> {
    // the others learn at once that this node leaves, while it still serves its last requests
    parts.iter().filter(|part| part.name == GOSSIP).for_each(|part| part.stop.cancel());
    while let Some(part) = parts.pop() {
        part.stop.cancel();
        if part.task.is_finished() {
            // `first_ended` has awaited this one, and a task can be awaited only once
            continue;
        }
        if let Err(error) = part.task.await
            && error.is_panic()
        {
            tracing::error!(%error, "{} panicked; this is a bug, please report it", part.name);
        }
    }
    // the parts held the last handles to the store: the writer now finishes and closes the database
    if orderly { writer.await.unwrap_or(Ok(())) } else { Ok(()) }
}

/// Waits until one of the parts ends, and returns its name.
async fn first_ended(parts: &mut [RunningPart]) -> &'static str {
    let tasks = parts.iter_mut().map(|part| {
        let name = part.name;
        Box::pin(async move {
            let _ = (&mut part.task).await;
            name
        })
    });
    futures_util::future::select_all(tasks).await.0
}

/// Reads the cluster's secret from the file that `config` names.
///
/// # Errors
/// [`NodeError::SecretFile`], [`NodeError::Secret`].
pub fn read_secret(config: &Config) -> Result<Secret, NodeError> {
    let path = config.gossip.key_file.as_deref().unwrap_or(Path::new(""));
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| NodeError::SecretFile { path: shown.clone(), error })?;
    let secret = Secret::parse(&text).map_err(|error| NodeError::Secret { path: shown, error })?;
    process::warn_if_open(path, "the secret of the cluster");
    Ok(secret)
}

async fn bind_cluster(config: &Config, clock: &Clock) -> Result<ClusterSockets, NodeError> {
    let secret = read_secret(config)?;
    let address = config.gossip.listen;
    let gossip = UdpSocket::bind(address).await.map_err(|error| NodeError::Listen {
        key: "gossip.listen",
        address,
        error,
    })?;
    let peer = Bound::new(&config.peer, &config.node.name, clock)?;
    Ok(ClusterSockets { secret: Arc::new(secret), gossip, peer })
}

async fn bind_http(config: &Config) -> Result<TcpListener, NodeError> {
    let address = config.http.listen;
    TcpListener::bind(address).await.map_err(|error| NodeError::Listen {
        key: "http.listen",
        address,
        error,
    })
}

fn open_store(
    config: &Config,
    data_files_max: u32,
    clock: &Clock,
    metrics: &Arc<Metrics>,
    sockets: Option<&ClusterSockets>,
) -> Result<(Store, Writer), NodeError> {
    let dir = &config.node.data_dir;
    let path = dir.display().to_string();
    std::fs::create_dir_all(dir)
        .map_err(|error| NodeError::DataDir { path: path.clone(), error })?;
    let sync = config.storage.durability == Durability::Sync;
    let open = || -> Result<_, OpenError> {
        let cache_bytes = config.storage.cache_bytes;
        let settings = RocksSettings { cache_bytes, data_files_max, sync };
        let engine = Rocks::open_with(&dir.join("db"), settings)?;
        let settings = store::Settings {
            blob_threshold_bytes: config.storage.blob_threshold_bytes,
            clock_drift_max: config.sync.clock_drift_max,
            feed_entries_max: config.sync.push_queue_max,
            feed_bytes_max: config.storage.feed_bytes_max as u64,
            superseded_bytes_max: config.storage.superseded_bytes_max as u64,
            free_bytes_min: config.storage.free_bytes_min,
            boot: (!sync).then(|| process::boot_id(clock)),
            // a node without a cluster compares digests with no other
            digest_key: sockets.map_or([0; 32], |s| s.secret.digest_key()),
            cluster: sockets.map(|s| s.secret.cluster_id()),
            history_depth: config.history_depth(),
            idempotency_window: config.limits.idempotency_window,
            idempotency_bytes_max: config.limits.idempotency_bytes_max,
            compared_bytes_max: config.limits.body_bytes_max,
        };
        Store::open(Arc::new(engine), clock.clone(), metrics.clone(), &settings)
    };
    let opened = open().map_err(|error| NodeError::Open { path, error })?;
    process::warn_if_open(dir, "all data of this node, deleted values included");
    Ok(opened)
}

/// This node as the cluster will know it. Unset advertised addresses follow the bound ones.
fn describe(
    config: &Config,
    identity: Identity,
    started_at: Timestamp,
    http: SocketAddr,
    sockets: Option<&ClusterSockets>,
) -> Result<Member, NodeError> {
    let (gossip, peer) = match sockets {
        Some(sockets) => {
            let gossip = sockets.gossip.local_addr().map_err(NodeError::System)?;
            (config.gossip.advertise.unwrap_or(gossip), sockets.peer.local_addr())
        }
        None => (config.gossip.listen, config.peer.listen),
    };
    let peer = config.peer.advertise.unwrap_or(peer);
    let http_ip = if http.ip().is_unspecified() { gossip.ip() } else { http.ip() };
    Ok(Member {
        id: identity.node,
        name: config.node.name.clone(),
        joined_at: identity.joined_at,
        started_at,
        gossip,
        peer,
        http: SocketAddr::new(http_ip, http.port()),
        software: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// Starts the writer on a separate thread, because it blocks on the disk.
fn spawn_writer(writer: Writer) -> Result<JoinHandle<Result<(), NodeError>>, NodeError> {
    let (done, ended) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("kvs-writer".to_owned())
        .spawn(move || {
            writer.run_blocking();
            let _ = done.send(());
        })
        .map_err(NodeError::System)?;
    // the sender drops without a message only when the writer panicked
    Ok(tokio::spawn(async move { ended.await.map_err(|_| NodeError::Ended(WRITER)) }))
}

/// Starts gossip, the peer endpoint and replication.
fn start_cluster(
    config: &Config,
    clock: &Clock,
    metrics: &Arc<Metrics>,
    store: &Store,
    me: &Member,
    sockets: ClusterSockets,
    parts: &mut Vec<RunningPart>,
) -> Result<Views, NodeError> {
    let (members_sender, members) = watch::channel(vec![(me.clone(), MemberState::Alive)]);
    let (peers_sender, peers) = watch::channel(BTreeMap::new());
    let waits = waits_for_data(config, store)?;
    let (syncing_sender, syncing) = watch::channel(waits);
    let (syncing_members_sender, syncing_members) = watch::channel(BTreeSet::new());
    let (seeds_sender, seeds) = watch::channel(Vec::new());
    let (waits_for_sender, waits_for) = watch::channel(String::new());
    let (sync, requests) = mpsc::channel(SYNC_REQUESTS_MAX);
    let (incoming_sender, incoming) = mpsc::channel(INCOMING_MAX);
    let kept_members = members_sender.clone();
    let known = members::known(store);
    let cluster_id = sockets.secret.cluster_id();
    let gossip = Gossip {
        socket: Box::new(sockets.gossip),
        me: me.clone(),
        secret: sockets.secret,
        settings: config.gossip.clone(),
        known: known.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        members: members_sender,
        syncing: syncing.clone(),
        syncing_members: syncing_members_sender,
        seeds: seeds_sender,
    };
    let certificates = sockets.peer.certificates().map(|c| (c.shown(), c.reload()));
    let endpoint = Arc::new(Endpoint::new(
        sockets.peer,
        me.clone(),
        cluster_id,
        clock.clone(),
        metrics.clone(),
        incoming_sender,
    )?);
    let replication = Replication {
        store: store.clone(),
        dialer: endpoint.clone(),
        incoming,
        members: members.clone(),
        me: me.clone(),
        settings: config.sync.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        peers: peers_sender,
        requests,
        syncing: syncing_sender,
        syncing_members,
        waits_for: waits_for_sender,
    };
    let table = (store.clone(), known, members.clone());
    start(parts, GOSSIP, |stop| gossip.run(stop));
    start(parts, "the peer endpoint", |stop| async move { endpoint.run(stop).await });
    start(parts, "replication", |stop| replication.run(stop));
    start(parts, "the member table", |stop| members::persist(table.0, table.1, table.2, stop));
    let outlook = http::Outlook { waits_for, seeds, ..http::Outlook::default() };
    let mut views = Views { members, peers, sync, syncing, outlook, _members: kept_members };
    start_watching(config, clock, me, certificates, &mut views, parts)?;
    Ok(views)
}

/// Starts the parts that tell people of the cluster, and the reload of its certificates.
fn start_watching(
    config: &Config,
    clock: &Clock,
    me: &Member,
    certificates: Option<(watch::Receiver<Vec<CertificateLife>>, Arc<Notify>)>,
    views: &mut Views,
    parts: &mut Vec<RunningPart>,
) -> Result<(), NodeError> {
    if let Some((shown, reload)) = certificates {
        views.outlook.certificates = shown;
        let hang_up = signals::hang_up().map_err(NodeError::System)?;
        start(parts, "the reload", |stop| signals::reload_on_hangup(hang_up, reload, stop));
    }
    let news = News::new(config, clock, me.id, views);
    start(parts, "the news of members", |stop| news.tell(stop));
    Ok(())
}

/// Starts a part that runs until its token is cancelled.
fn start<F: Future<Output = ()> + Send + 'static>(
    parts: &mut Vec<RunningPart>,
    name: &'static str,
    run: impl FnOnce(CancellationToken) -> F,
) {
    let stop = CancellationToken::new();
    let task = tokio::spawn(run(stop.clone()));
    parts.push(RunningPart { name, task, stop });
}
