//! What users of other systems get wrong at first, and what each is told: what is wrong, where, and
//! what to do instead. The texts stand here so that a change of one is read.

use std::sync::Arc;

use super::rig;
use crate::store::memory::Memory;

/// Method, path, a header field or none, body; then code and text of the refusal.
type Mistake = (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str);

const ROUTES: &[Mistake] = &[
    (
        "GET",
        "/kvs/app",
        "",
        "",
        "no_such_route",
        "nothing is served at `/kvs/app`; did you mean `/kv/{key}`?",
    ),
    (
        "PUT",
        "/v1/kv/app",
        "",
        "x",
        "no_such_route",
        "nothing is served at `/v1/kv/app`; did you mean `/kv/{key}`?",
    ),
    (
        "GET",
        "/KV/app",
        "",
        "",
        "no_such_route",
        "nothing is served at `/KV/app`; did you mean `/kv/{key}`?",
    ),
    (
        "GET",
        "/kv%2Fapp",
        "",
        "",
        "no_such_route",
        "nothing is served at `/kv%2Fapp`; did you mean `/kv/{key}`?",
    ),
    (
        "GET",
        "/keys/app",
        "",
        "",
        "no_such_route",
        "nothing is served at `/keys/app`; did you mean `/kv/{key}`?",
    ),
    (
        "GET",
        "/ls/app",
        "",
        "",
        "no_such_route",
        "nothing is served at `/ls/app`; did you mean `/scan/{prefix}`?",
    ),
    (
        "POST",
        "/txn/",
        "",
        "{}",
        "no_such_route",
        "nothing is served at `/txn/`; did you mean `/txn`?",
    ),
    (
        "POST",
        "/transaction",
        "",
        "{}",
        "no_such_route",
        "nothing is served at `/transaction`; did you mean `/txn`?",
    ),
    (
        "GET",
        "/health",
        "",
        "",
        "no_such_route",
        "nothing is served at `/health`; did you mean `/health/ready`?",
    ),
    (
        "GET",
        "/healthz",
        "",
        "",
        "no_such_route",
        "nothing is served at `/healthz`; did you mean `/health/live`?",
    ),
    (
        "GET",
        "/cluster/member",
        "",
        "",
        "no_such_route",
        "nothing is served at `/cluster/member`; did you mean `/cluster`?",
    ),
    (
        "GET",
        "/watch/app",
        "",
        "",
        "no_such_route",
        "`/watch` is not in this version; ask again, with the ETag in If-None-Match",
    ),
    (
        "GET",
        "/",
        "",
        "",
        "no_such_route",
        "nothing is served at `/`; the routes are `/kv/{key}`, `/cas/{key}`, `/txn`, \
         `/scan/{prefix}`, `/history/{key}`, `/superseded/{prefix}`, `/cluster`, `/cluster/sync`, \
         `/cluster/mode`, `/cluster/members/{id}`, `/cluster/join`, `/cluster/leave`, \
         `/admin/import`, `/health/live`, `/health/ready`, `/health/readable`, `/metrics`",
    ),
    (
        "POST",
        "/kv/app",
        "",
        "x",
        "method_not_allowed",
        "`/kv/{key}` takes GET, HEAD, PUT, DELETE, not POST; PUT writes a value, and POST \
         /cas/{key} swaps one",
    ),
    (
        "PATCH",
        "/kv/app",
        "",
        "{}",
        "method_not_allowed",
        "`/kv/{key}` takes GET, HEAD, PUT, DELETE, not PATCH; read the value, then PUT all of it \
         with its ETag in If-Match",
    ),
    (
        "GET",
        "/cas/app",
        "",
        "",
        "method_not_allowed",
        "`/cas/{key}` takes POST, not GET; GET /kv/{key} reads",
    ),
    (
        "PUT",
        "/cas/app",
        "",
        "{}",
        "method_not_allowed",
        "`/cas/{key}` takes POST, not PUT; POST what is expected and the new value as JSON",
    ),
    (
        "DELETE",
        "/scan/app",
        "",
        "",
        "method_not_allowed",
        "`/scan/{prefix}` takes GET, HEAD, not DELETE; this version deletes one key at a time, by \
         DELETE /kv/{key}",
    ),
    (
        "GET",
        "/cluster/sync",
        "",
        "",
        "method_not_allowed",
        "`/cluster/sync` takes POST, not GET; GET /cluster shows the members",
    ),
];

const PARAMETERS: &[Mistake] = &[
    (
        "PUT",
        "/kv/app?lease=10s",
        "",
        "x",
        "unknown_field",
        "`lease` is not known here; did you mean `ttl` (a time to live, as in `10s`)?",
    ),
    (
        "PUT",
        "/kv/app?TTL=10s",
        "",
        "x",
        "unknown_field",
        "`TTL` is not known here; did you mean `ttl` (a time to live, as in `10s`)?",
    ),
    (
        "PUT",
        "/kv/app?ttl=10 sec",
        "",
        "x",
        "bad_duration",
        "`10 sec` is not a duration; write a whole number and ms, s, m, h or d (no unit: seconds), \
         from 1ms to 36500d, as in `250ms` or `10s`, or `keep` to keep the current expiry; a value \
         without `ttl` does not expire",
    ),
    (
        "PUT",
        "/kv/app?ttl=3s",
        "",
        "",
        "bad_request",
        "the request has no body and names no Content-Type; nothing was written. To give the value \
         a new lifetime, read it, then PUT it again with `ttl` and with its ETag in If-Match. To \
         store an empty value, name its Content-Type",
    ),
    (
        "PUT",
        "/kv/app?cas=7",
        "",
        "x",
        "unknown_field",
        "`cas` is not known here: send the ETag in If-Match, or use POST /cas/{key}",
    ),
    (
        "GET",
        "/kv/app?color=red",
        "",
        "",
        "unknown_field",
        "`color` is not known here; known are `format`, `exact`",
    ),
    (
        "GET",
        "/kv/app?format=json",
        "",
        "",
        "bad_request",
        "`format` can only be `envelope`; otherwise leave it out",
    ),
    (
        "GET",
        "/scan/app?count=5",
        "",
        "",
        "unknown_field",
        "`count` is not known here; did you mean `limit`?",
    ),
    (
        "GET",
        "/scan/app?cursor=abc",
        "",
        "",
        "unknown_field",
        "`cursor` is not known here; did you mean `after` (the `next` of an earlier page)?",
    ),
    (
        "GET",
        "/scan/app?prefix=x",
        "",
        "",
        "unknown_field",
        "`prefix` is not known here: the prefix stands in the path",
    ),
    (
        "GET",
        "/history/app?version=5",
        "",
        "",
        "unknown_field",
        "`version` is not known here; did you mean `uuid` (as an answer shows it, or new for each \
         request where it names one)?",
    ),
    (
        "POST",
        "/cluster/sync?force=1",
        "",
        "",
        "unknown_field",
        "`force` is not known here, nor is any other name; leave it out",
    ),
];

const HEADERS: &[Mistake] = &[
    (
        "PUT",
        "/kv/app",
        "if-match: 0d6a3c1e-8c0f-4e0e-a6f0-2f4f7f0c7d3b",
        "x",
        "bad_request",
        "If-Match must be `*` or a list of quoted tags, as in `\"<uuid>\"`",
    ),
    (
        "PUT",
        "/kv/app",
        "if-unmodified-since: Sun, 06 Nov 1994 08:49:37 GMT",
        "x",
        "bad_request",
        "If-Unmodified-Since is not supported for writes, as a date cannot tell two versions of \
         one second apart; send the ETag in If-Match",
    ),
    (
        "PUT",
        "/kv/app",
        "idempotency-key: order-7",
        "x",
        "bad_request",
        "Idempotency-Key must be a UUID with hyphens, new for each request",
    ),
    (
        "POST",
        "/cas/app",
        "if-match: *",
        "{}",
        "bad_request",
        "If-Match is not for this path; use `expected`",
    ),
    (
        "PUT",
        "/kv/app",
        "if-match: *",
        "x",
        "precondition_failed",
        "the condition does not hold; the key has no live value",
    ),
];

const BODIES: &[Mistake] = &[
    (
        "POST",
        "/cas/app",
        "",
        r#"{"expected":{"absent":true},"value":1}"#,
        "unknown_field",
        "`value` is not known here; did you mean `data` (any JSON; `data_base64` takes other \
         bytes)?",
    ),
    (
        "POST",
        "/cas/app",
        "",
        r#"{"expect":{"absent":true},"data":1}"#,
        "unknown_field",
        "`expect` is not known here; did you mean `expected` (what the key must hold, as in \
         `{\"absent\": true}` or `{\"uuid\": \"...\"}`)?",
    ),
    (
        "POST",
        "/cas/app",
        "",
        r#"{"expected":null,"data":1}"#,
        "bad_request",
        "`expected` must be a JSON object that says what the key holds, as in `{\"data\": 1}`, \
         `{\"uuid\": \"...\"}` or, for no value, `{\"absent\": true}`",
    ),
    (
        "POST",
        "/cas/app",
        "",
        r#"{"data":1}"#,
        "bad_request",
        "`expected` is missing: what the key must hold, as in `{\"uuid\": \"...\"}` or, for no \
         value, `{\"absent\": true}`",
    ),
    (
        "POST",
        "/cas/app",
        "",
        r#"{"expected":{"version":7},"data":1}"#,
        "unknown_field",
        "`version` is not known here; did you mean `uuid` (as an answer shows it, or new for each \
         request where it names one)?",
    ),
    (
        "POST",
        "/cas/app",
        "",
        r#"{"key":"app","expected":{"absent":true},"data":1}"#,
        "unknown_field",
        "`key` is not known here: the key stands in the path",
    ),
    (
        "POST",
        "/cas/app",
        "",
        r#"{"expected":{"absent":true},"ttl":"3s"}"#,
        "bad_request",
        "give exactly one of `data`, `data_base64` and `\"delete\": true`",
    ),
    (
        "POST",
        "/txn",
        "",
        r#"{"ops":[]}"#,
        "unknown_field",
        "`ops` is not known here; did you mean `success`?",
    ),
    (
        "POST",
        "/txn",
        "",
        r#"{"success":[{"set":{"key":"a","data":1}}]}"#,
        "unknown_field",
        "in `success[0]`: `set` is not known here; did you mean `put`?",
    ),
    (
        "POST",
        "/txn",
        "",
        r#"{"success":[{"put":{"key":"a","value":1}}]}"#,
        "unknown_field",
        "in `success[0].put`: `value` is not known here; did you mean `data` (any JSON; \
         `data_base64` takes other bytes)?",
    ),
    (
        "POST",
        "/txn",
        "",
        r#"{"success":[{"op":"put","key":"a"}]}"#,
        "unknown_field",
        "in `success[0]`: `op` is not known here; known are `put`, `delete`, `get`",
    ),
    (
        "POST",
        "/txn",
        "",
        r#"{"compare":[{"key":"a","uuid":"x"}]}"#,
        "unknown_field",
        "in `compare[0]`: `uuid` is not known here; did you mean `expected` (what the key must \
         hold, as in `{\"absent\": true}` or `{\"uuid\": \"...\"}`)?",
    ),
];

#[tokio::test]
async fn each_mistake_is_told_what_is_wrong_and_what_to_do() {
    let app = rig::app(Arc::new(Memory::default()), |config| config.clustering_enabled = false);
    let all = [ROUTES, PARAMETERS, HEADERS, BODIES].concat();
    assert!(all.len() >= 30);
    let mut wrong = Vec::new();
    for (method, path, header, body, code, text) in all {
        let path = path.replace(' ', "%20");
        let mut request = rig::request(method, &path, body);
        if let Some((name, value)) = header.split_once(": ") {
            let name: axum::http::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let told = rig::json(rig::send(&app, request).await).await;
        if told["code"] != code || told["detail"] != text {
            wrong.push(format!("{method} {path} {header} {body}\n  is told {told}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let untouched = rig::send(&app, rig::request("GET", "/kv/app", "")).await;
    assert_eq!(untouched.status(), 404, "a mistake writes nothing");
}

/// A refused method names those that the path takes where `Allow` does.
#[tokio::test]
async fn the_methods_of_a_path_stand_in_the_text_and_in_allow() {
    let app = rig::app(Arc::new(Memory::default()), |_| {});
    for resource in crate::http::resources::RESOURCES {
        let refused = rig::send(&app, rig::request("BREW", resource.base, "")).await;
        assert_eq!(refused.status(), 405, "{}", resource.base);
        let allow = refused.headers()["allow"].to_str().unwrap().to_owned();
        let detail = rig::json(refused).await["detail"].as_str().unwrap().to_owned();
        for method in allow.split(',') {
            assert!(detail.contains(method.trim()), "{allow}: {detail}");
        }
    }
}
