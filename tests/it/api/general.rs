//! Rules of the whole API: strict JSON, routes and methods, headers, and the refusal of features
//! that this version lacks.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Site, client::text, raw};

#[tokio::test]
async fn json_bodies_are_parsed_strictly() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let deep = format!(r#"{{"expected":{{"absent":true}},"data":{}}}"#, nested(128));
    for (body, code) in [
        ("", "bad_json"),
        ("{", "bad_json"),
        ("{} {}", "bad_json"),
        ("\u{feff}{}", "bad_json"),
        ("[]", "bad_request"),
        ("null", "bad_request"),
        ("{}", "bad_request"),
        // duplicate members, at every level
        (r#"{"expected":{"absent":true},"data":1,"data":1}"#, "bad_json"),
        (r#"{"expected":{"absent":true,"absent":true},"data":1}"#, "bad_json"),
        (r#"{"expected":{"absent":true},"data":{"a":[{"b":1,"b":2}]}}"#, "bad_json"),
        (r#"{"expected":{"absent":true},"data":1,"d\u0061ta":1}"#, "bad_json"),
        // unknown members, at every level with a schema
        (r#"{"expected":{"absent":true},"data":1,"Data":1}"#, "unknown_field"),
        (r#"{"expected":{"absent":true,"size":1},"data":1}"#, "unknown_field"),
        (r#"{"expected":{"absent":true},"data":1,"if":5}"#, "unknown_field"),
        // durations
        (r#"{"expected":{"absent":true},"data":1,"ttl":0}"#, "bad_duration"),
        (r#"{"expected":{"absent":true},"data":1,"ttl":1.5}"#, "bad_duration"),
        (r#"{"expected":{"absent":true},"data":1,"ttl":"5 s"}"#, "bad_duration"),
        (r#"{"expected":{"absent":true},"data":1,"ttl":"Keep"}"#, "bad_duration"),
        (r#"{"expected":{"absent":true},"data":1,"ttl":null}"#, "bad_duration"),
        (r#"{"expected":{"absent":true},"data":1,"ttl":"36501d"}"#, "bad_duration"),
        // wrong types and combinations
        (r#"{"data":1}"#, "bad_request"),
        (r#"{"expected":{},"data":1}"#, "bad_request"),
        (r#"{"expected":{"absent":true}}"#, "bad_request"),
        (r#"{"expected":[],"data":1}"#, "bad_request"),
        (r#"{"expected":null,"data":1}"#, "bad_request"),
        (r#"{"expected":{"absent":false},"data":1}"#, "bad_request"),
        (r#"{"expected":{"exists":1},"data":1}"#, "bad_request"),
        (r#"{"expected":{"absent":true,"exists":true},"data":1}"#, "bad_request"),
        (r#"{"expected":{"uuid":5},"data":1}"#, "bad_request"),
        (r#"{"expected":{"uuid":"x"},"data":1}"#, "bad_request"),
        (r#"{"expected":{"timestamp":"1"},"data":1}"#, "bad_request"),
        (r#"{"expected":{"timestamp":1.5},"data":1}"#, "bad_request"),
        (r#"{"expected":{"timestamp":9007199254740992},"data":1}"#, "bad_request"),
        (r#"{"expected":{"data":1,"data_base64":"MQ=="},"data":1}"#, "bad_request"),
        (r#"{"expected":{"absent":true},"data":1,"delete":true}"#, "bad_request"),
        (r#"{"expected":{"absent":true},"data":1,"data_base64":""}"#, "bad_request"),
        (r#"{"expected":{"absent":true},"delete":false}"#, "bad_request"),
        (r#"{"expected":{"exists":true},"delete":true,"ttl":"5s"}"#, "bad_request"),
        (r#"{"expected":{"exists":true},"delete":true,"content_type":"a/b"}"#, "bad_request"),
        (r#"{"expected":{"absent":true},"data":1,"uuid":"x"}"#, "bad_request"),
        (r#"{"expected":{"absent":true},"data":1,"uuid":null}"#, "bad_request"),
        (r#"{"expected":{"absent":true},"data":1,"content_type":"a/b"}"#, "bad_request"),
        (r#"{"expected":{"absent":true},"data_base64":"aGk"}"#, "bad_request"),
        (r#"{"expected":{"absent":true},"data_base64":"aG-_"}"#, "bad_request"),
        (r#"{"expected":{"absent":true},"data_base64":7}"#, "bad_request"),
        (r#"{"expected":{"absent":true},"data_base64":"","content_type":"x"}"#, "bad_request"),
        (deep.as_str(), "bad_json"),
    ] {
        let answer = client.post("/cas/k", body.to_owned()).await;
        assert_eq!(answer.code(), code, "{body}: {}", answer.text());
        answer.refused(400, code);
    }
    let bytes = b"{\"expected\":{\"absent\":true},\"data\":\"\xff\"}".to_vec();
    client.post("/cas/k", bytes).await.refused(400, "bad_json");
    client.get("/kv/k").await.refused(404, "key_not_found");
    // the body is parsed as JSON under any Content-Type
    let good = format!(r#" {{"expected" : {{"absent":true}} ,"data":{}}} "#, nested(100));
    let headers = [("content-type", "text/plain")];
    client.send(Method::POST, "/cas/k", &headers, good).await.expect(200);
    assert_eq!(client.get("/kv/k").await.text(), nested(100));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_apart() {
    let node = Site::alone().node("n1", &[]).await;
    for path in [
        "/",
        "/nope",
        "/txn/a",
        "/historyx/a",
        "/kvx/a",
        "/KV/a",
        "/health",
        "/metrics/x",
        "/cluster/x",
        "/kv%2Fa",
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            let answer = raw::ask(node.http, method, path).await;
            answer.refused(404, "no_such_route");
        }
    }
    for (path, allowed) in [
        ("/kv/a", "DELETE,GET,HEAD,PUT"),
        ("/cas/a", "POST"),
        ("/txn", "POST"),
        ("/history/a", "GET,HEAD"),
        ("/scan", "GET,HEAD"),
        ("/scan/a", "GET,HEAD"),
        ("/cluster", "GET,HEAD"),
        ("/cluster/sync", "POST"),
        ("/health/live", "GET,HEAD"),
        ("/health/ready", "GET,HEAD"),
        ("/health/readable", "GET,HEAD"),
        ("/metrics", "GET,HEAD"),
    ] {
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "BREW"] {
            if allowed.split(',').any(|known| known == method) {
                continue;
            }
            let answer = raw::ask(node.http, method, path).await;
            let answer = answer.refused(405, "method_not_allowed");
            let mut listed: Vec<_> =
                answer.header("allow").expect("Allow").split(',').map(str::trim).collect();
            listed.sort_unstable();
            assert_eq!(listed.join(","), allowed, "{method} {path}");
        }
    }
    // a valid key that looks like a route
    raw::ask(node.http, "GET", "/kv/kv%2Fa").await.refused(404, "key_not_found");
}

#[tokio::test]
async fn every_route_refuses_unknown_parameters() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    for (method, path) in [
        (Method::GET, "/kv/a?x=1"),
        (Method::PUT, "/kv/a?x=1"),
        (Method::DELETE, "/kv/a?x=1"),
        (Method::PUT, "/kv/a?TTL=1"),
        (Method::DELETE, "/kv/a?ttl=1"),
        (Method::GET, "/kv/a?ttl=1"),
        (Method::POST, "/cas/a?ttl=1"),
        (Method::POST, "/txn?x=1"),
        (Method::GET, "/history/a?x=1"),
        (Method::GET, "/history/a?after=1"),
        (Method::POST, "/cas/a?x=1"),
        (Method::GET, "/scan?x=1"),
        (Method::GET, "/scan/a?all=true"),
        (Method::GET, "/cluster?x"),
        (Method::POST, "/cluster/sync?x=1"),
    ] {
        let problem = client.send(method, path, &[], "").await.refused(400, "unknown_field").json();
        let name = path.split(['?', '=']).nth(1).expect("a parameter");
        assert!(text(&problem["detail"]).contains(&format!("`{name}`")), "{problem}");
    }
    for bad in ["/scan?limit=1&limit=2", "/scan?limit=%", "/kv/a?format=%ff", "/history/a?limit=0"]
    {
        client.get(bad).await.refused(400, "bad_request");
    }
}

/// Load balancers and scrapers add parameters of their own.
#[tokio::test]
async fn health_and_metrics_ignore_parameters() {
    let node = Site::alone().node("n1", &[]).await;
    for path in ["/health/live?x=1&x=2", "/health/ready?x=%", "/metrics?x=1", "/metrics?"] {
        node.client.get(path).await.expect(200);
    }
}

/// The node must not treat such a request as a plain write: the client asked for more.
#[tokio::test]
async fn features_of_other_versions_are_refused_and_change_nothing() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let swap = json!({ "expected": { "absent": true }, "data": 1 }).to_string();
    let txn = json!({ "success": [{ "put": { "key": "a", "data": 1 } }] }).to_string();
    let writes = [
        (Method::PUT, "/kv/a", "x"),
        (Method::DELETE, "/kv/a", ""),
        (Method::POST, "/cas/a", &swap),
        (Method::POST, "/txn", &txn),
    ];
    for (header, value, names) in [
        ("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT", "If-Unmodified-Since"),
        // a partial body taken for a whole value would destroy the rest
        ("content-range", "bytes 0-0/5", "Content-Range"),
    ] {
        for (method, path, body) in &writes {
            let headers = [(header, value)];
            let answer = client.send(method.clone(), path, &headers, body.to_string()).await;
            let problem = answer.refused(400, "bad_request").json();
            assert!(text(&problem["detail"]).contains(names), "{problem}");
        }
    }
    // conditions that this route would ignore
    for header in ["if-match", "if-none-match"] {
        for (method, path, body) in &writes[2..] {
            let headers = [(header, "*")];
            let answer = client.send(method.clone(), path, &headers, body.to_string()).await;
            answer.refused(400, "bad_request");
        }
    }
    client.get("/kv/a").await.refused(404, "key_not_found");
    client.put("/kv/a/b", "x").await.expect(201);
    for path in ["/ls", "/tree", "/watch", "/admin/backup", "/openapi.json"] {
        client.get(path).await.refused(404, "no_such_route");
        client.post(path, "{}").await.refused(404, "no_such_route");
    }
    client.delete("/scan/a").await.refused(405, "method_not_allowed");
    client.delete("/scan").await.refused(405, "method_not_allowed");
    assert_eq!(client.get("/kv/a/b").await.expect(200).text(), "x");
}

#[tokio::test]
async fn every_answer_names_the_node_and_the_request() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    client.put("/kv/a", "x").await.expect(201);
    let answers = [
        (200, client.get("/kv/a").await),
        (404, client.get("/kv/b").await),
        (404, client.get("/nope").await),
        (405, client.post("/kv/a", "").await),
        (400, client.post("/cas/a", "{").await),
        (413, client.put("/kv/a", vec![0; (16 << 20) + 1]).await),
        (400, client.post("/txn", "{").await),
        (200, client.post("/txn", "{}").await),
        (200, client.get("/history/a").await),
        (404, client.get("/history/b").await),
        (206, client.send(Method::GET, "/kv/a", &[("range", "bytes=0-0")], "").await),
        (416, client.send(Method::GET, "/kv/a", &[("range", "bytes=9-")], "").await),
        (200, client.get("/scan").await),
        (200, client.get("/cluster").await),
        (200, client.get("/metrics").await),
        (200, client.get("/health/live").await),
        (200, client.get("/health/ready").await),
        (200, client.get("/health/readable").await),
        (400, raw::exchange(node.http, b"garbage\r\n\r\n").await),
        (400, raw::exchange(node.http, b"GET / HTTP/3.9\r\n\r\n").await),
    ];
    let mut ids = Vec::new();
    for (status, answer) in answers {
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.header("kvs-node"), Some(node.id.as_str()), "{status}");
        assert_eq!(answer.header("cache-control"), Some("no-cache, no-transform"));
        ids.push(answer.header("x-request-id").expect("an id").to_owned());
        if status >= 400 {
            let code = answer.code();
            assert!(!code.is_empty());
            answer.refused(status, &code);
        }
    }
    assert!(ids.iter().all(|id| Uuid::parse_str(id).is_ok()));
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all, "each request has an id of its own");
    // the node returns a valid request id of the client and replaces an invalid one
    let given = client.send(Method::GET, "/kv/a", &[("x-request-id", "mine-1")], "").await;
    assert_eq!(given.header("x-request-id"), Some("mine-1"));
    let given = client.send(Method::GET, "/kv/a", &[("x-request-id", "a b")], "").await;
    assert!(Uuid::parse_str(given.header("x-request-id").expect("an id")).is_ok());
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let node = Site::alone().node("n1", &[]).await;
    let mut all = String::new();
    for n in 0..50 {
        all +=
            &format!("PUT /kv/{n} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{n:02}");
        all += &format!("GET /kv/{n} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    all += &raw::head("GET", "/kv/none", &[]);
    let first = raw::exchange(node.http, all.as_bytes()).await.expect(201);
    let rest = first.text();
    assert_eq!(rest.matches("HTTP/1.1 201 Created").count(), 49);
    assert_eq!(rest.matches("HTTP/1.1 200 OK").count(), 50);
    assert_eq!(rest.matches("HTTP/1.1 404 Not Found").count(), 1);
    let read: Vec<_> = (0..50).filter_map(|n| rest.find(&format!("\r\n\r\n{n:02}"))).collect();
    assert!(read.len() == 50 && read.is_sorted(), "each read shows the write before it");
}

#[tokio::test]
async fn health_and_metrics_are_served() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    assert_eq!(client.get("/health/live").await.expect(200).json(), json!({ "status": "live" }));
    assert_eq!(client.get("/health/ready").await.expect(200).json(), json!({ "status": "ready" }));
    let readable = client.get("/health/readable").await.expect(200).json();
    assert_eq!(readable, json!({ "status": "readable" }));
    let puts = [("method", "PUT"), ("route", "/kv/{key}"), ("status", "201")];
    assert_eq!(client.metric("kvs_http_requests_total", &puts).await, 0);
    client.put("/kv/a", "x").await.expect(201);
    assert_eq!(client.metric("kvs_http_requests_total", &puts).await, 1);
    assert_eq!(client.metric("kvs_store_records", &[("state", "live")]).await, 1);
    client.delete("/kv/a").await.expect(200);
    assert_eq!(client.metric("kvs_store_records", &[("state", "live")]).await, 0);
    assert_eq!(client.metric("kvs_store_records", &[("state", "dead")]).await, 1);
    let answer = client.get("/metrics").await;
    assert!(
        answer.header("content-type").is_some_and(|t| t.starts_with("application/openmetrics"))
    );
    assert!(answer.text().ends_with("# EOF\n"));
    let cluster = client.cluster().await;
    assert_eq!((&cluster["keys"], &cluster["tombstones"]), (&json!(0), &json!(1)));
}

#[tokio::test]
async fn a_single_node_is_a_cluster_of_one() {
    let node = Site::alone().node("n1", &[]).await;
    let cluster = node.client.cluster().await;
    assert_eq!(cluster["cluster_id"], Value::Null);
    assert_eq!((&cluster["converged"], &cluster["node"]["syncing"]), (&json!(true), &json!(false)));
    let members = cluster["members"].as_array().expect("members");
    assert_eq!(members.len(), 1);
    assert_eq!((&members[0]["id"], &members[0]["state"]), (&json!(node.id), &json!("alive")));
    assert_eq!(members[0]["http"], json!(node.http.to_string()));
    assert_eq!(node.client.sync().await, json!({ "peers": [] }));
}
