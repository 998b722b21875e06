//! Nodes that were cut off from each other wrote the same keys: each tells what it lost.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::unreached::behind_a_relay;
use crate::api::values::noise;
use crate::cli::commands::{on, on_with};
use crate::support::cluster::converged;
use crate::support::relay::Relay;
use crate::support::{Node, SOON, Site, client::text, ensure, eventually};

/// Two nodes of one cluster whose peer ports can be cut.
async fn two() -> (Node, Node, [Relay; 2]) {
    let site = Site::clustered();
    let (a, to_a) = behind_a_relay(&site, "n1", &[], true).await;
    let (b, to_b) = behind_a_relay(&site, "n2", &[&a], true).await;
    converged(&[&a, &b], SOON).await;
    (a, b, [to_a, to_b])
}

/// Cuts the nodes off, and waits until both have noticed: nothing is under way any more.
async fn cut(a: &Node, b: &Node, relays: &[Relay]) {
    relays.iter().for_each(|relay| relay.set_open(false));
    for (node, other) in [(a, b), (b, a)] {
        let name = other.place.name.as_str();
        eventually(SOON, "the cut is noticed", async || {
            let unreached = node.client.metric("kvs_peer_unreached", &[("peer", name)]).await;
            ensure(unreached == 1, || unreached.to_string())
        })
        .await;
    }
}

/// What a node reports, by key.
async fn reports(node: &Node) -> BTreeMap<String, Value> {
    let answer = node.client.get("/superseded/").await.expect(200).json();
    assert_eq!(answer["truncated"], false);
    let items = answer["items"].as_array().expect("items");
    let found: BTreeMap<_, _> = items.iter().map(|i| (text(&i["key"]), i.clone())).collect();
    assert_eq!(found.len(), items.len(), "each write is reported once: {answer}");
    found
}

#[tokio::test]
async fn nodes_that_were_cut_off_meet_and_each_tells_what_it_lost() {
    let (a, b, relays) = two().await;
    for key in ["known", "gone"] {
        a.client.put(&format!("/kv/{key}"), "before").await.expect(201);
    }
    converged(&[&a, &b], SOON).await;
    cut(&a, &b, &relays).await;
    let large = noise(1 << 20, 7);
    let small = a.client.put_json("/kv/small", r#"{"by": "n1"}"#).await.expect(201);
    a.client.put("/kv/large", large.clone()).await.expect(201);
    a.client.delete("/kv/gone").await.expect(200);
    let put = |key: &str| json!({ "put": { "key": key, "data": 1 } });
    let txn = json!({ "success": [put("t/a"), put("t/b")] });
    let txn = a.client.post_json("/txn", &txn).await.expect(200).json();
    let other = b.client.put("/kv/other", "n2").await.expect(201).uuid();
    // each later than the other node's write of the key, or with no other
    a.client.put("/kv/other", "n1").await.expect(201);
    let won = b.client.put_json("/kv/small", r#"{"by": "n2"}"#).await.expect(201).uuid();
    for key in ["large", "gone", "t/a", "known"] {
        b.client.put(&format!("/kv/{key}"), "n2").await;
    }
    assert!(reports(&a).await.is_empty() && reports(&b).await.is_empty());
    relays.iter().for_each(|relay| relay.set_open(true));
    converged(&[&a, &b], SOON).await;

    let lost = reports(&a).await;
    assert_eq!(lost.keys().collect::<Vec<_>>(), ["gone", "large", "small", "t/a"]);
    let item = &lost["small"];
    assert_eq!(item["lost"]["uuid"], small.uuid());
    assert_eq!(item["lost"]["data"], json!({ "by": "n1" }));
    assert_eq!((&item["winner"]["uuid"], &item["winner"]["origin"]), (&json!(won), &json!(b.id)));
    assert_eq!(item["winner"]["data"], json!({ "by": "n2" }));
    assert_eq!((&item["causal"], item.get("txn")), (&json!("concurrent"), None));
    assert_eq!(lost["gone"]["lost"]["deleted"], true);
    assert_eq!(lost["t/a"]["txn"], txn["results"][0]["put"]["uuid"]);
    let kept = on(&a, &["superseded", "--resolve", "large", "--get", "lost"]).expect(0);
    assert!(kept.out == large, "a large value is whole");
    let theirs = reports(&b).await;
    assert_eq!(theirs.keys().collect::<Vec<_>>(), ["other"]);
    assert_eq!(theirs["other"]["lost"]["uuid"], other);
    let history = a.client.get("/history/small").await.expect(200).json();
    let revision = &history["revisions"][1];
    assert_eq!((&revision["outcome"], &revision["by"]), (&json!("superseded"), &json!(won)));
    let metric = [("causal", "concurrent")];
    assert_eq!(a.client.metric("kvs_superseded_total", &metric).await, 4);
    assert_eq!(b.client.metric("kvs_superseded_total", &metric).await, 1);

    // once, whatever comes again, and durable
    a.client.sync().await;
    b.client.sync().await;
    let a = a.kill_and_restart().await;
    converged(&[&a, &b], SOON).await;
    assert_eq!(reports(&a).await, lost);
}

#[tokio::test]
async fn what_was_lost_is_listed_and_resolved_on_the_command_line() {
    let (a, b, relays) = two().await;
    cut(&a, &b, &relays).await;
    for key in ["app/one", "app/two"] {
        on(&a, &["put", key, "mine"]).expect(0);
        on(&b, &["put", key, "theirs"]).expect(0);
    }
    relays.iter().for_each(|relay| relay.set_open(true));
    converged(&[&a, &b], SOON).await;
    let listed = on(&a, &["superseded", "app"]).expect(0).text();
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(listed.contains("app/one") && listed.contains("concurrent") && listed.contains("mine"));
    let lines = on(&a, &["-o", "json", "superseded"]).expect(0).text();
    let first: Value = serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["winner"]["data_base64"], "dGhlaXJz");
    let none = on(&b, &["superseded"]).expect(0);
    assert!(none.out.is_empty() && none.err.contains("has lost a merge"), "{none:?}");
    on(&b, &["superseded", "--resolve", "app/one"]).failed(1, &["ask the others"]);

    let shown = on(&a, &["superseded", "--resolve", "app/one"]).expect(0);
    assert!(shown.text().contains("mine") && shown.text().contains("theirs"), "{shown:?}");
    assert!(shown.err.contains("--keep lost"), "{shown:?}");
    let said = on(&a, &["superseded", "--resolve", "app/one", "--keep", "lost"]).expect(0).text();
    assert!(said.starts_with("resolved app/one  uuid="), "{said}");
    on_with(&a, &["superseded", "--resolve", "app/two", "--keep", "-"], b"merged").expect(0);
    converged(&[&a, &b], SOON).await;
    for (key, value) in [("app/one", "mine"), ("app/two", "merged")] {
        assert_eq!(on(&b, &["get", key]).expect(0).out, value.as_bytes());
    }
    // the key has moved on: not by chance over what was not looked at
    let again = ["superseded", "--resolve", "app/one", "--keep", "winner"];
    on(&a, &again).failed(1, &["precondition_failed", "--expect-uuid"]);
    let now = on(&a, &["-o", "json", "get", "app/one"]).expect(0).json();
    let now = text(&now["uuid"]);
    on(&a, &[&again[..], &["--expect-uuid", &now]].concat()).expect(0);
    converged(&[&a, &b], SOON).await;
    assert_eq!(on(&b, &["get", "app/one"]).expect(0).out, b"theirs");
    assert_eq!(on(&a, &["-o", "json", "superseded"]).expect(0).text(), lines, "no new loss");
}
