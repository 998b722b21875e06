//! An empty node with seeds waits for its first data before it serves.

use std::net::UdpSocket;

use kvs::clock::Clock;
use rand::Rng;
use reqwest::Method;
use serde_json::json;

use crate::cli::kept_versions::exported;
use crate::support::{SOON, Site, cluster::converged, ensure, eventually};

#[tokio::test]
async fn a_node_whose_seeds_are_dead_refuses_for_a_while_and_then_serves() {
    let site = Site::clustered().set("sync.bootstrap_wait", "3s");
    let dead = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let mut place = site.place("n1", &[]);
    let seed = dead.local_addr().expect("an address").to_string();
    place.set("gossip.seeds", vec![seed]);
    let node = place.start().await;
    let client = &node.client;
    let swap = json!({ "expected": { "absent": true }, "data": 1 }).to_string();
    let line = exported("a").to_string();
    for (method, path, body) in [
        (Method::GET, "/health/ready", ""),
        (Method::GET, "/kv/a", ""),
        (Method::GET, "/kv/a?format=envelope", ""),
        (Method::PUT, "/kv/a", "x"),
        (Method::DELETE, "/kv/a", ""),
        (Method::POST, "/cas/a", swap.as_str()),
        (Method::GET, "/scan", ""),
        (Method::POST, "/admin/import", line.as_str()),
    ] {
        let answer = client.send(method, path, &[], body.to_owned()).await;
        answer.refused(503, "syncing");
    }
    // invalid requests get their own errors first, and these routes work meanwhile
    client.get("/kv//").await.refused(400, "bad_key");
    client.get("/health/live").await.expect(200);
    client.get("/metrics").await.expect(200);
    assert_eq!(client.cluster().await["node"]["syncing"], true);
    eventually(SOON, "it serves at last", async || {
        let answer = client.get("/health/ready").await;
        ensure(answer.status == 200, || answer.text())
    })
    .await;
    assert_eq!(client.cluster().await["node"]["syncing"], false);
    client.get("/kv/a").await.refused(404, "key_not_found");
    client.put("/kv/a", "x").await.expect(201);
    // a node with data does not wait again
    let node = node.kill_and_restart().await;
    assert_eq!(node.client.get("/kv/a").await.expect(200).text(), "x");
}

#[tokio::test]
async fn a_node_that_joins_shows_nothing_before_it_has_the_data() {
    let site = Site::clustered().set("sync.bootstrap_wait", "10m");
    let first = site.node("n1", &[]).await;
    for n in 0..200 {
        first.client.put(&format!("/kv/{n}"), vec![b'x'; 20_000]).await.expect(201);
    }
    let second = site.node("n2", &[&first]).await;
    eventually(SOON, "it has the data", async || {
        let answer = second.client.get("/kv/199").await;
        assert!([200, 503].contains(&answer.status), "never an empty answer: {}", answer.text());
        ensure(answer.status == 200, || answer.text())
    })
    .await;
    for n in 0..200 {
        second.client.get(&format!("/kv/{n}")).await.expect(200);
    }
    converged(&[&first, &second], SOON).await;
}

/// A kill in the middle of the first session leaves a part of the data. The restarted node must not
/// serve it as if it were all.
#[tokio::test]
async fn a_node_killed_during_its_first_session_does_not_serve_a_part() {
    const VALUES: u64 = 400;
    let site = Site::clustered().set("sync.bootstrap_wait", "10m");
    let first = site.node("n1", &[]).await;
    let mut value = vec![0; 256 << 10];
    for n in 0..VALUES {
        // incompressible values
        Clock::system().rng().fill_bytes(&mut value);
        first.client.put(&format!("/kv/{n}"), value.clone()).await.expect(201);
    }
    let second = site.node("n2", &[&first]).await;
    eventually(SOON, "it has a part", async || {
        let keys = second.client.cluster().await["keys"].clone();
        ensure(keys != 0, || "it has nothing".to_owned())
    })
    .await;
    // no other node runs, so the rest does not come
    first.pause();
    let second = second.kill_and_restart().await;
    let cluster = second.client.cluster().await;
    assert_eq!(cluster["node"]["syncing"], true);
    let keys = cluster["keys"].as_u64().expect("a number");
    assert!((1..VALUES).contains(&keys), "{keys} keys: it was not killed in the middle");
    second.client.get("/kv/0").await.refused(503, "syncing");
    first.resume();
    eventually(SOON, "it serves", async || {
        let answer = second.client.get("/health/ready").await;
        ensure(answer.status == 200, || answer.text())
    })
    .await;
    for n in 0..VALUES {
        second.client.head(&format!("/kv/{n}")).await.expect(200);
    }
    converged(&[&first, &second], SOON).await;
}

#[tokio::test]
async fn a_node_without_seeds_serves_at_once() {
    let site = Site::clustered().set("sync.bootstrap_wait", "10m");
    let node = site.node("n1", &[]).await;
    node.client.get("/health/ready").await.expect(200);
    node.client.put("/kv/a", "x").await.expect(201);
}
