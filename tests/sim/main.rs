//! The deterministic cluster: one thread, one seed, virtual time.
//!
//! Writer, feed, push, pull, membership and their loops run here unchanged, over the memory engine;
//! only sockets, HTTP, time and entropy are replaced. Faults are drawn from the seed. An auditor
//! outside of the nodes knows every acknowledged write. When something is violated, the seed is
//! printed; `KVS_SIM_SEED=N cargo test --test sim one_seed` plays it again. `KVS_SIM_SEEDS` (20)
//! and `KVS_SIM_FIRST` (0) say which seeds are played; `tests/long.sh sim` plays many on all cores.

#![allow(clippy::disallowed_methods, reason = "time is virtual here")]

mod audit;
mod membership;
mod network;
mod world;

use world::{Outcome, run_seed};

/// How many seeds, and the first of them, unless the environment says otherwise.
const SEEDS: u64 = 20;
const FIRST: u64 = 0;
/// With fewer seeds chance decides whether enough happens in them.
const SEEDS_TELLING: u64 = 10;

/// A number from the environment. One that cannot be read must not pass for the default.
fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no whole number")),
        Err(_) => default,
    }
}

/// Not yet held, because its machinery is still to come: reports of superseded writes (promise 4),
/// collection of dead records (promise 3), records held back for a wrong clock (promise 6).
#[test]
fn nothing_acknowledged_is_lost_and_all_agree_after_faults() {
    let (seeds, first) = (number("KVS_SIM_SEEDS", SEEDS), number("KVS_SIM_FIRST", FIRST));
    assert!(seeds > 0, "without a seed nothing is shown");
    let outcomes: Vec<Outcome> = (first..first + seeds).map(run_seed).collect();
    let sum = |count: fn(&Outcome) -> u64| outcomes.iter().map(count).sum::<u64>();
    let (acked, lost, crashes) = (sum(|o| o.acked), sum(|o| o.lost), sum(|o| o.crashes));
    let slowest = outcomes.iter().map(|o| o.agreed_after).max().unwrap_or_default();
    println!(
        "{seeds} seeds from {first}: {acked} writes acknowledged, {lost} packets lost, \
         {crashes} crashes, agreed within {slowest:?}"
    );
    // a simulation in which nothing happens proves nothing
    let enough = acked > seeds * 100 && lost > seeds * 10 && crashes > seeds / 2;
    assert!(enough || seeds < SEEDS_TELLING);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let (first, second, other) = (run_seed(7), run_seed(7), run_seed(8));
    assert_eq!(first.trace, second.trace, "time or entropy leaks into the simulation");
    assert_ne!(first.trace, other.trace);
}

#[test]
fn one_seed() {
    println!("{:?}", run_seed(number("KVS_SIM_SEED", 1)));
}
