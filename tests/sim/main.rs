//! The deterministic cluster: one thread a simulation, one seed, virtual time.
//!
//! Writer, feed, push, pull, membership and their loops run here unchanged, over the memory engine;
//! only sockets, disks, HTTP, time and entropy are replaced. A [`plan::Plan`], drawn from the seed,
//! says what goes wrong. An [`audit::Audit`] outside of the nodes knows every write, and prints the
//! story of a violation. `KVS_SIM_SEED=N cargo test --test sim one_seed` plays a seed again.
//! Findings stay as tests in `kept`.
//!
//! `KVS_SIM_SEEDS` (60) is the number of fresh seeds, `KVS_SIM_FIRST` (drawn anew each time) the
//! first one; `KVS_SIM_MINUTES` plays for that long instead. All cores take part. `tests/long.sh
//! sim` plays many.

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

/// The number of seeds without `KVS_SIM_SEEDS`.
const SEEDS: u64 = 60;

/// A number from the environment. Panics on text, which must not pass for the default.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a whole number")))
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
