//! The peers' tasks restart after a panic, and a request never waits for them beyond its deadline.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use tokio::task::JoinSet;

use super::links::SYNC_WAIT;
use super::*;
use crate::clock::Fixed;
use crate::model::{Key, Record, Timestamp};
use crate::peer::{self, PeerError};
use crate::store::memory::Memory;

fn member(id: u128) -> Member {
    let at = |port: u128| ([10, 0, 0, 1], u16::try_from(port + id).unwrap()).into();
    Member {
        id: NodeId::from_u128(id),
        name: format!("n{id}"),
        joined_at: Timestamp::ZERO,
        started_at: Timestamp::ZERO,
        gossip: at(1000),
        peer: at(2000),
        http: at(3000),
        software: String::new(),
    }
}

/// A running replication. Holds its ends of the channels, so that they stay open.
struct Running {
    requests: mpsc::Sender<SyncRequest>,
    _incoming: mpsc::Sender<Incoming>,
    _members: watch::Sender<Vec<(Member, MemberState)>>,
    _tasks: JoinSet<()>,
}

/// Runs the replication of node 1 with the peers 2 to `to_peers`, which `dialer` connects to.
fn run(dialer: Arc<dyn Dialer>, to_peers: u128) -> Running {
    let (clock, metrics) = (Clock::from_source(Fixed::new(1 << 50, 1)), Metrics::new());
    let settings = crate::store::Settings {
        blob_threshold_bytes: 64,
        feed_entries_max: 16,
        feed_bytes_max: 1 << 20,
        superseded_bytes_max: 1 << 20,
        free_bytes_min: 0,
        boot: None,
        digest_key: [5; 32],
        ..crate::store::Settings::default()
    };
    let engine = Arc::new(Memory::default());
    let opened = Store::open(engine, clock.clone(), metrics.clone(), &settings).unwrap();
    let (store, writer) = opened;
    // on this runtime, as its time passes by itself while it waits for another thread
    tokio::spawn(writer.run(async |_| {}));
    let known = (1..=to_peers).map(|id| (member(id), MemberState::Alive)).collect();
    let (members, seen) = watch::channel(known);
    let (incoming, streams) = mpsc::channel(1);
    let (requests, asked) = mpsc::channel(1);
    let replication = Replication {
        store,
        dialer,
        incoming: streams,
        members: seen,
        me: member(1),
        settings: config::Config::defaults().unwrap().sync,
        clock,
        metrics,
        peers: watch::channel(BTreeMap::new()).0,
        requests: asked,
        aside: Arc::new(NothingAside),
        may_join: watch::channel(false).1,
        has_seeds: false,
        syncing: watch::channel(false).0,
        syncing_members: watch::channel(BTreeSet::new()).1,
        waits_for: watch::channel(String::new()).0,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(replication.run(CancellationToken::new()));
    Running { requests, _incoming: incoming, _members: members, _tasks: tasks }
}

/// No node begins anew here.
struct NothingAside;

impl Aside for NothingAside {
    fn keep(&self, _: &[(Key, Record)]) -> std::io::Result<()> {
        unreachable!("nothing is set aside")
    }
}

type Dialed<'a> = BoxFuture<'a, Result<Arc<dyn peer::Link>, PeerError>>;

/// Panics at the first dial and reports each later one.
struct Panics {
    dials: AtomicUsize,
    again: mpsc::UnboundedSender<NodeId>,
}

impl Dialer for Panics {
    fn dial<'a>(&'a self, to: &'a Member) -> Dialed<'a> {
        assert!(self.dials.fetch_add(1, Ordering::SeqCst) > 0, "the bug of this test");
        let _ = self.again.send(to.id);
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_peers_task_restarts_after_a_panic() {
    let (again, mut dialed) = mpsc::unbounded_channel();
    let _running = run(Arc::new(Panics { dials: AtomicUsize::new(0), again }), 2);
    let dialed = tokio::time::timeout(Duration::from_secs(60), dialed.recv()).await;
    assert_eq!(dialed.expect("no task dials any more"), Some(member(2).id));
}

/// Never connects and never fails.
struct Hangs;

impl Dialer for Hangs {
    fn dial<'a>(&'a self, _: &'a Member) -> Dialed<'a> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_sync_request_has_one_deadline_for_all_peers() {
    let running = run(Arc::new(Hangs), 4);
    // first let replication start the peers' tasks
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = Clock::system().instant();
    let (answer, answered) = oneshot::channel();
    running.requests.send(answer).await.unwrap();
    let limit = tokio::time::timeout(SYNC_WAIT * 10, answered).await;
    let reports = limit.expect("the peers delay the answer").unwrap();
    assert_eq!(began.elapsed().as_secs(), SYNC_WAIT.as_secs(), "one deadline, not one per peer");
    let failed: Vec<_> = reports.iter().map(|r| (r.id, r.error.as_deref())).collect();
    let late = Some("no session has ended within 30 s; one that goes on is not cut");
    assert_eq!(failed, [2, 3, 4].map(|id| (member(id).id, late)));
}
