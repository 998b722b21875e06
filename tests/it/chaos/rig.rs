//! A cluster whose links and nodes can be made to fail.
//!
//! All traffic between nodes goes through the proxy, which delays, repeats, reorders and throttles.
//! With namespaces, each node has its own network, and the kernel cuts links and loses packets.
//! Without them, each node has its own loopback address, and the proxy does that too.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use kvs::model::{Content, Key, Timestamp};
use tokio::sync::watch;
use uuid::Uuid;

use super::audit::{Held, Origin, Origins};
use super::clients::Crowd;
use crate::crash::kill_writes;
use crate::support::client::text;
use crate::support::netns::{self, Networks};
use crate::support::node::Surroundings;
use crate::support::proxy::{Addresses, Link, Proxy};
use crate::support::skew::{Skew, SkewedClock};
use crate::support::{Client, Node, SOON, Site, cluster::converged, ensure, eventually, peer};

pub const NODES: usize = 4;
const GOSSIP: u16 = 7946;
const PEER: u16 = 7947;
/// The node that has its own small disk.
pub const SMALL_DISK: usize = NODES - 1;
/// Enough for a node with little data to open, and small enough to fill quickly.
const SMALL_DISK_MIB: usize = 160;

pub struct Rig {
    pub nodes: Vec<Node>,
    pub origins: Origins,
    targets: Vec<watch::Sender<Client>>,
    clocks: Vec<SkewedClock>,
    proxy: Proxy,
    networks: Option<Networks>,
    addresses: Addresses,
    links: Vec<Vec<Link>>,
    small_disk: Option<PathBuf>,
    site: Site,
}

/// Prints that the test left something out, even when the test passes.
pub fn skipped(what: &str, why: &str) {
    // `eprintln!` would be captured by the test harness
    let _ = writeln!(std::io::stderr(), "chaos: SKIPPED {what}: {why}");
}

impl Rig {
    pub async fn new(seed: u64) -> Self {
        let (proxy, networks, addresses) = network(seed).await;
        let site = Site::clustered().set("http.insecure", true);
        let clocks = clocks(&site);
        let small_disk = netns::is_inside().then(|| {
            let dir = PathBuf::from(site.file("disk"));
            let shown = dir.display();
            netns::must(&format!(
                "mkdir -p {shown}; mount -t tmpfs -o size={SMALL_DISK_MIB}m none {shown}"
            ));
            dir
        });
        let at = |face: Ipv4Addr, port| SocketAddr::from((face, port)).to_string();
        let mut starting = Vec::new();
        for number in 0..NODES {
            let mut place = site.place(&format!("n{}", number + 1), &[]);
            let (home, face) = (addresses.homes[number], addresses.faces[number]);
            place.set("http.listen", at(home, 0));
            for (part, port) in [("gossip", GOSSIP), ("peer", PEER)] {
                place.set(&format!("{part}.listen"), at(home, port));
                place.set(&format!("{part}.advertise"), at(face, port));
            }
            let others = addresses.faces.iter().filter(|other| **other != face);
            let seeds = others.map(|face| at(*face, GOSSIP).into()).collect();
            place.set("gossip.seeds", toml::Value::Array(seeds));
            if let Some(disk) = small_disk.as_ref().filter(|_| number == SMALL_DISK) {
                place.set("node.data_dir", disk.join("data").to_str().expect("text"));
                place.set("storage.free_bytes_min", 16 << 20);
            }
            let through = networks.as_ref().map(|n| n.enter(number)).unwrap_or_default();
            let environment = clocks.get(number).map(|c| c.environment.clone()).unwrap_or_default();
            place.surround(Surroundings { through, environment, ..Surroundings::default() });
            starting.push(place.start());
        }
        let nodes = futures_util::future::join_all(starting).await;
        let targets = nodes.iter().map(|node| watch::channel(node.client.clone()).0).collect();
        let links = vec![vec![Link::default(); NODES]; NODES];
        let origins = Origins::new();
        let mut rig = Self {
            nodes,
            origins,
            targets,
            clocks,
            proxy,
            networks,
            addresses,
            links,
            small_disk,
            site,
        };
        rig.converged().await;
        for at in 0..NODES {
            rig.nodes[at].learn_id().await;
            rig.enter_origin(at).await;
        }
        rig
    }

    pub fn crowd(&self, seed: u64) -> Crowd {
        let nodes: Vec<_> = self.targets.iter().map(watch::Sender::subscribe).collect();
        Crowd::start(&nodes, seed)
    }

    /// Records the current id of the node.
    async fn enter_origin(&mut self, at: usize) {
        let node = &self.nodes[at];
        let own = node.client.cluster().await["node"].clone();
        let joined_at = Timestamp::from_rfc3339(&text(&own["joined_at"])).expect("a time");
        let name = node.place.name.clone();
        let id: Uuid = node.id.parse().expect("a uuid");
        let origin = Origin { name, joined_at, emptied_at: None };
        self.origins.entry(id).or_insert(origin);
    }

    // --- links -----------------------------------------------------------------------------------

    /// Changes the link from one node to another.
    pub fn link(&mut self, from: usize, to: usize, change: impl Fn(&mut Link)) {
        change(&mut self.links[from][to]);
    }

    /// Changes every link.
    pub fn every_link(&mut self, change: impl Fn(&mut Link)) {
        for (from, to) in pairs() {
            self.link(from, to, &change);
        }
    }

    /// Makes the changes of links take effect.
    pub fn rewire(&self) {
        for (from, to) in pairs() {
            let link = self.links[from][to];
            // the kernel already loses these packets
            let loss = if self.networks.is_some() { 0.0 } else { link.loss };
            self.proxy.set(from, to, Link { loss, ..link });
        }
        let Some(networks) = &self.networks else { return };
        for to in 0..NODES {
            let losses: Vec<_> = (0..NODES)
                .map(|from| (self.addresses.faces[from], self.links[from][to].loss))
                .collect();
            networks.lose(to, &losses);
        }
    }

    /// Removes the faults of all links.
    pub fn heal(&mut self) {
        self.every_link(|link| *link = Link::default());
        self.rewire();
    }

    // --- nodes -----------------------------------------------------------------------------------

    async fn replace(&mut self, at: usize, change: impl AsyncFnOnce(Node) -> Node) {
        let node = self.nodes.remove(at);
        self.nodes.insert(at, change(node).await);
        self.targets[at].send_replace(self.nodes[at].client.clone());
        self.enter_origin(at).await;
    }

    pub async fn kill_and_restart(&mut self, at: usize) {
        let id = self.nodes[at].id.clone();
        self.replace(at, Node::kill_and_restart).await;
        assert_eq!(self.nodes[at].id, id, "a node stays who it is");
    }

    /// Kills the node and starts it on an empty disk. Writes that it acknowledged before it last
    /// shared everything must survive; later ones may be lost with the disk.
    pub async fn empty(&mut self, at: usize, crowd: &Crowd) {
        let client = self.nodes[at].client.clone();
        let shared_at = eventually(SOON, "a session with some peer ends well", async || {
            let began = crowd.now();
            let answer = client.post("/cluster/sync", "").await.expect(200).json();
            let peers = answer["peers"].as_array().expect("peers");
            let well = peers.iter().any(|peer| peer.get("error").is_none());
            ensure(well, || answer.to_string())?;
            Ok(began)
        })
        .await;
        let id: Uuid = self.nodes[at].id.parse().expect("a uuid");
        self.origins.get_mut(&id).expect("it was entered").emptied_at = Some(shared_at);
        self.nodes[at].kill();
        fs::remove_dir_all(self.nodes[at].place.data_dir()).expect("the disk is emptied");
        self.replace(at, Node::restart).await;
        assert_ne!(self.nodes[at].id, id.to_string(), "an empty disk makes a new node");
    }

    /// Fills the small disk until its node refuses writes, then makes room and waits until the
    /// node accepts writes again. Returns whether there is a small disk.
    pub async fn fill_disk(&mut self) -> bool {
        let Some(disk) = self.small_disk.clone() else { return false };
        let node = &mut self.nodes[SMALL_DISK];
        node.place.bear("No space left on device");
        node.place.bear("the database is being opened again");
        node.place.bear("the disk is full but for a reserve");
        let filler = disk.join("filler");
        // the node notices a full disk when it needs room; large values make it need room soon
        let large = vec![7; 1 << 20];
        eventually(SOON, "a full disk is told", async || {
            fill(&filler);
            let answer = node.client.put("/kv/filler", large.clone()).await;
            ensure(answer.code() == "storage_full", || answer.text())
        })
        .await;
        fs::remove_file(&filler).expect("room is made");
        eventually(SOON, "the node takes writes again by itself", async || {
            let answer = node.client.put("/kv/filler", "small").await;
            ensure(matches!(answer.status, 200 | 201), || answer.text())
        })
        .await;
        true
    }

    /// Shifts the node's wall clock by `millis`; returns whether this machine can do that.
    pub fn set_clock(&self, at: usize, millis: i64) -> bool {
        let clock = self.clocks.get(at);
        clock.iter().for_each(|clock| clock.set(millis));
        clock.is_some()
    }

    // --- the end ---------------------------------------------------------------------------------

    pub async fn converged(&self) {
        converged(&self.nodes.iter().collect::<Vec<_>>(), SOON).await;
    }

    /// Waits until all nodes agree, stops them in order, and returns the records on their disks,
    /// deletes included.
    pub async fn end(mut self, keys: &[String]) -> BTreeMap<String, Held> {
        self.converged().await;
        let mut exports = Vec::new();
        for node in &self.nodes {
            let accept = [("accept", "application/x-ndjson")];
            let path = "/scan/?values=true";
            exports
                .push(node.client.send(reqwest::Method::GET, path, &accept, "").await.expect(200));
        }
        for (export, node) in exports.iter().zip(&self.nodes) {
            assert!(export.body == exports[0].body, "{} exports other bytes", node.place.name);
        }
        let digest_key = peer::secret(&self.site).digest_key();
        for node in &mut self.nodes {
            node.stop().await;
        }
        kill_writes::hold_the_same(&self.nodes, digest_key).await;
        let store = kill_writes::opened(&self.nodes[0].place.data_dir(), digest_key);
        let held = keys.iter().filter_map(|key| {
            let record =
                store.record_now(&Key::parse(key).expect("a key")).expect("it is whole")?;
            let value = String::from_utf8(record.body.to_vec()).expect("text");
            let made = (record.header.content != Content::Tombstone).then_some(value);
            Some((key.clone(), (record.header.version, made)))
        });
        held.collect()
    }
}

/// All links, as (from, to).
fn pairs() -> impl Iterator<Item = (usize, usize)> {
    let all = (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to)));
    all.filter(|(from, to)| from != to)
}

/// The proxy: between namespaces when this process runs inside of them, else on loopback addresses
/// that no other test uses.
async fn network(seed: u64) -> (Proxy, Option<Networks>, Addresses) {
    static NETWORKS: AtomicU32 = AtomicU32::new(0);
    let count = u8::try_from(NODES).expect("a few");
    if netns::is_inside() {
        let addresses = Addresses::new([10, 77, 0], count);
        let own = Ipv4Addr::new(10, 77, 0, 254);
        let networks = Networks::new(own, &addresses.homes, &addresses.faces).await;
        let proxy = Proxy::new(&addresses, &[GOSSIP, PEER], seed).await;
        return (proxy.expect("the faces are ours"), Some(networks), addresses);
    }
    eventually(SOON, "free loopback addresses", async || {
        let number = std::process::id().wrapping_add(NETWORKS.fetch_add(7919, SeqCst));
        let [_, _, b, c] = number.to_be_bytes();
        let addresses = Addresses::new([127, 1 + b % 250, c], count);
        let proxy = Proxy::new(&addresses, &[GOSSIP, PEER], seed).await;
        Ok((proxy.map_err(|e| e.to_string())?, None, addresses))
    })
    .await
}

/// A clock for each node; empty where the C library cannot be built.
fn clocks(site: &Site) -> Vec<SkewedClock> {
    match Skew::build(site.file("").as_ref()) {
        Ok(skew) => {
            (0..NODES).map(|at| skew.clock(site.file(&format!("clock{at}")).as_ref())).collect()
        }
        Err(error) => {
            skipped("clocks that are off", &error);
            Vec::new()
        }
    }
}

/// Appends to the file `name` until the disk is full.
fn fill(name: &std::path::Path) {
    let mut file = File::options().create(true).append(true).open(name).expect("a filler");
    let block = vec![0; 1 << 16];
    loop {
        match file.write(&block) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return,
            Err(error) => panic!("the filler: {error}"),
        }
    }
}
