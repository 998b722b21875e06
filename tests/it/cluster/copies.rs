//! Two processes over copies of one data directory have one id. The later one refuses to run; where
//! nobody could tell it, both become members of their own, and nothing that they wrote is lost.

use std::fs;
use std::os::unix::fs::DirBuilderExt;

use crate::support::cluster::converged;
use crate::support::node::Place;
use crate::support::{Cluster, Node, SOON, Site, ensure, eventually};

/// Two nodes with a record, the second one stopped, and a place for a third with a copy of its
/// data.
async fn copied() -> (Cluster, Place) {
    let mut cluster = Site::clustered().cluster(2).await;
    cluster.nodes[0].client.put("/kv/a", "x").await.expect(201);
    cluster.converged().await;
    cluster.nodes[1].stop().await;
    let copy = cluster.site.place("n3", &[&cluster.nodes[0]]);
    let (from, to) = (cluster.nodes[1].place.data_dir().join("db"), copy.data_dir().join("db"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&to).expect("a directory");
    for file in fs::read_dir(from).expect("the original") {
        let file = file.expect("a file");
        fs::copy(file.path(), to.join(file.file_name())).expect("copied");
    }
    (cluster, copy)
}

#[tokio::test]
async fn a_copy_of_a_directory_that_is_served_refuses_to_run_and_both_say_so() {
    let (mut cluster, copy) = copied().await;
    cluster.replace(1, Node::restart).await;
    cluster.converged().await;
    let peer = cluster.nodes[1].peer.expect("an address").to_string();
    let said = ["is a copy of that of n2", peer.as_str(), "empty this directory"];
    copy.start_in_vain().failed(2, &said);
    cluster.nodes[1].logs(&["WARN", "\"n3\"", "copy", "refuses to run"]).await;
    cluster.nodes[1].client.put("/kv/b", "x").await.expect(201);
    cluster.converged().await;
}

#[tokio::test]
async fn an_original_whose_copy_was_started_first_refuses_to_run() {
    let (mut cluster, copy) = copied().await;
    let copy = copy.start().await;
    converged(&[&cluster.nodes[0], &copy], SOON).await;
    let mut original = cluster.nodes.remove(1);
    let peer = original.peer.expect("an address").to_string();
    original.place.set("peer.listen", peer);
    original.place.start_in_vain().failed(2, &["is a copy of that of n3"]);
    copy.client.put("/kv/b", "x").await.expect(201);
    converged(&[&cluster.nodes[0], &copy], SOON).await;
}

#[tokio::test]
async fn two_that_nobody_could_tell_of_each_other_become_two_members_and_lose_nothing() {
    let (mut cluster, copy) = copied().await;
    cluster.nodes[0].stop().await;
    let copy = copy.start().await;
    cluster.replace(1, Node::restart).await;
    assert_eq!(copy.id, cluster.nodes[1].id);
    copy.client.put("/kv/copy", "x").await.expect(201);
    cluster.nodes[1].client.put("/kv/original", "x").await.expect(201);
    cluster.replace(0, Node::restart).await;
    let [first, original] = &cluster.nodes[..] else { unreachable!("two nodes") };
    eventually(SOON, "they have two ids", async || {
        let mut ids = Vec::new();
        for node in [&copy, original] {
            ids.push(node.client.cluster().await["node"]["id"].clone());
        }
        ensure(ids[0] != ids[1], || format!("{ids:?}"))
    })
    .await;
    converged(&[first, original, &copy], SOON).await;
    first.client.get("/kv/a").await.expect(200);
    // what the cluster had gone on without is reported where it was written
    for (node, path) in [(&copy, "/kv/copy"), (original, "/kv/original")] {
        let reported = node.client.get("/superseded").await.expect(200).text();
        let is_reported = reported.contains(&path[4..]);
        let is_kept = first.client.get(path).await.status == 200;
        assert!(is_kept != is_reported, "{path}: {reported}");
    }
}
