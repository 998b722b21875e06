//! Values: their limits, bytes and headers.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Node, SOON, Site, client::text, ensure, eventually, raw};

const VALUE_BYTES_MAX: usize = 16 << 20;
const ASK: &str = "Expect: 100-continue";

/// Incompressible bytes, the same for each `seed`.
pub fn noise(bytes: usize, seed: u64) -> Bytes {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
    noise.into()
}

/// Sends a chunked body of `bytes` bytes and returns the answer; stops sending when refused.
async fn put_chunked(node: &Node, path: &str, bytes: usize) -> crate::support::Answer {
    let mut stream = TcpStream::connect(node.http).await.expect("a connection");
    let head = raw::head("PUT", path, &["Transfer-Encoding: chunked"]);
    stream.write_all(head.as_bytes()).await.expect("the node takes it");
    let block = vec![b'x'; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let size = left.min(block.len());
        let chunk = [format!("{size:x}\r\n").as_bytes(), &block[..size], b"\r\n"].concat();
        if stream.write_all(&chunk).await.is_err() {
            break;
        }
        left -= size;
    }
    // a node that refused the body does not read its end
    let _ = stream.write_all(b"0\r\n\r\n").await;
    raw::parse(&raw::read_all(&mut stream).await)
}

#[tokio::test]
async fn values_from_empty_to_16_mib_come_back_byte_for_byte() {
    let node = Site::alone().node("n1", &[]).await;
    // around the size from which the store uses blob files
    for (number, size) in [0, 1, 4095, 4096, 4097, 65_536, VALUE_BYTES_MAX].into_iter().enumerate()
    {
        let (path, value) = (format!("/kv/v/{number}"), noise(size, 1));
        // an empty value needs a type
        let typed = [("content-type", "application/octet-stream")];
        node.client.send(Method::PUT, &path, &typed, value.clone()).await.expect(201);
        let read = node.client.get(&path).await.expect(200);
        assert!(read.body == value, "{size} bytes");
        assert_eq!(read.header("content-length"), Some(size.to_string().as_str()));
        // replaced by another value of this size, then by a small one
        let other = noise(size, 2);
        node.client.send(Method::PUT, &path, &typed, other.clone()).await.expect(200);
        assert!(node.client.get(&path).await.body == other);
        node.client.put(&path, "small").await.expect(200);
        assert_eq!(node.client.get(&path).await.text(), "small");
    }
    let chunked = put_chunked(&node, "/kv/chunked", VALUE_BYTES_MAX).await;
    assert_eq!(chunked.expect(201).json()["key"], "chunked");
    assert_eq!(node.client.get("/kv/chunked").await.body.len(), VALUE_BYTES_MAX);
}

#[tokio::test]
async fn a_too_large_value_is_refused_however_the_client_sends_it() {
    let node = Site::alone().node("n1", &[]).await;
    let too_large = vec![b'x'; VALUE_BYTES_MAX + 1];
    // a client that sends everything before it reads still gets the answer
    let answer = node.client.put("/kv/k", too_large).await.refused(413, "value_too_large");
    assert!(text(&answer.json()["detail"]).contains(&VALUE_BYTES_MAX.to_string()));
    put_chunked(&node, "/kv/k", VALUE_BYTES_MAX + 1).await.refused(413, "value_too_large");
    // an announced body that is never sent; `Expect` gets no `100 Continue`
    for headers in [&["Content-Length: 99999999999"][..], &["Content-Length: 16777217", ASK]] {
        let head = raw::head("PUT", "/kv/k", headers);
        raw::exchange(node.http, head.as_bytes()).await.refused(413, "value_too_large");
    }
    node.client.get("/kv/k").await.refused(404, "key_not_found");
    // the limit counts a JSON text with its quotes, and decoded base64
    let swap = |data: Value| json!({ "expected": { "absent": true }, "data": data });
    let text = swap("x".repeat(VALUE_BYTES_MAX - 1).into());
    node.client.post_json("/cas/k", &text).await.refused(413, "value_too_large");
    let text = swap("x".repeat(VALUE_BYTES_MAX - 2).into());
    node.client.post_json("/cas/text", &text).await.expect(200);
    for (bytes, status) in [(VALUE_BYTES_MAX, 200), (VALUE_BYTES_MAX + 1, 413)] {
        let encoded = BASE64_STANDARD.encode(vec![b'x'; bytes]);
        let swap = json!({ "expected": { "absent": true }, "data_base64": encoded });
        let answer = node.client.post_json("/cas/bytes", &swap).await.expect(status);
        assert!(status == 200 || answer.code() == "value_too_large");
    }
    assert_eq!(node.client.get("/kv/bytes").await.body.len(), VALUE_BYTES_MAX);
    let more = vec![b' '; (24 << 20) + 1];
    node.client.post("/cas/k", more).await.refused(413, "body_too_large");
}

#[tokio::test]
async fn refused_bodies_do_not_grow_the_memory() {
    let site = Site::alone();
    let node = site.node("n1", &[]).await;
    node.client.put("/kv/k", noise(1 << 20, 1)).await.expect(201);
    let before = node.memory_peak();
    for _ in 0..5 {
        // with an announced length the node reads none of it
        node.client.put("/kv/k", vec![b'x'; 24 << 20]).await.refused(413, "value_too_large");
    }
    let grown = node.memory_peak() - before;
    assert!(grown < 4 << 20, "{grown} bytes more for values of 24 MiB");
    let node = site.set("limits.value_bytes_max", 1 << 20).node("n2", &[]).await;
    node.client.put("/kv/k", noise(1 << 20, 1)).await.expect(201);
    let before = node.memory_peak();
    for _ in 0..5 {
        // without one it holds no more than the limit
        put_chunked(&node, "/kv/k", 30 << 20).await.refused(413, "value_too_large");
    }
    let grown = node.memory_peak() - before;
    assert!(grown < 8 << 20, "{grown} bytes more for values of 30 MiB");
    assert_eq!(node.client.get("/kv/k").await.body.len(), 1 << 20);
}

#[tokio::test]
async fn many_large_bodies_at_once_stay_within_their_budget() {
    let site = Site::alone().set("limits.body_memory_bytes_max", 48 << 20);
    let node = site.node("n1", &[]).await;
    let before = node.memory_peak();
    let value = noise(VALUE_BYTES_MAX, 3);
    let puts = (0..40).map(|number| {
        let (client, value) = (node.client.clone(), value.clone());
        async move { client.put(&format!("/kv/{number}"), value).await.status }
    });
    let statuses = futures_util::future::join_all(puts).await;
    assert!(statuses.iter().all(|status| [201, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&201));
    let grown = node.memory_peak() - before;
    // the bodies, and the buffers of the database as the configuration documents them, whenever its
    // flushes happen to run
    assert!(grown < (48 + 240) << 20, "{} MiB more for 640 MiB", grown >> 20);
    for (number, status) in statuses.iter().enumerate() {
        let read = node.client.get(&format!("/kv/{number}")).await;
        let expected = if *status == 201 { 200 } else { 404 };
        assert_eq!(read.status, expected, "acknowledged or not there at all");
    }
}

/// Clients that read no answers use up the memory for answers, and nothing else.
#[tokio::test]
async fn many_large_unread_answers_stay_within_their_budget() {
    const BUDGET: u32 = 72 << 20;
    let site = Site::alone()
        .set("limits.body_memory_bytes_max", 48 << 20)
        .set("limits.answer_memory_bytes_max", BUDGET);
    let node = site.node("n1", &[]).await;
    node.client.put("/kv/large", noise(VALUE_BYTES_MAX, 4)).await.expect(201);
    node.client.get("/kv/large").await.expect(200);
    let before = node.memory_peak();
    let mut readers = Vec::new();
    for _ in 0..16 {
        let mut stream = TcpStream::connect(node.http).await.expect("a connection");
        let request = raw::head("GET", "/kv/large", &[]);
        stream.write_all(request.as_bytes()).await.expect("the node takes it");
        readers.push(stream);
    }
    // clients within the budget have an answer waiting, which they do not read
    eventually(SOON, "there is no more room", async || {
        let answer = node.client.get("/kv/large").await;
        ensure(answer.status == 503, || answer.status.to_string())
    })
    .await;
    let grown = node.memory_peak() - before;
    assert!(grown < u64::from(BUDGET) + (88 << 20), "{} MiB more for 256 MiB", grown >> 20);
    node.client.get("/kv/large").await.refused(503, "overloaded");
    node.client.put("/kv/small", "1").await.expect(201);
    node.client.get("/kv/small").await.expect(200);
    node.client.put("/kv/larger", noise(VALUE_BYTES_MAX, 5)).await.expect(201);
    drop(readers);
    eventually(SOON, "the memory is given back", async || {
        let status = node.client.get("/kv/large").await.status;
        ensure(status == 200, || status.to_string())
    })
    .await;
}

#[tokio::test]
async fn a_value_has_the_headers_of_the_contract() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let put = [("content-type", "text/plain; charset=utf-8")];
    let written = client.send(Method::PUT, "/kv/a", &put, "hello").await.expect(201);
    let answer = written.json();
    let names: Vec<_> = answer.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(names.len(), 5, "{names:?}");
    assert_eq!((&answer["key"], &answer["scope"]), (&json!("a"), &json!("local")));
    assert_eq!(answer["origin"], json!(node.id));
    let tag = format!("\"{}\"", written.uuid());
    assert_eq!(written.header("etag"), Some(tag.as_str()));
    for read in [client.get("/kv/a").await, client.head("/kv/a").await] {
        assert_eq!(read.status, 200);
        for (name, value) in [
            ("content-type", "text/plain; charset=utf-8"),
            ("content-length", "5"),
            ("etag", tag.as_str()),
            ("kvs-timestamp", &written.timestamp().to_string()),
            ("kvs-origin", node.id.as_str()),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "sandbox"),
            ("cache-control", "no-cache, no-transform"),
        ] {
            assert_eq!(read.header(name), Some(value), "{name}");
        }
        let modified = read.header("last-modified").expect("a date");
        let modified = httpdate::parse_http_date(modified).expect("an HTTP date");
        let seconds = modified.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        assert_eq!(seconds, written.timestamp() / 1_000_000);
        assert!(read.header("kvs-expires-at").is_none());
    }
    assert!(client.head("/kv/a").await.body.is_empty());
    client.put("/kv/plain", "x").await.expect(201);
    let read = client.get("/kv/plain").await;
    assert_eq!(read.header("content-type"), Some("application/octet-stream"));
    assert_eq!(client.head("/kv/none").await.status, 404);
    let deleted = client.delete("/kv/a").await.expect(200).json();
    assert_eq!((&deleted["deleted"], &deleted["scope"]), (&json!(true), &json!("local")));
    client.delete("/kv/a").await.refused(404, "key_not_found");
    client.get("/kv/a").await.refused(404, "key_not_found");
}

#[tokio::test]
async fn encodings_and_content_types_are_checked() {
    let node = Site::alone().node("n1", &[]).await;
    let put = async |header: &str, value: &str| {
        node.client.send(Method::PUT, "/kv/k", &[(header, value)], "x").await
    };
    for bad in ["gzip", "br", "identity, gzip"] {
        put("content-encoding", bad).await.refused(415, "unsupported_media");
        let swap = [("content-encoding", bad)];
        let answer = node.client.send(Method::POST, "/cas/k", &swap, "{}").await;
        answer.refused(415, "unsupported_media");
    }
    for bad in ["text", "text/", "a b/c", "text/plain/x"] {
        put("content-type", bad).await.refused(400, "bad_request");
    }
    let long = format!("text/{}", "x".repeat(252));
    put("content-type", &long).await.refused(400, "bad_request");
    node.client.get("/kv/k").await.refused(404, "key_not_found");
    put("content-encoding", "identity").await.expect(201);
    put("content-type", &long[..256]).await.expect(200);
    assert_eq!(node.client.get("/kv/k").await.header("content-type"), Some(&long[..256]));
}

#[tokio::test]
async fn an_envelope_shows_every_field_and_loses_no_byte() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let first = client.put_json("/kv/e", r#"{"b": 1.0, "a":[ ]}"#).await.expect(201);
    let second = client.put_json("/kv/e", r#"{"b": 1.50,"a":[ ]}"#).await.expect(200);
    let answer = client.get("/kv/e?format=envelope").await.expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("etag"), Some(format!("\"{}\"", second.uuid()).as_str()));
    let shown = answer.text();
    let joined = client.cluster().await["node"]["joined_at"].clone();
    let expected = format!(
        concat!(
            r#"{{"key":"e","uuid":"{}","timestamp":{},"origin":"{}","origin_joined_at":{joined},"#,
            r#""parent":"{}","expires_at":null,"content_type":"application/json","size":19,"#,
            r#""data":{{"b": 1.50,"a":[ ]}}}}"#
        ),
        second.uuid(),
        second.timestamp(),
        node.id,
        first.uuid(),
        joined = joined,
    );
    assert_eq!(shown, expected);
    // a value that is no JSON comes in base64
    for (content_type, value, data) in [
        ("application/json", " 1", Some("1")),
        ("application/json", "1\n", Some("1")),
        ("application/json", "{\n  \"a\": 1\n}\n", Some("{\n  \"a\": 1\n}")),
        ("application/json", "{\"a\":1,\"a\":2}", None),
        ("application/json", "{", None),
        ("application/json", "", None),
        ("text/plain", "1", None),
        ("application/json", "[1,\n 2]", Some("[1,\n 2]")),
        ("application/merge-patch+json", "null", Some("null")),
        ("application/json; charset=utf-8", "18446744073709551617", Some("18446744073709551617")),
    ] {
        let headers = [("content-type", content_type)];
        client.send(Method::PUT, "/kv/e", &headers, value).await.expect(200);
        let shown = client.get("/kv/e?format=envelope").await.expect(200);
        let envelope = shown.json();
        match data {
            Some(data) => assert!(shown.text().contains(&format!(r#""data":{data}}}"#)), "{data}"),
            None => {
                let encoded = BASE64_STANDARD.encode(value);
                assert_eq!(envelope["data_base64"], Value::String(encoded));
            }
        }
        let both = |envelope: &Value| {
            (envelope.get("data").is_some(), envelope.get("data_base64").is_some())
        };
        assert_eq!(both(&envelope), (data.is_some(), data.is_none()));
        // exact content gives every byte back, here and wherever else the value is shown
        let is_exact = data == Some(value);
        let same = client.get("/kv/e?format=envelope&exact=true").await.expect(200).json();
        let page = client.get("/scan/?values=true&exact=true").await.expect(200).json();
        let history = client.get("/history/e?exact=true&limit=1").await.expect(200).json();
        let read = json!({ "success": [{ "get": { "key": "e" } }] });
        let read = client.post_json("/txn?exact=true", &read).await.expect(200).json();
        let swap = json!({ "expected": { "absent": true }, "data": 1 });
        let refused = client.post_json("/cas/e?exact=true", &swap).await.expect(412).json();
        let absent = [("if-none-match", "*")];
        let put = client.send(Method::PUT, "/kv/e?exact=true", &absent, "x").await.expect(412);
        for exact in [
            &same,
            &page["items"][0],
            &history["revisions"][0],
            &read["results"][0]["get"],
            &refused["current"],
            &put.json()["current"],
        ] {
            assert_eq!(both(exact), (is_exact, !is_exact), "{exact}");
        }
        assert_eq!(envelope["size"].as_u64(), Some(value.len() as u64));
    }
    client.get("/kv/e?format=full").await.refused(400, "bad_request");
    client.get("/kv/e?form=envelope").await.refused(400, "unknown_field");
    client.get("/kv/none?format=envelope").await.refused(404, "key_not_found");
}

/// RFC 9110, section 14, on a value of ten bytes: each `Range` and its answer.
#[tokio::test]
async fn ranges_are_served_as_the_standard_says() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let put = client.put_json("/kv/k", "0123456789").await.expect(201);
    let tag = format!("\"{}\"", put.uuid());
    for (range, part) in [
        ("bytes=0-0", Some((0, 0))),
        ("bytes=0-9", Some((0, 9))),
        ("bytes=2-4", Some((2, 4))),
        ("bytes=7-", Some((7, 9))),
        ("bytes=7-100", Some((7, 9))),
        ("bytes=7-99999999999999999999999", Some((7, 9))),
        ("bytes=-3", Some((7, 9))),
        ("bytes=-100", Some((0, 9))),
        ("Bytes=1-2", Some((1, 2))),
        // several ranges, other units or invalid ones: the whole value
        ("bytes=0-1,4-5", None),
        ("bytes=0-1, -1", None),
        ("lines=0-1", None),
        ("bytes=4-2", None),
        ("bytes=x-", None),
        ("bytes=", None),
        ("0-1", None),
    ] {
        let read = client.send(Method::GET, "/kv/k", &[("range", range)], "").await;
        assert_eq!(read.header("accept-ranges"), Some("bytes"));
        assert_eq!(read.header("etag"), Some(tag.as_str()));
        for name in ["content-type", "last-modified", "kvs-timestamp", "kvs-origin"] {
            assert!(read.header(name).is_some(), "{range}: {name}");
        }
        let Some((first, last)) = part else {
            assert_eq!((read.status, read.text().as_str()), (200, "0123456789"), "{range}");
            assert!(read.header("content-range").is_none());
            continue;
        };
        let read = read.expect(206);
        assert_eq!(read.text(), "0123456789"[first..=last], "{range}");
        let shown = format!("bytes {first}-{last}/10");
        assert_eq!(read.header("content-range"), Some(shown.as_str()), "{range}");
        assert_eq!(read.header("content-length"), Some((last - first + 1).to_string().as_str()));
    }
    for range in ["bytes=10-", "bytes=10-20", "bytes=99999999999999999999999-", "bytes=-0"] {
        let refused = client.send(Method::GET, "/kv/k", &[("range", range)], "").await;
        let refused = refused.refused(416, "range_not_satisfiable");
        assert_eq!(refused.header("content-range"), Some("bytes */10"), "{range}");
    }
    client.put_json("/kv/empty", "").await.expect(201);
    for range in ["bytes=0-9", "bytes=0-", "bytes=5-", "bytes=-5"] {
        let read = client.send(Method::GET, "/kv/empty", &[("range", range)], "").await;
        assert_eq!((read.status, read.body.len()), (200, 0), "{range}");
        assert!(read.header("content-range").is_none());
    }
    // no ranges for HEAD, an envelope or an absent key
    for range in ["bytes=0-0", "bytes=99-"] {
        let head = client.send(Method::HEAD, "/kv/k", &[("range", range)], "").await.expect(200);
        assert_eq!(head.header("content-length"), Some("10"));
        assert_eq!(head.header("accept-ranges"), Some("bytes"));
        let path = "/kv/k?format=envelope";
        let whole = client.send(Method::GET, path, &[("range", range)], "").await.expect(200);
        assert_eq!(whole.json()["size"], 10, "all of it");
        assert!(whole.header("accept-ranges").is_none());
        let none = client.send(Method::GET, "/kv/none", &[("range", range)], "").await;
        none.refused(404, "key_not_found");
    }
}

#[tokio::test]
async fn ranges_and_conditions_go_together() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let old = client.put("/kv/k", "9876543210").await.expect(201);
    let old = format!("\"{}\"", old.uuid());
    let put = client.put("/kv/k", "0123456789").await.expect(200);
    let tag = format!("\"{}\"", put.uuid());
    let ask = async |range: &str, header: &str, value: &str| {
        client.send(Method::GET, "/kv/k", &[("range", range), (header, value)], "").await
    };
    let modified = client.get("/kv/k").await.header("last-modified").expect("a date").to_owned();
    // `If-Range` compares strongly; a mismatch gets the whole value
    assert_eq!(ask("bytes=2-3", "if-range", &tag).await.expect(206).text(), "23");
    let weak = format!("W/{tag}");
    for other in [old.as_str(), weak.as_str(), modified.as_str(), put.uuid().as_str(), "*", ""] {
        for range in ["bytes=2-3", "bytes=99-"] {
            let whole = ask(range, "if-range", other).await.expect(200);
            assert_eq!(whole.text(), "0123456789", "{other}");
        }
    }
    ask("bytes=99-", "if-range", &tag).await.refused(416, "range_not_satisfiable");
    // preconditions are checked before the range
    ask("bytes=2-3", "if-none-match", &tag).await.expect(304);
    ask("bytes=99-", "if-none-match", &tag).await.expect(304);
    ask("bytes=2-3", "if-match", &old).await.refused(412, "precondition_failed");
    ask("bytes=99-", "if-match", &old).await.refused(412, "precondition_failed");
    assert_eq!(ask("bytes=2-3", "if-match", &tag).await.expect(206).text(), "23");
    assert_eq!(ask("bytes=2-3", "if-none-match", &old).await.expect(206).text(), "23");
}

/// A renewal that was sent without its value must not empty it. Clients send no body in different
/// ways.
#[tokio::test]
async fn a_put_without_a_body_needs_a_content_type_however_the_client_sends_it() {
    let node = Site::alone().node("n1", &[]).await;
    node.client.put_json("/kv/k", "1").await.expect(201);
    let chunked = "Transfer-Encoding: chunked";
    for (headers, body) in [
        // curl -X PUT
        (&[][..], ""),
        // requests, Go, fetch
        (&["Content-Length: 0"], ""),
        // a stream that ends at once
        (&[chunked], "0\r\n\r\n"),
    ] {
        for path in ["/kv/k", "/kv/k?ttl=3s", "/kv/k?ttl=keep", "/kv/none"] {
            let request = raw::head("PUT", path, headers) + body;
            let answer = raw::exchange(node.http, request.as_bytes()).await;
            let problem = answer.refused(400, "bad_request").json();
            let detail = text(&problem["detail"]);
            assert!(detail.contains("If-Match") && detail.contains("ttl"), "{detail}");
            assert!(detail.contains("Content-Type"), "{detail}");
        }
        assert_eq!(node.client.get("/kv/k").await.expect(200).text(), "1");
        node.client.get("/kv/none").await.refused(404, "key_not_found");
        let typed = [&["Content-Type: text/plain"], headers].concat();
        let request = raw::head("PUT", "/kv/empty", &typed) + body;
        let answer = raw::exchange(node.http, request.as_bytes()).await;
        assert!([200, 201].contains(&answer.status), "{}", answer.text());
        assert_eq!(node.client.get("/kv/empty").await.expect(200).body.len(), 0);
    }
}

#[tokio::test]
async fn a_large_value_can_be_read_in_ranges() {
    let node = Site::alone().node("n1", &[]).await;
    let client = &node.client;
    let value = noise(VALUE_BYTES_MAX, 7);
    let put = client.put("/kv/large", value.clone()).await.expect(201);
    let tag = format!("\"{}\"", put.uuid());
    let mut parts = Vec::new();
    while parts.len() < value.len() {
        let range = format!("bytes={}-{}", parts.len(), parts.len() + (5 << 20) - 1);
        let headers = [("range", range.as_str()), ("if-range", tag.as_str())];
        let part = client.send(Method::GET, "/kv/large", &headers, "").await.expect(206);
        parts.extend_from_slice(&part.body);
    }
    assert!(parts == value);
    let last = client.send(Method::GET, "/kv/large", &[("range", "bytes=-1")], "").await;
    assert_eq!(last.expect(206).body[..], value[VALUE_BYTES_MAX - 1..]);
}
