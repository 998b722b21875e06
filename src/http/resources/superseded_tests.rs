//! Parameters, the form of an item, and pages.

use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::http::tests::rig;
use crate::model::{Content, ContentType, Header, Key, NodeId, Record, Seen, Version};
use crate::store::memory::Memory;
use crate::store::{Change, Lifetime, Write};

/// A younger write of another node that knows nothing of `lost`.
fn winner(lost: &Header, body: Option<&'static [u8]>) -> Record {
    let (origin, timestamp) = (NodeId::from_u128(9), lost.version.timestamp.next());
    let header = Header {
        version: Version { timestamp, origin_joined_at: Timestamp::ZERO, uuid: Uuid::from_u128(5) },
        origin,
        parent: None,
        seen: Seen::after_write(None, origin, timestamp),
        expires_at: None,
        content: body.map_or(Content::Tombstone, |b| Content::value(ContentType::json(), b)),
    };
    Record { header, body: body.unwrap_or_default().into() }
}

/// Puts `value` and lets it lose.
pub(crate) async fn lose(app: &App, key: &str, value: &str, body: Option<&'static [u8]>) {
    let put = Change::put(ContentType::json(), value.to_owned().into(), Lifetime::Unbounded);
    let key = Key::parse(key).unwrap();
    let store = &app.state.store;
    let write = Write { key: key.clone(), change: put, conditions: Vec::new(), uuid: None };
    let lost = store.write(write).await.unwrap().header;
    store.apply(vec![(key, winner(&lost, body))]).await.unwrap();
}

async fn get(app: &Arc<App>, path: &str) -> Value {
    rig::json(rig::send(app, rig::request("GET", path, "")).await).await
}

#[tokio::test]
async fn a_report_shows_both_writes_and_a_page_leads_to_the_next() {
    let app = rig::app(Arc::new(Memory::default()), |config| config.limits.body_bytes_max = 5000);
    for number in 0..5 {
        lose(&app, &format!("app/{number}"), &format!("[{number}]"), Some(b"{\"won\" : 1}")).await;
    }
    lose(&app, "large", &format!("\"{}\"", "x".repeat(6000)), None).await;
    let all = get(&app, "/superseded/").await;
    assert_eq!(all["items"].as_array().unwrap().len(), 5, "the large one comes on its own");
    let first = &all["items"][0];
    assert_eq!(first["lost"]["data"], serde_json::json!([0]));
    assert_eq!(first["winner"]["data"], serde_json::json!({ "won": 1 }));
    assert_eq!((&first["key"], &first["causal"]), (&"app/0".into(), &"concurrent".into()));
    assert!(first.get("txn").is_none() && first["at"].as_str().unwrap().ends_with('Z'));
    let next = all["next"].as_str().unwrap();
    let last = get(&app, &format!("/superseded?since={next}")).await;
    assert_eq!(last["items"][0]["lost"]["size"], 6002);
    assert_eq!(last["items"][0]["winner"]["deleted"], true);
    assert!(last["items"][0]["winner"].get("size").is_none());
    let next = last["next"].as_str().unwrap();
    let none = get(&app, &format!("/superseded?since={next}")).await;
    assert_eq!(none["items"], serde_json::json!([]));
    assert_eq!((&none["next"], &none["truncated"]), (&last["next"], &false.into()));
    let some = get(&app, "/superseded/app?limit=2").await;
    assert_eq!(some["items"].as_array().unwrap().len(), 2);
    let exact = get(&app, "/superseded/app/?limit=1&exact=true").await;
    assert_eq!(exact["items"][0]["winner"]["data"], serde_json::json!({ "won": 1 }));
    // after the position of another node everything comes again, and it says so
    let other = get(&app, "/superseded?since=0123456789abcdef-3").await;
    assert_eq!((other["items"].as_array().unwrap().len(), &other["truncated"]), (5, &true.into()));
}

#[tokio::test]
async fn a_position_that_no_node_gave_is_refused() {
    let app = rig::app(Arc::new(Memory::default()), |_| {});
    for bad in ["", "1", "x-1", "0123456789abcdef-", "0123456789ABCDEF-1", "0123456789abcdef-x"] {
        let refused = get(&app, &format!("/superseded?since={bad}")).await;
        assert_eq!(refused["code"], "bad_cursor", "{bad}");
    }
    let refused = get(&app, "/superseded?limit=1001").await;
    assert_eq!(refused["code"], "bad_request");
    let refused = get(&app, "/superseded?after=x").await;
    assert_eq!(refused["code"], "unknown_field");
}
