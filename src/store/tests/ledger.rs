//! The ledger of stability in the store, on both engines.

use super::*;
use crate::proto::stability::Point;

#[tokio::test]
async fn the_ledger_survives_a_restart_and_each_life_has_a_greater_start() {
    let dir = tempfile::tempdir().unwrap();
    let memory: Arc<dyn Engine> = Arc::new(Memory::default());
    for engine in [memory, rocks(dir.path())] {
        let clock = Fixed::new(START, 1);
        let node = Opened::new(engine.clone(), &clock);
        node.store.begin_life().await.unwrap();
        node.store.found(false).await.unwrap();
        let before = node.store.ledger();
        assert!(before.counted && before.id == node.store.identity().node);
        node.close();

        let node = Opened::new(engine, &clock);
        assert_eq!(node.store.ledger(), before);
        node.store.begin_life().await.unwrap();
        let after = node.store.ledger();
        assert!(after.start > before.start && after.set_name() != before.set_name());
        node.close();
    }
}

#[tokio::test]
async fn no_write_is_stamped_at_or_below_a_point_that_was_taken() {
    on_both(|node, _| async move {
        node.store.found(false).await.unwrap();
        let take = |ledger: &mut crate::proto::stability::Ledger, now: Timestamp| {
            ledger.point = Point(now.plus(Duration::from_secs(1)));
            ledger.point
        };
        let point = node.store.change_ledger(take).await.unwrap();
        let written = node.store.write(put("a", b"1")).await.unwrap();
        assert_eq!(written.header.version.timestamp, point.0.next());
        node.close();
    })
    .await;
}
