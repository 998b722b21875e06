//! Logs and metrics: the tracing set-up, and every metric's name in one list.
//!
//! A [`Metrics`] belongs to one node, not to the process, so that several nodes in one test do not
//! count into each other. Counting never fails and never blocks.

use std::sync::Arc;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// One label.
pub type One = [(&'static str, &'static str); 1];
/// Two labels.
pub type Two = [(&'static str, &'static str); 2];
/// The labels of a finished request.
pub type Request = [(&'static str, String); 3];

/// Every metric of a node.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is documented where it is registered, for users to read")]
pub struct Metrics {
    registry: Registry,
    pub http_requests: Family<Request, Counter>,
    pub http_request_seconds: Family<One, Histogram, fn() -> Histogram>,
    pub http_connections: Gauge,
    pub http_bad_connections: Counter,
    pub store_writes: Family<Two, Counter>,
    pub store_commit_seconds: Histogram,
    pub store_group_writes: Histogram,
    pub store_records: Family<One, Gauge>,
    pub gossip_datagrams: Family<One, Counter>,
    pub gossip_bytes: Family<One, Counter>,
    pub gossip_dropped: Family<One, Counter>,
    pub members: Family<One, Gauge>,
    pub peer_bytes: Family<Two, Counter>,
    pub peer_refused: Family<One, Counter>,
    pub peer_connections: Family<One, Gauge>,
    pub sync_sessions: Family<Two, Counter>,
    pub sync_records: Family<One, Counter>,
    pub push_records: Family<One, Counter>,
    pub push_dropped: Counter,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 2.0, 18))
}

impl Metrics {
    /// Registers everything, at zero.
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
            gossip_datagrams: Family::default(),
            gossip_bytes: Family::default(),
            gossip_dropped: Family::default(),
            members: Family::default(),
            peer_bytes: Family::default(),
            peer_refused: Family::default(),
            peer_connections: Family::default(),
            sync_sessions: Family::default(),
            sync_records: Family::default(),
            push_records: Family::default(),
            push_dropped: Counter::default(),
        };
        m.register_local();
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
            "Time from a request's header to its answer's, by route",
            self.http_request_seconds.clone(),
        );
        r.register("http_connections", "Open HTTP connections", self.http_connections.clone());
        r.register(
            "http_bad_connections",
            "Connections that ended because what came was no HTTP or came too slowly",
            self.http_bad_connections.clone(),
        );
        r.register(
            "store_writes",
            "Decisions of the writer by kind (write, txn, merge, sweep) and outcome",
            self.store_writes.clone(),
        );
        r.register(
            "store_commit_seconds",
            "Time to commit a group of writes, the sync included",
            self.store_commit_seconds.clone(),
        );
        r.register(
            "store_group_writes",
            "Writes in a group: how many share one sync",
            self.store_group_writes.clone(),
        );
        r.register("store_records", "Records held, live and dead", self.store_records.clone());
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
            "Datagrams dropped, by reason: unsealed (not authentic), malformed, oversized, refused",
            self.gossip_dropped.clone(),
        );
        r.register("members", "Members by state, this node included", self.members.clone());
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
            "sync_sessions",
            "Sessions by side (pull: begun here, serve: answered here) and outcome",
            self.sync_sessions.clone(),
        );
        r.register("sync_records", "Records in sessions, by direction", self.sync_records.clone());
        r.register("push_records", "Records pushed, by direction", self.push_records.clone());
        r.register(
            "push_dropped",
            "Writes that a full queue dropped; a session delivers them",
            self.push_dropped.clone(),
        );
    }

    /// The Prometheus text form (OpenMetrics 1.0).
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // writing to a string cannot fail
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends logs to stderr, filtered by `KVS_LOG` (default `info`). To be called once a process.
pub fn start_logging(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("KVS_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,foca=warn,quinn=warn"));
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => base
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .with_target(false)
            .try_init(),
        LogFormat::Json => base.json().try_init(),
    };
    // a second call keeps the first set-up
    let _ = started;
}
