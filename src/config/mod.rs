//! The configuration of a node: plain data, validated once.
//!
//! `default.toml` is the only source of defaults and of their documentation; a file, the
//! environment and `--set` override it, in this order. Promises that every value of a loaded
//! [`Config`] is in range and that keys which depend on each other agree. Nothing else reads files
//! or the environment for settings; must not know the parts that use them.

mod address;
mod error;
mod layers;
mod load;
pub mod web;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::model::{Member, duration};
pub use address::listen_advice;
pub use error::ConfigError;
pub use layers::DEFAULT_TOML;
pub use load::Examined;

/// The whole configuration of a node. `default.toml` documents each field: effect, range, default
/// and its reason.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "documented in default.toml, which users read too")]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the file")]
pub struct Config {
    pub cas_enabled: bool,
    pub revision_history_enabled: bool,
    pub revision_history_depth: u32,
    pub clustering_enabled: bool,
    pub read_only: bool,
    pub node: NodeConfig,
    pub http: HttpConfig,
    pub gossip: GossipConfig,
    pub peer: PeerConfig,
    pub storage: StorageConfig,
    pub sync: SyncConfig,
    pub limits: LimitsConfig,
}

/// `[node]`
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "documented in default.toml, which users read too")]
pub struct NodeConfig {
    pub name: String,
    pub data_dir: PathBuf,
}

/// `[http]`
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "documented in default.toml, which users read too")]
pub struct HttpConfig {
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    pub insecure: bool,
    pub hosts: Vec<String>,
    pub origins: Vec<String>,
}

/// `[gossip]`
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "documented in default.toml, which users read too")]
pub struct GossipConfig {
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    #[serde(default, deserialize_with = "advertised")]
    pub advertise: Option<SocketAddr>,
    pub seeds: Vec<String>,
    pub key_file: Option<PathBuf>,
    #[serde(deserialize_with = "span")]
    pub probe_period: Duration,
}

/// `[peer]`
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "documented in default.toml, which users read too")]
pub struct PeerConfig {
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    #[serde(default, deserialize_with = "advertised")]
    pub advertise: Option<SocketAddr>,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// When a write counts as durable and is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Durability {
    /// After a sync to the disk. Survives a loss of power.
    Sync,
    /// After the write to the operating system. Survives the death of the process only.
    Os,
}

impl TryFrom<String> for Durability {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "sync" => Ok(Self::Sync),
            "os" => Ok(Self::Os),
            _ => Err(format!("`{text}` is no durability; use \"sync\" or \"os\"")),
        }
    }
}

/// `[storage]`
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "documented in default.toml, which users read too")]
pub struct StorageConfig {
    pub durability: Durability,
    pub cache_bytes: usize,
    pub blob_threshold_bytes: usize,
    pub feed_bytes_max: usize,
    pub superseded_bytes_max: usize,
    pub free_bytes_min: u64,
}

/// `[sync]`
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "documented in default.toml, which users read too")]
pub struct SyncConfig {
    #[serde(deserialize_with = "span")]
    pub interval: Duration,
    pub push: bool,
    #[serde(deserialize_with = "span")]
    pub clock_drift_max: Duration,
    #[serde(deserialize_with = "span")]
    pub bootstrap_wait: Duration,
    pub serve_alone: bool,
    pub push_queue_max: usize,
}

/// `[limits]`
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "documented in default.toml, which users read too")]
pub struct LimitsConfig {
    pub value_bytes_max: usize,
    pub body_bytes_max: usize,
    pub body_memory_bytes_max: usize,
    pub answer_memory_bytes_max: usize,
    pub txn_operations_max: usize,
    #[serde(deserialize_with = "span")]
    pub idempotency_window: Duration,
    pub idempotency_bytes_max: u64,
    pub connections_max: usize,
    #[serde(deserialize_with = "span")]
    pub request_timeout: Duration,
    #[serde(deserialize_with = "span")]
    pub idle_timeout: Duration,
    #[serde(deserialize_with = "span")]
    pub shutdown_wait: Duration,
}

fn span<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    duration::parse(&text).map_err(serde::de::Error::custom)
}

fn address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    address::resolve(&text).map_err(serde::de::Error::custom)
}

fn advertised<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(from)?;
    address::check_remote(&text).map_err(serde::de::Error::custom)?;
    address::resolve(&text).map(Some).map_err(serde::de::Error::custom)
}

/// A key with the value in force.
#[derive(Clone, Debug)]
pub struct KeyInForce {
    /// The key, with its table.
    pub key: String,
    /// `None` for a key that has no default and was not given.
    pub value: Option<toml::Value>,
    /// The file, the environment variable or the option that gave it; `None`: the default.
    pub place: Option<String>,
}

impl Config {
    /// Overrides the defaults with `file`, then with the environment variables `env`, then with the
    /// `--set` pairs `sets`, and validates the result.
    ///
    /// # Errors
    /// All problems, each with the key and the place that sets it.
    pub fn load(
        file: Option<&Path>,
        env: &BTreeMap<String, String>,
        sets: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        Self::examine(file, env, sets)?.valid()
    }

    /// As [`Self::load`], but returns the configuration beside its problems.
    ///
    /// # Errors
    /// Only when the file cannot be read or is no TOML.
    pub fn examine(
        file: Option<&Path>,
        env: &BTreeMap<String, String>,
        sets: &[(String, String)],
    ) -> Result<Examined, ConfigError> {
        let text = file.map(load::read).transpose()?;
        let place = file.map(|f| f.display().to_string()).unwrap_or_default();
        load::examine(text.as_deref().map(|text| (text, place.as_str())), env, sets)
    }

    /// The defaults, without clustering, which has no default certificates.
    ///
    /// # Errors
    /// Never; a test proves it. The signature follows [`Self::load`].
    pub fn defaults() -> Result<Self, ConfigError> {
        Self::load(None, &BTreeMap::new(), &[("clustering_enabled".into(), "false".into())])
    }

    /// Earlier revisions stored per key; 0 when the history is off.
    #[must_use]
    pub fn history_depth(&self) -> u32 {
        if self.revision_history_enabled { self.revision_history_depth } else { 0 }
    }

    /// Checks every range, and every pair of keys that depend on each other. Returns all
    /// violations.
    #[must_use]
    pub fn faults(&self) -> Vec<ConfigError> {
        let mut faults = Vec::new();
        let mut fault = |key, problem: &str| {
            faults.push(ConfigError::Range { key, problem: problem.to_owned() });
        };
        if let Err(error) = Member::check_name(&self.node.name) {
            fault("node.name", &error.to_string());
        }
        if !self.http.listen.ip().is_loopback() && !self.http.insecure {
            fault(
                "http.listen",
                "is not a loopback address, and requests are not authenticated; listen on \
                 127.0.0.1, or set http.insecure = true to let everybody who reaches the port \
                 read and write",
            );
        }
        for (key, problem) in web::problems(&self.http.hosts, &self.http.origins) {
            fault(key, &problem);
        }
        if self.clustering_enabled {
            self.check_cluster(&mut fault);
        }
        self.check_numbers(&mut fault);
        faults
    }

    fn check_cluster(&self, fault: &mut impl FnMut(&'static str, &str)) {
        let missing = "is missing; set it, or run without a cluster: clustering_enabled = false";
        for (key, value) in [
            ("gossip.key_file", &self.gossip.key_file),
            ("peer.ca", &self.peer.ca),
            ("peer.cert", &self.peer.cert),
            ("peer.key", &self.peer.key),
        ] {
            if value.is_none() {
                fault(key, missing);
            }
        }
        let unnamed = "is missing; set it, because other nodes cannot reach the `listen` address";
        let unspecified = |listen: SocketAddr, advertise: Option<SocketAddr>| {
            advertise.unwrap_or(listen).ip().is_unspecified()
        };
        if unspecified(self.gossip.listen, self.gossip.advertise) {
            fault("gossip.advertise", unnamed);
        }
        if unspecified(self.peer.listen, self.peer.advertise) {
            fault("peer.advertise", unnamed);
        }
        for seed in &self.gossip.seeds {
            if let Err(problem) = address::check_remote(seed) {
                fault("gossip.seeds", &format!("{problem} (a seed is \"host:port\")"));
            }
        }
    }

    fn check_numbers(&self, fault: &mut impl FnMut(&'static str, &str)) {
        const MIB: usize = 1 << 20;
        const TIB: usize = 1 << 40;
        let limits = &self.limits;
        let body_memory_min = limits.value_bytes_max.max(limits.body_bytes_max);
        let answer_memory = limits.answer_memory_bytes_max;
        let depth = usize::try_from(self.revision_history_depth).unwrap_or(usize::MAX);
        let free = usize::try_from(self.storage.free_bytes_min).unwrap_or(usize::MAX);
        let remembered = usize::try_from(limits.idempotency_bytes_max).unwrap_or(usize::MAX);
        let numbers = [
            ("revision_history_depth", depth, 1, 100),
            ("limits.txn_operations_max", limits.txn_operations_max, 1, 100_000),
            ("limits.idempotency_bytes_max", remembered, MIB, TIB),
            ("storage.cache_bytes", self.storage.cache_bytes, MIB, TIB),
            ("storage.feed_bytes_max", self.storage.feed_bytes_max, MIB, TIB),
            ("storage.superseded_bytes_max", self.storage.superseded_bytes_max, MIB, TIB),
            ("storage.free_bytes_min", free, 0, 1024 * TIB),
            ("storage.blob_threshold_bytes", self.storage.blob_threshold_bytes, 64, MIB / 16),
            ("sync.push_queue_max", self.sync.push_queue_max, 1, 1_000_000),
            ("limits.value_bytes_max", limits.value_bytes_max, 1, 16 * MIB),
            ("limits.body_bytes_max", limits.body_bytes_max, 1024, 64 * MIB),
            ("limits.body_memory_bytes_max", limits.body_memory_bytes_max, body_memory_min, TIB),
            ("limits.answer_memory_bytes_max", answer_memory, 3 * body_memory_min, TIB),
            ("limits.connections_max", limits.connections_max, 1, 1_000_000),
        ];
        for (key, value, min, max) in numbers {
            if !(min..=max).contains(&value) {
                fault(key, &format!("{value} is out of range; use {min} to {max}"));
            }
        }
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        let (hour, day) = (s(3600), s(86400));
        let spans = [
            ("gossip.probe_period", self.gossip.probe_period, ms(50), s(60)),
            ("sync.interval", self.sync.interval, ms(100), day),
            ("sync.clock_drift_max", self.sync.clock_drift_max, ms(1), day),
            ("sync.bootstrap_wait", self.sync.bootstrap_wait, ms(1), hour),
            ("limits.idempotency_window", limits.idempotency_window, s(1), s(30 * 86400)),
            ("limits.request_timeout", limits.request_timeout, ms(100), hour),
            ("limits.idle_timeout", limits.idle_timeout, s(1), hour),
            ("limits.shutdown_wait", limits.shutdown_wait, ms(1), hour),
        ];
        for (key, value, min, max) in spans {
            if !(min..=max).contains(&value) {
                let show = duration::format;
                let (value, min, max) = (show(value), show(min), show(max));
                fault(key, &format!("{value} is out of range; use {min} to {max}"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
