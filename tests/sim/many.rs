//! Plays many seeds on all cores, and reports what happened in them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::audit::Tally;
use crate::plan::Plan;
use crate::world::{Outcome, run};

/// With fewer seeds, chance decides whether enough happens in them.
const SEEDS_ENOUGH: usize = 50;

/// How often a long run reports its progress.
const TELL_EVERY: u64 = 500;

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After this many seeds.
    Played(u64),
    /// After this much time.
    Passed(Duration),
}

/// Plays seeds from `first` on, in order.
///
/// # Panics
/// When a seed shows a violation, after all have been played.
pub fn run_many(first: u64, until: Until) {
    let (next, began) = (AtomicU64::new(first), Instant::now());
    let (outcomes, failed) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let enough = |played| match until {
        Until::Played(seeds) => played >= seeds,
        Until::Passed(time) => began.elapsed() >= time,
    };
    let play = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if enough(seed - first) {
                return;
            }
            match std::panic::catch_unwind(|| run(Plan::draw(seed))) {
                Ok(outcome) => outcomes.lock().expect("not poisoned").push(outcome),
                Err(_) => failed.lock().expect("not poisoned").push(seed),
            }
            if (seed + 1 - first).is_multiple_of(TELL_EVERY) {
                println!("{} seeds in {:?}", seed + 1 - first, began.elapsed());
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(play);
        }
    });
    let (outcomes, failed) = (outcomes.into_inner(), failed.into_inner());
    let (outcomes, failed) = (outcomes.expect("not poisoned"), failed.expect("not poisoned"));
    let seeds = outcomes.len() + failed.len();
    assert!(seeds > 0, "without a seed the test proves nothing");
    println!("{seeds} seeds from {first}: {}", summary(&outcomes));
    assert!(failed.is_empty(), "these seeds violate a promise: {failed:?}");
    assert!(
        seeds < SEEDS_ENOUGH || shows_enough(&outcomes),
        "too little happened to prove anything"
    );
}

fn sum(outcomes: &[Outcome], count: impl Fn(&Outcome) -> u64) -> u64 {
    outcomes.iter().map(count).sum()
}

fn faults(outcomes: &[Outcome]) -> BTreeMap<&'static str, u64> {
    let mut faults = BTreeMap::new();
    for (kind, count) in outcomes.iter().flat_map(|outcome| &outcome.faults) {
        *faults.entry(*kind).or_default() += count;
    }
    faults
}

fn audited(outcomes: &[Outcome]) -> Tally {
    outcomes.iter().fold(Tally::default(), |all, outcome| all.and(&outcome.audited))
}

fn summary(outcomes: &[Outcome]) -> String {
    let slowest = outcomes.iter().map(|o| o.agreed_after).max().unwrap_or_default();
    format!(
        "{:?}, {} writes lost a merge, {} packets lost, {} twice, {} connections broken, \
         {} ends of a wait for data judged, records of {} keys held back, all agreed within \
         {slowest:?}; {:?}",
        audited(outcomes),
        sum(outcomes, |o| o.lost_merges),
        sum(outcomes, |o| o.network.lost),
        sum(outcomes, |o| o.network.duplicated),
        sum(outcomes, |o| o.network.broken),
        sum(outcomes, |o| o.waits_ended),
        sum(outcomes, |o| o.held_keys),
        faults(outcomes),
    )
}

/// Checks that each kind of fault took place, and much of the rest: a simulation in which nothing
/// happens proves nothing.
fn shows_enough(outcomes: &[Outcome]) -> bool {
    let seeds = outcomes.len() as u64;
    let network = sum(outcomes, |o| o.network.lost.min(1) + o.network.duplicated.min(1));
    let merges = sum(outcomes, |o| o.lost_merges.min(1));
    let kinds = faults(outcomes).len();
    let waits = sum(outcomes, |o| o.waits_ended);
    let held = sum(outcomes, |o| o.held_keys.min(1));
    let all = audited(outcomes);
    let much = [all.acked / 100, all.swapped / 10, all.txns / 10, all.foreseen / 5, all.repeated];
    let some = [all.mismatched, all.expired, all.swept, all.revisions / 10];
    let is_enough = much.iter().chain(&some).all(|count| *count > seeds);
    let lasting = waits > seeds / 20 && held > 0;
    is_enough && lasting && network > seeds / 2 && merges > 5 && kinds >= 21
}
