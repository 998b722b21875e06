//! `/cluster` and `/cluster/sync`: who is there, what they hold, and a session with everybody now.
//!
//! It shows what gossip and replication have told; it asks nobody.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use serde::Serialize;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::error::Error;
use super::query::Query;
use super::routes::Resource;
use super::{App, Ctx, State, answer};
use crate::model::member::{PeerStatus, SyncReport};
use crate::model::{Member, MemberState, NodeId, Timestamp};

pub(super) const RESOURCE: Resource = Resource {
    base: "/cluster",
    template: "/cluster",
    has_rest: false,
    methods: || -> MethodRouter<Arc<App>> { get(read) },
};

pub(super) const SYNC: Resource = Resource {
    base: "/cluster/sync",
    template: "/cluster/sync",
    has_rest: false,
    methods: || -> MethodRouter<Arc<App>> { post(sync) },
};

#[derive(Serialize)]
struct Overview {
    cluster_id: Option<Uuid>,
    node: ThisNode,
    members: Vec<MemberView>,
    fingerprint: String,
    keys: u64,
    tombstones: u64,
    converged: bool,
}

#[derive(Serialize)]
struct ThisNode {
    #[serde(flatten)]
    member: MemberView,
    syncing: bool,
}

#[derive(Clone, Serialize)]
struct MemberView {
    id: Uuid,
    name: String,
    state: MemberState,
    /// Every member counts for the dead records until it leaves or is forgotten.
    durable: bool,
    joined_at: String,
    gossip: String,
    peer: String,
    http: String,
    software: String,
    fingerprint: Option<String>,
    fingerprint_at: Option<String>,
    last_sync_at: Option<String>,
    clock_skew_ms: Option<i64>,
}

#[derive(Serialize)]
struct Synced {
    peers: Vec<ReportView>,
}

#[derive(Serialize)]
struct ReportView {
    id: Uuid,
    rounds: u64,
    bytes_sent: u64,
    bytes_received: u64,
    records_sent: u64,
    records_received: u64,
    duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

async fn read(ctx: Ctx, request: Request) -> Result<Response, Error> {
    Query::none(request.uri().query())?;
    answer::json(StatusCode::OK, &overview(&ctx.0.state))
}

async fn sync(ctx: Ctx, request: Request) -> Result<Response, Error> {
    Query::none(request.uri().query())?;
    let state = &ctx.0.state;
    let reports = if state.config.clustering_enabled { ask(state).await? } else { Vec::new() };
    let peers = reports.into_iter().map(ReportView::of).collect();
    answer::json(StatusCode::OK, &Synced { peers })
}

/// Asks for the sessions and waits for their end. Nobody to ask: the node is stopping.
async fn ask(state: &State) -> Result<Vec<SyncReport>, Error> {
    let (answer, reports) = oneshot::channel();
    state.sync.send(answer).await.map_err(|_| Error::ShuttingDown)?;
    reports.await.map_err(|_| Error::ShuttingDown)
}

fn overview(state: &State) -> Overview {
    let own = state.store.fingerprint();
    let counts = state.store.counts();
    let now = state.clock.now();
    let members = all_members(&state.members.borrow(), &state.me);
    let peers = state.peers.borrow().clone();
    let converged = converged(&members, &peers, state.me.id, &own);
    let views: Vec<MemberView> = members
        .iter()
        .map(|(member, member_state)| {
            let view = MemberView::of(member, *member_state);
            if member.id == state.me.id {
                return MemberView {
                    fingerprint: Some(hex(&own)),
                    fingerprint_at: Some(now.rfc3339()),
                    ..view
                };
            }
            view.with(peers.get(&member.id))
        })
        .collect();
    let me = views.iter().find(|view| view.id == state.me.id.uuid()).cloned();
    let member = me.unwrap_or_else(|| MemberView::of(&state.me, MemberState::Alive));
    Overview {
        cluster_id: state.cluster_id,
        node: ThisNode { member, syncing: *state.syncing.borrow() },
        members: views,
        fingerprint: hex(&own),
        keys: counts.keys,
        tombstones: counts.tombstones,
        converged,
    }
}

/// Sorted by id, this node always among them.
fn all_members(known: &[(Member, MemberState)], me: &Member) -> Vec<(Member, MemberState)> {
    let mut members = known.to_vec();
    if !members.iter().any(|(member, _)| member.id == me.id) {
        members.push((me.clone(), MemberState::Alive));
    }
    members.sort_by_key(|(member, _)| member.id);
    members
}

/// Whether every other alive member's latest report shows the fingerprint `own`.
fn converged(
    members: &[(Member, MemberState)],
    peers: &BTreeMap<NodeId, PeerStatus>,
    me: NodeId,
    own: &[u8; 32],
) -> bool {
    members.iter().filter(|(m, state)| m.id != me && *state == MemberState::Alive).all(|(m, _)| {
        peers.get(&m.id).and_then(|p| p.report).is_some_and(|(r, _)| r.fingerprint == *own)
    })
}

fn hex(fingerprint: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*fingerprint).to_hex().to_string()
}

impl MemberView {
    fn of(member: &Member, state: MemberState) -> Self {
        Self {
            id: member.id.uuid(),
            name: member.name.clone(),
            state,
            durable: true,
            joined_at: member.joined_at.rfc3339(),
            gossip: member.gossip.to_string(),
            peer: member.peer.to_string(),
            http: member.http.to_string(),
            software: member.software.clone(),
            fingerprint: None,
            fingerprint_at: None,
            last_sync_at: None,
            clock_skew_ms: None,
        }
    }

    fn with(self, status: Option<&PeerStatus>) -> Self {
        let Some(status) = status else { return self };
        Self {
            fingerprint: status.report.map(|(report, _)| hex(&report.fingerprint)),
            fingerprint_at: status.report.map(|(_, at)| at.rfc3339()),
            last_sync_at: status.last_sync_at.map(Timestamp::rfc3339),
            clock_skew_ms: status.clock_skew_ms,
            ..self
        }
    }
}

impl ReportView {
    fn of(report: SyncReport) -> Self {
        Self {
            id: report.id.uuid(),
            rounds: report.rounds,
            bytes_sent: report.bytes_sent,
            bytes_received: report.bytes_received,
            records_sent: report.records_sent,
            records_received: report.records_received,
            duration_ms: report.duration_ms,
            error: report.error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::member::Report;

    fn member(id: u128) -> Member {
        let at = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        Member {
            id: NodeId::from_u128(id),
            name: format!("n{id}"),
            joined_at: Timestamp::ZERO,
            started_at: Timestamp::ZERO,
            gossip: at,
            peer: at,
            http: at,
            software: String::new(),
        }
    }

    #[test]
    fn converged_asks_every_other_alive_member_and_nobody_else() {
        let states = [MemberState::Alive, MemberState::Alive, MemberState::Suspect];
        let members: Vec<_> = (1..).map(member).zip(states).collect();
        let me = NodeId::from_u128(1);
        let shows = |fingerprint| {
            let report = Report { fingerprint, records: 0, syncing: false, now: Timestamp::ZERO };
            let report = Some((report, Timestamp::ZERO));
            let known = PeerStatus { report, ..PeerStatus::default() };
            BTreeMap::from([(NodeId::from_u128(2), known)])
        };
        let ask = |peers: &BTreeMap<_, _>| converged(&members, peers, me, &[1; 32]);
        assert!(ask(&shows([1; 32])), "the suspect one is not asked");
        assert!(!ask(&shows([2; 32])));
        assert!(!ask(&BTreeMap::new()), "a member that never reported may hold anything");
        assert!(converged(&members[..1], &BTreeMap::new(), me, &[1; 32]));
    }

    #[test]
    fn this_node_is_always_a_member_and_ids_ascend() {
        let known = [(member(3), MemberState::Down), (member(1), MemberState::Alive)];
        let ids: Vec<_> = all_members(&known, &member(2)).iter().map(|(m, _)| m.id).collect();
        assert_eq!(ids, [1, 2, 3].map(NodeId::from_u128));
        assert_eq!(all_members(&known, &member(1)).len(), 2);
    }

    #[test]
    fn this_node_shows_its_member_and_syncing_side_by_side() {
        let member = MemberView::of(&member(1), MemberState::Alive);
        let text = serde_json::to_string(&ThisNode { member, syncing: true }).unwrap();
        assert!(text.starts_with(r#"{"id":"00000000-0000-0000-0000-000000000001","name":"n1""#));
        assert!(text.contains(r#""state":"alive","durable":true"#), "{text}");
        assert!(text.ends_with(r#""clock_skew_ms":null,"syncing":true}"#), "{text}");
    }
}
