//! Values that expire, revisions, remembered requests and transactions, on both engines.

use bytes::Bytes;

use super::*;
use crate::model::{Condition, ContentType, Expected, HeldBack, Prefix, Tags, Timestamp, json};
use crate::store::write::requests::{FORGOTTEN_MIN, KEPT_MIN};

const SECOND: u64 = 1_000_000;

fn lasting(at: &str, body: &[u8], lifetime: Lifetime) -> Write {
    let body = Bytes::copy_from_slice(body);
    plain(at, Change::put(ContentType::octet_stream(), body, lifetime))
}

fn seconds(n: u64) -> Lifetime {
    Lifetime::For(Duration::from_secs(n))
}

fn named(mut write: Write, n: u128) -> Write {
    write.uuid = Some(Uuid::from_u128(n));
    write
}

async fn value(store: &Store, at: &str) -> Option<Vec<u8>> {
    let entry = store.get(&key(at)).await.unwrap();
    entry.map(|entry| entry.body.unwrap().to_vec())
}

/// How many entries a family has.
fn entries(store: &Store, family: Family) -> usize {
    let mut count = 0;
    let visit = &mut |_: &[u8], _: &[u8]| {
        count += 1;
        std::ops::ControlFlow::Continue(())
    };
    store.shared.engine.scan(family, &[], None, visit).unwrap();
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_dead_from_its_instant_on_swept_or_not() {
    on_both(|opened, clock| async move {
        let store = &opened.store;
        let written = store.write(lasting("a", &[7; 100], seconds(10))).await.unwrap();
        let at = Timestamp::saturating(START + 10 * SECOND);
        assert_eq!(written.header.expires_at, Some(at));
        clock.set(at.micros() - 1);
        assert!(value(store, "a").await.is_some());
        assert_eq!(store.sweep().await.unwrap().records, 0);
        clock.set(at.micros());
        assert!(value(store, "a").await.is_none());
        assert_eq!(store.counts(), Counts { keys: 0, tombstones: 1 }, "not swept yet");
        let fingerprint = store.fingerprint();
        let swept = Swept { records: 1, requests: 0, more: false };
        assert_eq!(store.sweep().await.unwrap(), swept);
        assert_eq!(store.counts(), Counts { keys: 0, tombstones: 1 });
        assert_eq!(store.fingerprint(), fingerprint, "a sweep moves no digest");
        assert_eq!(store.recomputed_fingerprint().unwrap(), fingerprint);
        assert_eq!((entries(store, Family::Values), entries(store, Family::Expiry)), (0, 0));
        let record = store.record(&key("a")).await.unwrap().unwrap();
        assert!(record.is_swept() && record.header == written.header);
        clock.set(START);
        assert!(value(store, "a").await.is_none(), "nothing brings it back");
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_steps_back_by_little_revives_nothing_and_by_much_is_followed() {
    on_both(|opened, clock| async move {
        let store = &opened.store;
        store.write(lasting("a", b"1", seconds(10))).await.unwrap();
        clock.set(START + 20 * SECOND);
        assert!(value(store, "a").await.is_none());
        clock.set(START);
        assert!(value(store, "a").await.is_none(), "20 s back, which is borne");
        store.write(lasting("b", b"1", seconds(1))).await.unwrap();
        assert!(value(store, "b").await.is_some(), "a new life begins by the same time");
        clock.set(START + 3600 * SECOND);
        assert!(value(store, "b").await.is_none());
        clock.set(START + SECOND);
        assert!(value(store, "a").await.is_some(), "the clock was wrong and was set right");
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_keeps_the_expiry_and_a_plain_put_clears_it() {
    on_both(|opened, clock| async move {
        let store = &opened.store;
        let first = store.write(lasting("a", b"1", seconds(10))).await.unwrap();
        clock.set(START + SECOND);
        let kept = store.write(lasting("a", b"2", Lifetime::Keep)).await.unwrap();
        assert_eq!(kept.header.expires_at, first.header.expires_at);
        assert_eq!(entries(store, Family::Expiry), 1);
        let cleared = store.write(put("a", b"3")).await.unwrap();
        assert_eq!((cleared.header.expires_at, entries(store, Family::Expiry)), (None, 0));
        let none = store.write(lasting("a", b"4", Lifetime::Keep)).await.unwrap();
        assert_eq!(none.header.expires_at, None);
        store.write(lasting("b", b"1", seconds(1))).await.unwrap();
        clock.set(START + 5 * SECOND);
        let over_the_dead = store.write(lasting("b", b"2", Lifetime::Keep)).await.unwrap();
        assert_eq!(over_the_dead.header.expires_at, None, "a dead value has none to keep");
        assert_eq!(over_the_dead.previous, None);
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_frees_a_bounded_number_and_goes_on_where_it_stopped() {
    on_both(|opened, clock| async move {
        let store = &opened.store;
        let many = u64::try_from(expiry::SWEEP_MAX).unwrap() + 10;
        for n in 0..many {
            store.write(lasting(&format!("k/{n}"), b"x", seconds(1))).await.unwrap();
        }
        store.write(lasting("later", b"x", seconds(60))).await.unwrap();
        clock.set(START + 5 * SECOND);
        let first = store.sweep().await.unwrap();
        assert_eq!((first.records, first.more), (many - 10, true));
        // expired before what was swept last, and come later
        let mut late = foreign(START, 1, Some(b"late"));
        late.header.expires_at = Some(Timestamp::saturating(START + SECOND / 2));
        store.apply(vec![(key("late"), late)]).await.unwrap();
        let second = store.sweep().await.unwrap();
        assert_eq!((second.records, second.more), (11, false));
        assert_eq!(store.counts(), Counts { keys: 1, tombstones: many + 1 });
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_without_its_bytes_is_taken_when_it_has_expired_here_too() {
    on_both(|opened, clock| async move {
        let store = &opened.store;
        let mut swept = foreign(START, 1, Some(&[1; 100]));
        swept.header.expires_at = Some(Timestamp::saturating(START + 100 * SECOND));
        swept.body = Bytes::new();
        assert!(swept.is_swept());
        let early = store.apply(vec![(key("a"), swept.clone())]).await.unwrap();
        let held = HeldBack { records: 1, until: swept.header.expires_at.unwrap() };
        assert_eq!(early, Applied { held, ..Applied::default() });
        assert!(store.record(&key("a")).await.unwrap().is_none());
        // expired as far as clocks may differ
        clock.set(START + 41 * SECOND);
        let taken = store.apply(vec![(key("a"), swept.clone())]).await.unwrap();
        assert_eq!(taken, Applied { replaced: 1, ..Applied::default() });
        assert!(value(store, "a").await.is_none(), "without bytes there is nothing to show");
        assert_eq!(store.counts(), Counts { keys: 0, tombstones: 1 });
        let older = foreign(START - 5, 1, Some(b"old copy"));
        store.apply(vec![(key("a"), older)]).await.unwrap();
        assert!(value(store, "a").await.is_none(), "an older copy does not come back");
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_are_kept_to_their_depth_with_what_became_of_them() {
    on_both(|opened, clock| async move {
        let store = &opened.store;
        for n in 0..5_u8 {
            store.write(put("a", &[n; 100])).await.unwrap();
        }
        store.write(delete("a")).await.unwrap();
        store.write(lasting("a", b"short", seconds(1))).await.unwrap();
        clock.set(START + 9 * SECOND);
        let last = store.write(put("a", b"now")).await.unwrap();
        let all = store.history(&key("a"), 100, 50).await.unwrap();
        let fates: Vec<_> = all.iter().map(|r| (r.outcome, r.header.content.size())).collect();
        // the depth is 3, and the current one is no revision of the past
        let expected = [
            (Outcome::Current, 3),
            (Outcome::Expired, 5),
            (Outcome::Replaced, 0),
            (Outcome::Replaced, 100),
        ];
        assert_eq!(fates, expected);
        assert!(all.windows(2).all(|two| two[1].by == Some(two[0].header.version.uuid)));
        assert!(all.windows(2).all(|two| two[0].header.parent == Some(two[1].header.version.uuid)));
        assert_eq!(all[0].header, last.header);
        assert_eq!((all[0].body.as_deref(), &all[3].body), (Some(&b"now"[..]), &None), "too large");
        let old = all[3].header.version.uuid;
        let old = store.revision(&key("a"), old).await.unwrap().unwrap();
        assert_eq!(old.body.unwrap(), vec![4; 100]);
        assert!(store.revision(&key("a"), Uuid::nil()).await.unwrap().is_none());
        assert!(store.history(&key("b"), 100, 50).await.unwrap().is_empty());
        assert_eq!(store.history(&key("a"), 2, 50).await.unwrap().len(), 2);
        assert_eq!(entries(store, Family::History), 3);
        assert_eq!(entries(store, Family::Values), 1, "dropped revisions leave nothing behind");
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_frees_expired_revisions_too_and_keeps_what_had_no_expiry() {
    on_both(|opened, clock| async move {
        let store = &opened.store;
        let lasting_one = store.write(put("a", &[1; 100])).await.unwrap();
        let first = store.write(lasting("a", &[2; 100], seconds(1))).await.unwrap();
        store.write(lasting("a", &[3; 100], seconds(2))).await.unwrap();
        assert_eq!(entries(store, Family::Values), 3);
        clock.set(START + 3 * SECOND);
        assert_eq!(store.sweep().await.unwrap().records, 1);
        assert_eq!(entries(store, Family::Values), 1);
        let revision = async |written: &Written| {
            store.revision(&key("a"), written.header.version.uuid).await.unwrap().unwrap()
        };
        assert_eq!(revision(&lasting_one).await.body.unwrap(), vec![1; 100]);
        let freed = revision(&first).await;
        assert_eq!(
            (freed.body, freed.outcome),
            (None, Outcome::Replaced),
            "it was replaced in time"
        );
        let all = store.history(&key("a"), 9, 999).await.unwrap();
        assert_eq!(all[0].outcome, Outcome::Expired);
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_request_is_done_once_and_answered_alike() {
    on_both(|opened, clock| async move {
        let store = &opened.store;
        let ask = || named(put("a", b"1"), 5);
        let first = store.write(ask()).await.unwrap();
        assert_eq!(first.header.version.uuid, Uuid::from_u128(5));
        store.write(put("a", b"2")).await.unwrap();
        assert_eq!(store.write(ask()).await.unwrap(), first);
        assert_eq!(value(store, "a").await.unwrap(), b"2", "and changed nothing");
        for other in [
            named(put("a", b"other"), 5),
            named(lasting("a", b"1", seconds(1)), 5),
            named(delete("a"), 5),
            named(expecting(put("a", b"1"), Expected::Exists), 5),
        ] {
            assert!(matches!(store.write(other).await, Err(WriteError::OtherRequest)));
        }
        store.write(named(put("b", b"1"), 5)).await.expect("another key, another request");
        // a refusal is not remembered
        let ask = || named(expecting(put("c", b"1"), Expected::Exists), 6);
        assert!(matches!(store.write(ask()).await, Err(WriteError::PreconditionFailed { .. })));
        store.write(put("c", b"0")).await.unwrap();
        store.write(ask()).await.unwrap();
        // until its time is over
        clock.pass(Duration::from_secs(3600));
        assert_eq!(store.sweep().await.unwrap().requests, 3);
        assert_eq!(entries(store, Family::Requests), 0);
        let again = store.write(named(put("a", b"1"), 5)).await.unwrap();
        assert!(again.header.version > first.header.version);
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_one_group_that_are_the_same_are_done_once() {
    on_both(|opened, _| async move {
        let store = &opened.store;
        let counter = json::Text::new(Bytes::from_static(b"0")).unwrap();
        store.write(put("a", b"0")).await.unwrap();
        let ask = || named(expecting(put("a", b"1"), Expected::Json(counter.clone())), 5);
        let all = (0..32).map(|_| {
            let (store, ask) = (store.clone(), ask());
            tokio::spawn(async move { store.write(ask).await.unwrap() })
        });
        let mut answers = Vec::new();
        for one in all.collect::<Vec<_>>() {
            answers.push(one.await.unwrap());
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "a swap that took place is no refusal to its own retry");
        opened.close();
    })
    .await;
}

/// Writes that fill the memory of requests, from number `first` on; returns the number of the first
/// that was refused.
async fn fill(store: &Store, first: u128) -> u128 {
    let mut n = first;
    loop {
        match store.write(named(put("a", b"1"), n)).await {
            Ok(_) => n += 1,
            Err(WriteError::RequestsFull) => return n,
            Err(error) => panic!("{error}"),
        }
        assert!(n < first + 10_000, "no bound");
    }
}

/// Whether the answer to the write of this number is remembered: the retry writes nothing.
async fn remembers(store: &Store, n: u128) -> bool {
    let now = store.head(&key("a")).await.unwrap().unwrap().version;
    let again = store.write(named(put("a", b"1"), n)).await.unwrap();
    again.header.version <= now
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_memory_of_requests_forgets_the_oldest_beyond_ten_minutes_and_no_others() {
    on_both(|opened, clock| async move {
        let store = &opened.store;
        let first_refused = fill(store, 1).await;
        assert!(first_refused > 1000);
        assert!(remembers(store, 1).await, "a full memory keeps its answers");
        store.write(put("b", b"1")).await.expect("no uuid, no memory");
        // not yet ten minutes old
        clock.pass(KEPT_MIN / 2);
        let full = store.write(named(put("b", b"2"), first_refused)).await;
        assert!(matches!(full, Err(WriteError::RequestsFull)), "{full:?}");
        clock.pass(KEPT_MIN);
        store.write(named(put("b", b"2"), first_refused)).await.expect("room was made");
        // the oldest went, and no more than make room for a while
        let (first_kept, last) = (FORGOTTEN_MIN + 1, first_refused - 1);
        for n in [u128::from(first_kept), last] {
            assert!(remembers(store, n).await, "{n}");
        }
        assert!(!remembers(store, u128::from(FORGOTTEN_MIN)).await);
        let bytes = store.shared.requests_bytes.load(Ordering::Relaxed);
        assert!(bytes <= settings().idempotency_bytes_max);
        clock.pass(Duration::from_secs(3600));
        while store.sweep().await.unwrap().more {}
        assert_eq!(store.shared.requests_bytes.load(Ordering::Relaxed), 0);
        assert_eq!(entries(store, Family::Requests), 0);
        opened.close();
    })
    .await;
}

/// Jobs of one group make room one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn requests_in_one_group_make_room_for_each_other() {
    on_both(|opened, clock| async move {
        let store = &opened.store;
        let first = fill(store, 1).await;
        clock.pass(KEPT_MIN + Duration::from_secs(1));
        let all = (0..600).map(|n| {
            let (store, write) = (store.clone(), named(put("b", b"1"), first + n));
            tokio::spawn(async move { store.write(write).await.unwrap() })
        });
        for one in all.collect::<Vec<_>>() {
            one.await.unwrap();
        }
        let bytes = store.shared.requests_bytes.load(Ordering::Relaxed);
        assert!(bytes <= settings().idempotency_bytes_max);
        clock.pass(Duration::from_secs(3600));
        while store.sweep().await.unwrap().more {}
        assert_eq!(store.shared.requests_bytes.load(Ordering::Relaxed), 0, "the sum is right");
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_can_never_be_remembered_forgets_no_others() {
    on_both(|opened, clock| async move {
        let store = &opened.store;
        store.write(named(put("a", b"1"), 1)).await.unwrap();
        clock.pass(KEPT_MIN + Duration::from_secs(1));
        let long = |n: usize| format!("{n:04}{}", "x".repeat(1000));
        let success = (0..600).map(|n| puts(&long(n), b"1")).collect();
        let uuid = Some(Uuid::from_u128(2));
        let much = Txn { uuid, ..txn(vec![], success, vec![]) };
        let full = store.txn(much).await;
        assert!(matches!(full, Err(WriteError::RequestsFull)), "{full:?}");
        assert!(remembers(store, 1).await);
        opened.close();
    })
    .await;
}

/// What a transaction read is not remembered with its answer, and read again by its version.
#[tokio::test(flavor = "multi_thread")]
async fn a_retried_transaction_shows_what_it_read_as_long_as_that_is_kept() {
    on_both(|opened, _| async move {
        let store = &opened.store;
        let large = vec![7; 60_000];
        store.write(put("large", &large)).await.unwrap();
        store.write(put("small", b"7")).await.unwrap();
        let ask = |n: u128| Txn {
            uuid: Some(Uuid::from_u128(n)),
            ..txn(vec![], vec![gets("large"), gets("small"), gets("none")], vec![])
        };
        let first = store.txn(ask(1)).await.unwrap();
        let (alone, mut all) = (store.shared.requests_bytes.load(Ordering::Relaxed), 1);
        assert!(alone < 2000, "{alone} bytes for an answer of 60 kB");
        while all < 30 {
            all += 1;
            store.txn(ask(all)).await.expect("large answers do not fill the memory");
        }
        assert_eq!(store.txn(ask(1)).await.unwrap(), first);
        // three revisions are kept
        for n in 0..3 {
            store.write(put("large", &[n; 100])).await.unwrap();
            store.write(put("small", &[n])).await.unwrap();
            assert_eq!(store.txn(ask(1)).await.unwrap(), first);
        }
        let mut little = ask(1);
        little.content_bytes_max = 1000;
        let refused = store.txn(little.clone()).await;
        assert!(matches!(refused, Err(WriteError::ContentTooLarge)), "{refused:?}");
        store.write(put("large", b"")).await.unwrap();
        store.write(put("small", b"")).await.unwrap();
        let again = store.txn(little).await.unwrap();
        let OperationResult::Got(Some(gone)) = &again.results[0] else { panic!("{again:?}") };
        let OperationResult::Got(Some(was)) = &first.results[0] else { panic!("{first:?}") };
        assert_eq!((&gone.header, &gone.body), (&was.header, &None), "no longer kept");
        assert_eq!(again.results[1..], first.results[1..], "little content is remembered");
        opened.close();
    })
    .await;
}

/// The wall clock was wrong when a request came, and is set right: not a second has passed.
#[tokio::test(flavor = "multi_thread")]
async fn setting_the_clock_forgets_no_request_and_keeps_none_for_ever() {
    const YEAR: u64 = 365 * 24 * 3600 * SECOND;
    let settings = settings();
    for (wrong, right) in [(5 * SECOND, START), (START + 70 * YEAR, START)] {
        let (engine, clock) = (Arc::new(Memory::default()), crate::clock::Fixed::new(wrong, 1));
        let opened = Opened::with(engine.clone(), &clock, &settings);
        let store = &opened.store;
        let ask = || named(put("a", b"1"), 5);
        let first = store.write(ask()).await.unwrap();
        store.write(put("a", b"2")).await.unwrap();
        clock.set(right);
        assert_eq!(store.write(ask()).await.unwrap(), first);
        assert_eq!(store.sweep().await.unwrap().requests, 0);
        opened.close();
        // after a restart, too, and where the clock is set back while the node is down
        clock.pass(Duration::from_secs(60));
        let opened = Opened::with(engine.clone(), &clock, &settings);
        assert_eq!(opened.store.write(ask()).await.unwrap(), first);
        opened.close();
        clock.set(right - 3600 * SECOND);
        let opened = Opened::with(engine.clone(), &clock, &settings);
        assert_eq!(opened.store.write(ask()).await.unwrap(), first);
        assert_eq!(value(&opened.store, "a").await.unwrap(), b"2");
        clock.pass(settings.idempotency_window);
        let swept = opened.store.sweep().await.unwrap();
        assert_eq!(swept.requests, 1, "its time is over once it has passed");
        opened.close();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_used_again_after_its_time_leaves_nothing_of_the_first_request() {
    on_both(|opened, clock| async move {
        let store = &opened.store;
        store.write(named(put("a", b"1"), 1)).await.unwrap();
        clock.pass(Duration::from_secs(3600));
        store.write(named(put("a", b"2"), 1)).await.unwrap();
        // an answer, and when it was given
        assert_eq!(entries(store, Family::Requests), 2);
        assert_eq!(store.sweep().await.unwrap().requests, 0);
        assert_eq!(entries(store, Family::Requests), 2);
        opened.close();
    })
    .await;
}

fn txn(compare: Vec<(&str, Expected)>, success: Vec<Operation>, failure: Vec<Operation>) -> Txn {
    let compare = compare.into_iter().map(|(at, e)| (key(at), Condition::Expect(e))).collect();
    Txn { compare, success, failure, uuid: None, content_bytes_max: 1 << 20 }
}

fn puts(at: &str, body: &[u8]) -> Operation {
    Operation::Write(key(at), put(at, body).change)
}

fn gets(at: &str) -> Operation {
    Operation::Get(key(at))
}

fn got(outcome: &OperationResult) -> Option<&[u8]> {
    let OperationResult::Got(entry) = outcome else { panic!("{outcome:?}") };
    entry.as_ref().map(|entry| entry.body.as_deref().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_see_earlier_ones_and_the_branch_follows_from_the_compares() {
    on_both(|opened, _| async move {
        let store = &opened.store;
        store.write(put("a", b"0")).await.unwrap();
        let operations = || {
            vec![
                gets("a"),
                puts("a", &[1; 100]),
                gets("a"),
                Operation::Write(key("b"), Change::Delete),
                puts("c", b"c"),
                Operation::Write(key("d"), Change::Delete),
                gets("b"),
            ]
        };
        store.write(put("b", b"b")).await.unwrap();
        let zero = json::Text::new(Bytes::from_static(b"0.0")).unwrap();
        let compare = vec![("a", Expected::Json(zero)), ("z", Expected::Absent)];
        let done = store.txn(txn(compare.clone(), operations(), vec![])).await.unwrap();
        assert!(done.failed.is_empty());
        let results = &done.results;
        assert_eq!((got(&results[0]), got(&results[2])), (Some(&b"0"[..]), Some(&[1; 100][..])));
        assert!(matches!(results[3], OperationResult::Deleted(true)));
        assert!(matches!(results[5], OperationResult::Deleted(false)));
        assert_eq!(got(&results[6]), None);
        let (OperationResult::Put(a, _), OperationResult::Put(c, _)) = (&results[1], &results[4])
        else {
            panic!("{results:?}")
        };
        assert_eq!(a, c, "all writes of a transaction have one uuid");
        let failure = vec![gets("c"), puts("z", b"z")];
        let done = store.txn(txn(compare, vec![puts("a", b"no")], failure)).await.unwrap();
        assert_eq!((&done.failed[..], got(&done.results[0])), (&[0][..], Some(&b"c"[..])));
        assert_eq!(value(store, "a").await.unwrap(), [1; 100]);
        assert_eq!(value(store, "z").await.unwrap(), b"z");
        assert_eq!(store.fingerprint(), store.recomputed_fingerprint().unwrap());
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_cannot_be_done_whole_leaves_nothing() {
    on_both(|opened, clock| async move {
        let store = &opened.store;
        let ahead = foreign(START + 120 * SECOND, 1, Some(b"far ahead"));
        clock.set(START + 120 * SECOND);
        store.apply(vec![(key("far"), ahead)]).await.unwrap();
        clock.set(START);
        store.set_others(true);
        let before = store.fingerprint();
        let skewed = store.txn(txn(vec![], vec![puts("a", b"1"), puts("far", b"1")], vec![])).await;
        assert!(matches!(skewed, Err(WriteError::ClockSkewed { .. })), "{skewed:?}");
        let mut much = txn(vec![], vec![puts("a", b"1"), gets("far")], vec![]);
        much.content_bytes_max = 3;
        let much = store.txn(much).await;
        assert!(matches!(much, Err(WriteError::ContentTooLarge)), "{much:?}");
        assert_eq!(store.fingerprint(), before);
        assert!(value(store, "a").await.is_none());
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_transaction_is_done_once_and_its_writes_bear_its_name() {
    on_both(|opened, _| async move {
        let store = &opened.store;
        store.write(put("a", b"0")).await.unwrap();
        let ask = || Txn {
            uuid: Some(Uuid::from_u128(7)),
            ..txn(vec![], vec![gets("a"), puts("a", b"1"), puts("b", b"1")], vec![])
        };
        let first = store.txn(ask()).await.unwrap();
        let fingerprint = store.fingerprint();
        assert_eq!(store.txn(ask()).await.unwrap(), first);
        assert_eq!(got(&first.results[0]), Some(&b"0"[..]), "what it read the first time");
        assert_eq!(store.fingerprint(), fingerprint);
        let other = Txn { uuid: Some(Uuid::from_u128(7)), ..txn(vec![], vec![gets("a")], vec![]) };
        assert!(matches!(store.txn(other).await, Err(WriteError::OtherRequest)));
        let part = store.write(named(put("b", b"1"), 7)).await;
        assert!(matches!(part, Err(WriteError::OtherRequest)), "{part:?}");
        store.write(named(put("c", b"1"), 7)).await.unwrap();
        let mut over = txn(vec![], vec![puts("d", b"1"), puts("c", b"1")], vec![]);
        over.uuid = Some(Uuid::from_u128(8));
        store.write(named(put("c", b"2"), 8)).await.unwrap();
        assert!(matches!(store.txn(over).await, Err(WriteError::OtherRequest)));
        assert!(value(store, "d").await.is_none());
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_remembered_swept_and_kept_outlives_the_process() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), crate::clock::Fixed::new(START, 1));
    let open = || Opened::new(tests::rocks(dir.path()), &clock);
    let opened = open();
    let first = opened.store.write(named(put("a", &[1; 100]), 5)).await.unwrap();
    opened.store.write(put("a", b"2")).await.unwrap();
    opened.store.write(lasting("b", b"1", seconds(1))).await.unwrap();
    opened.store.write(lasting("c", b"1", seconds(40))).await.unwrap();
    clock.set(START + 50 * SECOND);
    opened.store.sweep().await.unwrap();
    let (bytes, fingerprint) =
        (opened.store.shared.requests_bytes.load(Ordering::Relaxed), opened.store.fingerprint());
    assert!(bytes > 0);
    opened.close();
    clock.set(START);
    let opened = open();
    let store = &opened.store;
    assert_eq!(store.fingerprint(), fingerprint);
    assert_eq!(store.shared.requests_bytes.load(Ordering::Relaxed), bytes);
    assert_eq!(store.write(named(put("a", &[1; 100]), 5)).await.unwrap(), first);
    assert!(value(store, "b").await.is_none() && value(store, "c").await.is_none());
    assert_eq!(store.shared.now().micros(), START + 50 * SECOND, "the clock was set back");
    assert_eq!(store.history(&key("a"), 9, 999).await.unwrap().len(), 2);
    opened.close();
}

/// The ways in which somebody is told that a value is dead.
const WAYS: [&str; 6] = ["get", "head", "scan", "history", "refusal", "transaction"];

/// Whether `a` has a live value, found out in one of the [`WAYS`].
async fn lives(store: &Store, way: &str) -> bool {
    let at = key("a");
    match way {
        "get" => store.get(&at).await.unwrap().is_some(),
        "head" => store.head(&at).await.unwrap().is_some(),
        "scan" => !store.scan(&Prefix::all(), None, 9, None).await.unwrap().items.is_empty(),
        "history" => store.history(&at, 9, 9).await.unwrap()[0].outcome == Outcome::Current,
        "refusal" => !matches!(store.write(delete("a")).await, Err(WriteError::NotFound)),
        _ => {
            let reads = txn(vec![], vec![gets("a")], vec![]);
            store.txn(reads).await.unwrap().results[0] != OperationResult::Got(None)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_to_be_dead_stays_dead_after_a_restart() {
    for way in WAYS {
        for value in [&[1; 9][..], &[1; 9000]] {
            let (dir, clock) = (tempfile::tempdir().unwrap(), crate::clock::Fixed::new(START, 1));
            let open = || Opened::new(tests::rocks(dir.path()), &clock);
            let opened = open();
            opened.store.write(lasting("a", value, seconds(10))).await.unwrap();
            opened.store.write(put("b", b"1")).await.unwrap();
            opened.store.write(delete("b")).await.unwrap();
            assert!(opened.store.get(&key("a")).await.unwrap().is_some());
            clock.set(START + 20 * SECOND);
            assert!(!lives(&opened.store, way).await, "{way}");
            // nobody has swept
            opened.close();
            clock.set(START + SECOND);
            let opened = open();
            assert!(opened.store.get(&key("a")).await.unwrap().is_none(), "{way}");
            opened.close();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compares_look_into_a_bounded_amount_of_content() {
    on_both(|opened, _| async move {
        let store = &opened.store;
        // the bound of these tests is 64 KiB
        let text = format!("\"{}\"", "x".repeat(40 << 10));
        let large = format!("\"{}\"", "x".repeat(100 << 10));
        for (at, value) in [("a", &text), ("b", &text), ("large", &large)] {
            store.write(put(at, value.as_bytes())).await.unwrap();
        }
        let same =
            |value: &String| Expected::Json(json::Text::new(Bytes::from(value.clone())).unwrap());
        let compare = |keys: &[&'static str]| {
            let value = |at: &str| if at == "large" { &large } else { &text };
            txn(
                keys.iter().map(|at| (*at, same(value(at)))).collect(),
                vec![puts("c", b"1")],
                vec![],
            )
        };
        for few in [&["large"][..], &["a"], &["none", "a"]] {
            store.txn(compare(few)).await.unwrap();
        }
        let before = store.fingerprint();
        for many in [&["a", "b"][..], &["a", "a"], &["large", "a"], &["a", "large"]] {
            let refused = store.txn(compare(many)).await;
            assert!(matches!(refused, Err(WriteError::ContentTooLarge)), "{many:?}: {refused:?}");
        }
        assert_eq!(store.fingerprint(), before, "nothing was done");
        opened.close();
    })
    .await;
}

fn is_refused<T>(answer: &Result<T, WriteError>) -> bool {
    matches!(answer, Err(WriteError::OtherRequest))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_two_versions_of_a_key_get_one_uuid_that_the_node_gave() {
    on_both(|opened, clock| async move {
        let store = &opened.store;
        let again = |body: &'static [u8], uuid: Uuid| named(put("a", body), uuid.as_u128());
        let first = store.write(put("a", b"0")).await.unwrap().header.version.uuid;
        assert!(is_refused(&store.write(again(b"x", first)).await), "it is the current one");
        let mut whole = txn(vec![], vec![puts("b", b"x"), puts("a", b"x")], vec![]);
        whole.uuid = Some(first);
        assert!(is_refused(&store.txn(whole.clone()).await) && value(store, "b").await.is_none());
        // the history has room for three
        for n in 1..=3 {
            clock.set(START + n * SECOND);
            store.write(put("a", b"1")).await.unwrap();
            assert!(is_refused(&store.write(again(b"x", first)).await), "{n} back");
        }
        store.write(delete("a")).await.unwrap();
        assert_eq!(store.write(again(b"x", first)).await.unwrap().header.version.uuid, first);
        // that of another node may be a retry of what was asked there
        let other = foreign(START + 9 * SECOND, 5, Some(b"theirs"));
        store.apply(vec![(key("c"), other.clone())]).await.unwrap();
        let uuid = other.header.version.uuid;
        store.write(named(put("c", b"ours"), uuid.as_u128())).await.unwrap();
        opened.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_does_not_expect_its_own_uuid() {
    on_both(|opened, _| async move {
        let store = &opened.store;
        let other = foreign(START, 5, Some(b"theirs"));
        store.apply(vec![(key("a"), other.clone())]).await.unwrap();
        let (uuid, timestamp) = (other.header.version.uuid, other.header.version.timestamp);
        let n = uuid.as_u128();
        for expected in [Expected::Uuid(uuid), Expected::Version { uuid, timestamp }] {
            let swap = || expecting(put("a", b"x"), expected.clone());
            assert!(is_refused(&store.write(named(swap(), n)).await), "{expected:?}");
            let mut whole = txn(vec![("a", expected.clone())], vec![puts("b", b"x")], vec![]);
            whole.uuid = Some(uuid);
            assert!(is_refused(&store.txn(whole).await), "{expected:?}");
        }
        let mut matching = put("a", b"x");
        matching.conditions = vec![Condition::Match(Tags::These(vec![Uuid::nil(), uuid]))];
        assert!(is_refused(&store.write(named(matching.clone(), n)).await));
        // unless it is there already
        matching.conditions = vec![Condition::NoneMatch(Tags::These(vec![uuid]))];
        let kept = store.write(named(matching, n)).await;
        assert!(matches!(kept, Err(WriteError::PreconditionFailed { .. })), "{kept:?}");
        assert_eq!(value(store, "a").await.unwrap(), b"theirs");
        opened.close();
    })
    .await;
}
