//! `kvs import --keep-versions`: an export moves to another node with its versions.

use serde_json::{Value, json};

use super::commands::{on, on_with};
use crate::api::values::noise;
use crate::support::cluster::converged;
use crate::support::{SOON, Site};

/// Lines of JSON.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// A line of an export, of a write that was made long ago.
pub fn exported(key: &str) -> Value {
    json!({"key": key, "uuid": "018c9a52-7c3c-7b6f-9d11-0f5f0c2b9a10",
        "timestamp": 1_600_000_000_000_000_u64,
        "origin": "c5a8b1de-59a4-4d3e-8a51-6f0a3c1d2e4f",
        "origin_joined_at": "2020-09-01T00:00:00.000000Z", "data": {"a": 1}})
}

fn fates(counts: [u64; 4]) -> Value {
    let [written, lost, restamped, expired] = counts;
    json!({"written": written, "lost": lost, "restamped": restamped, "expired": expired})
}

#[tokio::test]
async fn an_export_that_is_imported_with_its_versions_is_the_same_on_the_new_node() {
    let site = Site::alone();
    let (from, to) = (site.node("n1", &[]).await, site.node("n2", &[]).await);
    for n in 0..1200 {
        from.client.put(&format!("/kv/many/{n}"), n.to_string()).await.expect(201);
    }
    from.client.put("/kv/large", noise(1 << 20, 1)).await.expect(201);
    from.client.put("/kv/lives?ttl=1h", "x").await.expect(201);
    from.client.put("/kv/newer", "from").await.expect(201);
    to.client.put("/kv/newer", "to").await.expect(201);
    let export = on(&from, &["export"]).expect(0).out;
    let import =
        |input: &[u8]| on_with(&to, &["-o", "json", "import", "--keep-versions", "-"], input);
    assert_eq!(import(&export).expect(0).json(), fates([1202, 1, 0, 0]));
    assert_eq!(import(&export).expect(0).json(), fates([0, 1203, 0, 0]), "again");
    let same = |bytes: &[u8]| {
        let all = lines(std::str::from_utf8(bytes).expect("text"));
        all.into_iter().filter(|line| line["key"] != "newer").collect::<Vec<_>>()
    };
    assert_eq!(same(&on(&to, &["export"]).expect(0).out), same(&export));
    assert_eq!(to.client.get("/kv/newer").await.text(), "to");
    let text = on_with(&to, &["import", "--keep-versions", "-"], &export).expect(0).text();
    assert!(text.starts_with("imported 0 records, 1203 left as"), "{text}");
}

#[tokio::test]
async fn lines_without_a_version_and_lines_that_cannot_keep_theirs() {
    let node = Site::alone().node("n1", &[]).await;
    let with = |key: &str, name: &str, value: Value| {
        let mut line = exported(key);
        line[name] = value;
        line
    };
    let post = async |all: &[Value]| {
        let body: Vec<_> = all.iter().map(Value::to_string).collect();
        node.client.send(reqwest::Method::POST, "/admin/import", &[], body.join("\n")).await
    };
    let ahead = with("ahead", "timestamp", json!(9_000_000_000_000_000_u64));
    let ended = with("ended", "expires_at", json!("2021-09-01T00:00:00.000000Z"));
    let all = [exported("a"), ahead, ended];
    assert_eq!(post(&all).await.expect(200).json(), fates([1, 0, 1, 1]));
    assert_eq!(post(&all).await.expect(200).json(), fates([0, 2, 0, 1]));
    let envelope = node.client.get("/kv/ahead?format=envelope").await.expect(200).json();
    assert_eq!(envelope["uuid"], exported("a")["uuid"]);
    assert!(envelope["timestamp"].as_u64() < Some(9_000_000_000_000_000), "{envelope}");
    for (name, value, code) in [
        ("uuid", json!("x"), "bad_request"),
        ("timestamp", json!(-1), "bad_request"),
        ("origin", json!(null), "bad_request"),
        ("origin_joined_at", json!("yesterday"), "bad_request"),
        ("size", json!(3), "bad_request"),
        ("key", json!("a//b"), "bad_key"),
        ("ttl", json!("1s"), "unknown_field"),
    ] {
        let problem = post(&[exported("b"), with("c", name, value)]).await;
        let detail = problem.refused(400, code).json()["detail"].as_str().expect("text").to_owned();
        assert!(detail.contains("line 2"), "{detail}");
    }
    node.client.get("/kv/b").await.refused(404, "key_not_found");
    node.client.put("/cluster/mode", r#"{"mode":"read_only"}"#).await.expect(200);
    post(&[exported("b")]).await.refused(503, "read_only");
    let bare = on_with(&node, &["import", "--keep-versions", "-"], b"{\"key\":\"a\",\"data\":1}\n");
    bare.failed(1, &["bad_request", "line 1", "is missing"]);
    let home = tempfile::tempdir().expect("made");
    let dir = home.path().to_str().expect("text");
    on(&node, &["import", "--keep-versions", dir]).failed(2, &["no versions to keep"]);
    on(&node, &["import", "--keep-versions", "--if-absent", "-"]).expect(2);
}

#[tokio::test]
async fn what_is_imported_into_one_node_of_a_cluster_is_the_same_on_all() {
    let cluster = Site::clustered().cluster(2).await;
    let [first, second] = [&cluster.nodes[0], &cluster.nodes[1]];
    second.client.put("/kv/newer", "own").await.expect(201);
    converged(&[first, second], SOON).await;
    let all = [exported("a"), exported("b"), exported("newer")].map(|line| line.to_string());
    let all = all.join("\n");
    let answer = first.client.send(reqwest::Method::POST, "/admin/import", &[], all).await;
    let answer = answer.expect(200).json();
    assert_eq!((&answer["lost"], &answer["expired"]), (&json!(1), &json!(0)));
    // below a point that it has told the node writes them as new
    let taken = answer["written"].as_u64().zip(answer["restamped"].as_u64());
    assert_eq!(taken.map(|(written, restamped)| written + restamped), Some(2), "{answer}");
    converged(&[first, second], SOON).await;
    assert_eq!(on(first, &["export"]).expect(0).out, on(second, &["export"]).expect(0).out);
    let envelope = second.client.get("/kv/a?format=envelope").await.expect(200).json();
    assert_eq!(envelope["uuid"], exported("a")["uuid"]);
    assert_eq!(second.client.get("/kv/newer").await.text(), "own");
}
