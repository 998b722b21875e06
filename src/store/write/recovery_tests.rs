//! A store whose engine fails, over the engine in memory: what is told, and that it goes on.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::clock::{Clock, Fixed};
use crate::model::{ContentType, Key};
use crate::store::disk::engine::{Engine, EngineError, Family, Opened, Transaction, Visit};
use crate::store::disk::memory::Memory;
use crate::store::{Change, Lifetime, ReadError, Settings, Store, Write, WriteError};
use crate::telemetry::Metrics;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The next commit fails; whether it takes place all the same.
    Commit { applied: bool },
    /// The next commit finds no file descriptor; whether it takes place all the same.
    NoDescriptor { applied: bool },
    /// It cannot be opened again.
    Reopen { full: bool },
}

#[derive(Debug, Default)]
struct Failing {
    memory: Memory,
    faults: Mutex<Vec<Fault>>,
    reopened: Mutex<u32>,
}

impl Failing {
    fn set(&self, faults: &[Fault]) {
        *self.faults.lock().unwrap() = faults.to_vec();
    }

    /// The fault that `which` is, taken away if `once`.
    fn has<T>(&self, once: bool, which: impl Fn(Fault) -> Option<T>) -> Option<T> {
        let mut faults = self.faults.lock().unwrap();
        let at = faults.iter().position(|fault| which(*fault).is_some())?;
        let found = which(faults[at]);
        if once {
            faults.remove(at);
        }
        found
    }

    fn times_opened(&self) -> u32 {
        *self.reopened.lock().unwrap()
    }
}

impl Engine for Failing {
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
        self.memory.scan(family, from, to, visit)
    }

    fn opened(&self) -> Result<Box<dyn Opened + '_>, EngineError> {
        Ok(Box::new(OpenedFailing { engine: self, memory: self.memory.opened()? }))
    }

    fn reopen(&self) -> Result<(), EngineError> {
        *self.reopened.lock().unwrap() += 1;
        let full = self.has(false, |fault| match fault {
            Fault::Reopen { full } => Some(full),
            Fault::Commit { .. } | Fault::NoDescriptor { .. } => None,
        });
        match full {
            Some(true) => Err(EngineError::Full("a test".to_owned())),
            Some(false) => Err(EngineError::Failed("a test".to_owned())),
            None => Ok(()),
        }
    }
}

struct OpenedFailing<'a> {
    engine: &'a Failing,
    memory: Box<dyn Opened + 'a>,
}

impl Opened for OpenedFailing<'_> {
    fn begin(&self) -> Box<dyn Transaction + '_> {
        Box::new(FailingTransaction { engine: self.engine, inner: self.memory.begin() })
    }
}

struct FailingTransaction<'a> {
    engine: &'a Failing,
    inner: Box<dyn Transaction + 'a>,
}

impl Transaction for FailingTransaction<'_> {
    fn get_for_update(&mut self, family: Family, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.inner.get_for_update(family, key)
    }

    fn put(&mut self, family: Family, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        self.inner.put(family, key, value)
    }

    fn delete(&mut self, family: Family, key: &[u8]) -> Result<(), EngineError> {
        self.inner.delete(family, key)
    }

    fn commit(self: Box<Self>) -> Result<(), EngineError> {
        let fails = self.engine.has(true, |fault| match fault {
            Fault::Commit { applied } => Some((applied, EngineError::Failed("a test".to_owned()))),
            Fault::NoDescriptor { applied } => {
                Some((applied, EngineError::NoDescriptor("a test".to_owned())))
            }
            Fault::Reopen { .. } => None,
        });
        if fails.as_ref().is_none_or(|(applied, _)| *applied) {
            self.inner.commit()?;
        }
        fails.map_or(Ok(()), |(_, error)| Err(error))
    }
}

fn open() -> (Arc<Failing>, Store, JoinHandle<()>) {
    let engine = Arc::new(Failing::default());
    let settings = Settings {
        blob_threshold_bytes: 64,
        clock_drift_max: std::time::Duration::from_secs(60),
        feed_entries_max: 16,
        feed_bytes_max: 1 << 20,
        superseded_bytes_max: 1 << 20,
        free_bytes_min: 0,
        boot: None,
        digest_key: [5; 32],
        cluster: None,
        history_depth: 3,
        idempotency_window: std::time::Duration::from_secs(3600),
        idempotency_bytes_max: 1 << 20,
        compared_bytes_max: 1 << 20,
    };
    let clock = Clock::from_source(Fixed::new(1_800_000_000_000_000, 1));
    let (store, writer) =
        Store::open(engine.clone(), clock, Metrics::new(), &settings).expect("it opens");
    (engine, store, tokio::spawn(writer.run(async |_| {})))
}

async fn put(store: &Store, at: &str) -> Result<(), WriteError> {
    let body = Bytes::from_static(b"value");
    let change = Change::put(ContentType::octet_stream(), body, Lifetime::Unbounded);
    let key = Key::parse(at).unwrap();
    let write = Write { key, change, conditions: Vec::new(), uuid: None };
    store.write(write).await.map(drop)
}

async fn is_there(store: &Store, at: &str) -> bool {
    store.get(&Key::parse(at).unwrap()).await.unwrap().is_some()
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_commit_the_store_finds_out_and_goes_on() {
    for applied in [false, true] {
        let (engine, store, writer) = open();
        put(&store, "before").await.unwrap();
        let mut feed = store.read_feed_from_now();
        engine.set(&[Fault::Commit { applied }]);
        let unknown = put(&store, "unknown").await.unwrap_err();
        assert!(matches!(unknown, WriteError::OutcomeUnknown(_)), "{unknown}");
        put(&store, "after").await.unwrap();
        assert_eq!(engine.times_opened(), 1);
        assert_eq!(is_there(&store, "unknown").await, applied);
        assert_eq!(store.counts().keys, 2 + u64::from(applied));
        assert_eq!(store.fingerprint(), store.recomputed_fingerprint().unwrap());
        if applied {
            // it was durable before its outcome was known
            assert_eq!(feed.next().await.unwrap().key.as_bytes(), b"unknown");
        }
        assert_eq!(feed.next().await.unwrap().key.as_bytes(), b"after");
        store.check_invariants(true);
        drop((store, feed));
        writer.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_without_a_descriptor_is_no_riddle_once_the_store_is_open_again() {
    let (engine, store, writer) = open();
    put(&store, "before").await.unwrap();
    engine.set(&[Fault::NoDescriptor { applied: false }]);
    let refused = put(&store, "refused").await.unwrap_err();
    let nothing = WriteError::Failed(ReadError::NoDescriptor(String::new()));
    assert_eq!(std::mem::discriminant(&refused), std::mem::discriminant(&nothing), "{refused}");
    assert!(refused.to_string().contains("nothing was written"), "{refused}");
    assert!(!is_there(&store, "refused").await);
    assert_eq!(engine.times_opened(), 1);
    put(&store, "after").await.unwrap();
    engine.set(&[Fault::NoDescriptor { applied: true }]);
    let unknown = put(&store, "applied").await.unwrap_err();
    assert!(matches!(unknown, WriteError::OutcomeUnknown(_)), "{unknown}");
    engine.set(&[Fault::NoDescriptor { applied: false }, Fault::Reopen { full: false }]);
    let unknown = put(&store, "unknown").await.unwrap_err();
    assert!(matches!(unknown, WriteError::OutcomeUnknown(_)), "{unknown}");
    engine.set(&[]);
    tokio::time::sleep(super::PAUSE_MAX * 2).await;
    put(&store, "last").await.unwrap();
    assert!(is_there(&store, "applied").await && !is_there(&store, "unknown").await);
    store.check_invariants(true);
    drop(store);
    writer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn while_it_cannot_be_opened_writes_are_refused_and_reads_go_on() {
    let (engine, store, writer) = open();
    put(&store, "before").await.unwrap();
    engine.set(&[Fault::Commit { applied: false }, Fault::Reopen { full: true }]);
    put(&store, "unknown").await.unwrap_err();
    for _ in 0..3 {
        let refused = put(&store, "refused").await.unwrap_err();
        assert!(matches!(refused, WriteError::StorageFull(_)), "{refused}");
    }
    assert!(is_there(&store, "before").await);
    let attempts = engine.times_opened();
    tokio::time::sleep(super::PAUSE_MAX * 3).await;
    assert!(engine.times_opened() > attempts, "it is tried again");
    engine.set(&[Fault::Reopen { full: false }]);
    tokio::time::sleep(super::PAUSE_MAX * 2).await;
    let refused = put(&store, "refused").await.unwrap_err();
    assert!(matches!(refused, WriteError::Failed(_)), "{refused}");
    engine.set(&[]);
    tokio::time::sleep(super::PAUSE_MAX * 2).await;
    put(&store, "after").await.unwrap();
    assert!(!is_there(&store, "refused").await && !is_there(&store, "unknown").await);
    drop(store);
    writer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_opened_lets_the_node_stop() {
    let (engine, store, writer) = open();
    engine.set(&[Fault::Commit { applied: false }, Fault::Reopen { full: false }]);
    put(&store, "unknown").await.unwrap_err();
    drop(store);
    writer.await.unwrap();
}
