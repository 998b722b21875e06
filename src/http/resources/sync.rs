//! `/cluster/sync`: a session with every alive peer now.

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
use crate::http::answer::schema::schema_of;
use crate::http::answer::text::{self, JSON};
use crate::http::request::query::Query;
use crate::http::state::{Ctx, State};
use crate::model::member::SyncReport;

pub(crate) static RESOURCE: Resource = Resource {
    base: "/cluster/sync",
    template: "/cluster/sync",
    has_rest: false,
    operations: &[&SYNC],
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
