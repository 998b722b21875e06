//! The disk of a node: the memory engine with the faults of disks.
//!
//! It outlives the node's process. Commits and reads can be made to fail, and a loss of power
//! undoes the commits that were not synced. After a failed commit it refuses all others until it is
//! opened again; only then it shows whether the failed one took place, as RocksDB does. Sometimes
//! opening takes several attempts.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use kvs::clock::Source;
use kvs::model::{Header, Key, Timestamp};
use kvs::proto::stability::Ledger;
use kvs::store::engine::{Engine, EngineError, Family, Opened, Transaction, Visit};
use kvs::store::layout::{self, Body, Stored};
use kvs::store::memory::Memory;

use crate::clock::SimClock;

/// The most unsynced commits at a time, when commits do not wait for the disk.
const UNSYNCED_MAX: usize = 32;

/// A change of a transaction: where, and the bytes before it.
type Undo = Vec<(Family, Vec<u8>, Option<Bytes>)>;

/// The changes of a transaction, in order.
type Changes = Vec<(Family, Vec<u8>, Option<Bytes>)>;

/// A record that a commit wrote.
#[derive(Clone, Debug)]
pub struct Met {
    pub key: Key,
    /// `None` where the record went.
    pub header: Option<Header>,
    pub is_swept: bool,
}

/// What a commit wrote, as far as the auditor replays it.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Records, in order.
    pub met: Vec<Met>,
    /// How many reports of lost writes.
    pub reports: usize,
    /// The ledger, where it was written.
    pub ledger: Option<Ledger>,
    /// What the clock of the node showed, and the latest that it had shown.
    pub now: Timestamp,
    pub latest: Timestamp,
}

impl Commit {
    fn of(changes: &Changes, clock: &SimClock) -> Self {
        let (mut met, mut reports, mut ledger) = (Vec::new(), 0, None);
        for (family, key, value) in changes {
            let Some(value) = value else {
                if *family == Family::Records {
                    let key = Key::from_bytes(key).expect("a key");
                    met.push(Met { key, header: None, is_swept: false });
                }
                continue;
            };
            match family {
                Family::Records => {
                    let stored = Stored::decode_for(key, value).expect("an entry");
                    let key = Key::from_bytes(key).expect("a key");
                    let is_swept = stored.body == Body::Swept;
                    met.push(Met { key, header: Some(stored.header), is_swept });
                }
                Family::Superseded => {
                    reports += usize::from(layout::report_number(key).is_some());
                }
                Family::Meta if key == layout::STABILITY.as_bytes() => {
                    let decoded = layout::decode_meta(layout::STABILITY, value);
                    ledger = Some(decoded.expect("a ledger"));
                }
                _ => {}
            }
        }
        Self { met, reports, ledger, now: clock.now(), latest: clock.latest() }
    }
}

#[derive(Default)]
struct State {
    /// All commits, for the auditor.
    commits: Vec<Commit>,
    /// Whether the next commit fails, and whether it takes place all the same.
    commit_fails: Option<bool>,
    /// How many more changes within transactions succeed before one fails.
    change_fails: Option<u32>,
    unreadable: bool,
    /// Set after a failed commit until the disk is opened again.
    broken: bool,
    /// How many commits and changes have failed.
    failures: u32,
    failed_changes: u32,
    /// How many more attempts to open it fail.
    reopen_fails: u32,
    /// The changes of a failed commit that took place; invisible until the disk is opened again.
    hidden: Changes,
    /// The same for the auditor.
    hidden_commit: Option<Commit>,
    /// How to undo the latest commits; empty when each commit is synced.
    unsynced: VecDeque<Undo>,
}

/// The disk of one node.
pub struct Disk {
    memory: Memory,
    synced: bool,
    /// The clock of its node; none where nobody replays its commits.
    clock: Option<Arc<SimClock>>,
    state: Mutex<State>,
}

impl Disk {
    /// An empty disk. With `synced`, commits wait until they are on it.
    pub fn new(synced: bool) -> Self {
        Self { memory: Memory::default(), synced, clock: None, state: Mutex::default() }
    }

    /// The disk of the node with this clock, whose commits can be replayed.
    pub fn watched(synced: bool, clock: Arc<SimClock>) -> Self {
        Self { clock: Some(clock), ..Self::new(synced) }
    }

    /// All commits but the first `from`.
    pub fn commits(&self, from: usize) -> Vec<Commit> {
        self.state().commits[from..].to_vec()
    }

    /// What the auditor replays of a commit that is made now.
    fn commit_of(&self, changes: &Changes) -> Option<Commit> {
        self.clock.as_ref().map(|clock| Commit::of(changes, clock))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("one thread")
    }

    /// Makes the next commit fail. With `applied`, only the answer is lost.
    pub fn fail_commit(&self, applied: bool) {
        self.state().commit_fails = Some(applied);
    }

    /// Makes one change within a transaction fail, after `after` others.
    pub fn fail_change(&self, after: u32) {
        self.state().change_fails = Some(after);
    }

    pub fn set_readable(&self, readable: bool) {
        self.state().unreadable = !readable;
    }

    pub fn is_readable(&self) -> bool {
        !self.state().unreadable
    }

    /// How often writing has failed so far; `None` while nothing can be written.
    pub fn failures(&self) -> Option<u32> {
        let state = self.state();
        (!state.broken).then_some(state.failures + state.failed_changes)
    }

    /// Ends all faults.
    pub fn heal(&self) {
        let mut state = self.state();
        (state.commit_fails, state.change_fails, state.unreadable) = (None, None, false);
        state.reopen_fails = 0;
    }

    /// What can be read from it, on a disk without faults.
    pub fn copy(&self) -> Self {
        let mut held = Changes::new();
        for family in Family::ALL {
            let scanned = self.memory.scan(family, &[], None, &mut |key, value| {
                held.push((family, key.to_vec(), Some(Bytes::copy_from_slice(value))));
                ControlFlow::Continue(())
            });
            scanned.expect("memory does not fail");
        }
        let copy = Self::new(true);
        copy.change(held);
        copy
    }

    /// A copy for a node with this clock.
    pub fn copy_watched(&self, synced: bool, clock: Arc<SimClock>) -> Self {
        Self { synced, clock: Some(clock), ..self.copy() }
    }

    /// Undoes the latest `count` commits that were not synced; returns how many there were.
    pub fn lose_power(&self, count: usize) -> usize {
        let mut lost = 0;
        if count > 0 && !self.synced && !std::mem::take(&mut self.state().hidden).is_empty() {
            // the latest of all
            self.state().hidden_commit = None;
            lost += 1;
        }
        while lost < count
            && let Some(undo) = { self.state().unsynced.pop_back() }
        {
            self.change(undo);
            self.state().commits.pop();
            lost += 1;
        }
        self.state().unsynced.clear();
        lost
    }

    fn change(&self, changes: Changes) {
        let opened = self.memory.opened().expect("memory does not fail");
        let mut transaction = opened.begin();
        for (family, key, value) in changes {
            let changed = match value {
                Some(value) => transaction.put(family, &key, &value),
                None => transaction.delete(family, &key),
            };
            changed.expect("memory does not fail");
        }
        transaction.commit().expect("memory does not fail");
    }

    /// How many entries a family has.
    pub fn count(&self, family: Family) -> usize {
        let mut count = 0;
        let counted = self.memory.scan(family, &[], None, &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        });
        counted.expect("memory does not fail");
        count
    }

    fn readable(&self) -> Result<(), EngineError> {
        if self.is_readable() { Ok(()) } else { Err(broken("read")) }
    }
}

fn broken(what: &str) -> EngineError {
    EngineError::Failed(format!("the simulated disk cannot {what}"))
}

impl Engine for Disk {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.readable()?;
        self.memory.get(family, key)
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError> {
        self.readable()?;
        self.memory.scan(family, from, to, visit)
    }

    fn opened(&self) -> Result<Box<dyn Opened + '_>, EngineError> {
        Ok(Box::new(OpenedDisk { disk: self, memory: self.memory.opened()? }))
    }

    fn reopen(&self) -> Result<(), EngineError> {
        self.readable()?;
        let hidden = {
            let mut state = self.state();
            if state.reopen_fails > 0 {
                state.reopen_fails -= 1;
                let full = state.reopen_fails.is_multiple_of(2);
                let error = "the simulated disk is full".to_owned();
                return Err(if full { EngineError::Full(error) } else { broken("open") });
            }
            // An opened disk has synced everything.
            state.unsynced.clear();
            state.broken = false;
            let commit = state.hidden_commit.take();
            state.commits.extend(commit);
            std::mem::take(&mut state.hidden)
        };
        self.change(hidden);
        Ok(())
    }
}

struct OpenedDisk<'a> {
    disk: &'a Disk,
    memory: Box<dyn Opened + 'a>,
}

impl Opened for OpenedDisk<'_> {
    fn begin(&self) -> Box<dyn Transaction + '_> {
        let (inner, undo, changes) = (self.memory.begin(), Undo::new(), Changes::new());
        Box::new(Recorded { disk: self.disk, inner, undo, changes })
    }
}

/// A transaction that remembers its changes, and the bytes that they replace.
struct Recorded<'a> {
    disk: &'a Disk,
    inner: Box<dyn Transaction + 'a>,
    undo: Undo,
    changes: Changes,
}

impl Recorded<'_> {
    /// Remembers the bytes at a place before it changes.
    fn changes(
        &mut self,
        family: Family,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), EngineError> {
        let left = self.disk.state().change_fails;
        if let Some(left) = left {
            self.disk.state().change_fails = left.checked_sub(1);
            if left == 0 {
                self.disk.state().failed_changes += 1;
                return Err(broken("change"));
            }
        }
        if !self.disk.synced && !self.undo.iter().any(|(f, k, _)| (*f, &k[..]) == (family, key)) {
            let before = self.disk.memory.get(family, key)?;
            self.undo.push((family, key.to_vec(), before));
        }
        self.changes.push((family, key.to_vec(), value.map(Bytes::copy_from_slice)));
        Ok(())
    }
}

impl Transaction for Recorded<'_> {
    fn get_for_update(&mut self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.disk.readable()?;
        self.inner.get_for_update(family, key)
    }

    fn put(&mut self, family: Family, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        self.changes(family, key, Some(value))?;
        self.inner.put(family, key, value)
    }

    fn delete(&mut self, family: Family, key: &[u8]) -> Result<(), EngineError> {
        self.changes(family, key, None)?;
        self.inner.delete(family, key)
    }

    fn commit(self: Box<Self>) -> Result<(), EngineError> {
        let mut state = self.disk.state();
        if state.broken {
            return Err(broken("write before it is opened again"));
        }
        if let Some(applied) = state.commit_fails.take() {
            state.broken = true;
            state.failures += 1;
            state.reopen_fails = state.failures % 4;
            if applied {
                // decided now, not when it is found
                state.hidden_commit = self.disk.commit_of(&self.changes);
                state.hidden = self.changes;
            }
            return Err(broken("say whether it has written"));
        }
        self.inner.commit()?;
        state.commits.extend(self.disk.commit_of(&self.changes));
        if !self.disk.synced {
            state.unsynced.push_back(self.undo);
            if state.unsynced.len() > UNSYNCED_MAX {
                state.unsynced.pop_front();
            }
        }
        Ok(())
    }
}
