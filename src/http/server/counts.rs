//! The metrics of requests: counters and durations by method, route and status.
//!
//! Promises that clients cannot create label sets: the values of each label are fixed.

use std::sync::{Arc, OnceLock};

use axum::http::{Method, StatusCode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use crate::http::resources::RESOURCES;
use crate::telemetry::Metrics;

/// The `route` label of a path without a resource.
const NO_ROUTE: &str = "none";
const METHODS: [&str; 7] = ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"];
const STATUSES: [u16; 21] = [
    200, 201, 204, 206, 304, 400, 401, 403, 404, 405, 408, 409, 412, 413, 415, 416, 421, 429, 500,
    501, 503,
];
const OTHER: &str = "other";

/// The counters of all possible label sets. Each is fetched from the registry once, so that a
/// request costs no allocation and no lookup of labels.
pub(crate) struct RequestCounts {
    metrics: Arc<Metrics>,
    requests: Vec<OnceLock<Counter>>,
    seconds: Vec<Histogram>,
}

impl RequestCounts {
    /// Fetches the histograms; counters are fetched when they first count.
    pub(crate) fn new(metrics: &Arc<Metrics>) -> Self {
        let sets = (RESOURCES.len() + 1) * (METHODS.len() + 1) * (STATUSES.len() + 1);
        let routes = (0..RESOURCES.len()).map(Some).chain([None]);
        let histogram = |route| {
            metrics.http_request_seconds.get_or_create(&[("route", template(route))]).clone()
        };
        Self {
            metrics: Arc::clone(metrics),
            requests: (0..sets).map(|_| OnceLock::new()).collect(),
            seconds: routes.map(histogram).collect(),
        }
    }

    /// Counts one answer. Unknown methods and statuses count as `other`, unknown paths as `none`.
    pub(crate) fn count(
        &self,
        method: &Method,
        route: Option<usize>,
        status: StatusCode,
        seconds: f64,
    ) {
        let position = |found: Option<usize>, others: usize| found.unwrap_or(others);
        let route_at = position(route, RESOURCES.len());
        let known_method = METHODS.iter().position(|known| method.as_str() == *known);
        let known_status = STATUSES.iter().position(|known| status.as_u16() == *known);
        let method_at = position(known_method, METHODS.len());
        let status_at = position(known_status, STATUSES.len());
        let at = (route_at * (METHODS.len() + 1) + method_at) * (STATUSES.len() + 1) + status_at;
        if let Some(counter) = self.requests.get(at) {
            let labels = || {
                let method = known_method.map_or(OTHER, |_| method.as_str());
                let status = known_status.map_or(OTHER.to_owned(), |_| status.as_str().to_owned());
                [
                    ("method", method.to_owned()),
                    ("route", template(route).to_owned()),
                    ("status", status),
                ]
            };
            let create = || self.metrics.http_requests.get_or_create(&labels()).clone();
            counter.get_or_init(create).inc();
        }
        if let Some(histogram) = self.seconds.get(route_at) {
            histogram.observe(seconds);
        }
    }
}

/// The `route` label of the resource at this position of [`RESOURCES`].
pub(crate) fn template(route: Option<usize>) -> &'static str {
    route.and_then(|at| RESOURCES.get(at)).map_or(NO_ROUTE, |resource| resource.template)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::answer::code::Code;

    #[test]
    fn clients_cannot_create_label_sets() {
        let metrics = Metrics::new();
        let counts = RequestCounts::new(&metrics);
        for name in ["GET", "BREW", "X1", "X2"] {
            let method = Method::from_bytes(name.as_bytes()).unwrap();
            counts.count(&method, None, StatusCode::NOT_FOUND, 0.1);
            counts.count(&method, Some(0), StatusCode::IM_A_TEAPOT, 0.1);
        }
        let text = metrics.text();
        assert!(
            text.contains(r#"kvs_http_requests_total{method="other",route="none",status="404"} 3"#)
        );
        assert!(text.contains(
            r#"kvs_http_requests_total{method="GET",route="/kv/{key}",status="other"} 1"#
        ));
        assert!(!text.contains("BREW"));
    }

    #[test]
    fn every_status_that_the_api_gives_has_a_label() {
        let errors = Code::ALL.iter().map(|code| code.info().status.as_u16());
        let operations = RESOURCES.iter().flat_map(|resource| resource.operations);
        let answers = operations.flat_map(|op| op.answers).map(|answer| answer.status);
        for status in errors.chain(answers) {
            assert!(STATUSES.contains(&status), "{status}");
        }
    }
}
