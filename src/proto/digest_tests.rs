//! The digest against a plain map: every sum and every cut, after any order of changes.

use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

type Records = BTreeMap<Box<[u8]>, RecordHash>;

fn element_key() -> ElementKey {
    ElementKey::with_level_bits(&[7; 32], 1)
}

fn naive(held: &Records, from: &[u8], to: Option<&[u8]>) -> Sum {
    let key = element_key();
    let mut sum = Sum::default();
    for (k, hash) in held {
        if **k >= *from && to.is_none_or(|to| **k < *to) {
            sum.add(&key.element(k, hash));
        }
    }
    sum
}

fn build(held: &Records) -> Digest {
    let mut digest = Digest::new(element_key());
    for (key, hash) in held {
        let element = digest.element(key, hash);
        digest.append(key, &element);
    }
    digest
}

/// Applies a group of writes and removals to the map first and then to the digest, as the writer
/// does; removing what is not held changes nothing.
fn write(digest: &mut Digest, held: &mut Records, group: &[(u8, Option<u8>)]) {
    let mut deltas: BTreeMap<Box<[u8]>, Delta> = BTreeMap::new();
    for (key, value) in group {
        let key: Box<[u8]> = Box::from([b'k', *key]);
        let old = match value {
            Some(value) => held.insert(key.clone(), [*value; 32]),
            None => held.remove(&key),
        };
        let old = old.map(|old| digest.element(&key, &old));
        let new = value.map(|value| digest.element(&key, &[value; 32]));
        deltas.entry(key.clone()).or_insert(Delta { key, old, new }).new = new;
    }
    let mut deltas: Vec<_> = deltas.into_values().collect();
    deltas.retain(|delta| delta.old.is_some() || delta.new.is_some());
    let applied = digest.apply::<Infallible>(&deltas, &mut |from, to| Ok(naive(held, from, to)));
    assert_eq!(applied, Ok(()));
}

type Group = Vec<(u8, Option<u8>)>;

fn groups() -> impl Strategy<Value = Vec<Group>> {
    let write = (0..60_u8, proptest::option::weighted(0.6, 0..4_u8));
    proptest::collection::vec(proptest::collection::vec(write, 1..12), 1..20)
}

proptest! {
    #[test]
    fn every_range_has_the_sum_of_its_records(
        groups in groups(), from in 0..60_u8, to in proptest::option::of(0..60_u8)
    ) {
        let (mut digest, mut held) = (Digest::new(element_key()), Records::new());
        for group in &groups {
            write(&mut digest, &mut held, group);
            digest.check_invariants();
        }
        let from = [b'k', from];
        let to = to.map(|to| [b'k', to]);
        let to = to.as_ref().map(|to| &to[..]);
        let mut read = |from: &[u8], to: Option<&[u8]>| {
            assert_eq!(digest.boundaries(1, from, to, 1), 0, "a read spans more than one leaf");
            Ok::<_, Infallible>(naive(&held, from, to))
        };
        prop_assert_eq!(digest.sum(&from, to, &mut read), Ok(naive(&held, &from, to)));
        for level in 1..=digest.height() + 1 {
            let pieces = digest.pieces(level, &from, to, &mut read).unwrap();
            let mut total = Sum::default();
            for (at, (start, sum)) in pieces.iter().enumerate() {
                let end = pieces.get(at + 1).map(|(start, _)| &**start).or(to);
                prop_assert_eq!(sum, &naive(&held, start, end));
                total.add_sum(sum);
            }
            prop_assert_eq!(total, naive(&held, &from, to));
        }
    }

    #[test]
    fn changes_lead_to_the_digest_of_a_scan(groups in groups()) {
        let (mut digest, mut held) = (Digest::new(element_key()), Records::new());
        for group in &groups {
            write(&mut digest, &mut held, group);
            let rebuilt = build(&held);
            rebuilt.check_invariants();
            digest.check_against(&rebuilt);
        }
    }

    #[test]
    fn a_digest_that_all_records_left_is_empty(groups in groups()) {
        let (mut digest, mut held) = (Digest::new(element_key()), Records::new());
        for group in &groups {
            write(&mut digest, &mut held, group);
        }
        let all: Group = (0..60).map(|key| (key, None)).collect();
        write(&mut digest, &mut held, &all);
        prop_assert_eq!((digest.root(), digest.height()), (Sum::default(), 0));
    }
}

/// A digest of 60 records with at least three levels.
fn sixty() -> Digest {
    let (mut digest, mut held) = (Digest::new(element_key()), Records::new());
    let group: Group = (0..60).map(|key| (key, Some(key))).collect();
    write(&mut digest, &mut held, &group);
    assert!(digest.height() >= 3);
    digest
}

#[test]
#[should_panic(expected = "not the sum of its parts")]
fn a_wrong_inner_sum_is_noticed_though_the_root_is_right() {
    let mut digest = sixty();
    let element = digest.element(b"k", &[0; 32]);
    let mut large = digest.levels[1].values_mut().filter(|sum| sum.count > 1);
    large.next().unwrap().add(&element);
    large.next().unwrap().remove(&element);
    digest.check_invariants();
}

#[test]
#[should_panic(expected = "cuts where the level below does not")]
fn a_boundary_that_the_level_below_lacks_is_noticed() {
    let mut digest = sixty();
    let start = digest.levels[1].keys().nth(1).unwrap().clone();
    let rest = digest.levels[0].remove(&start).unwrap();
    block_of(&mut digest.levels[0], &start).add_sum(&rest);
    digest.check_invariants();
}

#[test]
#[should_panic(expected = "not those of the records")]
fn a_key_that_starts_no_block_is_noticed_by_a_scan() {
    let mut digest = sixty();
    let higher = digest.levels[1].clone();
    let start = digest.levels[0].keys().find(|start| !higher.contains_key(*start));
    let start = start.unwrap().clone();
    let rest = digest.levels[0].remove(&start).unwrap();
    block_of(&mut digest.levels[0], &start).add_sum(&rest);
    digest.check_invariants();
    digest.check_against(&sixty());
}

fn apply_to_sixty(deltas: &[Delta]) {
    let _ = sixty().apply::<Infallible>(deltas, &mut |_, _| Ok(Sum::default()));
}

#[test]
#[should_panic(expected = "changes nothing")]
fn a_delta_without_old_and_new_is_a_bug() {
    apply_to_sixty(&[Delta { key: (*b"k").into(), old: None, new: None }]);
}

#[test]
#[should_panic(expected = "two deltas change one key")]
fn two_deltas_of_one_key_are_a_bug() {
    let delta = Delta { key: (*b"k").into(), old: None, new: Some(Element([0; 32])) };
    apply_to_sixty(&[delta.clone(), delta]);
}

#[test]
#[should_panic(expected = "the digest holds already")]
fn a_boundary_that_joins_twice_is_a_bug() {
    let mut digest = sixty();
    let key = digest.levels[0].keys().nth(1).unwrap().clone();
    let new = Some(digest.element(&key, &[9; 32]));
    let _ = digest
        .apply::<Infallible>(&[Delta { key, old: None, new }], &mut |_, _| Ok(Sum::default()));
}

#[test]
#[should_panic(expected = "the count of a sum wraps")]
fn a_record_that_leaves_an_empty_digest_is_a_bug() {
    let mut digest = Digest::new(element_key());
    let old = Some(Element([1; 32]));
    let delta = Delta { key: (*b"k").into(), old, new: None };
    let _ = digest.apply::<Infallible>(&[delta], &mut |_, _| Ok(Sum::default()));
}

#[test]
fn sums_carry_over_all_words() {
    let (mut sum, one) = (Sum::default(), Element([0xff; 32]));
    sum.add(&one);
    sum.add(&one);
    assert_eq!(sum.words, [u64::MAX - 1, u64::MAX, u64::MAX, u64::MAX]);
    sum.remove(&one);
    sum.remove(&one);
    assert_eq!(sum, Sum::default());
}

#[test]
fn the_hashes_are_pinned() {
    let key = ElementKey::new(&[1; 32]);
    let element = key.element(b"app/x", &[2; 32]);
    let place = key.place(b"app/x");
    let mut sum = Sum::default();
    sum.add(&element);
    let pinned = format!(
        "{:02x?} {} {} {}",
        element.short(),
        place.level,
        place.short,
        blake3::Hash::from(sum.fingerprint()).to_hex()
    );
    assert_eq!(pinned, GOLDEN, "a change of these hashes splits every mixed cluster");
}

const GOLDEN: &str = "[ba, 1b, 07, 11, ac, e2, 27, 42] 0 2435952179 \
    29aefcd96e290f1300ae9fc3f86234002afd7d885268a7cbeb60ccad3d876130";
