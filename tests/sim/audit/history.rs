//! Checks what a node shows of the history of a key.

use kvs::model::{Content, Header, Key, Record};
use kvs::store::{Outcome, Revision};

use super::asked::Moment;
use super::{Audit, described};

impl Audit {
    /// Checks that the node at `slot` holds `current` for a key and shows these revisions.
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
            let what = format!("node {slot} stores {} revisions, not {most}", revisions.len());
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
        let is_lost = self.is_reported(slot, key, header.version);
        let outcome = match newer {
            Some(_) if is_lost => Outcome::Superseded,
            Some(newer) if ended_by(newer.version.timestamp) => Outcome::Expired,
            Some(_) => Outcome::Replaced,
            None if ended_by(now) => Outcome::Expired,
            // It can have expired by the greatest time that the node has seen.
            None if self.may_be_swept(slot, header) => revision.outcome,
            None => Outcome::Current,
        };
        let follows = newer.is_none_or(|newer| newer.version > header.version);
        let by = newer.map(|newer| newer.version.uuid);
        if outcome != revision.outcome || by != revision.by || !follows {
            let by = newer.map(described);
            let what = format!("node {slot} shows {revision:?}, but {by:?} followed it");
            self.violated(Some(key), &what);
        }
        let is_whole = match &revision.body {
            Some(body) => Record { header: header.clone(), body: body.clone() }.is_whole(),
            None => header.content != Content::Tombstone && self.may_be_swept(slot, header),
        };
        if !is_whole {
            let what =
                format!("a revision of node {slot} has lost its bytes: {}", described(header));
            self.violated(Some(key), &what);
        }
    }

    /// Checks that nothing is missing that the node is known to have held, except what is older
    /// than the oldest of a full list.
    fn check_complete(&self, slot: usize, key: &Key, revisions: &[Revision], most: usize) {
        let held = self.held.get(&(slot, key.clone()));
        let oldest = revisions.last().filter(|_| revisions.len() == most);
        // what the floor has passed went with all that was kept of its key
        let gone = self.gone(slot, key);
        let listed = |version| revisions.iter().any(|r| r.header.version == version);
        for version in held.into_iter().flatten() {
            let is_younger = oldest.is_none_or(|oldest| *version > oldest.header.version);
            // it can be seen for a moment more after the node said so
            let is_aside = self.is_set_aside(slot, key, *version);
            if is_younger && gone < Some(*version) && !is_aside && !listed(*version) {
                let what = format!("the history of node {slot} leaves out {version:?}");
                self.violated(Some(key), &what);
            }
        }
    }
}
