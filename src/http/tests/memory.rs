//! The memory of answers: how long it is held, which requests are refused, and which are not.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{ACCEPT, RETRY_AFTER};
use axum::response::Response;
use http_body_util::BodyExt;

use super::rig;
use crate::http::server::limits::{LARGE_BYTES_MIN, PERMIT_WAIT};
use crate::http::state::App;
use crate::store::memory::Memory;

const VALUE_BYTES: usize = 100 << 10;

/// Room for three values at once.
fn app() -> Arc<App> {
    rig::app(Arc::new(Memory::default()), |config| {
        config.limits.value_bytes_max = VALUE_BYTES;
        config.limits.answer_memory_bytes_max = 3 * VALUE_BYTES;
    })
}

async fn get(app: &Arc<App>, path: &str) -> Response {
    rig::send(app, rig::request("GET", path, Body::empty())).await
}

async fn put(app: &Arc<App>, path: &str, bytes: usize) -> u16 {
    rig::send(app, rig::request("PUT", path, vec![7; bytes])).await.status().as_u16()
}

/// Paused time: waits that nothing ends time out at once.
#[tokio::test(start_paused = true)]
async fn slow_readers_are_refused_more_answers_and_block_no_writer() {
    let app = app();
    assert_eq!(put(&app, "/kv/large", VALUE_BYTES).await, 201);
    assert_eq!(put(&app, "/kv/small", 1000).await, 201);
    let (first, second, third) =
        (get(&app, "/kv/large").await, get(&app, "/kv/large").await, get(&app, "/kv/large").await);
    for path in ["/kv/large", "/kv/large?format=envelope", "/scan/?values=true", "/scan/"] {
        let refused = get(&app, path).await;
        assert_eq!(refused.status(), 503, "{path}");
        assert!(refused.headers().contains_key(RETRY_AFTER));
        assert_eq!(rig::json(refused).await["code"], "overloaded");
    }
    assert_eq!(get(&app, "/kv/small").await.status(), 200, "small answers are not counted");
    assert_eq!(put(&app, "/kv/large", VALUE_BYTES).await, 200);
    let head = rig::send(&app, rig::request("HEAD", "/kv/large", Body::empty())).await;
    assert_eq!(head.status(), 200);

    // read to its end, but a part is still in a buffer
    let buffered = first.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
    let part = buffered.slice(..10);
    drop(buffered);
    assert_eq!(get(&app, "/kv/large").await.status(), 503);
    drop(part);
    assert_eq!(rig::body(get(&app, "/kv/large").await).await.len(), VALUE_BYTES);
    drop((second, third));
    assert_eq!(get(&app, "/kv/large?format=envelope").await.status(), 200);
    assert_eq!(get(&app, "/scan/?values=true").await.status(), 200);
    assert!(app.answers.permit(3 * VALUE_BYTES).await.is_ok(), "all memory was returned");
}

#[tokio::test(start_paused = true)]
async fn envelopes_and_pages_hold_the_memory_of_their_text_until_they_are_sent() {
    let app = app();
    assert_eq!(put(&app, "/kv/large", VALUE_BYTES).await, 201);
    let envelope = get(&app, "/kv/large?format=envelope").await;
    assert!(app.answers.permit(3 * VALUE_BYTES / 2).await.is_ok());
    assert!(app.answers.permit(2 * VALUE_BYTES).await.is_err());
    drop(envelope);
    let mut request = rig::request("GET", "/scan/?values=true", Body::empty());
    request.headers_mut().insert(ACCEPT, "application/x-ndjson".parse().unwrap());
    let lines = rig::send(&app, request).await;
    assert!(app.answers.permit(3 * VALUE_BYTES / 2).await.is_ok());
    assert!(app.answers.permit(2 * VALUE_BYTES).await.is_err());
    assert!(rig::body(lines).await.ends_with(b"}\n"));
    assert!(app.answers.permit(3 * VALUE_BYTES).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn work_on_large_content_leaves_the_reactor_thread() {
    let app = app();
    let thread = || std::thread::current().id();
    let here = {
        let app = Arc::clone(&app);
        tokio::task::spawn(async move {
            let here = thread();
            assert_eq!(app.work(LARGE_BYTES_MIN - 1, thread).await, here);
            assert_ne!(app.work(LARGE_BYTES_MIN, thread).await, here);
        })
    };
    here.await.unwrap();
    assert_eq!(PERMIT_WAIT.as_secs(), 5, "as the configuration documents");
}
