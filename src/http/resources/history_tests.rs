//! The members of a revision, the checks of a request, and the memory of answers.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;

use super::*;
use crate::http::tests::rig;
use crate::model::{ContentType, Header, NodeId, Seen, Version};
use crate::store::memory::Memory;

fn revision(content: Content, body: Option<&'static [u8]>, outcome: Outcome) -> Revision {
    let header = Header {
        version: Version {
            timestamp: Timestamp::saturating(1_700_000_000_000_001),
            origin_joined_at: Timestamp::saturating(1_600_000_000_000_000),
            uuid: Uuid::from_u128(5),
        },
        origin: NodeId::from_u128(7),
        parent: None,
        seen: Seen::default(),
        expires_at: None,
        content,
    };
    let by = (outcome != Outcome::Current).then(|| Uuid::from_u128(6));
    Revision { header, body: body.map(Bytes::from_static), outcome, by }
}

fn text(revision: &Revision) -> String {
    serde_json::to_string(&RevisionBody::of(revision, ContentForm::Readable)).unwrap()
}

const HEAD: &str = concat!(
    r#"{"uuid":"00000000-0000-0000-0000-000000000005","timestamp":1700000000000001,"#,
    r#""origin":"00000000-0000-0000-0000-000000000007","parent":null,"#,
);

#[test]
fn a_revision_shows_its_fields_in_the_order_of_the_contract() {
    let value = Content::value(ContentType::json(), b"[1.0, 2]");
    let shown = text(&revision(value.clone(), Some(b"[1.0, 2]"), Outcome::Replaced));
    let expected = concat!(
        r#""deleted":false,"expires_at":null,"outcome":"replaced","#,
        r#""by":"00000000-0000-0000-0000-000000000006","#,
        r#""content_type":"application/json","size":8,"data":[1.0, 2]}"#
    );
    assert_eq!(shown, format!("{HEAD}{expected}"));
    let shown = text(&revision(value, None, Outcome::Expired));
    assert!(shown.contains(r#""outcome":"expired""#), "{shown}");
    assert!(shown.ends_with(r#""size":8,"omitted":true}"#), "{shown}");
    let shown = text(&revision(
        Content::value(ContentType::octet_stream(), b"hi"),
        Some(b"hi"),
        Outcome::Current,
    ));
    assert!(shown.ends_with(r#""size":2,"data_base64":"aGk="}"#), "{shown}");
    assert!(!shown.contains("\"by\""), "{shown}");
    let lined =
        revision(Content::value(ContentType::json(), b"1\n"), Some(b"1\n"), Outcome::Current);
    assert!(text(&lined).ends_with(r#""size":2,"data":1}"#));
    let exact = serde_json::to_string(&RevisionBody::of(&lined, ContentForm::Exact)).unwrap();
    assert!(exact.ends_with(r#""size":2,"data_base64":"MQo="}"#), "{exact}");
}

#[test]
fn a_delete_has_no_content() {
    let shown = text(&revision(Content::Tombstone, Some(b""), Outcome::Current));
    let expected = r#""deleted":true,"expires_at":null,"outcome":"current"}"#;
    assert_eq!(shown, format!("{HEAD}{expected}"));
}

async fn get(app: &Arc<App>, path: &str) -> (u16, String) {
    let response = rig::send(app, rig::request("GET", path, Body::empty())).await;
    let status = response.status().as_u16();
    (status, rig::json(response).await["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_request_is_checked_before_the_store_is_read() {
    let app = rig::app(Arc::new(Memory::default()), |_| {});
    for bad in ["limit=0", "limit=1001", "limit=x", "uuid=", "uuid=x", "uuid=5&limit=5"] {
        let refused = get(&app, &format!("/history/k?{bad}")).await;
        assert_eq!(refused, (400, "bad_request".to_owned()), "{bad}");
    }
    let named = format!("/history/k?limit=5&uuid={}", Uuid::nil());
    assert_eq!(get(&app, &named).await, (400, "bad_request".to_owned()));
    assert_eq!(get(&app, "/history/k?after=x").await, (400, "unknown_field".to_owned()));
    assert_eq!(get(&app, "/history/").await, (400, "bad_key".to_owned()));
    let off = rig::app(Arc::new(Memory::default()), |config| {
        config.revision_history_enabled = false;
    });
    assert_eq!(get(&off, "/history/k").await, (501, "feature_disabled".to_owned()));
    assert_eq!(get(&off, &named).await, (400, "bad_request".to_owned()));
}

/// Paused time: waits that nothing ends time out at once.
#[tokio::test(start_paused = true)]
async fn content_is_shown_up_to_a_bound_and_its_memory_is_counted() {
    let app = rig::app(Arc::new(Memory::default()), |config| {
        config.limits.value_bytes_max = 1 << 20;
        config.limits.body_bytes_max = 1 << 20;
        config.limits.answer_memory_bytes_max = 3 << 20;
    });
    let mut uuids = Vec::new();
    for bytes in [64 << 10, (64 << 10) + 1, 3, 1 << 20] {
        let put = rig::request("PUT", "/kv/k", vec![7; bytes]);
        let written = rig::json(rig::send(&app, put).await).await;
        uuids.push(written["uuid"].as_str().unwrap().to_owned());
    }
    let request = || rig::request("GET", "/history/k", Body::empty());
    let shown = rig::json(rig::send(&app, request()).await).await;
    let revisions = shown["revisions"].as_array().unwrap();
    let content = revisions.iter().map(|r| r.get("data_base64").is_some());
    assert_eq!(content.collect::<Vec<_>>(), [false, true, false, true]);
    let omitted = revisions.iter().map(|r| r.get("omitted").is_some());
    assert_eq!(omitted.collect::<Vec<_>>(), [true, false, true, false]);
    let all = app.answers.permit(3 << 20).await.unwrap();
    assert_eq!(rig::send(&app, request()).await.status(), 503);
    let bytes = format!("/history/k?uuid={}", uuids[3]);
    assert_eq!(get(&app, &bytes).await, (503, "overloaded".to_owned()));
    drop(all);
    let bytes = rig::send(&app, rig::request("GET", &bytes, Body::empty())).await;
    assert_eq!(rig::body(bytes).await.len(), 1 << 20);
    assert!(app.answers.permit(3 << 20).await.is_ok(), "all memory was returned");
}
