//! A stopping node answers the requests under way and loses nothing; a second signal stops it at
//! once.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::crash::load::Load;
use crate::support::{SOON, Site, ensure, eventually, raw};

#[tokio::test]
async fn requests_under_way_are_answered_and_new_ones_refused() {
    let mut node = Site::alone().node("n1", &[]).await;
    // a request whose body has yet to come, an idle connection, and a complete request
    let mut slow = TcpStream::connect(node.http).await.expect("a connection");
    let head = raw::head("PUT", "/kv/slow", &["Content-Length: 10"]);
    slow.write_all(format!("{head}12345").as_bytes()).await.expect("it takes it");
    let mut waiting = TcpStream::connect(node.http).await.expect("a connection");
    waiting
        .write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .expect("it takes it");
    let open = async || node.client.metric("kvs_http_connections", &[]).await;
    eventually(SOON, "the connections are accepted", async || {
        let open = open().await;
        ensure(open >= 3, || open.to_string())
    })
    .await;
    // the node must have read the request head, or it refuses the request as new
    eventually(SOON, "the first half of the body is there", async || {
        let puts = node.client.get("/kv/slow").await.status;
        ensure(puts == 404, || puts.to_string())
    })
    .await;
    node.signal("TERM");
    node.logs(&["stopping"]).await;
    // the node closes the idle connection
    let answer = raw::parse(&raw::read_all(&mut waiting).await);
    assert!(answer.status == 200 && answer.text().contains("live"));
    eventually(SOON, "new connections are refused", async || {
        let connected = TcpStream::connect(node.http).await;
        ensure(connected.is_err(), || "connected".to_owned())
    })
    .await;
    slow.write_all(b"67890").await.expect("it still listens");
    let answer = raw::parse(&raw::read_all(&mut slow).await);
    assert_eq!(answer.expect(201).json()["key"], "slow");
    assert_eq!(node.ended(SOON).await, 0);
    let node = node.restart().await;
    assert_eq!(node.client.get("/kv/slow").await.expect(200).text(), "1234567890");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_answers_every_accepted_request() {
    for signal in ["TERM", "INT"] {
        let mut load = Load::new();
        let mut node = Site::alone().node("n1", &[]).await;
        let running = load.start_until_refused(&node.client);
        running.reaches(200).await;
        node.signal(signal);
        assert_eq!(node.ended(SOON).await, 0);
        load.take(running.end_in_order().await);
        let node = node.restart().await;
        load.verify(&node.client).await;
    }
}

#[tokio::test]
async fn a_stop_cuts_an_endless_request_after_a_while_and_at_once_on_a_second_signal() {
    let site = Site::alone().set("limits.shutdown_wait", "1h");
    let mut node = site.node("n1", &[]).await;
    let mut endless = TcpStream::connect(node.http).await.expect("a connection");
    let head = raw::head("PUT", "/kv/endless", &["Content-Length: 10", "Expect: 100-continue"]);
    endless.write_all(head.as_bytes()).await.expect("it takes it");
    // `100 Continue` shows that the request is under way
    endless.readable().await.expect("it answers");
    node.signal("TERM");
    node.logs(&["stopping", "second signal"]).await;
    let began = Instant::now();
    node.signal("TERM");
    assert_eq!(node.ended(SOON).await, 0);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    drop(endless);
    let site = Site::alone().set("limits.shutdown_wait", "300ms");
    let mut node = site.node("n1", &[]).await;
    let mut endless = TcpStream::connect(node.http).await.expect("a connection");
    endless.write_all(head.as_bytes()).await.expect("it takes it");
    endless.readable().await.expect("it answers");
    node.signal("TERM");
    assert_eq!(node.ended(SOON).await, 0);
    node.logs(&["WARN", "connections are cut"]).await;
}

/// Its goodbye goes first: the others learn of the stop while it still answers requests.
#[tokio::test]
async fn the_others_learn_of_a_stop_before_the_last_request_has_ended() {
    let site = Site::clustered().set("limits.shutdown_wait", "1h");
    let cluster = site.cluster(2).await;
    let [mut first, second] = <[_; 2]>::try_from(cluster.nodes).ok().expect("two nodes");
    let mut slow = TcpStream::connect(first.http).await.expect("a connection");
    let head = raw::head("PUT", "/kv/slow", &["Content-Length: 10", "Expect: 100-continue"]);
    slow.write_all(head.as_bytes()).await.expect("it takes it");
    // `100 Continue` shows that the request is under way
    slow.readable().await.expect("it answers");
    first.signal("TERM");
    second.shows(&first.id, "left").await;
    assert!(first.runs(), "the request has not ended");
    slow.write_all(b"1234567890").await.expect("it still listens");
    let answer = raw::read_all(&mut slow).await;
    assert!(String::from_utf8_lossy(&answer).contains("201 Created"), "it is answered");
    assert_eq!(first.ended(SOON).await, 0);
}

/// The node is paused, so that all requests are sent before it can see the signal, those included
/// whose connections wait in the system's queue.
#[tokio::test]
async fn every_request_that_was_sent_before_the_stop_is_answered() {
    let mut node = Site::alone().node("n1", &[]).await;
    let mut sent = Vec::new();
    for _ in 0..150 {
        let mut stream = TcpStream::connect(node.http).await.expect("a connection");
        raw::ask_on(&mut stream, &raw::kept("GET", "/health/live", &[], "")).await.expect(200);
        sent.push(stream);
    }
    node.pause();
    for _ in 0..50 {
        sent.push(TcpStream::connect(node.http).await.expect("the system's queue takes it"));
    }
    for (at, stream) in sent.iter_mut().enumerate() {
        let put = raw::kept("PUT", &format!("/kv/{at}"), &[], "x");
        stream.write_all(put.as_bytes()).await.expect("the system takes it");
    }
    node.signal("TERM");
    node.resume();
    let mut written = 0;
    for stream in &mut sent {
        let answer = raw::parse(&raw::read_all(stream).await);
        match answer.status {
            201 => written += 1,
            _ => drop(answer.refused(503, "shutting_down")),
        }
    }
    assert_eq!(node.ended(SOON).await, 0);
    let node = node.restart().await;
    let keys = node.client.cluster().await["keys"].as_u64();
    assert_eq!(keys, Some(written), "what was acknowledged is there");
}

/// HTTP/1.0 has no other sign of the end of such an answer than the end of the connection.
#[tokio::test]
async fn a_scan_that_a_stop_cuts_ends_in_a_reset() {
    let site = Site::alone().set("limits.shutdown_wait", "300ms");
    let mut node = site.node("n1", &[]).await;
    for n in 0..60 {
        node.client.put(&format!("/kv/{n:02}"), vec![7; 300_000]).await.expect(201);
    }
    for version in ["1.0", "1.1"] {
        let mut stream = TcpStream::connect(node.http).await.expect("a connection");
        let scan = format!(
            "GET /scan/?values=true HTTP/{version}\r\nHost: localhost\r\n\
             Accept: application/x-ndjson\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(scan.as_bytes()).await.expect("it takes it");
        stream.readable().await.expect("the answer begins");
        node.stop().await;
        let (bytes, reset) = raw::read_to_end(&mut stream).await;
        assert!(reset, "HTTP/{version}: the end of {} bytes looks like that of all", bytes.len());
        node = node.restart().await;
    }
}

#[tokio::test]
async fn a_hangup_signal_does_not_stop_the_node() {
    let node = Site::alone().node("n1", &[]).await;
    node.signal("HUP");
    node.logs(&["SIGHUP"]).await;
    node.client.put("/kv/a", "x").await.expect(201);
}

#[tokio::test]
async fn a_slow_client_gets_an_error_and_loses_its_connection() {
    let site =
        Site::alone().set("limits.request_timeout", "300ms").set("limits.idle_timeout", "1s");
    let node = site.node("n1", &[]).await;
    let half = raw::head("PUT", "/kv/a", &["Content-Length: 5"]) + "ab";
    for begun in ["GET /kv/a HTTP/1.1\r\nHo", half.as_str()] {
        let mut slow = TcpStream::connect(node.http).await.expect("a connection");
        slow.write_all(begun.as_bytes()).await.expect("it takes it");
        let answer = raw::parse(&raw::read_all(&mut slow).await);
        answer.refused(408, "request_timeout");
    }
    // an idle connection is not slow
    let mut idle = TcpStream::connect(node.http).await.expect("a connection");
    assert!(raw::read_all(&mut idle).await.is_empty());
    node.client.get("/kv/a").await.refused(404, "key_not_found");
}

#[tokio::test]
async fn a_development_node_leaves_nothing_behind() {
    let mut site = Site::alone().place("dev", &[]);
    let temporary = site.dir.join("tmp");
    std::fs::create_dir(&temporary).expect("a directory");
    site.develop(&temporary);
    let mut node = site.start().await;
    node.client.put("/kv/a", "x").await.expect(201);
    let made: Vec<_> = std::fs::read_dir(&temporary).expect("it is there").collect();
    assert_eq!(made.len(), 1);
    node.stop().await;
    assert_eq!(std::fs::read_dir(&temporary).expect("it is there").count(), 0);
}
