//! `/cluster` and `/cluster/sync`: the members and their state, and a session with all of them now.
//!
//! `/cluster` shows what gossip and replication have reported; it asks no other node.

use std::collections::BTreeMap;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::on;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::operation::{AnswerForm, ApiOperation, Example, Resource, Verb};
use crate::http::answer::error::{Error, Unavailable};
use crate::http::answer::schema::{FingerprintSchema, MemberStateSchema, MomentSchema, schema_of};
use crate::http::answer::text::{self, JSON};
use crate::http::request::query::Query;
use crate::http::state::{Ctx, State};
use crate::model::member::{PeerStatus, SyncReport};
use crate::model::{Member, MemberState, NodeId, Timestamp};

pub(crate) static RESOURCE: Resource =
    Resource { base: "/cluster", template: "/cluster", has_rest: false, operations: &[&READ] };

pub(crate) static SYNC_RESOURCE: Resource = Resource {
    base: "/cluster/sync",
    template: "/cluster/sync",
    has_rest: false,
    operations: &[&SYNC],
};

static READ: ApiOperation = ApiOperation {
    id: "cluster",
    verb: Verb::Get,
    route: |filter| on(filter, read),
    summary: "Shows the members of the cluster as this node knows them.",
    query: &[],
    headers: &[],
    body: None,
    answers: &[AnswerForm {
        status: 200,
        when: "Always.",
        media_types: &[JSON],
        schema: Some(schema_of::<ClusterBody>),
        headers: &[],
    }],
    errors: &[],
    example: Example {
        path: "/cluster",
        headers: &[],
        body: "",
        status: 200,
        answer: r#"{"cluster_id":null,"node":{"id":"c5a8b1de-59a4-4d3e-8a51-6f0a3c1d2e4f",
            "name":"n1","state":"alive","durable":true,"joined_at":"2023-11-01T00:00:00.000000Z",
            "gossip":"127.0.0.1:7946","peer":"127.0.0.1:7947","http":"127.0.0.1:8080",
            "software":"kvs 0.1.0",
            "fingerprint":"0000000000000000000000000000000000000000000000000000000000000000",
            "fingerprint_at":"2023-11-14T22:13:20.000001Z","last_sync_at":null,
            "clock_skew_ms":null,"syncing":false},"members":[{
            "id":"c5a8b1de-59a4-4d3e-8a51-6f0a3c1d2e4f","name":"n1","state":"alive",
            "durable":true,"joined_at":"2023-11-01T00:00:00.000000Z","gossip":"127.0.0.1:7946",
            "peer":"127.0.0.1:7947","http":"127.0.0.1:8080","software":"kvs 0.1.0",
            "fingerprint":"0000000000000000000000000000000000000000000000000000000000000000",
            "fingerprint_at":"2023-11-14T22:13:20.000001Z","last_sync_at":null,
            "clock_skew_ms":null}],
            "fingerprint":"0000000000000000000000000000000000000000000000000000000000000000",
            "keys":1,"tombstones":0,"converged":true}"#,
    },
};

static SYNC: ApiOperation = ApiOperation {
    id: "sync",
    verb: Verb::Post,
    route: |filter| on(filter, sync),
    summary: "Runs a session with every alive peer now, and answers when all have ended.",
    query: &[],
    headers: &[],
    body: None,
    answers: &[AnswerForm {
        status: 200,
        when: "All sessions have ended; one that failed has an `error`.",
        media_types: &[JSON],
        schema: Some(schema_of::<SyncBody>),
        headers: &[],
    }],
    errors: &[],
    example: Example {
        path: "/cluster/sync",
        headers: &[],
        body: "",
        status: 200,
        answer: r#"{"peers":[]}"#,
    },
};

#[derive(Serialize, JsonSchema)]
struct ClusterBody {
    /// `null` without clustering.
    cluster_id: Option<Uuid>,
    node: NodeBody,
    /// All members, this node included, by ascending id.
    members: Vec<MemberBody>,
    /// Of this node's store.
    #[schemars(with = "FingerprintSchema")]
    fingerprint: String,
    /// Live values.
    keys: u64,
    /// Dead records.
    tombstones: u64,
    /// Whether the latest report of every other alive member shows this node's fingerprint.
    converged: bool,
}

/// This node: its member, and what only it knows.
#[derive(Serialize, JsonSchema)]
struct NodeBody {
    #[serde(flatten)]
    member: MemberBody,
    syncing: bool,
}

#[derive(Clone, Serialize, JsonSchema)]
struct MemberBody {
    id: Uuid,
    name: String,
    #[schemars(with = "MemberStateSchema")]
    state: MemberState,
    /// Neither left nor forgotten, which is true of every member that is listed.
    durable: bool,
    #[schemars(with = "MomentSchema")]
    joined_at: String,
    gossip: String,
    peer: String,
    http: String,
    software: String,
    /// Of the member's latest report, as are the fields that follow; `null` before the first.
    #[schemars(with = "Option<FingerprintSchema>")]
    fingerprint: Option<String>,
    #[schemars(with = "Option<MomentSchema>")]
    fingerprint_at: Option<String>,
    #[schemars(with = "Option<MomentSchema>")]
    last_sync_at: Option<String>,
    /// How far the member's clock is ahead of this node's.
    clock_skew_ms: Option<i64>,
}

#[derive(Serialize, JsonSchema)]
struct SyncBody {
    peers: Vec<ReportBody>,
}

/// How one session went.
#[derive(Serialize, JsonSchema)]
struct ReportBody {
    id: Uuid,
    rounds: u64,
    bytes_sent: u64,
    bytes_received: u64,
    records_sent: u64,
    records_received: u64,
    duration_ms: u64,
    /// Why the session ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    error: Option<String>,
}

async fn read(ctx: Ctx, request: Request) -> Result<Response, Error> {
    Query::parse(READ.query, request.uri().query())?.finish()?;
    text::json(StatusCode::OK, &cluster_body(&ctx.0.state))
}

async fn sync(ctx: Ctx, request: Request) -> Result<Response, Error> {
    Query::parse(SYNC.query, request.uri().query())?.finish()?;
    let state = &ctx.0.state;
    let reports =
        if state.config.clustering_enabled { run_sessions(state).await? } else { Vec::new() };
    let peers = reports.into_iter().map(ReportBody::of).collect();
    text::json(StatusCode::OK, &SyncBody { peers })
}

/// Requests the sessions and waits until all have ended; `shutting_down` if replication is gone.
async fn run_sessions(state: &State) -> Result<Vec<SyncReport>, Error> {
    let (answer, reports) = oneshot::channel();
    state.sync.send(answer).await.map_err(|_| Unavailable::ShuttingDown)?;
    reports.await.map_err(|_| Unavailable::ShuttingDown.into())
}

fn cluster_body(state: &State) -> ClusterBody {
    let own = state.store.fingerprint();
    let counts = state.store.counts();
    let now = state.clock.now();
    let members = all_members(&state.members.borrow(), &state.me);
    let peers = state.peers.borrow().clone();
    let converged = converged(&members, &peers, state.me.id, &own);
    let views: Vec<MemberBody> = members
        .iter()
        .map(|(member, member_state)| {
            let view = MemberBody::of(member, *member_state);
            if member.id == state.me.id {
                return MemberBody {
                    fingerprint: Some(hex(&own)),
                    fingerprint_at: Some(now.rfc3339()),
                    ..view
                };
            }
            view.with(peers.get(&member.id))
        })
        .collect();
    let me = views.iter().find(|view| view.id == state.me.id.uuid()).cloned();
    let member = me.unwrap_or_else(|| MemberBody::of(&state.me, MemberState::Alive));
    ClusterBody {
        cluster_id: state.cluster_id,
        node: NodeBody { member, syncing: *state.syncing.borrow() },
        members: views,
        fingerprint: hex(&own),
        keys: counts.keys,
        tombstones: counts.tombstones,
        converged,
    }
}

/// The members by ascending id, with this node even if gossip does not know it yet.
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

impl MemberBody {
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

impl ReportBody {
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
    fn converged_looks_at_every_other_alive_member_and_no_further() {
        let states = [MemberState::Alive, MemberState::Alive, MemberState::Suspect];
        let members: Vec<_> = (1..).map(member).zip(states).collect();
        let me = NodeId::from_u128(1);
        let shows = |fingerprint| {
            let report = Report { fingerprint, records: 0, syncing: false, now: Timestamp::ZERO };
            let report = Some((report, Timestamp::ZERO));
            let known = PeerStatus { report, ..PeerStatus::default() };
            BTreeMap::from([(NodeId::from_u128(2), known)])
        };
        let check = |peers: &BTreeMap<_, _>| converged(&members, peers, me, &[1; 32]);
        assert!(check(&shows([1; 32])), "the suspect one does not count");
        assert!(!check(&shows([2; 32])));
        assert!(!check(&BTreeMap::new()), "a member that never reported may hold anything");
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
        let member = MemberBody::of(&member(1), MemberState::Alive);
        let text = serde_json::to_string(&NodeBody { member, syncing: true }).unwrap();
        assert!(text.starts_with(r#"{"id":"00000000-0000-0000-0000-000000000001","name":"n1""#));
        assert!(text.contains(r#""state":"alive","durable":true"#), "{text}");
        assert!(text.ends_with(r#""clock_skew_ms":null,"syncing":true}"#), "{text}");
    }
}
