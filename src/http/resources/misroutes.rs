//! What to say where no operation fits: the route that was probably meant, the methods of a path,
//! and what to use instead.

use axum::http::Method;

use super::operation::{Resource, Verb};
use crate::http::answer::error::Error;
use crate::http::request::unknown::most_alike;
use crate::model::shown;

/// Segments that stand before the route in other systems.
const LEADS: [&str; 5] = ["api", "v1", "v2", "v3", "rest"];

/// First segments that users of other systems try, and the route that they mean here.
const ALIASES: &[(&[&str], &str)] = &[
    (&["key", "keys", "k", "store", "value", "values", "item", "items", "data"], "/kv/{key}"),
    (&["get", "set", "put", "delete", "read", "write"], "/kv/{key}"),
    (&["swap", "compare-and-swap", "lock", "locks"], "/cas/{key}"),
    (&["transaction", "transactions", "batch", "multi", "tx"], "/txn"),
    (&["ls", "list", "tree", "range", "search", "export", "prefix"], "/scan/{prefix}"),
    (&["revisions", "versions", "log"], "/history/{key}"),
    (&["lost", "conflicts", "conflict", "siblings"], "/superseded/{prefix}"),
    (&["member", "members", "nodes", "peers", "status", "info"], "/cluster"),
    (&["sync"], "/cluster/sync"),
    (&["health", "ready", "readyz", "readiness"], "/health/ready"),
    (&["healthz", "live", "livez", "liveness", "ping"], "/health/live"),
    (&["metric", "stats", "prometheus"], "/metrics"),
];

/// First segments of what is not in this version.
const LATER: &[(&str, &str)] = &[
    ("touch", "read the value, then PUT it again with `ttl` and with its ETag in If-Match"),
    ("watch", "ask again, with the ETag in If-None-Match"),
    ("admin", "do without"),
    ("access", "do without"),
    ("openapi.json", "do without"),
    ("ui", "do without"),
];

/// `no_such_route` for `path`.
pub(super) fn no_such_route(resources: &[&Resource], path: &str) -> Error {
    let asked = shown(path);
    let clean = clean(path);
    let head = clean.split('/').next().unwrap_or_default();
    if let Some((_, instead)) = LATER.iter().find(|(name, _)| *name == head) {
        return Error::NoSuchRoute(format!("`/{head}` is not in this version; {instead}"));
    }
    if let Some(template) = nearest(resources, &clean, head) {
        let detail = format!("nothing is served at `{asked}`; did you mean `{template}`?");
        return Error::NoSuchRoute(detail);
    }
    let all: Vec<_> = resources.iter().map(|r| format!("`{}`", r.template)).collect();
    let all = all.join(", ");
    Error::NoSuchRoute(format!("nothing is served at `{asked}`; the routes are {all}"))
}

/// The path without what leads to the route in other systems, in lower case up to the key.
fn clean(path: &str) -> String {
    let path = path.replace("%2F", "/").replace("%2f", "/").to_ascii_lowercase();
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    let rest: Vec<_> = segments.skip_while(|segment| LEADS.contains(segment)).collect();
    rest.join("/")
}

fn nearest(resources: &[&Resource], clean: &str, head: &str) -> Option<&'static str> {
    let is_at = |resource: &&&Resource| {
        let base = resource.base.trim_start_matches('/');
        clean == base || (resource.has_rest && head == base)
    };
    if let Some(resource) = resources.iter().find(is_at) {
        return Some(resource.template);
    }
    if let Some((_, template)) = ALIASES.iter().find(|(names, _)| names.contains(&head)) {
        return Some(*template);
    }
    let alike = |resource: &&Resource| {
        let base = resource.base.trim_start_matches('/');
        let given = if base.contains('/') { clean } else { head };
        (strsim::jaro_winkler(base, given), resource.template)
    };
    most_alike(resources.iter().map(alike))
}

/// `method_not_allowed` for `method` at a path of `resource`.
pub(super) fn method_not_allowed(resource: &Resource, method: &Method) -> Error {
    let mut methods = Vec::new();
    for operation in resource.operations {
        methods.push(operation.verb.name());
        if operation.verb == Verb::Get {
            methods.push("HEAD");
        }
    }
    let (template, methods) = (resource.template, methods.join(", "));
    let method = shown(method.as_str());
    let instead = instead(resource.base, &method);
    Error::MethodNotAllowed(format!("`{template}` takes {methods}, not {method}{instead}"))
}

/// What to use in the place of a method.
fn instead(base: &str, method: &str) -> &'static str {
    match (base, method) {
        ("/kv", "POST") => "; PUT writes a value, and POST /cas/{key} swaps one",
        ("/kv", "PATCH") => "; read the value, then PUT all of it with its ETag in If-Match",
        ("/cas", "GET" | "HEAD") => "; GET /kv/{key} reads",
        ("/cas", "DELETE") => "; POST it with `\"delete\": true`",
        ("/cas", "PUT" | "PATCH") => "; POST what is expected and the new value as JSON",
        ("/txn", _) => "; POST the compares and operations as JSON",
        ("/scan", "DELETE") => "; this version deletes one key at a time, by DELETE /kv/{key}",
        ("/scan", "PUT" | "POST") => "; PUT /kv/{key} writes a value, and POST /txn several",
        ("/history", "DELETE") => "; revisions go by themselves (revision_history_depth)",
        ("/history", "PUT" | "POST") => "; to restore a revision, PUT its bytes to /kv/{key}",
        ("/cluster", "POST") => "; POST /cluster/sync begins a session with all peers",
        ("/cluster/sync", "GET" | "HEAD") => "; GET /cluster shows the members",
        _ => "",
    }
}
