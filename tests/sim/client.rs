//! A client of one node: writes, deletes, swaps and reads for as long as its node is up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kvs::model::{Condition, Content, ContentType, Expected, Key};
use kvs::store::{Change, Lifetime, Store, Write, WriteError};
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::audit::Audit;
use crate::network::Network;
use crate::plan::Load;

/// The size of a large value: more than one chunk of a stream.
const LARGE_BYTES: usize = 20 << 10;

/// The auditor, shared; what a client finds out in the middle of a violation does not matter.
pub fn lock(audit: &Mutex<Audit>) -> MutexGuard<'_, Audit> {
    audit.lock().unwrap_or_else(PoisonError::into_inner)
}

pub struct Client {
    pub store: Store,
    pub audit: Arc<Mutex<Audit>>,
    pub network: Network,
    pub rng: StdRng,
    pub slot: usize,
    pub load: Load,
    /// Ends it between two requests.
    pub no_more: CancellationToken,
    /// As HTTP would, it waits while its node waits for its first data.
    pub syncing: watch::Receiver<bool>,
}

/// A write under way; nobody will know its outcome when its node is killed.
struct Pending<'a> {
    audit: &'a Mutex<Audit>,
    number: u64,
    decided: bool,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.decided {
            lock(self.audit).outcome_unknown(self.number);
        }
    }
}

impl Client {
    pub async fn run(mut self) {
        while !self.no_more.is_cancelled() {
            let pause = self.rng.random_range(0..self.load.pause_ms_max);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if *self.syncing.borrow() || self.no_more.is_cancelled() {
                continue;
            }
            let key = format!("k/{}", self.rng.random_range(0..self.load.keys));
            let key = Key::parse(&key).expect("a key");
            match self.rng.random_range(0..10) {
                0..3 => self.read(&key),
                3..5 => self.write(key, Change::Delete).await,
                _ => {
                    let change = self.value();
                    self.write(key, change).await;
                }
            }
        }
    }

    fn value(&mut self) -> Change {
        let large = self.rng.random_bool(self.load.large);
        // some are kept with their header, some apart; no two are equal, which the auditor needs
        let length = if large { LARGE_BYTES } else { self.rng.random_range(16..200) };
        let mut body = vec![0; length];
        self.rng.fill_bytes(&mut body);
        Change::put(ContentType::octet_stream(), Bytes::from(body), Lifetime::Unbounded)
    }

    fn read(&self, key: &Key) {
        // a disk that cannot be read shows nothing
        let Ok(record) = self.store.record_now(key) else { return };
        let mut audit = lock(&self.audit);
        audit.shown(self.slot, key, record.as_ref().map(|record| &record.header));
        if record.is_some_and(|record| !record.is_whole()) {
            audit.violated(Some(key), "a record does not have the bytes that it names");
        }
    }

    /// Writes; in four of ten cases as a swap of the version that is live now.
    async fn write(&mut self, key: Key, change: Change) {
        let mut conditions = Vec::new();
        let mut expected = None;
        if self.rng.random_bool(0.4)
            && let Ok(Some(current)) = self.store.head(&key)
        {
            expected = Some(current.version.uuid);
            conditions.push(Condition::Expect(Expected::Uuid(current.version.uuid)));
            // time for others to come first
            let pause = self.rng.random_range(0..20);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        let content = match &change {
            Change::Delete => Content::Tombstone,
            Change::Put { content, .. } => content.clone(),
        };
        let origin = self.store.identity().node;
        let number = lock(&self.audit).begins(self.slot, origin, &key, content, expected);
        let mut pending = Pending { audit: &self.audit, number, decided: false };
        let written =
            self.store.write(Write { key: key.clone(), change, conditions, uuid: None }).await;
        pending.decided = true;
        let mut audit = lock(&self.audit);
        match written {
            Ok(written) => {
                let previous: Option<Uuid> = written.previous.map(|(uuid, _)| uuid);
                audit.acknowledged(number, &written.header, previous);
                let note = format!("{} {key} {:?};", self.slot, written.header.version);
                self.network.note(&note);
            }
            Err(WriteError::PreconditionFailed { current }) => {
                audit.refused(number, current.map(|entry| entry.header.version.uuid));
            }
            Err(WriteError::OutcomeUnknown(_)) => audit.outcome_unknown(number),
            Err(
                WriteError::NotFound
                | WriteError::ClockSkewed { .. }
                | WriteError::StorageFull(_)
                | WriteError::ShuttingDown
                | WriteError::OtherRequest
                | WriteError::MemoryFull
                | WriteError::ContentTooLarge
                | WriteError::Failed(_),
            ) => audit.refused(number, None),
        }
    }
}
