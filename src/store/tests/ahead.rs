//! Records that lie too far ahead of this node's clock: those of peers are held back, and those
//! that are here stop writes of their keys.

use super::*;
use crate::model::HeldBack;

const SECOND: u64 = 1_000_000;

async fn value(store: &Store, at: &str) -> Option<Bytes> {
    store.get(&key(at)).await.unwrap().map(|entry| entry.body.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_too_far_ahead_is_held_until_its_time_comes() {
    on_both(|opened, clock| async move {
        let store = &opened.store;
        store.write(put("a", b"own")).await.unwrap();
        let (before, counts) = (store.fingerprint(), store.counts());
        let far = foreign(START + 61 * SECOND, 1, Some(b"far"));
        let farther = foreign(START + 90 * SECOND, 1, None);
        let near = foreign(START + 60 * SECOND, 1, Some(b"near"));
        let sent = vec![(key("a"), far.clone()), (key("b"), farther), (key("c"), near.clone())];
        let applied = store.apply(sent).await.unwrap();
        let held = HeldBack { records: 2, until: Timestamp::saturating(START + 61 * SECOND) };
        assert_eq!(applied, Applied { replaced: 1, held, ..Applied::default() });
        assert_eq!(value(store, "a").await.unwrap(), "own");
        assert_eq!(store.counts(), Counts { keys: counts.keys + 1, ..counts });
        // nothing of them is in the digest
        assert!(store.record(&key("b")).await.unwrap().is_none());
        assert_ne!(store.fingerprint(), before, "the near one is");
        // what is here already, or loses, is not held
        clock.set(START - 10 * SECOND);
        let older = foreign(START + 59 * SECOND, 1, Some(b"older"));
        let again = vec![(key("c"), near), (key("c"), older)];
        assert_eq!(store.apply(again).await.unwrap(), Applied { kept: 2, ..Applied::default() });
        clock.set(START + SECOND);
        let merged = store.apply(vec![(key("a"), far.clone())]).await.unwrap();
        assert_eq!(merged, Applied { replaced: 1, ..Applied::default() });
        assert_eq!(value(store, "a").await.unwrap(), "far");
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_far_ahead_stops_writes_only_while_there_are_others() {
    on_both(|opened, clock| async move {
        let store = &opened.store;
        let ahead = foreign(START + 120_000_000, 1, Some(b"from a clock two minutes ahead"));
        // merged by a clock that was wrong, too, and is set right
        clock.set(START + 120_000_000);
        store.apply(vec![(key("a"), ahead)]).await.unwrap();
        clock.set(START);
        store.set_others(true);
        let refused = store.write(put("a", b"x")).await;
        let Err(WriteError::ClockSkewed { ahead_ms, origin }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!((ahead_ms, origin), (120_000, Some(NodeId::from_u128(1))));
        store.write(put("b", b"x")).await.expect("other keys are not dragged along");
        store.set_others(false);
        store.write(put("a", b"x")).await.unwrap();
        opened.close();
    })
    .await;
}

/// Nothing comes after the last timestamp: a write that took it could fall back behind the record
/// that it replaces.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_at_the_end_of_time_stops_writes_of_its_key_alone() {
    on_both(|opened, clock| async move {
        let store = &opened.store;
        let last = foreign(Timestamp::MAX.micros(), 1, Some(b"last"));
        clock.set(Timestamp::MAX.micros());
        store.apply(vec![(key("a"), last)]).await.unwrap();
        clock.set(START);
        for write in [put("a", b"x"), delete("a")] {
            let refused = store.write(write).await;
            assert!(matches!(refused, Err(WriteError::ClockSkewed { .. })), "{refused:?}");
        }
        store.write(put("b", b"x")).await.unwrap();
        assert_eq!(store.get(&key("a")).await.unwrap().unwrap().body.unwrap(), "last");
        opened.close();
    })
    .await;
}
