//! `POST /txn`: compares, writes and reads that are decided in one step.
//!
//! [`request`] reads the body, [`answer`] writes the results.

mod answer;
mod request;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::on;
use bytes::Bytes;

use answer::TxnAnswer;
use request::{TxnBody, TxnLimits};

use super::operation::{
    AnswerForm, ApiOperation, BODY_ERRORS, BodyForm, Example, IDEMPOTENCY_KEY, KEY_ERRORS,
    Resource, Verb, WRITE_ERRORS,
};
use crate::http::answer::code::Code;
use crate::http::answer::error::Error;
use crate::http::answer::schema::schema_of;
use crate::http::answer::size::CONTENT_FACTOR;
use crate::http::answer::text::{self, JSON};
use crate::http::request::query::{EXACT, Query};
use crate::http::request::{body, headers, retry};
use crate::http::server::detached;
use crate::http::server::limits::{BodyPermit, Permit};
use crate::http::state::{App, Ctx};
use crate::model::Key;
use crate::store::{Operation, Txn, TxnDone, WriteError};

const BASE: &str = "/txn";
/// `compare`, `success` and `failure`.
const LISTS: usize = 3;
/// How much content the reads of a transaction may give in the first attempts. Most transactions
/// read little; if each took the memory for the most, they would wait for each other. An attempt
/// that needs more changes nothing and is repeated with the next step, at last with
/// `limits.body_bytes_max`.
const CONTENT_BYTES_STEPS: [usize; 2] = [16 << 10, 1 << 20];

pub(crate) static RESOURCE: Resource =
    Resource { base: BASE, template: BASE, has_rest: false, operations: &[&TXN] };

static TXN: ApiOperation = ApiOperation {
    id: "txn",
    verb: Verb::Post,
    route: |filter| on(filter, txn),
    summary: "Compares keys, then writes and reads others, all or nothing on this node. Other \
              nodes are not asked, and may decide otherwise at the same time: send all clients of \
              these keys to one node.",
    query: &[&EXACT],
    headers: &[&IDEMPOTENCY_KEY],
    body: Some(BodyForm { media_types: &[JSON], schema: Some(schema_of::<TxnBody<'static>>) }),
    answers: &[AnswerForm {
        status: 200,
        when: "The operations of `success`, or of `failure`, are done and durable.",
        media_types: &[JSON],
        schema: Some(schema_of::<TxnAnswer<'static>>),
        headers: &[],
    }],
    errors: &[
        KEY_ERRORS,
        BODY_ERRORS,
        WRITE_ERRORS,
        &[Code::TooManyOperations, Code::FeatureDisabled],
    ],
    example: Example {
        path: "/txn",
        headers: &[],
        body: r#"{"compare":[{"key":"app/config","expected":{"exists":true}}],
            "success":[{"put":{"key":"app/new","data":{"b":2},"ttl":"1h"}},
            {"delete":{"key":"app/old"}},{"get":{"key":"app/config"}}],
            "failure":[{"get":{"key":"app/old"}}]}"#,
        status: 200,
        answer: r#"{"succeeded":true,"failed":[],"results":[{"put":{"key":"app/new",
            "uuid":"0d6a3c1e-8c0f-4e0e-a6f0-2f4f7f0c7d3b","timestamp":1700000000000002}},
            {"delete":{"key":"app/old","deleted":false}},{"get":{"key":"app/config",
            "uuid":"6f3c9a52-7c3c-4b6f-9d11-0f5f0c2b9a10","timestamp":1700000000000001,
            "origin":"c5a8b1de-59a4-4d3e-8a51-6f0a3c1d2e4f",
            "origin_joined_at":"2023-11-01T00:00:00.000000Z","parent":null,"expires_at":null,
            "content_type":"application/json","size":7,"data":{"a":1}}}]}"#,
    },
};

async fn txn(ctx: Ctx, request: Request) -> Result<Response, Error> {
    let app = &ctx.0;
    let mut query = Query::parse(TXN.query, request.uri().query())?;
    let form = query.take(&EXACT)?.unwrap_or_default();
    query.finish()?;
    headers::check_supported(request.headers())?;
    headers::check_unconditional(request.headers(), "compare")?;
    let request_id = retry::header(request.headers())?;
    headers::check_encoding(request.headers())?;
    app.check_serving()?;
    let config = &app.state.config.limits;
    let limits = TxnLimits {
        entries_max: config.txn_operations_max,
        value_bytes_max: config.value_bytes_max,
    };
    let parse = move |body: &Bytes| request::parse(body, limits);
    let entries_max = LISTS * limits.entries_max;
    let (mut txn, permit) = body::parsed(app, request.into_body(), entries_max, parse).await?;
    if !txn.compare.is_empty() && !app.state.config.cas_enabled {
        return Err(Error::FeatureDisabled("cas_enabled"));
    }
    txn.uuid = retry::agreed(request_id, txn.uuid)?;
    let submitted = submit(Arc::clone(app), txn, permit);
    let (keys, done, permit) = detached::to_its_end(app, submitted).await?;
    let size = answer::text_bytes(&done, &keys);
    let text = move || text::text(&TxnAnswer::of(&done, &keys, form), size);
    let text = app.work(size, text).await?;
    let body = text::with_fitting_permit(&app.answers, text, permit);
    Ok(text::json_bytes(StatusCode::OK, body))
}

/// Submits the transaction, with the memory for its answer, and waits until it is durable or
/// refused. Returns the keys of the operations that were done, what they gave, and the memory of
/// the answer; the memory of the body is returned to its budget.
async fn submit(
    app: Arc<App>,
    txn: Txn,
    body_permit: BodyPermit,
) -> Result<(Vec<Key>, TxnDone, Option<Permit>), Error> {
    let most = app.state.config.limits.body_bytes_max;
    let (results_bytes, reads) = (answer::results_bytes_max(&txn), reads(&txn));
    let steps = CONTENT_BYTES_STEPS.into_iter().filter(|step| reads && *step < most);
    for content_bytes_max in steps.chain([most]) {
        let content = if reads { CONTENT_FACTOR * content_bytes_max } else { 0 };
        let permit = app.answer_permit(content + results_bytes).await?;
        let attempt = Txn { content_bytes_max, ..txn.clone() };
        match app.state.store.txn(attempt).await {
            Ok(done) => {
                let keys = keys(&txn, done.failed.is_empty());
                drop(body_permit);
                return Ok((keys, done, permit));
            }
            Err(WriteError::ContentTooLarge) if content_bytes_max < most => {}
            Err(error) => return Err(Error::of_txn(error)),
        }
    }
    Err(Error::AnswerTooLarge)
}

/// Whether the transaction may give content.
fn reads(txn: &Txn) -> bool {
    let mut operations = txn.success.iter().chain(&txn.failure);
    operations.any(|operation| matches!(operation, Operation::Get(_)))
}

/// The keys of the operations that were done, in order.
fn keys(txn: &Txn, succeeded: bool) -> Vec<Key> {
    let done = if succeeded { &txn.success } else { &txn.failure };
    done.iter().map(|operation| operation.key().clone()).collect()
}
