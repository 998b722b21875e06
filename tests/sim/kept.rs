//! What simulations have found, each as a plan that says what it takes.

use std::time::Duration;

use crate::plan::{Event, Load, Noise, Plan};
use crate::world::{Outcome, run};

/// A quiet cluster in which only `events` go wrong, for 20 seconds.
fn plan(nodes: usize, events: impl IntoIterator<Item = (Duration, Event)>) -> Plan {
    Plan {
        seed: 1,
        nodes,
        founders: nodes,
        noise: Noise::quiet(),
        load: Load { clients: 3, keys: 10, pause_ms_max: 20, large: 0.0 },
        push: true,
        push_queue_max: 64,
        disk_ms_max: 2,
        synced: true,
        skews: vec![0; nodes],
        lasting: Duration::from_secs(20),
        events: events.into_iter().collect(),
    }
}

/// The event again and again, ten times a second.
fn often(event: impl Fn(u32) -> Event) -> impl Iterator<Item = (Duration, Event)> {
    (0..200).map(move |i| (Duration::from_millis(100) * i, event(i)))
}

fn count(outcome: &Outcome, fault: &str) -> u64 {
    outcome.faults.get(fault).copied().unwrap_or_default()
}

/// A write is several changes: a large value goes, another comes, the record names it. When one of
/// them failed, the group was committed with the others, and the record named a value that was not
/// there.
#[test]
fn a_group_is_not_committed_without_one_of_its_changes() {
    let outcome = run(plan(2, often(|i| Event::ChangeFails { at: 0, after: i % 5 })));
    assert!(count(&outcome, "change fails") > 100);
}

/// A node whose commits fail finds out what took place and goes on by itself, also where that takes
/// it several attempts.
#[test]
fn a_node_whose_commits_fail_goes_on_by_itself() {
    let fails = often(|i| Event::CommitFails { at: 0, applied: i % 2 == 0 });
    let outcome = run(plan(2, fails.step_by(7)));
    assert!(count(&outcome, "commit fails") > 20);
}

/// Not found by chance, but what chance should find first: a node that comes back with an empty
/// disk, again and again, takes nothing from the others and gets everything.
#[test]
fn a_node_with_an_empty_disk_gets_everything() {
    let absent = Duration::from_millis(200);
    let often = (1..15).map(|i| (Duration::from_secs(i), Event::Emptied { at: 2, absent }));
    let outcome = run(plan(3, often));
    assert!(count(&outcome, "emptied") > 10);
}
