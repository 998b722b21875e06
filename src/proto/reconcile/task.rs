//! The tasks of a session's initiator: differences that it still has to settle; see
//! [`reconcile`](super).

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::replica::{Listed, Replica, SessionError, SessionLimits};
use crate::model::{Key, Timestamp};
use crate::proto::digest::ShortId;
use crate::proto::wire::{Mode, Range, Wanted, Withheld};

/// How many records that are left out a wanted range names. Of more, a few records may travel in
/// vain.
pub(super) const WITHHELD_MAX: usize = 4096;

/// A difference to settle.
#[derive(Clone, Debug)]
pub(super) enum Task {
    /// Have the responder cut a range at a level.
    Cut(Range, u8),
    /// Receive records. `mine` are the keys of the listed ids, in their order, when this side
    /// listed them; else it is empty.
    Want { wanted: Wanted, mine: Vec<Key> },
    /// Receive all records of a range that this side lacks: the responder has replaced some of
    /// those that it listed.
    WantOthers(Range),
    /// Give the records of these keys, except those that the responder has sent itself: their short
    /// ids stand beside the keys.
    Give(Vec<(Key, Option<ShortId>)>),
    /// Give all records of a range except those with these ids.
    GiveAllBut(Range, BTreeSet<ShortId>),
}

impl Task {
    /// Checks what holds for a task of a session with these limits.
    ///
    /// # Panics
    /// When it does not: a bug.
    pub(super) fn check_invariants(&self, limits: &SessionLimits) {
        let Self::Want { wanted, mine } = self else { return };
        if wanted.mode == Mode::Only {
            assert!(mine.is_empty(), "a want of the responder's ids names keys of this side");
        } else {
            assert_eq!(wanted.ids.len(), mine.len(), "an id stands for each key");
            assert!(mine.len() <= limits.ids_max, "a want lists too many ids");
            assert!(mine.is_sorted_by(|a, b| a < b), "the keys of a want are in order");
        }
        let most = WITHHELD_MAX.max(limits.ids_max);
        assert!(wanted.withheld.len() <= most, "a want names too many keys");
    }
}

/// Lists this side's records of a range, and wants all others: at least one task. `horizon` is the
/// responder's.
pub(super) fn want_others<R: Replica>(
    replica: &R,
    range: Range,
    limits: &SessionLimits,
    horizon: Timestamp,
) -> Result<Vec<Task>, SessionError<R::Error>> {
    let mut tasks = Vec::new();
    let mut mine: Vec<(Bytes, ShortId)> = Vec::new();
    let mut withheld = Vec::new();
    let walk = &mut |listed: Listed<'_>| {
        mine.push((Bytes::copy_from_slice(listed.key), listed.id));
        withheld.extend(withhold(&listed, horizon));
        ControlFlow::Continue(())
    };
    replica.list(&range.from, range.to.as_deref(), walk).map_err(SessionError::Store)?;
    let mut chunks: Vec<_> = mine.chunks(limits.ids_max).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    let mut end = range.to;
    for (at, chunk) in chunks.iter().enumerate().rev() {
        let start = chunk.first().map(|(key, _)| key.clone());
        let from = if at == 0 { range.from.clone() } else { start.unwrap_or_default() };
        let before = |withheld: &Withheld| *withheld.key.as_bytes() < *from;
        let withheld = withheld.split_off(withheld.partition_point(before));
        let range = Range { from: from.clone(), to: end.replace(from) };
        let ids = chunk.iter().map(|(_, id)| *id).collect();
        let keys: Result<Vec<_>, _> = chunk.iter().map(|(k, _)| Key::from_bytes(k)).collect();
        let mine = keys.map_err(|e| SessionError::Malformed(e.to_string()))?;
        let wanted = Wanted { range, ids, mode: Mode::AllBut, withheld };
        tasks.push(Task::Want { wanted, mine });
    }
    Ok(tasks)
}

/// What stands for a listed record that the responder, with this `horizon`, would hold back.
pub(super) fn withhold(listed: &Listed<'_>, horizon: Timestamp) -> Option<Withheld> {
    let key = Key::from_bytes(listed.key).ok().filter(|_| listed.due > horizon)?;
    Some(Withheld { key, timestamp: listed.timestamp, due: listed.due })
}

/// The rest of a wanted range, from the key at which the response stopped after it gave the records
/// with the ids `given`.
pub(super) fn rest_of(
    wanted: &Wanted,
    mine: &[Key],
    from: Bytes,
    given: &BTreeSet<ShortId>,
) -> Task {
    let mode = if wanted.mode == Mode::AllBut { Mode::AllButAgain } else { wanted.mode };
    let (mut ids, mut keys) = (wanted.ids.clone(), Vec::new());
    if mode == Mode::Only {
        ids.retain(|id| !given.contains(id));
    } else {
        // The ids before that key have been answered.
        let done = mine.iter().take_while(|key| *key.as_bytes() < *from).count();
        ids.drain(..done.min(ids.len()));
        keys.extend(mine.iter().skip(done).cloned());
    }
    let mut withheld = wanted.withheld.clone();
    withheld.retain(|withheld| *withheld.key.as_bytes() >= *from);
    let range = Range { from, to: wanted.range.to.clone() };
    Task::Want { wanted: Wanted { range, ids, mode, withheld }, mine: keys }
}
