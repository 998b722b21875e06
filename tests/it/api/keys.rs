//! Keys in paths: which are valid, and that each reads back as written.

use serde_json::Value;

use crate::support::{Client, Node, Site, client::escaped, raw};

/// Raw paths and the keys that they stand for.
const PATHS: [(&str, &str); 13] = [
    ("/kv/plain", "plain"),
    ("/kv/a/b/c", "a/b/c"),
    ("/kv/with%20space", "with space"),
    ("/kv/d%2Fe", "d/e"),
    ("/kv/d%2ff", "d/f"),
    ("/kv/a+b", "a+b"),
    ("/kv/a%2Bc", "a+c"),
    ("/kv/100%25", "100%"),
    ("/kv/%252F", "%2F"),
    ("/kv/%C3%BC/%F0%9F%A6%80", "ü/🦀"),
    ("/kv/q%3Fx%23y", "q?x#y"),
    ("/kv/...", "..."),
    ("/kv/kv/scan", "kv/scan"),
];

async fn put_raw(node: &Node, path: &str) -> crate::support::Answer {
    let head = raw::head("PUT", path, &["Content-Length: 1"]);
    raw::exchange(node.http, format!("{head}v").as_bytes()).await
}

async fn keys(client: &Client) -> Vec<String> {
    let page = client.get("/scan?limit=1000").await.expect(200).json();
    let items = page["items"].as_array().expect("items");
    items.iter().map(|item| item["key"].as_str().expect("a key").to_owned()).collect()
}

#[tokio::test]
async fn keys_read_back_as_written() {
    let node = Site::alone().node("n1", &[]).await;
    for (path, key) in PATHS {
        let answer = put_raw(&node, path).await.expect(201);
        assert_eq!(answer.json()["key"], key, "{path}");
        // another spelling reads the same key
        let read = node.client.get(&format!("/kv/{}", escaped(key))).await.expect(200);
        assert_eq!(read.text(), "v");
        let swap = r#"{"expected":{"exists":true},"data_base64":""}"#;
        let head = raw::head("POST", &path.replacen("/kv", "/cas", 1), &["Content-Length: 45"]);
        assert_eq!(swap.len(), 45);
        let swapped = raw::exchange(node.http, format!("{head}{swap}").as_bytes()).await;
        assert_eq!(swapped.expect(200).json()["key"], key);
    }
    let mut expected: Vec<_> = PATHS.iter().map(|(_, key)| (*key).to_owned()).collect();
    expected.sort();
    assert_eq!(keys(&node.client).await, expected, "in the order of their bytes, each once");
    for (path, key) in PATHS {
        let answer = raw::ask(node.http, "DELETE", path).await.expect(200).json();
        assert_eq!((answer["key"].as_str(), &answer["deleted"]), (Some(key), &Value::Bool(true)));
    }
    assert!(keys(&node.client).await.is_empty());
}

#[tokio::test]
async fn every_route_refuses_an_invalid_key() {
    let node = Site::alone().node("n1", &[]).await;
    for bad in [
        "", "/", "//a", "/a/", "/a//b", "/.", "/..", "/a/./b", "/a/../b", "/%2e%2E", "/a%2F",
        "/%2Fa", "/a%00b", "/%", "/%2", "/%zz", "/%ff", "/%C3", "/%c0%80",
    ] {
        for (method, route) in [("GET", "/kv"), ("DELETE", "/kv"), ("HEAD", "/kv")] {
            let answer = raw::ask(node.http, method, &format!("{route}{bad}")).await;
            if method == "HEAD" {
                assert_eq!((answer.status, answer.body.len()), (400, 0), "{bad}");
            } else {
                answer.refused(400, "bad_key");
            }
        }
        put_raw(&node, &format!("/kv{bad}")).await.refused(400, "bad_key");
        let head = raw::head("POST", &format!("/cas{bad}"), &["Content-Length: 2"]);
        raw::exchange(node.http, format!("{head}{{}}").as_bytes()).await.refused(400, "bad_key");
    }
    // a prefix may be empty or end in a slash; the other rules of keys hold
    for good in ["/scan", "/scan/", "/scan/a", "/scan/a/", "/scan/a%2Fb", "/scan/%C3%BC"] {
        raw::ask(node.http, "GET", good).await.expect(200);
    }
    for bad in ["/scan//", "/scan//a", "/scan/a//", "/scan/a/..", "/scan/%ff", "/scan/%00"] {
        raw::ask(node.http, "GET", bad).await.refused(400, "bad_key");
    }
    assert!(keys(&node.client).await.is_empty());
}

#[tokio::test]
async fn a_key_has_at_most_1024_bytes() {
    let node = Site::alone().node("n1", &[]).await;
    let longest = ["a".repeat(1024), "ü".repeat(512), format!("{}/b", "a".repeat(1022))];
    for key in &longest {
        // the limit counts the bytes of the key, not those of its escaped form
        let all_escaped: String = key.bytes().map(|b| format!("%{b:02x}")).collect();
        put_raw(&node, &format!("/kv/{all_escaped}")).await.expect(201);
        assert_eq!(node.client.get(&format!("/kv/{}", escaped(key))).await.expect(200).text(), "v");
    }
    assert_eq!(keys(&node.client).await.len(), longest.len());
    for key in ["a".repeat(1025), format!("{}a", "ü".repeat(512)), "a/".repeat(9000) + "a"] {
        let path = format!("/kv/{}", escaped(&key));
        raw::ask(node.http, "GET", &path).await.refused(413, "key_too_long");
        put_raw(&node, &path).await.refused(413, "key_too_long");
        let path = format!("/scan/{}", escaped(&key));
        raw::ask(node.http, "GET", &path).await.refused(413, "key_too_long");
    }
}
