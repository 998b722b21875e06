//! A site: the certificates, the secret and the settings that nodes share. A cluster: nodes of one
//! site that know each other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::command::kvs;
use super::node::{Node, Place, set};
use super::wait::{SOON, ensure, eventually};

/// A temporary directory and the settings of its nodes.
pub struct Site {
    home: Arc<TempDir>,
    settings: toml::Table,
    clustered: bool,
}

impl Site {
    /// A site for nodes without a cluster.
    pub fn alone() -> Self {
        let mut settings = toml::Table::new();
        set(&mut settings, "http.listen", "127.0.0.1:0");
        set(&mut settings, "clustering_enabled", false);
        // what is dead stays while a test counts it
        set(&mut settings, "sync.interval", "1d");
        let home = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        Self { home, settings, clustered: false }
    }

    /// A site for nodes of one cluster, with a new authority and a new secret.
    pub fn clustered() -> Self {
        let mut site = Self::alone();
        site.clustered = true;
        kvs(["cert", "ca", "--dir", &site.file("")]).expect(0);
        kvs(["gossip-key", "new", "--file", &site.file("secret")]).expect(0);
        let secret = site.file("secret");
        site.set("clustering_enabled", true)
            .set("gossip.listen", "127.0.0.1:0")
            .set("gossip.key_file", secret)
            .set("gossip.probe_period", "200ms")
            .set("peer.listen", "127.0.0.1:0")
            .set("sync.interval", "1s")
            .set("sync.bootstrap_wait", "1s")
    }

    /// Sets one key in the configuration of all nodes made later.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        set(&mut self.settings, key, value);
        self
    }

    /// The path of a file that the nodes share.
    pub fn file(&self, name: &str) -> String {
        self.path(name).to_str().expect("a path of text").to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join("shared").join(name)
    }

    /// A place for a node with these seeds.
    pub fn place(&self, name: &str, seeds: &[&Node]) -> Place {
        let mut place = Place::new(self.home.clone(), name, self.settings.clone());
        if self.clustered {
            self.certify(name);
            place.set("peer.ca", self.file("ca.pem"));
            place.set("peer.cert", self.file(&format!("{name}.pem")));
            place.set("peer.key", self.file(&format!("{name}-key.pem")));
            let seeds = seeds.iter().filter_map(|seed| seed.gossip);
            let seeds: Vec<_> = seeds.map(|seed| seed.to_string().into()).collect();
            place.set("gossip.seeds", toml::Value::Array(seeds));
        }
        place
    }

    /// Makes certificate and key for `name` if they are missing.
    pub fn certify(&self, name: &str) {
        if !Path::new(&self.file(&format!("{name}.pem"))).exists() {
            kvs(["cert", "node", name, "--dir", &self.file("")]).expect(0);
        }
    }

    /// Starts a node with these seeds.
    pub async fn node(&self, name: &str, seeds: &[&Node]) -> Node {
        self.place(name, seeds).start().await
    }

    /// Starts `count` nodes, n1 to n*count*, with n1 as seed, and waits until they are one cluster.
    pub async fn cluster(self, count: usize) -> Cluster {
        let first = self.node("n1", &[]).await;
        let names: Vec<_> = (2..=count).map(|number| format!("n{number}")).collect();
        let places: Vec<_> = names.iter().map(|name| self.place(name, &[&first])).collect();
        let others = places.into_iter().map(Place::start);
        let others = futures_util::future::join_all(others).await;
        let mut nodes = vec![first];
        nodes.extend(others);
        let mut cluster = Cluster { nodes, site: self };
        cluster.converged().await;
        for node in &mut cluster.nodes {
            node.learn_id().await;
        }
        cluster
    }
}

/// Running nodes of one site.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub site: Site,
}

impl Cluster {
    /// Waits until every node serves, sees all others alive, and all have the same fingerprint.
    pub async fn converged(&self) {
        self.converged_within(SOON).await;
    }

    pub async fn converged_within(&self, within: Duration) {
        let all: Vec<_> = self.nodes.iter().collect();
        converged(&all, within).await;
    }

    /// Lets the sessions of the start end, before a test counts sessions or what they move.
    pub async fn synced(&self) {
        for node in &self.nodes {
            node.client.sync().await;
        }
    }

    /// Applies `change` to the node at `at`; it may replace the node.
    pub async fn replace(&mut self, at: usize, change: impl AsyncFnOnce(Node) -> Node) {
        let node = self.nodes.remove(at);
        self.nodes.insert(at, change(node).await);
    }
}

/// Waits until each of `nodes` serves, sees all others alive, and all have the same fingerprint.
pub async fn converged(nodes: &[&Node], within: Duration) {
    eventually(within, "the nodes converge", async || {
        let mut fingerprints = Vec::new();
        let mut all = Vec::new();
        for node in nodes {
            all.push(node.client.cluster().await);
        }
        for (node, cluster) in nodes.iter().zip(&all) {
            let name = &node.place.name;
            ensure(cluster["node"]["syncing"] == false, || format!("{name} is syncing"))?;
            let members = cluster["members"].as_array().expect("members");
            // one that was founded apart has begun anew under another id
            for (other, of_other) in nodes.iter().zip(&all) {
                let found = members.iter().find(|member| member["id"] == of_other["node"]["id"]);
                let state = found.map_or("nowhere", |m| m["state"].as_str().unwrap_or_default());
                ensure(state == "alive", || format!("{name} sees {} {state}", other.place.name))?;
            }
            ensure(cluster["converged"] == true, || format!("{name} has not converged"))?;
            fingerprints.push(cluster["fingerprint"].clone());
        }
        fingerprints.dedup();
        ensure(fingerprints.len() == 1, || format!("fingerprints differ: {fingerprints:?}"))
    })
    .await;
}
