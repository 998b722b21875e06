//! The metrics of how far the members agree. They are made for each answer and counted nowhere.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// A time, in seconds since the Unix epoch.
type Seconds = Gauge<f64, AtomicU64>;

/// How far the members agree at one moment. Times are in seconds since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agreement {
    /// Up to where every alive member holds all writes; `None` while one has not reported.
    pub in_sync_through: Option<f64>,
    /// The floor.
    pub floor: f64,
    /// Which members the floor waits for: the id of each, and since when.
    pub floor_waits_for: Vec<(String, f64)>,
    /// The members whose cluster was founded apart: id, name, and how many records each holds.
    pub apart: Vec<(String, String, u64)>,
}

impl Agreement {
    /// Its metrics. They are made for each answer, so that none stays of a member that is waited
    /// for no more.
    pub(super) fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("kvs");
        let r = &mut registry;
        if let Some(through) = self.in_sync_through {
            let gauge = Seconds::default();
            gauge.set(through);
            r.register(
                "in_sync_through_timestamp_seconds",
                "Every alive member holds all writes up to this time; missing while one has not \
                 reported",
                gauge,
            );
        }
        let floor = Seconds::default();
        floor.set(self.floor);
        r.register(
            "floor_timestamp_seconds",
            "Dead records at or below it are gone, and nothing at or below it changes any more",
            floor,
        );
        let waits_for: Family<[(&'static str, String); 1], Seconds> = Family::default();
        for (id, since) in &self.floor_waits_for {
            waits_for.get_or_create(&[("member", id.clone())]).set(*since);
        }
        r.register(
            "floor_waits_for_timestamp_seconds",
            "Durable members that hold the floor back: up to when all that each wrote is known",
            waits_for,
        );
        let apart: Family<[(&'static str, String); 2], Gauge> = Family::default();
        for (id, name, records) in &self.apart {
            let gauge = apart.get_or_create(&[("member", id.clone()), ("name", name.clone())]);
            gauge.set(i64::try_from(*records).unwrap_or(i64::MAX));
        }
        r.register(
            "apart_records",
            "Members whose cluster was founded apart from this node's, with the records that each \
             holds",
            apart,
        );
        registry
    }
}
