//! Members whose clocks are wrong: what they write is held back, everybody says so, and nothing is
//! lost when the time comes.

use futures_util::future::join_all;
use serde_json::json;

use crate::support::client::text;
use crate::support::command::kvs;
use crate::support::node::{Place, Surroundings};
use crate::support::skew::{Skew, SkewedClock};
use crate::support::{Cluster, Node, SOON, Site, cluster::converged, ensure, eventually};

const HOUR_MS: i64 = 3_600_000;
const YEAR_MS: i64 = 365 * 24 * HOUR_MS;

/// A clock for each of so many nodes; `None` where the C library cannot be built.
fn clocks_of(site: &Site, count: usize) -> Option<Vec<SkewedClock>> {
    let skew = Skew::build(site.file("").as_ref());
    let skew =
        skew.inspect_err(|error| eprintln!("SKIPPED: wrong clocks need a C compiler: {error}"));
    let skew = skew.ok()?;
    Some((1..=count).map(|n| skew.clock(site.file(&format!("clock{n}")).as_ref())).collect())
}

/// The place of node `n`, under its clock.
fn place(site: &Site, clocks: &[SkewedClock], n: usize, seeds: &[&Node]) -> Place {
    let mut place = site.place(&format!("n{n}"), seeds);
    let environment = clocks[n - 1].environment.clone();
    place.surround(Surroundings { environment, ..Surroundings::default() });
    place
}

/// A cluster with a clock for each node; `None` where the C library cannot be built.
async fn cluster(count: usize) -> Option<(Cluster, Vec<SkewedClock>)> {
    let site = Site::clustered();
    let clocks = clocks_of(&site, count)?;
    let place = |n: usize, seeds: &[&Node]| place(&site, &clocks, n, seeds);
    let first = place(1, &[]).start().await;
    let others: Vec<_> = (2..=count).map(|n| place(n, &[&first])).collect();
    let others = join_all(others.into_iter().map(|place| place.start())).await;
    let nodes = [first].into_iter().chain(others).collect();
    let cluster = Cluster { nodes, site };
    cluster.converged().await;
    Some((cluster, clocks))
}

/// Waits until `node` shows `count` held records beside each other member.
async fn holds(node: &Node, count: u64) {
    let what = format!("{} shows {count} held records", node.place.name);
    eventually(SOON, &what, async || {
        node.client.sync().await;
        let cluster = node.client.cluster().await;
        let members = cluster["members"].as_array().expect("members").clone();
        let others = members.iter().filter(|member| member["id"] != node.id);
        let held: Vec<_> = others.map(|member| member["held_records"].clone()).collect();
        ensure(held.iter().all(|held| *held == count), || format!("{held:?}"))
    })
    .await;
}

fn status(node: &Node) -> String {
    kvs(["--url", node.url(), "status"]).expect(0).text()
}

#[tokio::test]
async fn what_a_clock_an_hour_ahead_writes_is_held_back_until_its_time_comes() {
    let Some((cluster, clocks)) = cluster(2).await else { return };
    let (right, ahead) = (&cluster.nodes[0], &cluster.nodes[1]);
    ahead.client.put("/kv/both", "old").await.expect(201);
    cluster.converged().await;
    clocks[1].set(HOUR_MS);
    ahead.client.put("/kv/both", "far").await.expect(200);
    ahead.client.put("/kv/far", "x").await.expect(201);
    holds(right, 2).await;
    holds(ahead, 2).await;
    for node in [right, ahead] {
        assert_eq!(node.client.cluster().await["converged"], false);
        let shown = status(node);
        assert!(shown.contains("differs by held records"), "{shown}");
        assert!(shown.contains("held records     2, not shared with"), "{shown}");
    }
    let came = right.client.metric("kvs_records_held_total", &[]).await;
    assert_eq!(came, 0, "what a peer holds back is not sent to it, neither pushed nor in sessions");
    right.client.get("/kv/far").await.refused(404, "key_not_found");
    assert_eq!(right.client.get("/kv/both").await.expect(200).text(), "old");
    // all else goes both ways
    right.client.put("/kv/from-right", "x").await.expect(201);
    eventually(SOON, "the node ahead has it", async || {
        let status = ahead.client.get("/kv/from-right").await.status;
        ensure(status == 200, || status.to_string())
    })
    .await;
    // set right, the node meets what it wrote itself
    clocks[1].set(0);
    let refused = ahead.client.put("/kv/far", "y").await.refused(503, "clock_skewed");
    assert_eq!(refused.json()["origin"], ahead.id);
    let wait: u64 = refused.header("retry-after").and_then(|s| s.parse().ok()).expect("seconds");
    assert!((3_400..=3_600).contains(&wait), "{wait}");
    for refused in [
        ahead.client.delete("/kv/far").await,
        ahead.client.post_json("/cas/far", &json!({"expected": {"exists": true}, "data": 1})).await,
    ] {
        refused.refused(503, "clock_skewed");
    }
    // an hour later
    clocks.iter().for_each(|clock| clock.set(HOUR_MS));
    cluster.converged().await;
    assert_eq!(right.client.get("/kv/both").await.expect(200).text(), "far");
    right.client.get("/kv/far").await.expect(200);
    holds(right, 0).await;
    holds(ahead, 0).await;
}

async fn is_ready(node: &Node) {
    eventually(SOON, "it is ready", async || {
        node.client.sync().await;
        let answer = node.client.get("/health/ready").await;
        ensure(answer.status == 200, || answer.text())
    })
    .await;
}

#[tokio::test]
async fn a_node_whose_clock_disagrees_with_most_is_not_ready_and_says_why() {
    let Some((cluster, clocks)) = cluster(3).await else { return };
    let off = &cluster.nodes[2];
    is_ready(off).await;
    for (skew_ms, way) in [(HOUR_MS, "ahead of"), (-HOUR_MS, "behind")] {
        clocks[2].set(skew_ms);
        eventually(SOON, "it is not ready", async || {
            off.client.sync().await;
            let answer = off.client.get("/health/ready").await;
            ensure(answer.status == 503, || answer.text())
        })
        .await;
        let refused = off.client.get("/health/ready").await.refused(503, "clock_skewed");
        let detail = text(&refused.json()["detail"]);
        assert!(detail.contains(way) && detail.contains("2 of 2 alive peers"), "{detail}");
        let readable = off.client.get("/health/readable").await.expect(200).json();
        assert_eq!(readable["unready"]["code"], "clock_skewed");
        let shown = off.client.cluster().await;
        assert_eq!(text(&shown["node"]["clock_skewed"]), detail);
        assert!(status(off).contains("not ready        this node's clock is"));
        off.logs(&["WARN", "not ready (clock_skewed)", way]).await;
        eventually(SOON, "the metrics show it", async || {
            let skewed = off.client.metric("kvs_clock_skewed", &[]).await;
            ensure(skewed == 1, || skewed.to_string())
        })
        .await;
        // the others see that it is not they who are wrong
        for node in &cluster.nodes[..2] {
            node.client.sync().await;
            let member = node.member(&off.id).await.expect("a member");
            let shown = member["clock_skew_ms"].as_i64().expect("it is reached");
            assert!((shown - skew_ms).abs() < 60_000, "{shown}");
            node.client.get("/health/ready").await.expect(200);
            node.logs(&["WARN", "the clock of member n3", "this node's"]).await;
        }
        clocks[2].set(0);
        is_ready(off).await;
        off.logs(&["INFO", "this node's clock no longer disagrees"]).await;
    }
}

/// Waits until `node` shows the value `shown` at `path`.
async fn reads(node: &Node, path: &str, shown: &str) {
    eventually(SOON, &format!("{} shows {path}", node.place.name), async || {
        let answer = node.client.get(path).await;
        ensure(answer.status == 200 && answer.text() == shown, || answer.text())
    })
    .await;
}

#[tokio::test]
async fn a_node_that_ran_ahead_and_was_set_right_loses_nothing_and_all_say_whose_clock_it_was() {
    let Some((cluster, clocks)) = cluster(3).await else { return };
    let [right, other, off] = &cluster.nodes[..] else { unreachable!("three nodes") };
    let mut written = Vec::new();
    for step_ms in [3_000, -3_000, HOUR_MS, -HOUR_MS, YEAR_MS] {
        clocks[2].set(step_ms);
        let (own, theirs) = (format!("/kv/off/{step_ms}"), format!("/kv/right/{step_ms}"));
        if step_ms > -HOUR_MS / 2 {
            off.client.put(&own, "wrong").await.expect(201);
            written.push((own.clone(), "wrong"));
        } else {
            // it has told others that it writes above what was its time before
            let refused = off.client.put(&own, "wrong").await.refused(503, "clock_skewed");
            assert_eq!(refused.json().get("origin"), None);
        }
        right.client.put(&theirs, "right").await.expect(201);
        if step_ms.abs() > HOUR_MS / 2 {
            // everybody says whose clock it is
            eventually(SOON, "it is not ready", async || {
                off.client.sync().await;
                let answer = off.client.get("/health/ready").await;
                ensure(answer.status == 503, || answer.text())
            })
            .await;
            off.client.get("/health/ready").await.refused(503, "clock_skewed");
            for node in [right, other] {
                eventually(SOON, "they show how far it is off", async || {
                    node.client.sync().await;
                    let member = node.member(&off.id).await.expect("a member");
                    let shown = member["clock_skew_ms"].as_i64().unwrap_or_default();
                    ensure((shown - step_ms).abs() < HOUR_MS / 2, || member.to_string())
                })
                .await;
                node.client.get("/health/ready").await.expect(200);
                node.logs(&["WARN", "the clock of member n3"]).await;
            }
        }
        clocks[2].set(0);
        is_ready(off).await;
        // its own key waits for its time; all others are written as ever
        if step_ms > HOUR_MS / 2 {
            right.client.get(&own).await.refused(404, "key_not_found");
            let refused = off.client.put(&own, "again").await.refused(503, "clock_skewed");
            assert_eq!(refused.json()["origin"], off.id);
        }
        off.client.put(&format!("/kv/after/{step_ms}"), "right").await.expect(201);
        written.extend([(theirs, "right"), (format!("/kv/after/{step_ms}"), "right")]);
    }
    // a record that all have taken lies ahead of a clock that falls behind
    clocks[2].set(50_000);
    off.client.put("/kv/near", "x").await.expect(201);
    reads(right, "/kv/near", "x").await;
    clocks[0].set(-20_000);
    let refused = right.client.put("/kv/near", "y").await.refused(503, "clock_skewed");
    assert_eq!(refused.json()["origin"], off.id);
    clocks[0].set(0);
    right.client.put("/kv/near", "y").await.expect(200);
    // a year later
    clocks.iter().for_each(|clock| clock.set(YEAR_MS));
    cluster.converged().await;
    for node in &cluster.nodes {
        for (path, shown) in &written {
            assert_eq!(node.client.get(path).await.expect(200).text(), *shown, "{path}");
        }
        holds(node, 0).await;
    }
}

/// Nothing at or below a floor changes any more, so a node that held back a record there when it
/// was counted would lack it for ever.
#[tokio::test]
async fn an_empty_node_is_not_counted_while_it_holds_back_what_lies_below_the_floor() {
    let site = Site::clustered();
    let Some(clocks) = clocks_of(&site, 2) else { return };
    let first = place(&site, &clocks, 1, &[]).start().await;
    clocks[0].set(HOUR_MS);
    let written = first.client.put("/kv/far", "x").await.expect(201).timestamp();
    eventually(SOON, "its floor follows its clock", async || {
        let floor = first.client.cluster().await["floor"].as_u64().unwrap_or_default();
        ensure(floor >= written, || floor.to_string())
    })
    .await;
    clocks[0].set(0);
    let second = place(&site, &clocks, 2, &[&first]).start().await;
    eventually(SOON, "it says what it waits for", async || {
        let node = second.client.cluster().await["node"].clone();
        let waits = node["waits_for"].as_str().unwrap_or_default();
        ensure(waits.contains("this node holds back records"), || node.to_string())
    })
    .await;
    second.client.get("/kv/far").await.refused(503, "syncing");
    clocks.iter().for_each(|clock| clock.set(HOUR_MS));
    converged(&[&first, &second], SOON).await;
    assert_eq!(second.client.get("/kv/far").await.expect(200).text(), "x");
}
