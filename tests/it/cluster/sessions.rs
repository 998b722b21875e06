//! Sessions find and exchange the records that differ, and send little else.

use std::fmt::Write as _;

use serde_json::Value;

use crate::support::{Cluster, Node, Site, command::kvs_with};

const RECORDS: usize = 60_000;
const BYTES_MAX: u64 = 20_000;

fn sum(answer: &Value, field: &str) -> u64 {
    let peers = answer["peers"].as_array().expect("peers");
    peers.iter().map(|peer| peer[field].as_u64().expect("a number")).sum()
}

/// The bytes of a node's sessions, in both directions.
async fn session_bytes(node: &Node) -> u64 {
    node.client.metric("kvs_peer_bytes_total", &[("stream", "session")]).await
}

/// Two nodes with the same 60,000 records, which exchange differences by sessions alone.
async fn filled() -> Cluster {
    let site = Site::clustered().set("sync.push", false).set("sync.interval", "1h");
    let cluster = site.set("storage.durability", "os").cluster(2).await;
    cluster.synced().await;
    let mut lines = String::new();
    for n in 0..RECORDS {
        // spread over the key order, as names are
        let name = blake3::hash(&n.to_le_bytes()).to_hex();
        let _ = writeln!(lines, r#"{{"key":"data/{}/{}","data":{n}}}"#, &name[..2], &name[2..18]);
    }
    let url = cluster.nodes[0].url().to_owned();
    let imported = kvs_with(["--url", &url, "-o", "json", "import", "-"], lines.as_bytes());
    assert_eq!(imported.expect(0).json()["imported"], RECORDS);
    let bulk = cluster.nodes[1].client.sync().await;
    assert_eq!(sum(&bulk, "records_received"), RECORDS as u64);
    cluster.converged().await;
    for node in &cluster.nodes {
        assert_eq!(node.client.cluster().await["keys"], RECORDS);
    }
    cluster
}

#[tokio::test]
async fn one_difference_among_60_000_records_costs_less_than_20_000_bytes() {
    let cluster = filled().await;
    let (a, b) = (&cluster.nodes[0], &cluster.nodes[1]);
    let page = a.client.get("/scan/data/7f?limit=4").await.json();
    let path = |at: usize| format!("/kv/{}", page["items"][at]["key"].as_str().expect("a key"));
    // without a difference they exchange only greetings
    let idle = b.client.sync().await;
    assert_eq!((sum(&idle, "records_received"), sum(&idle, "records_sent")), (0, 0));
    assert!(sum(&idle, "bytes_sent") + sum(&idle, "bytes_received") < 1_200, "{idle}");
    // first the node without the record starts the session, then the node with it
    for (at, driver) in [b, a].into_iter().enumerate() {
        let (replaced, deleted) = (path(at), path(at + 2));
        let added = format!("/kv/data/new-{at}");
        for (kind, path) in [("replaced", &replaced), ("deleted", &deleted), ("added", &added)] {
            match kind {
                "deleted" => a.client.delete(path).await.expect(200),
                "replaced" => a.client.put(path, "other").await.expect(200),
                _ => a.client.put(path, "new").await.expect(201),
            };
            let expected = a.client.get(path).await;
            let before = (session_bytes(a).await, session_bytes(b).await);
            let answer = driver.client.sync().await;
            let moved = if driver.id == b.id { "records_received" } else { "records_sent" };
            assert_eq!(sum(&answer, moved), 1, "{kind}: {answer}");
            let records = sum(&answer, "records_sent") + sum(&answer, "records_received");
            // the nodes learn which version is newer only after one has crossed
            assert!(records <= if kind == "added" { 1 } else { 2 }, "{kind}: {answer}");
            let told = sum(&answer, "bytes_sent") + sum(&answer, "bytes_received");
            for (node, before) in [(a, before.0), (b, before.1)] {
                let counted = session_bytes(node).await - before;
                assert!((1..BYTES_MAX).contains(&counted), "{kind}: {counted} bytes: {answer}");
                assert_eq!(counted, told, "{} counts what the answer tells", node.place.name);
            }
            let read = b.client.get(path).await;
            assert_eq!((read.status, &read.body), (expected.status, &expected.body), "{kind}");
        }
    }
    cluster.converged().await;
    assert_eq!(a.client.fingerprint().await, b.client.fingerprint().await);
}

/// Each node has records that the other lacks, spread over the key order.
#[tokio::test]
async fn one_session_exchanges_records_both_ways() {
    let site = Site::clustered().set("sync.push", false).set("sync.interval", "1h");
    let cluster = site.cluster(2).await;
    cluster.synced().await;
    let (a, b) = (&cluster.nodes[0], &cluster.nodes[1]);
    for n in 1..=300 {
        let owner = if n % 3 == 0 { a } else { b };
        owner.client.put(&format!("/kv/{n}"), vec![b'x'; n * 10]).await.expect(201);
    }
    // a key that both nodes wrote
    a.client.put("/kv/both", "first").await.expect(201);
    b.client.put("/kv/both", "second").await.expect(201);
    assert_ne!(a.client.fingerprint().await, b.client.fingerprint().await);
    assert_eq!(a.client.cluster().await["converged"], false);
    let answer = a.client.sync().await;
    assert_eq!((sum(&answer, "records_sent"), sum(&answer, "records_received")), (100, 201));
    assert_eq!(a.client.fingerprint().await, b.client.fingerprint().await);
    for node in [a, b] {
        assert_eq!(node.client.get("/kv/both").await.text(), "second", "the later write");
        assert_eq!(node.client.cluster().await["keys"], 301);
    }
    cluster.converged().await;
}

#[tokio::test]
async fn large_values_go_over_sessions_too() {
    let site = Site::clustered().set("sync.push", false).set("sync.interval", "1h");
    let cluster = site.cluster(2).await;
    let (a, b) = (&cluster.nodes[0], &cluster.nodes[1]);
    let large = crate::api::values::noise(16 << 20, 1);
    for key in ["1", "2", "3"] {
        a.client.put(&format!("/kv/{key}"), large.clone()).await.expect(201);
    }
    b.client.put("/kv/4", large.clone()).await.expect(201);
    a.client.sync().await;
    for node in [a, b] {
        for key in ["1", "2", "3", "4"] {
            assert!(node.client.get(&format!("/kv/{key}")).await.body == large, "{key}");
        }
    }
    cluster.converged().await;
}
