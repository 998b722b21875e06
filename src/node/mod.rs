//! The composition root: opens the store and the sockets, connects the parts with bounded channels,
//! owns their tasks, and stops them in order.
//!
//! Promises that the ready line appears only once the node serves, and that a signal or the end of
//! any part stops all of them. Knows every part and contains the logic of none.

mod aside;
mod copied;
mod error;
mod leaving;
pub mod members;
mod mode;
mod news;
mod parts;
mod process;
mod ready;
mod rewrite;
mod signals;
mod sockets;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::config::{Config, Durability};
use crate::gossip::Gossip;
use crate::http;
use crate::model::member::CertificateLife;
use crate::model::{Member, MemberState, Timestamp};
use crate::peer::{Bound, Endpoint, Incoming};
use crate::replication::{self, Replication};
use crate::store::identity::{Identity, OpenError};
use crate::store::rocks::{Rocks, RocksSettings};
use crate::store::writer::Writer;
use crate::store::{self, Store};
use crate::telemetry::Metrics;
use aside::AsideFile;
pub use error::NodeError;
use news::News;
use parts::{RunningPart, first_ended, shut_down, start};
use signals::Signals;
pub use sockets::read_secret;
use sockets::{ClusterSockets, bind_cluster, open_http};
use views::{Views, alone, waits_for_data};

/// Streams that peers opened and that may wait for replication.
const INCOMING_MAX: usize = 64;
/// Requests for sessions that may wait for replication.
const SYNC_REQUESTS_MAX: usize = 16;
/// The names of parts in [`NodeError::Ended`].
const WRITER: &str = "the writer";
const GOSSIP: &str = "gossip";

/// How one life of a node ended.
enum LifeEnd {
    /// By a signal.
    Stopped,
    /// The node begins anew under another id, with the listener for HTTP that it had, at which
    /// clients wait meanwhile, and at the addresses of gossip and peers that it had.
    Anew(std::net::TcpListener, Option<(SocketAddr, SocketAddr)>),
}

/// What one life of a node hands on to the next.
struct Carried {
    is_first: bool,
    /// The listener for HTTP.
    door: Option<std::net::TcpListener>,
    /// The operator's word that what is set aside is written anew.
    rewrites: watch::Sender<bool>,
}

/// Runs a node until SIGTERM, SIGINT or a failure. Returns when all parts have stopped and the
/// database is closed; after a failure of the writer, or a second signal, without waiting for that.
/// A node that begins anew under another id stops all parts and starts them again in place.
///
/// # Errors
/// Why the node cannot start, or which part ended by itself.
pub async fn run(mut config: Config) -> Result<(), NodeError> {
    process::keep_private();
    let descriptors = process::share_descriptors(config.limits.connections_max)?;
    config.limits.connections_max = descriptors.connections_max;
    let mut signals = Signals::new().map_err(NodeError::System)?;
    let mut carried = Carried { is_first: true, door: None, rewrites: watch::Sender::default() };
    loop {
        let config_now = Arc::new(config.clone());
        let files_max = descriptors.data_files_max;
        match live(&config_now, files_max, &mut signals, &mut carried).await? {
            LifeEnd::Stopped => return Ok(()),
            LifeEnd::Anew(http, cluster) => {
                config.http.listen = http.local_addr().map_err(NodeError::System)?;
                carried.door = Some(http);
                if let Some((gossip, peer)) = cluster {
                    (config.gossip.listen, config.peer.listen) = (gossip, peer);
                }
            }
        }
        carried.is_first = false;
        tracing::info!("starts again as a new member, and waits for the cluster's data");
    }
}

/// One life of a node, under one id.
async fn live(
    config: &Arc<Config>,
    data_files_max: u32,
    signals: &mut Signals,
    carried: &mut Carried,
) -> Result<LifeEnd, NodeError> {
    let (clock, metrics) = (Clock::system(), Metrics::new());
    let sockets = bind_cluster(config, &clock, carried.is_first).await?;
    let (listener, door) = open_http(config, carried.door.take()).await?;
    let (store, writer) = open_store(config, data_files_max, &clock, &metrics, sockets.as_ref())?;
    let identity = store.identity();
    let http_address = listener.local_addr().map_err(NodeError::System)?;
    let me = describe(config, identity, clock.now(), http_address, sockets.as_ref())?;
    let bound = sockets.as_ref().map(ClusterSockets::addresses).transpose()?;
    let mut writer = spawn_writer(writer)?;
    mode::start(config, &store).await?;
    let mut parts = store_parts(&store);
    let cluster_id = sockets.as_ref().map(|sockets| sockets.secret.cluster_id());
    let views = if let Some(sockets) = sockets {
        start_cluster(config, &clock, &metrics, &store, &me, sockets, &mut parts).await?
    } else {
        // alone, its data is complete, and stays so if it joins a cluster later
        store.set_bootstrapped().await.map_err(NodeError::FirstWrite)?;
        let (store, interval) = (store.clone(), config.sync.interval);
        start(&mut parts, "the floor", |stop| replication::live_alone(store, interval, stop));
        alone(&me)
    };
    rewrite::start(config, &store, &me, &views, &carried.rewrites, &mut parts);
    let state = http::State {
        store: store.clone(),
        config: config.clone(),
        metrics,
        clock,
        me: me.clone(),
        cluster_id,
        members: views.members,
        peers: views.peers,
        sync: views.sync,
        syncing: views.syncing,
        may_join: views.may_join,
        rewrites: carried.rewrites.clone(),
        leave: views.leave,
        outlook: views.outlook,
    };
    start(&mut parts, "the HTTP front end", |stop| http::serve(listener, state, stop));
    if carried.is_first {
        ready::announce(config, &me, http_address, bound);
    }
    let ended = tokio::select! {
        biased;
        () = signals.stop() => Ok(false),
        () = views.left.notified() => Ok(false),
        () = store.begun_anew() => Ok(true),
        _ = &mut writer => Err(NodeError::Ended(WRITER)),
        name = first_ended(&mut parts) => Err(NodeError::Ended(name)),
    };
    drop(store);
    let ended = ended.map(|begins_anew| {
        // a node that stops lets nobody wait at its door
        if begins_anew { LifeEnd::Anew(door, bound) } else { LifeEnd::Stopped }
    });
    if !matches!(ended, Ok(LifeEnd::Anew(..))) {
        tracing::info!("stopping; a second signal stops immediately");
    }
    tokio::select! {
        biased;
        () = signals.stop() => ended.map(|_| LifeEnd::Stopped),
        stopped = shut_down(parts, writer, ended.is_ok()) => stopped.and(ended),
    }
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

/// Starts what the store does by itself.
fn store_parts(store: &Store) -> Vec<RunningPart> {
    let mut parts = Vec::new();
    start(&mut parts, "the sweep", |stop| store.clone().keep_swept(stop));
    start(&mut parts, "the collection", |stop| store.clone().keep_collected(stop));
    start(&mut parts, "the watch on the disk", |stop| store.clone().watch_disk(stop));
    parts
}

/// Starts gossip, the peer endpoint and replication.
async fn start_cluster(
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
    let (syncing_sender, syncing) = watch::channel(waits_for_data(config, store)?);
    let (syncing_members_sender, syncing_members) = watch::channel(BTreeSet::new());
    let (seeds_sender, seeds) = watch::channel(Vec::new());
    let (waits_for_sender, waits_for) = watch::channel(String::new());
    let (sync, requests) = mpsc::channel(SYNC_REQUESTS_MAX);
    let may_join = watch::channel(false).0;
    let (kept, known) = (members_sender.clone(), members::known(store));
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
    let data_dir = &config.node.data_dir;
    let (endpoint, incoming) = open_endpoint(sockets.peer, &gossip, data_dir).await?;
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
        aside: Arc::new(AsideFile::new(data_dir, me.started_at)),
        may_join: may_join.subscribe(),
        has_seeds: !config.gossip.seeds.is_empty(),
        syncing: syncing_sender,
        syncing_members,
        waits_for: waits_for_sender,
    };
    let (held, seen) = (store.clone(), members.clone());
    start(parts, GOSSIP, |stop| gossip.run(stop));
    start(parts, "the peer endpoint", |stop| async move { endpoint.run(stop).await });
    start(parts, "replication", |stop| replication.run(stop));
    start(parts, "the member table", |stop| members::persist(held, known, seen, stop));
    let outlook = http::Outlook { waits_for, seeds, ..http::Outlook::default() };
    let (leave, left) = leaving::start(store, &sync, &peers, clock, parts);
    let mut views =
        Views { members, peers, sync, syncing, may_join, leave, left, outlook, _members: kept };
    start_watching(config, (clock, metrics), me, certificates, &mut views, parts)?;
    Ok(views)
}

/// Opens the endpoint for peers, and the streams that they open, unless this node's data directory
/// is a copy of that of a process that runs.
async fn open_endpoint(
    bound: Bound,
    gossip: &Gossip,
    data_dir: &Path,
) -> Result<(Arc<Endpoint>, mpsc::Receiver<Incoming>), NodeError> {
    let (sender, incoming) = mpsc::channel(INCOMING_MAX);
    let endpoint = Endpoint::new(
        bound,
        gossip.me.clone(),
        gossip.secret.cluster_id(),
        gossip.clock.clone(),
        gossip.metrics.clone(),
        sender,
        gossip.members.subscribe(),
    )?;
    copied::refuse(&endpoint, &gossip.me, &gossip.known, data_dir).await?;
    Ok((Arc::new(endpoint), incoming))
}

/// Starts the parts that tell people of the cluster, and the reload of its certificates.
fn start_watching(
    config: &Config,
    (clock, metrics): (&Clock, &Arc<Metrics>),
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
    let news = News::new(config, clock, metrics, me.id, views);
    start(parts, "the news of members", |stop| news.tell(stop));
    Ok(())
}
