//! Requests that are sent again get the first answer again and change nothing.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::cluster::converged;
use crate::support::{Answer, Client, SOON, Site, client::text, ensure, eventually};

/// A request with its own uuid, which can be sent any number of times.
struct Named {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Named {
    fn new(number: u128, method: Method, path: &str, body: impl ToString) -> Self {
        let headers = vec![("idempotency-key", name(number))];
        Self { method, path: path.to_owned(), headers, body: body.to_string() }
    }

    fn with(mut self, header: &'static str, value: &str) -> Self {
        self.headers.push((header, value.to_owned()));
        self
    }

    async fn send(&self, client: &Client) -> Answer {
        let headers: Vec<_> = self.headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        client.send(self.method.clone(), &self.path, &headers, self.body.clone()).await
    }
}

fn name(number: u128) -> String {
    Uuid::from_u128(0x0123_4567_89ab_4def_8000_0000_0000_0000 + number).to_string()
}

/// Checks that two answers are identical.
#[track_caller]
fn same(first: &Answer, again: &Answer) {
    assert_eq!((first.status, first.text()), (again.status, again.text()));
    for header in ["etag", "content-type"] {
        assert_eq!(first.header(header), again.header(header));
    }
}

/// One request of every kind, with its status; a fresh node accepts them in this order.
fn all_kinds() -> Vec<(Named, u16)> {
    let absent = json!({ "expected": { "absent": true }, "data": 1, "ttl": "1h" });
    let exists = json!({ "expected": { "exists": true }, "data_base64": "aGk=" });
    let gone = json!({ "expected": { "data_base64": "aGk=" }, "delete": true });
    let txn = json!({
        "compare": [{ "key": "t", "expected": { "absent": true } }],
        "success": [
            { "put": { "key": "t", "data": 1 } },
            { "get": { "key": "t" } },
            { "delete": { "key": "d" } },
            { "get": { "key": "none" } },
        ],
    });
    let failed = json!({
        "compare": [{ "key": "f", "expected": { "exists": true } }],
        "failure": [{ "put": { "key": "f", "data": 1 } }],
    });
    vec![
        (Named::new(1, Method::PUT, "/kv/k?ttl=1h", "one"), 201),
        (Named::new(2, Method::PUT, "/kv/k", "two").with("if-match", "*"), 200),
        (Named::new(3, Method::DELETE, "/kv/k", ""), 200),
        (Named::new(4, Method::PUT, "/kv/n", "x").with("if-none-match", "*"), 201),
        (Named::new(5, Method::POST, "/cas/s", absent), 200),
        (Named::new(6, Method::POST, "/cas/s", exists), 200),
        (Named::new(7, Method::POST, "/cas/s", gone), 200),
        (Named::new(8, Method::POST, "/txn", txn), 200),
        (Named::new(9, Method::POST, "/txn", failed), 200),
    ]
}

#[tokio::test]
async fn a_retry_gets_the_first_answer_and_changes_nothing() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let requests = all_kinds();
    let mut firsts = Vec::new();
    for (request, status) in &requests {
        let first = request.send(client).await.expect(*status);
        let before = client.cluster().await;
        same(&first, &request.send(client).await);
        let after = client.cluster().await;
        for count in ["fingerprint", "keys", "tombstones"] {
            assert_eq!(before[count], after[count], "{} {}", request.method, request.path);
        }
        firsts.push(first);
    }
    let told = firsts[7].json();
    assert_eq!(told["results"][0]["put"]["uuid"], json!(name(8)), "its name is the version's");
    // later writes to the keys do not matter
    for key in ["k", "n", "s", "t", "f"] {
        client.put(&format!("/kv/{key}"), "other").await;
    }
    client.delete("/kv/t").await.expect(200);
    let before = client.fingerprint().await;
    for ((request, _), first) in requests.iter().zip(&firsts) {
        same(first, &request.send(client).await);
    }
    assert_eq!(client.fingerprint().await, before);
    // and after a restart
    let node = node.kill_and_restart().await;
    for ((request, _), first) in requests.iter().zip(&firsts) {
        same(first, &request.send(&node.client).await);
    }
    assert_eq!(node.client.fingerprint().await, before);
    assert_eq!(node.client.get("/kv/k").await.text(), "other");
}

#[tokio::test]
async fn a_retry_after_the_value_expired_gets_the_first_answer() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let put = Named::new(1, Method::PUT, "/kv/k?ttl=50ms", "x");
    let swap = json!({ "expected": { "absent": true }, "data": 1, "ttl": "50ms" });
    let swap = Named::new(2, Method::POST, "/cas/s", swap);
    let firsts = [put.send(client).await.expect(201), swap.send(client).await.expect(200)];
    eventually(SOON, "they expire", async || {
        let statuses = [client.get("/kv/k").await.status, client.get("/kv/s").await.status];
        ensure(statuses == [404, 404], || format!("{statuses:?}"))
    })
    .await;
    same(&firsts[0], &put.send(client).await);
    same(&firsts[1], &swap.send(client).await);
    for path in ["/kv/k", "/kv/s"] {
        client.get(path).await.refused(404, "key_not_found");
    }
    // the metric counts the record as dead after the sweep
    eventually(SOON, "nothing came back", async || {
        let keys = client.cluster().await["keys"].clone();
        ensure(keys == 0, || format!("{keys} keys"))
    })
    .await;
}

#[tokio::test]
async fn the_request_id_becomes_the_uuid_of_the_version() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let uuid = name(1);
    let put = Named::new(1, Method::PUT, "/kv/k", "x").send(client).await.expect(201);
    assert_eq!((put.uuid(), put.header("etag")), (uuid.clone(), Some(&*format!("\"{uuid}\""))));
    assert_eq!(client.get("/kv/k").await.header("etag"), Some(&*format!("\"{uuid}\"")));
    // the id may come in the body, the header (quoted or not, in either case), or both
    let uuid = name(2);
    let swap = json!({ "expected": { "absent": true }, "data": 1 });
    let mut named = swap.clone();
    named["uuid"] = json!(uuid);
    let first = client.post_json("/cas/s", &named).await.expect(200);
    assert_eq!(first.uuid(), uuid);
    let quoted = format!("\"{}\"", uuid.to_uppercase());
    for (header, body) in [(&uuid, &swap), (&quoted, &swap), (&uuid, &named), (&quoted, &named)] {
        let headers = [("idempotency-key", header.as_str())];
        same(&first, &client.send(Method::POST, "/cas/s", &headers, body.to_string()).await);
    }
    let txn = json!({ "success": [{ "put": { "key": "t", "data": 1 } }], "uuid": name(3) });
    let first = client.post_json("/txn", &txn).await.expect(200);
    assert_eq!(first.json()["results"][0]["put"]["uuid"], json!(name(3)));
    same(&first, &client.post_json("/txn", &txn).await);
}

#[tokio::test]
async fn an_invalid_request_id_is_refused() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let swap = json!({ "expected": { "absent": true }, "data": 1, "uuid": name(1) }).to_string();
    let txn = json!({ "success": [{ "put": { "key": "k", "data": 1 } }], "uuid": name(1) });
    let txn = txn.to_string();
    let writes = [
        (Method::PUT, "/kv/k", "x"),
        (Method::DELETE, "/kv/k", ""),
        (Method::POST, "/cas/k", &swap),
        (Method::POST, "/txn", &txn),
    ];
    let uuid = name(1);
    for bad in ["", "x", "\"\"", &uuid.replace('-', ""), &format!("{{{uuid}}}"), &uuid[1..]] {
        for (method, path, body) in &writes {
            let headers = [("idempotency-key", bad)];
            let answer = client.send(method.clone(), path, &headers, body.to_string()).await;
            let detail = text(&answer.refused(400, "bad_request").json()["detail"]);
            assert!(detail.contains("Idempotency-Key"), "{detail}");
        }
    }
    for (method, path, body) in &writes {
        let twice = [("idempotency-key", uuid.as_str()), ("idempotency-key", uuid.as_str())];
        let answer = client.send(method.clone(), path, &twice, body.to_string()).await;
        answer.refused(400, "bad_request");
    }
    // two different ids for one request
    let other = name(2);
    for (method, path, body) in &writes[2..] {
        let headers = [("idempotency-key", other.as_str())];
        let answer = client.send(method.clone(), path, &headers, body.to_string()).await;
        answer.refused(400, "bad_request");
    }
    client.get("/kv/k").await.refused(404, "key_not_found");
}

#[tokio::test]
async fn another_request_under_a_used_id_is_a_mismatch() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let put = |path: &str, body: &str| Named::new(1, Method::PUT, path, body);
    let first = put("/kv/k", "one").send(client).await.expect(201);
    let swap = json!({ "expected": { "exists": true }, "data_base64": "b25l" });
    for other in [
        put("/kv/k", "two"),
        put("/kv/k?ttl=1h", "one"),
        put("/kv/k?ttl=keep", "one"),
        put("/kv/k", "one").with("content-type", "text/plain"),
        put("/kv/k", "one").with("if-match", "*"),
        Named::new(1, Method::DELETE, "/kv/k", ""),
        Named::new(1, Method::POST, "/cas/k", swap),
    ] {
        let problem = other.send(client).await.refused(409, "idempotency_mismatch").json();
        assert!(!text(&problem["detail"]).is_empty());
    }
    same(&first, &put("/kv/k", "one").send(client).await);
    assert_eq!(client.get("/kv/k").await.text(), "one");
    // ids belong to a key: the same id for another key is another request
    put("/kv/other", "two").send(client).await.expect(201);
    // a transaction's id is taken for transactions and for every key that it wrote
    let txn = |data: u8| {
        let put = json!({ "put": { "key": "t", "data": data } });
        json!({ "success": [put, { "get": { "key": "k" } }] })
    };
    let named = |number, data| Named::new(number, Method::POST, "/txn", txn(data));
    let first = named(2, 1).send(client).await.expect(200);
    named(2, 2).send(client).await.refused(409, "idempotency_mismatch");
    let part = Named::new(2, Method::PUT, "/kv/t", "x");
    part.send(client).await.refused(409, "idempotency_mismatch");
    Named::new(2, Method::PUT, "/kv/unwritten", "x").send(client).await.expect(201);
    let taken = json!({ "success": [{ "put": { "key": "k", "data": 2 } }] });
    let taken = Named::new(1, Method::POST, "/txn", taken);
    taken.send(client).await.refused(409, "idempotency_mismatch");
    same(&first, &named(2, 1).send(client).await);
    assert_eq!(client.get("/kv/t").await.text(), "1");
    assert_eq!(client.get("/kv/k").await.text(), "one");
}

#[tokio::test]
async fn a_refusal_is_not_remembered() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let create = Named::new(1, Method::PUT, "/kv/k", "mine").with("if-none-match", "*");
    let delete = Named::new(2, Method::DELETE, "/kv/d", "");
    let swap = json!({ "expected": { "data": 2 }, "data": 3 });
    let swap = Named::new(3, Method::POST, "/cas/s", swap);
    client.put("/kv/k", "theirs").await.expect(201);
    create.send(client).await.refused(412, "precondition_failed");
    delete.send(client).await.refused(404, "key_not_found");
    swap.send(client).await.refused(412, "precondition_failed");
    // after a refusal even another request may use the id
    client.delete("/kv/k").await.expect(200);
    client.put("/kv/d", "x").await.expect(201);
    client.put_json("/kv/s", "2").await.expect(201);
    let accepted = create.send(client).await.expect(201);
    delete.send(client).await.expect(200);
    swap.send(client).await.expect(200);
    same(&accepted, &create.send(client).await);
    assert_eq!(client.get("/kv/k").await.text(), "mine");
    let long = Named::new(4, Method::PUT, "/kv/x?ttl=never", "x");
    long.send(client).await.refused(400, "bad_duration");
    Named::new(4, Method::PUT, "/kv/x?ttl=1h", "x").send(client).await.expect(201);
}

#[tokio::test]
async fn after_the_window_an_id_may_be_used_again() {
    let site = Site::alone().set("limits.idempotency_window", "1s");
    let node = site.node("n1", &[]).await;
    let client = &node.client;
    let first = Named::new(1, Method::PUT, "/kv/k", "one").send(client).await.expect(201);
    let other = Named::new(1, Method::PUT, "/kv/k", "two");
    let again = eventually(SOON, "the name is free again", async || {
        let answer = other.send(client).await;
        ensure(answer.status != 409, || answer.text())?;
        Ok(answer)
    })
    .await;
    again.clone().expect(200);
    assert_eq!(again.uuid(), first.uuid());
    assert!(again.timestamp() > first.timestamp());
    assert_eq!(client.get("/kv/k").await.text(), "two");
}

/// What transactions read fills no memory: seventeen answers of 15 MiB were once too much.
#[tokio::test]
async fn transactions_that_read_a_lot_are_remembered_without_it() {
    let node = Site::alone().set("limits.idempotency_bytes_max", 1 << 20).node("n1", &[]).await;
    let client = &node.client;
    client.put("/kv/large", vec![b'x'; 1 << 20]).await.expect(201);
    let read = json!({ "success": [{ "get": { "key": "large" } }] });
    let txn = |number| Named::new(number, Method::POST, "/txn", &read);
    let first = txn(1).send(client).await.expect(200);
    for number in 2..18 {
        txn(number).send(client).await.expect(200);
    }
    // the node still keeps that version in its history, and reads it again
    client.put("/kv/large", "small").await.expect(200);
    same(&first, &txn(1).send(client).await);
    for n in 0..8 {
        client.put("/kv/large", n.to_string()).await.expect(200);
    }
    let again = txn(1).send(client).await.expect(200).json();
    let (again, was) = (&again["results"][0]["get"], &first.json()["results"][0]["get"]);
    assert_eq!(again["omitted"], json!(true), "it is no longer kept");
    assert!(again.get("data_base64").is_none());
    for member in ["uuid", "timestamp", "size", "content_type"] {
        assert_eq!(again[member], was[member], "{member}");
    }
    assert_eq!(client.get("/kv/large").await.text(), "7");
}

/// A full memory keeps the ids of the last ten minutes and refuses new ones; requests without one
/// still work.
#[tokio::test]
async fn the_memory_of_requests_is_bounded_and_full_memory_forgets_nothing() {
    let site = Site::alone().set("limits.idempotency_bytes_max", 1 << 20);
    let node = site.node("n1", &[]).await;
    let client = &node.client;
    let first = Named::new(1, Method::PUT, "/kv/first", "x");
    let answer = first.send(client).await.expect(201);
    let puts: Vec<_> =
        (0..1000).map(|at| json!({ "put": { "key": format!("k/{at}"), "data": at } })).collect();
    let txn = |number| Named::new(number, Method::POST, "/txn", json!({ "success": puts }));
    let mut accepted = Vec::new();
    let refused = loop {
        let answer = txn(2 + accepted.len() as u128).send(client).await;
        if answer.status != 200 {
            break answer;
        }
        accepted.push(answer);
        assert!(accepted.len() < 100, "no bound");
    };
    assert!(!accepted.is_empty());
    let problem = refused.refused(503, "overloaded").json();
    assert!(text(&problem["detail"]).contains("idempotency_bytes_max"), "{problem}");
    same(&answer, &first.send(client).await);
    for (number, answer) in (2..).zip(&accepted) {
        same(answer, &txn(number).send(client).await);
    }
    client.post_json("/txn", &json!({ "success": puts })).await.expect(200);
    client.put("/kv/plain", "x").await.expect(201);
}

#[tokio::test]
async fn on_another_node_a_retry_is_another_version() {
    let cluster = Site::clustered().cluster(2).await;
    let [n1, n2] = &cluster.nodes[..] else { panic!("two nodes") };
    let put = Named::new(1, Method::PUT, "/kv/k", "x");
    let first = put.send(&n1.client).await.expect(201);
    converged(&[n1, n2], SOON).await;
    let other = put.send(&n2.client).await.expect(200);
    assert_eq!(first.uuid(), other.uuid());
    assert!(other.timestamp() > first.timestamp());
    assert_eq!(other.json()["origin"], json!(n2.id));
    converged(&[n1, n2], SOON).await;
    same(&first, &put.send(&n1.client).await);
    same(&other, &put.send(&n2.client).await);
    let read = n1.client.get("/kv/k?format=envelope").await.json();
    assert_eq!((&read["origin"], &read["data"]), (&json!(n2.id), &Value::Null));
}
