//! The conflict rule: which of two records of one key stays.
//!
//! Commutative, associative and idempotent, so that nodes agree whatever the order, repetition or
//! path in which records reach them (a join semilattice; Shapiro et al., "Conflict-free Replicated
//! Data Types", 2011).

use std::cmp::Ordering;

use super::Header;

/// What becomes of the record that is held when another one comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// The two are one and the same record.
    Same,
    /// The held record stays.
    Kept,
    /// The incoming record takes its place.
    Replaced,
}

/// Compares by the contract's order: version, then record hash. Equal means the same record.
#[must_use]
pub fn order(a: &Header, b: &Header) -> Ordering {
    a.version.cmp(&b.version).then_with(|| a.hash().cmp(&b.hash()))
}

/// Decides between the held record and an incoming one.
#[must_use]
pub fn merge(held: Option<&Header>, incoming: &Header) -> Merged {
    match held.map(|held| order(held, incoming)) {
        None | Some(Ordering::Less) => Merged::Replaced,
        Some(Ordering::Equal) => Merged::Same,
        Some(Ordering::Greater) => Merged::Kept,
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::any_header;
    use super::*;
    use proptest::prelude::*;

    fn join(a: &Header, b: &Header) -> Header {
        match merge(Some(a), b) {
            Merged::Replaced => b.clone(),
            Merged::Same | Merged::Kept => a.clone(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn merging_is_commutative(a in any_header(), b in any_header()) {
            prop_assert_eq!(join(&a, &b), join(&b, &a));
        }

        #[test]
        fn merging_is_associative(a in any_header(), b in any_header(), c in any_header()) {
            prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
        }

        #[test]
        fn merging_is_idempotent(a in any_header()) {
            prop_assert_eq!(merge(Some(&a), &a), Merged::Same);
            prop_assert_eq!(join(&a, &a), a);
        }

        #[test]
        fn the_greater_version_always_stays(a in any_header(), b in any_header()) {
            prop_assert_eq!(join(&a, &b).version, a.version.max(b.version));
        }

        #[test]
        fn different_records_never_count_as_the_same(a in any_header(), b in any_header()) {
            prop_assert_eq!(merge(Some(&a), &b) == Merged::Same, a == b);
        }
    }
}
