//! Makes the faults of a plan happen, and ends them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kvs::clock::Clock;
use kvs::model::{Key, Version};
use kvs::proto::stability::WhyGone;
use kvs::replication::Leaving;
use rand::RngExt;
use tokio::time::Instant;

use crate::client::lock;
use crate::disk::Disk;
use crate::network::Way;
use crate::node::{Up, address};
use crate::plan::Event;
use crate::world::World;

/// A step on the agenda of a world.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    Begin(Event),
    Start(usize),
    Resume(usize),
    Uncut(u64),
    Unblock(usize),
    Readable(usize),
    Quick(usize),
    /// Cuts one node off from all others for a while, then the next one.
    Roll {
        next: usize,
        each: Duration,
    },
    /// Breaks a link for a while, several times.
    Flap {
        a: usize,
        b: usize,
        each: Duration,
        times: u32,
    },
}

impl World {
    /// Puts an action on the agenda.
    pub fn plan_at(&mut self, at: Instant, action: Action) {
        self.agenda.insert((at, self.decided), action);
        self.decided += 1;
    }

    pub fn plan_after(&mut self, pause: Duration, action: Action) {
        self.plan_at(Instant::now() + pause, action);
    }

    pub async fn act(&mut self, action: Action) {
        match action {
            Action::Begin(event) => self.begin(event).await,
            Action::Start(slot) => {
                if self.nodes[slot].up.is_none() {
                    self.start(slot);
                }
            }
            Action::Resume(slot) => {
                self.report(format!("node {slot} goes on"));
                self.network().resume(address(slot));
            }
            Action::Uncut(cut) => {
                self.report(format!("cut {cut} ends"));
                self.network().uncut(cut);
            }
            Action::Unblock(slot) => {
                self.report(format!("connections of node {slot} get through again"));
                self.network().unblock(address(slot));
            }
            Action::Readable(slot) => {
                self.report(format!("the disk of node {slot} can be read again"));
                self.nodes[slot].disk.set_readable(true);
            }
            Action::Quick(slot) => {
                self.report(format!("the disk of node {slot} is quick again"));
                let quick = self.plan.disk_ms_max;
                self.nodes[slot].disk_ms_max.store(quick, Ordering::Relaxed);
            }
            Action::Roll { next, each } => self.roll(next, each),
            Action::Flap { a, b, each, times } => self.flap(a, b, each, times),
        }
    }

    async fn begin(&mut self, event: Event) {
        let here = |slot: usize| self.nodes[slot].up.is_some();
        let (kind, happens) = match event {
            Event::OneWay { .. } => ("one way", true),
            Event::Halves { .. } => ("halves", true),
            Event::Isolated { .. } => ("isolated", true),
            Event::Rolling { .. } => ("rolling", true),
            Event::Flapping { .. } => ("flapping", true),
            Event::Blocked { .. } => ("blocked", true),
            Event::Paused { at, .. } => ("paused", here(at)),
            Event::Killed { at, .. } => ("killed", here(at)),
            Event::PowerLost { at, .. } => ("power lost", here(at)),
            Event::Stopped { at, .. } => ("stopped", here(at)),
            Event::Emptied { at, .. } => ("emptied", here(at)),
            Event::Copied { at } => ("copied", here(at) && self.nodes[at].disk.is_readable()),
            Event::SetBack { at, .. } => ("set back", self.copies.contains_key(&at)),
            Event::Forgotten { by, whom } => {
                ("forgotten", here(by) && self.nodes[whom].id.is_some())
            }
            Event::Left { at, .. } => ("left", self.nodes[at].up.as_ref().is_some_and(Up::serves)),
            Event::CommitFails { at, .. } => ("commit fails", here(at)),
            Event::ChangeFails { at, .. } => ("change fails", here(at)),
            Event::Unreadable { at, .. } => ("unreadable", here(at)),
            Event::Slow { at, .. } => ("slow", here(at)),
            Event::ClockStep { .. } => ("clock step", true),
            Event::Join { at } => ("join", !here(at) && !self.nodes[at].was_started),
        };
        if !happens {
            return;
        }
        *self.faults.entry(kind).or_default() += 1;
        self.report(format!("{event:?}"));
        match event {
            Event::OneWay { from, to, lasting } => {
                self.cut([(address(from), address(to))].into(), lasting);
            }
            Event::Halves { mask, lasting } => {
                let ways = self.ways(|a, b| (mask >> a) & 1 != (mask >> b) & 1);
                self.cut(ways, lasting);
            }
            Event::Isolated { at, lasting } => self.isolate(at, lasting),
            Event::Rolling { each } => self.roll(0, each),
            Event::Flapping { a, b, each, times } => self.flap(a, b, each, times),
            Event::Blocked { at, lasting } => {
                self.network().block(address(at));
                self.plan_after(lasting, Action::Unblock(at));
            }
            Event::Paused { at, lasting } => {
                self.network().pause(address(at));
                self.plan_after(lasting, Action::Resume(at));
            }
            Event::Killed { at, absent } => {
                self.take_down(at);
                self.plan_after(absent, Action::Start(at));
            }
            Event::PowerLost { at, absent } => self.lose_power(at, absent),
            Event::Stopped { at, absent } => {
                if let Some(up) = self.nodes[at].up.take() {
                    // A process that hangs while it stops is killed, as a supervisor does.
                    let _ = tokio::time::timeout(Duration::from_secs(5), up.stop()).await;
                }
                self.take_down(at);
                self.plan_after(absent, Action::Start(at));
            }
            Event::Emptied { at, absent } => {
                self.take_down(at);
                let clock = self.nodes[at].clock.clone();
                self.nodes[at].disk = Arc::new(Disk::watched(self.plan.synced, clock));
                self.nodes[at].was_started = false;
                self.disk_lost(at);
                lock(&self.audit).emptied(at);
                self.plan_after(absent, Action::Start(at));
            }
            Event::Copied { at } => self.copy(at),
            Event::SetBack { at, absent } => self.set_back(at, absent),
            Event::Forgotten { by, whom } => self.forget(by, whom),
            Event::Left { at, absent } => self.leave(at, absent),
            Event::CommitFails { at, applied } => self.nodes[at].disk.fail_commit(applied),
            Event::ChangeFails { at, after } => self.nodes[at].disk.fail_change(after),
            Event::Unreadable { at, lasting } => {
                self.nodes[at].disk.set_readable(false);
                self.plan_after(lasting, Action::Readable(at));
            }
            Event::Slow { at, lasting, ms_max } => {
                self.nodes[at].disk_ms_max.store(ms_max, Ordering::Relaxed);
                self.plan_after(lasting, Action::Quick(at));
            }
            Event::ClockStep { at, by_us } => {
                self.nodes[at].clock.step(by_us);
                lock(&self.audit).clock_set(at);
            }
            Event::Join { at } => self.start(at),
        }
    }

    /// The directions between nodes that `cut` describes.
    fn ways(&self, cut: impl Fn(usize, usize) -> bool) -> BTreeSet<Way> {
        let nodes = 0..self.plan.nodes;
        let pairs = nodes.clone().flat_map(|a| nodes.clone().map(move |b| (a, b)));
        let cut = pairs.filter(|(a, b)| a != b && cut(*a, *b));
        cut.map(|(a, b)| (address(a), address(b))).collect()
    }

    fn cut(&mut self, ways: BTreeSet<Way>, lasting: Duration) {
        let at_once = self.rng.random();
        let cut = self.network().cut(ways, at_once);
        self.plan_after(lasting, Action::Uncut(cut));
    }

    fn isolate(&mut self, slot: usize, lasting: Duration) {
        let ways = self.ways(|a, b| a == slot || b == slot);
        self.cut(ways, lasting);
    }

    fn roll(&mut self, next: usize, each: Duration) {
        if next < self.plan.nodes {
            self.isolate(next, each);
            self.plan_after(each, Action::Roll { next: next + 1, each });
        }
    }

    fn flap(&mut self, a: usize, b: usize, each: Duration, times: u32) {
        if times > 0 {
            let ways = self.ways(|from, to| [(from, to), (to, from)].contains(&(a, b)));
            self.cut(ways, each);
            self.plan_after(each * 2, Action::Flap { a, b, each, times: times - 1 });
        }
    }

    /// Kills the process, and undoes what its disk had not synced.
    fn lose_power(&mut self, slot: usize, absent: Duration) {
        self.take_down(slot);
        let most = self.rng.random_range(0..8);
        let lost = self.nodes[slot].disk.lose_power(most);
        if lost > 0 {
            self.report(format!("node {slot} loses {lost} commits that were not synced"));
            self.disk_lost(slot);
        }
        self.plan_after(absent, Action::Start(slot));
    }

    fn copy(&mut self, slot: usize) {
        let node = &self.nodes[slot];
        let Some(up) = node.up.as_ref() else { return };
        let mut audit = lock(&self.audit);
        let commits = node.disk.commits(audit.replayed(slot));
        audit.follow_commits(slot, up.identity.node, commits);
        let disk = node.disk.copy_watched(self.plan.synced, node.clock.clone());
        let replay = audit.copied(slot);
        drop(audit);
        self.copies.insert(slot, (disk, replay));
    }

    /// Kills the process, and sets its disk back to the copy.
    fn set_back(&mut self, slot: usize, absent: Duration) {
        let Some((disk, replay)) = self.copies.remove(&slot) else { return };
        self.take_down(slot);
        self.nodes[slot].disk = Arc::new(disk);
        self.nodes[slot].was_started = true;
        self.nodes[slot].was_set_back = true;
        self.disk_lost(slot);
        lock(&self.audit).set_back(slot, replay);
        self.plan_after(absent, Action::Start(slot));
    }

    /// Lets the node at `by` forget the one at `whom`, as soon as it can write.
    fn forget(&mut self, by: usize, whom: usize) {
        if let (Some(id), Some(up)) = (self.nodes[whom].id, self.nodes[by].up.as_mut()) {
            let store = up.store.clone();
            // one that cannot write does not forget
            up.spawn(async move { drop(store.remove_member(id, WhyGone::Forgotten).await) });
        }
    }

    /// Lets the node at `slot` leave, if it can.
    fn leave(&mut self, slot: usize, absent: Duration) {
        let clock = Clock::from_source(self.nodes[slot].clock.clone());
        let Some(up) = self.nodes[slot].up.as_mut() else { return };
        let (store, sync, peers) = (up.store.clone(), up.sync.clone(), up.peers.clone());
        let (leaving, left) = (Leaving { store, sync, peers, clock }, up.left.clone());
        up.spawn(async move {
            if leaving.leave(false).await.is_ok() {
                *left.lock().expect("one thread") = Some(absent);
            }
        });
    }

    fn disk_lost(&mut self, slot: usize) {
        let keys = lock(&self.audit).keys();
        let kept = self.nodes.iter().map(|node| node.kept(&self.common, &keys));
        let kept: Vec<_> = kept.collect();
        let survives = |key: &Key| -> Option<Version> {
            kept.iter().filter_map(|disk: &BTreeMap<Key, Version>| disk.get(key)).max().copied()
        };
        lock(&self.audit).disk_lost(slot, survives);
    }
}
