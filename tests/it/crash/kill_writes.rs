//! `kill -9` at any moment: no acknowledged write is lost, and the digest matches the data.
//! [`kill_mixed`](super::kill_mixed) kills a single node with `durability = "sync"` under all
//! kinds of requests.

use std::path::Path;
use std::sync::Arc;

use kvs::clock::Clock;
use kvs::model::Prefix;
use kvs::store::{Settings, Store, rocks::Rocks};
use kvs::telemetry::Metrics;
use rand::RngExt;

use super::load::Load;
use crate::support::{Client, Node, SOON, Site, cluster::converged, peer, scale};

const ROUNDS: usize = 5;
const CLUSTER_ROUNDS: usize = 6;
/// The most acknowledgements before a round's kill.
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

/// Checks that stopped nodes hold the same records, but for what is dead: that goes at each node
/// when its floor passes it. And that each digest is that of the records.
pub async fn hold_the_same(nodes: &[Node], digest_key: [u8; 32]) {
    let mut all = Vec::new();
    for node in nodes {
        let store = opened(&node.place.data_dir(), digest_key);
        let recomputed = store.recomputed_fingerprint().expect("every record is whole");
        assert_eq!(recomputed, store.fingerprint(), "the digest of {}", node.place.name);
        let page = store.scan(&Prefix::all(), None, usize::MAX, None).await;
        let items = page.expect("every record is whole").items;
        all.push(items.into_iter().map(|(key, entry)| (key, entry.header)).collect::<Vec<_>>());
    }
    for (node, live) in nodes.iter().zip(&all) {
        assert!(*live == all[0], "{} holds other records", node.place.name);
    }
}

/// Starts a stopped or killed node and checks that its data has not changed.
pub(super) async fn reopened(node: Node, fingerprint: &str, context: &str) -> Node {
    assert_eq!(fingerprint, recomputed(&node.place.data_dir(), [0; 32]), "{context}");
    let node = node.restart().await;
    assert_eq!(node.client.fingerprint().await, fingerprint, "{context}");
    node
}

/// Ends a round of kills by a check that the digest matches the data. Even rounds check a digest
/// that a scan has built (the node is killed right after its start), odd rounds one that followed
/// `more` writes (the node is stopped in order).
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

/// Without a sync the kernel holds the write, which survives the end of the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_syncs_a_kill_loses_no_acknowledged_write() {
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
async fn a_member_killed_under_load_comes_back_with_every_acknowledged_write() {
    let site = Site::clustered();
    let key = peer::secret(&site).digest_key();
    let mut load = Load::new();
    let mut rng = Clock::system().rng();
    let mut cluster = site.cluster(2).await;
    for round in 0..CLUSTER_ROUNDS * scale() {
        // kills the node that takes the writes, or the one that receives the pushes
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
    for node in &mut cluster.nodes {
        node.stop().await;
    }
    hold_the_same(&cluster.nodes, key).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_whose_nodes_are_all_killed_comes_back_whole() {
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
