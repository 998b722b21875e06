//! Verification: nothing is found in what a store has written, and each planted fault is named.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::*;
use crate::clock::Fixed;
use crate::model::{NodeId, Timestamp};
use crate::proto::stability::{Floor, Ledger, Stable, floor};
use crate::store::disk::layout::{self, Body, Stored};
use crate::store::memory::Memory;
use crate::store::tests::{Opened, START, delete, foreign, key, plain, put};
use crate::store::{Change, Lifetime};

const SECOND: u64 = 1_000_000;

/// Verifies everything; gives all that disagrees.
pub(in crate::store) fn verified(engine: &dyn Engine) -> (Verified, Vec<Disagreement>) {
    let mut found = Vec::new();
    let keys = ClusterKeys { cluster: Uuid::nil(), digest_key: [5; 32] };
    let done = verify(engine, Some(&keys), &mut |news| {
        if let VerifyNews::Found(disagreement) = news {
            found.push(disagreement);
        }
    });
    (done.unwrap(), found)
}

/// Data of every kind, and the fingerprint that the node had.
async fn filled() -> (Arc<Memory>, [u8; 32]) {
    let (engine, clock) = (Arc::new(Memory::default()), Fixed::new(START, 1));
    let opened = Opened::new(engine.clone(), &clock);
    let store = &opened.store;
    store.begin_life().await.unwrap();
    store.found(false).await.unwrap();
    let short = |at: &str, seconds: u64| {
        let lifetime = Lifetime::For(std::time::Duration::from_secs(seconds));
        plain(
            at,
            Change::put(crate::model::ContentType::json(), Bytes::from_static(b"1"), lifetime),
        )
    };
    for at in ["a", "a/b", "large", "often", "often", "often", "often", "often"] {
        store.write(put(at, b"small")).await.unwrap();
    }
    for fill in [1, 2, 3] {
        store.write(put("large", &[fill; 9000])).await.unwrap();
    }
    store.write(delete("a/b")).await.unwrap();
    store.write(short("swept", 1)).await.unwrap();
    store.write(short("expires", 1000)).await.unwrap();
    let once = crate::store::Write { uuid: Some(Uuid::from_u128(7)), ..put("once", b"once") };
    store.write(once).await.unwrap();
    store.write(put("lost", &[9; 900])).await.unwrap();
    let winner = foreign(START + 50 * SECOND, 9, Some(b"won"));
    store.apply(vec![(key("lost"), winner)]).await.unwrap();
    clock.pass(std::time::Duration::from_secs(2));
    assert_eq!(store.sweep().await.unwrap().records, 1);
    let print = store.fingerprint();
    opened.close();
    (engine, print)
}

fn change(engine: &Memory, family: Family, at: &[u8], value: Option<&[u8]>) -> Option<Bytes> {
    let before = engine.get(family, at).unwrap();
    let opened = engine.opened().unwrap();
    let mut transaction = opened.begin();
    match value {
        Some(value) => transaction.put(family, at, value).unwrap(),
        None => transaction.delete(family, at).unwrap(),
    }
    transaction.commit().unwrap();
    before
}

fn stored(engine: &Memory, family: Family, at: &[u8]) -> Stored {
    Stored::decode_for(at, &engine.get(family, at).unwrap().unwrap()).unwrap()
}

/// Plants a fault and demands that exactly these parts of the data name it; then undoes it.
fn plant(engine: &Memory, family: Family, at: &[u8], value: Option<&[u8]>, named: &[(&str, &str)]) {
    let before = change(engine, family, at, value);
    let (done, found) = verified(engine);
    assert_eq!(done.found, found.len() as u64);
    let parts: BTreeSet<_> = found.iter().map(|f| (f.family.name(), f.key.as_str())).collect();
    assert_eq!(parts, named.iter().copied().collect(), "{found:?}");
    assert!(found.iter().all(|f| !f.problem.is_empty() && !f.advice.is_empty()));
    change(engine, family, at, before.as_deref());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_found_in_what_a_store_has_written() {
    let (engine, print) = filled().await;
    let (done, found) = verified(engine.as_ref());
    assert_eq!(found, []);
    assert_eq!(done.fingerprint, Some(print));
    assert_eq!((done.counts.keys, done.counts.tombstones), (6, 2));
    assert_eq!((done.revisions, done.values, done.expiring), (3 + 3 + 1 + 1, 4, 1));
    assert_eq!((done.requests, done.reports), (1, 1));
    assert_eq!(done.changes, 8 + 3 + 1 + 2 + 1 + 1 + 2 + 1);
    let (empty, found) = verified(&Memory::default());
    assert_eq!((empty.counts.keys, found.len()), (0, 1), "the data are of no node");
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_records_values_and_revisions_are_named() {
    let (engine, _) = filled().await;
    let engine = engine.as_ref();
    let records = Family::Records;
    plant(engine, records, b"a", Some(b"?"), &[("records", "a")]);
    plant(engine, records, b"a", None, &[("feed", "a")]);
    plant(
        engine,
        records,
        b"large",
        None,
        &[("feed", "large"), ("history", "large"), ("values", "large")],
    );
    let mut other = stored(engine, records, b"a");
    other.hash[0] ^= 1;
    plant(engine, records, b"a", Some(&other.encode()), &[("records", "a"), ("records", "")]);
    let mut other = stored(engine, records, b"a");
    other.body = Body::Inline(Bytes::from_static(b"smalL"));
    plant(engine, records, b"a", Some(&other.encode()), &[("records", "a")]);
    other.body = Body::Swept;
    plant(engine, records, b"a", Some(&other.encode()), &[("records", "a")]);
    let copy = engine.get(records, b"a").unwrap();
    plant(engine, records, b"no//key", copy.as_deref(), &[("records", "no//key")]);
    let large = stored(engine, records, b"large");
    let at = layout::blob_key(&key("large"), &large.hash);
    plant(engine, Family::Values, &at, None, &[("values", "large")]);
    plant(engine, Family::Values, &at, Some(&[4; 9000]), &[("values", "large")]);
    let at = layout::blob_key(&key("a"), &large.hash);
    plant(engine, Family::Values, &at, Some(b"x"), &[("values", "a")]);
    let (first, next) = stored(engine, records, b"often").revisions;
    let revision = |number| layout::revision_key(&key("often"), number);
    plant(engine, Family::History, &revision(first), None, &[("history", "often")]);
    plant(engine, Family::History, &revision(next), copy.as_deref(), &[("history", "often")]);
    plant(engine, Family::History, &revision(first), Some(b"?"), &[("history", "often")]);
    let newest = engine.get(Family::History, &revision(next - 1)).unwrap();
    plant(engine, Family::History, &revision(first), newest.as_deref(), &[("history", "often")]);
    assert_eq!(verified(engine).1, [], "every fault was undone");
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_indexes_and_logs_are_named() {
    let (engine, _) = filled().await;
    let engine = engine.as_ref();
    let at = stored(engine, Family::Records, b"expires").header.expires_at.unwrap();
    let expiry = layout::expiry_key(at, &key("expires"));
    plant(engine, Family::Expiry, &expiry, None, &[("expiry", "expires")]);
    let wrong = layout::expiry_key(at, &key("a"));
    plant(engine, Family::Expiry, &wrong, Some(b""), &[("expiry", "a")]);
    let goes = floor::goes_at(&stored(engine, Family::Records, b"expires").header).unwrap();
    let dead = layout::expiry_key(goes.0, &key("expires"));
    plant(engine, Family::Dead, &dead, None, &[("dead", "expires")]);
    plant(engine, Family::Dead, &wrong, Some(b""), &[("dead", "a")]);
    let request = "00000000-0000-0000-0000-000000000007 once";
    let both = [("requests", request), ("requests", "")];
    let slot = [Uuid::from_u128(7).as_bytes(), &b"once"[..]].concat();
    let remembered = layout::request_key(Uuid::from_u128(7), b"once");
    plant(engine, Family::Requests, &remembered, None, &both);
    plant(engine, Family::Requests, &remembered, Some(b"?"), &both);
    let mut times = Vec::new();
    let from = layout::request_times_from(Timestamp::ZERO);
    engine
        .scan(Family::Requests, &from, None, &mut |at, _| {
            times = at.to_vec();
            std::ops::ControlFlow::Break(())
        })
        .unwrap();
    assert!(times.ends_with(&slot));
    plant(engine, Family::Requests, &times, None, &both[..1]);
    let mut feed = Vec::new();
    engine
        .scan(Family::Feed, &[], None, &mut |at, value| {
            feed.push((at.to_vec(), value.to_vec()));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    let (second, third) = (&feed[1], &feed[2]);
    let name = layout::feed_position(&third.0).unwrap().to_string();
    plant(engine, Family::Feed, &second.0, None, &[("feed", &name)]);
    let name = layout::feed_position(&second.0).unwrap().to_string();
    plant(engine, Family::Feed, &second.0, Some(b"?"), &[("feed", &name)]);
    let report = layout::report_key(1);
    plant(
        engine,
        Family::Superseded,
        &report,
        None,
        &[("superseded", ""), ("superseded", "report 1")],
    );
    plant(engine, Family::Superseded, &report, Some(b"?"), &[("superseded", "report 1")]);
    let value = layout::report_value_key(1);
    plant(engine, Family::Superseded, &value, None, &[("superseded", "report 1")]);
    let stray = layout::report_value_key(2);
    plant(engine, Family::Superseded, &stray, Some(b"x"), &[("superseded", "report 2")]);
    for name in [layout::IDENTITY, layout::FEED_EPOCH, layout::STABILITY, "mode"] {
        plant(engine, Family::Meta, name.as_bytes(), Some(b"?"), &[("meta", name)]);
    }
    let counted = layout::encode_meta(&1_u64);
    let name = layout::REQUESTS_BYTES.as_bytes();
    plant(engine, Family::Meta, name, Some(&counted), &both[1..]);
    assert_eq!(verified(engine).1, [], "every fault was undone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_contradicts_itself_or_the_records_is_named() {
    let (engine, _) = filled().await;
    let name = layout::STABILITY.as_bytes();
    let raw = engine.get(Family::Meta, name).unwrap().unwrap();
    let ledger: Ledger = layout::decode_meta(layout::STABILITY, &raw).unwrap();
    let plant = |change: &dyn Fn(&mut Ledger), named: &[(&str, &str)]| {
        let mut ledger = ledger.clone();
        change(&mut ledger);
        plant(&engine, Family::Meta, name, Some(&layout::encode_meta(&ledger)), named);
    };
    let itself = [("meta", layout::STABILITY)];
    plant(&|ledger| ledger.id = NodeId::from_u128(9), &itself);
    plant(&|ledger| ledger.set = None, &itself);
    plant(&|ledger| ledger.start = ledger.start.next(), &itself);
    plant(&|ledger| ledger.told = Stable(Timestamp::MAX), &itself);
    plant(&|ledger| ledger.floor = Floor(ledger.floor.0.next()), &itself);
    let goes = floor::goes_at(&stored(&engine, Family::Records, b"a/b").header).unwrap();
    let below = Floor(Timestamp::new(goes.0.micros() - 1).unwrap());
    plant(&|ledger| ledger.raise_floor(below), &[]);
    plant(&|ledger| ledger.raise_floor(goes), &[("records", "a/b")]);
    assert_eq!(verified(engine.as_ref()).1, [], "every fault was undone");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_another_format_or_cluster_are_not_judged() {
    let (engine, _) = filled().await;
    let judged = |keys: Option<&ClusterKeys>| verify(engine.as_ref(), keys, &mut |_| {});
    assert!(judged(None).unwrap().fingerprint.is_some());
    let format = layout::FORMAT.as_bytes();
    let before = change(&engine, Family::Meta, format, Some(&99_u32.to_le_bytes()));
    assert!(matches!(judged(None), Err(OpenError::TooNew { found: 99 })));
    change(&engine, Family::Meta, format, before.as_deref());
    let raw = engine.get(Family::Meta, layout::IDENTITY.as_bytes()).unwrap().unwrap();
    let identity: Identity = layout::decode_meta(layout::IDENTITY, &raw).unwrap();
    let identity = Identity { cluster: Some(Uuid::from_u128(1)), ..identity };
    let name = layout::IDENTITY.as_bytes();
    change(&engine, Family::Meta, name, Some(&layout::encode_meta(&identity)));
    assert!(judged(None).unwrap().fingerprint.is_none());
    let keys = ClusterKeys { cluster: Uuid::from_u128(2), digest_key: [5; 32] };
    assert!(matches!(judged(Some(&keys)), Err(OpenError::OtherCluster { .. })));
}
