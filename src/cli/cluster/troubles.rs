//! What `status` tells where a node or its cluster needs somebody.

use std::time::Duration;

use super::{Apart, Cluster, Member, WaitedFor, reported_at};
use crate::model::Timestamp;
use crate::model::member::RENEW_BEFORE;

/// How far dead records are gone, and what to do where that waits for a member or stands apart.
pub(super) fn floor(cluster: &Cluster) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(floor) = cluster.floor {
        let at = Timestamp::saturating(floor);
        let words = if floor == 0 { "none yet".to_owned() } else { at.rfc3339() };
        lines.push(("floor", words));
    }
    for WaitedFor { id, since } in &cluster.floor_waits_for {
        let member = cluster.members.iter().find(|member| member.id == *id);
        let name = member.map_or_else(|| id.clone(), |member| format!("{} ({id})", member.label()));
        let mut words = format!("{name}, of which nothing is proven since {since}");
        if !member.is_some_and(Member::is_alive) {
            words = format!("{words}; if it is gone for good: kvs forget {id}");
        }
        lines.push(("floor waits for", words));
    }
    for Apart { id, name, keys } in &cluster.apart {
        let words = format!(
            "from {name} ({id}), which holds {keys} records: its cluster was founded apart; join \
             it: kvs join --own set_aside"
        );
        lines.push(("apart", words));
    }
    lines
}

/// What keeps the node from being a member like others, one line each.
pub(super) fn troubles(cluster: &Cluster, id: &str) -> Vec<(&'static str, String)> {
    let node = &cluster.node;
    let mut lines = Vec::new();
    if node.syncing {
        let waits = Some(&node.waits_for).filter(|words| !words.is_empty());
        let words = waits.map_or_else(|| "for its first data".to_owned(), Clone::clone);
        lines.push(("syncing", format!("yes, waits: {words}")));
    }
    lines.extend(node.clock_skewed.clone().map(|words| ("not ready", words)));
    let running = |member: &&Member| matches!(member.state.as_deref(), Some("alive" | "suspect"));
    let others = || cluster.members.iter().filter(|member| member.id != id).filter(running);
    for member in others() {
        if let Some(error) = &member.error {
            lines.push(("no sync with", format!("{}: {error}", member.label())));
        }
        if member.held_records > 0 {
            lines.push(("held records", held(member)));
        }
    }
    if others().next().is_none() && !node.seeds.is_empty() {
        let silent = node
            .seeds
            .iter()
            .filter_map(|seed| seed.error.as_ref().map(|error| format!("{} ({error})", seed.seed)));
        let silent: Vec<_> = silent.collect();
        let (answers, all) = (node.seeds.len() - silent.len(), node.seeds.len());
        let answer = if answers == 0 {
            format!("none of {all} seeds answers: {}", silent.join(", "))
        } else {
            format!("{answers} of {all} seeds answer")
        };
        lines.push(("seeds", format!("alone; {answer}")));
    }
    let now = reported_at(&cluster.members, id);
    for certificate in &node.certificates {
        let (door, at) = (&certificate.door, certificate.expires_at.as_deref());
        let left = at.and_then(Timestamp::from_rfc3339).zip(now).map(|(at, now)| at.since(now));
        let words = match (at, left) {
            (Some(at), Some(Duration::ZERO)) => format!("{door}: expired at {at}"),
            (Some(at), Some(left)) if left < RENEW_BEFORE => format!("{door}: expires at {at}"),
            _ => continue,
        };
        lines.push(("certificate", words));
    }
    lines
}

/// The records that this node and a member do not share because a clock is wrong.
fn held(member: &Member) -> String {
    let (count, name) = (member.held_records, member.label());
    let skew = member.clock_skew_ms.map(|ms| {
        let way = if ms > 0 { "ahead of" } else { "behind" };
        format!(", whose clock is {} s {way} this node's", ms.unsigned_abs() / 1000)
    });
    format!(
        "{count}, not shared with {name}{}: they lie too far ahead of one of the two clocks",
        skew.unwrap_or_default()
    )
}
