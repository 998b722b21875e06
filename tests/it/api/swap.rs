//! Compare-and-swap under contention: one winner, no lost increment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Client, Site, client::text};

const SWAPPERS: usize = 64;
const COUNTERS: usize = 8;
const INCREMENTS: usize = 50;

/// The answers to swaps that are all sent at once; `body` makes the body of the n-th.
async fn race(
    client: &Client,
    path: &'static str,
    body: impl Fn(usize) -> serde_json::Value,
) -> Vec<(usize, crate::support::Answer)> {
    let gate = std::sync::Arc::new(tokio::sync::Barrier::new(SWAPPERS));
    let mut racing = JoinSet::new();
    for number in 0..SWAPPERS {
        let (client, gate, body) = (client.clone(), gate.clone(), body(number));
        racing.spawn(async move {
            gate.wait().await;
            (number, client.post_json(path, &body).await)
        });
    }
    racing.join_all().await
}

/// Checks that exactly one swap won and that each loser's answer shows the winner's value.
async fn one_winner(client: &Client, key: &str, answers: Vec<(usize, crate::support::Answer)>) {
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(_, a)| a.status == 200);
    assert_eq!((won.len(), lost.len()), (1, SWAPPERS - 1));
    let (number, won) = &won[0];
    assert_eq!(won.json()["swapped"], true);
    for (_, answer) in lost {
        let refusal = answer.refused(412, "precondition_failed").json();
        assert_eq!(refusal["swapped"], false);
        let current = &refusal["current"];
        assert_eq!((&current["key"], &current["uuid"]), (&json!(key), &won.json()["uuid"]));
        assert_eq!(current["timestamp"], won.json()["timestamp"]);
        assert_eq!(current["data"], json!({ "by": number }));
    }
    let now = client.get(&format!("/kv/{key}")).await.expect(200);
    assert_eq!(now.json(), json!({ "by": number }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_swaps_that_expect_one_version_exactly_one_wins() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let first = client.put("/kv/race/uuid", "start").await.expect(201);
    let (uuid, timestamp) = (first.uuid(), first.timestamp());
    let answers = race(
        client,
        "/cas/race/uuid",
        |n| json!({ "expected": { "uuid": uuid }, "data": { "by": n } }),
    );
    one_winner(client, "race/uuid", answers.await).await;
    // each round starts from the version that the last one left
    let now = client.get("/kv/race/uuid?format=envelope").await.json();
    assert!(now["timestamp"].as_u64() > Some(timestamp) && now["parent"] == json!(uuid));
    let answers = race(client, "/cas/race/uuid", |n| {
        let expected = json!({ "timestamp": now["timestamp"] });
        json!({ "expected": expected, "data": { "by": n } })
    });
    one_winner(client, "race/uuid", answers.await).await;
    let answers = race(
        client,
        "/cas/race/new",
        |n| json!({ "expected": { "absent": true }, "data": { "by": n } }),
    );
    one_winner(client, "race/new", answers.await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_conditional_puts_exactly_one_wins() {
    let node = Site::alone().node("n1", &[]).await;
    let tag = format!("\"{}\"", node.client.put("/kv/k", "start").await.expect(201).uuid());
    for (path, header, value) in
        [("/kv/k", "if-match", tag.as_str()), ("/kv/new", "if-none-match", "*")]
    {
        let mut racing = JoinSet::new();
        for number in 0..SWAPPERS {
            let (client, value) = (node.client.clone(), value.to_owned());
            racing.spawn(async move {
                let headers = [(header, value.as_str())];
                client.send(reqwest::Method::PUT, path, &headers, number.to_string()).await
            });
        }
        let (won, lost): (Vec<_>, Vec<_>) =
            racing.join_all().await.into_iter().partition(|answer| answer.status != 412);
        assert_eq!((won.len(), lost.len()), (1, SWAPPERS - 1));
        assert_eq!(won[0].status, if value == "*" { 201 } else { 200 });
        for answer in lost {
            let refusal = answer.refused(412, "precondition_failed").json();
            assert!(refusal.get("swapped").is_none(), "this was no swap");
            assert_eq!(text(&refusal["current"]["uuid"]), won[0].uuid());
        }
    }
}

/// Adds one, retrying until it succeeds; returns the number of refusals.
async fn increment(client: &Client) -> usize {
    let mut current = client.get("/kv/counter?format=envelope").await.expect(200).json();
    for refused in 0.. {
        let next = current["data"].as_u64().expect("a number") + 1;
        let swap = json!({ "expected": { "uuid": current["uuid"] }, "data": next });
        let answer = client.post_json("/cas/counter", &swap).await;
        if answer.status == 200 {
            return refused;
        }
        // the refusal shows the current value, so no further read is needed
        current = answer.refused(412, "precondition_failed").json()["current"].clone();
    }
    unreachable!("somebody wins each round")
}

/// Clients that increment the counter `times` times each and return their number of refusals.
fn count(client: &Client, times: usize) -> JoinSet<usize> {
    let counting = (0..COUNTERS).map(|_| {
        let client = client.clone();
        async move {
            let mut refused = 0;
            for _ in 0..times {
                refused += increment(&client).await;
            }
            refused
        }
    });
    counting.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_clients_that_increment_one_counter_lose_no_increment() {
    let node = Site::alone().node("n1", &[]).await;
    node.client.put_json("/kv/counter", "0").await.expect(201);
    let counting = count(&node.client, INCREMENTS);
    let refused: usize = counting.join_all().await.into_iter().sum();
    let end = node.client.get("/kv/counter").await.text();
    assert_eq!(end, (COUNTERS * INCREMENTS).to_string());
    assert!(refused > 0, "nobody ever met anybody: this run proves nothing");
}

/// While others swap, the values that one client reads never decrease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_never_sees_a_counter_go_back() {
    let node = Site::alone().node("n1", &[]).await;
    node.client.put_json("/kv/counter", "0").await.expect(201);
    let mut counting = count(&node.client, INCREMENTS / 2);
    let (mut last, mut reads) = (0, 0);
    while !counting.is_empty() {
        let now: u64 = node.client.get("/kv/counter").await.text().parse().expect("a number");
        assert!(now >= last, "{now} after {last}");
        (last, reads) = (now, reads + 1);
        while let Some(ended) = counting.try_join_next() {
            ended.expect("no panic");
        }
    }
    assert!(reads > 10, "only {reads} reads");
}

/// The number of successful swaps, and the longest allowed wait as a multiple of the median.
const TURNS: usize = 60 * SWAPPERS;
const WAIT_MAX: f64 = 50.0;

/// No client starves when many swap one key. Compares waits within one run, so that the result does
/// not depend on the speed of the machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_clients_in_a_loop_on_one_key_none_starves() {
    let node = Site::alone().node("n1", &[]).await;
    node.client.put_json("/kv/counter", "0").await.expect(201);
    let turns = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut looping = JoinSet::new();
    for _ in 0..SWAPPERS {
        let (client, turns) = (node.client.clone(), turns.clone());
        looping.spawn(async move {
            let mut own = 0_u32;
            while turns.load(Ordering::Relaxed) < TURNS {
                increment(&client).await;
                turns.fetch_add(1, Ordering::Relaxed);
                own += 1;
            }
            own
        });
    }
    let mut owns = looping.join_all().await;
    let lasted = began.elapsed();
    // a client without a success has waited for the whole run
    let mut waits: Vec<Duration> = owns.drain(..).map(|own| lasted / own.max(1)).collect();
    waits.sort_unstable();
    let (median, slowest) = (waits[SWAPPERS / 2], waits[SWAPPERS - 1]);
    let ratio = slowest.as_secs_f64() / median.as_secs_f64();
    println!("{} swaps in {lasted:?}: the slowest waits {ratio:.1} times the median", TURNS);
    assert!(ratio <= WAIT_MAX, "{ratio} times the median: {waits:?}");
    let end = node.client.get("/kv/counter").await.text();
    assert!(end.parse::<usize>().is_ok_and(|end| end >= TURNS), "{end}");
}
