//! What a read decides by dates, and what an empty PUT is.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::body::Body;
use axum::http::{Request, Response};

use crate::http::state::App;
use crate::http::tests::rig;
use crate::store::memory::Memory;

fn app(depth: u32) -> Arc<App> {
    rig::app(Arc::new(Memory::default()), |config| {
        config.revision_history_depth = depth;
        config.revision_history_enabled = depth > 0;
    })
}

async fn send(
    app: &Arc<App>,
    method: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response<Body> {
    let mut request: Request<Body> = rig::request(method, "/kv/k", body.to_owned());
    for (name, value) in headers {
        let name: axum::http::HeaderName = name.parse().unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    rig::send(app, request).await
}

/// Puts a value and returns its timestamp in seconds.
async fn put(app: &Arc<App>, body: &str) -> u64 {
    let written = rig::json(send(app, "PUT", &[], body).await).await;
    written["timestamp"].as_u64().unwrap() / 1_000_000
}

fn date(second: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second))
}

async fn read(app: &Arc<App>, header: &str, second: u64) -> u16 {
    let statuses = [
        send(app, "GET", &[(header, &date(second))], "").await.status(),
        send(app, "HEAD", &[(header, &date(second))], "").await.status(),
    ];
    assert_eq!(statuses[0], statuses[1]);
    statuses[0].as_u16()
}

#[tokio::test]
async fn a_value_that_has_not_changed_since_a_date_is_not_sent_again() {
    let app = app(8);
    assert_eq!(read(&app, "if-modified-since", 1).await, 404);
    let written = put(&app, "x").await;
    assert_eq!(read(&app, "if-modified-since", written).await, 304);
    assert_eq!(read(&app, "if-modified-since", written - 1).await, 200);
    // no answer names a date that is still to come
    assert_eq!(read(&app, "if-modified-since", written + 1000).await, 200);
    let since = date(written);
    let not_modified = send(&app, "GET", &[("if-modified-since", &since)], "").await;
    assert!(not_modified.headers().contains_key("etag"));
    assert!(!not_modified.headers().contains_key("content-type"));
    // a tag says more than a date
    let both = [("if-modified-since", since.as_str()), ("if-none-match", "\"other\"")];
    assert_eq!(send(&app, "GET", &both, "").await.status(), 200);
    let twice = [("if-modified-since", since.as_str()); 2];
    for ignored in [&[("if-modified-since", "yesterday")][..], &twice] {
        assert_eq!(send(&app, "GET", ignored, "").await.status(), 200, "{ignored:?}");
    }
}

/// Two versions of one second: the date of one is the date of the other.
#[tokio::test]
async fn a_change_within_the_same_second_is_a_change() {
    for depth in [0, 1, 8] {
        let app = app(depth);
        let (first, second) = loop {
            let (first, second) = (put(&app, "old").await, put(&app, "new").await);
            if first == second {
                break (first, second);
            }
        };
        assert_eq!(read(&app, "if-modified-since", second).await, 200, "depth {depth}");
        assert_eq!(read(&app, "if-unmodified-since", second).await, 412, "depth {depth}");
        assert_eq!(read(&app, "if-unmodified-since", first - 1).await, 412);
        assert_eq!(read(&app, "if-unmodified-since", second + 1).await, 200);
    }
}

#[tokio::test]
async fn a_read_goes_on_only_while_a_value_is_unmodified() {
    let app = app(8);
    assert_eq!(read(&app, "if-unmodified-since", 1).await, 404);
    let written = put(&app, "x").await;
    assert_eq!(read(&app, "if-unmodified-since", written).await, 200);
    assert_eq!(read(&app, "if-unmodified-since", written - 1).await, 412);
    let early = date(written - 1);
    let both = [("if-unmodified-since", early.as_str()), ("if-match", "*")];
    assert_eq!(send(&app, "GET", &both, "").await.status(), 200, "a tag says more");
    assert_eq!(send(&app, "PUT", &both, "y").await.status(), 200);
    // for a write a date alone is too little
    assert_eq!(send(&app, "PUT", &both[..1], "z").await.status(), 400);
}

#[tokio::test]
async fn an_empty_put_needs_a_content_type() {
    let app = app(8);
    put(&app, "x").await;
    let refused = send(&app, "PUT", &[], "").await;
    assert_eq!(refused.status(), 400);
    let problem = rig::json(refused).await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("If-Match") && detail.contains("Content-Type"), "{detail}");
    let read = send(&app, "GET", &[], "").await;
    assert_eq!(rig::body(read).await, "x");
    let stored = send(&app, "PUT", &[("content-type", "text/plain")], "").await;
    assert_eq!(stored.status(), 200);
    assert!(rig::body(send(&app, "GET", &[], "").await).await.is_empty());
}

#[tokio::test]
async fn a_weak_tag_of_the_live_value_is_explained() {
    let app = app(8);
    put(&app, "x").await;
    let tag = send(&app, "GET", &[], "").await.headers()["etag"].to_str().unwrap().to_owned();
    let weak = format!("W/{tag}");
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        let refused = send(&app, method, &[("if-match", &weak)], "y").await;
        assert_eq!(refused.status(), 412, "{method}");
        if method != "HEAD" {
            let detail = rig::json(refused).await["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains("weak tag") && detail.contains("proxy"), "{detail}");
        }
    }
    let other = "W/\"00000000-0000-0000-0000-000000000001\"";
    let refused = rig::json(send(&app, "PUT", &[("if-match", other)], "y").await).await;
    assert!(!refused["detail"].as_str().unwrap().contains("weak"), "{refused}");
    assert_eq!(send(&app, "PUT", &[("if-match", &tag)], "y").await.status(), 200);
}
