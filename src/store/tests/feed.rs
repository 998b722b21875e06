//! The feed: what stays within the window, what a reader is told when it does not, and when an
//! epoch ends.

use super::*;
use crate::clock::Fixed;
use crate::proto::stability::Anew;
use crate::store::engine::Engine;
use crate::store::feed::{Cause, FeedEntry, FeedPosition, Missed};
use crate::store::memory::Memory;

/// A store over `engine` with a window of `feed_bytes_max`, in the boot `boot`.
fn open(engine: &Arc<dyn Engine>, feed_bytes_max: u64, boot: Option<&str>) -> Opened {
    // each start of a node draws other entropy
    static STARTS: AtomicU64 = AtomicU64::new(7);
    let seed = STARTS.fetch_add(1, Ordering::Relaxed);
    let settings = Settings { feed_bytes_max, boot: boot.map(str::to_owned), ..settings() };
    Opened::with(engine.clone(), &Fixed::new(START, seed), &settings)
}

fn keys(entries: &[FeedEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.key.as_str()).collect()
}

#[tokio::test]
async fn a_reader_goes_on_where_it_was_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = open(&rocks(dir.path()), 1 << 20, None);
    node.store.write(put("before", b"1")).await.unwrap();
    let read = node.store.feed_position();
    for at in ["b", "a", "c"] {
        node.store.write(put(at, b"2")).await.unwrap();
    }
    let (memory, record) = (Arc::new(Memory::default()), node.store.record(&key("a")).await);
    let peer = open(&(memory as Arc<dyn Engine>), 1 << 20, None);
    peer.store.apply(vec![(key("a"), record.unwrap().unwrap())]).await.unwrap();
    node.close();

    let node = open(&rocks(dir.path()), 1 << 20, None);
    node.store.write(put("d", b"3")).await.unwrap();
    let entries = node.store.read_feed(read, 100).unwrap().unwrap();
    assert_eq!(keys(&entries), ["b", "a", "c", "d"]);
    assert!(entries.iter().all(|entry| entry.cause == Cause::Client));
    assert_eq!(entries.iter().map(|e| e.position).collect::<Vec<_>>(), [2, 3, 4, 5]);
    assert_eq!(node.store.read_feed(node.store.feed_position(), 100).unwrap(), Some(Vec::new()));
    // positions of another node mean nothing here
    let begin = FeedPosition { position: 0, ..peer.store.feed_position() };
    assert_eq!(peer.store.read_feed(begin, 9).unwrap().unwrap()[0].cause, Cause::Peer);
    assert_eq!(node.store.read_feed(begin, 100).unwrap(), None);
    let future = FeedPosition { position: 100, ..node.store.feed_position() };
    assert_eq!(node.store.read_feed(future, 100).unwrap(), None);
    node.close();
    peer.close();
}

#[tokio::test]
async fn the_window_is_bounded_and_a_reader_that_it_has_passed_learns_so() {
    let dir = tempfile::tempdir().unwrap();
    let memory: Arc<dyn Engine> = Arc::new(Memory::default());
    for engine in [memory, rocks(dir.path())] {
        let node = open(&engine, 4096, None);
        let begin = node.store.feed_position();
        let mut reader = node.store.read_feed_from_now();
        for n in 0..200 {
            node.store.write(put(&format!("key/{n}"), b"value")).await.unwrap();
        }
        let mut bytes = 0;
        let count = &mut |key: &[u8], value: &[u8]| {
            bytes += (key.len() + value.len()) as u64;
            std::ops::ControlFlow::Continue(())
        };
        engine.scan(engine::Family::Feed, &[], None, count).unwrap();
        assert!((2048..=4096).contains(&bytes), "{bytes} bytes on the disk");
        assert_eq!(node.store.read_feed(begin, 1000).unwrap(), None);
        let late = FeedPosition { position: 195, ..begin };
        let kept = node.store.read_feed(late, 1000).unwrap().unwrap();
        assert_eq!(keys(&kept), ["key/195", "key/196", "key/197", "key/198", "key/199"]);
        // the ring holds 16 changes, the window about 20
        assert_eq!(reader.next().await, Err(Missed { entries: 200 }));
        node.store.write(put("after", b"1")).await.unwrap();
        assert_eq!(reader.next().await.unwrap().key, key("after"));
        drop(reader);
        node.store.check_invariants(true);
        node.close();
    }
}

#[tokio::test]
async fn a_reader_that_fell_behind_the_ring_reads_the_disk() {
    let node = open(&(Arc::new(Memory::default()) as Arc<dyn Engine>), 1 << 20, None);
    let mut reader = node.store.read_feed_from_now();
    for n in 0..100 {
        node.store.write(put(&format!("key/{n}"), b"value")).await.unwrap();
    }
    for n in 0..100 {
        assert_eq!(reader.next().await.unwrap().key, key(&format!("key/{n}")));
    }
    assert_eq!(reader.try_next(), None);
    drop(reader);
    node.close();
}

#[tokio::test]
async fn one_group_of_many_changes_is_read_piece_by_piece() {
    let origin = open(&(Arc::new(Memory::default()) as Arc<dyn Engine>), 1 << 20, None);
    let mut records = Vec::new();
    for n in 0..700 {
        let at = format!("key/{n:03}");
        origin.store.write(put(&at, b"value")).await.unwrap();
        records.push((key(&at), origin.store.record(&key(&at)).await.unwrap().unwrap()));
    }
    origin.close();
    let node = open(&(Arc::new(Memory::default()) as Arc<dyn Engine>), 1 << 20, None);
    let mut read = node.store.feed_position();
    node.store.apply(records).await.unwrap();
    let mut found = 0;
    while read != node.store.feed_position() {
        let entries = node.store.read_feed(read, 100).unwrap().unwrap();
        assert!((1..356).contains(&entries.len()), "{} at once", entries.len());
        assert_eq!(entries[0].position, read.position + 1);
        (found, read.position) = (found + entries.len(), read.position + entries.len() as u64);
    }
    assert_eq!(found, 700);
    node.store.check_invariants(true);
    node.close();
}

#[tokio::test]
async fn another_boot_ends_the_epoch_where_commits_do_not_wait_for_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut positions = Vec::new();
    for boot in [None, None, Some("1"), Some("1"), Some("2"), None] {
        let node = open(&rocks(dir.path()), 1 << 20, boot);
        node.store.write(put("key", b"value")).await.unwrap();
        positions.push(node.store.feed_position());
        for (before, now) in positions.iter().zip(positions.iter().skip(1)) {
            assert!(before.position < now.position, "no position is given twice");
        }
        let whole = node.store.read_feed(FeedPosition { position: 0, ..positions[0] }, 9).unwrap();
        let is_first_epoch = positions.last().unwrap().epoch == positions[0].epoch;
        assert_eq!(whole.map(|entries| entries.len()), is_first_epoch.then_some(positions.len()));
        node.close();
    }
    let epochs: Vec<_> = positions.iter().map(|position| position.epoch).collect();
    assert_eq!(epochs[0], epochs[1], "commits waited for the disk");
    assert_ne!(epochs[1], epochs[2], "nobody knows whether the machine has booted since");
    assert_eq!(epochs[2], epochs[3], "the same boot");
    assert_ne!(epochs[3], epochs[4], "another boot");
    assert_eq!(epochs[4], epochs[5]);
}

#[tokio::test]
async fn whoever_followed_the_feed_before_records_were_set_aside_reads_the_records_anew() {
    let dir = tempfile::tempdir().unwrap();
    let memory: Arc<dyn Engine> = Arc::new(Memory::default());
    for engine in [memory, rocks(dir.path())] {
        let node = open(&engine, 1 << 20, None);
        let store = &node.store;
        let aside = store.write(put("aside", b"1")).await.unwrap().header;
        let kept = store.write(put("kept", b"1")).await.unwrap().header;
        let before = store.feed_position();
        let mut reader = store.read_feed_from_now();
        // it is not the record that was kept elsewhere: nothing leaves the store
        store.set_aside(vec![(key("kept"), aside.clone())]).await.unwrap();
        assert_eq!(store.feed_position(), before);
        store.set_aside(vec![(key("aside"), aside)]).await.unwrap();
        let now = store.feed_position();
        assert_ne!(now.epoch, before.epoch);
        assert_eq!(store.read_feed(before, 9).unwrap(), None, "not a gap that nobody sees");
        assert_eq!(store.read_feed(now, 9).unwrap(), Some(Vec::new()));
        store.write(put("after", b"1")).await.unwrap();
        assert!(reader.next().await.is_err());
        store.write(put("later", b"1")).await.unwrap();
        assert_eq!(reader.next().await.unwrap().key, key("later"));
        assert_eq!(keys(&store.read_feed(now, 9).unwrap().unwrap()), ["after", "later"]);
        assert_eq!(store.history(&key("kept"), 1, 0).await.unwrap()[0].header, kept);
        store.check_invariants(true);
        drop(reader);
        node.close();

        let node = open(&engine, 1 << 20, None);
        assert_eq!(keys(&node.store.read_feed(now, 9).unwrap().unwrap()), ["after", "later"]);
        assert_eq!(node.store.read_feed(before, 9).unwrap(), None);
        node.close();
    }
}

#[tokio::test]
async fn a_node_that_begins_anew_begins_another_epoch() {
    for sets_aside in [false, true] {
        let engine: Arc<dyn Engine> = Arc::new(Memory::default());
        let node = open(&engine, 1 << 20, None);
        node.store.found(false).await.unwrap();
        let header = node.store.write(put("a", b"1")).await.unwrap().header;
        let them = node.store.ledger().introduce(Timestamp::saturating(START));
        node.store.begin_anew(Anew::NotCounted, them).await.unwrap();
        if sets_aside {
            // nor does one go on that begins between
            node.store.set_aside(vec![(key("a"), header)]).await.unwrap();
        }
        let before = node.store.feed_position();
        node.close();
        let node = open(&engine, 1 << 20, None);
        assert_ne!(node.store.feed_position().epoch, before.epoch);
        assert_eq!(node.store.read_feed(before, 9).unwrap(), None);
        node.close();
    }
}
