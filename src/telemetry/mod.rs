//! Logs and metrics: sets up tracing, and names every metric in one list.
//!
//! Promises that counting never fails and never blocks. A [`Metrics`] belongs to one node and not
//! to the process, so that several nodes in one test have separate counts. Must not know the parts
//! that count.

mod agreement;
pub(crate) mod log;

use std::sync::Arc;

use prometheus_client::encoding::text::{encode, encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

pub use agreement::Agreement;
pub use log::{LevelError, LogFormat, start as start_logging};

/// A metric's one label and its value.
pub type OneLabel = [(&'static str, &'static str); 1];
/// A metric's two labels and their values, always in the same order.
pub type TwoLabels = [(&'static str, &'static str); 2];
/// The labels of `peer_unreached`: peer, address, reason.
pub type PeerLabels = [(&'static str, String); 3];
/// The labels of `http_requests`: method, route, status.
pub type RequestLabels = [(&'static str, String); 3];

/// Every metric of a node.
#[derive(Debug)]
#[expect(missing_docs, reason = "the help texts at their registration document them for users too")]
pub struct Metrics {
    registry: Registry,
    pub http_requests: Family<RequestLabels, Counter>,
    pub http_request_seconds: Family<OneLabel, Histogram, fn() -> Histogram>,
    pub http_connections: Gauge,
    pub http_bad_connections: Counter,
    pub store_writes: Family<TwoLabels, Counter>,
    pub store_commit_seconds: Histogram,
    pub store_group_writes: Histogram,
    pub store_records: Family<OneLabel, Gauge>,
    pub storage_free_bytes: Gauge,
    pub storage_writable: Gauge,
    pub read_only: Gauge,
    pub store_requests_forgotten: Counter,
    pub store_collected: Counter,
    pub merges_below_floor: Counter,
    pub superseded: Family<OneLabel, Counter>,
    pub gossip_datagrams: Family<OneLabel, Counter>,
    pub gossip_bytes: Family<OneLabel, Counter>,
    pub gossip_dropped: Family<OneLabel, Counter>,
    pub members: Family<OneLabel, Gauge>,
    pub peer_bytes: Family<TwoLabels, Counter>,
    pub peer_refused: Family<OneLabel, Counter>,
    pub peer_connections: Family<OneLabel, Gauge>,
    pub peer_dials: Family<OneLabel, Counter>,
    pub peer_unreached: Family<PeerLabels, Gauge>,
    pub certificate_expires_seconds: Family<OneLabel, Gauge>,
    pub syncing: Gauge,
    pub sync_sessions: Family<TwoLabels, Counter>,
    pub sync_records: Family<OneLabel, Counter>,
    pub push_records: Family<OneLabel, Counter>,
    pub push_dropped: Counter,
    pub merges_paused: Counter,
    pub pushes_untaken: Counter,
    pub set_aside: Counter,
    pub records_held: Counter,
    pub peer_clock_skew_ms: Family<[(&'static str, String); 1], Gauge>,
    pub clock_skewed: Gauge,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 2.0, 18))
}

impl Metrics {
    /// Registers all metrics at zero, with the prefix `kvs`.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let mut m = Self {
            registry: Registry::with_prefix("kvs"),
            http_requests: Family::default(),
            http_request_seconds: Family::new_with_constructor(seconds),
            http_connections: Gauge::default(),
            http_bad_connections: Counter::default(),
            store_writes: Family::default(),
            store_commit_seconds: seconds(),
            store_group_writes: Histogram::new(exponential_buckets(1.0, 2.0, 12)),
            store_records: Family::default(),
            storage_free_bytes: Gauge::default(),
            storage_writable: Gauge::default(),
            read_only: Gauge::default(),
            store_requests_forgotten: Counter::default(),
            store_collected: Counter::default(),
            merges_below_floor: Counter::default(),
            superseded: Family::default(),
            gossip_datagrams: Family::default(),
            gossip_bytes: Family::default(),
            gossip_dropped: Family::default(),
            members: Family::default(),
            peer_bytes: Family::default(),
            peer_refused: Family::default(),
            peer_connections: Family::default(),
            peer_dials: Family::default(),
            peer_unreached: Family::default(),
            certificate_expires_seconds: Family::default(),
            syncing: Gauge::default(),
            sync_sessions: Family::default(),
            sync_records: Family::default(),
            push_records: Family::default(),
            push_dropped: Counter::default(),
            merges_paused: Counter::default(),
            pushes_untaken: Counter::default(),
            set_aside: Counter::default(),
            records_held: Counter::default(),
            peer_clock_skew_ms: Family::default(),
            clock_skewed: Gauge::default(),
        };
        m.register_local();
        m.register_stability();
        m.register_cluster();
        Arc::new(m)
    }

    fn register_local(&mut self) {
        let r = &mut self.registry;
        r.register(
            "http_requests",
            "Requests by method, route and status",
            self.http_requests.clone(),
        );
        r.register(
            "http_request_seconds",
            "Time from the end of a request's header to the start of its answer, by route",
            self.http_request_seconds.clone(),
        );
        r.register("http_connections", "Open HTTP connections", self.http_connections.clone());
        r.register(
            "http_bad_connections",
            "Connections closed because the client sent no valid HTTP, or sent it too slowly",
            self.http_bad_connections.clone(),
        );
        r.register(
            "store_writes",
            "Writes decided, by kind (write, txn, merge, sweep, collect) and outcome",
            self.store_writes.clone(),
        );
        r.register(
            "store_commit_seconds",
            "Time to commit a group of writes, including the sync",
            self.store_commit_seconds.clone(),
        );
        r.register(
            "store_group_writes",
            "Writes in a group, which share one sync",
            self.store_group_writes.clone(),
        );
        r.register(
            "store_records",
            "Records in the store, live and dead",
            self.store_records.clone(),
        );
        r.register(
            "storage_free_bytes",
            "Free space on the disk of the data, by the latest look",
            self.storage_free_bytes.clone(),
        );
        r.register(
            "storage_writable",
            "1 while storage takes all writes; 0 while the disk is full or failing",
            self.storage_writable.clone(),
        );
        r.register(
            "read_only",
            "1 while the mode of this node is read_only and it refuses writes of clients",
            self.read_only.clone(),
        );
        r.register(
            "log_lines_lost",
            "Log lines lost because nobody read stderr or writing to it failed",
            log::lost_lines(),
        );
        r.register(
            "store_requests_forgotten",
            "Requests with a uuid that were forgotten before limits.idempotency_window, because \
             limits.idempotency_bytes_max was reached; a retry of one writes again",
            self.store_requests_forgotten.clone(),
        );
    }

    fn register_stability(&mut self) {
        let r = &mut self.registry;
        r.register(
            "superseded",
            "Acknowledged writes of this node that lost a merge, as /superseded reports them, by \
             causal: concurrent, unknown",
            self.superseded.clone(),
        );
        r.register(
            "store_collected",
            "Dead records dropped because the floor has passed them",
            self.store_collected.clone(),
        );
        r.register(
            "merges_below_floor",
            "Records of peers refused because they lie at or below the floor, where nothing \
             changes any more",
            self.merges_below_floor.clone(),
        );
    }

    fn register_cluster(&mut self) {
        let r = &mut self.registry;
        r.register(
            "gossip_datagrams",
            "Gossip datagrams by direction",
            self.gossip_datagrams.clone(),
        );
        r.register(
            "gossip_bytes",
            "Bytes of gossip datagrams by direction",
            self.gossip_bytes.clone(),
        );
        r.register(
            "gossip_dropped",
            "Gossip datagrams dropped, by reason: unsealed (wrong key or forged), malformed, \
             oversized, refused",
            self.gossip_dropped.clone(),
        );
        r.register("members", "Members by state, including this node", self.members.clone());
        r.register(
            "peer_bytes",
            "Bytes of frames by direction and stream (hello, push, session)",
            self.peer_bytes.clone(),
        );
        r.register(
            "peer_refused",
            "Peers and streams refused, by reason: \
             tls, cluster, name, malformed, oversized, timeout",
            self.peer_refused.clone(),
        );
        r.register(
            "peer_connections",
            "Open peer connections by side",
            self.peer_connections.clone(),
        );
        r.register(
            "peer_dials",
            "Attempts to connect to peers, by outcome: connected, unreachable, refused, malformed",
            self.peer_dials.clone(),
        );
        r.register(
            "peer_unreached",
            "Peers that this node cannot sync with now, with the address and the reason: \
             unreachable, refused, malformed, session, storage_full",
            self.peer_unreached.clone(),
        );
        r.register(
            "certificate_expires_seconds",
            "Seconds until the certificate of a door expires; negative when it has",
            self.certificate_expires_seconds.clone(),
        );
        r.register(
            "syncing",
            "1 while this node waits for its first data and serves nothing",
            self.syncing.clone(),
        );
        self.register_replication();
    }

    fn register_replication(&mut self) {
        let r = &mut self.registry;
        r.register(
            "sync_sessions",
            "Sessions by side (pull: this node began it, serve: a peer did) and outcome",
            self.sync_sessions.clone(),
        );
        r.register("sync_records", "Records in sessions, by direction", self.sync_records.clone());
        r.register("push_records", "Records pushed, by direction", self.push_records.clone());
        r.register(
            "push_dropped",
            "Writes not pushed because a peer was too slow; a session delivers them",
            self.push_dropped.clone(),
        );
        r.register(
            "merges_paused",
            "Records of peers that were not taken, as the disk has too little room; sessions bring \
             them when it has",
            self.merges_paused.clone(),
        );
        r.register(
            "pushes_untaken",
            "Records that were pushed by a node that the durable set does not name in this start; \
             sessions bring them when it does",
            self.pushes_untaken.clone(),
        );
        r.register(
            "set_aside",
            "Records that this node set aside as it began anew, as the cluster did not hold them",
            self.set_aside.clone(),
        );
        r.register(
            "records_held",
            "Records received and not merged, because they lie more than sync.clock_drift_max \
             ahead of this node's clock; sessions bring them when their time comes",
            self.records_held.clone(),
        );
        r.register(
            "peer_clock_skew_ms",
            "How far the clock of each peer that is reached is ahead of this node's, in \
             milliseconds",
            self.peer_clock_skew_ms.clone(),
        );
        r.register(
            "clock_skewed",
            "1 while this node's clock is further than sync.clock_drift_max from those of most \
             alive peers, which keeps it from being ready",
            self.clock_skewed.clone(),
        );
    }

    /// All metrics in OpenMetrics 1.0 text, but for those of [`Agreement`].
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // a `String` accepts every write
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// All metrics in OpenMetrics 1.0 text.
    #[must_use]
    pub fn text_with(&self, agreement: &Agreement) -> String {
        let mut text = String::new();
        // a `String` accepts every write
        let _ = encode_registry(&mut text, &self.registry)
            .and_then(|()| encode_registry(&mut text, &agreement.registry()))
            .and_then(|()| encode_eof(&mut text));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_shows_whom_the_floor_waits_for_and_nobody_else() {
        let metrics = Metrics::new();
        let text = metrics.text_with(&Agreement::default());
        assert!(text.contains("\nkvs_floor_timestamp_seconds 0.0\n"), "{text}");
        for absent in
            ["kvs_in_sync", "kvs_floor_waits_for_timestamp_seconds{", "kvs_apart_records{"]
        {
            assert!(!text.contains(absent), "{text}");
        }
        let agreement = Agreement {
            in_sync_through: Some(1_700_000_000.25),
            floor: 1_699_999_999.5,
            floor_waits_for: vec![("a1".to_owned(), 1_699_999_998.0)],
            apart: vec![("b2".to_owned(), "n2".to_owned(), 7)],
        };
        let text = metrics.text_with(&agreement);
        for line in [
            "kvs_in_sync_through_timestamp_seconds 1700000000.25",
            "kvs_floor_timestamp_seconds 1699999999.5",
            r#"kvs_floor_waits_for_timestamp_seconds{member="a1"} 1699999998.0"#,
            r#"kvs_apart_records{member="b2",name="n2"} 7"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
        assert!(text.starts_with("# HELP kvs_http_connections "), "{text}");
        assert_eq!(text.matches("# EOF\n").count(), 1);
        assert!(text.ends_with("# EOF\n"));
        assert!(!metrics.text().contains("kvs_floor_timestamp"), "nothing of it stays");
    }
}
