//! Compares the blocks of both sides over one range; see [`reconcile`](super).

use bytes::Bytes;

use super::replica::Replica;
use crate::proto::digest::{Piece, Sum};
use crate::proto::wire::{Child, Range};

/// A range that differs, and how many records each side holds there.
pub(super) struct Differing {
    pub(super) range: Range,
    /// How many records this side holds there.
    pub(super) mine: u64,
    /// How many records the responder claims to hold there: any number, as it comes from outside.
    pub(super) theirs: u64,
}

/// Matches the boundaries of both sides, and returns the ranges between common ones that differ.
/// Two keys with one short name cannot lose a record: they only make ranges differ.
pub(super) fn align<R: Replica>(
    replica: &R,
    range: &Range,
    mine: &[Piece],
    theirs: &[Child],
) -> Vec<Differing> {
    let names: Vec<u32> = mine.iter().map(|(start, _)| replica.place(start).short).collect();
    let mut differing = Vec::new();
    let (mut at_mine, mut at_theirs) = (0, 0);
    let mut from = range.from.clone();
    while at_mine < mine.len() || at_theirs < theirs.len() {
        // The next boundary that both sides have.
        let (mut end_mine, mut end_theirs) = (mine.len(), theirs.len());
        for (at, child) in theirs.iter().enumerate().skip(at_theirs + 1) {
            let ahead = names.iter().enumerate().skip(at_mine + 1);
            if let Some((found, _)) = ahead.into_iter().find(|(_, name)| **name == child.short) {
                (end_mine, end_theirs) = (found, at);
                break;
            }
        }
        let mut sum = Sum::default();
        mine.iter().take(end_mine).skip(at_mine).for_each(|(_, piece)| sum.add_sum(piece));
        // These come from the wire: a sum wraps as sums do, and a count that saturates differs.
        let (mut low, mut count) = (0_u128, 0_u64);
        for child in theirs.iter().take(end_theirs).skip(at_theirs) {
            low = low.wrapping_add(u128::from_le_bytes(child.low));
            count = count.saturating_add(child.count);
        }
        let end = mine.get(end_mine).map(|(start, _)| Bytes::copy_from_slice(start));
        if sum.low() != low || sum.count != count {
            let to = end.clone().or_else(|| range.to.clone());
            differing.push(Differing {
                range: Range { from: from.clone(), to },
                mine: sum.count,
                theirs: count,
            });
        }
        (at_mine, at_theirs) = (end_mine, end_theirs);
        from = end.unwrap_or_default();
    }
    differing
}
