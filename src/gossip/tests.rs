//! Gossip over real sockets on the loopback interface.

use std::net::Ipv4Addr;

use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{
    Arc, BTreeSet, CancellationToken, Clock, Duration, Gossip, Member, MemberState, Metrics,
    SEALED_BYTES_MAX, Seal, Secret, SeedAnswer, SocketAddr, UdpSocket, config, watch,
};
use crate::config::Config;
use crate::model::{NodeId, Timestamp};

const DEADLINE: Duration = Duration::from_secs(20);

struct Node {
    address: SocketAddr,
    members: watch::Receiver<Vec<(Member, MemberState)>>,
    syncing: watch::Sender<bool>,
    syncing_seen: watch::Receiver<BTreeSet<NodeId>>,
    seeds: watch::Receiver<Vec<SeedAnswer>>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn secret(byte: u8) -> Arc<Secret> {
    Arc::new(Secret::from_entropy([byte; 64]))
}

async fn bind() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

async fn start(id: u128, secret: Arc<Secret>, listed: &[String]) -> Node {
    let socket = bind().await;
    let address = socket.local_addr().unwrap();
    let me = Member {
        id: NodeId::from_u128(id),
        name: format!("n{id}"),
        joined_at: Timestamp::ZERO,
        started_at: Timestamp::ZERO,
        gossip: address,
        peer: address,
        http: address,
        software: "0.1.0".into(),
    };
    let defaults = Config::defaults().unwrap().gossip;
    let probe_period = Duration::from_millis(100);
    let settings = config::GossipConfig { seeds: listed.to_vec(), probe_period, ..defaults };
    let (sender, members) = watch::channel(vec![]);
    let (syncing_members, syncing_seen) = watch::channel(BTreeSet::new());
    let (seed_sender, seeds) = watch::channel(vec![]);
    let syncing = watch::channel(false).0;
    let metrics = Metrics::new();
    let stop = CancellationToken::new();
    let gossip = Gossip {
        socket: Box::new(socket),
        me,
        secret,
        settings,
        known: vec![],
        clock: Clock::system(),
        metrics: metrics.clone(),
        members: sender,
        syncing: syncing.subscribe(),
        syncing_members,
        seeds: seed_sender,
    };
    let task = tokio::spawn(gossip.run(stop.clone()));
    Node { address, members, syncing, syncing_seen, seeds, metrics, stop, task }
}

impl Node {
    /// Waits until the watch shows exactly these members in these states.
    async fn sees(&mut self, expected: &[(u128, MemberState)]) {
        let expected: Vec<_> =
            expected.iter().map(|(id, state)| (NodeId::from_u128(*id), *state)).collect();
        let mut last = vec![];
        let wait = self.members.wait_for(|members| {
            last = members.iter().map(|(m, state)| (m.id, *state)).collect();
            last == expected
        });
        let found = timeout(DEADLINE, wait).await.is_ok_and(|found| found.is_ok());
        assert!(found, "{last:?} instead of {expected:?}");
    }

    /// Waits until `count` datagrams were dropped for `reason`.
    async fn drops(&self, reason: &'static str, count: u64) {
        let dropped = || self.metrics.gossip_dropped.get_or_create(&[("reason", reason)]).get();
        let wait = async {
            while dropped() != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(timeout(DEADLINE, wait).await.is_ok(), "{} dropped as {reason}", dropped());
    }

    fn line(&self, line: &str) -> bool {
        self.metrics.text().lines().any(|found| found == line)
    }
}

const ALL: [(u128, MemberState); 3] =
    [(1, MemberState::Alive), (2, MemberState::Alive), (3, MemberState::Alive)];

/// Three nodes that have joined; the seed of the second is a name, that of the third an address.
async fn three() -> [Node; 3] {
    let first = start(1, secret(1), &[]).await;
    let name = format!("localhost:{}", first.address.port());
    let second = start(2, secret(1), &[name]).await;
    let third = start(3, secret(1), &[first.address.to_string()]).await;
    let mut nodes = [first, second, third];
    for node in &mut nodes {
        node.sees(&ALL).await;
    }
    nodes
}

#[tokio::test]
async fn three_nodes_join_by_one_seed_and_see_one_leave() {
    let [mut first, mut second, third] = three().await;
    assert!(first.line("kvs_members{state=\"alive\"} 3"), "{}", first.metrics.text());
    assert!(first.metrics.gossip_bytes.get_or_create(&[("direction", "sent")]).get() > 0);
    third.stop.cancel();
    timeout(DEADLINE, third.task).await.unwrap().unwrap();
    let rest = [(1, MemberState::Alive), (2, MemberState::Alive), (3, MemberState::Left)];
    first.sees(&rest).await;
    second.sees(&rest).await;
    assert_eq!(third.members.borrow()[2].1, MemberState::Left);
    assert!(first.line("kvs_members{state=\"left\"} 1"), "{}", first.metrics.text());
}

#[tokio::test]
async fn members_tell_whether_they_wait_for_data_and_stay_alive_meanwhile() {
    let [mut first, second, mut third] = three().await;
    for syncing in [true, false] {
        second.syncing.send_replace(syncing);
        let expected = BTreeSet::from_iter(syncing.then(|| NodeId::from_u128(2)));
        for node in [&mut first, &mut third] {
            let wait = node.syncing_seen.wait_for(|seen| *seen == expected);
            assert!(timeout(DEADLINE, wait).await.is_ok_and(|seen| seen.is_ok()), "{syncing}");
            assert!(node.members.borrow().iter().all(|(_, state)| *state == MemberState::Alive));
        }
    }
}

#[tokio::test]
async fn a_seed_without_an_answer_is_shown_with_its_reason() {
    let silent = bind().await.local_addr().unwrap().to_string();
    let other = start(2, secret(2), &[]).await;
    let known = other.address.to_string();
    let mut node =
        start(1, secret(1), &["no.such.host.invalid:1".into(), silent.clone(), known]).await;
    let shown = |seeds: &Vec<SeedAnswer>| {
        let errors: Vec<_> = seeds.iter().filter_map(|seed| seed.error.as_deref()).collect();
        errors.len() == 3 && errors[0].contains("cannot be resolved") && errors[1] == "no answer"
    };
    assert!(timeout(DEADLINE, node.seeds.wait_for(shown)).await.is_ok_and(|s| s.is_ok()));
    assert_eq!(node.seeds.borrow()[1].seed, silent);
    let third = start(3, secret(1), &[node.address.to_string()]).await;
    let mut seeds = third.seeds.clone();
    let answers = |seeds: &Vec<SeedAnswer>| seeds.iter().all(|seed| seed.error.is_none());
    assert!(timeout(DEADLINE, seeds.wait_for(answers)).await.is_ok_and(|s| s.is_ok()));
}

#[tokio::test]
async fn a_killed_node_is_down_and_a_node_with_its_id_comes_back() {
    let [mut first, mut second, third] = three().await;
    third.task.abort();
    let rest = [(1, MemberState::Alive), (2, MemberState::Alive), (3, MemberState::Down)];
    first.sees(&rest).await;
    second.sees(&rest).await;
    let mut third = start(3, secret(1), &[second.address.to_string()]).await;
    for node in [&mut first, &mut second, &mut third] {
        node.sees(&ALL).await;
    }
}

#[tokio::test]
async fn unauthentic_datagrams_are_dropped_and_counted_and_the_cluster_stays_up() {
    let [mut first, ..] = three().await;
    let socket = bind().await;
    let own = secret(1);
    let other_key = Seal::new(&[9; 32], own.cluster_id());
    let other_cluster = Seal::new(own.gossip_key(), secret(2).cluster_id());
    for unsealed in [
        vec![],
        b"hello".to_vec(),
        vec![1; 100],
        other_key.seal([0; 24], b"hello"),
        other_cluster.seal([0; 24], b"hello"),
    ] {
        socket.send_to(&unsealed, first.address).await.unwrap();
    }
    first.drops("unsealed", 5).await;
    let seal = Seal::new(own.gossip_key(), own.cluster_id());
    socket.send_to(&seal.seal([0; 24], b"hello"), first.address).await.unwrap();
    first.drops("malformed", 1).await;
    socket.send_to(&[1; SEALED_BYTES_MAX + 1], first.address).await.unwrap();
    socket.send_to(&vec![1; 60_000], first.address).await.unwrap();
    first.drops("oversized", 2).await;

    // a node with another secret keeps trying and stays outside
    let mut stranger = start(4, secret(2), &[first.address.to_string()]).await;
    let unsealed = || first.metrics.gossip_dropped.get_or_create(&[("reason", "unsealed")]).get();
    let wait = async {
        while unsealed() < 10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(DEADLINE, wait).await.is_ok(), "the stranger tries again");
    stranger.sees(&[(4, MemberState::Alive)]).await;
    first.sees(&ALL).await;
}

#[tokio::test]
async fn a_seed_that_starts_later_is_found() {
    let reserved = bind().await;
    let address = reserved.local_addr().unwrap();
    let mut node =
        start(1, secret(1), &["no.such.host.invalid:1".into(), address.to_string()]).await;
    node.sees(&[(1, MemberState::Alive)]).await;
    // earlier announcements wait in the socket, and later ones follow
    let me = node.members.borrow()[0].0.clone();
    let mut later = Member { id: NodeId::from_u128(2), name: "n2".into(), ..me };
    (later.gossip, later.peer, later.http) = (address, address, address);
    let defaults = Config::defaults().unwrap().gossip;
    let (sender, members) = watch::channel(vec![]);
    let gossip = Gossip {
        socket: Box::new(reserved),
        me: later,
        secret: secret(1),
        settings: config::GossipConfig { probe_period: Duration::from_millis(100), ..defaults },
        known: vec![],
        clock: Clock::system(),
        metrics: Metrics::new(),
        members: sender,
        syncing: watch::channel(false).1,
        syncing_members: watch::channel(BTreeSet::new()).0,
        seeds: watch::channel(vec![]).0,
    };
    let stop = CancellationToken::new();
    let task = tokio::spawn(gossip.run(stop.clone()));
    let both = [(1, MemberState::Alive), (2, MemberState::Alive)];
    node.sees(&both).await;
    stop.cancel();
    timeout(DEADLINE, task).await.unwrap().unwrap();
    assert_eq!(members.borrow().len(), 2);
}
