//! A peer that holds a real certificate of the cluster and sends arbitrary bytes.
//!
//! It implements QUIC and the hello itself, because the product's endpoint cannot send truncated or
//! oversized frames.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kvs::clock::Clock;
use kvs::model::{Member, NodeId, Timestamp};
use kvs::proto::secret::Secret;
use kvs::proto::stability::{Introduction, Ledger, SessionBegin, Start};
use kvs::proto::wire::{self, Ask, Push, Request, Response, SessionAnswer, WireRecord};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use uuid::Uuid;

use super::cluster::Site;
use super::node::Node;

const WAIT: Duration = Duration::from_secs(30);
const PUSH: u8 = 1;
const SESSION: u8 = 2;
const FRAME_BYTES_MAX: usize = 17 << 20;

/// The hello, as `src/peer/hello.rs` decodes it after its format byte.
#[derive(Serialize)]
struct Hello {
    protocol: u16,
    #[serde(with = "uuid::serde::compact")]
    cluster_id: Uuid,
    member: Member,
}

/// A connection to one node, after the exchange of hellos.
pub struct Peer {
    connection: Connection,
    _endpoint: Endpoint,
    me: Member,
    /// What it says of itself once the node has counted it.
    counted: OnceCell<Introduction>,
}

impl Peer {
    /// Connects to `to` as the node `name` of `site`.
    pub async fn connect(site: &Site, name: &str, to: &Node) -> Self {
        Self::connect_as(site, stranger(name), to).await
    }

    /// Connects to `to` as the node `me` of `site`.
    pub async fn connect_as(site: &Site, me: Member, to: &Node) -> Self {
        let name = &*me.name.clone();
        let mut peer = Self::dial(site, name, to).await.expect("the certificate is good");
        peer.me = me;
        let answer = peer.says_hello(secret(site).cluster_id(), name).await;
        assert!(answer.is_some_and(|bytes| bytes.first() == Some(&1)), "a hello comes back");
        peer
    }

    /// Connects without sending a hello.
    pub async fn dial(site: &Site, name: &str, to: &Node) -> Result<Self, String> {
        site.certify(name);
        Self::dial_certified_by(site, name, to).await
    }

    /// Connects without sending a hello, with the existing certificate of `name`.
    pub async fn dial_certified_by(site: &Site, name: &str, to: &Node) -> Result<Self, String> {
        let mut endpoint =
            Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a UDP socket");
        endpoint.set_default_client_config(client_config(site, name));
        let address = to.peer.expect("it is clustered");
        let connecting = endpoint.connect(address, &to.place.name).expect("a name");
        let connection = timeout(WAIT, connecting).await.expect("an answer");
        let connection = connection.map_err(|e| e.to_string())?;
        let (me, counted) = (stranger(name), OnceCell::new());
        Ok(Self { connection, _endpoint: endpoint, me, counted })
    }

    /// Joins the durable set of the node, as an empty node does; gives what it says of itself from
    /// then on.
    pub async fn counted(&self) -> &Introduction {
        self.counted.get_or_init(async || self.join_set().await).await
    }

    async fn join_set(&self) -> Introduction {
        let (mut to, mut from) = self.open_session().await;
        let mut ask = async |ask: &Ask| -> SessionAnswer {
            to.write_all(&framed(&wire::encode(ask))).await.expect("it takes it");
            let frame = read_frame(&mut from).await.expect("an answer");
            wire::decode(&frame).expect("an answer of a session")
        };
        let start = Start { at: Clock::system().now(), random: 7 };
        let ledger = Ledger::empty(self.me.id, start);
        let now = Clock::system().now();
        let opened = ask(&Ask::Open(ledger.introduce(now))).await;
        assert!(matches!(opened, SessionAnswer::Opened(_)), "{opened:?}");
        let mut answer = ask(&Ask::Follow).await;
        loop {
            let SessionAnswer::Offered(offer) = answer else { panic!("{answer:?}") };
            answer = ask(&Ask::Count).await;
            if let SessionAnswer::Counted(set) = answer {
                let (floor, told) = (offer.floor, offer.told);
                let introduction = ledger.introduce(now);
                break Introduction { counted: true, set: Some(set), floor, told, ..introduction };
            }
        }
    }

    /// Sends a hello with that cluster and name; returns the answer.
    pub async fn says_hello(&self, cluster_id: Uuid, name: &str) -> Option<Vec<u8>> {
        let member = Member { name: name.to_owned(), ..self.me.clone() };
        let hello = Hello { protocol: 2, cluster_id, member };
        let config = bincode::config::standard();
        let mut bytes = vec![1];
        bytes.extend(bincode::serde::encode_to_vec(hello, config).expect("plain data"));
        self.first_stream(&framed(&bytes)).await
    }

    /// Sends `bytes` as the whole first stream; returns the frame that answers, if any.
    pub async fn first_stream(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let (mut to, mut from) = self.connection.open_bi().await.ok()?;
        to.write_all(bytes).await.ok()?;
        // fails if the node has refused the connection already
        let _ = to.finish();
        read_frame(&mut from).await
    }

    /// Opens a stream that begins with these arbitrary bytes.
    pub async fn open_with(&self, bytes: &[u8]) -> (SendStream, RecvStream) {
        let opened = timeout(WAIT, self.connection.open_bi()).await.expect("it allows one");
        let (mut to, from) = opened.expect("the connection is open");
        to.write_all(bytes).await.expect("it takes them");
        (to, from)
    }

    pub async fn open_push(&self) -> (SendStream, RecvStream) {
        self.open_with(&framed(&[PUSH])).await
    }

    pub async fn open_session(&self) -> (SendStream, RecvStream) {
        self.open_with(&framed(&[SESSION])).await
    }

    /// Pushes records as a member, and waits until the node has read them all or ended the stream.
    pub async fn push(&self, records: Vec<WireRecord>) {
        let (mut to, _from) = self.open_push().await;
        let hello = Push::Hello(self.counted().await.clone());
        for message in [hello, Push::Records(records)] {
            to.write_all(&framed(&wire::encode(&message))).await.expect("it takes them");
        }
        to.finish().expect("the stream is open");
        // resolves when the node has acknowledged all, or stopped the stream
        let _ = timeout(WAIT, to.stopped()).await.expect("it takes note");
    }

    /// Sends requests of a comparison on a new stream, as a member, and returns the answers.
    pub async fn ask(&self, requests: &[Request]) -> Vec<Response> {
        let me = self.counted().await.clone();
        let set = me.set.as_ref().expect("it is counted").name();
        let (id, told) = (me.id, me.told);
        let begin = SessionBegin { id, set, point: None, have: BTreeMap::new(), told };
        let begun = [Ask::Open(me), Ask::Tell(begin)];
        let asks = begun.into_iter().chain(requests.iter().cloned().map(Ask::Compare));
        let (mut to, mut from) = self.open_session().await;
        let mut answers = Vec::new();
        for ask in asks {
            to.write_all(&framed(&wire::encode(&ask))).await.expect("it takes it");
            let frame = read_frame(&mut from).await.expect("an answer");
            match wire::decode(&frame).expect("an answer of a session") {
                SessionAnswer::Compared(response) => answers.push(response),
                SessionAnswer::Opened(_) | SessionAnswer::Told(_) => {}
                other => panic!("{other:?}"),
            }
        }
        answers
    }

    /// Waits until the node closes the connection, and returns the reason.
    pub async fn closed(&self) -> String {
        timeout(WAIT, self.connection.closed()).await.expect("it is closed").to_string()
    }

    /// Whether the connection is still open.
    pub fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }
}

/// A member that no node has met.
fn stranger(name: &str) -> Member {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    Member {
        id: NodeId::from_bytes(Clock::system().random()),
        name: name.to_owned(),
        joined_at: Timestamp::saturating(1),
        started_at: Timestamp::ZERO,
        gossip: nowhere,
        peer: nowhere,
        http: nowhere,
        software: "test".to_owned(),
    }
}

/// The secret of the nodes of `site`.
pub fn secret(site: &Site) -> Secret {
    let text = fs::read_to_string(site.file("secret")).expect("the secret is there");
    Secret::parse(&text).expect("a secret")
}

/// `bytes` as a frame.
pub fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a short frame");
    [&length.to_le_bytes(), bytes].concat()
}

async fn read_frame(from: &mut RecvStream) -> Option<Vec<u8>> {
    let reading = async {
        let mut length = [0; 4];
        from.read_exact(&mut length).await.ok()?;
        let length = u32::from_le_bytes(length) as usize;
        assert!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
        let mut frame = vec![0; length];
        from.read_exact(&mut frame).await.ok()?;
        Some(frame)
    };
    timeout(WAIT, reading).await.expect("an answer or an end")
}

fn client_config(site: &Site, name: &str) -> quinn::ClientConfig {
    let read = |file: &str| fs::read(site.file(file)).expect("the file is there");
    let certificate = |file: &str| CertificateDer::from_pem_slice(&read(file)).expect("PEM");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate("ca.pem")).expect("an authority");
    let key = PrivateKeyDer::from_pem_slice(&read(&format!("{name}-key.pem"))).expect("PEM");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate(&format!("{name}.pem"))], key)
        .expect("a key that goes with it");
    tls.alpn_protocols = vec![b"kvs/1".to_vec()];
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("QUIC")))
}
