//! Scans: order, prefixes, pages and cursors, content, and NDJSON lines.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};

use super::values::noise;
use crate::support::{Client, Site};

fn keys(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().expect("items");
    items.iter().map(|item| item["key"].as_str().expect("a key").to_owned()).collect()
}

async fn pages(client: &Client, path: &str, limit: usize) -> Vec<Vec<String>> {
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("{path}?limit={limit}{after}")).await.expect(200).json();
        found.push(keys(&page));
        let Some(next) = page.get("next") else { return found };
        after = format!("&after={}", next.as_str().expect("a cursor"));
    }
}

async fn lines(client: &Client, path: &str) -> Vec<Value> {
    let accept = [("accept", "application/x-ndjson")];
    let answer = client.send(Method::GET, path, &accept, "").await.expect(200);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(answer.header("vary"), Some("accept"));
    let text = answer.text();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test]
async fn pages_cover_a_prefix_once_and_in_order() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let mut below: Vec<String> = (0..25).map(|n| format!("app/{n}")).collect();
    below.extend(["app/ü".to_owned(), "app/a b".to_owned(), "app/app/x".to_owned()]);
    for key in below.iter().map(String::as_str).chain(["app", "apple/x", "ap", "b", "app!"]) {
        client.put(&format!("/kv/{}", crate::support::client::escaped(key)), "x").await.expect(201);
    }
    client.put("/kv/app/gone", "x").await.expect(201);
    client.delete("/kv/app/gone").await.expect(200);
    below.sort();
    for prefix in ["/scan/app", "/scan/app/"] {
        let page = client.get(prefix).await.expect(200).json();
        assert_eq!((keys(&page), &page["prefix"]), (below.clone(), &json!("app")), "{prefix}");
        assert!(page.get("next").is_none());
        let item = &page["items"][0];
        assert!(item.get("data").is_none() && item.get("data_base64").is_none());
        assert_eq!((&item["size"], &item["origin"]), (&json!(1), &json!(node.id)));
    }
    for limit in [1, 7, 27, 28, 29, 1000] {
        let found = pages(client, "/scan/app", limit).await;
        assert!(found.iter().rev().skip(1).all(|page| page.len() == limit));
        assert_eq!(found.concat(), below, "limit {limit}");
    }
    assert_eq!(pages(client, "/scan", 4).await.concat().len(), below.len() + 5);
    assert_eq!(client.get("/scan/none").await.expect(200).json()["items"], json!([]));
    assert_eq!(client.head("/scan").await.expect(200).body.len(), 0);
}

#[tokio::test]
async fn a_page_has_100_items_by_default_and_1000_at_most() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let puts = (0..1001).map(|n| {
        let client = client.clone();
        async move { client.put(&format!("/kv/{n:04}"), "x").await.expect(201) }
    });
    stream::iter(puts).buffer_unordered(64).collect::<Vec<_>>().await;
    assert_eq!(keys(&client.get("/scan").await.json()).len(), 100);
    let page = client.get("/scan?limit=1000").await.json();
    assert_eq!((keys(&page).len(), page.get("next").is_some()), (1000, true));
    for bad in ["0", "1001", "-1", "x", "", "1.0", "99999999999999999999"] {
        client.get(&format!("/scan?limit={bad}")).await.refused(400, "bad_request");
    }
    let lines = lines(client, "/scan").await;
    assert_eq!(lines.len(), 1001, "lines have no limit");
    assert!(lines.windows(2).all(|pair| pair[0]["key"].as_str() < pair[1]["key"].as_str()));
}

#[tokio::test]
async fn a_cursor_works_only_with_the_prefix_that_it_came_from() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    for key in ["a/1", "a/2", "b/1", "b/2"] {
        client.put(&format!("/kv/{key}"), "x").await.expect(201);
    }
    let next = client.get("/scan/a?limit=1").await.json()["next"].as_str().unwrap().to_owned();
    assert_eq!(keys(&client.get(&format!("/scan/a?after={next}")).await.json()), ["a/2"]);
    client.get(&format!("/scan/b?after={next}")).await.refused(400, "bad_cursor");
    for bad in ["", "x", "!!!!", "a/1", "YS8v"] {
        client.get(&format!("/scan/a?after={bad}")).await.refused(400, "bad_cursor");
    }
    // a cursor stays valid after its key is deleted
    client.delete("/kv/a/1").await.expect(200);
    client.put("/kv/a/11", "x").await.expect(201);
    assert_eq!(keys(&client.get(&format!("/scan/a?after={next}")).await.json()), ["a/11", "a/2"]);
}

#[tokio::test]
async fn content_comes_on_request_and_bounds_the_page() {
    let site = Site::alone().set("limits.body_bytes_max", 2 << 20);
    let node = site.node("n1", &[]).await;
    let client = &node.client;
    for n in 0..10 {
        client.put(&format!("/kv/{n}"), noise(500_000, n)).await.expect(201);
    }
    let (mut path, mut found) = ("/scan?values=true".to_owned(), 0);
    loop {
        let page = client.get(&path).await.expect(200).json();
        let items = page["items"].as_array().expect("items");
        assert!((1..=4).contains(&items.len()), "{} items of 500 kB", items.len());
        for item in items {
            let encoded = item["data_base64"].as_str().expect("content");
            let bytes = BASE64_STANDARD.decode(encoded).expect("base64");
            assert_eq!(bytes, noise(500_000, found));
            found += 1;
        }
        let Some(next) = page.get("next") else { break };
        path = format!("/scan?values=true&after={}", next.as_str().expect("a cursor"));
    }
    assert_eq!(found, 10);
    client.get("/scan?values=false").await.refused(400, "bad_request");
    client.get("/scan?values").await.refused(400, "bad_request");
    let lines = lines(client, "/scan?values=true").await;
    assert_eq!(lines.len(), 10);
    assert!(lines.iter().all(|line| line["data_base64"].is_string()));
}

#[tokio::test]
async fn lines_end_with_their_number_if_they_are_asked_to() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    assert_eq!(lines(client, "/scan?end=true").await, [json!({ "end": true, "items": 0 })]);
    for n in 0..5 {
        client.put(&format!("/kv/{n}"), "x").await.expect(201);
    }
    for (path, items) in [("/scan?end=true", 5), ("/scan?end=true&values=true&limit=3", 3)] {
        let lines = lines(client, path).await;
        assert_eq!(lines.len(), items + 1, "{path}");
        assert_eq!(lines[items], json!({ "end": true, "items": items }));
    }
    assert_eq!(lines(client, "/scan").await.len(), 5);
    client.get("/scan?end=true").await.refused(400, "bad_request");
    client.get("/scan?end=false").await.refused(400, "bad_request");
}

#[tokio::test]
async fn lines_hold_one_envelope_each_and_exact_ones_lose_no_byte() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let values = ["[1, 2]", "[1,\n2]", "\r[1]", "{\"a\":\"\\n\"}", "1\n", "null"];
    for (n, value) in values.iter().enumerate() {
        client.put_json(&format!("/kv/{n}"), *value).await.expect(201);
    }
    let readable = lines(client, "/scan?values=true").await;
    let exact = lines(client, "/scan?values=true&exact=true").await;
    assert_eq!((readable.len(), exact.len()), (values.len(), values.len()));
    for ((line, exact), value) in readable.iter().zip(&exact).zip(values) {
        let encoded = BASE64_STANDARD.encode(value);
        let survives = value.trim() == value && !value.contains(['\n', '\r']);
        let data: Value = serde_json::from_str(value).expect("JSON");
        assert_eq!((line.get("data"), line.get("data_base64")), (Some(&data), None), "{value:?}");
        let (data, encoded) = if survives { (Some(data), None) } else { (None, Some(encoded)) };
        assert_eq!(exact.get("data"), data.as_ref(), "{value:?}");
        assert_eq!(exact.get("data_base64"), encoded.map(Value::String).as_ref());
    }
    // without `Accept` for lines the answer is a page
    for accept in ["*/*", "application/json", "application/x-ndjson;q=0"] {
        let answer = client.send(Method::GET, "/scan", &[("accept", accept)], "").await.expect(200);
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
}
