//! A member that is honest except for its answers: it gossips and has a certificate of the cluster,
//! but answers sessions as the test says, or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kvs::clock::Clock;
use kvs::config::Config;
use kvs::gossip::Gossip;
use kvs::model::{Member, MemberState, NodeId};
use kvs::peer::{Bound, Endpoint, Incoming, StreamKind};
use kvs::proto::stability::{Introduction, LastWord, SessionBegin};
use kvs::proto::wire::{self, Ask, Request, SessionAnswer};
use kvs::telemetry::Metrics;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::cluster::Site;
use super::node::Node;
use super::peer::{Peer, secret};

/// The tasks of the member. Dropping it ends them.
pub struct Impostor {
    pub id: String,
    _tasks: JoinSet<()>,
}

impl Impostor {
    /// Joins the cluster of `seed` under `name`. `answer` makes the frame that answers a request,
    /// or `None` to stay silent.
    pub async fn join(
        site: &Site,
        name: &str,
        seed: &Node,
        answer: impl Fn(Request) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let place = site.place(name, &[seed]);
        place.write_config();
        let config = Config::load(Some(&place.config_file()), &BTreeMap::new(), &[]);
        let config = config.expect("a configuration");
        let (clock, metrics, secret) = (Clock::system(), Metrics::new(), secret(site));
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let bound = Bound::new(&config.peer, name, &clock).expect("a certificate");
        let me = Member {
            id: NodeId::from_bytes(*clock.uuid().as_bytes()),
            name: name.to_owned(),
            joined_at: clock.now(),
            started_at: kvs::model::Timestamp::ZERO,
            gossip: socket.local_addr().expect("an address"),
            peer: bound.local_addr(),
            http: socket.local_addr().expect("an address"),
            software: "test".to_owned(),
        };
        // a node compares with members of its durable set alone
        let said = Peer::connect_as(site, me.clone(), seed).await.counted().await.clone();
        let (streams, mut incoming) = mpsc::channel(16);
        let alone = watch::channel(Vec::new()).1;
        let (m, id) = (metrics.clone(), secret.cluster_id());
        let endpoint = Endpoint::new(bound, me.clone(), id, clock.clone(), m, streams, alone);
        let endpoint = endpoint.expect("an endpoint");
        let gossip = Gossip {
            socket: Box::new(socket),
            me: me.clone(),
            secret: Arc::new(secret),
            settings: config.gossip.clone(),
            known: Vec::new(),
            clock,
            metrics,
            members: watch::channel(vec![(me.clone(), MemberState::Alive)]).0,
            syncing: watch::channel(false).1,
            syncing_members: watch::channel(BTreeSet::new()).0,
            seeds: watch::channel(Vec::new()).0,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(gossip.run(CancellationToken::new()));
        tasks.spawn(async move { endpoint.run(CancellationToken::new()).await });
        let answer = Arc::new(answer);
        tasks.spawn(async move {
            let mut streams = JoinSet::new();
            while let Some(stream) = incoming.recv().await {
                streams.spawn(serve(stream, said.clone(), answer.clone()));
            }
        });
        Self { id: me.id.to_string(), _tasks: tasks }
    }
}

async fn serve(
    incoming: Incoming,
    said: Introduction,
    answer: Arc<impl Fn(Request) -> Option<Vec<u8>>>,
) {
    let Incoming { kind, mut stream, .. } = incoming;
    while let Ok(Some(frame)) = stream.receive().await {
        if kind != StreamKind::Session {
            continue;
        }
        let (id, told) = (said.id, said.told);
        let set = said.set.as_ref().expect("it is counted").name();
        let answer = match wire::decode(&frame).expect("a node sends what a session has") {
            Ask::Open(_) => {
                let clock = Clock::system().now();
                Some(wire::encode(&SessionAnswer::Opened(Introduction { clock, ..said.clone() })))
            }
            Ask::Tell(_) => {
                let begin = SessionBegin { id, set, point: None, have: BTreeMap::new(), told };
                Some(wire::encode(&SessionAnswer::Told(begin)))
            }
            Ask::Compare(request) => answer(request),
            Ask::Close(_) => {
                Some(wire::encode(&SessionAnswer::Closed(LastWord { set: Some(set) })))
            }
            other => panic!("{other:?} of a counted node"),
        };
        if let Some(answer) = answer
            && stream.send(&answer).await.is_err()
        {
            return;
        }
    }
}
