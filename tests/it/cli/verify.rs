//! `kvs verify` on the directories of stopped nodes.

use std::fs;
use std::path::Path;

use kvs::store::engine::{Engine, Family};
use kvs::store::rocks::Rocks;

use crate::api::values::noise;
use crate::support::command::kvs;
use crate::support::{Node, Site};

/// Copies a directory of files and of directories of files.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("known").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// Changes one entry of a stopped node's data.
fn plant(data_dir: &Path, family: Family, key: &[u8], value: Option<&[u8]>) {
    let engine = Rocks::open(&data_dir.join("db"), 1 << 20, true).expect("opened");
    let opened = engine.opened().expect("for writes");
    let mut transaction = opened.begin();
    match value {
        Some(value) => transaction.put(family, key, value).expect("put"),
        None => transaction.delete(family, key).expect("deleted"),
    }
    transaction.commit().expect("committed");
}

async fn fill(node: &Node) {
    for value in ["one", "two", "three"] {
        node.client.put("/kv/app/name", value).await;
    }
    node.client.put("/kv/app/large", noise(100_000, 1)).await.expect(201);
    node.client.put("/kv/app/short?ttl=1h", "x").await.expect(201);
    node.client.put("/kv/app/gone", "x").await.expect(201);
    node.client.delete("/kv/app/gone").await.expect(200);
}

#[tokio::test]
async fn a_stopped_node_is_verified_and_each_planted_fault_is_named() {
    let mut node = Site::alone().node("n1", &[]).await;
    fill(&node).await;
    let print = node.client.cluster().await["fingerprint"].clone();
    let dir = node.place.data_dir();
    let verify = |dir: &Path, more: &[&str]| {
        let dir = dir.to_str().expect("text");
        kvs([&["verify", "--data-dir", dir], more].concat())
    };
    verify(&dir, &[]).failed(2, &["in use by another process"]);
    node.stop().await;
    let agreed = verify(&dir, &[]).expect(0);
    let text = agreed.text();
    assert!(text.contains("verified 3 live records, "), "{text}");
    assert!(text.contains(print.as_str().expect("text")) && text.ends_with("everything agrees\n"));
    assert_eq!(agreed.err, "", "no progress in a pipe");
    let json = verify(&dir, &["-o", "json"]).expect(0).json();
    assert_eq!((&json["keys"], &json["disagreements"]), (&3.into(), &0.into()));
    assert_eq!(json["fingerprint"], print);
    let home = tempfile::tempdir().expect("made");
    for (at, (family, key, value, named)) in [
        (Family::Records, &b"app/name"[..], Some(&b"?"[..]), "records app/name: "),
        (Family::Records, b"app/short", None, "expiry app/short: "),
        (Family::Values, b"app/large\0", Some(b"?"), "values app/large\\u{0}: "),
        (Family::Expiry, b"\0\0\0\0\0\0\0\x07app/name", Some(b""), "expiry app/name: "),
        (Family::Meta, b"feed_epoch", Some(b"?"), "meta feed_epoch: "),
    ]
    .into_iter()
    .enumerate()
    {
        let copied = home.path().join(at.to_string());
        copy(&dir, &copied);
        plant(&copied, family, key, value);
        let found = verify(&copied, &[]).expect(1);
        let text = found.text();
        assert!(text.lines().any(|line| line.starts_with(named)), "{named}: {text}");
        assert!(found.err.contains("disagree"), "{}", found.err);
        let json = verify(&copied, &["-o", "json"]).expect(1).text();
        let first: serde_json::Value =
            serde_json::from_str(json.lines().next().expect("a line")).expect("JSON");
        assert!(first["advice"].is_string() && first["key"].is_string(), "{first}");
    }
    verify(&dir, &[]).expect(0);
    let node = node.restart().await;
    assert_eq!(node.client.cluster().await["fingerprint"], print, "verifying changed nothing");
}

#[tokio::test]
async fn the_data_of_a_cluster_are_verified_with_its_secret() {
    let cluster = Site::clustered().cluster(2).await;
    let mut nodes = cluster.nodes.into_iter();
    let (mut node, other) = (nodes.next().expect("one"), nodes.next().expect("another"));
    node.client.put("/kv/a", "x").await.expect(201);
    let print = node.client.cluster().await["fingerprint"].clone();
    node.stop().await;
    let (dir, config) = (node.place.data_dir(), fs::read_to_string(node.place.config_file()));
    let config: toml::Table = config.expect("read").parse().expect("TOML");
    let key_file = config["gossip"]["key_file"].as_str().expect("a path").to_owned();
    let dir = dir.to_str().expect("text");
    let bare = kvs(["verify", "--data-dir", dir]).expect(0).text();
    assert!(bare.contains("fingerprint unknown; name the cluster's secret"), "{bare}");
    let whole = kvs(["verify", "--data-dir", dir, "--key-file", &key_file, "-o", "json"]);
    assert_eq!(whole.expect(0).json()["fingerprint"], print);
    let home = tempfile::tempdir().expect("made");
    let foreign = home.path().join("other.key");
    let foreign = foreign.to_str().expect("text");
    kvs(["gossip-key", "new", "--file", foreign]).expect(0);
    let refused = kvs(["verify", "--data-dir", dir, "--key-file", foreign]);
    refused.failed(2, &["belongs to cluster"]);
    let nothing = home.path().to_str().expect("text");
    kvs(["verify", "--data-dir", nothing]).failed(2, &["not the data directory of a node"]);
    assert!(home.path().read_dir().expect("listed").count() == 1, "nothing was made");
    drop(other);
}
