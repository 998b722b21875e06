//! Dead records go once all durable members are known to hold what came before; members that are
//! gone are forgotten, and come back as new ones.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::command::kvs;
use crate::support::{
    Cluster, Node, SOON, Site, client::text, cluster::converged, ensure, eventually,
};

async fn holds_no_dead(node: &Node) {
    eventually(SOON, "what is dead goes", async || {
        let view = node.client.cluster().await;
        ensure(view["tombstones"] == 0, || view.to_string())
    })
    .await;
}

/// Three nodes that have met.
async fn three() -> Cluster {
    let cluster = Site::clustered().cluster(3).await;
    cluster.nodes[0].client.put("/kv/kept", "x").await.expect(201);
    cluster.converged().await;
    cluster
}

#[tokio::test]
async fn what_is_dead_leaves_every_node_and_status_shows_how_far() {
    let cluster = three().await;
    let client = &cluster.nodes[0].client;
    for number in 0..20 {
        client.put(&format!("/kv/gone/{number}?ttl=1s"), "x").await.expect(201);
        client.put(&format!("/kv/deleted/{number}"), "x").await.expect(201);
        client.delete(&format!("/kv/deleted/{number}")).await.expect(200);
    }
    for node in &cluster.nodes {
        eventually(SOON, "all of it is dead", async || {
            let view = node.client.cluster().await;
            ensure(view["keys"] == 1, || view.to_string())
        })
        .await;
        holds_no_dead(node).await;
    }
    cluster.converged().await;
    let written = client.put("/kv/last", "x").await.expect(201).timestamp();
    eventually(SOON, "every member is in sync past the last write", async || {
        let view = client.cluster().await;
        let through = view["in_sync_through"].as_u64().unwrap_or_default();
        let floor = view["floor"].as_u64().unwrap_or_default();
        ensure(through >= written && floor >= written, || view.to_string())
    })
    .await;
    let view = client.cluster().await;
    assert_eq!((&view["floor_waits_for"], &view["apart"]), (&json!([]), &json!([])));
    assert!(client.metric("kvs_store_collected_total", &[]).await >= 40);
    let metrics = client.get("/metrics").await.text();
    for name in ["kvs_floor_timestamp_seconds", "kvs_in_sync_through_timestamp_seconds"] {
        let mut lines =
            metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let seconds: f64 = lines.next_back().expect("a sample").parse().expect("a number");
        let written = Duration::from_micros(written).as_secs_f64();
        assert!(seconds >= written, "{name} {seconds}");
    }
    assert!(!metrics.contains("kvs_floor_waits_for_timestamp_seconds{"), "{metrics}");
    let status = kvs(["status", "--url", client.url()]).expect(0).text();
    assert!(status.contains("floor ") && !status.contains("floor waits for"), "{status}");
}

/// Forgets a member as soon as `node` takes it to be down.
async fn forget(node: &Node, id: &str) {
    node.shows(id, "down").await;
    let said = kvs(["forget", id, "--url", node.client.url()]).expect(0).text();
    assert!(said.contains("refused from now on"), "{said}");
}

#[tokio::test]
async fn a_member_that_is_away_holds_the_dead_until_it_is_forgotten_and_joins_anew() {
    let mut cluster = three().await;
    let id = cluster.nodes[2].id.clone();
    let path = format!("/cluster/members/{id}");
    cluster.nodes[0].client.delete(&path).await.refused(409, "member_alive");
    let own = format!("/cluster/members/{}", cluster.nodes[0].id);
    cluster.nodes[0].client.delete(&own).await.refused(409, "member_alive");
    let nobody = "/cluster/members/0f8fad5b-d9cb-469f-a165-70867728950e";
    cluster.nodes[0].client.delete(nobody).await.refused(404, "member_not_found");
    cluster.nodes[0].client.delete("/cluster/members/n3").await.refused(400, "bad_request");
    cluster.nodes[2].kill();
    let first = &cluster.nodes[0];
    first.client.delete("/kv/kept").await.expect(200);
    first.client.put("/kv/later", "x").await.expect(201);
    let waits = |view: &Value| view["floor_waits_for"].as_array().expect("a list").clone();
    eventually(SOON, "the floor waits for the member", async || {
        let view = first.client.cluster().await;
        let waits = waits(&view);
        let named = waits.len() == 1 && waits[0]["id"] == id.as_str();
        ensure(named && view["tombstones"] == 1, || view.to_string())
    })
    .await;
    // one that is alive can still catch up
    first.shows(&id, "down").await;
    let status = kvs(["status", "--url", first.client.url()]).expect(0).text();
    let command = format!("kvs forget {id}");
    assert!(status.contains("floor waits for") && status.contains(&command), "{status}");
    let sample = format!("kvs_floor_waits_for_timestamp_seconds{{member=\"{id}\"}} ");
    let metrics = first.client.get("/metrics").await.text();
    assert!(metrics.contains(&sample), "{metrics}");
    forget(first, &id).await;
    for node in &cluster.nodes[..2] {
        holds_no_dead(node).await;
        let view = node.client.cluster().await;
        assert_eq!(waits(&view), Vec::<Value>::new());
        let metrics = node.client.get("/metrics").await.text();
        assert!(!metrics.contains(&sample), "{metrics}");
        let listed = view["members"].as_array().expect("a list");
        assert!(listed.iter().all(|member| member["id"] != id.as_str()), "{view}");
    }
    // it still holds the value that was deleted, and writes one more before it hears
    let node = cluster.nodes.remove(2).restart().await;
    let first = &cluster.nodes[0];
    node.logs(&["was forgotten", "kvs join"]).await;
    assert_eq!(first.client.get("/kv/kept").await.status, 404);
    let said = kvs(["join", "--own", "set_aside", "--url", node.client.url()]).expect(0).text();
    assert!(said.contains("joins"), "{said}");
    eventually(SOON, "it is another member", async || {
        let view = node.client.cluster().await;
        let other = text(&view["node"]["id"]);
        ensure(other != id && view["node"]["syncing"] == false, || view.to_string())
    })
    .await;
    converged(&[&cluster.nodes[0], &cluster.nodes[1], &node], SOON).await;
    assert_eq!(node.client.get("/kv/kept").await.status, 404);
    node.client.get("/kv/later").await.expect(200);
    let aside = std::fs::read_dir(node.place.data_dir().join("set-aside")).expect("a directory");
    let file = aside.into_iter().next().expect("a file").expect("a file").path();
    let lines = std::fs::read_to_string(file).expect("text");
    assert!(lines.contains(r#""key":"kept""#), "{lines}");
}

#[tokio::test]
async fn what_a_forgotten_member_alone_holds_is_written_anew_where_the_operator_wants_it() {
    let mut cluster = three().await;
    let id = cluster.nodes[2].id.clone();
    cluster.nodes[0].client.put("/kv/newer", "x").await.expect(201);
    cluster.converged().await;
    cluster.nodes[2].kill();
    let first = &cluster.nodes[0];
    first.client.delete("/kv/kept").await.expect(200);
    first.client.put("/kv/newer", "y").await.expect(200);
    forget(first, &id).await;
    for node in &cluster.nodes[..2] {
        holds_no_dead(node).await;
    }
    let node = cluster.nodes.remove(2).restart().await;
    node.logs(&["was forgotten", "kvs join"]).await;
    let said = kvs(["join", "--own", "rewrite", "--url", node.client.url()]).expect(0).text();
    assert!(said.contains("joins"), "{said}");
    node.logs(&["wrote anew what was set aside", ".rewritten.ndjson"]).await;
    converged(&[&cluster.nodes[0], &cluster.nodes[1], &node], SOON).await;
    for node in [&cluster.nodes[0], &cluster.nodes[1], &node] {
        assert_eq!(node.client.get("/kv/kept").await.expect(200).text(), "x");
        assert_eq!(node.client.get("/kv/newer").await.expect(200).text(), "y");
    }
}
