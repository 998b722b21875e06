//! Loss of power: with `durability = "sync"` every acknowledged write survives, even when the
//! kernel loses all data that it had not yet written to the disk.

use kvs::clock::Clock;
use rand::RngExt;

use super::load::Load;
use crate::support::node::Surroundings;
use crate::support::power::Power;
use crate::support::{Node, Site, scale};

const ROUNDS: usize = 6;
/// The most acknowledgements before a loss of power.
const ACKS_MAX: usize = 300;

/// A node whose syncs are recorded; `None` without a C compiler.
async fn noted(site: &Site) -> Option<(Node, Power)> {
    let mut place = site.place("n1", &[]);
    let power = Power::new(&place.dir)
        .inspect_err(|error| eprintln!("SKIPPED: losses of power need a C compiler: {error}"))
        .ok()?;
    let environment = power.environment.clone();
    place.surround(Surroundings { environment, ..Surroundings::default() });
    Some((place.start().await, power))
}

/// Kills the node under load and removes unsynced bytes; returns how many.
async fn lose_power(node: &mut Node, power: &Power, load: &mut Load) -> u64 {
    let acks = Clock::system().rng().random_range(1..ACKS_MAX);
    let running = load.start(&node.client);
    running.reaches(acks).await;
    node.kill();
    load.take(running.end().await);
    power.cut(&node.place.data_dir().join("db"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_of_power_loses_no_acknowledged_write() {
    let Some((mut node, power)) = noted(&Site::alone()).await else { return };
    let mut load = Load::new();
    for _ in 0..ROUNDS * scale() {
        lose_power(&mut node, &power, &mut load).await;
        node = node.restart().await;
        load.verify(&node.client).await;
    }
}

/// With `durability = "os"` only the latest writes may be lost: the node opens and is consistent.
/// That some are lost shows that the other test can fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_syncs_a_loss_of_power_loses_only_the_latest_writes() {
    let site = Site::alone().set("storage.durability", "os");
    let Some((mut node, power)) = noted(&site).await else { return };
    let lost = lose_power(&mut node, &power, &mut Load::new()).await;
    assert!(lost > 0, "everything had been synced");
    node = node.restart().await;
    let answer = node.client.put("/kv/k", "v").await;
    assert_eq!(answer.status, 201);
}
