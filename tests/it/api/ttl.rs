//! Lifetimes from outside: how answers show them, that expired values count as absent, and that
//! none comes back.

use kvs::model::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::node::Surroundings;
use crate::support::skew::Skew;
use crate::support::{Answer, Client, SOON, Site, client::text, ensure, eventually};

fn micros(rfc3339: &str) -> u64 {
    Timestamp::from_rfc3339(rfc3339).expect("a time").micros()
}

/// Puts a value with a short lifetime and waits until it has expired.
async fn put_and_expire(client: &Client, key: &str) -> Answer {
    let put = client.put(&format!("/kv/{key}?ttl=50ms"), "mortal").await;
    gone(client, key).await;
    put
}

async fn gone(client: &Client, key: &str) {
    eventually(SOON, "it expires", async || {
        let read = client.get(&format!("/kv/{key}")).await;
        ensure(read.status == 404, || format!("{} is there", read.text()))
    })
    .await;
}

#[tokio::test]
async fn every_answer_shows_when_a_value_expires() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let put = client.put("/kv/a?ttl=90m", "x").await.expect(201);
    let expires = text(&put.json()["expires_at"]);
    assert_eq!(micros(&expires), put.timestamp() + 90 * 60 * 1_000_000);
    for read in [client.get("/kv/a").await, client.head("/kv/a").await] {
        assert_eq!(read.header("kvs-expires-at"), Some(expires.as_str()));
    }
    let envelope = client.get("/kv/a?format=envelope").await.json();
    assert_eq!(envelope["expires_at"], json!(expires));
    assert_eq!(client.get("/scan/a").await.json()["items"], json!([]), "a prefix is no key");
    let scanned = client.get("/scan").await.json();
    assert_eq!(scanned["items"][0]["expires_at"], json!(expires));
    let swap = json!({ "expected": { "absent": true }, "data": 1 });
    let refused = client.post_json("/cas/a", &swap).await.refused(412, "precondition_failed");
    assert_eq!(refused.json()["current"]["expires_at"], json!(expires));
    let tag = put.header("etag").expect("a tag").to_owned();
    let headers = [("if-none-match", tag.as_str())];
    let same = client.send(Method::GET, "/kv/a", &headers, "").await.expect(304);
    assert_eq!(same.header("kvs-expires-at"), Some(expires.as_str()));
    // by swap too
    let swap = json!({ "expected": { "exists": true }, "data": 1, "ttl": 5400 });
    let swapped = client.post_json("/cas/a", &swap).await.expect(200);
    let lives = micros(&text(&swapped.json()["expires_at"])) - swapped.timestamp();
    assert_eq!(lives, 90 * 60 * 1_000_000);
}

#[tokio::test]
async fn durations_are_parsed_strictly() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    for (ttl, millis) in [
        ("3600000ms", 3_600_000_u64),
        ("3600", 3_600_000),
        ("3600s", 3_600_000),
        ("60m", 3_600_000),
        ("1h", 3_600_000),
        ("1d", 86_400_000),
        ("36500d", 36_500 * 86_400_000),
        ("%31h", 3_600_000),
    ] {
        client.delete("/kv/k").await;
        let put = client.put(&format!("/kv/k?ttl={ttl}"), "x").await.expect(201);
        let lives = micros(&text(&put.json()["expires_at"])) - put.timestamp();
        assert_eq!(lives, millis * 1000, "{ttl}");
    }
    for bad in [
        "", "0", "0s", "01s", "1.5s", "-1s", "+1s", "1+s", "1w", "1H", "s", "36501d", "KEEP",
        "never",
    ] {
        let refused = client.put(&format!("/kv/bad?ttl={bad}"), "x").await;
        let detail = text(&refused.refused(400, "bad_duration").json()["detail"]);
        assert!(detail.contains("keep") && detail.contains("ms"), "{detail}");
    }
    client.put("/kv/bad?ttl=1h&ttl=2h", "x").await.refused(400, "bad_request");
    client.get("/kv/bad").await.refused(404, "key_not_found");
}

#[tokio::test]
async fn keep_keeps_the_lifetime_and_a_write_without_one_clears_it() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let swap = async |ttl: Option<&str>| {
        let mut body = json!({ "expected": { "exists": true }, "data": 1 });
        if let Some(ttl) = ttl {
            body["ttl"] = json!(ttl);
        }
        client.post_json("/cas/k", &body).await.expect(200).json()
    };
    let expires = client.put("/kv/k?ttl=1h", "x").await.expect(201).json()["expires_at"].clone();
    assert!(expires.is_string());
    for kept in
        [client.put("/kv/k?ttl=keep", "y").await.expect(200).json(), swap(Some("keep")).await]
    {
        assert_eq!(kept["expires_at"], expires);
    }
    assert!(swap(None).await.get("expires_at").is_none());
    assert!(client.get("/kv/k").await.header("kvs-expires-at").is_none());
    // without a lifetime there is none to keep
    for kept in
        [client.put("/kv/k?ttl=keep", "y").await.expect(200).json(), swap(Some("keep")).await]
    {
        assert!(kept.get("expires_at").is_none(), "{kept}");
    }
    let new = client.put("/kv/new?ttl=keep", "y").await.expect(201).json();
    assert!(new.get("expires_at").is_none(), "{new}");
    client.put("/kv/k?ttl=1h", "x").await.expect(200);
    let cleared = client.put("/kv/k", "x").await.expect(200).json();
    assert!(cleared.get("expires_at").is_none(), "{cleared}");
}

#[tokio::test]
async fn an_expired_value_counts_as_absent() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let put = put_and_expire(client, "k").await.expect(201);
    let uuid = put.uuid();
    let tag = format!("\"{uuid}\"");
    let with = async |method: Method, header: &str, value: &str| {
        let body = if method == Method::PUT { "x" } else { "" };
        client.send(method, "/kv/k", &[(header, value)], body).await
    };
    client.get("/kv/k?format=envelope").await.refused(404, "key_not_found");
    assert_eq!(client.head("/kv/k").await.status, 404);
    client.delete("/kv/k").await.refused(404, "key_not_found");
    with(Method::GET, "if-none-match", &tag).await.refused(404, "key_not_found");
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        for value in ["*", tag.as_str()] {
            let refused = with(method.clone(), "if-match", value).await;
            let problem = refused.refused(412, "precondition_failed").json();
            assert_eq!(problem["current"], Value::Null);
        }
    }
    for expected in [
        json!({ "uuid": uuid }),
        json!({ "timestamp": put.timestamp() }),
        json!({ "data_base64": "bW9ydGFs" }),
        json!({ "exists": true }),
    ] {
        let swap = json!({ "expected": expected, "data": 1 });
        let refused = client.post_json("/cas/k", &swap).await;
        let problem = refused.refused(412, "precondition_failed").json();
        assert_eq!(problem["current"], Value::Null, "{expected}");
    }
    let read = json!({ "success": [{ "get": { "key": "k" } }, { "delete": { "key": "k" } }] });
    let told = client.post_json("/txn", &read).await.expect(200).json();
    let expected = json!([{ "get": null }, { "delete": { "key": "k", "deleted": false } }]);
    assert_eq!(told["results"], expected);
    assert_eq!(client.get("/scan?values=true").await.json()["items"], json!([]));
    eventually(SOON, "it is counted as dead", async || {
        let cluster = client.cluster().await;
        let counts = (cluster["keys"].clone(), cluster["tombstones"].clone());
        ensure(counts == (json!(0), json!(1)), || format!("{counts:?}"))
    })
    .await;
}

#[tokio::test]
async fn a_write_over_an_expired_value_works_as_over_none() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let old = put_and_expire(client, "swap").await.expect(201).uuid();
    let swap = json!({ "expected": { "absent": true }, "data": 1, "ttl": "keep" });
    let told = client.post_json("/cas/swap", &swap).await.expect(200).json();
    assert_eq!((&told["swapped"], &told["previous"]), (&json!(true), &Value::Null));
    assert!(told.get("expires_at").is_none(), "the end of a dead value is not kept: {told}");
    let envelope = client.get("/kv/swap?format=envelope").await.json();
    assert_eq!(envelope["parent"], json!(old), "the dead record is what it replaced");
    put_and_expire(client, "put").await;
    let headers = [("if-none-match", "*")];
    client.send(Method::PUT, "/kv/put", &headers, "new").await.expect(201);
    put_and_expire(client, "keep").await;
    let kept = client.put("/kv/keep?ttl=keep", "new").await.expect(201).json();
    assert!(kept.get("expires_at").is_none(), "{kept}");
    put_and_expire(client, "txn").await;
    let body = json!({
        "compare": [{ "key": "txn", "expected": { "absent": true } }],
        "success": [{ "put": { "key": "txn", "data": 1 } }],
    });
    assert_eq!(client.post_json("/txn", &body).await.expect(200).json()["succeeded"], true);
}

#[tokio::test]
async fn lifetimes_and_expiries_survive_a_restart() {
    let node = Site::alone().node("n1", &[]).await;
    let put = node.client.put("/kv/lives?ttl=1h", "x").await.expect(201).json();
    put_and_expire(&node.client, "dead").await;
    let node = node.kill_and_restart().await;
    let read = node.client.get("/kv/lives").await.expect(200);
    assert_eq!(json!(read.header("kvs-expires-at")), put["expires_at"]);
    node.client.get("/kv/dead").await.refused(404, "key_not_found");
}

/// A node decides expiry by its own clock. A step back by at most `sync.clock_drift_max` revives
/// nothing.
#[tokio::test]
async fn a_clock_that_steps_back_a_little_revives_nothing() {
    const HOUR_MS: i64 = 3_600_000;
    let site = Site::alone();
    let mut place = site.place("n1", &[]);
    let Ok(skew) = Skew::build(&place.dir)
        .inspect_err(|error| eprintln!("SKIPPED: clocks that step need a C compiler: {error}"))
    else {
        return;
    };
    let clock = skew.clock(&place.dir.join("clock"));
    let environment = clock.environment.clone();
    place.surround(Surroundings { environment, ..Surroundings::default() });
    let node = place.start().await;
    let client = &node.client;
    client.put("/kv/k?ttl=1h", "x").await.expect(201);
    client.put("/kv/later?ttl=3h", "x").await.expect(201);
    client.get("/kv/k").await.expect(200);
    clock.set(HOUR_MS + 1_000);
    client.get("/kv/k").await.refused(404, "key_not_found");
    clock.set(HOUR_MS - 50_000);
    client.get("/kv/k").await.refused(404, "key_not_found");
    client.get("/kv/later").await.expect(200);
    let swap = json!({ "expected": { "exists": true }, "data": 1 });
    client.post_json("/cas/k", &swap).await.refused(412, "precondition_failed");
}
