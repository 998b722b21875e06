//! What the driver of a session still has to settle; see [`reconcile`](super::reconcile).

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::digest::ShortId;
use super::reconcile::{Limits, Listed, Replica, SessionError};
use super::wire::{Mode, Range, Wanted};
use crate::model::Key;

/// Something that differs.
#[derive(Clone, Debug)]
pub(super) enum Task {
    /// A range to be cut at a level.
    Cut(Range, u8),
    /// Records to be had. `mine`: the keys of the listed ids, where they were listed by this side.
    Want { wanted: Wanted, mine: Vec<Key> },
    /// Records to be given, unless what the other side sent for the key has won: its short id.
    Give(Vec<(Key, Option<ShortId>)>),
    /// Everything of a range to be given but these.
    GiveAllBut(Range, BTreeSet<ShortId>),
}

/// Lists this side's records of a range, and wants all others.
pub(super) fn want_others<R: Replica>(
    replica: &R,
    range: Range,
    limits: &Limits,
) -> Result<Vec<Task>, SessionError<R::Error>> {
    let mut tasks = Vec::new();
    let mut mine: Vec<(Bytes, ShortId)> = Vec::new();
    let walk = &mut |listed: Listed<'_>| {
        mine.push((Bytes::copy_from_slice(listed.key), listed.id));
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
        let range = Range { from: from.clone(), to: end.replace(from) };
        let ids = chunk.iter().map(|(_, id)| *id).collect();
        let keys: Result<Vec<_>, _> = chunk.iter().map(|(k, _)| Key::from_bytes(k)).collect();
        let mine = keys.map_err(|e| SessionError::Malformed(e.to_string()))?;
        let wanted = Wanted { range, ids, mode: Mode::AllBut };
        tasks.push(Task::Want { wanted, mine });
    }
    Ok(tasks)
}

/// The rest of a wanted range from where the answer stopped.
pub(super) fn rest_of(wanted: &Wanted, mine: &[Key], from: Bytes) -> Task {
    let mode = if wanted.mode == Mode::AllBut { Mode::AllButAgain } else { wanted.mode };
    let (mut ids, mut keys) = (wanted.ids.clone(), Vec::new());
    if mode != Mode::Only {
        // the ids before that point have done their work
        let done = mine.iter().take_while(|key| *key.as_bytes() < *from).count();
        ids.drain(..done.min(ids.len()));
        keys.extend(mine.iter().skip(done).cloned());
    }
    let range = Range { from, to: wanted.range.to.clone() };
    Task::Want { wanted: Wanted { range, ids, mode }, mine: keys }
}
