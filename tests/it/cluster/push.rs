//! Pushes: a write reaches the other nodes at once, without any session.

use std::time::Duration;

use bytes::Bytes;

use crate::api::values::noise;
use crate::support::{Cluster, SOON, Site, ensure, eventually};

/// The longest that "at once" may take on a machine that is busy with other tests.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Waits until all nodes but the one at `from` answer `path` with `value`, or with 404.
async fn everywhere(cluster: &Cluster, from: usize, path: &str, value: Option<&Bytes>) {
    for node in cluster.nodes.iter().enumerate().filter(|(at, _)| *at != from).map(|(_, n)| n) {
        let what = format!("{path} of node {from} shows on {}", node.place.name);
        eventually(AT_ONCE, &what, async || {
            let read = node.client.get(path).await;
            match value {
                Some(value) => {
                    ensure(read.status == 200 && read.body == *value, || read.status.to_string())
                }
                None => ensure(read.status == 404, || read.status.to_string()),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn writes_show_on_the_other_nodes_at_once() {
    let cluster = Site::clustered().set("sync.interval", "1h").cluster(3).await;
    let sessions = async || {
        let mut count = 0;
        for node in &cluster.nodes {
            count += node.client.metric("kvs_sync_sessions_total", &[("side", "pull")]).await;
        }
        count
    };
    cluster.synced().await;
    let before = sessions().await;
    for (at, node) in cluster.nodes.iter().enumerate() {
        let value = Bytes::from(format!("by {at}"));
        node.client.put(&format!("/kv/push/{at}"), value.clone()).await.expect(201);
        everywhere(&cluster, at, &format!("/kv/push/{at}"), Some(&value)).await;
    }
    // another node, which has received the first write, replaces it
    for (at, node) in cluster.nodes.iter().enumerate() {
        let path = format!("/kv/push/{}", (at + 1) % 3);
        let value = Bytes::from(format!("over it by {at}"));
        node.client.put(&path, value.clone()).await.expect(200);
        everywhere(&cluster, at, &path, Some(&value)).await;
    }
    for (at, node) in cluster.nodes.iter().enumerate() {
        let path = format!("/kv/push/{at}");
        node.client.delete(&path).await.expect(200);
        everywhere(&cluster, at, &path, None).await;
    }
    cluster.converged().await;
    assert_eq!(sessions().await, before, "no session was needed");
}

#[tokio::test]
async fn a_value_of_16_mib_shows_on_the_other_nodes_at_once() {
    let cluster = Site::clustered().set("sync.interval", "1h").cluster(3).await;
    for (at, node) in cluster.nodes.iter().enumerate() {
        let value = noise(16 << 20, at as u64);
        node.client.put("/kv/large", value.clone()).await;
        everywhere(&cluster, at, "/kv/large", Some(&value)).await;
    }
    cluster.converged().await;
}

#[tokio::test]
async fn on_one_clock_a_swap_on_another_node_sees_the_pushed_version() {
    let cluster = Site::clustered().set("sync.interval", "1h").cluster(2).await;
    let (a, b) = (&cluster.nodes[0].client, &cluster.nodes[1].client);
    let mut uuid = a.put("/kv/turn", "0").await.expect(201).uuid();
    for (turn, client) in [b, a, b, a, b].into_iter().enumerate() {
        let body = serde_json::json!({ "expected": { "uuid": uuid }, "data": turn });
        let swapped = eventually(AT_ONCE, "the pushed version can be swapped", async || {
            let answer = client.post_json("/cas/turn", &body).await;
            ensure(answer.status == 200, || answer.text()).map(|()| answer)
        });
        uuid = swapped.await.uuid();
    }
    cluster.converged().await;
    assert_eq!(a.get("/kv/turn").await.body, b.get("/kv/turn").await.body);
}

#[tokio::test]
async fn the_lag_of_a_member_is_the_age_of_what_it_has_not_confirmed() {
    let cluster = Site::clustered().cluster(2).await;
    let [first, second] = &cluster.nodes[..] else { panic!("two nodes") };
    let lag = async || first.member(&second.id).await.map(|m| m["replication_lag_ms"].clone());
    first.client.put("/kv/before", "x").await.expect(201);
    let confirmed = async || {
        eventually(SOON, "everything is confirmed", async || {
            let lag = lag().await;
            ensure(lag == Some(0.into()), || format!("{lag:?}"))
        })
        .await;
    };
    confirmed().await;
    assert!(first.member(&first.id).await.expect("itself")["replication_lag_ms"].is_null());
    second.pause();
    first.client.put("/kv/late", "x").await.expect(201);
    eventually(SOON, "the lag grows", async || {
        let lag = lag().await;
        ensure(lag.as_ref().and_then(|ms| ms.as_u64()) >= Some(200), || format!("{lag:?}"))
    })
    .await;
    second.resume();
    confirmed().await;
    let storage = first.client.cluster().await["node"]["storage"].clone();
    let bytes = |name: &str| storage[name].as_u64().expect("a number");
    assert!(storage["writable"] == true && bytes("free_bytes") > 0 && bytes("used_bytes") > 0);
}
