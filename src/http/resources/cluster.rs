//! `/cluster`: the members and their state.
//!
//! Shows what gossip and replication have reported; it asks no other node.

use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::on;
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::agreement::{Apart, Sight};
use super::mode::ModeName;
use super::operation::{AnswerForm, ApiOperation, Example, Resource, Verb};
use crate::http::answer::error::Error;
use crate::http::answer::schema::{FingerprintSchema, MemberStateSchema, MomentSchema, schema_of};
use crate::http::answer::text::{self, JSON};
use crate::http::request::query::Query;
use crate::http::state::{Ctx, Outlook, State};
use crate::model::member::{CertificateLife, PeerStatus, SeedAnswer};
use crate::model::{Member, MemberState, Timestamp};
use crate::proto::stability::floor::WaitedFor;
use crate::store::{StorageRoom, Store};

pub(crate) static RESOURCE: Resource =
    Resource { base: "/cluster", template: "/cluster", has_rest: false, operations: &[&READ] };

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
            "clock_skew_ms":null,"replication_lag_ms":null,"held_records":0,"syncing":false,
            "seeds":[],"certificates":[],"mode":"normal",
            "storage":{"writable":true,"free_bytes":null,"used_bytes":null}},"members":[{
            "id":"c5a8b1de-59a4-4d3e-8a51-6f0a3c1d2e4f","name":"n1","state":"alive",
            "durable":true,"joined_at":"2023-11-01T00:00:00.000000Z","gossip":"127.0.0.1:7946",
            "peer":"127.0.0.1:7947","http":"127.0.0.1:8080","software":"kvs 0.1.0",
            "fingerprint":"0000000000000000000000000000000000000000000000000000000000000000",
            "fingerprint_at":"2023-11-14T22:13:20.000001Z","last_sync_at":null,
            "clock_skew_ms":null,"replication_lag_ms":null,"held_records":0}],
            "fingerprint":"0000000000000000000000000000000000000000000000000000000000000000",
            "keys":1,"tombstones":0,"converged":true,"in_sync_through":null,
            "floor":0,"floor_waits_for":[],"apart":[]}"#,
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
    /// Whether the latest report of every other alive member shows this node's fingerprint. `null`
    /// when none differs, but one is missing or older than three `sync.interval`.
    converged: Option<bool>,
    /// Every alive member holds all writes up to this timestamp; `null` while one has not reported.
    in_sync_through: Option<u64>,
    /// Dead records at or below it are gone, and nothing at or below it changes any more.
    floor: u64,
    /// The durable members that hold the floor back: nothing of them was proven for three
    /// `sync.interval`.
    floor_waits_for: Vec<WaitedForBody>,
    /// The members whose cluster was founded apart from this node's, and which it does not join by
    /// itself, as something of its own would have to be set aside.
    apart: Vec<ApartBody>,
}

#[derive(Serialize, JsonSchema)]
struct WaitedForBody {
    id: Uuid,
    /// Up to when all that it wrote is known to be held.
    #[schemars(with = "MomentSchema")]
    since: String,
}

#[derive(Serialize, JsonSchema)]
struct ApartBody {
    id: Uuid,
    name: String,
    /// How many records it holds, by its latest report.
    keys: u64,
}

/// This node: its member, and what only it knows.
#[derive(Serialize, JsonSchema)]
struct NodeBody {
    #[serde(flatten)]
    member: MemberBody,
    /// Whether it waits for its first data, and serves nothing.
    syncing: bool,
    /// Which members it waits for, and why they do not give it.
    #[serde(skip_serializing_if = "String::is_empty")]
    waits_for: String,
    /// How its clock disagrees with those of most alive peers, which keeps it from being ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    clock_skewed: Option<String>,
    /// The seeds, but for this node itself.
    seeds: Vec<SeedBody>,
    certificates: Vec<CertificateBody>,
    /// Whether it takes writes of clients.
    mode: ModeName,
    storage: StorageBody,
}

/// The disk of this node.
#[derive(Serialize, JsonSchema)]
struct StorageBody {
    /// Whether it takes all writes; `/health/readable` says why not.
    writable: bool,
    /// `null` where the system does not tell, as is the other.
    free_bytes: Option<u64>,
    /// What the files of the data take.
    used_bytes: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
struct SeedBody {
    /// As it is configured.
    seed: String,
    /// Why it has not answered lately.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    error: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct CertificateBody {
    /// `peer`: that of `peer.cert`.
    door: &'static str,
    #[schemars(with = "MomentSchema")]
    expires_at: String,
}

#[derive(Clone, Serialize, JsonSchema)]
struct MemberBody {
    id: Uuid,
    name: String,
    #[schemars(with = "MemberStateSchema")]
    state: MemberState,
    /// Neither left nor forgotten, and not begun anew under another id.
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
    /// How far the member's clock is ahead of this node's; `null` while it is not reached.
    clock_skew_ms: Option<i64>,
    /// The age of the oldest write that this node pushed and the member has not confirmed; 0 with
    /// none, `null` while it is not reached.
    replication_lag_ms: Option<u64>,
    /// How many records this node and the member do not share, because they lie more than
    /// `sync.clock_drift_max` ahead of the clock of one of the two, which holds them back.
    held_records: u64,
    /// Why this node does not reach the member, or why their latest session failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    error: Option<String>,
}

async fn read(ctx: Ctx, request: Request) -> Result<Response, Error> {
    Query::parse(READ.query, request.uri().query())?.finish()?;
    let room = ctx.0.state.store.blocking(Store::room).await;
    text::json(StatusCode::OK, &cluster_body(&ctx.0.state, &room))
}

fn cluster_body(state: &State, room: &StorageRoom) -> ClusterBody {
    let sight = Sight::of(state);
    let Sight { members, peers, judge, now, .. } = &sight;
    let (own, counts) = (judge.own, state.store.counts());
    let converged = judge.converged(members, peers);
    let views: Vec<MemberBody> = members
        .iter()
        .map(|(member, member_state)| {
            let durable = !sight.is_gone(member.id);
            let view = MemberBody { durable, ..MemberBody::of(member, *member_state) };
            if member.id == state.me.id {
                return MemberBody {
                    fingerprint: Some(hex(&own)),
                    fingerprint_at: Some(now.rfc3339()),
                    ..view
                };
            }
            view.with(peers.get(&member.id), judge.now)
        })
        .collect();
    let me = views.iter().find(|view| view.id == state.me.id.uuid()).cloned();
    let member = me.unwrap_or_else(|| MemberBody::of(&state.me, MemberState::Alive));
    ClusterBody {
        cluster_id: state.cluster_id,
        node: node_body(state, member, room),
        members: views,
        fingerprint: hex(&own),
        keys: counts.keys,
        tombstones: counts.tombstones,
        converged,
        in_sync_through: sight.in_sync_through().map(Timestamp::micros),
        floor: sight.ledger.floor.0.micros(),
        floor_waits_for: sight.waits_for().into_iter().map(WaitedForBody::of).collect(),
        apart: sight.apart().into_iter().map(ApartBody::of).collect(),
    }
}

impl WaitedForBody {
    fn of(member: WaitedFor) -> Self {
        Self { id: member.id.uuid(), since: member.since.rfc3339() }
    }
}

impl ApartBody {
    fn of(Apart { id, name, keys }: Apart) -> Self {
        Self { id: id.uuid(), name, keys }
    }
}

fn node_body(state: &State, member: MemberBody, room: &StorageRoom) -> NodeBody {
    let Outlook { waits_for, seeds, certificates } = &state.outlook;
    let seed =
        |answer: &SeedAnswer| SeedBody { seed: answer.seed.clone(), error: answer.error.clone() };
    let certificate = |life: &CertificateLife| CertificateBody {
        door: life.door,
        expires_at: life.expires_at.rfc3339(),
    };
    let syncing = *state.syncing.borrow();
    NodeBody {
        member,
        syncing,
        waits_for: if syncing { waits_for.borrow().clone() } else { String::new() },
        clock_skewed: state.clock_off().map(|off| off.to_string()),
        seeds: seeds.borrow().iter().map(seed).collect(),
        certificates: certificates.borrow().iter().map(certificate).collect(),
        mode: ModeName::of(state.store.mode()),
        storage: StorageBody::of(room),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
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
            replication_lag_ms: None,
            held_records: 0,
            error: None,
        }
    }

    fn with(self, status: Option<&PeerStatus>, now: Instant) -> Self {
        let Some(status) = status else { return self };
        Self {
            fingerprint: status.report.map(|held| hex(&held.report.fingerprint)),
            fingerprint_at: status.report.map(|held| held.at.rfc3339()),
            last_sync_at: status.last_sync_at.map(Timestamp::rfc3339),
            clock_skew_ms: status.clock_skew_ms,
            replication_lag_ms: status.lag(now).map(millis),
            held_records: status.held_records,
            error: status.error.clone(),
            ..self
        }
    }
}

impl StorageBody {
    fn of(room: &StorageRoom) -> Self {
        let StorageRoom { writable, free_bytes, used_bytes } = *room;
        Self { writable, free_bytes, used_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::rig::member;

    #[test]
    fn this_node_shows_its_member_and_syncing_side_by_side() {
        let member = MemberBody::of(&member(1), MemberState::Alive);
        let (seeds, certificates, waits_for) = (Vec::new(), Vec::new(), String::new());
        let room = StorageRoom { writable: true, free_bytes: Some(1), used_bytes: None };
        let (mode, storage) = (ModeName::Normal, StorageBody::of(&room));
        let (syncing, clock_skewed) = (true, None);
        let node = NodeBody {
            member,
            syncing,
            waits_for,
            clock_skewed,
            seeds,
            certificates,
            mode,
            storage,
        };
        let text = serde_json::to_string(&node).unwrap();
        assert!(text.starts_with(r#"{"id":"00000000-0000-0000-0000-000000000001","name":"n1""#));
        assert!(text.contains(r#""state":"alive","durable":true"#), "{text}");
        let storage = r#"{"writable":true,"free_bytes":1,"used_bytes":null}}"#;
        assert!(text.ends_with(&format!(r#""mode":"normal","storage":{storage}"#)), "{text}");
        let status = r#""replication_lag_ms":null,"held_records":0,"syncing":true,"seeds":[]"#;
        assert!(text.contains(status), "{text}");
    }
}
