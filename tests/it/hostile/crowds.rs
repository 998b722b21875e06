//! Clients that take what all share: connections, memory for bodies and answers, time. Others are
//! served all the same.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep};

use crate::api::values::noise;
use crate::support::{Node, SOON, Site, ensure, eventually, raw};

async fn connect(node: &Node) -> TcpStream {
    TcpStream::connect(node.http).await.expect("a connection")
}

async fn open_connections(node: &Node, wanted: impl Fn(u64) -> bool) {
    eventually(SOON, "the connections are as they should be", async || {
        let open = node.client.metric("kvs_http_connections", &[]).await;
        ensure(wanted(open), || open.to_string())
    })
    .await;
}

#[tokio::test]
async fn idle_clients_shut_nobody_out_and_the_longest_idle_makes_room() {
    let site = Site::alone().set("limits.connections_max", 8);
    let node = site.node("n1", &[]).await;
    let mut idle = Vec::new();
    for _ in 0..8 {
        let mut stream = connect(&node).await;
        raw::ask_on(&mut stream, &raw::kept("GET", "/kv/none", &[], "")).await.expect(404);
        idle.push(stream);
    }
    let mut first = idle.remove(0);
    raw::ask(node.http, "GET", "/kv/none").await.refused(404, "key_not_found");
    let (bytes, _) = raw::read_to_end(&mut first).await;
    assert!(bytes.is_empty(), "it was idle, so nothing is answered");
    for _ in 0..5 {
        raw::ask(node.http, "GET", "/health/live").await.expect(200);
    }
    // the latest one is still there
    let last = idle.last_mut().expect("one");
    raw::ask_on(last, &raw::kept("GET", "/health/live", &[], "")).await.expect(200);
}

#[tokio::test]
async fn a_node_whose_connections_are_all_busy_says_so_and_answers_for_its_health() {
    // a busy machine must not end the requests that keep the connections
    let site = Site::alone().set("limits.connections_max", 2).set("limits.request_timeout", "5m");
    let node = site.node("n1", &[]).await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(&node).await;
        let half = raw::kept("PUT", "/kv/a", &["Expect: 100-continue"], "xxxxx");
        let (head, _) = half.split_at(half.len() - 5);
        stream.write_all(head.as_bytes()).await.expect("it takes it");
        // `100 Continue` shows that the request is under way
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).await.expect("it answers");
        busy.push(stream);
    }
    for _ in 0..20 {
        raw::ask(node.http, "GET", "/health/live").await.expect(200);
        let answer = raw::exchange(node.http, raw::kept("GET", "/kv/a", &[], "").as_bytes()).await;
        let answer = answer.refused(503, "overloaded");
        assert_eq!(answer.header("connection"), Some("close"));
    }
    for stream in &mut busy {
        stream.write_all(b"xxxxx").await.expect("it takes it");
        assert!([200, 201].contains(&raw::read_one(stream).await.status));
    }
    raw::ask(node.http, "GET", "/kv/a").await.expect(200);
}

#[tokio::test]
async fn halves_of_heads_shut_nobody_out() {
    let site = Site::alone().set("limits.connections_max", 4);
    let node = site.node("n1", &[]).await;
    let mut halves = Vec::new();
    for _ in 0..80 {
        let mut stream = connect(&node).await;
        stream.write_all(b"GET /kv/a HTTP/1.1\r\nHo").await.expect("it takes it");
        halves.push(stream);
        raw::ask(node.http, "GET", "/health/live").await.expect(200);
    }
}

/// A client that announces much, and sends almost nothing, holds as much memory as it sent.
#[tokio::test]
async fn announced_bodies_take_no_room_from_small_ones() {
    let site = Site::alone()
        .set("limits.body_memory_bytes_max", 32 << 20)
        .set("limits.request_timeout", "3s");
    let node = site.node("n1", &[]).await;
    let mut stalled = Vec::new();
    for n in 0..48 {
        let mut stream = connect(&node).await;
        let head = raw::head("PUT", &format!("/kv/large/{n}"), &["Content-Length: 16000000"]);
        stream
            .write_all(format!("{head}{}", "x".repeat(25)).as_bytes())
            .await
            .expect("it takes it");
        stalled.push(stream);
    }
    open_connections(&node, |open| open > 48).await;
    let puts = (0..40).map(|n| {
        let client = node.client.clone();
        async move { client.put(&format!("/kv/small/{n}"), "x").await.status }
    });
    let statuses: Vec<_> = stream::iter(puts).buffer_unordered(8).collect().await;
    assert!(statuses.iter().all(|status| *status == 201), "{statuses:?}");
    node.client.put("/kv/whole", noise(16 << 20, 1)).await.expect(201);
    for mut stream in stalled {
        let answer = raw::parse(&raw::read_all(&mut stream).await);
        answer.refused(408, "request_timeout");
    }
}

#[tokio::test]
async fn a_body_may_take_its_time_and_may_not_dribble() {
    let site = Site::alone().set("limits.request_timeout", "2s");
    let node = site.node("n1", &[]).await;
    // 8,000 bytes a second, for longer than a client may be silent
    let mut steady = connect(&node).await;
    steady.set_nodelay(true).expect("an option");
    let head = raw::head("PUT", "/kv/steady", &["Content-Length: 24000"]);
    steady.write_all(head.as_bytes()).await.expect("it takes it");
    for _ in 0..60 {
        sleep(Duration::from_millis(50)).await;
        steady.write_all(&[b'x'; 400]).await.expect("it takes it");
    }
    raw::parse(&raw::read_all(&mut steady).await).expect(201);
    let mut dribble = connect(&node).await;
    dribble.set_nodelay(true).expect("an option");
    let head = raw::head("PUT", "/kv/dribble", &["Content-Length: 6000"]);
    dribble.write_all(head.as_bytes()).await.expect("it takes it");
    let began = Instant::now();
    // fails once the node has closed
    while dribble.write_all(b"x").await.is_ok() && began.elapsed() < SOON {
        sleep(Duration::from_millis(25)).await;
        if dribble.try_read(&mut [0; 9]).is_ok() {
            break;
        }
    }
    assert!(began.elapsed() < SOON, "the node waits for ever");
    node.client.get("/kv/dribble").await.refused(404, "key_not_found");
}

/// A connection whose receive buffer is small, so that the node sees whether it reads.
async fn small_reader(node: &Node) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 << 10).expect("an option");
    socket.connect(node.http).await.expect("a connection")
}

#[tokio::test]
async fn an_answer_may_be_read_slowly_and_must_be_read() {
    const SIZE: usize = 8 << 20;
    let site = Site::alone().set("limits.request_timeout", "2s");
    let node = site.node("n1", &[]).await;
    node.client.put("/kv/large", noise(SIZE, 1)).await.expect(201);
    let request = raw::head("GET", "/kv/large", &[]);
    let mut slow = small_reader(&node).await;
    slow.write_all(request.as_bytes()).await.expect("it takes it");
    // far slower than the link, for longer than a client may be silent
    let mut read = 0;
    let mut buffer = vec![0; 4096];
    for _ in 0..60 {
        sleep(Duration::from_millis(50)).await;
        read += slow.read(&mut buffer).await.expect("the connection lives");
    }
    let (rest, reset) = raw::read_to_end(&mut slow).await;
    assert!(!reset && read + rest.len() > SIZE, "{} bytes, reset: {reset}", read + rest.len());
    let mut silent = small_reader(&node).await;
    silent.write_all(request.as_bytes()).await.expect("it takes it");
    silent.readable().await.expect("the answer begins");
    open_connections(&node, |open| open <= 1).await;
    let (bytes, reset) = raw::read_to_end(&mut silent).await;
    assert!(reset && bytes.len() < SIZE, "{} bytes, reset: {reset}", bytes.len());
}
