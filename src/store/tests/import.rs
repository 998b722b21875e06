//! Import under kept versions: what keeps its version, what is left alone, what is written anew.

use super::*;
use crate::model::Prefix;
use crate::proto::stability::{Floor, Point};
use crate::store::{Imported, ImportedRecord, NodeMode};

const SECOND: u64 = 1_000_000;

/// A line of an export of node 9.
fn line(at: &str, timestamp: u64, body: &[u8]) -> ImportedRecord {
    let mut record = foreign(timestamp, 9, Some(body));
    let version = record.header.version;
    record.header.seen = Seen::of_unknown_line(record.header.origin, version.timestamp);
    ImportedRecord { key: key(at), record }
}

async fn import(store: &Store, lines: &[ImportedRecord]) -> [u64; 4] {
    let Imported { written, lost, restamped, expired } =
        store.import(lines.to_vec()).await.unwrap();
    [written, lost, restamped, expired]
}

async fn header(store: &Store, at: &str) -> Header {
    store.history(&key(at), 1, 0).await.unwrap()[0].header.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_wins_keeps_its_version_and_what_loses_is_left_alone() {
    on_both(|opened, _| async move {
        let store = &opened.store;
        let own = store.write(put("newer", b"own")).await.unwrap().header;
        let old = START - 10 * SECOND;
        let mut ended = line("ended", old, b"x");
        ended.record.header.expires_at = Some(Timestamp::saturating(START - SECOND));
        let mut leased = line("lives", old, &[7; 900]);
        leased.record.header.expires_at = Some(Timestamp::saturating(START + 900 * SECOND));
        let lines = [line("a", old, b"x"), leased, ended, line("newer", old, b"x")];
        assert_eq!(import(store, &lines).await, [2, 1, 0, 1]);
        for line in &lines[..2] {
            assert_eq!(header(store, line.key.as_str()).await, line.record.header);
        }
        assert_eq!(header(store, "newer").await, own);
        assert_eq!(store.counts().keys, 3);
        let print = store.fingerprint();
        assert_eq!(import(store, &lines).await, [0, 3, 0, 1], "again");
        assert_eq!(store.fingerprint(), print);
        // deleted here after the export was made: it stays deleted
        store.write(delete("a")).await.unwrap();
        assert_eq!(import(store, &lines[..1]).await, [0, 1, 0, 0]);
        let many: Vec<_> = (0..1000).map(|n| line(&format!("m/{n}"), old + n, b"x")).collect();
        assert_eq!(import(store, &many).await, [1000, 0, 0, 0]);
        store.check_invariants(true);
        opened.close();
    })
    .await;
}

/// A node that told others its point nine seconds before `START`.
async fn told(engine: Arc<dyn Engine>, cluster: Option<Uuid>) -> Opened {
    let settings = Settings { cluster, ..settings() };
    let opened = Opened::with(engine, &Fixed::new(START, 1), &settings);
    let point = Point(Timestamp::saturating(START - 9 * SECOND));
    opened.store.change_ledger(move |ledger, _| ledger.point = point).await.unwrap();
    opened
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_ahead_or_below_a_told_point_is_written_anew_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let memory: Arc<dyn Engine> = Arc::new(Memory::default());
    for engine in [memory, rocks(dir.path())] {
        let opened = told(engine, Some(Uuid::from_u128(1))).await;
        let store = &opened.store;
        let (old, ahead) = (START - 10 * SECOND, START + 50 * SECOND);
        let lines = [
            line("ahead", ahead, b"x"),
            line("below", old, b"x"),
            line("above", START - 8 * SECOND, b"x"),
        ];
        assert_eq!(import(store, &lines).await, [1, 0, 2, 0]);
        for line in &lines[..2] {
            let now = header(store, line.key.as_str()).await;
            let version = now.version;
            assert_eq!(version.uuid, line.record.header.version.uuid, "uuids are kept");
            assert_eq!(now.origin, store.identity().node);
            assert!((START..ahead).contains(&version.timestamp.micros()), "{version:?}");
        }
        assert_eq!(import(store, &lines).await, [0, 3, 0, 0], "again");
        store.check_invariants(true);
        opened.close();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_cluster_keeps_all_versions_but_those_that_the_floor_would_collect() {
    let opened = told(Arc::new(Memory::default()), None).await;
    let store = &opened.store;
    store.found(false).await.unwrap();
    let mut ends = line("ends", START - 10 * SECOND, b"x");
    ends.record.header.expires_at = Some(Timestamp::saturating(START + SECOND));
    let lines = [line("old", START - 10 * SECOND, b"x"), ends.clone()];
    assert_eq!(import(store, &lines).await, [2, 0, 0, 0]);
    // an adopted floor lies ahead of the clock
    store.adopt_floor(Floor(Timestamp::saturating(START + 2 * SECOND))).await.unwrap();
    assert!(store.get(&key("ends")).await.unwrap().is_none());
    assert_eq!(import(store, &lines).await, [0, 1, 1, 0]);
    assert!(header(store, "ends").await.version.timestamp.micros() > START + 2 * SECOND);
    store.check_invariants(true);
    opened.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_this_node_that_an_import_displaces_is_reported_unless_it_was_known() {
    on_both(|opened, clock| async move {
        let store = &opened.store;
        let displaced = store.write(put("a", b"own")).await.unwrap().header;
        let known = store.write(put("b", b"own")).await.unwrap().header;
        clock.pass(Duration::from_secs(100));
        let mut follows = line("b", START + 50 * SECOND, b"x");
        follows.record.header.parent = Some(known.version.uuid);
        let lines = [line("a", START + 50 * SECOND, b"x"), follows];
        assert_eq!(import(store, &lines).await, [2, 0, 0, 0]);
        let page = store.superseded(&Prefix::all(), None, 10, 1 << 20).await.unwrap();
        assert_eq!(page.items.len(), 1);
        assert_eq!(
            (&page.items[0].lost.header, page.items[0].causal),
            (&displaced, Causal::Unknown)
        );
        store.check_invariants(true);
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_takes_no_writes_imports_nothing() {
    on_both(|opened, _| async move {
        let store = &opened.store;
        store.set_mode(NodeMode::ReadOnly).await.unwrap();
        let refused = store.import(vec![line("a", START - SECOND, b"x")]).await;
        assert!(matches!(refused, Err(WriteError::ReadOnly)));
        assert_eq!(store.counts().keys, 0);
        opened.close();
    })
    .await;
}
