//! Web pages of strangers in a browser on the node's own machine: they read and change nothing.

use std::net::SocketAddr;

use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, Client, Node, Site, raw};

/// A transaction as a page sends it, without asking first, in a form of type text/plain.
fn txn() -> String {
    json!({ "success": [{ "delete": { "key": "a" } }] }).to_string()
}

async fn node(site: Site) -> Node {
    let node = site.node("n1", &[]).await;
    node.client.put("/kv/a", "kept").await.expect(201);
    node
}

async fn with_host(to: SocketAddr, host: &str, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    raw::exchange(to, request.as_bytes()).await
}

#[tokio::test]
async fn a_page_of_another_origin_changes_and_reads_nothing() {
    let node = node(Site::alone()).await;
    let client = &node.client;
    let plain = ("content-type", "text/plain");
    for from in [
        &[("origin", "https://evil.example")][..],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")],
        &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")],
        &[("sec-fetch-site", "same-site"), ("origin", "http://localhost:1")],
    ] {
        let headers = [from, &[plain]].concat();
        let refused = client.send(Method::POST, "/txn", &headers, txn()).await;
        let refused = refused.refused(403, "forbidden");
        assert!(refused.text().contains("http.origins"), "{}", refused.text());
        assert!(refused.header("access-control-allow-origin").is_none());
        client.send(Method::PUT, "/kv/a", &headers, "evil").await.refused(403, "forbidden");
    }
    let read = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "cors")];
    client.send(Method::GET, "/scan/?values=true", &read, "").await.refused(403, "forbidden");
    let asks = [("origin", "https://evil.example"), ("access-control-request-method", "PUT")];
    client.send(Method::OPTIONS, "/kv/a", &asks, "").await.refused(403, "forbidden");
    assert_eq!(client.get("/kv/a").await.expect(200).text(), "kept");
    // its own pages, the address bar, and a link from elsewhere
    let own = [("sec-fetch-site", "same-origin"), ("origin", client.url())];
    client.send(Method::PUT, "/kv/own", &own, "x").await.expect(201);
    client.send(Method::PUT, "/kv/own", &[("origin", client.url())], "x").await.expect(200);
    let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
    client.send(Method::GET, "/kv/a", &link, "").await.expect(200);
    client.send(Method::GET, "/kv/a", &[("sec-fetch-site", "none")], "").await.expect(200);
}

#[tokio::test]
async fn a_name_that_was_turned_towards_loopback_reaches_nothing() {
    let site = Site::alone().set("http.hosts", vec!["kvs.example"]);
    let node = node(site).await;
    for host in ["rebound.evil.example", "rebound.evil.example:80", "0.0.0.0", "10.1.2.3:80"] {
        let refused = with_host(node.http, host, "/scan/?values=true").await;
        let refused = refused.refused(421, "misdirected");
        assert!(refused.text().contains("http.hosts") && !refused.text().contains("kept"));
        with_host(node.http, host, "/health/ready").await.expect(200);
    }
    let port = node.http.port();
    for host in ["localhost", "127.0.0.1", "[::1]", "a.localhost", "KVS.example"] {
        with_host(node.http, host, "/kv/a").await.expect(200);
        with_host(node.http, &format!("{host}:{port}"), "/kv/a").await.expect(200);
    }
    raw::exchange(node.http, b"GET /kv/a HTTP/1.0\r\n\r\n").await.expect(200);
    for head in [
        "GET /kv/a HTTP/1.1\r\nConnection: close\r\n",
        "GET /kv/a HTTP/1.1\r\nConnection: close\r\nHost: localhost\r\nHost: localhost\r\n",
        "GET /kv/a HTTP/1.0\r\nHost: localhost\r\nHost: evil.example\r\n",
        "GET /kv/a HTTP/1.1\r\nConnection: close\r\nHost: a b\r\n",
    ] {
        let answer = raw::exchange(node.http, format!("{head}\r\n").as_bytes()).await;
        assert!(answer.refused(400, "bad_request").text().contains("Host"), "{head}");
    }
}

#[tokio::test]
async fn a_node_on_another_address_is_reached_by_any_name() {
    let site = Site::alone().set("http.listen", "0.0.0.0:0").set("http.insecure", true);
    let node = node(site).await;
    let here = SocketAddr::from(([127, 0, 0, 1], node.http.port()));
    with_host(here, "kvs.example", "/kv/a").await.expect(200);
    let client = Client::new(here);
    let evil = [("origin", "https://evil.example")];
    client.send(Method::POST, "/txn", &evil, txn()).await.refused(403, "forbidden");
}

#[tokio::test]
async fn pages_of_a_named_origin_are_served() {
    let site = Site::alone().set("http.origins", vec!["https://app.example"]);
    let node = node(site).await;
    let client = &node.client;
    let from = ("origin", "https://app.example");
    let asks = [
        from,
        ("sec-fetch-site", "cross-site"),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "if-match,authorization"),
    ];
    let answer = client.send(Method::OPTIONS, "/kv/a", &asks, "").await.expect(204);
    assert_eq!(answer.header("access-control-allow-origin"), Some(from.1));
    assert_eq!(answer.header("access-control-allow-headers"), Some("if-match,authorization"));
    let methods = answer.header("access-control-allow-methods").expect("methods");
    assert!(methods.contains("PUT") && methods.contains("DELETE"), "{methods}");
    let headers = [from, ("sec-fetch-site", "cross-site")];
    for answer in [
        client.send(Method::PUT, "/kv/a", &headers, "new").await.expect(200),
        client.send(Method::GET, "/kv/a", &headers, "").await.expect(200),
        client.send(Method::GET, "/kv/none", &headers, "").await.expect(404),
    ] {
        assert_eq!(answer.header("access-control-allow-origin"), Some(from.1));
        let exposed = answer.header("access-control-expose-headers").expect("names");
        for name in ["etag", "kvs-node", "kvs-timestamp", "x-request-id", "retry-after"] {
            assert!(exposed.contains(name), "{exposed}");
        }
        assert_eq!(answer.header("vary"), Some("origin"));
    }
    assert_eq!(client.get("/kv/a").await.expect(200).header("vary"), Some("origin"));
}
