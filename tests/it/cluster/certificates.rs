//! Certificates that expire, and new ones that a running node takes.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use kvs::clock::{Clock, Source};
use kvs::model::Timestamp;
use kvs::peer::certificate;

use crate::support::client::text;
use crate::support::command::kvs;
use crate::support::{Node, SOON, Site, cluster::converged, ensure, eventually};

const DAY: Duration = Duration::from_secs(86_400);

/// A clock that shows the time of so long ago.
struct Ago(Duration);

impl Source for Ago {
    fn now(&self) -> Timestamp {
        let now = Clock::system().now();
        Timestamp::saturating(now.micros() - u64::try_from(self.0.as_micros()).expect("years"))
    }

    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill_with(|| Clock::system().random::<1>()[0]);
    }
}

/// Replaces the authority and the certificate of `n1` by some made so long ago, when they were
/// valid for two years.
fn made_ago(site: &Site, ago: Duration) {
    let clock = Clock::from_source(Arc::new(Ago(ago)));
    let (ca, ca_key) = certificate::make_ca(&clock).expect("an authority");
    let made = certificate::make_node(&clock, &ca, &ca_key, "n1", &[]).expect("a certificate");
    let write = |name: &str, text: &str| fs::write(site.file(name), text).expect("written");
    write("ca.pem", &ca);
    write("ca-key.pem", &ca_key);
    write("n1.pem", &made.0);
    write("n1-key.pem", &made.1);
}

fn status(node: &Node) -> String {
    kvs(["--url", node.url(), "status"]).expect(0).text()
}

#[tokio::test]
async fn a_node_whose_certificate_expired_serves_its_data_and_takes_a_new_certificate() {
    let site = Site::clustered();
    made_ago(&site, DAY);
    let node = site.node("n1", &[]).await;
    node.client.put("/kv/a", "x").await.expect(201);
    made_ago(&site, DAY * 800);
    let node = node.kill_and_restart().await;
    assert_eq!(node.client.get("/kv/a").await.expect(200).text(), "x");
    node.client.put("/kv/a", "y").await.expect(200);
    node.logs(&["WARN", "n1.pem", "expired at", "kvs cert node n1"]).await;
    let own = node.client.cluster().await["node"].clone();
    assert_eq!(own["certificates"][0]["door"], "peer");
    let expired = text(&own["certificates"][0]["expires_at"]);
    let shown = status(&node);
    assert!(shown.contains(&format!("certificate      peer: expired at {expired}")), "{shown}");
    let metrics = node.client.get("/metrics").await.text();
    let line = "kvs_certificate_expires_seconds{door=\"peer\"} -";
    assert!(metrics.contains(line), "{metrics}");
    // the remedy needs no restart
    fs::remove_file(site.file("n1.pem")).expect("it goes");
    let dir = site.file("");
    kvs(["cert", "node", "n1", "--dir", &dir, "--force"]).expect(0);
    node.signal("HUP");
    node.logs(&["INFO", "read the certificates again"]).await;
    assert_ne!(
        text(&node.client.cluster().await["node"]["certificates"][0]["expires_at"]),
        expired
    );
    assert!(!status(&node).contains("certificate"), "{}", status(&node));
    let second = site.node("n2", &[&node]).await;
    converged(&[&node, &second], SOON).await;
}

#[tokio::test]
async fn new_certificates_leave_connections_open_and_bad_ones_change_nothing() {
    let cluster = Site::clustered().cluster(2).await;
    let (node, site) = (&cluster.nodes[0], &cluster.site);
    let dialed = || node.client.metric("kvs_peer_dials_total", &[("outcome", "connected")]);
    let before = dialed().await;
    let good = fs::read(site.file("n1.pem")).expect("it is there");
    fs::write(site.file("n1.pem"), "no certificate").expect("written");
    node.signal("HUP");
    node.logs(&["WARN", "kept the certificates in use", "n1.pem"]).await;
    fs::write(site.file("n1.pem"), good).expect("written");
    let dir = site.file("");
    kvs(["cert", "node", "n1", "--dir", &dir, "--force"]).expect(0);
    node.signal("HUP");
    node.logs(&["INFO", "read the certificates again"]).await;
    node.client.put("/kv/a", "x").await.expect(201);
    cluster.converged().await;
    assert_eq!(dialed().await, before, "no connection was made anew");
    // a node that comes back is shown the new one
    let mut cluster = cluster;
    cluster.replace(1, Node::kill_and_restart).await;
    cluster.converged().await;
    eventually(SOON, "they are connected again", async || {
        let connected = cluster.nodes[0].client.metric("kvs_peer_dials_total", &[]).await;
        ensure(connected > before, || connected.to_string())
    })
    .await;
}
