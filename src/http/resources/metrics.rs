//! `/metrics`: the counters of the node, for Prometheus.

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use axum::routing::on;

use super::agreement::Sight;
use super::operation::{AnswerForm, ApiOperation, Example, Resource, Verb};
use crate::http::state::Ctx;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(crate) static RESOURCE: Resource =
    Resource { base: "/metrics", template: "/metrics", has_rest: false, operations: &[&READ] };

static READ: ApiOperation = ApiOperation {
    id: "metrics",
    verb: Verb::Get,
    route: |filter| on(filter, read),
    summary: "Shows the metrics of this node in the text format of OpenMetrics.",
    query: &[],
    headers: &[],
    body: None,
    answers: &[AnswerForm {
        status: 200,
        when: "Always.",
        media_types: &[OPEN_METRICS],
        schema: None,
        headers: &[],
    }],
    errors: &[],
    example: Example { path: "/metrics", headers: &[], body: "", status: 200, answer: "# EOF\n" },
};

/// Ignores parameters: some scrapers add their own.
async fn read(ctx: Ctx) -> Response {
    let state = &ctx.0.state;
    let text = state.metrics.text_with(&Sight::of(state).agreement());
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
    response
}
