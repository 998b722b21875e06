//! Chaos on real processes: links break, lose and delay packets, nodes die, pause and lose their
//! disks, disks fill up and clocks step, while 16 clients work on all nodes. After the faults end,
//! all nodes must hold the same records, and the auditor checks everything that clients saw.
//!
//! A seed draws each run; a failing run prints it. `KVS_CHAOS_SEED=N` draws the same faults and
//! requests again, which repeats the run as far as real time allows. A run uses network namespaces
//! where the machine allows them (see `support/netns.rs`); elsewhere it prints `SKIPPED` and uses
//! the proxy alone.

mod audit;
mod clients;
mod kills;
mod rig;
mod schedule;

use kvs::clock::Clock;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::support::{netns, scale};
use audit::Audit;
use rig::{Rig, skipped};
use schedule::{Fault, OF_LINKS, OF_NODES};

fn seed() -> u64 {
    let given = std::env::var("KVS_CHAOS_SEED").ok();
    let drawn = || Clock::system().rng().random();
    given.map_or_else(drawn, |text| text.parse().expect("KVS_CHAOS_SEED is a whole number"))
}

/// Runs `test` with a seed: in namespaces where the machine allows them, by starting the test
/// `name` of this module again; elsewhere in this process.
fn run(name: &str, test: impl AsyncFnOnce(u64)) {
    if netns::is_inside() {
        netns::end_with_the_outside();
    } else if let Some(why) = netns::missing() {
        skipped("namespaces, the proxy does what it can", &why);
    } else {
        let (status, told) = netns::rerun(&format!("chaos::{name}"));
        eprint!("{told}");
        assert!(status.success(), "{name} failed inside: {status}");
        // fail when `name` selects no test, for example after it was renamed
        assert!(told.contains("test result: ok. 1 passed"), "{name} did not run inside");
        return;
    }
    run_here(test);
}

fn run_here(test: impl AsyncFnOnce(u64)) {
    let seed = seed();
    eprintln!("KVS_CHAOS_SEED={seed}");
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(test(seed));
}

/// Runs `faults` while clients work, then has the auditor check the run.
async fn judged(seed: u64, faults: impl AsyncFnOnce(&mut Rig, &clients::Crowd, &mut StdRng)) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut rig = Rig::new(seed).await;
    let crowd = rig.crowd(rng.random());
    faults(&mut rig, &crowd, &mut rng).await;
    rig.heal();
    let events = crowd.end().await;
    let mut audit = Audit::new(seed, rig.origins.clone(), &events);
    let operations = audit.check_histories();
    let held = rig.end(&audit.keys()).await;
    audit.check_end(&held);
    let (acknowledged, unknown) = audit.counts();
    eprintln!(
        "{operations} operations judged; {acknowledged} writes acknowledged, {unknown} unknown"
    );
    assert!(acknowledged > 200, "only {acknowledged} writes: this run proves nothing");
}

async fn one_by_one(seed: u64, faults: &[Fault]) {
    judged(seed, async |rig, crowd, rng| {
        let plan = schedule::plan(faults, scale(), rng);
        eprintln!("{plan:?}");
        for fault in plan {
            eprintln!("{:>9.3?} {fault:?}", crowd.now());
            fault.happen(rig, crowd, rng).await;
        }
    })
    .await;
}

#[test]
fn chaos_on_the_links_loses_nothing_and_every_node_is_linearizable() {
    run("chaos_on_the_links_loses_nothing_and_every_node_is_linearizable", async |seed| {
        one_by_one(seed, &OF_LINKS).await;
    });
}

#[test]
fn chaos_on_the_nodes_loses_nothing_and_every_node_is_linearizable() {
    run("chaos_on_the_nodes_loses_nothing_and_every_node_is_linearizable", async |seed| {
        one_by_one(seed, &OF_NODES).await;
    });
}

/// Nodes fail while links are bad.
#[test]
fn chaos_on_nodes_and_links_at_once_loses_nothing() {
    run("chaos_on_nodes_and_links_at_once_loses_nothing", async |seed| {
        judged(seed, async |rig, crowd, rng| {
            for fault in schedule::plan(&[Fault::Kill, Fault::Pause, Fault::Clock], scale(), rng) {
                let link = if rng.random_bool(0.5) { Fault::Lossy } else { Fault::Slow };
                eprintln!("{:>9.3?} {fault:?} and {link:?}", crowd.now());
                link.begin(rig, rng);
                fault.happen(rig, crowd, rng).await;
                rig.heal();
            }
        })
        .await;
    });
}

/// Runs everywhere, so that the fallback without namespaces works too.
#[test]
fn chaos_by_the_proxy_alone_loses_nothing() {
    run_here(async |seed| one_by_one(seed, &[Fault::Halves, Fault::OneWay, Fault::Lossy]).await);
}
