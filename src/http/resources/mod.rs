//! One file a resource, and the table of all of them.
//!
//! A further resource is one file with a [`Resource`] and one line in [`RESOURCES`]. Its operations
//! and their forms are described in [`operation`]. The templates are the only values of the metric
//! label `route`: clients that invent paths cannot add more.

mod agreement;
mod cas;
mod cluster;
mod health;
mod history;
mod import;
mod join;
mod kv;
mod leave;
mod members;
mod metrics;
mod misroutes;
mod mode;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "until /openapi.json is served, only tests read all of the tables")
)]
pub(crate) mod operation;
mod scan;
pub(crate) mod superseded;
mod sync;
mod txn;

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, Uri};
use axum::routing::MethodRouter;

use operation::Resource;

use super::answer::error::Error;
use super::state::App;

/// All resources.
pub(crate) static RESOURCES: [&Resource; 17] = [
    &kv::RESOURCE,
    &cas::RESOURCE,
    &txn::RESOURCE,
    &scan::RESOURCE,
    &history::RESOURCE,
    &superseded::RESOURCE,
    &cluster::RESOURCE,
    &sync::RESOURCE,
    &mode::RESOURCE,
    &members::RESOURCE,
    &join::RESOURCE,
    &leave::RESOURCE,
    &import::RESOURCE,
    &health::LIVE_RESOURCE,
    &health::READY_RESOURCE,
    &health::READABLE_RESOURCE,
    &metrics::RESOURCE,
];

/// The position of the resource at `path` in [`RESOURCES`].
pub(crate) fn find(path: &str) -> Option<usize> {
    RESOURCES.iter().position(|resource| match path.strip_prefix(resource.base) {
        Some("") => true,
        Some(rest) => resource.has_rest && rest.starts_with('/'),
        None => false,
    })
}

/// The router over all resources, with our refusals in the place of axum's.
pub(crate) fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for resource in RESOURCES {
        let base = resource.base;
        router = router.route(base, methods(resource));
        if resource.has_rest {
            router = router
                .route(&format!("{base}/"), methods(resource))
                .route(&format!("{base}/{{*rest}}"), methods(resource));
        }
    }
    router
        .fallback(async |uri: Uri| misroutes::no_such_route(&RESOURCES, uri.path()))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| refuse(&method, &uri))
        .with_state(app)
}

/// The refusal of a method that a path does not have.
fn refuse(method: &Method, uri: &Uri) -> Error {
    match find(uri.path()).and_then(|at| RESOURCES.get(at)) {
        Some(resource) => misroutes::method_not_allowed(resource, method),
        None => misroutes::no_such_route(&RESOURCES, uri.path()),
    }
}

/// The routes of a resource. axum makes `Allow` from them.
fn methods(resource: &Resource) -> MethodRouter<Arc<App>> {
    let routes = resource.operations.iter().map(|op| (op.route)(op.verb.filter()));
    routes.fold(MethodRouter::new(), MethodRouter::merge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_belongs_to_at_most_one_resource() {
        let template = |path| find(path).map(|at| RESOURCES[at].template);
        assert_eq!(template("/kv/a/b"), Some("/kv/{key}"));
        assert_eq!(template("/kv"), Some("/kv/{key}"));
        assert_eq!(template("/scan/"), Some("/scan/{prefix}"));
        assert_eq!(template("/cluster"), Some("/cluster"));
        assert_eq!(template("/cluster/sync"), Some("/cluster/sync"));
        assert_eq!(template("/txn"), Some("/txn"));
        assert_eq!(template("/history/a/b"), Some("/history/{key}"));
        assert_eq!(template("/superseded"), Some("/superseded/{prefix}"));
        for path in
            ["", "/", "/txn/", "/txn/a", "/kvs/a", "/cluster/", "/cluster/x", "/metrics/x", "*"]
        {
            assert_eq!(template(path), None, "{path}");
        }
    }
}
