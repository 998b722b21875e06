//! Sessions between sides that hold records back: they end, move nothing that is held back and
//! nothing twice, and agree on all else.

use super::*;

/// Runs a session that knows what an earlier one found.
fn session_knowing(driver: &mut Map, other: &mut Map, known: Option<HeldDifference>) -> Traffic {
    let initiator = Initiator::knowing(TINY, known);
    drive(driver, other, initiator, (TINY, TINY), &mut |_, _| {})
}

/// The greatest of the records that a side with this horizon has or may take.
fn greatest<'a>(
    own: Option<&'a Record>,
    theirs: Option<&'a Record>,
    horizon: u64,
) -> Option<&'a Record> {
    let timely = |r: &&Record| r.header.version.timestamp <= Timestamp::saturating(horizon);
    own.into_iter().chain(theirs.filter(timely)).max_by_key(|record| record.header.version)
}

proptest! {
    #[test]
    fn what_a_side_holds_back_stays_out_and_all_else_is_shared(
        sides in proptest::collection::vec(
            (0..200_u32, proptest::option::weighted(0.7, 1..9_u64),
                proptest::option::weighted(0.7, 1..9_u64)), 0..160),
        same in 0..150_u32, horizons in (1..20_u64, 1..20_u64),
    ) {
        let mut one: BTreeMap<_, _> = (0..same).map(|n| (key(n), record(n, 1, 1))).collect();
        let mut two = one.clone();
        for (n, a, b) in sides {
            one.extend(a.map(|a| (key(n), record(n, 2 * a, 1))));
            two.extend(b.map(|b| (key(n), record(n, 2 * b + 1, 2))));
        }
        let (mut a, mut b) = (Map::new(one.clone(), 1), Map::new(two.clone(), 1));
        a.horizon = Timestamp::saturating(horizons.0);
        b.horizon = Timestamp::saturating(horizons.1);
        let keys: std::collections::BTreeSet<_> = one.keys().chain(two.keys()).collect();
        let first = session_knowing(&mut a, &mut b, None);
        let mut held = 0;
        for key in keys {
            let (one, two) = (one.get(key), two.get(key));
            let (in_a, in_b) = (greatest(one, two, horizons.0), greatest(two, one, horizons.1));
            prop_assert_eq!(a.records.get(key), in_a, "{} in the initiator", key);
            prop_assert_eq!(b.records.get(key), in_b, "{} in the responder", key);
            held += u64::from(in_a != in_b);
        }
        // some that it noted as held may have been replaced later on
        prop_assert!(first.held.records >= held && first.told == first.held);
        // nothing goes over the wire a second time, be it an older record of a key that is held
        let second = session_knowing(&mut a, &mut b, first.difference);
        prop_assert_eq!(second.tally.records_sent + second.tally.records_received, 0);
        prop_assert_eq!((second.held.records, second.told), (held, second.held));
        prop_assert_eq!(second.difference.is_some(), held > 0);
        // and once that is known, only roots do
        let third = session_knowing(&mut a, &mut b, second.difference);
        prop_assert_eq!((third.rounds, third.held), (2, second.held));
        prop_assert_eq!(third.difference, second.difference);
        // when the time comes, an ordinary session merges all
        (a.horizon, b.horizon) = (Timestamp::saturating(20), Timestamp::saturating(20));
        let last = session_knowing(&mut a, &mut b, third.difference);
        prop_assert_eq!(&a.records, &b.records);
        prop_assert_eq!((last.held.records, last.difference), (0, None));
    }
}

#[test]
fn a_known_difference_is_looked_into_again_when_something_changes() {
    let far = |n: u32| (key(n), record(n, 9, 1));
    let one: BTreeMap<_, _> = (0..40).map(|n| (key(n), record(n, 1, 1))).collect();
    let (mut a, mut b) = (Map::new(one.clone(), 1), Map::new(one, 1));
    (a.horizon, b.horizon) = (Timestamp::saturating(9), Timestamp::saturating(5));
    a.apply(vec![far(7)]);
    let found = session_knowing(&mut a, &mut b, None);
    assert_eq!(found.held, HeldBack { records: 1, until: Timestamp::saturating(9) });
    let known = found.difference;
    assert_eq!(session_knowing(&mut a, &mut b, known).rounds, 2);
    assert_eq!(session_knowing(&mut b, &mut a, None).held, found.held, "from the other side, too");
    b.apply(vec![(key(50), record(50, 2, 2))]);
    let changed = session_knowing(&mut a, &mut b, known);
    assert_eq!((changed.tally.records_received, changed.held.records), (1, 1));
    assert_eq!(changed.difference, None, "it moved something, so the next one looks once more");
    let known = session_knowing(&mut a, &mut b, None).difference;
    a.horizon = Timestamp::saturating(4);
    assert_eq!(session_knowing(&mut a, &mut b, known).rounds, 2, "it holds back what b has not");
    b.horizon = Timestamp::saturating(9);
    session_knowing(&mut a, &mut b, known);
    assert!(a.records == b.records);
}

/// A clock that is set back during the session holds back what was sent by the horizon that it
/// told.
#[test]
fn a_horizon_that_falls_during_a_session_makes_its_side_hold_records_back() {
    let all: BTreeMap<_, _> = (0..30).map(|n| (key(n), record(n, 5, 1))).collect();
    for full_drives in [true, false] {
        let (mut full, mut empty) = (Map::new(all.clone(), 1), Map::new(BTreeMap::new(), 1));
        let (a, b) = if full_drives { (&mut full, &mut empty) } else { (&mut empty, &mut full) };
        let mut calls = 0;
        let meanwhile = &mut |a: &mut Map, b: &mut Map| {
            calls += 1;
            if calls == 3 {
                let side = if full_drives { b } else { a };
                side.horizon = Timestamp::saturating(4);
            }
        };
        let traffic = session_among(a, b, TINY, TINY, meanwhile);
        assert!(empty.records.is_empty() && traffic.held.records > 0, "{traffic:?}");
        assert_eq!(traffic.told, traffic.held);
        let unknown = Some(0).filter(|_| !full_drives);
        assert_eq!(traffic.held_from, unknown, "which came and were not taken, nobody notes");
    }
}

/// A newcomer sets aside what its source lacks: not even a record that the source would hold back
/// may be left out.
#[test]
fn a_side_that_only_receives_hands_out_all_that_the_other_lacks_however_far_ahead() {
    let one: BTreeMap<_, _> = (0..40).map(|n| (key(n), record(n, 1, 1))).collect();
    let (mut a, mut b) = (Map::new(one.clone(), 1), Map::new(one, 1));
    a.apply(vec![(key(50), record(50, 9, 1)), (key(51), record(51, 2, 1))]);
    b.apply(vec![(key(7), record(7, 9, 2))]);
    (a.horizon, b.horizon) = (Timestamp::saturating(5), Timestamp::saturating(5));
    let before = b.records.clone();
    let traffic = drive(&mut a, &mut b, Initiator::receiving(TINY), (TINY, TINY), &mut |_, _| {});
    let mut surplus = traffic.surplus;
    surplus.sort();
    assert_eq!(surplus, [key(7), key(50), key(51)], "that of key 7 is older than the one there");
    assert_eq!(traffic.held, HeldBack { records: 1, until: Timestamp::saturating(9) });
    assert_eq!(traffic.held_from, Some(9), "known from which time on it lacks anything");
    assert_eq!(traffic.difference, None, "what the other lacks was not looked for");
    assert!(b.records == before, "it gives nothing");
}
