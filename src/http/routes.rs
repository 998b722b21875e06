//! The table of resources, and the router made of it.
//!
//! A further resource is one file with a [`Resource`] and one line here. The templates are the only
//! values of the `route` label of the metrics, whatever paths clients make up.

use std::sync::Arc;

use axum::Router;
use axum::routing::MethodRouter;

use super::error::Error;
use super::{App, cas, cluster, health, history, kv, metrics, scan, txn};

/// A resource: where it is and what it takes.
pub(super) struct Resource {
    /// The path, without a key or prefix.
    pub(super) base: &'static str,
    /// The path as the metrics and the contract write it.
    pub(super) template: &'static str,
    /// Whether a key or prefix follows the base.
    pub(super) has_rest: bool,
    /// Its handlers by method.
    pub(super) methods: fn() -> MethodRouter<Arc<App>>,
}

/// All resources.
pub(super) const RESOURCES: [Resource; 10] = [
    kv::RESOURCE,
    cas::RESOURCE,
    txn::RESOURCE,
    scan::RESOURCE,
    history::RESOURCE,
    cluster::RESOURCE,
    cluster::SYNC,
    health::LIVE,
    health::READY,
    metrics::RESOURCE,
];

/// The `route` label of a path that no resource has.
pub(super) const NO_ROUTE: &str = "none";

/// Which of [`RESOURCES`] `path` belongs to.
pub(super) fn find(path: &str) -> Option<usize> {
    RESOURCES.iter().position(|resource| match path.strip_prefix(resource.base) {
        Some("") => true,
        Some(rest) => resource.has_rest && rest.starts_with('/'),
        None => false,
    })
}

/// The router over all resources. axum's own refusals are replaced by ours.
pub(super) fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for Resource { base, has_rest, methods, .. } in RESOURCES {
        router = router.route(base, methods());
        if has_rest {
            router = router
                .route(&format!("{base}/"), methods())
                .route(&format!("{base}/{{*rest}}"), methods());
        }
    }
    router
        .fallback(async || Error::NoSuchRoute)
        .method_not_allowed_fallback(async || Error::MethodNotAllowed)
        .with_state(app)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_belong_to_their_resource_alone() {
        let template = |path| find(path).map(|at| RESOURCES[at].template);
        assert_eq!(template("/kv/a/b"), Some("/kv/{key}"));
        assert_eq!(template("/kv"), Some("/kv/{key}"));
        assert_eq!(template("/scan/"), Some("/scan/{prefix}"));
        assert_eq!(template("/cluster"), Some("/cluster"));
        assert_eq!(template("/cluster/sync"), Some("/cluster/sync"));
        assert_eq!(template("/txn"), Some("/txn"));
        assert_eq!(template("/history/a/b"), Some("/history/{key}"));
        for path in
            ["", "/", "/txn/", "/txn/a", "/kvs/a", "/cluster/", "/cluster/x", "/metrics/x", "*"]
        {
            assert_eq!(template(path), None, "{path}");
        }
    }
}
