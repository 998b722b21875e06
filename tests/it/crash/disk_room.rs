//! A disk with little room or none, and a directory that goes: the node says so before anybody
//! writes, serves what it can, and goes on by itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use super::disk_faults::SmallDisk;
use crate::cli::kept_versions::exported;
use crate::support::{Node, SOON, Site, ensure, eventually};

/// The answers to the two questions for health: status and body.
async fn health(node: &Node) -> [(u16, Value); 2] {
    let (ready, readable) =
        (node.client.get("/health/ready").await, node.client.get("/health/readable").await);
    [(ready.status, ready.json()), (readable.status, readable.json())]
}

async fn becomes_ready(node: &Node) {
    eventually(SOON, "it is ready again", async || {
        let [ready, readable] = health(node).await;
        ensure(ready.0 == 200 && readable.1 == json!({"status": "readable"}), || {
            format!("{ready:?} {readable:?}")
        })
    })
    .await;
}

/// Waits until the node says that the disk is full, and checks that it serves reads.
async fn is_full_and_readable(node: &Node, words: &str) {
    eventually(SOON, "it says that the disk is full", async || {
        let [ready, readable] = health(node).await;
        ensure(ready.1["code"] == "storage_full", || format!("{ready:?} {readable:?}"))
    })
    .await;
    let ready = node.client.get("/health/ready").await.refused(503, "storage_full");
    assert!(ready.header("retry-after").is_some() && ready.text().contains(words), "{ready:?}");
    let readable = node.client.get("/health/readable").await.expect(200).json();
    assert_eq!(
        (&readable["status"], &readable["unready"]["code"]),
        (&json!("readable"), &json!("storage_full"))
    );
    assert!(readable["unready"]["detail"].as_str().is_some_and(|text| text.contains(words)));
    assert_eq!(node.client.metric("kvs_storage_writable", &[]).await, 0);
}

#[tokio::test]
async fn below_the_reserve_deletes_are_the_only_writes() {
    let mut node = Site::alone().node("n1", &[]).await;
    for key in ["a", "b", "c"] {
        node.client.put(&format!("/kv/{key}"), key).await.expect(201);
    }
    let id = [("idempotency-key", "018c9a52-7c3c-4b6f-9d11-0f5f0c2b9a10")];
    let retry = async |node: &Node| node.client.send(Method::PUT, "/kv/once", &id, "x").await;
    let first = retry(&node).await.expect(201).json();
    assert_eq!(node.client.metric("kvs_storage_writable", &[]).await, 1);
    assert!(node.client.metric("kvs_storage_free_bytes", &[]).await > 0);
    node.stop().await;
    // more than any disk has
    node.place.set("storage.free_bytes_min", 1_i64 << 50);
    node.place.bear("the disk is full but for a reserve");
    let mut node = node.restart().await;
    is_full_and_readable(&node, "storage.free_bytes_min").await;
    node.client.put("/kv/a", "x").await.refused(503, "storage_full");
    assert_eq!(retry(&node).await.expect(201).json(), first, "it changes nothing");
    let put = json!({"put": {"key": "d", "data": 1}});
    let delete = json!({"delete": {"key": "b"}});
    let txn = json!({"compare": [], "success": [delete, put], "failure": []});
    node.client.post_json("/txn", &txn).await.refused(503, "storage_full");
    node.client.post_json("/admin/import", &exported("d")).await.refused(503, "storage_full");
    node.client.get("/kv/d").await.refused(404, "key_not_found");
    assert_eq!(node.client.get("/kv/b").await.expect(200).text(), "b");
    node.client.delete("/kv/a").await.expect(200);
    let txn = json!({"compare": [], "success": [delete, {"get": {"key": "c"}}], "failure": []});
    node.client.post_json("/txn", &txn).await.expect(200);
    for (key, status) in [("a", 404), ("b", 404), ("c", 200)] {
        assert_eq!(node.client.get(&format!("/kv/{key}")).await.status, status, "{key}");
    }
    node.logs(&["the disk is full but for a reserve"]).await;
    let told = node.log().matches("the disk is full but for a reserve").count();
    assert_eq!(told, 1, "each look is logged: {}", node.log());
    node.stop().await;
    node.place.set("storage.free_bytes_min", 0);
    let node = node.restart().await;
    becomes_ready(&node).await;
    node.client.put("/kv/a", "x").await.expect(201);
}

/// What peers give is not taken and not lost, the node's own deletes leave it, and all of that ends
/// by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_below_its_reserve_pauses_merges_and_catches_up() {
    let site = Site::clustered();
    let first = site.node("n1", &[]).await;
    first.client.put("/kv/before", "x").await.expect(201);
    first.client.put("/kv/doomed", "x").await.expect(201);
    let mut place = site.place("n2", &[&first]);
    let disk = match SmallDisk::new(place.dir.join("disk"), 256) {
        Ok(disk) => disk,
        Err(error) => return eprintln!("SKIPPED: a small disk cannot be mounted: {error}"),
    };
    place.set("node.data_dir", disk.0.join("data").to_str().expect("text"));
    place.set("storage.free_bytes_min", 128_i64 << 20);
    place.bear("the disk is full but for a reserve");
    place.bear("cannot sync with");
    let second = place.start().await;
    crate::support::cluster::converged(&[&first, &second], SOON).await;
    let filler = disk.0.join("filler");
    fs::write(&filler, vec![1; 160 << 20]).expect("there is room");
    is_full_and_readable(&second, "storage.free_bytes_min").await;
    for number in 0..3 {
        first.client.put(&format!("/kv/after/{number}"), "x").await.expect(201);
    }
    second.client.delete("/kv/doomed").await.expect(200);
    eventually(SOON, "the delete leaves the node", async || {
        let gone = first.client.get("/kv/doomed").await;
        ensure(gone.status == 404, || gone.text())
    })
    .await;
    let paused = [("reason", "storage_full")];
    eventually(SOON, "both say that merges wait", async || {
        let report = first.client.post("/cluster/sync", "").await.expect(200).text();
        let told = first.client.metric("kvs_peer_unreached", &paused).await;
        let cluster = first.client.cluster().await.to_string();
        let words = "takes no records now";
        let all = report.contains(words) && cluster.contains(words) && told == 1;
        ensure(all, || format!("{report} {told} {cluster}"))
    })
    .await;
    let sync = second.client.post("/cluster/sync", "").await.expect(200).text();
    assert!(sync.contains("this node takes no records now"), "{sync}");
    assert!(second.client.metric("kvs_merges_paused_total", &[]).await > 0);
    second.client.get("/kv/after/0").await.refused(404, "key_not_found");
    assert_eq!(second.client.get("/kv/before").await.expect(200).text(), "x");
    fs::remove_file(&filler).expect("it is ours");
    crate::support::cluster::converged(&[&first, &second], SOON).await;
    second.client.put("/kv/last", "x").await.expect(201);
    eventually(SOON, "nothing more is told", async || {
        let told = first.client.metric("kvs_peer_unreached", &paused).await;
        ensure(told == 0, || first.log())
    })
    .await;
}

#[tokio::test]
async fn a_directory_that_is_deleted_under_a_node_takes_no_writes() {
    let mut place = Site::alone().place("n1", &[]);
    for words in ["storage failed", "request failed"] {
        place.bear(words);
    }
    let mut node = place.start().await;
    node.client.put("/kv/a", "x").await.expect(201);
    becomes_ready(&node).await;
    fs::remove_dir_all(node.place.data_dir()).expect("it is ours");
    eventually(SOON, "it says that its directory is gone", async || {
        let [ready, readable] = health(&node).await;
        let told = |(status, body): &(u16, Value)| {
            let detail = body["detail"].as_str().unwrap_or_default();
            *status == 503 && detail.contains("directory of this node is gone")
        };
        ensure(told(&ready) && told(&readable), || format!("{ready:?} {readable:?}"))
    })
    .await;
    let refused = node.client.put("/kv/b", "x").await;
    assert!(refused.status >= 500, "{}", refused.text());
    assert_eq!(node.client.metric("kvs_storage_writable", &[]).await, 0);
    node.client.get("/health/live").await.expect(200);
    node.stop().await;
}

/// Fills what is left of the disk of `file`.
fn fill(file: &Path) {
    use std::io::Write;
    let mut filler = fs::File::create(file).expect("a file");
    for size in [1 << 20, 4096, 1] {
        while filler.write_all(&vec![1; size]).is_ok() {}
    }
}

#[tokio::test]
async fn a_start_on_a_full_disk_serves_reads() {
    let site = Site::alone();
    let mut place = site.place("n1", &[]);
    let disk = match SmallDisk::new(place.dir.join("disk"), 128) {
        Ok(disk) => disk,
        Err(error) => return eprintln!("SKIPPED: a small disk cannot be mounted: {error}"),
    };
    place.set("node.data_dir", disk.0.join("data").to_str().expect("text"));
    place.set("storage.free_bytes_min", 0);
    for words in ["storage failed", "the disk is full", "request failed"] {
        place.bear(words);
    }
    let mut node = place.start().await;
    let value = |number: usize| vec![u8::try_from(number).expect("small"); 100 << number];
    for number in 0..12 {
        node.client.put(&format!("/kv/{number}"), value(number)).await.expect(201);
    }
    // its logs are not written to files yet
    node.kill();
    let filler = disk.0.join("filler");
    fill(&filler);
    let node = node.restart().await;
    for number in 0..12 {
        let read = node.client.get(&format!("/kv/{number}")).await.expect(200);
        assert!(read.body == value(number), "{number}");
    }
    is_full_and_readable(&node, "disk").await;
    node.client.put("/kv/0", "x").await.refused(503, "storage_full");
    let mut second = site.place("n2", &[]);
    second.set("node.data_dir", node.place.data_dir().to_str().expect("text"));
    second.start_in_vain().failed(2, &["node.data_dir", "in use by another process"]);
    fs::remove_file(&filler).expect("it is ours");
    becomes_ready(&node).await;
    node.client.put("/kv/0", "x").await.expect(200);
    let node = node.kill_and_restart().await;
    for number in 1..12 {
        let read = node.client.get(&format!("/kv/{number}")).await.expect(200);
        assert!(read.body == value(number), "{number}");
    }
    assert_eq!(node.client.get("/kv/0").await.expect(200).text(), "x");
}

/// An empty directory on a full disk holds nothing to read.
#[tokio::test]
async fn a_first_start_on_a_full_disk_is_refused() {
    let mut place = Site::alone().place("n1", &[]);
    let disk = match SmallDisk::new(place.dir.join("disk"), 8) {
        Ok(disk) => disk,
        Err(error) => return eprintln!("SKIPPED: a small disk cannot be mounted: {error}"),
    };
    let data = disk.0.join("data");
    fs::create_dir(&data).expect("there is room");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).expect("it is ours");
    fill(&disk.0.join("filler"));
    place.set("node.data_dir", data.to_str().expect("text"));
    place.start_in_vain().failed(2, &["node.data_dir", "no room on the disk"]);
}
