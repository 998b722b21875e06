//! The power goes: with `durability = "sync"` nothing that was acknowledged is lost, not even what
//! the system had not written yet.

use kvs::clock::Clock;
use rand::RngExt;

use super::load::Load;
use crate::support::node::Surroundings;
use crate::support::power::Power;
use crate::support::{Node, Site, scale};

const ROUNDS: usize = 6;
/// Acknowledgements until the power goes, at most.
const ACKS_MAX: usize = 300;

/// A node whose syncs are noted; without a C compiler there is none.
async fn noted(site: &Site) -> Option<(Node, Power)> {
    let mut place = site.place("n1", &[]);
    let power = Power::new(&place.dir)
        .inspect_err(|error| eprintln!("SKIPPED: losses of power need a C compiler: {error}"))
        .ok()?;
    let environment = power.environment.clone();
    place.surround(Surroundings { environment, ..Surroundings::default() });
    Some((place.start().await, power))
}

/// Kills the node under load and takes what was not synced; gives how many bytes that were.
async fn lose_power(node: &mut Node, power: &Power, load: &mut Load) -> u64 {
    let acks = Clock::system().rng().random_range(1..ACKS_MAX);
    let running = load.start(&node.client);
    running.reaches(acks).await;
    node.kill();
    load.take(running.end().await);
    power.cut(&node.place.data_dir().join("db"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_a_loss_of_power() {
    let Some((mut node, power)) = noted(&Site::alone()).await else { return };
    let mut load = Load::new();
    for _ in 0..ROUNDS * scale() {
        lose_power(&mut node, &power, &mut load).await;
        node = node.restart().await;
        load.verify(&node.client).await;
    }
}

/// With `durability = "os"` the end may be lost, and nothing else: the node opens, and is whole.
/// That it is lost here shows that the other test can fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_sync_a_loss_of_power_takes_the_end_and_no_more() {
    let site = Site::alone().set("storage.durability", "os");
    let Some((mut node, power)) = noted(&site).await else { return };
    let lost = lose_power(&mut node, &power, &mut Load::new()).await;
    assert!(lost > 0, "everything had been synced");
    node = node.restart().await;
    let answer = node.client.put("/kv/k", "v").await;
    assert_eq!(answer.status, 201);
}
