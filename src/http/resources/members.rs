//! `/cluster/members/{id}`: forgetting a member for good.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::on;
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::operation::{AnswerForm, ApiOperation, Example, Resource, Verb};
use crate::http::answer::code::Code;
use crate::http::answer::error::Error;
use crate::http::answer::schema::schema_of;
use crate::http::answer::text::{self, JSON};
use crate::http::request::path;
use crate::http::request::query::Query;
use crate::http::state::{Ctx, State};
use crate::model::{MemberState, NodeId};
use crate::proto::stability::WhyGone;

const BASE: &str = "/cluster/members";

pub(crate) static RESOURCE: Resource = Resource {
    base: BASE,
    template: "/cluster/members/{id}",
    has_rest: true,
    operations: &[&FORGET],
};

static FORGET: ApiOperation = ApiOperation {
    id: "forget_member",
    verb: Verb::Delete,
    route: |filter| on(filter, forget),
    summary: "Forgets a member for good: the floor waits for it no longer, and its id is refused \
              from then on, wherever it comes back. What only it holds is set aside when it joins \
              anew.",
    query: &[],
    headers: &[],
    body: None,
    answers: &[AnswerForm {
        status: 200,
        when: "It is forgotten here, durably; the other members learn it in sessions. Repeating \
               it changes nothing.",
        media_types: &[JSON],
        schema: Some(schema_of::<ForgottenAnswer>),
        headers: &[],
    }],
    errors: &[&[Code::MemberNotFound, Code::MemberAlive, Code::Syncing, Code::StorageFull]],
    example: Example {
        path: "/cluster/members/7c9e6679-7425-40de-944b-e07fc1f90ae7",
        headers: &[],
        body: "",
        status: 200,
        answer: r#"{"forgotten":"7c9e6679-7425-40de-944b-e07fc1f90ae7"}"#,
    },
};

#[derive(Serialize, JsonSchema)]
struct ForgottenAnswer {
    /// The id that is refused from now on.
    forgotten: Uuid,
}

async fn forget(ctx: Ctx, request: Request) -> Result<Response, Error> {
    Query::parse(FORGET.query, request.uri().query())?.finish()?;
    let id = path::uuid(request.uri().path(), BASE)?;
    let state = &ctx.0.state;
    check(state, NodeId::from_bytes(*id.as_bytes()))?;
    if !state.store.ledger().begins_anew() {
        // one that begins anew may wait for the very member that is lost
        ctx.0.check_serving()?;
    }
    let removed = state.store.remove_member(NodeId::from_bytes(*id.as_bytes()), WhyGone::Forgotten);
    if removed.await.map_err(Error::of_txn)? {
        tracing::warn!(member = %id, "forgot this member for good");
    }
    text::json(StatusCode::OK, &ForgottenAnswer { forgotten: id })
}

/// Fails for a member that runs, and for one that nobody knows.
fn check(state: &State, id: NodeId) -> Result<(), Error> {
    let members = state.members.borrow();
    let known = members.iter().find(|(member, _)| member.id == id);
    if id == state.me.id {
        return Err(Error::MemberAlive(
            "this is the node itself; stop it, and forget it at another member".into(),
        ));
    }
    if let Some((member, MemberState::Alive)) = known {
        return Err(Error::MemberAlive(format!(
            "{} is alive, and would go on with an id that all others refuse; stop it first",
            member.name
        )));
    }
    let ledger = state.store.ledger();
    let joined = ledger.set.as_ref().is_some_and(|set| set.joined.contains_key(&id));
    if known.is_some() || joined { Ok(()) } else { Err(Error::MemberNotFound(id.uuid())) }
}
