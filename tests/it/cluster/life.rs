//! Nodes join a cluster, fail, return, and start again with an empty directory.

use std::fs;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, Cluster, Node, SOON, Site, client::text, ensure, eventually};

/// The version of an accepted write; the greater one wins. `joined` is when its origin joined.
fn version(answer: &Answer, joined: &str) -> (u64, std::cmp::Reverse<String>, Uuid) {
    let uuid = Uuid::parse_str(&answer.uuid()).expect("a uuid");
    (answer.timestamp(), std::cmp::Reverse(joined.to_owned()), uuid)
}

#[tokio::test]
async fn through_one_seed_a_node_learns_of_all_and_lists_them() {
    let site = Site::clustered();
    let first = site.node("n1", &[]).await;
    let second = site.node("n2", &[&first]).await;
    // the seed of this node is itself a node that joined
    let third = site.node("n3", &[&second]).await;
    let cluster = Cluster { nodes: vec![first, second, third], site };
    cluster.converged().await;
    cluster.nodes[2].client.put("/kv/a", "x").await.expect(201);
    cluster.nodes[1].client.put("/kv/b", "x").await.expect(201);
    cluster.nodes[0].client.delete("/kv/b").await.ok_or_later(&cluster.nodes[0]).await;
    cluster.converged().await;
    let mut views = Vec::new();
    for node in &cluster.nodes {
        let view = node.client.cluster().await;
        assert!(Uuid::parse_str(&text(&view["cluster_id"])).is_ok());
        // the dead one goes soon
        let dead = view["tombstones"].as_u64().expect("a number");
        assert!(view["keys"] == 1 && dead <= 1, "{view}");
        let fingerprint = text(&view["fingerprint"]);
        assert!(
            fingerprint.len() == 64
                && fingerprint.bytes().all(|b| b"0123456789abcdef".contains(&b))
        );
        let members = view["members"].as_array().expect("members").clone();
        assert_eq!(members.len(), 3);
        let ids: Vec<_> = members.iter().map(|m| text(&m["id"])).collect();
        assert!(ids.is_sorted());
        for other in &cluster.nodes {
            let member = members.iter().find(|m| m["id"] == other.id).expect("it is a member");
            assert_eq!(member["name"], other.place.name);
            assert_eq!((&member["state"], &member["durable"]), (&json!("alive"), &json!(true)));
            assert_eq!(member["http"], other.http.to_string());
            assert_eq!(member["gossip"], other.gossip.expect("clustered").to_string());
            assert_eq!(member["peer"], other.peer.expect("clustered").to_string());
            assert_eq!(member["fingerprint"], fingerprint);
            assert_eq!(member["software"], env!("CARGO_PKG_VERSION"));
            for at in ["joined_at", "fingerprint_at"] {
                let time = text(&member[at]);
                assert!(time.len() == 27 && time.ends_with('Z'), "{at}: {time}");
            }
            if other.id != node.id {
                assert!(member["last_sync_at"].is_string(), "{member}");
                assert!(member["clock_skew_ms"].as_i64().is_some_and(|ms| ms.abs() < 1000));
            } else {
                assert_eq!(view["node"]["id"], member["id"]);
                assert_eq!(view["node"]["name"], member["name"]);
            }
        }
        let joined: Vec<_> = members.iter().map(|m| m["joined_at"].clone()).collect();
        views.push((view["cluster_id"].clone(), fingerprint, ids, joined));
    }
    assert!(views.windows(2).all(|pair| pair[0] == pair[1]), "{views:?}");
}

trait OrLater {
    /// Deletes a record whose push may still be under way: retries until it is there.
    async fn ok_or_later(self, node: &Node);
}

impl OrLater for Answer {
    async fn ok_or_later(self, node: &Node) {
        let mut status = self.status;
        eventually(SOON, "it can be deleted", async || {
            if status != 200 {
                status = node.client.delete("/kv/b").await.status;
            }
            ensure(status == 200, || status.to_string())
        })
        .await;
    }
}

#[tokio::test]
async fn a_node_that_is_killed_is_shown_down_and_comes_back_with_its_identity() {
    let mut cluster = Site::clustered().cluster(3).await;
    let id = cluster.nodes[2].id.clone();
    cluster.nodes[0].client.put("/kv/before", "x").await.expect(201);
    cluster.converged().await;
    cluster.nodes[2].kill();
    for node in &cluster.nodes[..2] {
        node.shows(&id, "down").await;
        node.logs(&["WARN", "member n3", "is down: it does not answer"]).await;
        let view = node.client.cluster().await;
        assert_eq!(view["members"].as_array().map(Vec::len), Some(3), "it stays listed");
        // the others do not wait for a node that is down
        eventually(SOON, "the others converge without it", async || {
            let converged = node.client.cluster().await["converged"].clone();
            ensure(converged == true, || converged.to_string())
        })
        .await;
    }
    cluster.nodes[0].client.put("/kv/meanwhile", "x").await.expect(201);
    cluster.nodes[1].client.delete("/kv/before").await.expect(200);
    cluster.replace(2, Node::restart).await;
    assert_eq!(cluster.nodes[2].id, id);
    cluster.converged().await;
    let back = &cluster.nodes[2].client;
    assert_eq!(back.get("/kv/meanwhile").await.expect(200).text(), "x");
    back.get("/kv/before").await.refused(404, "key_not_found");
    assert_eq!(back.cluster().await["members"].as_array().map(Vec::len), Some(3));
    // and its pushes reach the others again
    back.put("/kv/again", "x").await.expect(201);
    cluster.converged().await;
    cluster.nodes[0].client.get("/kv/again").await.expect(200);
}

#[tokio::test]
async fn a_paused_node_catches_up_when_it_resumes() {
    let cluster = Site::clustered().cluster(3).await;
    for n in 0..20 {
        cluster.nodes[0].client.put(&format!("/kv/old/{n}"), "old").await.expect(201);
    }
    cluster.converged().await;
    let still = &cluster.nodes[1];
    still.pause();
    let writing = |node: &Node| {
        let client = node.client.clone();
        async move {
            for n in 0..200 {
                client.put(&format!("/kv/new/{n}"), vec![b'x'; 10_000]).await;
            }
        }
    };
    join_all([writing(&cluster.nodes[0]), writing(&cluster.nodes[2])]).await;
    for n in 0..10 {
        cluster.nodes[2].client.delete(&format!("/kv/old/{n}")).await.expect(200);
    }
    cluster.nodes[0].shows(&still.id, "down").await;
    cluster.nodes[2].shows(&still.id, "down").await;
    still.resume();
    cluster.converged().await;
    for n in 0..200 {
        still.client.get(&format!("/kv/new/{n}")).await.expect(200);
    }
    for n in 0..20 {
        let status = still.client.get(&format!("/kv/old/{n}")).await.status;
        assert_eq!(status, if n < 10 { 404 } else { 200 }, "what was deleted stays so");
    }
}

#[tokio::test]
async fn a_node_still_serves_while_all_others_are_paused() {
    let cluster = Site::clustered().cluster(3).await;
    cluster.nodes[0].client.put("/kv/a", "before").await.expect(201);
    cluster.converged().await;
    let (alone, others) = (&cluster.nodes[2], &cluster.nodes[..2]);
    others.iter().for_each(Node::pause);
    for node in others {
        alone.shows(&node.id, "down").await;
    }
    let client = &alone.client;
    client.get("/health/ready").await.expect(200);
    assert_eq!(client.get("/kv/a").await.expect(200).text(), "before");
    let put = client.put("/kv/a", "alone").await.expect(200);
    let swap = json!({ "expected": { "uuid": put.uuid() }, "data": "swapped alone" });
    client.post_json("/cas/a", &swap).await.expect(200);
    client.put("/kv/b", "alone").await.expect(201);
    assert_eq!(client.sync().await, json!({ "peers": [] }));
    others.iter().for_each(Node::resume);
    cluster.converged().await;
    for node in &cluster.nodes {
        assert_eq!(node.client.get("/kv/a").await.expect(200).text(), "\"swapped alone\"");
        assert_eq!(node.client.get("/kv/b").await.expect(200).text(), "alone");
    }
}

#[tokio::test]
async fn a_node_with_an_empty_directory_is_a_new_one_and_gets_everything() {
    let mut cluster = Site::clustered().cluster(3).await;
    for n in 0..500 {
        cluster.nodes[n % 3].client.put(&format!("/kv/{n}"), "x").await.expect(201);
    }
    cluster.converged().await;
    let old = cluster.nodes[1].id.clone();
    cluster.nodes[1].kill();
    fs::remove_dir_all(cluster.nodes[1].place.data_dir()).expect("its data goes");
    cluster.replace(1, Node::restart).await;
    assert_ne!(cluster.nodes[1].id, old);
    cluster.converged().await;
    for n in 0..500 {
        cluster.nodes[1].client.get(&format!("/kv/{n}")).await.expect(200);
    }
    for node in &cluster.nodes {
        node.shows(&old, "down").await;
        let members = node.client.cluster().await["members"].as_array().map(Vec::len);
        assert_eq!(members, Some(4), "the old one stays listed");
    }
    // same name, new id: the new node's writes carry the new id
    let written = cluster.nodes[1].client.put("/kv/new", "x").await.expect(201).json();
    assert_eq!(written["origin"], cluster.nodes[1].id);
    cluster.converged().await;
}

#[tokio::test]
async fn a_node_that_stops_in_order_is_shown_to_have_left_at_once() {
    // so rare that the others cannot have noticed by probing
    let site = Site::clustered().set("gossip.probe_period", "10s");
    let mut cluster = site.cluster(3).await;
    let id = cluster.nodes[2].id.clone();
    for node in &cluster.nodes[..2] {
        node.logs(&["INFO", "member n3", "is up"]).await;
    }
    cluster.nodes[2].stop().await;
    for node in &cluster.nodes[..2] {
        node.shows_within(Duration::from_secs(5), &id, "left").await;
        node.logs(&["INFO", "member n3", "has stopped in order"]).await;
        assert!(!node.log().contains("is down"), "no death is told of: {}", node.log());
    }
    cluster.replace(2, Node::restart).await;
    for node in &cluster.nodes[..2] {
        node.logs(&["INFO", "member n3", "is back; it was away for"]).await;
    }
    cluster.converged().await;
}

#[tokio::test]
async fn concurrent_writes_to_one_key_end_equal_everywhere_and_the_greatest_wins() {
    let cluster = Site::clustered().cluster(3).await;
    let joined: Vec<_> = join_all(
        cluster
            .nodes
            .iter()
            .map(async |node| text(&node.client.cluster().await["node"]["joined_at"])),
    )
    .await;
    for round in 0..5 {
        let path = format!("/kv/hot/{round}");
        let writes = cluster.nodes.iter().enumerate().flat_map(|(at, node)| {
            let (path, joined) = (&path, &joined[at]);
            (0..30).map(move |n| async move {
                // a delete needs a live value, which another node may have deleted meanwhile
                let answer = match n % 10 {
                    9 => node.client.delete(path).await,
                    _ => node.client.put(path, format!("{at}-{n}")).await,
                };
                let deleted = n % 10 == 9;
                assert!(deleted || answer.status < 300, "{}", answer.text());
                let value = (!deleted).then(|| format!("{at}-{n}"));
                (answer.status < 300).then(|| (version(&answer, joined), value))
            })
        });
        let accepted = join_all(writes).await.into_iter().flatten();
        let (_, winner) = accepted.max_by(|a, b| a.0.cmp(&b.0)).expect("some were accepted");
        cluster.converged().await;
        for node in &cluster.nodes {
            let read = node.client.get(&path).await;
            let found = (read.status == 200).then(|| read.text());
            assert_eq!(found, winner, "round {round} on {}", node.place.name);
        }
    }
}

/// Every node has the same uuids, headers and bytes, so every export is the same.
#[tokio::test]
async fn after_kills_and_pauses_all_nodes_show_the_same_records() {
    let mut cluster = Site::clustered().set("sync.push", false).cluster(3).await;
    for n in 0..60 {
        let node = &cluster.nodes[n % 3];
        node.client.put(&format!("/kv/{}", n % 20), format!("{n}")).await;
        if n % 7 == 0 {
            node.client.delete(&format!("/kv/{}", n % 20)).await.expect(200);
        }
        if n == 30 {
            cluster.replace(1, Node::kill_and_restart).await;
        }
    }
    cluster.converged().await;
    let mut exports = Vec::new();
    for node in &cluster.nodes {
        let accept = [("accept", "application/x-ndjson")];
        let lines = node.client.send(reqwest::Method::GET, "/scan?values=true", &accept, "").await;
        let lines = lines.expect(200).text();
        assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
        exports.push(lines);
    }
    assert!(exports[0].lines().count() > 5);
    assert!(exports.windows(2).all(|pair| pair[0] == pair[1]), "{exports:#?}");
}
