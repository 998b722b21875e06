//! Transactions from outside: their compares, operations and answers, and that they are atomic.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{Answer, Client, Site, client::text, raw};

async fn txn(client: &Client, body: &Value) -> Answer {
    client.post_json("/txn", body).await
}

fn put(key: &str, data: impl Into<Value>) -> Value {
    json!({ "put": { "key": key, "data": data.into() } })
}

fn delete(key: &str) -> Value {
    json!({ "delete": { "key": key } })
}

fn get(key: &str) -> Value {
    json!({ "get": { "key": key } })
}

#[tokio::test]
async fn the_answer_has_the_shape_of_the_contract() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let old = client.put_json("/kv/b", r#"{"x": 1.0}"#).await.expect(201);
    let body = json!({ "success": [put("a", 1), get("b"), delete("b"), delete("c"), get("c")] });
    let answer = txn(client, &body).await.expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let told = answer.json();
    let envelope = concat!(
        r#"{"key":"b","uuid":"OLD","timestamp":TS,"origin":"NODE","origin_joined_at":JOINED,"#,
        r#""parent":null,"expires_at":null,"content_type":"application/json","size":10,"#,
        r#""data":{"x": 1.0}}"#
    );
    let joined = client.cluster().await["node"]["joined_at"].to_string();
    let envelope = envelope
        .replace("OLD", &old.uuid())
        .replace("TS", &old.timestamp().to_string())
        .replace("NODE", &node.id)
        .replace("JOINED", &joined);
    let expected = format!(
        concat!(
            r#"{{"succeeded":true,"failed":[],"results":["#,
            r#"{{"put":{{"key":"a","uuid":{},"timestamp":{}}}}},"#,
            r#"{{"get":{}}},{{"delete":{{"key":"b","deleted":true}}}},"#,
            r#"{{"delete":{{"key":"c","deleted":false}}}},{{"get":null}}]}}"#
        ),
        told["results"][0]["put"]["uuid"], told["results"][0]["put"]["timestamp"], envelope,
    );
    assert_eq!(answer.text(), expected);
    let read = client.get("/kv/a").await.expect(200);
    assert_eq!(
        json!(read.header("etag")),
        json!(format!("\"{}\"", text(&told["results"][0]["put"]["uuid"])))
    );
    client.get("/kv/b").await.refused(404, "key_not_found");
    // a missing list counts as empty
    let nothing = json!({ "succeeded": true, "failed": [], "results": [] });
    assert_eq!(txn(client, &json!({})).await.expect(200).json(), nothing);
    let failed = json!({ "compare": [{ "key": "a", "expected": { "absent": true } }] });
    let nothing = json!({ "succeeded": false, "failed": [0], "results": [] });
    assert_eq!(txn(client, &failed).await.expect(200).json(), nothing);
}

#[tokio::test]
async fn every_form_of_compare_works_as_in_a_swap_and_the_answer_lists_those_that_fail() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let held = client.put_json("/kv/k", r#"{"n": 1.0}"#).await.expect(201);
    let (uuid, timestamp) = (held.uuid(), held.timestamp());
    let never = Uuid::nil().to_string();
    let table = [
        ("k", json!({ "uuid": uuid }), true),
        ("k", json!({ "uuid": never }), false),
        ("k", json!({ "timestamp": timestamp }), true),
        ("k", json!({ "timestamp": 1 }), false),
        ("k", json!({ "uuid": uuid, "timestamp": timestamp }), true),
        ("k", json!({ "uuid": uuid, "timestamp": 1 }), false),
        ("k", json!({ "data": { "n": 1 } }), true),
        ("k", json!({ "data": { "n": 2 } }), false),
        ("k", json!({ "data_base64": "eyJuIjogMS4wfQ==" }), true),
        ("k", json!({ "data_base64": "eyJuIjoxLjB9" }), false),
        ("k", json!({ "exists": true }), true),
        ("k", json!({ "absent": true }), false),
        ("none", json!({ "absent": true }), true),
        ("none", json!({ "exists": true }), false),
        ("none", json!({ "data": null }), false),
        ("none", json!({ "uuid": uuid }), false),
    ];
    let compare: Vec<_> =
        table.iter().map(|(key, e, _)| json!({ "key": key, "expected": e })).collect();
    for (compare, (_, expected, holds)) in compare.iter().zip(&table) {
        let body = json!({ "compare": [compare], "success": [get("k")], "failure": [get("none")] });
        let told = txn(client, &body).await.expect(200).json();
        assert_eq!(told["succeeded"], *holds, "{expected}");
        assert_eq!(told["failed"], if *holds { json!([]) } else { json!([0]) });
        assert_eq!(told["results"][0]["get"].is_object(), *holds, "the branch that was done");
    }
    let told = txn(client, &json!({ "compare": compare })).await.expect(200).json();
    let fails = table.iter().enumerate().filter(|(_, (_, _, holds))| !holds);
    let fails: Vec<_> = fails.map(|(at, _)| at).collect();
    assert_eq!(told, json!({ "succeeded": false, "failed": fails, "results": [] }));
    assert_eq!(client.get("/kv/k").await.header("etag"), Some(format!("\"{uuid}\"").as_str()));
}

#[tokio::test]
async fn operations_see_earlier_operations_and_compares_see_none() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    client.put_json("/kv/a", "0").await.expect(201);
    let body = json!({
        "compare": [{ "key": "a", "expected": { "data": 0 } }],
        "success": [
            get("a"), put("a", 1), get("a"), put("b", 2), get("b"), delete("c"), get("c"), get("a"),
        ],
    });
    let told = txn(client, &body).await.expect(200).json();
    let got = |at: usize| told["results"][at]["get"].clone();
    assert_eq!(
        (&got(0)["data"], &got(2)["data"], &got(4)["data"]),
        (&json!(0), &json!(1), &json!(2))
    );
    assert_eq!((&got(6), &got(7)), (&Value::Null, &got(2)));
    let written = &told["results"][1]["put"];
    assert_eq!((&got(2)["uuid"], &got(2)["timestamp"]), (&written["uuid"], &written["timestamp"]));
    assert_eq!(got(2)["parent"], got(0)["uuid"]);
    assert_eq!(written["uuid"], told["results"][3]["put"]["uuid"], "one uuid for all its writes");
    assert_eq!(client.get("/kv/a?format=envelope").await.json(), got(7));
    let again = txn(client, &body).await.expect(200).json();
    assert_eq!(again, json!({ "succeeded": false, "failed": [0], "results": [] }));
    // later operations see a delete too
    let told = txn(client, &json!({ "success": [delete("a"), get("a")] })).await.expect(200).json();
    assert_eq!(
        told["results"],
        json!([{ "delete": { "key": "a", "deleted": true } }, { "get": null }])
    );
}

#[tokio::test]
async fn the_branch_not_taken_does_nothing() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let body = json!({
        "compare": [
            { "key": "lock", "expected": { "absent": true } },
            { "key": "lock", "expected": { "exists": true } },
        ],
        "success": [put("lock", "won"), put("log", "won")],
        "failure": [put("log", "lost")],
    });
    let told = txn(client, &body).await.expect(200).json();
    assert_eq!((&told["succeeded"], &told["failed"]), (&json!(false), &json!([1])));
    client.get("/kv/lock").await.refused(404, "key_not_found");
    assert_eq!(client.get("/kv/log").await.text(), "\"lost\"");
}

#[tokio::test]
async fn values_come_in_every_form_with_type_and_lifetime() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let body = concat!(
        r#"{"success":[{"put":{"key":"json","data": {"b":1.0,  "a":[ ]} }},"#,
        r#"{"put":{"key":"bytes","data_base64":"aGk="}},"#,
        r#"{"put":{"key":"typed","data_base64":"aGk=","content_type":"text/x-hi","ttl":"1h"}},"#,
        r#"{"put":{"key":"seconds","data":null,"ttl":3600}},"#,
        r#"{"get":{"key":"typed"}}]}"#
    );
    let told = client.post("/txn", body).await.expect(200).json();
    for (key, content_type, value) in [
        ("json", "application/json", r#"{"b":1.0,  "a":[ ]}"#),
        ("bytes", "application/octet-stream", "hi"),
        ("typed", "text/x-hi", "hi"),
        ("seconds", "application/json", "null"),
    ] {
        let read = client.get(&format!("/kv/{key}")).await.expect(200);
        assert_eq!(
            (read.text().as_str(), read.header("content-type")),
            (value, Some(content_type))
        );
        let lives = matches!(key, "typed" | "seconds");
        assert_eq!(read.header("kvs-expires-at").is_some(), lives, "{key}");
    }
    assert_eq!(told["results"][4]["get"]["data_base64"], "aGk=");
    let expires = told["results"][4]["get"]["expires_at"].clone();
    assert!(expires.is_string());
    // `keep` keeps the lifetime, a put without one clears it
    let body = json!({ "success": [
        { "put": { "key": "typed", "data": 1, "ttl": "keep" } },
        { "put": { "key": "seconds", "data": 2 } },
        get("typed"),
        get("seconds"),
    ] });
    let told = txn(client, &body).await.expect(200).json();
    assert_eq!(told["results"][2]["get"]["expires_at"], expires);
    assert_eq!(told["results"][3]["get"]["expires_at"], Value::Null);
}

#[tokio::test]
async fn an_invalid_transaction_is_refused_with_the_place_and_changes_nothing() {
    let node = Site::alone().set("limits.value_bytes_max", 100).node("n1", &[]).await;
    let client = &node.client;
    let large = format!(r#"{{"put":{{"key":"a","data":"{}"}}}}"#, "x".repeat(100));
    let long = format!(r#"{{"put":{{"key":"{}","data":1}}}}"#, "x".repeat(1025));
    // the table of all that is refused stands beside the parser
    for (operation, code, names) in [
        (r#"{"put":{"key":"a","data":2}}"#, "bad_request", "success[1]"),
        (r#"{"put":{"key":"b","data":1,"size":1}}"#, "unknown_field", "success[1].put"),
        (r#"{"get":{"key":"b/"}}"#, "bad_key", "success[1].get"),
    ] {
        let body = format!(r#"{{"success":[{{"put":{{"key":"a","data":1}}}},{operation}]}}"#);
        let problem = client.post("/txn", body).await.refused(400, code).json();
        assert!(text(&problem["detail"]).contains(names), "{operation}: {problem}");
    }
    for (operation, code) in [(large, "value_too_large"), (long, "key_too_long")] {
        let body = format!(r#"{{"success":[{{"get":{{"key":"a"}}}},{operation}]}}"#);
        let problem = client.post("/txn", body).await.refused(413, code).json();
        assert!(text(&problem["detail"]).contains("success[1].put"), "{problem}");
    }
    client.post("/txn", "").await.refused(400, "bad_json");
    let encoded = [("content-encoding", "gzip")];
    client.send(Method::POST, "/txn", &encoded, "{}").await.refused(415, "unsupported_media");
    client.get("/kv/a").await.refused(404, "key_not_found");
    let listed = client.get("/scan").await.json();
    assert_eq!(listed["items"], json!([]), "nothing of it was written");
}

#[tokio::test]
async fn each_list_takes_as_many_entries_as_the_limit_says() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let compares = |n: usize| -> Vec<_> {
        let one = |at| json!({ "key": format!("k/{at}"), "expected": { "absent": true } });
        (0..n).map(one).collect()
    };
    let puts = |n: usize| -> Vec<_> { (0..n).map(|at| put(&format!("k/{at}"), at)).collect() };
    let gets = |n: usize| -> Vec<_> { (0..n).map(|at| get(&format!("k/{at}"))).collect() };
    for (body, list) in [
        (json!({ "compare": compares(1025), "success": puts(1) }), "compare"),
        (json!({ "success": puts(1025) }), "success"),
        (json!({ "success": puts(1), "failure": gets(1025) }), "failure"),
    ] {
        let problem = txn(client, &body).await.refused(413, "too_many_operations").json();
        assert!(text(&problem["detail"]).contains(list), "{problem}");
    }
    client.get("/kv/k/0").await.refused(404, "key_not_found");
    let all = json!({ "compare": compares(1024), "success": puts(1024), "failure": gets(1024) });
    let told = txn(client, &all).await.expect(200).json();
    assert_eq!(told["results"].as_array().map(Vec::len), Some(1024));
    let told = txn(client, &all).await.expect(200).json();
    assert_eq!(told["failed"].as_array().map(Vec::len), Some(1024));
    assert_eq!(told["results"][1023]["get"]["data"], 1023);
    assert_eq!(client.cluster().await["keys"], 1024);
}

#[tokio::test]
async fn a_transaction_that_reads_too_much_does_nothing() {
    let site = Site::alone().set("limits.body_bytes_max", 1 << 20);
    let node = site.set("limits.value_bytes_max", 1 << 20).node("n1", &[]).await;
    let client = &node.client;
    client.put("/kv/large", vec![b'x'; 600_000]).await.expect(201);
    let body = json!({ "success": [put("a", 1), get("large"), get("large")] });
    let problem = txn(client, &body).await.refused(413, "body_too_large").json();
    assert!(text(&problem["detail"]).contains("body_bytes_max"), "{problem}");
    client.get("/kv/a").await.refused(404, "key_not_found");
    let body = json!({ "success": [put("a", 1), get("large"), get("a")] });
    let told = txn(client, &body).await.expect(200).json();
    assert_eq!(told["results"][1]["get"]["size"], 600_000);
    let many = format!(r#"{{"success":[{}]}}"#, " ".repeat(1 << 20));
    client.post("/txn", many).await.refused(413, "body_too_large");
}

const ACCOUNTS: usize = 4;
const MOVERS: usize = 8;
const MOVES: usize = 25;
const START: i64 = 100;

fn account(number: usize) -> String {
    format!("bank/{}", number % ACCOUNTS)
}

async fn balances(client: &Client) -> Vec<Value> {
    let gets: Vec<_> = (0..ACCOUNTS).map(|number| get(&account(number))).collect();
    let told = txn(client, &json!({ "success": gets })).await.expect(200).json();
    let results = told["results"].as_array().expect("results");
    results.iter().map(|result| result["get"].clone()).collect()
}

/// Moves one from an account to the next until it succeeds.
async fn transfer(client: &Client, number: usize) {
    loop {
        let [from, to] = [number, number + 1].map(account);
        let gets = json!({ "success": [get(&from), get(&to)] });
        let seen = txn(client, &gets).await.expect(200).json()["results"].clone();
        let [a, b] = [0, 1].map(|at| seen[at]["get"].clone());
        let amount = |envelope: &Value| envelope["data"].as_i64().expect("a number");
        let body = json!({
            "compare": [
                { "key": from, "expected": { "uuid": a["uuid"] } },
                { "key": to, "expected": { "uuid": b["uuid"] } },
            ],
            "success": [put(&from, amount(&a) - 1), put(&to, amount(&b) + 1)],
        });
        if txn(client, &body).await.expect(200).json()["succeeded"] == true {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_transfers_neither_create_nor_lose_money() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let open: Vec<_> = (0..ACCOUNTS).map(|number| put(&account(number), START)).collect();
    txn(client, &json!({ "success": open })).await.expect(200);
    let mut moving = JoinSet::new();
    for mover in 0..MOVERS {
        let client = client.clone();
        moving.spawn(async move {
            for number in 0..MOVES {
                transfer(&client, mover + number).await;
            }
        });
    }
    let mut seen = 0;
    while !moving.is_empty() {
        // a reading transaction sees each other transaction whole or not at all
        let sum: i64 = balances(client).await.iter().filter_map(|e| e["data"].as_i64()).sum();
        assert_eq!(sum, START * ACCOUNTS as i64);
        seen += 1;
        while let Some(ended) = moving.try_join_next() {
            ended.expect("no panic");
        }
    }
    assert!(seen > 3, "only {seen} looks");
    let restarted = node.kill_and_restart().await;
    let sum: i64 =
        balances(&restarted.client).await.iter().filter_map(|e| e["data"].as_i64()).sum();
    assert_eq!(sum, START * ACCOUNTS as i64, "also across kill -9");
}

/// Some clients disconnect within the request, most right after it; none waits for the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_whose_client_leaves_is_done_whole_or_not_at_all() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let mut met = 0;
    for number in 0..60_usize {
        let keys = ["a", "b", "c"].map(|name| format!("{number}/{name}"));
        let puts: Vec<_> = keys.iter().map(|key| put(key, number)).collect();
        let body = json!({ "success": puts, "uuid": Uuid::from_u128(number as u128) });
        let text = body.to_string();
        let length = format!("Content-Length: {}", text.len());
        let request = raw::head("POST", "/txn", &[&length]) + &text;
        let sent = if number % 4 == 0 { request.len() - 1 } else { request.len() };
        let mut stream = TcpStream::connect(node.http).await.expect("a connection");
        stream.write_all(&request.as_bytes()[..sent]).await.expect("the node takes it");
        if number % 2 == 0 {
            stream.shutdown().await.expect("no more is sent");
        }
        drop(stream);
        let gets: Vec<_> = keys.iter().map(|key| get(key)).collect();
        let seen = txn(client, &json!({ "success": gets })).await.expect(200).json();
        let results = seen["results"].as_array().expect("results");
        let there = results.iter().filter(|result| !result["get"].is_null()).count();
        assert!([0, 3].contains(&there), "{there} of 3 keys");
        assert!(there == 0 || sent == request.len(), "it was not sent whole");
        met += there / 3;
        // after the retry the transaction has happened exactly once
        assert_eq!(txn(client, &body).await.expect(200).json()["succeeded"], true);
        for key in keys {
            let history = client.get(&format!("/history/{key}")).await.expect(200).json();
            assert_eq!(history["revisions"].as_array().expect("revisions").len(), 1, "{key}");
        }
    }
    assert!(met > 0, "none was done when it was looked");
}
