//! Superseded writes: which are reported, with what, and how long.

use super::*;
use crate::clock::Fixed;
use crate::model::Prefix;
use crate::store::engine::Engine;
use crate::store::feed::{Cause, FeedPosition};
use crate::store::memory::Memory;

const SECOND: u64 = 1_000_000;

/// All reports that a store has.
async fn reports(store: &Store) -> SupersededPage {
    store.superseded(&Prefix::all(), None, 1000, 1 << 30).await.unwrap()
}

/// A record of node 9 that is a second younger than `than` and knows nothing of it.
fn winner(than: &Header, body: Option<&[u8]>) -> Record {
    foreign(than.version.timestamp.micros() + SECOND, 9, body)
}

async fn merge(store: &Store, at: &str, record: Record) {
    assert_eq!(store.apply(vec![(key(at), record)]).await.unwrap().replaced, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_loses_a_merge_is_reported_whole_and_once() {
    on_both(|opened, _| async move {
        let store = &opened.store;
        let values: [Option<&[u8]>; 4] = [Some(b"small"), Some(&[7; 9000]), Some(b""), None];
        for (at, value) in ["a", "b", "c", "d"].into_iter().zip(values) {
            store.write(put(at, b"first")).await.unwrap();
            let write = value.map_or_else(|| delete(at), |value| put(at, value));
            let lost = store.write(write).await.unwrap().header;
            let mut feed = store.read_feed_from_now();
            let record = winner(&lost, Some(b"won"));
            merge(store, at, record.clone()).await;
            let page = reports(store).await;
            let found = page.items.last().unwrap();
            assert_eq!((&found.key, found.causal, found.txn), (&key(at), Causal::Concurrent, None));
            assert_eq!(found.lost.header, lost);
            assert_eq!(found.lost.body.as_deref(), Some(value.unwrap_or_default()));
            let shown = found.winner.as_ref().unwrap();
            assert_eq!(shown.header, record.header);
            assert_eq!(shown.body.as_deref(), Some(&b"won"[..]));
            let number = page.items.len() as u64;
            assert_eq!((page.next.position, page.truncated), (number, false));
            // the loss is told before what took its place
            let told = feed.next().await.unwrap();
            let cause = Cause::Superseded { report: number };
            assert_eq!((told.cause, &told.header), (cause, &lost));
            assert_eq!(feed.next().await.unwrap().header, record.header);
            let read = FeedPosition { position: told.position - 1, ..store.feed_position() };
            assert_eq!(store.read_feed(read, 1).unwrap().unwrap()[0].cause, cause, "on the disk");
            drop(feed);
            let history = store.history(&key(at), 9, 9).await.unwrap();
            let outcomes: Vec<_> = history.iter().map(|revision| revision.outcome).collect();
            assert_eq!(outcomes, [Outcome::Current, Outcome::Superseded, Outcome::Replaced]);
            assert_eq!(history[1].by, Some(record.header.version.uuid));
            // again, and an older one: nothing is displaced
            let old = foreign(lost.version.timestamp.micros() - 1, 8, Some(b"old"));
            let again = vec![(key(at), record), (key(at), old)];
            assert_eq!(store.apply(again).await.unwrap().kept, 2);
            assert_eq!(reports(store).await.items.len() as u64, number);
        }
        store.check_invariants(true);
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_report_is_made_of_what_the_winner_knew_repeats_or_outlived() {
    on_both(|opened, clock| async move {
        let store = &opened.store;
        let own =
            |at: &'static str| async move { store.write(put(at, b"own")).await.unwrap().header };
        let knows = |record: &mut Record, header: &Header| {
            let (origin, timestamp) = (record.header.origin, record.header.version.timestamp);
            record.header.seen = Seen::after_write(Some(&header.seen), origin, timestamp);
        };
        let lost = own("known").await;
        let mut record = winner(&lost, Some(b"won"));
        knows(&mut record, &lost);
        merge(store, "known", record).await;
        // one that follows a write which knew it, although that one never came here
        let lost = own("line").await;
        let mut between = winner(&lost, Some(b"between"));
        knows(&mut between, &lost);
        let mut record = foreign(lost.version.timestamp.micros() + 2 * SECOND, 8, Some(b"won"));
        knows(&mut record, &between.header);
        merge(store, "line", record).await;
        // one request that was sent to two nodes
        let lost = own("same").await;
        let mut record = winner(&lost, Some(b"own"));
        record.header.version.uuid = lost.version.uuid;
        merge(store, "same", record).await;
        // a write of another node: that one reports it
        merge(store, "theirs", foreign(START, 8, Some(b"theirs"))).await;
        merge(store, "theirs", foreign(START + 1, 9, Some(b"won"))).await;
        // nothing, and one whose time was over
        merge(store, "none", foreign(START, 9, Some(b"won"))).await;
        let content_type = ContentType::octet_stream();
        let lifetime = Lifetime::For(Duration::from_secs(10));
        let value = Change::put(content_type, Bytes::from_static(b"own"), lifetime);
        let lost = store.write(plain("over", value)).await.unwrap().header;
        clock.set(START + 10 * SECOND + 1000);
        merge(store, "over", winner(&lost, Some(b"won"))).await;
        assert!(reports(store).await.items.is_empty(), "{:?}", reports(store).await);
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_list_of_the_winner_was_cut_nobody_knows() {
    on_both(|opened, _| async move {
        let lost = opened.store.write(put("a", b"own")).await.unwrap().header;
        let mut record = winner(&lost, None);
        let timestamp = record.header.version.timestamp;
        let many = (100..120).fold(None, |seen: Option<Seen>, node| {
            Some(Seen::after_write(seen.as_ref(), NodeId::from_u128(node), timestamp))
        });
        record.header.seen = Seen::after_write(many.as_ref(), record.header.origin, timestamp);
        merge(&opened.store, "a", record).await;
        let page = reports(&opened.store).await;
        assert_eq!(page.items[0].causal, Causal::Unknown);
        assert_eq!(
            page.items[0].winner.as_ref().unwrap().body.as_deref(),
            Some(&b""[..]),
            "a delete"
        );
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_part_of_a_transaction_names_it() {
    on_both(|opened, _| async move {
        let store = &opened.store;
        let change = |at: &str| Operation::Write(key(at), put(at, b"own").change);
        let done = store.txn(Txn {
            compare: Vec::new(),
            success: vec![change("a"), change("b")],
            failure: Vec::new(),
            uuid: None,
            content_bytes_max: 0,
        });
        done.await.unwrap();
        let lost = store.head(&key("a")).await.unwrap().unwrap();
        merge(store, "a", winner(&lost, Some(b"won"))).await;
        let page = reports(store).await;
        assert_eq!(page.items[0].txn, Some(lost.version.uuid));
        assert_eq!(store.head(&key("b")).await.unwrap().unwrap().version.uuid, lost.version.uuid);
        opened.close();
    })
    .await;
}

#[tokio::test]
async fn reports_outlive_the_process_and_are_read_on_from_where_one_was() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Fixed::new(START, 1));
    let mut since = None;
    for round in 0..3 {
        let node = Opened::new(rocks(dir.path()), &clock);
        let lost = node.store.write(put("app/a", &[round; 9000])).await.unwrap().header;
        merge(&node.store, "app/a", winner(&lost, Some(b"won"))).await;
        let page = node.store.superseded(&Prefix::all(), since, 9, 1 << 20).await.unwrap();
        assert_eq!(page.items.len(), 1, "round {round}");
        assert_eq!(page.items[0].lost.body.as_deref(), Some(&[round; 9000][..]));
        assert!(!page.truncated);
        let other = Prefix::parse("app/a").unwrap();
        let rest = node.store.superseded(&other, None, 9, 1 << 20).await.unwrap();
        assert!(rest.items.is_empty() && rest.next == page.next, "the key is no prefix of itself");
        since = Some(page.next);
        node.store.check_invariants(true);
        node.close();
    }
}

#[tokio::test]
async fn when_there_is_no_room_the_oldest_reports_go_and_that_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let memory: Arc<dyn Engine> = Arc::new(Memory::default());
    for engine in [memory, rocks(dir.path())] {
        let clock = Fixed::new(START, 1);
        let settings = Settings { superseded_bytes_max: 8000, ..settings() };
        let node = Opened::with(engine.clone(), &clock, &settings);
        for round in 0..30 {
            let at = format!("key/{round}");
            let lost = node.store.write(put(&at, &[round; 100])).await.unwrap().header;
            merge(&node.store, &at, winner(&lost, Some(b"won"))).await;
        }
        let page = reports(&node.store).await;
        assert!(page.truncated && (5..30).contains(&page.items.len()), "{}", page.items.len());
        assert_eq!(page.items.last().unwrap().key, key("key/29"));
        assert_eq!(page.next.position, 30);
        let seen = FeedPosition { position: 29, ..page.next };
        let late = node.store.superseded(&Prefix::all(), Some(seen), 9, 99).await.unwrap();
        assert!(late.items.len() == 1 && !late.truncated, "nothing after it was dropped");
        node.store.check_invariants(true);
        // one that is larger than all of the room
        let lost = node.store.write(put("large", &[7; 10_000])).await.unwrap().header;
        merge(&node.store, "large", winner(&lost, Some(b"won"))).await;
        let page = reports(&node.store).await;
        assert_eq!((page.items.len(), page.truncated), (1, true));
        assert_eq!(page.items[0].lost.body.as_ref().unwrap().len(), 10_000);
        node.store.check_invariants(true);
        node.close();
    }
}
