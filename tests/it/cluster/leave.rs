//! Leaving in order: no write goes with the node, the floor waits for it no longer, and its
//! directory begins anew.

use serde_json::json;

use crate::support::command::kvs;
use crate::support::{Node, SOON, Site, client::text, cluster::converged, ensure, eventually};

/// Waits until the floor of the node passes all that is dead, with nobody to wait for.
async fn waits_for_nobody(node: &Node) {
    eventually(SOON, "what is dead goes", async || {
        let view = node.client.cluster().await;
        let waits = &view["floor_waits_for"];
        ensure(view["tombstones"] == 0 && *waits == json!([]), || view.to_string())
    })
    .await;
}

#[tokio::test]
async fn a_node_leaves_with_nothing_that_others_lack_and_comes_back_as_a_new_member() {
    let mut cluster = Site::clustered().set("sync.push", false).cluster(3).await;
    let mut last = cluster.nodes.remove(2);
    for number in 0..50 {
        last.client.put(&format!("/kv/{number}"), "x").await.expect(201);
    }
    let said = kvs(["leave", "--url", last.client.url()]).expect(0).text();
    assert!(said.contains("left the cluster"), "{said}");
    assert_eq!(last.ended(SOON).await, 0);
    let (first, second) = (&cluster.nodes[0], &cluster.nodes[1]);
    converged(&[first, second], SOON).await;
    for number in 0..50 {
        first.client.get(&format!("/kv/{number}")).await.expect(200);
    }
    first.client.delete("/kv/0").await.expect(200);
    for node in [first, second] {
        waits_for_nobody(node).await;
    }
    // the directory still has what was deleted
    let id = last.id.clone();
    let mut last = last.restart().await;
    last.logs(&["WARN", "begins anew", "had left"]).await;
    eventually(SOON, "it serves under another id", async || {
        let view = last.client.cluster().await;
        let node = &view["node"];
        ensure(text(&node["id"]) != id && node["syncing"] == false, || view.to_string())
    })
    .await;
    converged(&[first, second, &last], SOON).await;
    last.client.get("/kv/0").await.refused(404, "key_not_found");
    last.learn_id().await;
    last.client.put("/kv/51", "x").await.expect(201);
}

#[tokio::test]
async fn a_node_does_not_leave_with_writes_that_nobody_else_holds_but_by_force() {
    let mut cluster = Site::clustered().cluster(2).await;
    cluster.nodes[0].kill();
    let node = &cluster.nodes[1];
    node.client.put("/kv/a", "x").await.expect(201);
    let refused = node.client.post_json("/cluster/leave", &json!({})).await;
    let refused = refused.refused(409, "not_replicated");
    assert!(text(&refused.json()["detail"]).contains("kvs leave --force"), "{}", refused.text());
    node.client.post_json("/cluster/leave", &json!({"force": 1})).await.refused(400, "bad_request");
    // it goes on
    node.client.put("/kv/b", "x").await.expect(201);
    let said = kvs(["leave", "--force", "-o", "json", "--url", node.client.url()]).expect(0);
    assert_eq!(said.json(), json!({"superseded": 0}));
    assert_eq!(cluster.nodes[1].ended(SOON).await, 0);
}
