//! What a node says of the past of a key.

use kvs::model::{Content, Header, Key, Record};
use kvs::store::{Outcome, Revision};

use super::asked::Moment;
use super::{Audit, told};

impl Audit {
    /// The node at `slot` holds `current` for a key, and gives these revisions of it.
    pub fn recalled(
        &mut self,
        slot: usize,
        key: &Key,
        current: Option<&Record>,
        revisions: &[Revision],
    ) {
        let first = revisions.first().map(|revision| &revision.header);
        if first != current.map(|record| &record.header) {
            let what = format!("the history of node {slot} begins with {first:?}");
            self.violated(Some(key), &what);
        }
        let most = self.rules.history_depth as usize + 1;
        if revisions.len() > most {
            let what = format!("node {slot} keeps {} revisions, not {most}", revisions.len());
            self.violated(Some(key), &what);
        }
        let mut newer: Option<&Header> = None;
        for revision in revisions {
            self.attribute(key, &revision.header);
            self.check_revision(slot, key, revision, newer);
            newer = Some(&revision.header);
            self.tally.revisions += 1;
        }
        self.tally.revisions -= revisions.len().min(1) as u64;
        self.check_complete(slot, key, revisions, most);
    }

    fn check_revision(&self, slot: usize, key: &Key, revision: &Revision, newer: Option<&Header>) {
        let header = &revision.header;
        let now = Moment::of(&self.clocks[slot]).now;
        let ended_by = |at| header.expires_at.is_some_and(|end| end <= at);
        let outcome = match newer {
            Some(newer) if ended_by(newer.version.timestamp) => Outcome::Expired,
            Some(_) => Outcome::Replaced,
            None if ended_by(now) => Outcome::Expired,
            // it may be over by the greatest time that the node has seen
            None if self.may_be_swept(slot, header) => revision.outcome,
            None => Outcome::Current,
        };
        let follows = newer.is_none_or(|newer| newer.version > header.version);
        let by = newer.map(|newer| newer.version.uuid);
        if outcome != revision.outcome || by != revision.by || !follows {
            let by = newer.map(told);
            let what = format!("node {slot} says {revision:?}, and after it came {by:?}");
            self.violated(Some(key), &what);
        }
        let is_whole = match &revision.body {
            Some(body) => Record { header: header.clone(), body: body.clone() }.is_whole(),
            None => header.content != Content::Tombstone && self.may_be_swept(slot, header),
        };
        if !is_whole {
            let what = format!("a revision of node {slot} has lost its bytes: {}", told(header));
            self.violated(Some(key), &what);
        }
    }

    /// Nothing is left out of what the node is known to have held, but what is older than the
    /// oldest of as many as it is to keep.
    fn check_complete(&self, slot: usize, key: &Key, revisions: &[Revision], most: usize) {
        let held = self.held.get(&(slot, key.clone()));
        let oldest = revisions.last().filter(|_| revisions.len() == most);
        let listed = |version| revisions.iter().any(|r| r.header.version == version);
        for version in held.into_iter().flatten() {
            let is_younger = oldest.is_none_or(|oldest| *version > oldest.header.version);
            if is_younger && !listed(*version) {
                let what = format!("the history of node {slot} leaves out {version:?}");
                self.violated(Some(key), &what);
            }
        }
    }
}
