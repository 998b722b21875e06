//! Who wrote which record: each one that is shown must come from a request.

use std::collections::BTreeSet;

use kvs::model::seen::Knew;
use kvs::model::{Content, Header, Key, Version};
use kvs::store::Lifetime;
use uuid::Uuid;

use super::asked::{Attempt, lifetime_of};
use super::{Audit, Known, described};

impl Audit {
    /// Checks that a client asked for the shown record.
    pub(super) fn attribute(&mut self, key: &Key, header: &Header) {
        if let Some(known) = self.records.get(&(key.clone(), header.version)) {
            if known.header != *header {
                let what = format!("{} was {} before", described(header), described(&known.header));
                self.violated(Some(key), &what);
            }
            return;
        }
        self.find_maker(key, header, &mut BTreeSet::new());
    }

    /// Finds the attempt that wrote a record that was not seen before. One delete looks like
    /// another, so an attempt may have to return a record that was attributed to it; `tried` has
    /// done so already.
    fn find_maker(&mut self, key: &Key, header: &Header, tried: &mut BTreeSet<u64>) {
        let Some(number) = self.maker(key, header, tried) else {
            self.violated(Some(key), &format!("{} comes from no request", described(header)))
        };
        tried.insert(number);
        let mistaken = self.name(number, key, header);
        self.give(number, key, header);
        for (key, header) in mistaken {
            self.find_maker(&key, &header, tried);
        }
    }

    fn maker(&self, key: &Key, header: &Header, tried: &BTreeSet<u64>) -> Option<u64> {
        let fits = |number: &&u64, guessed: bool| {
            let attempt = self.attempts.get(number);
            attempt.is_some_and(|attempt| attempt.can_have_made(key, header, guessed))
        };
        let named = self.by_uuid.get(&header.version.uuid);
        let named = named.and_then(|numbers| numbers.iter().rev().find(|n| fits(n, false)));
        let free = || self.open.iter().find(|number| fits(number, false));
        let guessed = || self.open.iter().find(|n| !tried.contains(n) && fits(n, true));
        named.or_else(free).or_else(guessed).copied()
    }

    /// Attributes a record to the attempt that has its uuid; returns what was attributed to that
    /// attempt by mistake.
    fn name(&mut self, number: u64, key: &Key, header: &Header) -> Vec<(Key, Header)> {
        let uuid = header.version.uuid;
        let is_value = header.content != Content::Tombstone;
        let Some(attempt) = self.attempts.get_mut(&number) else { return Vec::new() };
        let renamed = attempt.uuid != Some(uuid);
        let mistaken: Vec<_> = attempt
            .pieces
            .iter()
            .filter(|(at, _)| renamed || *at == key)
            .map(|(key, version)| (key.clone(), *version))
            .collect();
        attempt.is_sure |= is_value;
        if renamed {
            let before = attempt.uuid.replace(uuid);
            self.unname(number, before);
            self.by_uuid.entry(uuid).or_default().push(number);
        }
        self.take_back(number, mistaken)
    }

    fn unname(&mut self, number: u64, uuid: Option<Uuid>) {
        if let Some(numbers) = uuid.and_then(|uuid| self.by_uuid.get_mut(&uuid)) {
            numbers.retain(|of| *of != number);
        }
    }

    /// Takes these records away from the attempt `number`; returns them.
    fn take_back(&mut self, number: u64, names: Vec<(Key, Version)>) -> Vec<(Key, Header)> {
        let mut taken = Vec::new();
        for (key, version) in names {
            if let Some(attempt) = self.attempts.get_mut(&number) {
                attempt.pieces.remove(&key);
            }
            if let Some(same) = self.versions.get_mut(&(key.clone(), version.uuid)) {
                same.retain(|of| *of != version);
            }
            if let Some(known) = self.records.remove(&(key.clone(), version)) {
                taken.push((key, known.header));
            }
        }
        taken
    }

    /// Attributes a record to `number`, and takes it away from the attempt that had it before.
    pub(super) fn give(&mut self, number: u64, key: &Key, header: &Header) {
        let name = (key.clone(), header.version);
        let before = self.records.get(&name).map(|known| known.owner);
        if let Some(known) = self.records.get(&name)
            && known.header != *header
        {
            self.violated(Some(key), "a record differs from the one acknowledged");
        }
        if let Some(other) = before.filter(|other| *other != number)
            && let Some(attempt) = self.attempts.get_mut(&other)
        {
            attempt.pieces.remove(key);
            if attempt.pieces.is_empty() && !attempt.is_sure {
                let uuid = attempt.uuid.take();
                self.unname(other, uuid);
            }
        }
        let Some(attempt) = self.attempts.get_mut(&number) else { return };
        attempt.pieces.insert(key.clone(), header.version);
        let acked = attempt.branch.is_some();
        self.records.insert(name, Known { header: header.clone(), owner: number, acked });
        if before.is_none() {
            self.versions
                .entry((key.clone(), header.version.uuid))
                .or_default()
                .push(header.version);
            self.check_made(number, key, header);
        }
    }

    /// The attempt is decided and wrote exactly this: other records that were attributed to it
    /// belong to other attempts.
    pub(super) fn settle(&mut self, number: u64, made: &[(Key, Header)]) {
        let Some(attempt) = self.attempts.get(&number) else { return };
        let is_made = |key: &Key, version: &Version| {
            made.iter().any(|(at, header)| at == key && header.version == *version)
        };
        let others = attempt.pieces.iter().filter(|(key, version)| !is_made(key, version));
        let others = others.map(|(key, version)| (key.clone(), *version)).collect();
        let others = self.take_back(number, others);
        self.open.remove(&number);
        for (key, header) in made {
            self.give(number, key, header);
        }
        for (key, header) in others {
            self.attribute(&key, &header);
        }
    }

    /// Forgets an attempt that can write nothing more.
    pub(super) fn close(&mut self, number: u64) {
        if let Some(attempt) = self.attempts.remove(&number) {
            self.unname(number, attempt.uuid);
        }
        self.open.remove(&number);
    }

    pub(super) fn header(&self, key: &Key, version: &Version) -> Option<&Header> {
        Some(&self.records.get(&(key.clone(), *version))?.header)
    }

    /// The versions known under this uuid: several when a request was repeated on another node.
    pub(super) fn named(&self, key: &Key, uuid: Uuid) -> Vec<&Header> {
        let versions = self.versions.get(&(key.clone(), uuid));
        versions.into_iter().flatten().filter_map(|version| self.header(key, version)).collect()
    }

    /// The record of a parent; `None` when several writes can have its uuid, because the known one
    /// can be the wrong one.
    pub(super) fn parents(&self, key: &Key, uuid: Uuid) -> Vec<&Header> {
        if self.retries.is_shared(uuid) { Vec::new() } else { self.named(key, uuid) }
    }

    /// Checks a record that was not seen before, against the request and what it replaced.
    fn check_made(&mut self, number: u64, key: &Key, header: &Header) {
        let Some(attempt) = self.attempts.get(&number) else { return };
        let at = Some(key);
        if attempt.wish_for(key, header).is_none() {
            self.violated(at, &format!("{} is not the record requested", described(header)));
        }
        if header.seen.knew(header.origin, header.version.timestamp) != Knew::Yes {
            self.violated(at, "a write does not know itself");
        }
        let parents = header.parent.map(|parent| self.parents(key, parent)).unwrap_or_default();
        if !parents.is_empty() && !parents.iter().any(|parent| follows(header, parent)) {
            self.violated(at, &format!("{} does not follow its parent", described(header)));
        }
        // A request id used on several nodes or disks does not show which attempt it was,
        if self.retries.is_shared(header.version.uuid) {
            return;
        }
        self.check_lifetime(attempt, key, header, &parents);
        // nor which record was replaced. (What replaces nothing may do so again once that is dead
        // and gone; the replay of the disk checks it.)
        if header.parent.is_none_or(|parent| self.retries.is_shared(parent)) {
            return;
        }
        let place = (key.clone(), header.parent, attempt.asked.slot, attempt.disk);
        let other = self.over.insert(place, header.version);
        if other.is_some_and(|other| other != header.version) {
            let what =
                format!("{} and {other:?} replaced one record on one node", described(header));
            self.violated(at, &what);
        }
    }

    fn check_lifetime(&self, attempt: &Attempt, key: &Key, header: &Header, parents: &[&Header]) {
        let Some(wish) = attempt.wish_for(key, header) else { return };
        let clock = &self.clocks[attempt.asked.slot];
        let fits = match (lifetime_of(wish.change), header.expires_at) {
            (Lifetime::For(span), Some(at)) => {
                let began = attempt.began.earliest(clock);
                at <= clock.latest().plus(span) && began.is_none_or(|began| at >= began.plus(span))
            }
            (Lifetime::Keep, Some(at)) => {
                parents.is_empty() || parents.iter().any(|parent| parent.expires_at == Some(at))
            }
            (Lifetime::Keep, None) => {
                let slot = attempt.asked.slot;
                let lives_on = |parent: &&Header| {
                    parent.expires_at.is_some() && self.surely_lives(slot, parent)
                };
                parents.is_empty() || !parents.iter().all(lives_on)
            }
            // Records that fit in other ways were checked before.
            _ => true,
        };
        if !fits {
            let what = format!("{} does not end at the requested time", described(header));
            self.violated(Some(key), &what);
        }
    }
}

/// Whether a record can have replaced `parent`: it is greater, and knows all that `parent` knew.
fn follows(header: &Header, parent: &Header) -> bool {
    let knows_all = parent
        .seen
        .entries()
        .iter()
        .all(|(origin, timestamp)| header.seen.knew(*origin, *timestamp) != Knew::No);
    let knows_parent = header.seen.knew(parent.origin, parent.version.timestamp);
    parent.version < header.version && knows_all && knows_parent != Knew::No
}
