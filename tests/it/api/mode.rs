//! The mode of a node: what a node in `read_only` refuses, and what it goes on with.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::command::kvs;
use crate::support::{Node, SOON, Site, ensure, eventually};

const MODE: &str = "/cluster/mode";

async fn set(node: &Node, mode: &str) {
    let body = json!({ "mode": mode });
    let answer = node.client.put(MODE, body.to_string()).await.expect(200).json();
    assert_eq!(answer, body);
}

/// The mode by each of the ways that show it.
async fn shown(node: &Node) -> Vec<Value> {
    let read_only = node.client.metric("kvs_read_only", &[]).await == 1;
    vec![
        node.client.get(MODE).await.expect(200).json()["mode"].clone(),
        node.client.cluster().await["node"]["mode"].clone(),
        json!(if read_only { "read_only" } else { "normal" }),
    ]
}

async fn shows(node: &Node, mode: &str) {
    assert_eq!(shown(node).await, vec![json!(mode); 3]);
    let special = if mode == "normal" { Value::Null } else { json!(mode) };
    for path in ["/health/ready", "/health/readable"] {
        assert_eq!(node.client.get(path).await.expect(200).json()["mode"], special, "{path}");
    }
}

#[tokio::test]
async fn a_read_only_node_refuses_writes_of_clients_alone_and_stays_so_over_a_restart() {
    let node = Site::alone().node("n1", &[]).await;
    let id = [("idempotency-key", "018c9a52-7c3c-4b6f-9d11-0f5f0c2b9a10")];
    let retry = async |node: &Node| node.client.send(Method::PUT, "/kv/once", &id, "x").await;
    let first = retry(&node).await.expect(201).json();
    node.client.put("/kv/a", "x").await.expect(201);
    shows(&node, "normal").await;
    set(&node, "read_only").await;
    let node = node.kill_and_restart().await;
    shows(&node, "read_only").await;
    node.logs(&["the mode is read_only"]).await;
    node.client.put("/kv/a", "y").await.refused(503, "read_only");
    node.client.delete("/kv/a").await.refused(503, "read_only");
    let swap = json!({"expected": {"exists": true}, "data": 1});
    node.client.post_json("/cas/a", &swap).await.refused(503, "read_only");
    let put = json!({"put": {"key": "b", "data": 1}});
    let get = json!({"get": {"key": "a"}});
    let txn = |operation: &Value| json!({"compare": [], "success": [operation], "failure": []});
    node.client.post_json("/txn", &txn(&put)).await.refused(503, "read_only");
    node.client.post_json("/txn", &txn(&get)).await.expect(200);
    assert_eq!(retry(&node).await.expect(201).json(), first, "it changes nothing");
    assert_eq!(node.client.get("/kv/a").await.expect(200).text(), "x");
    set(&node, "normal").await;
    shows(&node, "normal").await;
    node.client.put("/kv/a", "y").await.expect(200);
}

#[tokio::test]
async fn the_mode_of_the_configuration_is_that_of_the_first_start() {
    let mut node = Site::alone().set("read_only", true).node("n1", &[]).await;
    shows(&node, "read_only").await;
    let url = node.url().to_owned();
    let mode = |word: &[&str]| kvs([&["--url", &url, "mode"], word].concat()).expect(0).text();
    assert_eq!(mode(&[]).trim(), "read_only");
    assert_eq!(mode(&["normal"]).trim(), "normal");
    let status = kvs(["--url", &url, "status"]).expect(0).text();
    assert!(status.contains("mode             normal"), "{status}");
    assert!(status.contains("storage  ") && status.contains("free"), "{status}");
    node.client.put("/kv/a", "x").await.expect(201);
    node.stop().await;
    let node = node.restart().await;
    shows(&node, "normal").await;
}

#[tokio::test]
async fn a_mode_that_does_not_exist_is_refused() {
    let node = Site::alone().node("n1", &[]).await;
    for body in [r#"{"mode":"off"}"#, "{}", r#"{"mode":null}"#, "[]"] {
        node.client.put(MODE, body).await.refused(400, "bad_request");
    }
    node.client.put(MODE, r#"{"modes":"normal"}"#).await.refused(400, "unknown_field");
    node.client.put(MODE, "").await.refused(400, "bad_json");
    shows(&node, "normal").await;
}

#[tokio::test]
async fn merges_and_sweeps_go_on_in_a_read_only_node() {
    let cluster = Site::clustered().cluster(2).await;
    let [first, second] = &cluster.nodes[..] else { panic!("two nodes") };
    second.client.put("/kv/short?ttl=1s", "x").await.expect(201);
    set(second, "read_only").await;
    first.client.put("/kv/pushed", "x").await.expect(201);
    eventually(SOON, "the write arrives, and the expired value goes", async || {
        let pushed = second.client.get("/kv/pushed").await;
        let live = second.client.cluster().await["keys"].clone();
        ensure(pushed.status == 200 && live == 1, || format!("{} {live}", pushed.text()))
    })
    .await;
    second.client.put("/kv/a", "x").await.refused(503, "read_only");
    cluster.converged().await;
}
