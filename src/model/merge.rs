//! The conflict rule: which of two records of one key stays.
//!
//! Commutative, associative and idempotent, so that nodes agree although records reach them in
//! different orders, on different paths and more than once (a join semilattice; Shapiro et al.,
//! "Conflict-free Replicated Data Types", 2011). Must not know clocks: an expired record wins or
//! loses like any other.

use std::cmp::Ordering;

use super::Header;

/// The result of merging an incoming record into the one that a node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// The two are the same record.
    Same,
    /// The held record wins and stays.
    Kept,
    /// The incoming record wins and replaces the held one, if there is one.
    Replaced,
}

/// The contract's order of two records of one key: by version, then by record hash. Equal records
/// are the same.
#[must_use]
pub fn order(a: &Header, b: &Header) -> Ordering {
    a.version.cmp(&b.version).then_with(|| a.hash().cmp(&b.hash()))
}

/// Decides between the record that a node holds for a key, if any, and an incoming one.
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
        fn only_equal_records_count_as_the_same(a in any_header(), b in any_header()) {
            prop_assert_eq!(merge(Some(&a), &b) == Merged::Same, a == b);
        }
    }
}
