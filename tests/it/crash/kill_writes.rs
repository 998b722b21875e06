//! kill -9 at any moment: no acknowledged write is lost, and the digest is that of the data. A
//! single node whose commits wait for the disk is killed in [`kill_mixed`](super::kill_mixed),
//! under more than plain writes.

use std::path::Path;
use std::sync::Arc;

use kvs::clock::Clock;
use kvs::store::{Settings, Store, rocks::Rocks};
use kvs::telemetry::Metrics;
use rand::RngExt;

use super::load::Load;
use crate::support::{Client, Node, SOON, Site, cluster::converged, peer, scale};

const ROUNDS: usize = 5;
const CLUSTER_ROUNDS: usize = 6;
/// Acknowledgements until a round's kill, at most.
const ACKS_MAX: usize = 400;

/// The store in a stopped node's directory.
pub fn opened(data_dir: &Path, digest_key: [u8; 32]) -> Store {
    let engine = Rocks::open(&data_dir.join("db"), 8 << 20, true).expect("the database opens");
    let settings = Settings { digest_key, ..Settings::default() };
    let opened = Store::open(Arc::new(engine), Clock::system(), Metrics::new(), &settings);
    opened.expect("the store opens").0
}

/// The fingerprint of the data in a stopped node's directory, computed from every record.
pub fn recomputed(data_dir: &Path, digest_key: [u8; 32]) -> String {
    let recomputed =
        opened(data_dir, digest_key).recomputed_fingerprint().expect("every record is whole");
    blake3::Hash::from_bytes(recomputed).to_hex().to_string()
}

/// Starts a node that was stopped or killed: it holds what it held before.
pub(super) async fn reopened(node: Node, fingerprint: &str, context: &str) -> Node {
    assert_eq!(fingerprint, recomputed(&node.place.data_dir(), [0; 32]), "{context}");
    let node = node.restart().await;
    assert_eq!(node.client.fingerprint().await, fingerprint, "{context}");
    node
}

/// Ends a round of kills: the digest is that of the data, both where a scan has built it (the node
/// is killed right after its start) and where it followed `more` writes (it is stopped in order).
pub(super) async fn reopened_by_turns(
    mut node: Node,
    round: usize,
    more: impl AsyncFnOnce(&Client),
) -> Node {
    let fingerprint = if round.is_multiple_of(2) {
        let fingerprint = node.client.fingerprint().await;
        node.kill();
        fingerprint
    } else {
        more(&node.client).await;
        let fingerprint = node.client.fingerprint().await;
        node.stop().await;
        fingerprint
    };
    reopened(node, &fingerprint, &format!("round {round}")).await
}

/// Without a sync a write is in the hands of the system: that survives the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_a_kill_where_the_system_has_it_and_the_disk_not_yet() {
    let site = Site::alone().set("storage.durability", "os");
    kill_again_and_again(&site, ROUNDS * scale()).await;
}

async fn kill_again_and_again(site: &Site, rounds: usize) {
    let mut rng = Clock::system().rng();
    let mut load = Load::new();
    let mut node = site.node("n1", &[]).await;
    for round in 0..rounds {
        let running = load.start(&node.client);
        running.reaches(rng.random_range(1..ACKS_MAX)).await;
        node.kill();
        load.take(running.end().await);
        node = node.restart().await;
        load.verify(&node.client).await;
        let more = async |client: &Client| {
            let running = load.start(client);
            running.reaches(ACKS_MAX / 4).await;
            load.take(running.stop().await);
        };
        node = reopened_by_turns(node, round, more).await;
        load.verify(&node.client).await;
    }
    assert!(load.writes() > rounds, "{} writes", load.writes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_killed_under_load_comes_back_with_all_that_it_acknowledged() {
    let site = Site::clustered();
    let key = peer::secret(&site).digest_key();
    let mut load = Load::new();
    let mut rng = Clock::system().rng();
    let mut cluster = site.cluster(2).await;
    for round in 0..CLUSTER_ROUNDS * scale() {
        // the one that takes the writes, or the one that they are pushed to
        let killed = round % 2;
        let running = load.start(&cluster.nodes[0].client);
        running.reaches(rng.random_range(1..ACKS_MAX)).await;
        cluster.nodes[killed].kill();
        load.take(if killed == 0 { running.end().await } else { running.stop().await });
        cluster.replace(killed, Node::restart).await;
        // at once on the node that acknowledged them, and soon on both
        load.verify(&cluster.nodes[0].client).await;
        cluster.converged().await;
        load.verify(&cluster.nodes[1].client).await;
    }
    let fingerprint = cluster.nodes[0].client.fingerprint().await;
    for node in &mut cluster.nodes {
        node.stop().await;
        assert_eq!(recomputed(&node.place.data_dir(), key), fingerprint);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_killed_whole_comes_back_whole() {
    let site = Site::clustered();
    let mut load = Load::new();
    let mut cluster = site.cluster(3).await;
    let running = load.start(&cluster.nodes[1].client);
    running.reaches(ACKS_MAX).await;
    cluster.nodes.iter_mut().for_each(Node::kill);
    load.take(running.end().await);
    let mut nodes = Vec::new();
    for node in std::mem::take(&mut cluster.nodes) {
        nodes.push(node.restart().await);
    }
    load.verify(&nodes[1].client).await;
    converged(&nodes.iter().collect::<Vec<_>>(), SOON).await;
    for node in &nodes {
        load.verify(&node.client).await;
    }
}
