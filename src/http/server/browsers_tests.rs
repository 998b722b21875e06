//! The table of requests that browsers and others send, and which of them pass.

use axum::http::Request;

use super::*;
use crate::config::Config;

fn wall(loopback: bool) -> Wall {
    let mut http = Config::defaults().unwrap().http;
    http.hosts = vec!["kvs.example".to_owned(), "other.example:8443".to_owned()];
    http.origins = vec!["https://app.example".to_owned()];
    Wall::new(&http, loopback)
}

fn parts(method: &str, path: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn code(wall: &Wall, method: &str, path: &str, headers: &[(&str, &str)]) -> &'static str {
    match wall.check(&parts(method, path, headers)) {
        Ok(()) => "ok",
        Err(error) => error.code().info().name,
    }
}

#[test]
fn a_loopback_listener_takes_only_hosts_of_its_machine() {
    let (loopback, public) = (wall(true), wall(false));
    for (host, on_loopback, on_public) in [
        ("localhost:8080", "ok", "ok"),
        ("a.localhost", "ok", "ok"),
        ("127.0.0.1:8080", "ok", "ok"),
        ("[::1]:8080", "ok", "ok"),
        ("KVS.example", "ok", "ok"),
        ("kvs.example:1", "ok", "ok"),
        ("other.example:8443", "ok", "ok"),
        ("other.example", "misdirected", "ok"),
        ("rebound.evil.example", "misdirected", "ok"),
        ("localhost.evil.example:80", "misdirected", "ok"),
        ("0.0.0.0:8080", "misdirected", "ok"),
        ("10.0.0.1", "misdirected", "ok"),
        ("", "misdirected", "ok"),
        ("a b", "bad_request", "bad_request"),
        ("user@localhost", "bad_request", "bad_request"),
        ("localhost:x", "bad_request", "bad_request"),
    ] {
        let headers = [("host", host)];
        assert_eq!(code(&loopback, "GET", "/scan/", &headers), on_loopback, "{host}");
        assert_eq!(code(&public, "GET", "/scan/", &headers), on_public, "{host}");
    }
    let evil = [("host", "evil.example")];
    assert_eq!(code(&loopback, "GET", "/health/live", &evil), "ok");
    assert_eq!(code(&loopback, "GET", "/health", &evil), "misdirected");
    let target = "http://evil.example/scan/";
    assert_eq!(code(&loopback, "GET", target, &[("host", "localhost")]), "misdirected");
}

#[test]
fn http_1_1_needs_one_host_and_http_1_0_none() {
    let wall = wall(true);
    let twice = [("host", "localhost"), ("host", "localhost")];
    let evil = [("host", "evil.example")];
    for (version, headers, expected) in [
        (Version::HTTP_11, &[][..], "bad_request"),
        (Version::HTTP_10, &[][..], "ok"),
        (Version::HTTP_11, &twice[..], "bad_request"),
        (Version::HTTP_10, &twice[..], "bad_request"),
        (Version::HTTP_10, &evil[..], "misdirected"),
    ] {
        let mut parts = parts("GET", "/kv/a", headers);
        parts.version = version;
        let found = wall.check(&parts).err().map_or("ok", |error| error.code().info().name);
        assert_eq!(found, expected, "{version:?} {headers:?}");
    }
}

#[test]
fn only_pages_of_this_node_and_of_named_origins_pass() {
    let wall = wall(true);
    let here = ("host", "localhost:8080");
    let named = ("origin", "https://app.example");
    let site = |value| ("sec-fetch-site", value);
    let navigate = ("sec-fetch-mode", "navigate");
    let cases: &[(&str, &[(&str, &str)], &str)] = &[
        ("POST", &[], "ok"),
        ("POST", &[site("same-origin")], "ok"),
        ("POST", &[site("none")], "ok"),
        ("POST", &[site("cross-site")], "forbidden"),
        ("POST", &[site("same-site")], "forbidden"),
        ("POST", &[site("")], "forbidden"),
        ("GET", &[site("cross-site")], "forbidden"),
        ("GET", &[site("cross-site"), navigate], "ok"),
        ("HEAD", &[site("cross-site"), navigate], "ok"),
        ("POST", &[site("cross-site"), navigate], "forbidden"),
        ("GET", &[site("cross-site"), ("sec-fetch-mode", "no-cors")], "forbidden"),
        ("GET", &[site("cross-site"), navigate, ("sec-fetch-mode", "cors")], "forbidden"),
        ("POST", &[site("cross-site"), named], "ok"),
        ("POST", &[site("none"), site("cross-site")], "forbidden"),
        ("POST", &[site("cross-site"), ("origin", "https://evil.example")], "forbidden"),
        ("POST", &[site("same-origin"), ("origin", "http://localhost:8080")], "ok"),
        ("POST", &[named], "ok"),
        ("POST", &[named, ("origin", "https://evil.example")], "forbidden"),
        ("POST", &[("origin", "https://app.example:443")], "ok"),
        ("POST", &[("origin", "http://app.example")], "forbidden"),
        ("POST", &[("origin", "https://evil.example")], "forbidden"),
        ("GET", &[("origin", "https://evil.example")], "forbidden"),
        ("POST", &[("origin", "null")], "forbidden"),
        ("POST", &[("origin", "")], "forbidden"),
        ("POST", &[("origin", "http://localhost:8080")], "ok"),
        ("POST", &[("origin", "http://localhost:3000")], "forbidden"),
        ("POST", &[("origin", "http://127.0.0.1:8080")], "forbidden"),
    ];
    for (method, headers, expected) in cases {
        let headers: Vec<_> = [here].iter().chain(*headers).copied().collect();
        assert_eq!(code(&wall, method, "/txn", &headers), *expected, "{method} {headers:?}");
    }
}

#[test]
fn a_transfer_coding_besides_chunked_is_refused() {
    let wall = wall(true);
    for (coding, expected) in [
        ("chunked", "ok"),
        ("Chunked", "ok"),
        ("gzip, chunked", "unsupported_media"),
        ("chunked, chunked", "unsupported_media"),
        ("identity, chunked", "unsupported_media"),
        ("x", "unsupported_media"),
    ] {
        let headers = [("host", "localhost"), ("transfer-encoding", coding)];
        assert_eq!(code(&wall, "PUT", "/kv/a", &headers), expected, "{coding}");
    }
    let twice = [("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")];
    let headers = [[("host", "localhost")].as_slice(), &twice].concat();
    assert_eq!(code(&wall, "PUT", "/kv/a", &headers), "unsupported_media");
}

#[test]
fn a_preflight_of_a_named_origin_is_answered_and_no_other() {
    let wall = wall(true);
    let asked = ("access-control-request-method", "PUT");
    let answer = |path, headers: &[(&str, &str)]| {
        let parts = parts("OPTIONS", path, headers);
        preflight(&parts, &wall.admission(&parts.headers))
    };
    let named = ("origin", "https://app.example");
    let fields = ("access-control-request-headers", "if-match, authorization");
    let found = answer("/kv/a", &[named, asked, fields]).unwrap();
    assert_eq!(found.status(), 204);
    assert_eq!(found.headers()[ACCESS_CONTROL_ALLOW_HEADERS], "if-match, authorization");
    let methods = found.headers()[ACCESS_CONTROL_ALLOW_METHODS].to_str().unwrap();
    assert!(["GET", "PUT", "DELETE"].iter().all(|method| methods.contains(method)), "{methods}");
    assert!(answer("/kv/a", &[("origin", "https://evil.example"), asked]).is_none());
    assert!(answer("/kv/a", &[named]).is_none());
    assert!(answer("/kv/a", &[asked]).is_none());
    assert!(answer("/nothing", &[named, asked]).is_none());
}

#[test]
fn an_answer_names_the_origin_that_may_read_it() {
    let dressed = |wall: &Wall, headers: &[(&str, &str)]| {
        let mut answer = HeaderMap::new();
        answer.insert(VARY, HeaderValue::from_static("accept"));
        wall.admission(&parts("GET", "/", headers).headers).dress(&mut answer);
        answer
    };
    let named = dressed(&wall(true), &[("origin", "https://app.example")]);
    assert_eq!(named[ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example");
    assert_eq!(named[ACCESS_CONTROL_EXPOSE_HEADERS], EXPOSED);
    let vary: Vec<_> = named.get_all(VARY).iter().collect();
    assert_eq!(vary, ["accept", "origin"]);
    let plain = Wall::new(&Config::defaults().unwrap().http, true);
    let refused = dressed(&plain, &[("origin", "https://evil.example")]);
    assert!(!refused.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
    assert_eq!(refused.get_all(VARY).iter().count(), 2);
    assert_eq!(dressed(&plain, &[]).get_all(VARY).iter().count(), 1);
}
