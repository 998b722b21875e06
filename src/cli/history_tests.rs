//! Histories as tables, the bytes of one revision, and the swap that restores it.

use super::*;
use crate::cli::canned::{Canned, Request, answer, run};
use crate::cli::output::Format;
use serde_json::{Value, json};

const NOW: &str = "00000000-0000-7000-8000-000000000003";
const GONE: &str = "00000000-0000-7000-8000-000000000002";
const OLD: &str = "00000000-0000-7000-8000-000000000001";

fn listing() -> Value {
    let time = 1_700_000_000_000_000_u64;
    json!({"key": "a b", "revisions": [
        {"uuid": NOW, "timestamp": time + 2, "origin": "o1", "parent": GONE, "deleted": false,
         "expires_at": "2026-11-25T23:00:00.000000Z", "outcome": "current",
         "content_type": "text/plain", "size": 2048, "data_base64": "AXR3bw=="},
        {"uuid": GONE, "timestamp": time + 1, "origin": "o1", "parent": OLD, "deleted": true,
         "expires_at": null, "outcome": "replaced", "by": NOW},
        {"uuid": OLD, "timestamp": time, "origin": "o2", "parent": null, "deleted": false,
         "expires_at": null, "outcome": "replaced", "by": GONE,
         "content_type": "application/json", "size": 70000, "omitted": true},
    ]})
}

/// A node with this history and `{ "n":1 }` under [`OLD`]; `status` and `swap` answer swaps.
fn node(listing: &Value, swap: &'static str, status: &'static str) -> Canned {
    let listing = listing.to_string();
    Canned::new(move |request| match request.line.as_str() {
        "GET /history/a%20b" | "GET /history/a%20b?limit=2" => answer("200 OK", "", &listing),
        line if line == format!("GET /history/a%20b?uuid={OLD}") => {
            answer("200 OK", "Content-Type: application/json\r\n", "{ \"n\":1 }")
        }
        "POST /cas/a%20b" => answer(status, "", swap),
        _ => answer("404 Not Found", "", r#"{"code":"revision_not_found","detail":"not here"}"#),
    })
}

const SWAPPED: &str = r#"{"swapped":true,"key":"a b","uuid":"u4","timestamp":9,"previous":null}"#;

fn args() -> History {
    History { key: Key::parse("a b").unwrap(), limit: None, get: None, restore: None }
}

fn restoring(node: &Canned, uuid: &str, format: Format) -> (String, Result<(), CliError>) {
    let args = History { restore: uuid.parse().ok(), ..args() };
    run(format, async |out| history(&node.client(), &args, out).await)
}

fn swaps(node: &Canned) -> Vec<Value> {
    let swap = |request: &Request| request.line.starts_with("POST");
    let requests = node.requests();
    requests.iter().filter(|a| swap(a)).map(|a| serde_json::from_str(&a.body).unwrap()).collect()
}

#[test]
fn a_history_is_a_table_for_people() {
    let node = node(&listing(), "", "");
    let args = History { limit: Some(2), ..args() };
    let (text, ended) = run(Format::Text, async |out| history(&node.client(), &args, out).await);
    assert!(ended.is_ok(), "{ended:?}");
    let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["UUID", "TIME", "OUTCOME", "SIZE", "EXPIRES", "VALUE"]);
    let (time, expires) = ("2023-11-14T22:13:20Z", "2026-11-25T23:00:00Z");
    assert_eq!(rows[1], [NOW, time, "current", "2.0", "KiB", expires, "\\u{1}two"]);
    assert_eq!(rows[2], [GONE, time, "replaced", "-", "-", "(deleted)"]);
    assert_eq!(rows[3], [OLD, time, "replaced", "68.3", "KiB", "-", "(omitted)"]);
    let (text, _) = run(Format::Text, async |out| {
        out.set_screen(Some(40), true);
        history(&node.client(), &args, out).await
    });
    let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    let header = ["UUID", "TIME", "OUTCOME", "SIZE", "ORIGIN", "BY", "EXPIRES", "VALUE"];
    assert_eq!(rows[0], header);
    let time = "2023-11-14T22:13:20.000001Z";
    assert_eq!(rows[2], [GONE, time, "replaced", "-", "o1", NOW, "-", "(deleted)"]);
    assert_eq!(node.requests()[0].line, "GET /history/a%20b?limit=2");
}

#[test]
fn json_is_the_unchanged_answer_and_an_empty_history_succeeds() {
    let node = node(&listing(), "", "");
    let (json, ended) = run(Format::Json, async |out| history(&node.client(), &args(), out).await);
    assert!(ended.is_ok());
    assert_eq!(json, format!("{}\n", listing()));
    let empty = Canned::new(|_| answer("200 OK", "", r#"{"key":"a b","revisions":[]}"#));
    let (text, ended) = run(Format::Text, async |out| history(&empty.client(), &args(), out).await);
    assert!(ended.is_ok() && text.is_empty());
}

#[test]
fn a_revision_is_printed_byte_for_byte() {
    let node = node(&listing(), "", "");
    let get = |uuid: &str| {
        let args = History { get: uuid.parse().ok(), ..args() };
        run(Format::Json, async |out| history(&node.client(), &args, out).await)
    };
    let (text, ended) = get(OLD);
    assert!(ended.is_ok());
    assert_eq!(text, "{ \"n\":1 }");
    let (_, ended) = get(GONE);
    assert_eq!(ended.map_err(|e| e.exit_code()), Err(1));
}

#[test]
fn a_restore_swaps_the_exact_bytes_for_the_version_that_was_read() {
    let node = node(&listing(), SWAPPED, "200 OK");
    let (text, ended) = restoring(&node, OLD, Format::Text);
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(text, "restored a b  uuid=u4  timestamp=9\n");
    let swap = json!({"expected": {"uuid": NOW}, "data_base64": "eyAibiI6MSB9",
        "content_type": "application/json"});
    assert_eq!(swaps(&node), [swap]);
}

#[test]
fn a_restore_over_a_dead_key_expects_it_absent() {
    let mut deleted = listing();
    deleted["revisions"].as_array_mut().unwrap().remove(0);
    let mut expired = listing();
    expired["revisions"][0]["outcome"] = json!("expired");
    for listing in [deleted, expired] {
        let node = node(&listing, SWAPPED, "200 OK");
        assert!(restoring(&node, OLD, Format::Text).1.is_ok());
        assert_eq!(swaps(&node)[0]["expected"], json!({"absent": true}));
    }
}

#[test]
fn a_restore_never_overwrites_a_later_write() {
    let problem = concat!(
        r#"{"code":"precondition_failed","detail":"no","swapped":false,"#,
        r#""current":{"uuid":"u9","timestamp":9}}"#
    );
    let node = node(&listing(), problem, "412 Precondition Failed");
    let (text, ended) = restoring(&node, OLD, Format::Text);
    let error = ended.expect_err("overtaken");
    assert_eq!((text.as_str(), error.exit_code()), ("", 1));
    for words in ["nothing was restored", "key a b", "uuid=u9 timestamp=9", "kvs history", "again"]
    {
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    let (json, ended) = restoring(&node, OLD, Format::Json);
    assert_eq!(ended.map_err(|e| e.exit_code()), Err(1));
    assert_eq!(json, format!("{problem}\n"));
}

#[test]
fn a_revision_without_a_value_is_not_restored() {
    let node = node(&listing(), SWAPPED, "200 OK");
    let error = restoring(&node, GONE, Format::Text).1.expect_err("a delete");
    assert!(error.exit_code() == 2 && error.to_string().contains("kvs del"), "{error}");
    let unknown = "00000000-0000-7000-8000-00000000000f";
    let error = restoring(&node, unknown, Format::Text).1.expect_err("unknown");
    assert_eq!(error.to_string(), "revision_not_found: not here");
    assert_eq!(swaps(&node), Vec::<Value>::new());
}
