//! An engine in memory, for the simulator and for tests of everything above an engine.
//!
//! Keeps the promises of [`Engine`]: transactions are atomic, and a scan sees one moment. Commits
//! last as long as the value, so a "restart" is a new store over the same one.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use super::engine::{Engine, EngineError, Family, Opened, Transaction, Visit};

type Entries = BTreeMap<(Family, Vec<u8>), Bytes>;

/// All families, in one ordered map.
#[derive(Debug, Default)]
pub struct Memory(RwLock<Arc<Entries>>);

impl Memory {
    fn entries(&self) -> Arc<Entries> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Engine for Memory {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.entries().get(&(family, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError> {
        let entries = self.entries();
        let from = (family, from.to_vec());
        for ((at, key), value) in entries.range((Bound::Included(from), Bound::Unbounded)) {
            let inside = *at == family && to.is_none_or(|to| key.as_slice() < to);
            if !inside || visit(key, value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn opened(&self) -> Result<Box<dyn Opened + '_>, EngineError> {
        Ok(Box::new(self))
    }

    fn reopen(&self) -> Result<(), EngineError> {
        Ok(())
    }
}

impl Opened for &Memory {
    fn begin(&self) -> Box<dyn Transaction + '_> {
        Box::new(MemoryTransaction { engine: self, changes: BTreeMap::new() })
    }
}

struct MemoryTransaction<'a> {
    engine: &'a Memory,
    changes: BTreeMap<(Family, Vec<u8>), Option<Bytes>>,
}

impl Transaction for MemoryTransaction<'_> {
    fn get_for_update(&mut self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        match self.changes.get(&(family, key.to_vec())) {
            Some(changed) => Ok(changed.clone()),
            None => self.engine.get(family, key),
        }
    }

    fn put(&mut self, family: Family, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        self.changes.insert((family, key.to_vec()), Some(Bytes::copy_from_slice(value)));
        Ok(())
    }

    fn delete(&mut self, family: Family, key: &[u8]) -> Result<(), EngineError> {
        self.changes.insert((family, key.to_vec()), None);
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), EngineError> {
        let mut entries = self.engine.0.write().unwrap_or_else(PoisonError::into_inner);
        // scans in progress keep the map that they began with
        let entries = Arc::make_mut(&mut entries);
        for (at, change) in self.changes {
            match change {
                Some(value) => entries.insert(at, value),
                None => entries.remove(&at),
            };
        }
        Ok(())
    }
}
