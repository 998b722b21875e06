//! An engine that does what a race would do: removes records right after a scan has seen them,
//! before their large values are read. Otherwise it is the one in memory.

use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::Bytes;

use crate::store::disk::engine::{Engine, EngineError, Family, Opened, Visit};
use crate::store::disk::memory::Memory;

/// The engine in memory, and the records that die after scans to come.
#[derive(Debug, Default)]
pub(crate) struct Racing {
    memory: Memory,
    dying: Mutex<VecDeque<Vec<String>>>,
}

impl Racing {
    /// Lets the next scan that is not followed up already see `keys`, and then removes them.
    pub(crate) fn remove_after_scan(&self, keys: &[&str]) {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        self.dying.lock().unwrap().push_back(keys);
    }
}

impl Engine for Racing {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.memory.get(family, key)
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError> {
        self.memory.scan(family, from, to, visit)?;
        let opened = self.memory.opened()?;
        let mut transaction = opened.begin();
        for key in self.dying.lock().unwrap().pop_front().unwrap_or_default() {
            transaction.delete(Family::Records, key.as_bytes())?;
        }
        transaction.commit()
    }

    fn opened(&self) -> Result<Box<dyn Opened + '_>, EngineError> {
        self.memory.opened()
    }

    fn reopen(&self) -> Result<(), EngineError> {
        self.memory.reopen()
    }
}
