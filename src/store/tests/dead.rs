//! The index of the dead, data of the format that had none, and collection by the floor, on both
//! engines.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::proto::stability::{Floor, floor};
use crate::store::disk::engine::{Opened as Writable, Visit};
use crate::store::feed::Cause;
use crate::store::write::collect::COLLECT_MAX;

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

fn at(micros: u64) -> Floor {
    Floor(Timestamp::saturating(micros))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_floor_passes_leaves_with_all_that_was_kept_of_it() {
    on_both(|opened, clock| async move {
        let store = &opened.store;
        store.found(false).await.unwrap();
        store.write(put("live", b"1")).await.unwrap();
        let live = store.fingerprint();
        for body in [&[1_u8; 100][..], b"2", &[3; 100]] {
            store.write(put("a", body)).await.unwrap();
        }
        let deleted = store.write(delete("a")).await.unwrap().header.version.timestamp.micros();
        let expiring = expiring(START, 1, START + 5 * SECOND);
        store.apply(vec![(key("b"), expiring.clone())]).await.unwrap();
        let mut feed = store.read_feed_from_now();
        // not even the time of this node has a say
        assert_eq!(store.adopt_floor(at(deleted - 1)).await.unwrap(), at(deleted - 1));
        store.check_invariants(true);
        assert_eq!(store.counts(), Counts { keys: 2, tombstones: 1 });
        assert_eq!(store.adopt_floor(at(deleted)).await.unwrap(), at(deleted));
        store.check_invariants(true);
        assert_eq!(store.counts(), Counts { keys: 2, tombstones: 0 });
        assert!(store.history(&key("a"), 100, 100).await.unwrap().is_empty());
        assert!(feed.try_next().is_none(), "what had been told to be dead is no news");
        assert_eq!(
            store.adopt_floor(at(START + 9 * SECOND)).await.unwrap(),
            at(START + 9 * SECOND)
        );
        store.check_invariants(true);
        assert_eq!(
            (store.counts(), store.fingerprint()),
            (Counts { keys: 1, tombstones: 0 }, live)
        );
        let told = feed.try_next().unwrap();
        assert_eq!((told.cause, &told.header), (Cause::Expiry, &expiring.header));
        assert!(feed.try_next().is_none());
        for family in [Family::Values, Family::History, Family::Expiry, Family::Dead] {
            assert!(entries(store.shared.engine.as_ref(), family).is_empty(), "{family:?}");
        }
        drop(feed);
        // the clock is behind the floor, and no write may be
        clock.set(START + SECOND);
        let again = store.write(put("a", b"again")).await.unwrap();
        assert_eq!((again.previous, again.header.parent), (None, None));
        assert_eq!(again.header.version.timestamp, at(START + 9 * SECOND).0.next());
        store.check_invariants(true);
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_floor_rises_in_bounded_steps_that_leave_no_instant_in_part() {
    on_both(|opened, _| async move {
        let store = &opened.store;
        let tombstone = |n: u64, at: u64| (key(&format!("k/{n}")), foreign(at, 1, None));
        // a thousand instants of one record each, then one of many
        let mut records: Vec<_> = (0..1000).map(|n| tombstone(n, START + n)).collect();
        records.extend((1000..3000).map(|n| tombstone(n, START + SECOND)));
        records.push(tombstone(3000, START + 2 * SECOND));
        store.apply(records).await.unwrap();
        let (mut steps, mut since) = (Vec::new(), Floor::default());
        loop {
            let to = Some(at(START + 9 * SECOND));
            let step = |reply| Job::Collect { to, since, reply };
            let collected = store.submit(step).await.unwrap();
            assert_eq!(store.ledger().floor, collected.floor);
            store.check_invariants(true);
            steps.push((collected.records, collected.floor));
            since = collected.floor;
            if !collected.more {
                break;
            }
        }
        let first = START + COLLECT_MAX - 1;
        let expected = [
            (COLLECT_MAX, at(first)),
            (1000 - COLLECT_MAX + 2000, at(START + SECOND)),
            (1, at(START + 9 * SECOND)),
        ];
        assert_eq!(steps, expected);
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_at_or_below_the_floor_is_refused_whether_its_key_is_held_or_not() {
    on_both(|opened, _| async move {
        let store = &opened.store;
        store.found(false).await.unwrap();
        let held = foreign(START - 9, 1, Some(b"held"));
        store.apply(vec![(key("held"), held.clone())]).await.unwrap();
        store.adopt_floor(at(START)).await.unwrap();
        let arriving = [
            (key("held"), foreign(START, 2, None)),
            (key("held"), foreign(START - 1, 2, Some(b"newer"))),
            (key("new"), foreign(START, 2, Some(b"new"))),
            (key("new"), foreign(START - 1, 2, None)),
        ];
        let refused = store.apply(arriving.to_vec()).await.unwrap();
        assert_eq!(refused, Applied { below_floor: 4, ..Applied::default() });
        let known = vec![(key("held"), held), (key("held"), foreign(START - 10, 1, None))];
        let kept = store.apply(known).await.unwrap();
        assert_eq!(kept, Applied { kept: 2, ..Applied::default() });
        let above = vec![(key("held"), foreign(START + 1, 2, None))];
        assert_eq!(store.apply(above).await.unwrap().replaced, 1);
        assert!(store.record(&key("new")).await.unwrap().is_none());
        store.check_invariants(true);
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_floor_of_a_node_that_is_alone_follows_its_point_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let memory: Arc<dyn Engine> = Arc::new(Memory::default());
    for engine in [memory, rocks(dir.path())] {
        let clock = Fixed::new(START, 1);
        let opened = Opened::new(engine.clone(), &clock);
        let store = &opened.store;
        store.found(false).await.unwrap();
        store.write(put("a", b"1")).await.unwrap();
        store.write(delete("a")).await.unwrap();
        assert_eq!(store.collect().await.unwrap().records, 0, "nobody has told a stable");
        let stop = tokio_util::sync::CancellationToken::new();
        clock.set(START + SECOND);
        let keeping = tokio::spawn(store.clone().keep_collected(stop.clone()));
        store
            .change_ledger(|ledger, now| {
                let _ = ledger.alone(now);
            })
            .await
            .unwrap();
        let mut ledger = store.watch_ledger();
        ledger.wait_for(|ledger| ledger.next_floor().is_none()).await.unwrap();
        assert_eq!(store.counts(), Counts::default());
        store.check_invariants(true);
        let floor = store.ledger().floor;
        assert_eq!(floor.0, store.ledger().point.0);
        stop.cancel();
        keeping.await.unwrap();
        opened.close();
        let opened = Opened::new(engine, &clock);
        assert_eq!(opened.store.ledger().floor, floor);
        let late = vec![(key("a"), foreign(START, 1, Some(b"late")))];
        assert_eq!(opened.store.apply(late).await.unwrap().below_floor, 1);
        opened.close();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_began_anew_is_not_raised_by_who_saw_the_one_before() {
    on_both(|opened, _| async move {
        let store = &opened.store;
        let (to, since) = (Some(at(START)), at(START - 1));
        let collected = store.submit(|reply| Job::Collect { to, since, reply }).await.unwrap();
        let nothing = Collected { records: 0, floor: Floor::default(), more: false };
        assert_eq!((collected, store.ledger().floor), (nothing, Floor::default()));
        opened.close();
    })
    .await;
}
