//! The store on both engines: decisions, what stays after reopening, the digest against a
//! recomputed one.

mod ahead;
mod dead;
mod feed;
mod import;
mod ledger;
mod lives;
mod machine;
pub(crate) mod racing;
mod superseded;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::disk::engine::EngineError;
use super::disk::layout::{Marks, Stored};
use super::disk::memory::Memory;
use super::disk::rocks::Rocks;
use super::*;
use crate::clock::Fixed;
use crate::model::Record;
use crate::model::{
    Condition, Content, ContentType, Expected, Header, Seen, Timestamp, Version, json,
};

pub(super) const START: u64 = 1_800_000_000_000_000;

fn settings() -> Settings {
    Settings {
        blob_threshold_bytes: 64,
        clock_drift_max: Duration::from_secs(60),
        feed_entries_max: 16,
        feed_bytes_max: 1 << 20,
        superseded_bytes_max: 1 << 20,
        free_bytes_min: 0,
        boot: None,
        digest_key: [5; 32],
        cluster: None,
        history_depth: 3,
        idempotency_window: Duration::from_secs(3600),
        idempotency_bytes_max: 1 << 20,
        compared_bytes_max: 64 << 10,
    }
}

/// A store whose writer runs on a thread of its own, as in a node.
pub(super) struct Opened {
    pub(super) store: Store,
    writer: std::thread::JoinHandle<()>,
}

impl Opened {
    pub(super) fn new(engine: Arc<dyn Engine>, clock: &Arc<Fixed>) -> Self {
        Self::with(engine, clock, &settings())
    }

    pub(super) fn with(engine: Arc<dyn Engine>, clock: &Arc<Fixed>, settings: &Settings) -> Self {
        let clock = Clock::from_source(clock.clone());
        let (store, writer) = Store::open(engine, clock, Metrics::new(), settings).unwrap();
        Self { store, writer: std::thread::spawn(move || writer.run_blocking()) }
    }

    pub(super) fn close(self) {
        drop(self.store);
        self.writer.join().unwrap();
    }
}

pub(super) fn rocks(dir: &Path) -> Arc<dyn Engine> {
    Arc::new(Rocks::open(dir, 1 << 20, false).unwrap())
}

pub(super) fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

pub(super) fn put(at: &str, body: &[u8]) -> Write {
    let content_type = ContentType::octet_stream();
    let body = Bytes::copy_from_slice(body);
    plain(at, Change::put(content_type, body, Lifetime::Unbounded))
}

pub(super) fn plain(at: &str, change: Change) -> Write {
    Write { key: key(at), change, conditions: Vec::new(), uuid: None }
}

pub(super) fn delete(at: &str) -> Write {
    plain(at, Change::Delete)
}

pub(super) fn expecting(mut write: Write, expected: Expected) -> Write {
    write.conditions.push(Condition::Expect(expected));
    write
}

/// A record of another node.
pub(super) fn foreign(timestamp: u64, node: u128, body: Option<&[u8]>) -> Record {
    let origin = NodeId::from_u128(node);
    let timestamp = Timestamp::saturating(timestamp);
    let header = Header {
        version: Version {
            timestamp,
            origin_joined_at: Timestamp::saturating(1),
            uuid: Uuid::from_u128(node << 64 | u128::from(timestamp.micros())),
        },
        origin,
        parent: None,
        seen: Seen::after_write(None, origin, timestamp),
        expires_at: None,
        content: body
            .map_or(Content::Tombstone, |body| Content::value(ContentType::octet_stream(), body)),
    };
    Record { header, body: Bytes::copy_from_slice(body.unwrap_or_default()) }
}

/// Runs a test on both engines.
pub(super) async fn on_both<F: Future<Output = ()>>(test: impl Fn(Opened, Arc<Fixed>) -> F) {
    let clock = Fixed::new(START, 1);
    test(Opened::new(Arc::new(Memory::default()), &clock), clock).await;
    let (dir, clock) = (tempfile::tempdir().unwrap(), Fixed::new(START, 1));
    test(Opened::new(rocks(dir.path()), &clock), clock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_takes_the_place_of_the_last_and_names_it() {
    on_both(|opened, _| async move {
        let store = &opened.store;
        let first = store.write(put("a", b"1")).await.unwrap();
        assert!(first.previous.is_none() && first.header.parent.is_none());
        let second = store.write(put("a", &[7; 1000])).await.unwrap();
        let version = first.header.version;
        assert_eq!(second.previous, Some((version.uuid, version.timestamp)));
        assert_eq!(second.header.parent, Some(version.uuid));
        assert_eq!(second.header.version.timestamp, version.timestamp.next());
        let entry = store.get(&key("a")).await.unwrap().unwrap();
        assert_eq!((entry.header, entry.body.unwrap()), (second.header, vec![7; 1000].into()));
        let deleted = store.write(delete("a")).await.unwrap();
        assert!(store.get(&key("a")).await.unwrap().is_none());
        assert!(matches!(store.write(delete("a")).await, Err(WriteError::NotFound)));
        let third = store.write(put("a", b"3")).await.unwrap();
        assert_eq!(third.previous, None, "a dead record is no value");
        assert_eq!(third.header.parent, Some(deleted.header.version.uuid));
        assert_eq!(store.counts(), Counts { keys: 1, tombstones: 0 });
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_64_swaps_that_expect_one_version_exactly_one_wins() {
    on_both(|opened, _| async move {
        let first = opened.store.write(put("a", b"0")).await.unwrap().header.version.uuid;
        let swaps = (0..64).map(|n| {
            let store = opened.store.clone();
            let swap = expecting(put("a", &[n]), Expected::Uuid(first));
            tokio::spawn(async move { store.write(swap).await })
        });
        let mut won = Vec::new();
        let swaps: Vec<_> = swaps.collect();
        let mut refused = Vec::new();
        for swap in swaps {
            match swap.await.unwrap() {
                Ok(written) => won.push(written),
                Err(WriteError::PreconditionFailed { current }) => refused.push(current.unwrap()),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((won.len(), refused.len()), (1, 63));
        for current in refused {
            assert_eq!(current.header, won[0].header, "the refusal shows the winner");
        }
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_swaps_of_one_json_counter_each_counts_once() {
    on_both(|opened, _| async move {
        opened.store.write(put("a", b"0")).await.unwrap();
        let json = |text: String| Expected::Json(json::Text::new(text.into()).unwrap());
        let add = |store: Store| async move {
            loop {
                let entry = store.get(&key("a")).await.unwrap().unwrap();
                let text = String::from_utf8(entry.body.unwrap().to_vec()).unwrap();
                let next = text.parse::<u32>().unwrap() + 1;
                let swap = put("a", next.to_string().as_bytes());
                // another text of the same number
                match store.write(expecting(swap, json(format!(" {text}.0 ")))).await {
                    Ok(_) => return,
                    Err(WriteError::PreconditionFailed { current }) => {
                        assert_ne!(current.unwrap().body.unwrap(), text, "equal, and refused");
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let all: Vec<_> = (0..32).map(|_| tokio::spawn(add(opened.store.clone()))).collect();
        for one in all {
            one.await.unwrap();
        }
        let entry = opened.store.get(&key("a")).await.unwrap().unwrap();
        assert_eq!(entry.body.unwrap(), "32");
        let mut both = expecting(put("a", b"x"), json("32".to_owned()));
        both.conditions.push(Condition::Expect(Expected::Uuid(Uuid::nil())));
        let refused = opened.store.write(both).await;
        assert!(matches!(refused, Err(WriteError::PreconditionFailed { current: Some(_) })));
        let absent = opened.store.write(expecting(put("b", b"x"), json("1".to_owned()))).await;
        assert!(matches!(absent, Err(WriteError::PreconditionFailed { current: None })));
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timestamp_alone_is_refused_after_a_twin_was_displaced() {
    on_both(|opened, _| async move {
        let store = &opened.store;
        let lesser = foreign(START + 5, 1, Some(b"lesser"));
        let greater = foreign(START + 5, 2, Some(b"greater"));
        let timestamp = lesser.header.version.timestamp;
        let swap = || expecting(put("a", b"x"), Expected::Timestamp(timestamp));
        store.apply(vec![(key("a"), lesser)]).await.unwrap();
        let displaced = store.apply(vec![(key("a"), greater.clone())]).await.unwrap();
        assert_eq!(displaced, Applied { replaced: 1, ..Applied::default() });
        let refused = store.write(swap()).await;
        assert!(matches!(refused, Err(WriteError::PreconditionFailed { .. })));
        let exact = Expected::Version { uuid: greater.header.version.uuid, timestamp };
        store.write(expecting(put("a", b"y"), exact)).await.unwrap();
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_ends_at_its_limits_and_goes_on_behind_the_last_key() {
    on_both(|opened, _| async move {
        let store = &opened.store;
        for n in 0..10 {
            store.write(put(&format!("p/{n}"), &[0; 100])).await.unwrap();
        }
        store.write(put("p", b"not below p")).await.unwrap();
        store.write(delete("p/3")).await.unwrap();
        let prefix = crate::model::Prefix::parse("p").unwrap();
        let names = |page: &Page| page.items.iter().map(|(k, _)| k.to_string()).collect::<Vec<_>>();
        let page = store.scan(&prefix, None, 3, None).await.unwrap();
        assert_eq!(
            (names(&page), page.next.is_some()),
            (vec!["p/0".into(), "p/1".into(), "p/2".into()], true)
        );
        assert!(page.items.iter().all(|(_, entry)| entry.body.is_none()));
        let rest = store.scan(&prefix, Some(&key("p/2")), 100, None).await.unwrap();
        assert_eq!((names(&rest).len(), rest.next.is_some()), (6, false));
        let full = store.scan(&prefix, None, 100, Some(250)).await.unwrap();
        assert_eq!((full.items.len(), full.next.is_some()), (2, true));
        assert!(full.items.iter().all(|(_, entry)| entry.body.as_ref().unwrap().len() == 100));
        let one = store.scan(&prefix, None, 100, Some(1)).await.unwrap();
        assert_eq!(
            (one.items.len(), one.next.is_some()),
            (1, true),
            "a page has at least one item"
        );
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_says_where_to_go_on_though_its_values_died_while_it_was_read() {
    let engine = Arc::new(racing::Racing::default());
    let opened = Opened::new(engine.clone(), &Fixed::new(START, 1));
    for n in 0..4 {
        opened.store.write(put(&format!("p/{n}"), &[0; 100])).await.unwrap();
    }
    let prefix = crate::model::Prefix::parse("p").unwrap();
    engine.remove_after_scan(&["p/0", "p/1"]);
    let page = opened.store.scan(&prefix, None, 2, Some(1000)).await.unwrap();
    assert_eq!((page.items.len(), page.next.as_ref()), (0, Some(&key("p/1"))));
    engine.remove_after_scan(&["p/2", "p/3"]);
    let page = opened.store.scan(&prefix, page.next.as_ref(), 2, Some(1000)).await.unwrap();
    assert!(page.items.is_empty() && page.next.is_none(), "that was the last of it");
    opened.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_a_newer_format_and_another_cluster_are_refused_by_name() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Fixed::new(START, 1));
    let opened = Opened::new(rocks(dir.path()), &clock);
    let identity = opened.store.identity();
    let second = Rocks::open(dir.path(), 1 << 20, false).unwrap_err();
    assert!(matches!(second, EngineError::Locked { .. }), "{second}");
    opened.close();

    let clock = Clock::from_source(clock);
    let open = |cluster: Option<u128>| {
        let settings = Settings { cluster: cluster.map(Uuid::from_u128), ..settings() };
        Store::open(rocks(dir.path()), clock.clone(), Metrics::new(), &settings)
            .map(|opened| opened.0)
    };
    assert_eq!(open(Some(1)).unwrap().identity().node, identity.node);
    assert!(matches!(open(Some(2)).unwrap_err(), OpenError::OtherCluster { .. }));
    assert_eq!(open(Some(1)).unwrap().identity().joined_at, identity.joined_at);

    let (engine, newer) = (rocks(dir.path()), layout::FORMAT_VERSION + 1);
    {
        let opened = engine.opened().unwrap();
        let mut transaction = opened.begin();
        transaction.put(Family::Meta, layout::FORMAT.as_bytes(), &newer.to_le_bytes()).unwrap();
        transaction.commit().unwrap();
    }
    drop(engine);
    let error = open(None).unwrap_err().to_string();
    assert!(error.contains(&format!("format {newer}")) && error.contains("newer kvs"), "{error}");
}

#[test]
fn the_disk_bytes_are_pinned_and_any_other_bytes_are_an_error() {
    let header = foreign(START, 9, Some(b"{}")).header;
    let hash = header.hash();
    let body = layout::Body::Inline(Bytes::from_static(b"{}"));
    let marks = Marks { displaced_twin: true, ..Marks::default() };
    let stored = Stored { header, hash, marks, revisions: (3, 9), body };
    let bytes = stored.encode();
    assert_eq!(blake3::hash(&bytes).to_hex().as_str(), GOLDEN, "bump the format, and read both");
    assert_eq!(Stored::decode_for(b"a", &bytes).unwrap(), stored);
    for cut in 0..bytes.len() - 2 {
        let error = Stored::decode_for(b"a", &bytes.slice(..cut)).unwrap_err();
        assert!(matches!(error, ReadError::Damaged { .. }), "{error}");
    }
}

const GOLDEN: &str = "e2b15a0b7bbe8805b1136906a8ce869d24c6a4f0843b2c7ff8280ebcba195f44";
