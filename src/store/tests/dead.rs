//! The index of the dead, and data of the format that had none, on both engines.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::proto::stability::floor;
use crate::store::disk::engine::{Opened as Writable, Visit};

const SECOND: u64 = 1_000_000;

/// All entries of a family.
fn entries(engine: &dyn Engine, family: Family) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    let visit = &mut |entry: &[u8], _: &[u8]| {
        found.insert(entry.to_vec());
        ControlFlow::Continue(())
    };
    engine.scan(family, &[], None, visit).unwrap();
    found
}

fn change(engine: &dyn Engine, change: impl FnOnce(&mut dyn super::engine::Transaction)) {
    let opened = engine.opened().unwrap();
    let mut transaction = opened.begin();
    change(transaction.as_mut());
    transaction.commit().unwrap();
}

/// A value of another node that expires at `at`.
fn expiring(timestamp: u64, node: u128, at: u64) -> Record {
    let mut record = foreign(timestamp, node, Some(&[7; 100]));
    record.header.expires_at = Some(Timestamp::saturating(at));
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_of_the_dead_follows_each_change_of_a_record() {
    on_both(|opened, clock| async move {
        let store = &opened.store;
        let engine = store.shared.engine.as_ref();
        let check = |expected: &[(&str, u64)]| {
            store.check_invariants(true);
            let at = |(at, micros): &(&str, u64)| {
                layout::expiry_key(Timestamp::saturating(*micros), &key(at))
            };
            assert_eq!(entries(engine, Family::Dead), expected.iter().map(at).collect());
        };
        store.write(put("a", b"1")).await.unwrap();
        check(&[]);
        let deleted = store.write(delete("a")).await.unwrap().header.version.timestamp.micros();
        let early = expiring(START, 1, START + 5 * SECOND);
        // dead already when it was written
        let late = expiring(START + SECOND, 1, START);
        store.apply(vec![(key("b"), early), (key("c"), late.clone())]).await.unwrap();
        let b = ("b", START + 5 * SECOND);
        check(&[("a", deleted), b, ("c", START + SECOND)]);
        clock.set(START + 9 * SECOND);
        store.sweep().await.unwrap();
        check(&[("a", deleted), b, ("c", START + SECOND)]);
        // the twin of equal timestamp has the same entry
        let mut twin = late;
        twin.header.version.uuid = Uuid::max();
        assert_eq!(store.apply(vec![(key("c"), twin)]).await.unwrap().replaced, 1);
        check(&[("a", deleted), b, ("c", START + SECOND)]);
        store.write(put("a", b"2")).await.unwrap();
        store.write(put("b", b"2")).await.unwrap();
        store.write(put("c", b"2")).await.unwrap();
        check(&[]);
        opened.close();
    })
    .await;
}

/// A store on `engine` with many dead records, as format 2 has it; gives its fingerprint.
async fn as_format_2(engine: &Arc<dyn Engine>, dead: u64) -> [u8; 32] {
    let clock = Fixed::new(START, 1);
    let opened = Opened::new(engine.clone(), &clock);
    let mut records: Vec<_> =
        (0..dead).map(|n| (key(&format!("dead/{n}")), foreign(START + n, 1, None))).collect();
    records.push((key("later"), expiring(START, 1, START + 100 * SECOND)));
    records.push((key("live"), foreign(START, 1, Some(b"live"))));
    opened.store.apply(records).await.unwrap();
    let fingerprint = opened.store.fingerprint();
    opened.close();
    let index = entries(engine.as_ref(), Family::Dead);
    assert_eq!(index.len() as u64, dead + 1);
    change(engine.as_ref(), |transaction| {
        for entry in index {
            transaction.delete(Family::Dead, &entry).unwrap();
        }
        transaction.put(Family::Meta, layout::FORMAT.as_bytes(), &2_u32.to_le_bytes()).unwrap();
    });
    fingerprint
}

fn format(engine: &dyn Engine) -> u32 {
    let bytes = engine.get(Family::Meta, layout::FORMAT.as_bytes()).unwrap().unwrap();
    u32::from_le_bytes(bytes[..].try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_format_2_opens_and_gets_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let memory: Arc<dyn Engine> = Arc::new(Memory::default());
    for engine in [memory, rocks(dir.path())] {
        // more than one transaction
        let before = as_format_2(&engine, 10_000).await;
        let opened = Opened::new(engine.clone(), &Fixed::new(START, 1));
        assert_eq!(format(engine.as_ref()), layout::FORMAT_VERSION);
        assert_eq!(entries(engine.as_ref(), Family::Dead).len(), 10_001);
        opened.store.check_invariants(true);
        assert_eq!(opened.store.fingerprint(), before);
        opened.store.write(put("dead/1", b"again")).await.unwrap();
        opened.store.check_invariants(true);
        opened.close();
    }
}

/// The engine in memory, on a disk with room for some more transactions.
#[derive(Default)]
struct Filling {
    memory: Memory,
    room: AtomicUsize,
}

impl Engine for Filling {
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

    fn opened(&self) -> Result<Box<dyn Writable + '_>, EngineError> {
        let take = |room: usize| room.checked_sub(1);
        match self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => self.memory.opened(),
            Err(_) => Err(EngineError::Full("a test".to_owned())),
        }
    }

    fn reopen(&self) -> Result<(), EngineError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_was_cut_begins_again_and_forgets_its_first_attempt() {
    let filling = Arc::new(Filling::default());
    filling.room.store(usize::MAX, Ordering::Relaxed);
    let engine: Arc<dyn Engine> = filling.clone();
    as_format_2(&engine, 10_000).await;
    let open = || {
        let clock = Clock::from_source(Fixed::new(START, 1));
        Store::open(engine.clone(), clock, Metrics::new(), &settings())
    };
    // three transactions of the index, then the format
    for room in 0..4 {
        filling.room.store(room, Ordering::Relaxed);
        let error = open().err().expect("no room");
        assert!(matches!(error, OpenError::NotMigrated { found: 2, .. }), "{error}");
        assert!(error.to_string().contains("free space"), "{error}");
        assert_eq!(format(engine.as_ref()), 2, "the older kvs goes on");
    }
    // it does: a record that has an entry by now is replaced
    filling.room.store(usize::MAX, Ordering::Relaxed);
    let header = foreign(START + 9 * SECOND, 1, Some(b"again")).header;
    let (hash, body) = (header.hash(), layout::Body::Inline(Bytes::from_static(b"again")));
    let (marks, revisions) = (Marks::default(), (0, 0));
    assert_eq!(floor::goes_at(&header), None);
    let again = Stored { header, hash, marks, revisions, body };
    change(engine.as_ref(), |transaction| {
        transaction.put(Family::Records, b"dead/1", &again.encode()).unwrap();
    });
    let (store, _writer) = open().unwrap();
    store.check_invariants(true);
    assert_eq!(entries(engine.as_ref(), Family::Dead).len(), 10_000);
}
