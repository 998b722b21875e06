//! The deterministic cluster: one thread a simulation, one seed, virtual time.
//!
//! Writer, feed, push, pull, membership and their loops run here unchanged, over the memory engine;
//! only sockets, disks, HTTP, time and entropy are replaced. What goes wrong is a [`plan::Plan`],
//! drawn from the seed; an [`audit::Audit`] outside of the nodes knows every write, and tells the
//! story when something is violated. `KVS_SIM_SEED=N cargo test --test sim one_seed` plays a seed
//! again. What was found stays as a test in `kept`.
//!
//! `KVS_SIM_SEEDS` (60) says how many fresh seeds are played, `KVS_SIM_FIRST` (drawn anew each
//! time) which is the first, `KVS_SIM_MINUTES` that they go on for so long instead. All cores take
//! part. `tests/long.sh sim` plays many.

#![allow(clippy::disallowed_methods, reason = "time is virtual here")]

mod audit;
mod client;
mod clock;
mod disk;
mod faults;
mod kept;
mod many;
mod membership;
mod network;
mod node;
mod panics;
mod plan;
mod story;
mod streams;
mod world;

use std::time::Duration;

use many::Until;
use plan::Plan;
use world::run;

/// How many seeds, unless the environment says otherwise.
const SEEDS: u64 = 60;

/// A number from the environment. One that cannot be read must not pass for the default.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no whole number")))
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let (first, second, other) = (run(Plan::draw(7)), run(Plan::draw(7)), run(Plan::draw(8)));
    assert_eq!(first.trace, second.trace, "time or entropy leaks into the simulation");
    assert_ne!(first.trace, other.trace);
}

#[test]
fn fresh_seeds_violate_no_promise() {
    let first = number("KVS_SIM_FIRST").unwrap_or_else(|| rand::random_range(0..1 << 40));
    let until = match number("KVS_SIM_MINUTES") {
        Some(minutes) => Until::Passed(Duration::from_secs(minutes * 60)),
        None => Until::Played(number("KVS_SIM_SEEDS").unwrap_or(SEEDS)),
    };
    many::run_many(first, until);
}

#[test]
fn one_seed() {
    let plan = Plan::draw(number("KVS_SIM_SEED").unwrap_or(1));
    println!("{plan:#?}");
    println!("{:#?}", run(plan));
}
