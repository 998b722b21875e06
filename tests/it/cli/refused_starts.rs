//! Refused starts: the node says in one line what is wrong and what to do, exits with 2, and
//! changes nothing.

use std::ffi::OsStr;
use std::fs;
use std::net::{TcpListener, UdpSocket};

use kvs::store::engine::{Engine, Family};
use kvs::store::layout::FORMAT_VERSION;
use kvs::store::rocks::Rocks;
use serde_json::json;

use crate::support::command::{Ended, kvs};
use crate::support::node::Place;
use crate::support::{Node, SOON, Site};

/// A stopped node that holds one value.
async fn filled(site: &Site) -> Node {
    let mut node = site.node("n1", &[]).await;
    node.client.put("/kv/kept", "value").await.expect(201);
    node.stop().await;
    node
}

async fn still_holds_its_value(node: Node) {
    let node = node.restart().await;
    assert_eq!(node.client.get("/kv/kept").await.expect(200).text(), "value");
    assert_eq!(node.client.cluster().await["keys"], json!(1));
}

fn check(place: &Place) -> Ended {
    kvs([OsStr::new("config"), OsStr::new("check"), place.config_file().as_os_str()])
}

#[tokio::test]
async fn an_invalid_configuration() {
    let site = Site::clustered();
    for (key, value, words) in [
        ("http.lsiten", "127.0.0.1:1".into(), ["unknown key", "http.lsiten", "`http.listen`"]),
        ("read_onli", true.into(), ["unknown key", "read_onli", "`read_only`"]),
        ("revision_history_depth", 0.into(), ["revision_history_depth", "0", "100"]),
        ("http.listen", "0.0.0.0:0".into(), ["http.listen", "loopback", "http.insecure"]),
        ("http.listen", "nowhere".into(), ["http.listen", "`nowhere`", "nowhere:PORT"]),
        ("gossip.probe_period", "1y".into(), ["probe_period", "1y", "duration"]),
        ("gossip.probe_period", "1ms".into(), ["gossip.probe_period", "50ms", "range"]),
        ("gossip.seeds", vec!["host".to_owned()].into(), ["gossip.seeds", "host:port", "`host`"]),
        ("gossip.listen", "0.0.0.0:0".into(), ["gossip.advertise", "missing", "listen"]),
        ("limits.value_bytes_max", 0.into(), ["limits.value_bytes_max", "0", "16777216"]),
        ("storage.durability", "never".into(), ["durability", "never", "sync"]),
        ("node.name", "a b".into(), ["node.name", "63", "letters"]),
        ("sync.push", "perhaps".into(), ["sync.push", "bool", "perhaps"]),
    ] {
        let value: toml::Value = value;
        let mut place = site.place("n1", &[]);
        place.set(key, value);
        place.start_in_vain().failed(2, &words);
        assert!(!place.data_dir().exists(), "{key}: nothing was made");
        check(&place).failed(2, &words);
    }
    let place = site.place("n1", &[]);
    fs::write(place.config_file(), "[node\n").expect("written");
    check(&place).failed(2, &["kvs.toml"]);
    let missing = ["serve", "--config", "/nonexistent/kvs.toml"];
    kvs(missing).failed(2, &["/nonexistent/kvs.toml", "cannot read"]);
}

#[tokio::test]
async fn a_port_that_is_in_use() {
    let site = Site::clustered();
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    for (key, taken) in [
        ("http.listen", tcp.local_addr()),
        ("gossip.listen", udp.local_addr()),
        ("peer.listen", udp.local_addr()),
    ] {
        let taken = taken.expect("an address").to_string();
        let mut place = site.place("n1", &[]);
        place.set(key, taken.as_str());
        place.start_in_vain().failed(2, &[key, &taken, "cannot listen", "in use"]);
        assert!(!place.data_dir().exists(), "{key}: nothing was made");
    }
}

#[tokio::test]
async fn unusable_cluster_files() {
    let site = Site::clustered();
    let others = Site::clustered();
    site.certify("n1");
    site.certify("n2");
    others.certify("n1");
    fs::write(site.file("empty"), "").expect("written");
    fs::write(site.file("later"), "format = 2\nother = 1\n").expect("written");
    let none = site.file("none");
    for (key, file, words) in [
        ("gossip.key_file", none.clone(), ["gossip.key_file", "none", "kvs gossip-key new"]),
        ("gossip.key_file", site.file("empty"), ["gossip.key_file", "empty", "gossip-key new"]),
        ("gossip.key_file", site.file("later"), ["gossip.key_file", "format 2", "version"]),
        ("peer.ca", none.clone(), ["cannot read", "none", "kvs cert ca"]),
        ("peer.cert", none.clone(), ["cannot read", "none", "kvs cert node n1"]),
        ("peer.key", none.clone(), ["cannot read", "none", "kvs cert node n1"]),
        ("peer.ca", site.file("empty"), ["empty", "no certificate", "kvs cert ca"]),
        ("peer.ca", site.file("n2.pem"), ["n2.pem", "not an authority's", "ca.pem"]),
        ("peer.ca", others.file("ca.pem"), ["n1.pem", "not signed by", "kvs cert node n1"]),
        ("peer.cert", others.file("n1.pem"), ["n1-key.pem", "not the key", "kvs cert node n1"]),
        ("peer.key", site.file("n2-key.pem"), ["n2-key.pem", "not the key", "kvs cert node n1"]),
        ("peer.key", site.file("n1.pem"), ["n1.pem", "private key", "kvs cert node n1"]),
    ] {
        let mut place = site.place("n1", &[]);
        place.set(key, file);
        place.start_in_vain().failed(2, &words);
        assert!(!place.data_dir().exists(), "{key}: nothing was made");
    }
    // a certificate of another name
    let mut place = site.place("n1", &[]);
    place.set("peer.cert", site.file("n2.pem"));
    place.set("peer.key", site.file("n2-key.pem"));
    place.start_in_vain().failed(2, &["n2.pem", "does not carry node.name `n1`"]);
}

#[tokio::test]
async fn a_directory_in_use_by_another_process() {
    let site = Site::alone();
    let node = site.node("n1", &[]).await;
    node.client.put("/kv/kept", "value").await.expect(201);
    let mut second = site.place("n2", &[]);
    let held = node.place.data_dir();
    second.set("node.data_dir", held.to_str().expect("text"));
    second.start_in_vain().failed(2, &["node.data_dir", "in use by another process"]);
    assert_eq!(node.client.get("/kv/kept").await.expect(200).text(), "value");
    node.client.put("/kv/kept", "value").await.expect(200);
}

#[tokio::test]
async fn a_directory_of_another_format() {
    let node = filled(&Site::alone()).await;
    let db = node.place.data_dir().join("db");
    let set_format = |version: u32| {
        let engine = Rocks::open(&db, 8 << 20, true).expect("the database opens");
        let opened = engine.opened().expect("it is open");
        let mut transaction = opened.begin();
        transaction.put(Family::Meta, b"format", &version.to_le_bytes()).expect("written");
        transaction.commit().expect("committed");
    };
    let newer = FORMAT_VERSION + 1;
    set_format(newer);
    let named = format!("format {newer}");
    node.place.start_in_vain().failed(2, &["node.data_dir", &named, "newer kvs"]);
    set_format(1);
    node.place.start_in_vain().failed(2, &["node.data_dir", "format 1", "older kvs"]);
    // it is brought to the present format
    set_format(2);
    still_holds_its_value(node).await;
}

#[tokio::test]
async fn a_directory_of_another_cluster() {
    let site = Site::clustered();
    let mut node = filled(&site).await;
    let others = Site::clustered();
    node.place.set("gossip.key_file", others.file("secret"));
    let said = node.place.start_in_vain();
    said.failed(2, &["node.data_dir", "belongs to cluster", "gossip.key_file"]);
    node.place.set("gossip.key_file", site.file("secret"));
    still_holds_its_value(node).await;
}

#[tokio::test]
async fn a_path_that_is_no_directory_or_a_damaged_directory() {
    let site = Site::alone();
    let mut place = site.place("n1", &[]);
    let file = place.config_file().with_file_name("file");
    fs::write(&file, "x").expect("written");
    for dir in [file.clone(), file.join("below")] {
        place.set("node.data_dir", dir.to_str().expect("text"));
        place.start_in_vain().failed(2, &["node.data_dir", "file"]);
    }
    let node = filled(&site).await;
    let db = node.place.data_dir().join("db");
    let current = fs::read(db.join("CURRENT")).expect("it names the manifest");
    let manifest = String::from_utf8(current).expect("text");
    let manifest = db.join(manifest.trim());
    let good = fs::read(&manifest).expect("the manifest");
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle..].iter_mut().for_each(|byte| *byte ^= 0xff);
    fs::write(&manifest, bad).expect("damaged");
    node.place.start_in_vain().failed(2, &["node.data_dir", "storage failed", "orruption"]);
    fs::write(&manifest, good).expect("mended");
    still_holds_its_value(node).await;
}

/// A single node may join a cluster later and brings its data with it.
#[tokio::test]
async fn a_node_that_was_alone_brings_its_data_into_a_cluster() {
    let alone = filled(&Site::alone()).await;
    let site = Site::clustered();
    let first = site.node("n2", &[]).await;
    first.client.put("/kv/other", "x").await.expect(201);
    let mut place = site.place("n1", &[&first]);
    let dir = alone.place.data_dir();
    place.set("node.data_dir", dir.to_str().expect("text"));
    let node = place.start().await;
    assert_eq!(node.id, alone.id, "the identity is that of the directory");
    crate::support::cluster::converged(&[&first, &node], SOON).await;
    assert_eq!(first.client.get("/kv/kept").await.expect(200).text(), "value");
    assert_eq!(node.client.get("/kv/other").await.expect(200).text(), "x");
}
