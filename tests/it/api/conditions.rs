//! Conditional requests by header, and every form of expectation in `POST /cas`.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, Client, Site, client::text, raw};

fn quoted(uuid: &str) -> String {
    format!("\"{uuid}\"")
}

async fn with(client: &Client, method: Method, header: &str, value: &str) -> Answer {
    let body = if method == Method::PUT { "new" } else { "" };
    client.send(method, "/kv/k", &[(header, value)], body).await
}

#[tokio::test]
async fn reads_are_conditional() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let tag = quoted(&client.put("/kv/k", "hello").await.expect(201).uuid());
    let other = quoted(&Uuid::nil().to_string());
    for method in [Method::GET, Method::HEAD] {
        let ask =
            async |header: &str, value: &str| with(client, method.clone(), header, value).await;
        for same in [tag.clone(), format!("W/{tag}"), "*".into(), format!("{other}, {tag}")] {
            let answer = ask("if-none-match", &same).await.expect(304);
            assert!(answer.body.is_empty());
            assert_eq!(answer.header("etag"), Some(tag.as_str()));
            for name in ["kvs-node", "x-request-id", "cache-control", "last-modified"] {
                assert!(answer.header(name).is_some(), "{name}");
            }
            assert!(answer.header("content-length").is_none_or(|length| length == "5"));
        }
        ask("if-none-match", &other).await.expect(200);
        ask("if-match", &tag).await.expect(200);
        ask("if-match", "*").await.expect(200);
        for differs in [other.clone(), format!("W/{tag}"), quoted("x")] {
            let refused = ask("if-match", &differs).await;
            assert_eq!(refused.status, 412, "{differs}");
            if method == Method::GET {
                let problem = refused.refused(412, "precondition_failed").json();
                assert_eq!(quoted(&text(&problem["current"]["uuid"])), tag);
            }
        }
        for bad in [tag.trim_matches('"'), "", "a b", "\"a", "*, \"a\""] {
            assert_eq!(ask("if-none-match", bad).await.status, 400, "{bad:?}");
            assert_eq!(ask("if-match", bad).await.status, 400, "{bad:?}");
        }
    }
    let absent = [("if-match", "*")];
    let answer = client.send(Method::GET, "/kv/none", &absent, "").await;
    assert_eq!(answer.refused(412, "precondition_failed").json()["current"], Value::Null);
    let absent = [("if-none-match", "*")];
    client.send(Method::GET, "/kv/none", &absent, "").await.refused(404, "key_not_found");
}

#[tokio::test]
async fn writes_are_conditional() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let put = async |header: &str, value: &str| with(client, Method::PUT, header, value).await;
    let delete =
        async |header: &str, value: &str| with(client, Method::DELETE, header, value).await;
    // on an absent key If-Match is 412, never 404
    for answer in [put("if-match", "*").await, put("if-match", &quoted("x")).await] {
        let problem = answer.refused(412, "precondition_failed").json();
        assert!(problem["current"].is_null() && problem.get("swapped").is_none(), "{problem}");
    }
    delete("if-match", "*").await.refused(412, "precondition_failed");
    delete("if-none-match", "*").await.refused(404, "key_not_found");
    let first = put("if-none-match", "*").await.expect(201);
    let problem = put("if-none-match", "*").await.refused(412, "precondition_failed").json();
    assert_eq!(problem["current"]["uuid"], first.json()["uuid"]);
    assert_eq!(problem["current"]["data_base64"], "bmV3");
    let first = quoted(&first.uuid());
    put("if-match", &format!("W/{first}")).await.refused(412, "precondition_failed");
    put("if-match", first.trim_matches('"')).await.refused(400, "bad_request");
    let second = put("if-match", &format!("\"other\", {first}")).await.expect(200);
    put("if-match", &first).await.refused(412, "precondition_failed");
    put("if-none-match", &quoted(&second.uuid())).await.refused(412, "precondition_failed");
    let third = put("if-none-match", &first).await.expect(200);
    delete("if-match", &first).await.refused(412, "precondition_failed");
    delete("if-match", &quoted(&third.uuid())).await.expect(200);
    // a tombstone counts as absent
    put("if-match", &quoted(&third.uuid())).await.refused(412, "precondition_failed");
    put("if-none-match", "*").await.expect(201);
    put("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT").await.refused(400, "bad_request");
    // two header lines form one list
    let head = raw::head(
        "DELETE",
        "/kv/k",
        &[
            "If-Match: \"x\"",
            &format!("If-Match: {}", client.get("/kv/k").await.header("etag").unwrap()),
        ],
    );
    raw::exchange(node.http, head.as_bytes()).await.expect(200);
}

#[tokio::test]
async fn every_form_of_expectation_decides_as_it_says() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let never = Uuid::nil().to_string();
    let cas = async |expected: &Value, data: &str| {
        let body = format!(r#"{{"expected":{expected},"data":{data}}}"#);
        client.post("/cas/k", body).await
    };
    // on an absent key only `absent` holds
    for expected in [
        json!({ "uuid": never }),
        json!({ "timestamp": 1 }),
        json!({ "uuid": never, "timestamp": 1 }),
        json!({ "data": null }),
        json!({ "data_base64": "" }),
        json!({ "exists": true }),
    ] {
        let problem = cas(&expected, "1").await.refused(412, "precondition_failed").json();
        assert_eq!((&problem["swapped"], &problem["current"]), (&json!(false), &Value::Null));
    }
    let first = cas(&json!({ "absent": true }), r#"{"n": 1.0}"#).await.expect(200).json();
    assert_eq!((&first["swapped"], &first["previous"]), (&json!(true), &Value::Null));
    assert_eq!((&first["scope"], &first["key"]), (&json!("local"), &json!("k")));
    assert_eq!(client.get("/kv/k").await.text(), r#"{"n": 1.0}"#, "the exact text");
    let (uuid, timestamp) = (&first["uuid"], &first["timestamp"]);
    for expected in [
        json!({ "absent": true }),
        json!({ "uuid": never }),
        json!({ "timestamp": 1 }),
        json!({ "uuid": uuid, "timestamp": 1 }),
        json!({ "uuid": never, "timestamp": timestamp }),
        json!({ "data": { "n": 2 } }),
        json!({ "data": null }),
        // {"n":1.0} without the space differs in its bytes
        json!({ "data_base64": "eyJuIjoxLjB9" }),
    ] {
        let problem = cas(&expected, "2").await.refused(412, "precondition_failed").json();
        assert_eq!(&problem["current"]["uuid"], uuid, "{expected}");
        assert_eq!(problem["current"]["data"], json!({ "n": 1.0 }));
    }
    // each of these holds and writes the same text again
    let mut last = first.clone();
    for form in ["uuid", "timestamp", "both", "data", "base64", "exists"] {
        let expected = match form {
            "uuid" => json!({ "uuid": last["uuid"] }),
            "timestamp" => json!({ "timestamp": last["timestamp"] }),
            "both" => json!({ "uuid": last["uuid"], "timestamp": last["timestamp"] }),
            "data" => json!({ "data": { "n": 1 } }),
            "base64" => json!({ "data_base64": "eyJuIjogMS4wfQ==" }),
            _ => json!({ "exists": true }),
        };
        let next = cas(&expected, r#"{"n": 1.0}"#).await.expect(200).json();
        assert_eq!(next["previous"]["uuid"], last["uuid"], "{form}");
        assert_eq!(next["previous"]["timestamp"], last["timestamp"]);
        assert!(next["timestamp"].as_u64() > last["timestamp"].as_u64());
        last = next;
    }
    let deletion = json!({ "expected": { "uuid": last["uuid"] }, "delete": true });
    let gone = client.post_json("/cas/k", &deletion).await.expect(200).json();
    assert_eq!((&gone["swapped"], &gone["previous"]["uuid"]), (&json!(true), &last["uuid"]));
    client.get("/kv/k").await.refused(404, "key_not_found");
    client.post_json("/cas/k", &deletion).await.refused(412, "precondition_failed");
    // a dead record counts as absent too
    let absent = json!({ "expected": { "absent": true }, "data": null });
    let again = client.post_json("/cas/k", &absent).await.expect(200).json();
    assert_eq!(again["previous"], Value::Null);
    assert_eq!(client.get("/kv/k").await.text(), "null");
    let is_null = json!({ "expected": { "data": null }, "data_base64": "aGk=" });
    client.post_json("/cas/k", &is_null).await.expect(200);
    let read = client.get("/kv/k").await;
    let kept = (read.text(), read.header("content-type").map(str::to_owned));
    assert_eq!(kept, ("hi".to_owned(), Some("application/octet-stream".to_owned())));
    let typed = json!({
        "expected": { "exists": true }, "data_base64": "aGk=", "content_type": "text/x-hi",
    });
    client.post_json("/cas/k", &typed).await.expect(200);
    assert_eq!(client.get("/kv/k").await.header("content-type"), Some("text/x-hi"));
}

#[tokio::test]
async fn expected_numbers_are_compared_exactly() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    for (held, expected, holds) in [
        ("1", "1.0", true),
        ("1e2", "100", true),
        ("9007199254740993", "9007199254740992", false),
        ("18446744073709551617", "18446744073709551616", false),
        ("0.1", "0.10000000000000001", false),
        (r#"{"a":1,"b":[2]}"#, r#"{"b": [2], "a": 1}"#, true),
        ("[1,2]", "[2,1]", false),
        (r#""\u0061""#, r#""a""#, true),
    ] {
        client.put_json("/kv/n", held).await;
        let body = format!(r#"{{"expected":{{"data":{expected}}},"data":0}}"#);
        let status = client.post("/cas/n", body).await.status;
        assert_eq!(status, if holds { 200 } else { 412 }, "{held} {expected}");
    }
}

#[tokio::test]
async fn a_large_current_value_is_left_out_of_a_refusal() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    for (size, shown) in [(64 << 10, true), ((64 << 10) + 1, false)] {
        client.put("/kv/large", vec![b'x'; size]).await;
        let swap = json!({ "expected": { "absent": true }, "data": 1 });
        let problem = client.post_json("/cas/large", &swap).await;
        let current = problem.refused(412, "precondition_failed").json()["current"].clone();
        assert_eq!(current["size"].as_u64(), Some(size as u64));
        assert_eq!(current.get("data_base64").is_some(), shown);
        assert_eq!(current.get("omitted"), (!shown).then_some(&json!(true)));
    }
}

#[tokio::test]
async fn without_cas_plain_reads_and_writes_still_work() {
    let node = Site::alone().set("cas_enabled", false).node("n1", &[]).await;
    let client = &node.client;
    let tag = quoted(&client.put("/kv/k", "v").await.expect(201).uuid());
    let swap = json!({ "expected": { "absent": true }, "data": 1 });
    let deletion = json!({ "expected": { "exists": true }, "delete": true });
    let compared = |expected: &str| {
        let put = json!([{ "put": { "key": "new", "data": 1 } }]);
        json!({
            "compare": [{ "key": "new", "expected": { expected: true } }],
            "success": put,
            "failure": put,
        })
    };
    for refused in [
        client.post_json("/cas/new", &swap).await,
        client.post_json("/cas/k", &deletion).await,
        with(client, Method::PUT, "if-match", &tag).await,
        with(client, Method::PUT, "if-none-match", "*").await,
        with(client, Method::PUT, "if-none-match", &tag).await,
        with(client, Method::DELETE, "if-match", "*").await,
        with(client, Method::DELETE, "if-none-match", "*").await,
        client.post_json("/txn", &compared("absent")).await,
        client.post_json("/txn", &compared("exists")).await,
    ] {
        let problem = refused.refused(501, "feature_disabled").json();
        assert!(text(&problem["detail"]).contains("cas_enabled"), "{problem}");
    }
    assert_eq!(client.get("/kv/k").await.text(), "v");
    client.get("/kv/new").await.refused(404, "key_not_found");
    with(client, Method::GET, "if-none-match", &tag).await.expect(304);
    with(client, Method::GET, "if-match", &tag).await.expect(200);
    let other = quoted(&Uuid::nil().to_string());
    with(client, Method::GET, "if-match", &other).await.refused(412, "precondition_failed");
    // requests without a condition still work: lifetimes, retries, plain transactions
    let named = [("idempotency-key", "00000000-0000-4000-8000-00000000000a")];
    client.send(Method::PUT, "/kv/named?ttl=1h", &named, "v").await.expect(201);
    client.send(Method::PUT, "/kv/named?ttl=1h", &named, "v").await.expect(201);
    let plain = json!({ "compare": [], "success": [{ "put": { "key": "t", "data": 1 } }] });
    assert_eq!(client.post_json("/txn", &plain).await.expect(200).json()["succeeded"], true);
    client.put("/kv/k", "w").await.expect(200);
    client.delete("/kv/k").await.expect(200);
}
