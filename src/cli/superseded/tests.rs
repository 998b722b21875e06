//! Lists of lost writes, both writes of one, and the swap that resolves it.

use super::*;
use crate::cli::canned::{Canned, Request, answer, run};
use crate::cli::output::Format;
use crate::cli::ttl::Ttl;
use serde_json::{Value, json};

const LOST: &str = "00000000-0000-7000-8000-000000000001";
const WINNER: &str = "00000000-0000-7000-8000-000000000002";
const LATER: &str = "00000000-0000-7000-8000-000000000003";
const SWAPPED: &str = r#"{"swapped":true,"key":"a/b c","uuid":"u4","timestamp":9,"previous":null}"#;

fn envelope(uuid: &str, content: &Value) -> Value {
    let mut envelope = json!({"key": "a/b c", "uuid": uuid, "timestamp": 1_700_000_000_000_000_u64,
        "origin": "o1", "origin_joined_at": "2023-11-01T00:00:00.000000Z", "parent": null});
    let members = content.as_object().unwrap().clone();
    envelope.as_object_mut().unwrap().extend(members);
    envelope
}

fn value(text: &str) -> Value {
    json!({"content_type": "application/json", "size": text.len(),
        "data": serde_json::from_str::<Value>(text).unwrap()})
}

fn report(key: &str, lost: &Value, winner: &Value) -> Value {
    let mut report = json!({"key": key, "lost": envelope(LOST, lost),
        "winner": null, "causal": "concurrent", "at": "2023-11-14T22:13:20.000500Z"});
    if winner.is_object() {
        report["winner"] = envelope(WINNER, winner);
    }
    if key == "a/x" {
        report["txn"] = json!("t1");
    }
    report
}

/// A node that reports the loss of `a/b c` on its second page and has `current` for it; `status`
/// answers swaps.
fn node(
    lost: &Value,
    winner: &Value,
    current: Option<&'static str>,
    status: &'static str,
) -> Canned {
    let first = report("a/x", &value("0"), &value("1"));
    let pages = [
        json!({"items": [first], "next": "e-1", "truncated": true}),
        json!({"items": [report("a/b c", lost, winner)], "next": "e-2", "truncated": false}),
        json!({"items": [], "next": "e-2", "truncated": false}),
    ]
    .map(|page| page.to_string());
    Canned::new(move |request| {
        let [one, two, three] = &pages;
        match request.line.as_str() {
            line if line.starts_with("GET /superseded/") => match line.split_once("&since=") {
                None => answer("200 OK", "", one),
                Some((_, "e%2D1")) => answer("200 OK", "", two),
                Some((_, "e%2D2")) => answer("200 OK", "", three),
                Some(_) => answer("400 Bad Request", "", r#"{"code":"bad_cursor"}"#),
            },
            "GET /kv/a/b%20c?format=envelope&exact=true" => match current {
                Some(uuid) => answer("200 OK", "", &envelope(uuid, &value("9")).to_string()),
                None => answer("404 Not Found", "", r#"{"code":"key_not_found"}"#),
            },
            "GET /kv/a/b%20c" => answer("200 OK", "", "whole"),
            "POST /cas/a/b%20c" if status.starts_with("412") => {
                answer(status, "", r#"{"code":"precondition_failed","detail":"no","current":null}"#)
            }
            "POST /cas/a/b%20c" => answer(status, "", SWAPPED),
            _ => answer("500 Oops", "", ""),
        }
    })
}

fn args() -> Superseded {
    Superseded {
        prefix: Prefix::parse("a").unwrap(),
        limit: None,
        resolve: None,
        lost: None,
        get: None,
        keep: None,
        expect_uuid: None,
        life: Life::default(),
    }
}

fn resolving() -> Superseded {
    Superseded { resolve: Key::parse("a/b c").ok(), ..args() }
}

fn ran(node: &Canned, args: Superseded, format: Format) -> (String, Result<(), CliError>) {
    run(format, async |out| superseded(&node.client(), args, out).await)
}

fn kept(node: &Canned, what: &str) -> (String, Result<(), CliError>) {
    ran(node, Superseded { keep: keep(what).ok(), ..resolving() }, Format::Text)
}

fn swaps(node: &Canned) -> Vec<Value> {
    let requests = node.requests();
    let swaps = requests.iter().filter(|request: &&Request| request.line.starts_with("POST"));
    swaps.map(|request| serde_json::from_str(&request.body).unwrap()).collect()
}

#[test]
fn lost_writes_are_a_table_for_people_and_lines_for_programs() {
    let node = node(&value("[1]"), &json!({"deleted": true}), None, "");
    let (text, ended) = ran(&node, args(), Format::Text);
    assert!(ended.is_ok(), "{ended:?}");
    let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["KEY", "LOST", "MERGED", "CAUSAL", "SIZE", "VALUE"]);
    assert_eq!(rows[1], ["a/x", LOST, "2023-11-14T22:13:20Z", "concurrent", "1", "B", "0"]);
    assert_eq!(rows[2][..2], ["a/b", "c"]);
    assert_eq!(node.requests()[0].line, "GET /superseded/a?exact=true&limit=1000");
    let (text, _) = run(Format::Text, async |out| {
        out.set_screen(None, true);
        superseded(&node.client(), args(), out).await
    });
    let wide: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(wide[1][6..9], ["t1", WINNER, "o1"], "{text}");
    let (text, ended) = ran(&node, args(), Format::Json);
    assert!(ended.is_ok());
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["txn"]), (2, &json!("t1")));
    let (text, _) = ran(&node, Superseded { limit: Some(1), ..args() }, Format::Json);
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn both_writes_are_shown_and_what_the_key_has_now() {
    let lost = json!({"content_type": "text/plain", "size": 4, "data_base64": "bWluZQ=="});
    let node = node(&lost, &value("2"), Some(LATER), "");
    let (text, ended) = ran(&node, resolving(), Format::Text);
    assert!(ended.is_ok(), "{ended:?}");
    let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 4, "{text}");
    assert_eq!((rows[1][0], rows[1][1], *rows[1].last().unwrap()), ("lost", LOST, "mine"));
    assert_eq!((rows[2][0], rows[2][1], *rows[2].last().unwrap()), ("winner", WINNER, "2"));
    assert_eq!((rows[3][0], rows[3][1], *rows[3].last().unwrap()), ("now", LATER, "9"));
    let (text, _) = ran(&node, resolving(), Format::Json);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["lost"]["uuid"], LOST);
    let get = |side| ran(&node, Superseded { get: Some(side), ..resolving() }, Format::Text).0;
    assert_eq!((get(Side::Lost).as_str(), get(Side::Winner).as_str()), ("mine", "2"));
    assert!(swaps(&node).is_empty());
    let other = Superseded { resolve: Key::parse("a/none").ok(), ..args() };
    let error = ran(&node, other, Format::Text).1.expect_err("no such report");
    assert!(error.exit_code() == 1 && error.to_string().contains("--url"), "{error}");
}

#[test]
fn what_is_kept_is_swapped_for_the_winner() {
    let lost = json!({"content_type": "text/plain", "size": 4, "data_base64": "bWluZQ=="});
    let node =
        node(&lost, &json!({"content_type": "a/b", "size": 9, "omitted": true}), None, "200 OK");
    let (text, ended) = kept(&node, "lost");
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(text, "resolved a/b c  uuid=u4  timestamp=9\n");
    assert!(kept(&node, "winner").1.is_ok());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("merged.json");
    std::fs::write(&file, "[1,2]").unwrap();
    assert!(kept(&node, &format!("@{}", file.display())).1.is_ok());
    let later = Superseded {
        keep: keep("lost").ok(),
        expect_uuid: LATER.parse().ok(),
        life: Life { ttl: Ttl::parse("1h").ok() },
        ..resolving()
    };
    assert!(ran(&node, later, Format::Text).1.is_ok());
    let winner = json!({"uuid": WINNER});
    assert_eq!(
        swaps(&node),
        [
            json!({"expected": winner, "data_base64": "bWluZQ==", "content_type": "text/plain"}),
            json!({"expected": winner, "data_base64": "d2hvbGU=", "content_type": "a/b",
                "ttl": "keep"}),
            json!({"expected": winner, "data_base64": "WzEsMl0=",
                "content_type": "application/json"}),
            json!({"expected": {"uuid": LATER}, "data_base64": "bWluZQ==",
                "content_type": "text/plain", "ttl": "1h"}),
        ]
    );
    let whole = node.requests().into_iter().find(|r| r.line == "GET /kv/a/b%20c").unwrap();
    assert!(whole.has(&format!("if-match: \"{WINNER}\"")), "{whole:?}");
}

#[test]
fn deletes_lose_win_and_are_kept_too() {
    let delete = json!({"deleted": true});
    let lost = node(&delete, &value("2"), None, "200 OK");
    assert!(kept(&lost, "lost").1.is_ok());
    assert_eq!(swaps(&lost), [json!({"expected": {"uuid": WINNER}, "delete": true})]);
    let won = node(&value("1"), &delete, None, "200 OK");
    assert!(kept(&won, "lost").1.is_ok());
    let swap = json!({"expected": {"absent": true}, "data_base64": "MQ==",
        "content_type": "application/json"});
    assert_eq!(swaps(&won), [swap]);
    let error = kept(&won, "winner").1.expect_err("nothing to write");
    assert_eq!(error.exit_code(), 2);
    let get = Superseded { get: Some(Side::Winner), ..resolving() };
    assert!(ran(&won, get, Format::Text).1.is_err());
}

#[test]
fn a_later_write_is_never_overwritten() {
    let node = node(&value("1"), &value("2"), Some(LATER), "412 Precondition Failed");
    let (text, ended) = kept(&node, "lost");
    let error = ended.expect_err("moved on");
    assert_eq!((text.as_str(), error.exit_code(), error.code()), ("", 1, "precondition_failed"));
    assert!(error.to_string().contains("--expect-uuid"), "{error}");
    let ttl = Superseded { life: Life { ttl: Ttl::parse("1h").ok() }, ..resolving() };
    assert_eq!(ran(&node, ttl, Format::Text).1.map_err(|e| e.exit_code()), Err(2));
}

#[test]
fn a_write_whose_winner_is_not_known_is_written_again_where_the_key_has_no_value() {
    let node = node(&value("1"), &Value::Null, None, "200 OK");
    let (text, ended) = ran(&node, resolving(), Format::Text);
    assert!(ended.is_ok() && text.lines().count() == 2, "{ended:?} {text}");
    assert!(kept(&node, "lost").1.is_ok());
    let swap = json!({"expected": {"absent": true}, "data_base64": "MQ==",
        "content_type": "application/json"});
    assert_eq!(swaps(&node), [swap]);
    assert_eq!(kept(&node, "winner").1.map_err(|e| e.exit_code()), Err(2));
}
