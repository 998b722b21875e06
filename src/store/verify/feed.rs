//! The feed's window: positions without a gap, and each key's latest change is what it has now.

use std::collections::HashMap;
use std::ops::ControlFlow;

use super::meta::MetaEntries;
use super::{Check, problem_of};
use crate::model::Key;
use crate::proto::stability::Floor;
use crate::proto::stability::floor::may_go;
use crate::store::ReadError;
use crate::store::disk::engine::{EngineError, Family};
use crate::store::disk::layout::{self, Body, Stored};
use crate::store::feed::{Cause, FeedEntry, block_entries};

const FOLLOWERS: &str = "whoever follows the changes of this node must read the keys anew; the \
                         records are not concerned";

/// Of each key, by a hash, the position of its latest change. Where two keys share a hash, the
/// earlier change is not compared.
type LatestChanges = HashMap<u64, u64>;

impl Check<'_> {
    /// Verifies the window; against the single values.
    pub(super) fn feed(&mut self, meta: &MetaEntries) -> Result<(), EngineError> {
        let begin = meta.epoch;
        let mut latest = LatestChanges::new();
        let mut next: Option<u64> = None;
        self.each_block(|check, first, entries| {
            check.count();
            if let Some(next) = next.filter(|next| *next != first) {
                let problem = format!("the changes from {next} to before {first} are missing");
                check.found(Family::Feed, &first.to_string(), problem, FOLLOWERS);
            }
            let entries = entries.unwrap_or_else(|error| {
                check.found(Family::Feed, &first.to_string(), problem_of(&error), FOLLOWERS);
                Vec::new()
            });
            next = entries.last().map(|entry| entry.position + 1);
            for entry in &entries {
                check.done.changes += 1;
                if !matches!(entry.cause, Cause::Superseded { .. }) {
                    latest.insert(hash(&entry.key), entry.position);
                }
            }
            Ok(())
        })?;
        if let (Some(next), Some(begin)) = (next, begin)
            && next < begin
        {
            let problem = format!("the epoch begins at {begin}, behind the last change");
            self.found(Family::Feed, "", problem, FOLLOWERS);
        }
        let floor = meta.ledger.as_ref().map_or(Floor::default(), |ledger| ledger.floor);
        self.each_block(|check, _, entries| {
            for entry in entries.unwrap_or_default() {
                // what was changed in an earlier epoch may have been set aside at its end
                let counts = begin.is_none_or(|begin| entry.position >= begin);
                if counts && latest.get(&hash(&entry.key)) == Some(&entry.position) {
                    check.latest_change(&entry, floor, meta.has_set_aside)?;
                }
            }
            Ok(())
        })
    }

    /// Visits the blocks of the window, with the position of the first change of each.
    fn each_block(
        &mut self,
        mut visit: impl FnMut(
            &mut Self,
            u64,
            Result<Vec<FeedEntry>, ReadError>,
        ) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let (engine, mut failed) = (self.engine, Ok(()));
        engine.scan(Family::Feed, &[], None, &mut |key, value| {
            let entries = block_entries(key, value).map(Iterator::collect);
            failed = visit(self, layout::feed_position(key).unwrap_or_default(), entries);
            if failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        failed
    }

    /// Verifies that the latest change of a key in the window is what the key has now.
    fn latest_change(
        &mut self,
        entry: &FeedEntry,
        floor: Floor,
        has_set_aside: bool,
    ) -> Result<(), EngineError> {
        let FeedEntry { key, header, cause, position, .. } = entry;
        let raw = self.engine.get(Family::Records, key.as_bytes())?;
        let problem = match raw.map(|raw| Stored::decode_for(key.as_bytes(), &raw)) {
            // it was collected, or set aside
            None if has_set_aside || may_go(header, floor) => return Ok(()),
            None => "is of a record that is not there",
            Some(Ok(stored)) if stored.header != *header => "is not what the key has now",
            Some(Ok(stored)) if *cause == Cause::Expiry && stored.body != Body::Swept => {
                "says that the value was swept, and it was not"
            }
            // one that cannot be decoded is named with the records
            Some(_) => return Ok(()),
        };
        let problem = format!("change {position}, the last of this key, {problem}");
        self.found(Family::Feed, key.as_str(), problem, FOLLOWERS);
        Ok(())
    }
}

fn hash(key: &Key) -> u64 {
    let hash = blake3::hash(key.as_bytes());
    hash.as_bytes().first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
