//! The checker, tested with histories that a reader can judge, and against a search through all
//! orders.

use proptest::prelude::*;

use kvs::model::Timestamp;

use super::*;

fn v(number: u64) -> Version {
    Version {
        timestamp: Timestamp::saturating(number),
        origin_joined_at: Timestamp::ZERO,
        uuid: Uuid::from_u128(number.into()),
    }
}

fn op(from: u64, to: u64, did: Did) -> Operation {
    let (from, to) = (Duration::from_secs(from), Duration::from_secs(to));
    Operation { from, to, did, told: String::new() }
}

fn put(from: u64, to: u64, number: u64) -> Operation {
    op(from, to, Did::Wrote { version: v(number), gone: false, over: Over::Anything })
}

fn swap(from: u64, to: u64, expected: u64, number: u64) -> Operation {
    let over = Over::Exactly(v(expected).uuid);
    op(from, to, Did::Wrote { version: v(number), gone: false, over })
}

fn delete(from: u64, to: u64, number: u64) -> Operation {
    op(from, to, Did::Wrote { version: v(number), gone: true, over: Over::Live })
}

fn saw(from: u64, to: u64, number: u64) -> Operation {
    op(from, to, Did::Saw(v(number)))
}

fn nothing(from: u64, to: u64) -> Operation {
    op(from, to, Did::SawNothing)
}

fn elsewhere(from: u64, number: u64, gone: bool) -> Elsewhere {
    Elsewhere { version: Some(v(number)), gone, from: Duration::from_secs(from) }
}

fn unknown(from: u64, gone: bool) -> Elsewhere {
    Elsewhere { version: None, gone, from: Duration::from_secs(from) }
}

#[track_caller]
fn good(operations: &[Operation], others: &[Elsewhere]) {
    check(operations, others).expect("this can have happened");
}

#[track_caller]
fn bad(why: &str, operations: &[Operation], others: &[Elsewhere]) {
    let found = check(operations, others).expect_err("this cannot have happened");
    assert!(found.why.contains(why), "{found:?}");
    assert!(!found.shown_by.is_empty());
}

#[test]
fn what_can_have_happened_passes() {
    good(&[], &[]);
    good(&[nothing(0, 1), put(2, 3, 1), saw(4, 5, 1), swap(6, 7, 1, 2), saw(8, 9, 2)], &[]);
    // concurrent: both orders are possible
    good(&[put(0, 5, 1), put(0, 5, 2), saw(1, 2, 1), saw(3, 4, 2)], &[]);
    good(&[put(0, 9, 1), nothing(1, 2), saw(3, 4, 1)], &[]);
    // a write can be seen before its answer arrives
    good(&[put(0, 9, 1), saw(1, 2, 1), swap(3, 4, 1, 2)], &[]);
    good(&[put(0, 1, 1), delete(2, 3, 2), nothing(4, 5), put(6, 7, 3)], &[]);
}

#[test]
fn merges_are_writers_too() {
    let others = [elsewhere(0, 5, false), elsewhere(0, 7, true)];
    good(&[put(0, 1, 1), saw(2, 3, 5), swap(4, 5, 5, 6), nothing(6, 7)], &others);
    // no read saw the merged write in between
    good(&[put(0, 1, 1), swap(2, 3, 5, 6)], &others);
    good(&[put(0, 1, 1), nothing(2, 3)], &[unknown(0, true)]);
    bad("nothing", &[put(0, 1, 1), nothing(2, 3)], &[unknown(4, true)]);
    bad("nothing", &[put(0, 1, 1), nothing(2, 3), saw(4, 5, 1)], &[elsewhere(0, 7, true)]);
}

#[test]
fn a_stale_read_is_rejected() {
    bad("greater", &[put(0, 1, 1), put(2, 3, 2), saw(4, 5, 1)], &[]);
    bad("greater", &[put(0, 1, 1), saw(2, 3, 7), saw(4, 5, 1)], &[elsewhere(0, 7, false)]);
}

#[test]
fn a_lost_write_is_rejected() {
    bad("nothing", &[put(0, 1, 1), nothing(2, 3)], &[]);
    bad("nothing", &[put(0, 1, 1), nothing(2, 3), saw(4, 5, 1)], &[]);
    bad("found nothing", &[put(0, 1, 1), op(2, 3, wrote_over(Over::Nothing, 2))], &[]);
    bad("found a value", &[op(2, 3, wrote_over(Over::Live, 2))], &[]);
}

fn wrote_over(over: Over, number: u64) -> Did {
    Did::Wrote { version: v(number), gone: false, over }
}

#[test]
fn two_swaps_of_one_version_are_rejected() {
    bad("expected", &[put(0, 1, 1), swap(2, 9, 1, 2), swap(2, 9, 1, 3)], &[]);
    // also if a put restores no value
    bad("expected", &[put(0, 1, 1), put(2, 3, 2), swap(4, 5, 1, 3)], &[]);
    bad("expected", &[put(0, 1, 1), delete(2, 3, 2), swap(4, 5, 1, 3)], &[]);
}

#[test]
fn a_value_that_nobody_wrote_is_rejected() {
    bad("nobody", &[saw(0, 1, 1)], &[]);
    bad("not called yet", &[saw(0, 1, 1)], &[elsewhere(2, 1, false)]);
    bad("not called yet", &[saw(0, 1, 1), put(2, 3, 1)], &[]);
    bad("delete", &[put(0, 1, 1), delete(2, 3, 2), saw(4, 5, 2)], &[]);
    bad("one version", &[put(0, 1, 1), put(2, 3, 1)], &[]);
}

#[test]
fn versions_that_go_back_are_rejected() {
    bad("greater", &[put(0, 1, 2), put(2, 3, 1)], &[]);
    let others = [elsewhere(0, 1, false), elsewhere(0, 2, false)];
    bad("greater", &[saw(0, 1, 2), saw(2, 3, 1)], &others);
    // each pair has an order, but all three have none
    bad(
        "greater",
        &[saw(0, 2, 2), saw(1, 4, 1), saw(3, 5, 0)],
        &[elsewhere(0, 0, false), elsewhere(0, 1, false), elsewhere(0, 2, false)],
    );
}

/// Tries every order of operations, with every possible merge in between.
fn by_search(left: &[Operation], others: &[Elsewhere], state: Option<(Version, bool)>) -> bool {
    let Some(first_end) = left.iter().map(|op| op.to).min() else { return true };
    let greater = |version: Version| state.is_none_or(|(held, _)| version > held);
    let live = state.filter(|(_, gone)| !gone).map(|(version, _)| version);
    let next = (0..left.len()).filter(|at| left[*at].from <= first_end).any(|at| {
        let after = match left[at].did {
            Did::Wrote { version, gone, over } => {
                let found = match over {
                    Over::Anything => true,
                    Over::Live => live.is_some(),
                    Over::Nothing => live.is_none(),
                    Over::Exactly(uuid) => live.is_some_and(|version| version.uuid == uuid),
                };
                (found && greater(version)).then_some(Some((version, gone)))
            }
            Did::Saw(version) => (live == Some(version)).then_some(state),
            Did::SawNothing => live.is_none().then_some(state),
        };
        after.is_some_and(|after| {
            let mut rest = left.to_vec();
            rest.remove(at);
            by_search(&rest, others, after)
        })
    });
    let arrives =
        |other: &&Elsewhere| other.from <= first_end && other.version.is_some_and(greater);
    next || others
        .iter()
        .filter(arrives)
        .any(|other| by_search(left, others, other.version.map(|version| (version, other.gone))))
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let over = prop_oneof![
        Just(Over::Anything),
        Just(Over::Live),
        Just(Over::Nothing),
        (0..6_u64).prop_map(|number| Over::Exactly(v(number).uuid)),
    ];
    let wrote = (0..6_u64, any::<bool>(), over).prop_map(|(number, gone, over)| Did::Wrote {
        version: v(number),
        gone,
        over,
    });
    let saw = (0..6_u64).prop_map(|number| Did::Saw(v(number)));
    let did = prop_oneof![2 => wrote, 2 => saw, 1 => Just(Did::SawNothing)];
    (0..12_u64, 0..5_u64, did).prop_map(|(from, long, did)| op(from, from + long, did))
}

/// Operations with distinct written versions, which also differ from those of the writes elsewhere.
fn any_history(deletes: bool) -> impl Strategy<Value = (Vec<Operation>, Vec<Elsewhere>)> {
    let others = (0..12_u64, 0..6_u64, any::<bool>())
        .prop_map(move |(from, number, gone)| elsewhere(from, number, gone && deletes));
    let both = (prop::collection::vec(any_operation(), 0..6), prop::collection::vec(others, 0..3));
    both.prop_map(|(mut operations, mut others)| {
        let mut wrote = Vec::new();
        operations.retain(|op| match op.did {
            Did::Wrote { version, .. } if wrote.contains(&version) => false,
            Did::Wrote { version, .. } => {
                wrote.push(version);
                true
            }
            Did::Saw(_) | Did::SawNothing => true,
        });
        others.retain(|other| {
            let fresh = other.version.is_some_and(|version| !wrote.contains(&version));
            wrote.extend(other.version);
            fresh
        });
        (operations, others)
    })
}

fn settings() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(20_000) }
}

proptest! {
    #![proptest_config(settings())]

    #[test]
    fn it_agrees_with_a_search_through_all_orders((operations, others) in any_history(false)) {
        let found = check(&operations, &others);
        prop_assert_eq!(found.is_ok(), by_search(&operations, &others, None), "{:?}", found);
    }

    #[test]
    fn it_never_rejects_what_can_have_happened((operations, others) in any_history(true)) {
        if by_search(&operations, &others, None) {
            let found = check(&operations, &others);
            prop_assert!(found.is_ok(), "{:?}", found);
        }
    }
}
