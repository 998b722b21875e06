//! The endpoint over real QUIC on the loopback interface, with honest and with dishonest peers.

use futures_util::future::FutureExt;
use quinn::{Connection, VarInt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;
use crate::model::{NodeId, Timestamp};
use crate::peer::connections::CONNECTIONS_PER_CERTIFICATE_MAX;
use crate::peer::{Dialer, FRAME_BYTES_MAX, Link, PeerError, StreamKind, certificate};

const DEADLINE: Duration = Duration::from_secs(20);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("within the deadline")
}

/// A certificate authority: certificate and key.
struct Ca(String, String);

impl Ca {
    fn new() -> Self {
        let (cert, key) = certificate::make_ca(&Clock::system()).unwrap();
        Self(cert, key)
    }

    /// TLS with a certificate for `name` from this authority, trusting `trusted`. The two need not
    /// match.
    fn tls(&self, name: &str, trusted: &Self) -> Tls {
        let clock = Clock::system();
        let (cert, key) = certificate::make_node(&clock, &self.0, &self.1, name, &[]).unwrap();
        let der = |pem: &str| vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
        let material = tls::Material {
            authorities: der(&trusted.0),
            chain: der(&cert),
            key: PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        };
        tls::configure(material, &clock).unwrap()
    }
}

struct Node {
    endpoint: Arc<Endpoint>,
    me: Member,
    incoming: mpsc::Receiver<Incoming>,
    metrics: Arc<Metrics>,
    /// Receives the members that this node sees.
    shown: watch::Sender<Vec<(Member, MemberState)>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Node {
    fn start(tls: Tls, name: &str, id: u128, cluster: u128) -> Self {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let me = Member {
            id: NodeId::from_u128(id),
            name: name.into(),
            joined_at: Timestamp::saturating(1),
            started_at: Timestamp::ZERO,
            gossip: nowhere,
            peer: nowhere,
            http: nowhere,
            software: "test".into(),
        };
        Self::start_as(tls, me, cluster)
    }

    /// A node like `me`, at addresses of its own.
    fn start_as(tls: Tls, me: Member, cluster: u128) -> Self {
        let bound = Bound::with_tls(tls, "127.0.0.1:0".parse().unwrap()).unwrap();
        let own = bound.local_addr();
        let me = Member { gossip: own, peer: own, http: own, ..me };
        let metrics = Metrics::new();
        let (sender, incoming) = mpsc::channel(16);
        let (shown, members) = watch::channel(Vec::new());
        let cluster = Uuid::from_u128(cluster);
        let (clock, own) = (Clock::system(), me.clone());
        let new =
            Endpoint::new(bound, own, cluster, clock, metrics.clone(), sender, members).unwrap();
        let (endpoint, stop) = (Arc::new(new), CancellationToken::new());
        let (running, stopped) = (endpoint.clone(), stop.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { running.run(stopped).await });
        Self { endpoint, me, incoming, metrics, shown, stop, tasks }
    }

    /// A node of cluster 1, certified by `ca`.
    fn good(ca: &Ca, name: &str, id: u128) -> Self {
        Self::start(ca.tls(name, ca), name, id, 1)
    }

    async fn dial(&self, to: &Member) -> Result<Arc<dyn Link>, PeerError> {
        within(self.endpoint.dial(to)).await
    }

    async fn refused(&self, to: &Member) -> String {
        match self.dial(to).await {
            Err(PeerError::Refused(why)) => why,
            Err(other) => panic!("not refused, but {other}"),
            Ok(_) => panic!("not refused"),
        }
    }

    fn count(&self, reason: &'static str) -> u64 {
        self.metrics.peer_refused.get_or_create(&[("reason", reason)]).get()
    }

    /// Waits until `reason` was counted `n` times.
    async fn counted(&self, reason: &'static str, n: u64) {
        within(async {
            while self.count(reason) < n {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        assert_eq!(self.count(reason), n, "{reason}");
    }

    /// Sends a frame from `from` to this node and back.
    async fn serves(&mut self, from: &Self) {
        let link = from.dial(&self.me).await.unwrap();
        let mut there = within(link.open(StreamKind::Session)).await.unwrap();
        within(there.send(b"ping")).await.unwrap();
        let mut here = within(self.incoming.recv()).await.unwrap();
        assert_eq!((here.kind, &here.from), (StreamKind::Session, &from.me));
        assert_eq!(within(here.stream.receive()).await.unwrap().unwrap(), &b"ping"[..]);
        within(here.stream.send(b"pong")).await.unwrap();
        assert_eq!(within(there.receive()).await.unwrap().unwrap(), &b"pong"[..]);
    }

    /// A connection after the TLS handshake, before any hello.
    async fn raw(&self, to: &Self) -> Connection {
        let client = self.endpoint.client();
        let to = &to.me;
        within(self.endpoint.quic.connect_with(client, to.peer, &to.name).unwrap()).await.unwrap()
    }

    /// Sends `bytes` instead of a hello on a new connection; returns its close code.
    async fn greeted_with(&self, to: &Self, bytes: &[u8]) -> VarInt {
        let connection = self.raw(to).await;
        let (mut writer, _reader) = connection.open_bi().await.unwrap();
        writer.write_all(bytes).await.unwrap();
        writer.finish().unwrap();
        closed_with(&connection).await
    }

    /// A connection after the exchange of hellos, without a [`Link`] around it.
    async fn greeted(&self, to: &Self) -> Connection {
        let connection = self.raw(to).await;
        let (mut writer, mut reader) = connection.open_bi().await.unwrap();
        let hello = &self.endpoint.shared.own_bytes;
        writer.write_all(&u32::try_from(hello.len()).unwrap().to_le_bytes()).await.unwrap();
        writer.write_all(hello).await.unwrap();
        writer.finish().unwrap();
        within(reader.read_to_end(4096)).await.unwrap();
        connection
    }
}

async fn closed_with(connection: &Connection) -> VarInt {
    match within(connection.closed()).await {
        quinn::ConnectionError::ApplicationClosed(close) => close.error_code,
        other => panic!("{other}"),
    }
}

fn pair() -> (Ca, Node, Node) {
    let ca = Ca::new();
    let (n1, n2) = (Node::good(&ca, "n1", 1), Node::good(&ca, "n2", 2));
    (ca, n1, n2)
}

#[tokio::test]
async fn two_nodes_exchange_frames_both_ways_up_to_the_longest() {
    let (_ca, mut n1, mut n2) = pair();
    n1.serves(&n2).await;
    n2.serves(&n1).await;
    let link = n1.dial(&n2.me).await.unwrap();
    let mut there = link.open(StreamKind::Push).await.unwrap();
    let longest: Vec<u8> = (0..FRAME_BYTES_MAX).map(|i| i.to_le_bytes()[0]).collect();
    let echo = async {
        let incoming = n2.incoming.recv().await.unwrap();
        assert_eq!((incoming.kind, incoming.from), (StreamKind::Push, n1.me.clone()));
        let (mut sender, mut receiver) = incoming.stream.split();
        while let Some(frame) = receiver.receive().await.unwrap() {
            sender.send(&frame).await.unwrap();
        }
        sender.finish().await.unwrap();
        (sender.bytes(), receiver.bytes())
    };
    let say = async {
        for frame in [&b"first"[..], b"", &longest] {
            there.send(frame).await.unwrap();
            assert_eq!(there.receive().await.unwrap().unwrap(), frame);
        }
        there.finish().await.unwrap();
        assert!(there.receive().await.unwrap().is_none());
    };
    let ((sent, received), ()) = within(async { tokio::join!(echo, say) }).await;
    // only the opener sends the frame that names the kind
    assert_eq!((there.bytes_sent(), there.bytes_received()), (received, sent));
    assert_eq!(received, sent + 5);
    let bytes = |node: &Node, direction, stream| {
        let labels = [("direction", direction), ("stream", stream)];
        node.metrics.peer_bytes.get_or_create(&labels).get()
    };
    assert_eq!(bytes(&n1, "sent", "push"), received);
    assert_eq!(bytes(&n2, "received", "push"), received);
    assert_eq!(bytes(&n2, "sent", "push"), sent);
    assert!(bytes(&n1, "sent", "hello") > 0);
    assert_eq!(bytes(&n1, "sent", "hello"), bytes(&n2, "received", "hello"));
}

#[tokio::test]
async fn a_stop_ends_links_and_streams_and_later_dials_are_unreachable() {
    let (ca, mut n1, mut n2) = pair();
    let link = n1.dial(&n2.me).await.unwrap();
    let mut stream = link.open(StreamKind::Session).await.unwrap();
    within(stream.send(b"x")).await.unwrap();
    let _incoming = within(n2.incoming.recv()).await.unwrap();
    assert!(link.closed().now_or_never().is_none());
    let side =
        |node: &Node, side| node.metrics.peer_connections.get_or_create(&[("side", side)]).get();
    assert_eq!((side(&n1, "dialed"), side(&n2, "accepted")), (1, 1));
    n2.stop.cancel();
    within(n2.tasks.join_next()).await.unwrap().unwrap();
    within(link.closed()).await;
    assert!(matches!(within(stream.receive()).await, Err(PeerError::Unreachable(_))));
    assert!(matches!(link.open(StreamKind::Push).await, Err(PeerError::Unreachable(_))));
    assert!(matches!(n1.dial(&n2.me).await, Err(PeerError::Unreachable(_))));
    drop(link);
    assert_eq!((side(&n1, "dialed"), side(&n2, "accepted")), (0, 0));
    let n3 = Node::good(&ca, "n3", 3);
    n1.serves(&n3).await;
}

#[tokio::test]
async fn certificates_of_another_authority_are_refused_on_both_sides() {
    let (ca, mut n1, n2) = pair();
    let foreign = Ca::new();
    let stranger = Node::start(foreign.tls("n3", &foreign), "n3", 3, 1);
    let why = stranger.refused(&n1.me).await;
    assert!(why.contains("kvs cert node n1"), "{why}");
    stranger.counted("tls", 1).await;
    n1.counted("tls", 1).await;

    let credulous = Node::start(foreign.tls("n4", &ca), "n4", 4, 1);
    let why = credulous.refused(&n1.me).await;
    assert!(why.contains("rejects this node's certificate"), "{why}");
    n1.counted("tls", 2).await;
    n1.serves(&n2).await;
}

#[tokio::test]
async fn a_peer_without_a_certificate_is_refused() {
    let (ca, mut n1, n2) = pair();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.0.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut bare = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    bare.alpn_protocols = vec![b"kvs/1".to_vec()];
    let bare = quinn::crypto::rustls::QuicClientConfig::try_from(bare).unwrap();
    let bare = quinn::ClientConfig::new(Arc::new(bare));
    let connecting = n2.endpoint.quic.connect_with(bare, n1.me.peer, "n1").unwrap();
    if let Ok(connection) = within(connecting).await {
        within(connection.closed()).await;
    }
    n1.counted("tls", 1).await;
    n1.serves(&n2).await;
}

#[tokio::test]
async fn a_peer_with_another_name_or_another_id_is_refused() {
    let (ca, mut n1, n2) = pair();
    let liar = Node::start(ca.tls("n3", &ca), "n9", 3, 1);
    let why = liar.refused(&n1.me).await;
    assert!(why.contains("n9") && why.contains("n3"), "{why}");
    n1.counted("name", 1).await;

    // first a name that the certificate lacks, then another node's id
    let why = n2.refused(&Member { name: "n7".into(), ..n1.me.clone() }).await;
    assert!(why.contains("n7"), "{why}");
    n2.counted("tls", 1).await;
    let why = n2.refused(&Member { id: NodeId::from_u128(7), ..n1.me.clone() }).await;
    assert!(why.contains("peer.advertise"), "{why}");
    n2.counted("name", 1).await;
    n1.serves(&n2).await;
}

/// The process that answers the dial, or that the answer names.
async fn double(from: &Node, to: &Node) -> Option<NodeId> {
    match from.dial(&to.me).await {
        Err(PeerError::Copy(double)) => {
            assert_ne!(double.peer, from.me.peer);
            Some(double.id)
        }
        Err(other) => panic!("{other}"),
        Ok(_) => None,
    }
}

#[tokio::test]
async fn a_process_under_the_id_of_another_is_refused_by_that_one_and_by_who_sees_it_up() {
    let (ca, mut n1, n2) = pair();
    let mut copy = Node::good(&ca, "n3", 1);
    assert_eq!(double(&copy, &n1).await, Some(n1.me.id));
    n1.counted("copy", 1).await;
    // n2 sees nobody, then the one as another process that started before, and at last as itself
    assert_eq!(double(&copy, &n2).await, None);
    let started_at = |micros| Member { started_at: Timestamp::saturating(micros), ..n1.me.clone() };
    copy = Node::start_as(ca.tls("n3", &ca), Member { name: "n3".into(), ..started_at(2) }, 1);
    for (member, state, is_refused) in [
        (started_at(1), MemberState::Alive, true),
        (started_at(1), MemberState::Suspect, true),
        (started_at(1), MemberState::Down, false),
        (started_at(1), MemberState::Left, false),
        (started_at(3), MemberState::Alive, false),
        (copy.me.clone(), MemberState::Alive, false),
    ] {
        n2.shown.send_replace(vec![(member, state)]);
        assert_eq!(double(&copy, &n2).await.is_some(), is_refused, "{state:?}");
    }
    n2.counted("copy", 2).await;
    n1.serves(&n2).await;
}

#[tokio::test]
async fn a_peer_of_another_cluster_is_refused_by_name() {
    let (ca, mut n1, n2) = pair();
    let other = Node::start(ca.tls("n3", &ca), "n3", 3, 2);
    let why = other.refused(&n1.me).await;
    let ids = [Uuid::from_u128(1), Uuid::from_u128(2)].map(|id| id.to_string());
    assert!(why.contains("\"n3\"") && ids.iter().all(|id| why.contains(id)), "{why}");
    n1.counted("cluster", 1).await;
    n1.serves(&n2).await;
}

#[tokio::test]
async fn malformed_hellos_are_refused_and_counted() {
    let (_ca, mut n1, n2) = pair();
    for (i, bytes) in
        [&b""[..], &[3, 0, 0, 0, 9, 9, 9], &[9, 0, 0, 0, 1], &[0, 0, 0, 0]].iter().enumerate()
    {
        assert_eq!(n2.greeted_with(&n1, bytes).await, VarInt::from_u32(4));
        n1.counted("malformed", u64::try_from(i).unwrap() + 1).await;
    }
    assert_eq!(n2.greeted_with(&n1, &[1, 16, 0, 0]).await, VarInt::from_u32(5));
    n1.counted("oversized", 1).await;
    n1.serves(&n2).await;
}

#[tokio::test]
async fn a_peer_that_stays_silent_is_timed_out() {
    let (_ca, mut n1, n2) = pair();
    let silent = n2.raw(&n1).await;
    n1.serves(&n2).await;
    assert_eq!(closed_with(&silent).await, VarInt::from_u32(6));
    n1.counted("timeout", 1).await;
}

#[tokio::test]
async fn a_bad_stream_is_refused_and_its_connection_lives_on() {
    let (_ca, mut n1, n2) = pair();
    let connection = n2.greeted(&n1).await;
    let (mut writer, mut reader) = connection.open_bi().await.unwrap();
    writer.write_all(&[1, 0, 0, 0, 77]).await.unwrap();
    let reset = within(reader.read_to_end(1)).await.unwrap_err();
    assert!(reset.to_string().contains("reset"), "{reset}");
    n1.counted("malformed", 1).await;

    // a truncated frame, then an oversized one
    for (bytes, reason) in [(&[9, 0, 0, 0, 1][..], "malformed"), (&[1, 0, 16, 1], "oversized")] {
        let before = n1.count(reason);
        let (mut writer, _reader) = connection.open_bi().await.unwrap();
        writer.write_all(&StreamKind::Push.frame()).await.unwrap();
        writer.write_all(bytes).await.unwrap();
        writer.finish().unwrap();
        let mut incoming = within(n1.incoming.recv()).await.unwrap();
        let error = within(incoming.stream.receive()).await.unwrap_err();
        assert!(matches!(error, PeerError::Malformed(_)), "{error}");
        n1.counted(reason, before + 1).await;
    }
    // the acceptor may not open streams, and unidirectional ones are off
    assert!(connection.open_uni().now_or_never().is_none());
    assert!(connection.close_reason().is_none());
    n1.serves(&n2).await;
}

#[tokio::test]
async fn a_further_connection_of_one_certificate_closes_the_oldest() {
    let (_ca, mut n1, n2) = pair();
    let first = n2.dial(&n1.me).await.unwrap();
    let mut links = Vec::new();
    for _ in 0..CONNECTIONS_PER_CERTIFICATE_MAX {
        links.push(n2.dial(&n1.me).await.unwrap());
    }
    within(first.closed()).await;
    assert!(links.iter().all(|link| link.closed().now_or_never().is_none()));
    n1.serves(&n2).await;
}

#[tokio::test]
async fn garbage_datagrams_do_no_harm() {
    let (_ca, mut n1, n2) = pair();
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let clock = Clock::system();
    for i in 0..4000_usize {
        let mut datagram = clock.random::<1400>();
        // every second one looks like the first packet of a connection
        if i % 2 == 0 {
            datagram[0] = 0xc0 | (datagram[0] & 0x0f);
            datagram[1..6].copy_from_slice(&[0, 0, 0, 1, 8]);
        }
        let length = if i % 3 == 0 { 1 + i % 1400 } else { 1400 };
        // a send may fail: the test needs most of them, not each
        let _ = socket.send_to(&datagram[..length], n1.me.peer).await;
    }
    n1.serves(&n2).await;
    assert_eq!(n1.endpoint.quic.open_connections(), 1);
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let (ca, n1, _n2) = pair();
    let error = Bound::with_tls(ca.tls("n3", &ca), n1.me.peer).err().unwrap().to_string();
    assert!(error.contains("peer.listen") && error.contains(&n1.me.peer.to_string()), "{error}");
}
