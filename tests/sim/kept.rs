//! What simulations have found: each finding as the plan that showed it.

use std::time::Duration;

use crate::plan::{Event, FOR_EVER, HOUR_US, Load, Noise, Plan, YEAR_US};
use crate::world::{Outcome, run};

/// A little of everything.
const LOAD: Load = Load {
    clients: 3,
    keys: 10,
    pause_ms_max: 20,
    large: 0.0,
    ending: 0.2,
    txns: 0.2,
    named: 0.3,
    retried: 0.1,
};

/// A quiet cluster in which only `events` go wrong, for 20 seconds.
fn plan(nodes: usize, events: impl IntoIterator<Item = (Duration, Event)>) -> Plan {
    Plan {
        seed: 1,
        nodes,
        founders: nodes,
        noise: Noise::quiet(),
        load: LOAD,
        push: true,
        push_queue_max: 64,
        disk_ms_max: 2,
        clock_drift_max: Duration::from_secs(5),
        idempotency_window: FOR_EVER,
        idempotency_bytes_max: 1 << 30,
        history_depth: 3,
        synced: true,
        skews: vec![0; nodes],
        lasting: Duration::from_secs(20),
        events: events.into_iter().collect(),
    }
}

/// The event ten times a second.
fn often(event: impl Fn(u32) -> Event) -> impl Iterator<Item = (Duration, Event)> {
    (0..200).map(move |i| (Duration::from_millis(100) * i, event(i)))
}

fn count(outcome: &Outcome, fault: &str) -> u64 {
    outcome.faults.get(fault).copied().unwrap_or_default()
}

/// A write is several changes: a large value goes, another one comes, and the record names it. When
/// one of them failed, the group was committed with the others, and the record named a missing
/// value.
#[test]
fn a_group_is_not_committed_without_one_of_its_changes() {
    let outcome = run(plan(2, often(|i| Event::ChangeFails { at: 0, after: i % 5 })));
    assert!(count(&outcome, "change fails") > 100);
}

/// A node whose commits fail finds out what took place and goes on by itself, even if that takes
/// several attempts.
#[test]
fn a_node_whose_commits_fail_goes_on_by_itself() {
    let fails = often(|i| Event::CommitFails { at: 0, applied: i % 2 == 0 });
    let outcome = run(plan(2, fails.step_by(7)));
    assert!(count(&outcome, "commit fails") > 20);
}

/// A node whose commit fails, and which is killed before it finds out, has sent no peer what it
/// does not have.
#[test]
fn nothing_is_pushed_before_it_is_durable() {
    let absent = Duration::from_millis(50);
    let events = |i: u32| match i % 2 {
        0 => Event::CommitFails { at: 0, applied: false },
        _ => Event::Killed { at: 0, absent },
    };
    let outcome = run(plan(2, often(events)));
    let faults = outcome.faults;
    assert!(faults["commit fails"] > 20 && faults["killed"] > 20, "{faults:?}");
}

/// Not found by chance, but chance should find it first: a node that comes back with an empty disk,
/// again and again, takes nothing from the others and receives everything.
#[test]
fn a_node_with_an_empty_disk_gets_everything() {
    let absent = Duration::from_millis(200);
    let often = (1..15).map(|i| (Duration::from_secs(i), Event::Emptied { at: 2, absent }));
    let outcome = run(plan(3, often));
    assert!(count(&outcome, "emptied") > 10);
}

/// Values expire before the sweep, because the disk is slow, and the clock goes back and forth a
/// little.
#[test]
fn a_clock_that_goes_back_by_little_revives_nothing() {
    let by_us = |i: u32| if i.is_multiple_of(2) { 1_000_000 } else { -1_000_000 };
    let mut plan = plan(2, often(|i| Event::ClockStep { at: 0, by_us: by_us(i) }));
    plan.disk_ms_max = 300;
    plan.load.ending = 0.8;
    let outcome = run(plan);
    let audited = outcome.audited;
    assert!(audited.expired > 50 && count(&outcome, "clock step") > 100, "{audited:?}");
}

/// Not found by chance: a clock runs an hour ahead for a while and is set right. The others hold
/// back what its node wrote then, no session leads to a claim meanwhile, and all merge it in its
/// time.
#[test]
fn what_a_wrong_clock_wrote_proves_nothing_before_its_time() {
    let step = |at_s, by_us| (Duration::from_secs(at_s), Event::ClockStep { at: 2, by_us });
    let mut plan = plan(3, [step(8, HOUR_US), step(11, -HOUR_US)]);
    // nodes that join at one instant would give a retry on two of them one version
    plan.skews = vec![0, 100_001, 200_002];
    let outcome = run(plan);
    assert!(outcome.held_keys > 0, "{:?}", outcome.audited);
}

/// A clock runs ahead and is set right, and falls behind and is set right: by seconds, by hours and
/// by a year. Whatever clients were told on the way stands in the end, or is reported.
#[test]
fn a_node_whose_clock_ran_ahead_and_was_set_right_loses_nothing() {
    const STEPS_US: [i64; 8] = [
        3_000_000,
        -3_000_000,
        30_000_000,
        -30_000_000,
        3 * HOUR_US,
        -3 * HOUR_US,
        YEAR_US,
        -YEAR_US,
    ];
    for at in [0, 2] {
        let step = |(i, by_us): (u64, i64)| {
            let away = (Duration::from_secs(2 * i + 2), Event::ClockStep { at, by_us });
            let back = (away.0 + Duration::from_secs(1), Event::ClockStep { at, by_us: -by_us });
            [away, back]
        };
        let mut plan = plan(3, (0..).zip(STEPS_US).flat_map(step));
        plan.skews = vec![0, 100_001, 200_002];
        let outcome = run(plan);
        assert!(outcome.held_keys > 0 && count(&outcome, "clock step") == 16);
    }
}

/// Clients learn that values have expired before the sweep; the node is killed, and its clock goes
/// back a little.
#[test]
fn a_value_that_a_client_saw_expire_stays_dead_after_a_kill() {
    // The node is down while its clock goes back.
    let absent = Duration::from_millis(150);
    let events = |i: u32| match i % 4 {
        0 => Event::Killed { at: 0, absent },
        1 => Event::ClockStep { at: 0, by_us: -1_000_000 },
        2 => Event::Slow { at: 0, lasting: absent, ms_max: 50 },
        _ => Event::ClockStep { at: 0, by_us: 1_000_000 },
    };
    let mut plan = plan(2, often(events));
    plan.load.ending = 0.8;
    let outcome = run(plan);
    assert!(outcome.audited.learned_dead > 100 && count(&outcome, "killed") > 40);
}

/// Clocks differ by seconds, so nodes sweep at different times; no records move because of that.
#[test]
fn nodes_that_swept_and_nodes_that_did_not_hold_the_same() {
    let mut plan = plan(3, []);
    // The clocks as they are after the faults.
    plan.skews = vec![0, 400_000, -400_000];
    plan.load = Load { ending: 0.8, keys: 100, large: 0.1, ..plan.load };
    let outcome = run(plan);
    assert!(outcome.audited.swept > 100);
}

/// Storage fails before or after it has done its work, and the client asks again.
#[test]
fn a_retry_tells_what_became_of_a_request() {
    let fails = |i: u32| Event::CommitFails { at: i as usize % 2, applied: i % 4 < 2 };
    let mut plan = plan(2, often(fails));
    plan.load = Load { named: 0.9, retried: 0.5, txns: 0.5, ..plan.load };
    let outcome = run(plan);
    let audited = outcome.audited;
    assert!(audited.resolved > 5 && audited.repeated > 100, "{audited:?}");
}

/// A loss of power undoes transactions whole.
#[test]
fn a_loss_of_power_leaves_no_transaction_in_part() {
    let absent = Duration::from_millis(100);
    let often =
        (1..60).map(|i| (Duration::from_millis(300) * i, Event::PowerLost { at: 0, absent }));
    let mut plan = plan(2, often);
    plan.synced = false;
    plan.load = Load { txns: 0.8, ..plan.load };
    let outcome = run(plan);
    assert!(count(&outcome, "power lost") > 30 && outcome.audited.txns > 100);
}

/// A node loses its disk and hears of a node that serves, but cannot connect to it. It must wait,
/// however long that takes.
#[test]
fn an_empty_node_waits_for_a_member_that_it_only_hears_of() {
    let (begin, lasting) = (Duration::from_secs(2), Duration::from_secs(14));
    let absent = Duration::from_secs(1);
    let events =
        [(begin, Event::Blocked { at: 1, lasting }), (begin, Event::Emptied { at: 1, absent })];
    let mut plan = plan(2, events);
    // so many that the node's own clients have not written them all by the next look
    plan.load.keys = 300;
    let outcome = run(plan);
    assert!(count(&outcome, "blocked") == 1 && count(&outcome, "emptied") == 1);
    assert_eq!(outcome.waits_ended, 1, "the end of its wait was checked");
}

/// Nodes that are all empty and have the same seeds wait for each other no longer than they need.
#[test]
fn nodes_that_start_together_all_serve() {
    let outcome = run(plan(3, []));
    assert!(outcome.audited.acked > 1000, "{:?}", outcome.audited);
    assert_eq!(outcome.waits_ended, 0, "nobody served before them");
}
