//! Connections as clients see them: how long they stay open, and that their end is announced.

use reqwest::Method;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::{Answer, Node, Site, raw};

async fn connect(node: &Node) -> TcpStream {
    TcpStream::connect(node.http).await.expect("a connection")
}

fn says_close(answer: &Answer) -> bool {
    answer.header("connection") == Some("close") && answer.header("keep-alive").is_none()
}

#[tokio::test]
async fn answers_say_whether_and_how_long_a_connection_stays_open() {
    let node = Site::alone().node("n1", &[]).await;
    let mut stream = connect(&node).await;
    for path in ["/kv/none", "/cluster", "/nothing"] {
        let answer = raw::ask_on(&mut stream, &raw::kept("GET", path, &[], "")).await;
        assert_eq!(answer.header("keep-alive"), Some("timeout=75"), "{path}");
        assert_eq!(answer.header("connection"), Some("keep-alive"), "{path}");
    }
    let answer = raw::ask_on(&mut stream, &raw::head("GET", "/kv/none", &[])).await;
    assert!(says_close(&answer), "{answer:?}");
    assert_eq!(raw::read_to_end(&mut stream).await, (Vec::new(), false));
    // HTTP/1.0 keeps a connection only if it is asked to, and if the answer has a length
    let mut stream = connect(&node).await;
    let kept = "GET /kv/none HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    for _ in 0..2 {
        let answer = raw::ask_on(&mut stream, kept).await;
        assert_eq!(answer.header("connection"), Some("keep-alive"));
    }
    let lines =
        "GET /scan HTTP/1.0\r\nConnection: keep-alive\r\nAccept: application/x-ndjson\r\n\r\n";
    stream.write_all(lines.as_bytes()).await.expect("it takes it");
    assert!(says_close(&raw::parse(&raw::read_all(&mut stream).await)));
    let mut stream = connect(&node).await;
    stream.write_all(b"GET /kv/none HTTP/1.0\r\n\r\n").await.expect("it takes it");
    assert!(says_close(&raw::parse(&raw::read_all(&mut stream).await)));
}

#[tokio::test]
async fn an_idle_connection_lives_as_long_as_it_was_told() {
    let site =
        Site::alone().set("limits.request_timeout", "200ms").set("limits.idle_timeout", "1s");
    let node = site.node("n1", &[]).await;
    let mut stream = connect(&node).await;
    let answer = raw::ask_on(&mut stream, &raw::kept("GET", "/kv/none", &[], "")).await;
    assert_eq!(answer.header("keep-alive"), Some("timeout=1"));
    let began = Instant::now();
    assert_eq!(raw::read_to_end(&mut stream).await, (Vec::new(), false));
    assert!(began.elapsed().as_millis() >= 1000, "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_early_refusal_of_a_large_body_is_read_and_ends_the_connection() {
    let node = Site::alone().node("n1", &[]).await;
    let large = "x".repeat(300_000);
    for (method, path, status) in
        [("PUT", "/kv/a?ttl=x", 400), ("POST", "/nothing", 404), ("POST", "/kv/a", 405)]
    {
        let mut stream = connect(&node).await;
        // the whole body is sent before the answer is read, as many clients do
        let request = raw::kept(method, path, &[], &large);
        stream.write_all(request.as_bytes()).await.expect("it takes all of it");
        let answer = raw::parse(&raw::read_all(&mut stream).await).expect(status);
        assert!(says_close(&answer), "{path}: {:?}", answer.headers);
    }
    // a short body is passed, and the connection goes on
    let mut stream = connect(&node).await;
    for _ in 0..3 {
        let answer = raw::ask_on(&mut stream, &raw::kept("PUT", "/kv/a?ttl=x", &[], "x")).await;
        assert_eq!(answer.expect(400).header("connection"), Some("keep-alive"));
    }
    // the client waits before it sends the body, and may now send something else
    let expects = "PUT /kv/a?ttl=x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\
                   Expect: 100-continue\r\n\r\n";
    let answer = raw::ask_on(&mut stream, expects).await.expect(400);
    assert!(says_close(&answer), "{:?}", answer.headers);
    node.client.get("/kv/a").await.refused(404, "key_not_found");
}

#[tokio::test]
async fn what_is_no_request_is_refused_in_our_form_also_after_a_request() {
    let node = Site::alone().node("n1", &[]).await;
    for bad in ["garbage\r\n\r\n", "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"] {
        let mut stream = connect(&node).await;
        raw::ask_on(&mut stream, &raw::kept("GET", "/health/live", &[], "")).await.expect(200);
        let answer = raw::ask_on(&mut stream, bad).await.refused(400, "bad_request");
        assert!(says_close(&answer) && answer.header("kvs-node").is_some(), "{:?}", answer.headers);
    }
    // a body that is badly framed ends the connection, too
    let mut stream = connect(&node).await;
    let chunks =
        "PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    assert!(says_close(&raw::ask_on(&mut stream, chunks).await.expect(400)));
}

#[tokio::test]
async fn a_coded_body_is_refused_and_never_stored() {
    let node = Site::alone().node("n1", &[]).await;
    for coding in ["gzip, chunked", "chunked, chunked", "deflate, chunked", "identity, chunked"] {
        let head = raw::head("PUT", "/kv/a", &[&format!("Transfer-Encoding: {coding}")]);
        let answer =
            raw::exchange(node.http, format!("{head}1\r\nx\r\n0\r\n\r\n").as_bytes()).await;
        answer.refused(415, "unsupported_media");
    }
    for coding in ["gzip", "chunked, gzip"] {
        let head = raw::head("PUT", "/kv/a", &[&format!("Transfer-Encoding: {coding}")]);
        raw::exchange(node.http, head.as_bytes()).await.refused(400, "bad_request");
    }
    node.client.send(Method::PUT, "/kv/a", &[("content-encoding", "gzip")], "x").await.expect(415);
    node.client.get("/kv/a").await.refused(404, "key_not_found");
}
