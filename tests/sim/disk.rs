//! A node's disk: the memory engine with what disks do to it.
//!
//! It survives the node. Commits and reads can be made to fail, and a loss of power takes back what
//! was committed and not yet synced.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use kvs::store::engine::{Engine, EngineError, Family, Transaction, Visit};
use kvs::store::memory::Memory;

/// Commits that may be unsynced at a time, where commits do not wait for the disk.
const UNSYNCED_MAX: usize = 32;

/// What a transaction changed, and what stood there before.
type Undo = Vec<(Family, Vec<u8>, Option<Bytes>)>;

#[derive(Default)]
struct State {
    /// Whether the next commit fails, and whether it takes place all the same.
    commit_fails: Option<bool>,
    /// How many changes within transactions go well before one fails.
    change_fails: Option<u32>,
    unreadable: bool,
    /// How to take back the latest commits; empty where each is synced.
    unsynced: VecDeque<Undo>,
}

/// The disk of one node.
pub struct Disk {
    memory: Memory,
    synced: bool,
    state: Mutex<State>,
}

impl Disk {
    /// An empty disk; `synced`: commits wait until they are on it.
    pub fn new(synced: bool) -> Self {
        Self { memory: Memory::default(), synced, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("one thread")
    }

    /// Makes the next commit fail. With `applied`, only the answer is lost.
    pub fn fail_commit(&self, applied: bool) {
        self.state().commit_fails = Some(applied);
    }

    /// Makes one change within a transaction fail, after so many that go well.
    pub fn fail_change(&self, after: u32) {
        self.state().change_fails = Some(after);
    }

    pub fn set_readable(&self, readable: bool) {
        self.state().unreadable = !readable;
    }

    pub fn is_readable(&self) -> bool {
        !self.state().unreadable
    }

    /// Ends all its faults.
    pub fn heal(&self) {
        let mut state = self.state();
        (state.commit_fails, state.change_fails, state.unreadable) = (None, None, false);
    }

    /// Takes back the latest `count` commits that were not synced; gives how many there were.
    pub fn lose_power(&self, count: usize) -> usize {
        let mut lost = 0;
        while lost < count
            && let Some(undo) = { self.state().unsynced.pop_back() }
        {
            let mut back = self.memory.begin();
            for (family, key, before) in undo {
                let undone = match before {
                    Some(value) => back.put(family, &key, &value),
                    None => back.delete(family, &key),
                };
                undone.expect("memory does not fail");
            }
            back.commit().expect("memory does not fail");
            lost += 1;
        }
        self.state().unsynced.clear();
        lost
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

    fn begin(&self) -> Box<dyn Transaction + '_> {
        Box::new(Recorded { disk: self, inner: self.memory.begin(), undo: Undo::new() })
    }
}

/// A transaction that remembers what it replaces.
struct Recorded<'a> {
    disk: &'a Disk,
    inner: Box<dyn Transaction + 'a>,
    undo: Undo,
}

impl Recorded<'_> {
    /// Remembers what stands where something is about to be changed.
    fn changes(&mut self, family: Family, key: &[u8]) -> Result<(), EngineError> {
        let left = self.disk.state().change_fails;
        if let Some(left) = left {
            self.disk.state().change_fails = left.checked_sub(1);
            if left == 0 {
                return Err(broken("change"));
            }
        }
        if !self.disk.synced && !self.undo.iter().any(|(f, k, _)| (*f, &k[..]) == (family, key)) {
            let before = self.disk.memory.get(family, key)?;
            self.undo.push((family, key.to_vec(), before));
        }
        Ok(())
    }
}

impl Transaction for Recorded<'_> {
    fn get_for_update(&mut self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.disk.readable()?;
        self.inner.get_for_update(family, key)
    }

    fn put(&mut self, family: Family, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        self.changes(family, key)?;
        self.inner.put(family, key, value)
    }

    fn delete(&mut self, family: Family, key: &[u8]) -> Result<(), EngineError> {
        self.changes(family, key)?;
        self.inner.delete(family, key)
    }

    fn commit(self: Box<Self>) -> Result<(), EngineError> {
        let fails = self.disk.state().commit_fails.take();
        if fails == Some(false) {
            return Err(broken("write"));
        }
        self.inner.commit()?;
        let mut state = self.disk.state();
        if !self.disk.synced {
            state.unsynced.push_back(self.undo);
            if state.unsynced.len() > UNSYNCED_MAX {
                state.unsynced.pop_front();
            }
        }
        if fails.is_some() { Err(broken("say that it has written")) } else { Ok(()) }
    }
}
