//! Writes that lost a merge. The auditor watches each disk, so it knows in which order a node met
//! the versions of a key. From that alone it computes what the node must have reported, and in
//! which commit, and demands just that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kvs::model::seen::Knew;
use kvs::model::{Header, Key, NodeId, Record, Version};
use kvs::proto::stability::{Floor, Founding, floor};
use kvs::store::{Causal, Superseded, SupersededPage};

use super::{Audit, described};
use crate::disk::{Commit, Met};

/// A write that a node has lost.
#[derive(Clone)]
struct Expected {
    key: Key,
    lost: Header,
    winner: Option<Header>,
    causal: Causal,
    /// Whether its time may have been over by the clock of the node. Then it may not be reported.
    may_be_over: bool,
}

/// What a node did wrong to a key.
type Wrong = (Key, String);

/// What is known of a node, whatever happens to its disk.
#[derive(Default)]
pub struct Past {
    /// The ids that it had.
    ids: BTreeSet<NodeId>,
    /// All that it set aside.
    aside: BTreeSet<(Key, Version)>,
}

/// What a node met on its present disk, as far as it was replayed.
#[derive(Clone, Default)]
pub struct Replay {
    commits: usize,
    /// What each key has, and whether its bytes were swept.
    current: BTreeMap<Key, (Header, bool)>,
    /// Its floor, and the founding of its set.
    floor: Floor,
    founding: Option<Founding>,
    /// Whether it went over to a set that was founded apart, or has to do so.
    has_gone_over: bool,
    /// The greatest version of each key that its floor has passed.
    gone: BTreeMap<Key, Version>,
    /// Whether the node never lost a disk, so that all that it wrote was on this one.
    is_first_disk: bool,
    expected: Vec<Expected>,
    /// All records that the node ever held.
    met: BTreeMap<Key, Vec<Header>>,
    /// What it reports.
    pub reported: BTreeSet<(Key, Version)>,
}

impl Replay {
    /// Follows one more commit of the node; gives how many reports it must have written, and how
    /// many it may have written besides.
    ///
    /// # Errors
    /// What the node did to a key that it may not do.
    fn follow(
        &mut self,
        past: &Past,
        commit: Commit,
        drift_max: Duration,
    ) -> Result<(usize, usize), Wrong> {
        let (mut must, mut may) = (0, 0);
        // the latest time by which the node can have judged
        let latest = commit.now.max(commit.latest.min(commit.now.plus(drift_max)));
        if let Some(ledger) = commit.ledger {
            self.floor = ledger.floor;
            // where all have forgotten each other, nobody is left who knows what had gone
            self.has_gone_over |= ledger.set.is_some() && ledger.is_of_no_set();
            let founding = ledger.set.map(|set| set.founding);
            let before = self.founding;
            self.founding = founding.or(before);
            self.has_gone_over |= before.is_some() && self.founding != before;
        }
        for met in commit.met {
            let Met { key, header: winner, is_swept } = met;
            let before = match &winner {
                Some(header) => self.current.insert(key.clone(), (header.clone(), is_swept)),
                None => self.current.remove(&key),
            };
            let same = |(before, _): &(Header, bool)| winner.as_ref() == Some(before);
            if before.as_ref().is_some_and(same) {
                // swept, or marked
                continue;
            }
            if let Some(header) = &winner {
                self.meets(past, &key, header, before.as_ref().map(|(before, _)| before))?;
            }
            let Some((lost, was_swept)) = before else { continue };
            let is_aside = winner.is_none() && self.goes(past, &key, &lost)?;
            let over = |by| lost.expires_at.is_some_and(|at| at <= by);
            if was_swept || over(commit.now) || !past.ids.contains(&lost.origin) {
                continue;
            }
            let causal = match &winner {
                Some(winner) => causal(&lost, winner),
                None => is_aside.then_some(Causal::Unknown),
            };
            let Some(causal) = causal else { continue };
            let may_be_over = over(latest);
            let count = if may_be_over { &mut may } else { &mut must };
            *count += 1;
            self.expected.push(Expected { key, lost, winner, causal, may_be_over });
        }
        self.commits += 1;
        Ok((must, may))
    }

    /// Notes a record that takes the place of `before`. What this disk wrote for a client names
    /// what it replaced, unless that had left already.
    fn meets(
        &mut self,
        past: &Past,
        key: &Key,
        header: &Header,
        before: Option<&Header>,
    ) -> Result<(), Wrong> {
        let met = self.met.entry(key.clone()).or_default();
        let is_new = met.iter().all(|other| other.version != header.version);
        met.push(header.clone());
        let is_local = is_new && self.is_first_disk && past.ids.contains(&header.origin);
        if is_local && header.parent != before.map(|before| before.version.uuid) {
            let before = before.map_or("nothing".to_owned(), described);
            return Err((key.clone(), format!("{} replaced {before}", described(header))));
        }
        Ok(())
    }

    /// Notes that a record left; answers whether it was set aside. Else the floor has passed it.
    fn goes(&mut self, past: &Past, key: &Key, lost: &Header) -> Result<bool, Wrong> {
        if past.aside.contains(&(key.clone(), lost.version)) {
            return Ok(true);
        }
        if !floor::may_go(lost, self.floor) {
            let what = format!("{} left, and the floor is {:?}", described(lost), self.floor);
            return Err((key.clone(), what));
        }
        let gone = self.gone.entry(key.clone()).or_insert(lost.version);
        *gone = lost.version.max(*gone);
        Ok(false)
    }
}

/// What `lost` is to `winner`, if it is lost.
fn causal(lost: &Header, winner: &Header) -> Option<Causal> {
    // one request that was sent to two nodes
    if lost.version.uuid == winner.version.uuid && lost.content == winner.content {
        return None;
    }
    match winner.seen.knew(lost.origin, lost.version.timestamp) {
        Knew::Yes => None,
        Knew::No => Some(Causal::Concurrent),
        Knew::Unknown => Some(Causal::Unknown),
    }
}

impl Audit {
    /// How many commits of the disk at `slot` were replayed.
    pub fn replayed(&self, slot: usize) -> usize {
        self.replays.get(&slot).map_or(0, |replay| replay.commits)
    }

    /// Follows further `commits` of the node `id` at `slot`, and checks that each holds as many
    /// reports as writes were lost in it.
    pub fn follow_commits(&mut self, slot: usize, id: NodeId, commits: Vec<Commit>) {
        let mut replay = self.replays.remove(&slot).unwrap_or_default();
        let mut past = self.pasts.remove(&slot).unwrap_or_default();
        past.ids.insert(id);
        replay.is_first_disk = self.disk(slot) == 0;
        for commit in commits {
            let (keys, reports) = (commit.met.first().map(|met| met.key.clone()), commit.reports);
            let (must, may) = match replay.follow(&past, commit, self.rules.clock_drift_max) {
                Ok(counts) => counts,
                Err((key, what)) => self.violated(Some(&key), &format!("on node {slot} {what}")),
            };
            if !(must..=must + may).contains(&reports) {
                let what = format!(
                    "a commit of node {slot} holds {reports} reports of lost writes, not {must}"
                );
                self.violated(keys.as_ref(), &what);
            }
        }
        self.pasts.insert(slot, past);
        if std::mem::take(&mut replay.has_gone_over) {
            // what was dead and gone there, the cluster that it joins may never have known
            let is_gone = |key: &Key, version: &Version| replay.gone.get(key) >= Some(version);
            self.floors.retain(|(at, key), floor| *at != slot || !is_gone(key, floor));
            self.greatest.retain(|key, greatest| !is_gone(key, greatest));
        }
        for (key, version) in &replay.gone {
            let collected = self.collected.entry(key.clone()).or_insert(*version);
            *collected = (*version).max(*collected);
        }
        self.replays.insert(slot, replay);
    }

    /// The node at `slot` sets the record of `key` with this version aside: it begins anew, and the
    /// cluster does not hold that record.
    pub fn set_aside(&mut self, slot: usize, key: &Key, version: Version) {
        let text = format!("node {slot} sets {version:?} aside");
        self.story.add(Some(key), text);
        self.pasts.entry(slot).or_default().aside.insert((key.clone(), version));
        self.floors.remove(&(slot, key.clone()));
        self.held.remove(&(slot, key.clone()));
        // what it had replaced may be replaced again; the replay of the disk checks it
        self.over.retain(|(at, _, on, _), _| at != key || *on != slot);
        // whatever it had replaced goes with it
        if self.greatest.get(key) <= Some(&version) {
            self.greatest.remove(key);
        }
    }

    /// Whether the node at `slot` sets this version of a key aside, or has done so.
    pub fn is_set_aside(&self, slot: usize, key: &Key, version: Version) -> bool {
        let name = (key.clone(), version);
        self.pasts.get(&slot).is_some_and(|past| past.aside.contains(&name))
    }

    /// The latest records of a key that the disk of the node at `slot` met, in words.
    pub fn met(&self, slot: usize, key: &Key) -> String {
        let met = self.replays.get(&slot).and_then(|replay| replay.met.get(key));
        let latest = met.into_iter().flatten().rev().take(5);
        latest.map(|header| format!("\n  its disk had met {}", described(header))).collect()
    }

    /// What the node at `slot` has met so far, for a copy of its disk.
    pub fn copied(&self, slot: usize) -> Replay {
        let replay = self.replays.get(&slot).cloned().unwrap_or_default();
        Replay { commits: 0, ..replay }
    }

    /// The node at `slot`, whose disk is lost, comes back as another one.
    pub fn emptied(&mut self, slot: usize) {
        self.pasts.remove(&slot);
        self.bases.remove(&slot);
        self.replays.remove(&slot);
    }

    /// The disk of the node at `slot`, which is lost, is a copy now.
    pub fn set_back(&mut self, slot: usize, replay: Replay) {
        self.bases.insert(slot, replay.clone());
        self.replays.insert(slot, replay);
    }

    /// The greatest version of a key that the floor of the node at `slot` has passed on its disk.
    pub fn gone(&self, slot: usize, key: &Key) -> Option<Version> {
        self.replays.get(&slot)?.gone.get(key).copied()
    }

    /// Checks that the node at `slot` reports what it has lost so far: all of it, once, whole and
    /// in order.
    pub fn reports(&mut self, slot: usize, page: SupersededPage) {
        let mut replay = self.replays.remove(&slot).unwrap_or_default();
        let mut items = page.items.into_iter().peekable();
        replay.reported.clear();
        for expected in &replay.expected {
            let is_it = |item: &&Superseded| is_report_of(item, expected);
            if items.peek().as_ref().is_some_and(is_it) {
                items.next();
                replay.reported.insert((expected.key.clone(), expected.lost.version));
            } else if !expected.may_be_over {
                let Expected { key, lost, winner, causal, .. } = expected;
                let winner = winner.as_ref().map_or("nothing".to_owned(), described);
                let lost = described(lost);
                let what = format!(
                    "node {slot} does not report that {lost} lost to {winner} ({causal:?})"
                );
                self.violated(Some(key), &what);
            }
        }
        if let Some(item) = items.next() {
            let what = format!("node {slot} reports what was not lost: {item:?}");
            self.violated(Some(&item.key), &what);
        }
        if page.truncated {
            self.violated(None, "reports are missing, although there is room");
        }
        self.replays.insert(slot, replay);
    }

    /// Whether the node at `slot` reports this version as lost.
    pub(super) fn is_reported(&self, slot: usize, key: &Key, version: Version) -> bool {
        let name = (key.clone(), version);
        self.replays.get(&slot).is_some_and(|replay| replay.reported.contains(&name))
    }

    /// Checks the writes that the node `id` at `slot` has acknowledged, while its disk was never
    /// lost: each is current, replaced by a write that knew it, expired, or reported. Gives how
    /// many are reported.
    pub fn nothing_is_lost_in_silence(
        &self,
        slot: usize,
        id: NodeId,
        stands: impl Fn(&Key) -> Option<Version>,
    ) -> u64 {
        let Some(replay) = self.replays.get(&slot).filter(|_| self.disk(slot) == 0) else {
            return 0;
        };
        let mut count = 0;
        for ((key, version), known) in &self.records {
            let header = &known.header;
            if !known.acked || header.origin != id || stands(key) == Some(*version) {
                continue;
            }
            let is_reported = replay.reported.contains(&(key.clone(), *version));
            let follows = |other: &&Header| {
                other.version != *version && causal(header, other) != Some(Causal::Concurrent)
            };
            let met = replay.met.get(key).map(Vec::as_slice).unwrap_or_default();
            let at = met.iter().position(|other| other.version == *version);
            let is_known = at.is_some_and(|at| met[at + 1..].iter().any(|other| follows(&other)));
            count += u64::from(is_reported);
            // a delete, or what had expired
            let is_gone = replay.gone.get(key) >= Some(version);
            if !is_reported && !is_known && !is_gone && !self.may_be_swept(slot, header) {
                let what = format!("{} was lost in silence", described(header));
                self.violated(Some(key), &what);
            }
        }
        count
    }
}

fn is_report_of(item: &Superseded, expected: &Expected) -> bool {
    let body = item.lost.body.clone().unwrap_or_default();
    let lost = Record { header: item.lost.header.clone(), body };
    lost.is_whole()
        && lost.header == expected.lost
        && item.key == expected.key
        && item.winner.as_ref().map(|winner| &winner.header) == expected.winner.as_ref()
        && item.causal == expected.causal
}
