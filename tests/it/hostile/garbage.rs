//! Random bytes and strangers on every port: the node counts and logs them, and nothing changes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kvs::model::member::Report;
use kvs::model::{Content, ContentType, Header, HeldBack, Key, NodeId, Seen, Timestamp, Version};
use kvs::proto::digest::Sum;
use kvs::proto::wire::{
    self, Child, CutRange, Given, Mode, Push, Range, Request, Response, SessionAnswer, Wanted,
    WireRecord,
};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};
use uuid::Uuid;

use crate::api::values::noise;
use crate::support::impostor::Impostor;
use crate::support::peer::{Peer, framed};
use crate::support::{Cluster, Node, SOON, Site, client::text, ensure, eventually, raw};

/// Checks that the cluster still serves and converges, and that its data has not changed.
async fn unharmed(cluster: &Cluster) {
    for (at, node) in cluster.nodes.iter().enumerate() {
        assert_eq!(node.client.get("/kv/before").await.expect(200).text(), "kept");
        node.client.put(&format!("/kv/after/{at}"), "x").await;
    }
    cluster.converged().await;
    for node in &cluster.nodes {
        let keys = node.client.cluster().await["keys"].as_u64();
        assert_eq!(keys, Some(1 + cluster.nodes.len() as u64), "nothing else came in");
    }
}

async fn pair() -> Cluster {
    let cluster = Site::clustered().cluster(2).await;
    cluster.nodes[0].client.put("/kv/before", "kept").await.expect(201);
    cluster.converged().await;
    cluster
}

/// Waits until the counter `name` of `node` has grown beyond `before`.
async fn grows(node: &Node, name: &str, labels: &[(&str, &str)], before: u64) {
    eventually(SOON, &format!("{name}{labels:?} grows"), async || {
        let now = node.client.metric(name, labels).await;
        ensure(now > before, || format!("{now}"))
    })
    .await;
}

async fn refused(node: &Node, reason: &str) -> u64 {
    node.client.metric("kvs_peer_refused_total", &[("reason", reason)]).await
}

#[tokio::test]
async fn random_bytes_on_the_udp_ports_are_dropped() {
    let cluster = pair().await;
    let node = &cluster.nodes[0];
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let sizes = [0, 1, 5, 44, 45, 200, 1200, 1232, 1233, 1500, 9000, 60_000];
    for to in [node.gossip.expect("clustered"), node.peer.expect("clustered")] {
        for round in 0..40_u64 {
            for size in sizes {
                let mut bytes = noise(size, round).to_vec();
                // some start like a sealed datagram or a QUIC header of either form
                if let Some(first) = bytes.first_mut().filter(|_| round % 4 != 0) {
                    *first = [1, 0xc3, 0x40][round as usize % 3];
                }
                // a full socket buffer may drop it, as a network may
                let _ = socket.send_to(&bytes, to).await;
            }
        }
    }
    grows(node, "kvs_gossip_dropped_total", &[("reason", "unsealed")], 0).await;
    grows(node, "kvs_gossip_dropped_total", &[("reason", "oversized")], 0).await;
    node.logs(&["WARN", "dropped", "gossip datagrams"]).await;
    unharmed(&cluster).await;
}

#[tokio::test]
async fn random_bytes_on_the_http_port_are_answered_or_dropped() {
    let cluster = pair().await;
    let node = &cluster.nodes[0];
    let before = node.client.metric("kvs_http_bad_connections_total", &[]).await;
    for round in 0..60_u64 {
        let mut stream = TcpStream::connect(node.http).await.expect("a connection");
        let size = [1, 10, 1000, 100_000][round as usize % 4];
        let mut bytes = noise(size, round).to_vec();
        if round % 3 == 0 {
            bytes.splice(0..0, b"GET /kv/a HTTP/1.1\r\nHost: localhost\r\n".iter().copied());
        }
        // the node may close the connection before the client has sent everything
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let answer = raw::read_all(&mut stream).await;
        if !answer.is_empty() {
            let status = raw::parse(&answer).status;
            assert!((400..500).contains(&status), "{status}");
        }
    }
    grows(node, "kvs_http_bad_connections_total", &[], before).await;
    for bad in [
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "PUT /kv/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        &(raw::head("PUT", "/kv/a", &["Transfer-Encoding: chunked"]) + "5\r\nab\r\n0\r\n\r\n"),
        "\r\n\r\n\r\nxx\r\n\r\n",
        &format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000)),
        &format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000)),
    ] {
        let answer = raw::exchange(node.http, bad.as_bytes()).await;
        let code = answer.code();
        assert!((400..500).contains(&answer.status), "{bad:.60}: {}", answer.status);
        answer.refused(400, &code);
    }
    // two lengths: the chunks count, and what may hide behind them is not taken for a request
    let smuggled = "PUT /kv/half HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\
                    Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /kv/before HTTP/1.1\r\n\
                    Host: localhost\r\n\r\n";
    let answer = raw::exchange(node.http, smuggled.as_bytes()).await;
    assert!(!answer.text().contains("HTTP/1.1") && !answer.text().contains("kept"), "{answer:?}");
    assert!(answer.header("connection").is_some_and(|value| value.ends_with("close")));
    node.client.delete("/kv/half").await;
    // half a request, then the client disconnects
    let body = raw::head("PUT", "/kv/half", &["Content-Length: 10"]) + "12345";
    for half in [body.as_str(), "PUT /kv/half HTT"] {
        let mut stream = TcpStream::connect(node.http).await.expect("a connection");
        stream.write_all(half.as_bytes()).await.expect("it takes it");
        drop(stream);
    }
    node.client.get("/kv/half").await.refused(404, "key_not_found");
    unharmed(&cluster).await;
}

#[tokio::test]
async fn nodes_drop_gossip_under_another_key_and_its_sender_does_not_join() {
    let cluster = pair().await;
    let node = &cluster.nodes[0];
    let others = Site::clustered();
    let stranger = others.node("n2", &[node]).await;
    grows(node, "kvs_gossip_dropped_total", &[("reason", "unsealed")], 0).await;
    node.logs(&["WARN", "sealed with another gossip key", "gossip.key_file"]).await;
    stranger.client.put("/kv/strange", "x").await;
    for (node, members) in [(&stranger, 1), (node, 2)] {
        let shown = node.client.cluster().await["members"].as_array().map(Vec::len);
        assert_eq!(shown, Some(members), "they do not know each other");
    }
    unharmed(&cluster).await;
    node.client.get("/kv/strange").await.refused(404, "key_not_found");
}

#[tokio::test]
async fn a_node_with_a_certificate_of_another_authority_gets_and_gives_nothing() {
    let cluster = pair().await;
    // an empty node that must not wait for members which refuse it
    let others = Site::clustered().set("sync.serve_alone", true);
    std::fs::copy(cluster.site.file("secret"), others.file("secret")).expect("a copied secret");
    let node = &cluster.nodes[0];
    let mut stranger = others.node("n3", &[node]).await;
    // with the cluster's gossip key, so that the nodes see each other
    stranger.shows(&node.id, "alive").await;
    for node in &cluster.nodes {
        grows(node, "kvs_peer_refused_total", &[("reason", "tls")], 0).await;
        node.logs(&["WARN", "refused", "certificate", "kvs cert node"]).await;
    }
    eventually(SOON, "it stops waiting for data", async || {
        let status = stranger.client.put("/kv/strange", "x").await.status;
        ensure(status == 201, || status.to_string())
    })
    .await;
    stranger.client.get("/kv/before").await.refused(404, "key_not_found");
    let answer = stranger.client.post("/cluster/sync", "").await.expect(200).json();
    let peers = answer["peers"].as_array().expect("peers");
    assert_eq!(peers.len(), 2);
    assert!(peers.iter().all(|peer| !text(&peer["error"]).is_empty()), "{answer}");
    assert!(stranger.client.cluster().await["converged"].is_null(), "it knows of no report");
    stranger.stop().await;
    for node in &cluster.nodes {
        node.client.get("/kv/strange").await.refused(404, "key_not_found");
        node.shows(&stranger.id, "left").await;
        assert_eq!(node.client.get("/kv/before").await.expect(200).text(), "kept");
    }
    cluster.converged().await;
}

#[tokio::test]
async fn a_peer_without_a_good_certificate_or_hello_is_refused_by_name() {
    let cluster = pair().await;
    let (node, site) = (&cluster.nodes[0], &cluster.site);
    // a certificate of another authority: the handshake fails
    let others = Site::clustered();
    let before = refused(node, "tls").await;
    // with TLS 1.3 the dialer may finish before the other side has verified its certificate
    match Peer::dial(&others, "n9", node).await {
        Err(reason) => assert!(!reason.is_empty()),
        Ok(_) => panic!("the certificate of n1 is not one of that authority"),
    }
    let trusting = Site::clustered();
    trusting.certify("n9");
    std::fs::copy(site.file("ca.pem"), trusting.file("ca.pem")).expect("its authority");
    if let Ok(peer) = Peer::dial_certified_by(&trusting, "n9", node).await {
        assert!(peer.first_stream(&framed(b"x")).await.is_none());
        peer.closed().await;
    }
    grows(node, "kvs_peer_refused_total", &[("reason", "tls")], before).await;
    // a valid certificate, but the first stream is no hello
    for (bytes, reason) in [
        (framed(b""), "malformed"),
        (framed(b"\x01nonsense"), "malformed"),
        (framed(&[9; 100]), "malformed"),
        (vec![5, 0, 0, 0, 1], "malformed"),
        (vec![], "malformed"),
        (vec![0xff; 8], "oversized"),
        (framed(&[1; 5000]), "oversized"),
    ] {
        let before = refused(node, reason).await;
        let peer = Peer::dial(site, "n9", node).await.expect("the certificate is good");
        assert!(peer.first_stream(&bytes).await.is_none(), "{bytes:?}");
        assert!(peer.closed().await.contains("hello"), "the reason is told");
        grows(node, "kvs_peer_refused_total", &[("reason", reason)], before).await;
    }
    // a hello of another cluster, then one with a name that its certificate lacks
    let before = (refused(node, "cluster").await, refused(node, "name").await);
    let peer = Peer::dial(site, "n9", node).await.expect("the certificate is good");
    assert!(peer.says_hello(Uuid::nil(), "n9").await.is_none());
    assert!(peer.closed().await.contains("cluster"));
    grows(node, "kvs_peer_refused_total", &[("reason", "cluster")], before.0).await;
    let peer = Peer::dial(site, "n9", node).await.expect("the certificate is good");
    let cluster_id = crate::support::peer::secret(site).cluster_id();
    assert!(peer.says_hello(cluster_id, "n2").await.is_none());
    assert!(peer.closed().await.contains("n2"));
    grows(node, "kvs_peer_refused_total", &[("reason", "name")], before.1).await;
    node.logs(&["WARN", "belongs to cluster"]).await;
    unharmed(&cluster).await;
}

/// A forged record, valid but for what the test changes.
fn record(key: &str, value: &'static [u8]) -> WireRecord {
    let origin = NodeId::from_u128(99);
    let now = kvs::clock::Clock::system().now();
    let header = Header {
        version: Version {
            timestamp: now,
            origin_joined_at: Timestamp::saturating(1),
            uuid: Uuid::from_u128(77),
        },
        origin,
        parent: None,
        seen: Seen::after_write(None, origin, now),
        expires_at: None,
        content: Content::value(ContentType::octet_stream(), value),
    };
    WireRecord { key: Key::parse(key).expect("a key"), header, body: value.into() }
}

#[tokio::test]
async fn frames_that_are_cut_or_too_long_end_their_stream_and_nothing_else() {
    let cluster = pair().await;
    let (node, site) = (&cluster.nodes[0], &cluster.site);
    let peer = Peer::connect(site, "n9", node).await;
    let whole = framed(&wire::encode(&Push::Records(vec![record("cut", b"x")])));
    for kind in ["push", "session"] {
        let open = async || match kind {
            "push" => peer.open_push().await,
            _ => peer.open_session().await,
        };
        // cut within the length, within the frame, and by a reset
        for cut in [1, 3, 4, 5, whole.len() - 1] {
            let before = refused(node, "malformed").await;
            let (mut to, _from) = open().await;
            to.write_all(&whole[..cut]).await.expect("it takes it");
            to.finish().expect("the stream is open");
            grows(node, "kvs_peer_refused_total", &[("reason", "malformed")], before).await;
        }
        let before = refused(node, "oversized").await;
        let (mut to, _from) = open().await;
        to.write_all(&u32::MAX.to_le_bytes()).await.expect("it takes it");
        grows(node, "kvs_peer_refused_total", &[("reason", "oversized")], before).await;
        let (mut to, _from) = open().await;
        let too_long = u32::try_from((17 << 20) + 1).expect("a u32");
        to.write_all(&too_long.to_le_bytes()).await.expect("it takes it");
        grows(node, "kvs_peer_refused_total", &[("reason", "oversized")], before + 1).await;
        // frames of an unknown format, and of random bytes
        for bytes in [&b""[..], b"\x02", b"\x01\x00", b"\x01\x07x", b"\x01\x01nozstd", &[1; 300]] {
            let before = refused(node, "malformed").await;
            let (mut to, _from) = open().await;
            to.write_all(&framed(bytes)).await.expect("it takes it");
            grows(node, "kvs_peer_refused_total", &[("reason", "malformed")], before).await;
        }
    }
    // a stream of an unknown kind
    for bytes in [framed(&[9]), framed(&[1, 2]), vec![1, 0, 0]] {
        let before = refused(node, "malformed").await;
        let (mut to, _from) = peer.open_with(&bytes).await;
        // the node may have stopped the stream already
        let _ = to.finish();
        grows(node, "kvs_peer_refused_total", &[("reason", "malformed")], before).await;
    }
    assert!(peer.is_open(), "other streams of the connection go on");
    peer.push(vec![record("cut", b"x")]).await;
    eventually(SOON, "a good record still gets in", async || {
        let status = node.client.get("/kv/cut").await.status;
        ensure(status == 200, || status.to_string())
    })
    .await;
    node.client.delete("/kv/cut").await.expect(200);
    unharmed(&cluster).await;
}

#[tokio::test]
async fn the_node_refuses_a_small_frame_that_decompresses_to_too_much() {
    let cluster = pair().await;
    let (node, site) = (&cluster.nodes[0], &cluster.site);
    let peer = Peer::connect(site, "n9", node).await;
    let bomb = zstd::bulk::compress(&vec![0; 512 << 20], 3).expect("zstd");
    let frame = [&[1, 1], bomb.as_slice()].concat();
    let before = (refused(node, "malformed").await, node.memory_peak());
    for _ in 0..4 {
        let (mut to, _from) = peer.open_push().await;
        to.write_all(&framed(&frame)).await.expect("it takes it");
    }
    grows(node, "kvs_peer_refused_total", &[("reason", "malformed")], before.0 + 3).await;
    let grown = node.memory_peak() - before.1;
    assert!(grown < 200 << 20, "{} MiB for frames of {} bytes", grown >> 20, frame.len());
    unharmed(&cluster).await;
}

#[tokio::test]
async fn the_node_refuses_a_record_whose_bytes_do_not_match_its_header() {
    let cluster = pair().await;
    let (node, site) = (&cluster.nodes[0], &cluster.site);
    let peer = Peer::connect(site, "n9", node).await;
    let forged = || {
        let good = record("forged/value", b"good");
        let body = |body: &'static [u8]| WireRecord { body: body.into(), ..good.clone() };
        let tombstone = Header { content: Content::Tombstone, ..good.header.clone() };
        [body(b"evil"), body(b""), body(b"goodx"), WireRecord { header: tombstone, ..good.clone() }]
    };
    let fingerprint = node.client.fingerprint().await;
    for forged in forged() {
        let before = refused(node, "malformed").await;
        peer.push(vec![record("forged/beside", b"x"), forged]).await;
        grows(node, "kvs_peer_refused_total", &[("reason", "malformed")], before).await;
    }
    for forged in forged() {
        let before = refused(node, "malformed").await;
        let begin = Request::Begin { report: report(), root: Sum::default() };
        let answers = peer.ask(&[begin, Request::Give(vec![forged])]).await;
        assert!(matches!(answers[0], Response::Begun { .. }));
        assert!(matches!(&answers[1], Response::Failed(why) if why.contains("forged/value")));
        grows(node, "kvs_peer_refused_total", &[("reason", "malformed")], before).await;
    }
    node.logs(&["WARN", "forged/value", "does not match its hash"]).await;
    assert_eq!(node.client.fingerprint().await, fingerprint);
    for node in &cluster.nodes {
        assert!(node.client.get("/scan/forged").await.json()["items"] == serde_json::json!([]));
    }
    unharmed(&cluster).await;
}

/// A member with a wrong clock, or one that lies, cannot keep others from writing a key.
#[tokio::test]
async fn a_record_from_the_future_is_held_back() {
    let cluster = pair().await;
    let (node, site) = (&cluster.nodes[0], &cluster.site);
    let peer = Peer::connect(site, "n9", node).await;
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    let mut far = record("far", b"x");
    far.header.version.timestamp = far.header.version.timestamp.plus(minutes(10));
    let mut near = record("near", b"x");
    near.header.version.timestamp = near.header.version.timestamp.plus(minutes(1) / 2);
    let ahead = near.header.version.timestamp.micros();
    peer.push(vec![far.clone(), near]).await;
    eventually(SOON, "the nearer record is there", async || {
        let status = node.client.get("/kv/near").await.status;
        ensure(status == 200, || status.to_string())
    })
    .await;
    grows(node, "kvs_records_held_total", &[], 0).await;
    let answers = peer.ask(&[Request::Give(vec![far])]).await;
    assert!(matches!(answers[0], Response::Taken(HeldBack { records: 1, .. })), "{answers:?}");
    node.client.get("/kv/far").await.refused(404, "key_not_found");
    // a record less than the bound ahead is replaced just after its timestamp
    let written = node.client.put("/kv/near", "y").await.expect(200);
    assert_eq!(written.timestamp(), ahead + 1);
    // writes of other keys use this machine's time
    let now = kvs::clock::Clock::system().now().micros();
    let written = node.client.put("/kv/far", "y").await.expect(201).timestamp();
    assert!(written.abs_diff(now) < 30_000_000, "{written} {now}");
    cluster.converged().await;
}

fn report() -> Report {
    Report {
        fingerprint: [7; 32],
        records: 1,
        syncing: false,
        now: kvs::clock::Clock::system().now(),
        holds_through: None,
        horizon: Timestamp::MAX,
    }
}

#[tokio::test]
async fn a_session_with_senseless_requests_is_answered_or_ended() {
    let cluster = pair().await;
    let (node, site) = (&cluster.nodes[0], &cluster.site);
    for n in 0..300 {
        node.client.put(&format!("/kv/many/{n}"), "x").await.expect(201);
    }
    let peer = Peer::connect(site, "n9", node).await;
    let range = |from: &'static [u8], to: Option<&'static [u8]>| Range {
        from: from.into(),
        to: to.map(Into::into),
    };
    let ranges = [
        range(b"z", Some(b"a")),
        range(b"many/1", Some(b"many/1")),
        range(b"\xff\xfe", Some(b"\xff")),
        range(b"\0", None),
        range(b"", Some(b"")),
        range(b"", None),
    ];
    for range in &ranges {
        for level in [0, 1, 200, 255] {
            let answers = peer.ask(&[Request::Cut(vec![(range.clone(), level)])]).await;
            assert!(matches!(answers[0], Response::Pieces(_) | Response::Failed(_)), "{range:?}");
        }
        for mode in [Mode::Only, Mode::AllBut, Mode::AllButAgain] {
            let ids = vec![kvs::proto::digest::ShortId::default(); 1000];
            let wanted = Wanted { range: range.clone(), ids, mode, withheld: Vec::new() };
            let answers = peer.ask(&[Request::Want(vec![wanted.clone(), wanted])]).await;
            assert!(matches!(answers[0], Response::Given(_) | Response::Failed(_)), "{range:?}");
        }
    }
    let before = refused(node, "malformed").await;
    let many = Request::Cut(vec![(ranges[5].clone(), 1); 100_000]);
    assert!(matches!(peer.ask(&[many]).await[0], Response::Failed(_)));
    grows(node, "kvs_peer_refused_total", &[("reason", "malformed")], before).await;
    // an end without a beginning, and an end sent twice
    let end = Request::End { report: report(), held: HeldBack::default() };
    let answers = peer.ask(&[end.clone(), end]).await;
    assert!(answers.iter().all(|answer| matches!(answer, Response::Ended(_))));
    for n in 0..300 {
        node.client.delete(&format!("/kv/many/{n}")).await.expect(200);
    }
    unharmed(&cluster).await;
}

/// A member that lies in its answers loses the session at each lie; the others are not affected.
#[tokio::test]
async fn a_session_ends_when_a_member_lies() {
    let cluster = pair().await;
    let (node, site) = (&cluster.nodes[0], &cluster.site);
    let turn = AtomicUsize::new(0);
    let lies = move |request: Request| {
        let mut root = Sum::default();
        root.count = 1000;
        if matches!(request, Request::Begin { .. }) {
            let begun = Response::Begun { report: report(), root };
            return Some(wire::encode(&SessionAnswer::Compared(begun)));
        }
        let mut forged = record("forged/lie", b"good");
        forged.body = b"evil"[..].into();
        let given = |records, unknown| {
            let withheld = Vec::new();
            Given { records, unknown, withheld, resume: None }
        };
        let child = Child { short: 1, count: u64::MAX, low: [7; 16] };
        let children =
            |level, count| CutRange::Children { level, children: vec![child.clone(); count] };
        let lie = match turn.fetch_add(1, Ordering::SeqCst) % 9 {
            0 => Response::Pieces(Vec::new()),
            1 => Response::Pieces(vec![children(0, 1)]),
            2 => Response::Pieces(vec![children(255, 5000)]),
            3 => Response::Given(vec![given(vec![forged], Vec::new())]),
            4 => Response::Given(vec![given(Vec::new(), vec![u32::MAX]); 3]),
            5 => Response::Taken(HeldBack::default()),
            6 => Response::Ended(report()),
            7 => Response::Failed("\u{1b}[31m\nno".repeat(1000)),
            _ => return Some(noise(3000, 1).to_vec()),
        };
        Some(wire::encode(&SessionAnswer::Compared(lie)))
    };
    let before = refused(node, "malformed").await;
    let liar = Impostor::join(site, "n9", node, lies).await;
    node.shows(&liar.id, "alive").await;
    grows(node, "kvs_peer_refused_total", &[("reason", "malformed")], before + 6).await;
    assert_eq!(node.client.cluster().await["converged"], false, "its fingerprint differs");
    // none of its records got in, and sessions with other members go on
    node.client.put("/kv/meanwhile", "x").await.expect(201);
    let other = &cluster.nodes[1];
    eventually(SOON, "the honest two go on", async || {
        let status = other.client.get("/kv/meanwhile").await.status;
        ensure(status == 200, || status.to_string())
    })
    .await;
    assert_eq!(node.client.fingerprint().await, other.client.fingerprint().await);
    node.client.get("/kv/forged/lie").await.refused(404, "key_not_found");
    drop(liar);
    cluster.converged().await;
}

#[tokio::test]
async fn a_session_with_a_silent_member_times_out() {
    let cluster = pair().await;
    let (node, site) = (&cluster.nodes[0], &cluster.site);
    let failed = [("side", "pull"), ("outcome", "failed")];
    let before = node.client.metric("kvs_sync_sessions_total", &failed).await;
    let silent = Impostor::join(site, "n9", node, |_| None).await;
    node.shows(&silent.id, "alive").await;
    grows(node, "kvs_sync_sessions_total", &failed, before).await;
    drop(silent);
    unharmed(&cluster).await;
}

#[tokio::test]
async fn a_repeated_or_altered_sealed_datagram_does_no_harm() {
    let cluster = pair().await;
    let node = &cluster.nodes[0];
    // this socket poses as the seed of a new node and receives its announcement
    let middle = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let mut place = cluster.site.place("n3", &[]);
    let here = middle.local_addr().expect("an address").to_string();
    place.set("gossip.seeds", toml::Value::Array(vec![here.into()]));
    let mut third = place.start().await;
    let mut buffer = [0; 2048];
    let receiving = middle.recv_from(&mut buffer);
    let (length, _) =
        tokio::time::timeout(SOON, receiving).await.expect("an announcement").unwrap();
    let sealed = &buffer[..length];
    let to: SocketAddr = node.gossip.expect("clustered");
    let before = node.client.metric("kvs_gossip_dropped_total", &[]).await;
    for at in 0..length {
        let mut changed = sealed.to_vec();
        changed[at] ^= 1 << (at % 8);
        middle.send_to(&changed, to).await.expect("sent");
    }
    let drops = before + length as u64 / 2;
    grows(node, "kvs_gossip_dropped_total", &[("reason", "unsealed")], drops).await;
    assert!(node.member(&third.id).await.is_none(), "no changed one was heard");
    // the unchanged datagram makes the new node join, however often it comes
    for _ in 0..50 {
        middle.send_to(sealed, to).await.expect("sent");
    }
    node.shows(&third.id, "alive").await;
    third.shows(&node.id, "alive").await;
    third.stop().await;
    node.shows(&third.id, "left").await;
    for _ in 0..50 {
        middle.send_to(sealed, to).await.expect("sent");
    }
    cluster.converged().await;
    node.shows(&third.id, "left").await;
    assert_eq!(node.client.get("/kv/before").await.expect(200).text(), "kept");
}
