//! History from outside: the earlier revisions of a key and how to restore one.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::values::noise;
use crate::support::{Client, SOON, Site, client::text, ensure, eventually};

async fn revisions(client: &Client, path: &str) -> Vec<Value> {
    let answer = client.get(path).await.expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.json()["revisions"].as_array().expect("a list").clone()
}

fn field<'a>(revisions: &'a [Value], name: &str) -> Vec<&'a Value> {
    revisions.iter().map(|revision| &revision[name]).collect()
}

#[tokio::test]
async fn each_revision_says_what_it_was_and_how_it_ended() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let first = client.put_json("/kv/a/b", r#"{"n": 1.0}"#).await.expect(201);
    let second = client.put("/kv/a/b?ttl=1h", "two").await.expect(200);
    let third = client.delete("/kv/a/b").await.expect(200);
    let swap = json!({ "expected": { "absent": true }, "data": 4 });
    let fourth = client.post_json("/cas/a/b", &swap).await.expect(200);
    let shown = revisions(client, "/history/a%2Fb").await;
    let uuids: Vec<_> = [&fourth, &third, &second, &first].map(|a| json!(a.uuid())).into();
    assert_eq!(field(&shown, "uuid"), uuids.iter().collect::<Vec<_>>(), "newest first");
    let times: Vec<_> = [&fourth, &third, &second, &first].map(|a| json!(a.timestamp())).into();
    assert_eq!(field(&shown, "timestamp"), times.iter().collect::<Vec<_>>());
    assert_eq!(field(&shown, "outcome"), ["current", "replaced", "replaced", "replaced"]);
    assert!(shown[0].get("by").is_none());
    assert_eq!(field(&shown[1..], "by"), uuids[..3].iter().collect::<Vec<_>>());
    assert_eq!(field(&shown[..3], "parent"), uuids[1..].iter().collect::<Vec<_>>());
    assert_eq!(shown[3]["parent"], Value::Null);
    assert_eq!(field(&shown, "origin"), [node.id.as_str(); 4]);
    assert_eq!(field(&shown, "deleted"), [false, true, false, false]);
    assert_eq!(shown[2]["expires_at"], second.json()["expires_at"]);
    let text = client.get("/history/a/b").await.text();
    assert!(text.starts_with(r#"{"key":"a/b","revisions":[{"uuid":""#), "{text}");
    assert!(text.contains(r#""content_type":"application/json","size":10,"data":{"n": 1.0}}"#));
    let bytes = r#""content_type":"application/octet-stream","size":3,"data_base64":"dHdv"}"#;
    assert!(text.contains(bytes), "{text}");
    for member in ["content_type", "size", "data", "data_base64", "omitted"] {
        assert!(shown[1].get(member).is_none(), "a delete has no content: {}", shown[1]);
    }
    assert_eq!(client.head("/history/a/b").await.status, 200);
    client.get("/history/a").await.refused(404, "key_not_found");
    client.get(&format!("/history/a?uuid={}", first.uuid())).await.refused(404, "key_not_found");
}

#[tokio::test]
async fn a_limit_takes_the_newest() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    for n in 0..12 {
        client.put_json("/kv/k", n.to_string()).await;
    }
    let newest = |n: u64| (12 - n..12).rev().map(|n| json!(n)).collect::<Vec<_>>();
    let shown = async |query: &str| {
        let shown = revisions(client, &format!("/history/k{query}")).await;
        shown.into_iter().map(|revision| revision["data"].clone()).collect::<Vec<_>>()
    };
    // revision_history_depth is 8: the current one, and eight before it
    for query in ["", "?limit=1000", "?limit=9"] {
        assert_eq!(shown(query).await, newest(9), "{query}");
    }
    assert_eq!(shown("?limit=1").await, newest(1));
    assert_eq!(shown("?limit=3").await, newest(3));
    for bad in ["0", "1001", "-1", "x", ""] {
        client.get(&format!("/history/k?limit={bad}")).await.refused(400, "bad_request");
    }
    let both = format!("/history/k?limit=1&uuid={}", Uuid::nil());
    client.get(&both).await.refused(400, "bad_request");
}

#[tokio::test]
async fn the_bytes_of_a_revision_come_with_the_headers_of_a_value() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let (small, large) = (noise(65_536, 1), noise(16 << 20, 2));
    let mut uuids = Vec::new();
    for value in [b"".as_slice().into(), small.clone(), noise(65_537, 3), large.clone()] {
        let headers = [("content-type", "text/x-noise")];
        let put = client.send(Method::PUT, "/kv/k?ttl=1h", &headers, value).await;
        uuids.push((put.uuid(), put.timestamp(), text(&put.json()["expires_at"])));
    }
    client.put("/kv/k", "now").await.expect(200);
    let shown = revisions(client, "/history/k").await;
    let omitted: Vec<_> = shown.iter().map(|revision| revision.get("omitted").is_some()).collect();
    assert_eq!(omitted, [false, true, true, false, false], "above 64 KiB");
    let content = shown.iter().map(|revision| revision.get("data_base64").is_some());
    assert_eq!(content.collect::<Vec<_>>(), [true, false, false, true, true]);
    for (at, value) in [(0, bytes::Bytes::new()), (1, small), (3, large)] {
        let (uuid, timestamp, expires) = &uuids[at];
        let path = format!("/history/k?uuid={uuid}");
        let read = client.get(&path).await.expect(200);
        assert!(read.body == value, "byte for byte");
        let head = client.head(&path).await.expect(200);
        assert!(head.body.is_empty());
        for read in [read, head] {
            for (name, value) in [
                ("content-type", "text/x-noise"),
                ("content-length", &value.len().to_string()),
                ("kvs-timestamp", &timestamp.to_string()),
                ("kvs-origin", &node.id),
                ("kvs-expires-at", expires),
                ("x-content-type-options", "nosniff"),
                ("content-security-policy", "sandbox"),
            ] {
                assert_eq!(read.header(name), Some(value), "{name}");
            }
        }
    }
    let none = format!("/history/k?uuid={}", Uuid::nil());
    client.get(&none).await.refused(404, "revision_not_found");
    for bad in ["", "x", "00000000000000000000000000000000"] {
        client.get(&format!("/history/k?uuid={bad}")).await.refused(400, "bad_request");
    }
    let deleted = client.delete("/kv/k").await.expect(200).uuid();
    let refused = client.get(&format!("/history/k?uuid={deleted}")).await;
    let problem = refused.refused(404, "revision_not_found").json();
    assert!(text(&problem["detail"]).contains("delete"), "{problem}");
}

#[tokio::test]
async fn an_old_revision_is_restored_by_an_ordinary_swap() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let good = client.put_json("/kv/k", r#"{"good": 1.0}"#).await.expect(201).uuid();
    client.put("/kv/k", "bad").await.expect(200);
    let shown = revisions(client, "/history/k").await;
    let old = shown.iter().find(|revision| revision["uuid"] == json!(good)).expect("it is kept");
    let swap = json!({ "expected": { "uuid": shown[0]["uuid"] }, "data": old["data"] });
    let restored = client.post_json("/cas/k", &swap).await.expect(200);
    assert_eq!(restored.json()["previous"]["uuid"], shown[0]["uuid"]);
    let shown = revisions(client, "/history/k").await;
    assert_eq!(field(&shown, "outcome"), ["current", "replaced", "replaced"]);
    assert_eq!(shown[0]["data"], shown[2]["data"]);
    assert_eq!(shown[0]["uuid"], json!(restored.uuid()));
    // a deleted key can be restored too
    client.delete("/kv/k").await.expect(200);
    let absent = json!({ "expected": { "absent": true }, "data": old["data"] });
    client.post_json("/cas/k", &absent).await.expect(200);
    assert_eq!(client.get("/kv/k").await.json(), json!({ "good": 1.0 }));
}

#[tokio::test]
async fn history_survives_a_restart() {
    let node = Site::alone().node("n1", &[]).await;
    for n in 0..5 {
        node.client.put("/kv/k", noise(5000, n)).await;
    }
    node.client.delete("/kv/k").await.expect(200);
    let before = revisions(&node.client, "/history/k").await;
    let node = node.kill_and_restart().await;
    let after = revisions(&node.client, "/history/k").await;
    assert_eq!(after.len(), 6);
    assert_eq!(before, after);
    let path = format!("/history/k?uuid={}", text(&after[3]["uuid"]));
    assert!(node.client.get(&path).await.expect(200).body == noise(5000, 2));
}

#[tokio::test]
async fn an_expired_revision_is_shown_as_expired_before_and_after_its_bytes_are_freed() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let put = client.put("/kv/k?ttl=50ms", "mortal").await.expect(201);
    let path = format!("/history/k?uuid={}", put.uuid());
    let problem = eventually(SOON, "its bytes are freed", async || {
        let answer = client.get(&path).await;
        ensure(answer.status == 404, || answer.text())?;
        Ok(answer.refused(404, "revision_not_found").json())
    })
    .await;
    assert!(text(&problem["detail"]).contains("expired"), "{problem}");
    let shown = revisions(client, "/history/k").await;
    assert_eq!((shown.len(), &shown[0]["outcome"]), (1, &json!("expired")));
    assert_eq!((&shown[0]["omitted"], &shown[0]["size"]), (&json!(true), &json!(6)));
    assert!(shown[0].get("by").is_none());
    let new = client.put("/kv/k", "new").await.expect(201);
    let shown = revisions(client, "/history/k").await;
    assert_eq!(field(&shown, "outcome"), ["current", "expired"]);
    assert_eq!((&shown[1]["by"], &shown[0]["parent"]), (&json!(new.uuid()), &json!(put.uuid())));
    // a value that was replaced before its end did not expire
    client.put("/kv/l?ttl=1h", "x").await.expect(201);
    client.put("/kv/l", "y").await.expect(200);
    assert_eq!(field(&revisions(client, "/history/l").await, "outcome"), ["current", "replaced"]);
}

#[tokio::test]
async fn a_node_without_history_says_so_and_stores_none() {
    let site = Site::alone().set("revision_history_enabled", false);
    let node = site.node("n1", &[]).await;
    let client = &node.client;
    let first = client.put("/kv/k", "one").await.expect(201).uuid();
    client.put("/kv/k", "two").await.expect(200);
    for path in ["/history/k".to_owned(), format!("/history/k?uuid={first}")] {
        let problem = client.get(&path).await.refused(501, "feature_disabled").json();
        assert!(text(&problem["detail"]).contains("revision_history_enabled"), "{problem}");
    }
    assert_eq!(client.get("/kv/k").await.text(), "two");
}

/// Each node has its own history, which does not count when nodes compare their data.
#[tokio::test]
async fn the_fingerprint_does_not_depend_on_history() {
    let site = Site::clustered().set("sync.push", true);
    let cluster = site.cluster(2).await;
    let [n1, n2] = &cluster.nodes[..] else { panic!("two nodes") };
    n1.client.put("/kv/k", "one").await.expect(201);
    cluster.converged().await;
    n1.client.put("/kv/k", "two").await.expect(200);
    cluster.converged().await;
    n2.client.put("/kv/k", "three").await.expect(200);
    cluster.converged().await;
    for node in [n1, n2] {
        let shown = revisions(&node.client, "/history/k").await;
        assert_eq!(shown[0]["origin"], json!(n2.id));
        assert_eq!(field(&shown, "outcome"), ["current", "replaced", "replaced"]);
    }
}
