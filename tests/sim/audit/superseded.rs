//! Writes that lost a merge. The auditor watches each disk, so it knows in which order a node met
//! the versions of a key. From that alone it computes what the node must have reported, and in
//! which commit, and demands just that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kvs::model::seen::Knew;
use kvs::model::{Header, Key, NodeId, Record, Version};
use kvs::store::{Causal, Superseded, SupersededPage};

use super::{Audit, described};
use crate::disk::{Commit, Met};

/// A write that a node has lost.
struct Expected {
    key: Key,
    lost: Header,
    winner: Header,
    causal: Causal,
    /// Whether its time may have been over by the clock of the node. Then it may not be reported.
    may_be_over: bool,
}

/// What a node met on its present disk, as far as it was replayed.
#[derive(Default)]
pub struct Replay {
    commits: usize,
    current: BTreeMap<Key, Met>,
    expected: Vec<Expected>,
    /// All records that the node ever held.
    met: BTreeMap<Key, Vec<Header>>,
    /// What it reports.
    pub reported: BTreeSet<(Key, Version)>,
}

impl Replay {
    /// Follows one more commit of the node `id`; gives how many reports it must have written, and
    /// how many it may have written besides.
    fn follow(&mut self, id: NodeId, commit: Commit, drift_max: Duration) -> (usize, usize) {
        let (mut must, mut may) = (0, 0);
        // the latest time by which the node can have judged
        let latest = commit.now.max(commit.latest.min(commit.now.plus(drift_max)));
        for met in commit.met {
            let key = met.key.clone();
            let before = self.current.insert(key.clone(), met.clone());
            if before.as_ref().is_some_and(|before| before.header == met.header) {
                // swept, or marked
                continue;
            }
            self.met.entry(key.clone()).or_default().push(met.header.clone());
            let Some(before) = before else { continue };
            let over = |by| before.header.expires_at.is_some_and(|at| at <= by);
            let (lost, winner) = (before.header.clone(), met.header);
            if before.is_swept || over(commit.now) || lost.origin != id {
                continue;
            }
            let Some(causal) = causal(&lost, &winner) else { continue };
            let may_be_over = over(latest);
            let count = if may_be_over { &mut may } else { &mut must };
            *count += 1;
            self.expected.push(Expected { key, lost, winner, causal, may_be_over });
        }
        self.commits += 1;
        (must, may)
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

    /// Follows further `commits` of the node `id` at `slot`, and checks that it reports what it has
    /// lost so far: all of it, once, whole, in order, and in the commits in which it lost it.
    pub fn reports(&mut self, slot: usize, id: NodeId, commits: Vec<Commit>, page: SupersededPage) {
        let mut replay = self.replays.remove(&slot).unwrap_or_default();
        for commit in commits {
            let (keys, reports) = (commit.met.first().map(|met| met.key.clone()), commit.reports);
            let (must, may) = replay.follow(id, commit, self.rules.clock_drift_max);
            if !(must..=must + may).contains(&reports) {
                let what = format!(
                    "a commit of node {slot} holds {reports} reports of lost writes, not {must}"
                );
                self.violated(keys.as_ref(), &what);
            }
        }
        let mut items = page.items.into_iter().peekable();
        replay.reported.clear();
        for expected in &replay.expected {
            let is_it = |item: &&Superseded| is_report_of(item, expected);
            if items.peek().as_ref().is_some_and(is_it) {
                items.next();
                replay.reported.insert((expected.key.clone(), expected.lost.version));
            } else if !expected.may_be_over {
                let Expected { key, lost, winner, causal, .. } = expected;
                let (lost, winner) = (described(lost), described(winner));
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
            if !is_reported && !is_known && !self.may_be_swept(slot, header) {
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
        && item.winner.as_ref().map(|winner| &winner.header) == Some(&expected.winner)
        && item.causal == expected.causal
}
