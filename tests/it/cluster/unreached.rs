//! Members that this node hears of by gossip, but cannot sync with: what it says, shows, and does.

use std::time::Duration;

use serde_json::Value;

use crate::support::client::text;
use crate::support::command::kvs;
use crate::support::relay::{Relay, free_port};
use crate::support::{Node, SOON, Site, cluster::converged, ensure, eventually};

/// Waits until the node refuses reads with a `detail` that contains all of `words`.
async fn waits_for(node: &Node, words: &[&str]) {
    eventually(SOON, &format!("it says that it waits for {words:?}"), async || {
        let problem = node.client.get("/health/ready").await.refused(503, "syncing");
        let detail = text(&problem.json()["detail"]);
        ensure(words.iter().all(|word| detail.contains(word)), || detail)
    })
    .await;
}

async fn is_ready(node: &Node) {
    eventually(SOON, "it serves", async || {
        let answer = node.client.get("/health/ready").await;
        ensure(answer.status == 200, || answer.text())
    })
    .await;
}

fn status(node: &Node) -> String {
    kvs(["--url", node.url(), "status"]).expect(0).text()
}

async fn error_about(node: &Node, other: &str) -> Value {
    node.member(other).await.map(|member| member["error"].clone()).unwrap_or_default()
}

#[tokio::test]
async fn an_empty_node_with_a_strange_certificate_waits_and_says_for_whom_until_told_to_go_on() {
    let (site, others) = (Site::clustered(), Site::clustered());
    let cluster = site.cluster(2).await;
    cluster.nodes[0].client.put("/kv/a", "x").await.expect(201);
    others.certify("n3");
    let mut place = cluster.site.place("n3", &[&cluster.nodes[0]]);
    place.set("peer.ca", others.file("ca.pem"));
    place.set("peer.cert", others.file("n3.pem"));
    place.set("peer.key", others.file("n3-key.pem"));
    let mut node = place.start().await;
    let peer = cluster.nodes[0].peer.expect("it is clustered").to_string();
    waits_for(&node, &["n1 at", &peer, "n2 at", "does not answer", "certificate", "serve_alone"])
        .await;
    node.client.get("/kv/a").await.refused(503, "syncing");
    node.client.put("/kv/b", "x").await.refused(503, "syncing");
    let labels = [("peer", "n1"), ("reason", "refused")];
    let address = [("address", peer.as_str())];
    let unreached = "kvs_peer_unreached";
    assert_eq!(node.client.metric(unreached, &[labels[0], labels[1], address[0]]).await, 1);
    assert!(node.client.metric("kvs_peer_dials_total", &[("outcome", "refused")]).await > 1);
    assert_eq!(node.client.metric("kvs_syncing", &[]).await, 1);
    assert!(text(&error_about(&node, &cluster.nodes[0].id).await).contains("certificate"));
    let shown = status(&node);
    assert!(shown.contains("syncing") && shown.contains("n1 at"), "{shown}");
    node.logs(&["WARN", "waits for its first data", "n1 at", "does not answer"]).await;
    // a repeated failure is no news
    node.logs(&["cannot sync with n1"]).await;
    let warned = |log: &str| log.matches("cannot sync with n1").count();
    assert_eq!(warned(&node.log()), 1, "{}", node.log());
    // far longer than sync.bootstrap_wait, it is not ready
    node.client.get("/health/ready").await.refused(503, "syncing");
    node.kill();
    node.place.set("sync.serve_alone", true);
    let node = node.restart().await;
    is_ready(&node).await;
    node.client.get("/kv/a").await.refused(404, "key_not_found");
    assert_eq!(node.client.metric("kvs_syncing", &[]).await, 0);
}

/// A node that others reach on its peer port only through the relay.
pub(super) async fn behind_a_relay(
    site: &Site,
    name: &str,
    seeds: &[&Node],
    open: bool,
) -> (Node, Relay) {
    let mut place = site.place(name, seeds);
    let home = free_port();
    let relay = Relay::to(home).await;
    relay.set_open(open);
    place.set("peer.listen", home.to_string());
    place.set("peer.advertise", relay.address.to_string());
    (place.start().await, relay)
}

#[tokio::test]
async fn an_empty_node_waits_for_a_member_whose_peer_port_is_blocked_and_then_takes_its_data() {
    let site = Site::clustered();
    let (full, to_full) = behind_a_relay(&site, "n1", &[], false).await;
    full.client.put("/kv/a", "x").await.expect(201);
    let (node, to_node) = behind_a_relay(&site, "n2", &[&full], false).await;
    waits_for(&node, &["n1 at", &to_full.address.to_string(), "no answer"]).await;
    to_full.set_open(true);
    to_node.set_open(true);
    is_ready(&node).await;
    assert_eq!(node.client.get("/kv/a").await.expect(200).text(), "x");
    converged(&[&full, &node], SOON).await;
}

#[tokio::test]
async fn nodes_that_start_together_with_one_list_of_seeds_that_names_them_all_become_ready() {
    let site = Site::clustered();
    let homes: Vec<_> = (0..3).map(|_| free_port().to_string()).collect();
    let places = (1..=3).map(|number| {
        let mut place = site.place(&format!("n{number}"), &[]);
        place.set("gossip.listen", homes[number - 1].as_str());
        place.set("gossip.seeds", homes.clone());
        place
    });
    let nodes = futures_util::future::join_all(places.map(|place| place.start())).await;
    for node in &nodes {
        is_ready(node).await;
    }
    converged(&[&nodes[0], &nodes[1], &nodes[2]], SOON).await;
}

#[tokio::test]
async fn a_node_whose_seeds_lead_nowhere_names_each_with_its_reason() {
    let site = Site::clustered();
    let mut place = site.place("n1", &[]);
    let dead = free_port().to_string();
    place.set("gossip.seeds", vec!["no.such.host.invalid:7946".to_owned(), dead.clone()]);
    let node = place.start().await;
    let words = ["WARN", "alone; none of 2 seeds answers", "no.such.host.invalid:7946 (its name"];
    node.logs(&words).await;
    node.logs(&["WARN", &format!("{dead} (no answer)")]).await;
    is_ready(&node).await;
    let shown = status(&node);
    assert!(shown.contains("alone; none of 2 seeds answers"), "{shown}");
    let other = site.node("n2", &[&node]).await;
    other.logs(&["INFO", "member n1", "is up"]).await;
    node.logs(&["INFO", "no longer alone"]).await;
    assert!(!status(&node).contains("alone"));
}

/// Two nodes that gossip reaches and QUIC does not. What they knew of each other is shown as old,
/// and each says why.
#[tokio::test]
async fn a_state_that_is_no_longer_known_is_not_shown_as_if_it_were() {
    let site = Site::clustered();
    let (a, to_a) = behind_a_relay(&site, "n1", &[], true).await;
    let (b, to_b) = behind_a_relay(&site, "n2", &[&a], true).await;
    let (a, b, relays) = (&a, &b, [to_a, to_b]);
    a.client.put("/kv/a", "x").await.expect(201);
    converged(&[a, b], SOON).await;
    relays.iter().for_each(|relay| relay.set_open(false));
    for (node, other) in [(a, b), (b, a)] {
        eventually(SOON, "convergence is unknown", async || {
            let view = node.client.cluster().await;
            ensure(view["converged"].is_null(), || view["converged"].to_string())
        })
        .await;
        let name = &other.place.name;
        node.logs(&["WARN", &format!("cannot sync with {name}")]).await;
        let member = node.member(&other.id).await.expect("a member");
        assert_eq!(member["state"], "alive", "gossip still reaches it");
        assert!(text(&member["error"]).contains("no answer"), "{member}");
        assert!(member["clock_skew_ms"].is_null(), "{member}");
        assert!(member["fingerprint_at"].is_string());
        assert_eq!(node.client.metric("kvs_peer_unreached", &[("peer", name)]).await, 1);
        let shown = status(node);
        assert!(shown.contains("converged        unknown") && shown.contains("ago"), "{shown}");
        assert!(shown.contains(&format!("no sync with     {name}")), "{shown}");
    }
    b.client.put("/kv/b", "x").await.expect(201);
    assert_eq!(b.client.cluster().await["converged"], false, "it differs from what it last knew");
    relays.iter().for_each(|relay| relay.set_open(true));
    converged(&[a, b], SOON).await;
    for (node, other) in [(a, b), (b, a)] {
        let name = &other.place.name;
        node.logs(&["INFO", &format!("syncs with {name}"), "again, after"]).await;
        assert_eq!(node.client.metric("kvs_peer_unreached", &[("peer", name)]).await, 0);
        assert!(error_about(node, &other.id).await.is_null());
    }
}

/// Of two nodes with one name, the cluster takes only the one that came first.
#[tokio::test]
async fn a_node_under_the_name_of_another_joins_only_when_that_one_is_gone() {
    let mut cluster = Site::clustered().cluster(2).await;
    cluster.nodes[0].client.put("/kv/a", "x").await.expect(201);
    let mut place = cluster.site.place("n2-again", &[&cluster.nodes[0]]);
    place.set("node.name", "n2");
    place.set("peer.cert", cluster.site.file("n2.pem"));
    place.set("peer.key", cluster.site.file("n2-key.pem"));
    let late = place.start().await;
    late.logs(&["WARN", "the other members refuse this node", "another node.name"]).await;
    waits_for(&late, &["n1 at", "another member named n2"]).await;
    for node in &cluster.nodes {
        node.logs(&["WARN", "refuses the member n2", &late.id]).await;
        let shown = text(&error_about(node, &late.id).await);
        assert!(shown.contains("another member named n2"), "{shown}");
    }
    // the one that came first is not disturbed, and a restart does not make it the later one
    cluster.replace(1, Node::kill_and_restart).await;
    cluster.nodes[1].client.put("/kv/b", "x").await.expect(201);
    late.client.get("/health/ready").await.refused(503, "syncing");
    cluster.nodes[1].stop().await;
    is_ready(&late).await;
    assert_eq!(late.client.get("/kv/a").await.expect(200).text(), "x");
    converged(&[&cluster.nodes[0], &late], Duration::from_secs(60)).await;
}
