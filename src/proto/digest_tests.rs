//! The digest against a plain map: every sum, every cut, whatever the order of changes.

use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

type Held = BTreeMap<Box<[u8]>, RecordHash>;

fn element_key() -> ElementKey {
    ElementKey::with_level_bits(&[7; 32], 1)
}

fn naive(held: &Held, from: &[u8], to: Option<&[u8]>) -> Sum {
    let key = element_key();
    let mut sum = Sum::default();
    for (k, hash) in held {
        if **k >= *from && to.is_none_or(|to| **k < *to) {
            sum.add(&key.element(k, hash));
        }
    }
    sum
}

fn build(held: &Held) -> Digest {
    let mut digest = Digest::new(element_key());
    for (key, hash) in held {
        let element = digest.element(key, hash);
        digest.append(key, &element);
    }
    digest
}

/// Applies a group of writes to the map first and then to the digest, as the writer does.
fn write(digest: &mut Digest, held: &mut Held, group: &[(u8, u8)]) {
    let mut deltas: BTreeMap<Box<[u8]>, Delta> = BTreeMap::new();
    for (key, value) in group {
        let (key, hash): (Box<[u8]>, _) = (Box::from([b'k', *key]), [*value; 32]);
        let new = digest.element(&key, &hash);
        let old = held.insert(key.clone(), hash).map(|old| digest.element(&key, &old));
        deltas.entry(key.clone()).or_insert(Delta { key, old, new }).new = new;
    }
    let deltas: Vec<_> = deltas.into_values().collect();
    let applied = digest.apply::<Infallible>(&deltas, &mut |from, to| Ok(naive(held, from, to)));
    assert_eq!(applied, Ok(()));
}

fn groups() -> impl Strategy<Value = Vec<Vec<(u8, u8)>>> {
    proptest::collection::vec(proptest::collection::vec((0..60_u8, 0..4_u8), 1..12), 1..20)
}

proptest! {
    #[test]
    fn every_range_has_the_sum_of_its_records(
        groups in groups(), from in 0..60_u8, to in proptest::option::of(0..60_u8)
    ) {
        let (mut digest, mut held) = (Digest::new(element_key()), Held::new());
        for group in &groups {
            write(&mut digest, &mut held, group);
            digest.check_invariants();
        }
        let from = [b'k', from];
        let to = to.map(|to| [b'k', to]);
        let to = to.as_ref().map(|to| &to[..]);
        let mut read = |from: &[u8], to: Option<&[u8]>| {
            assert_eq!(digest.boundaries(1, from, to, 1), 0, "more than one leaf is read");
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
    fn the_order_of_writes_leaves_no_trace(groups in groups()) {
        let (mut digest, mut held) = (Digest::new(element_key()), Held::new());
        for group in &groups {
            write(&mut digest, &mut held, group);
        }
        let rebuilt = build(&held);
        rebuilt.check_invariants();
        prop_assert_eq!(rebuilt.root(), digest.root());
        let (a, b) = (rebuilt.levels.iter(), digest.levels.iter());
        prop_assert!(a.zip(b).all(|(a, b)| a == b));
    }
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
