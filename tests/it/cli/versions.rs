//! The command line against a real node: lifetimes, retries, histories and transactions.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::commands::{on, on_with, write};
use crate::support::{Node, SOON, Site, client::text, ensure, eventually};

const UUID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";
const OTHER_UUID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c9";

/// Runs a command with `-o json`, which must succeed, and parses its output.
fn told(node: &Node, arguments: &[&str]) -> Value {
    on(node, &[&["-o", "json"], arguments].concat()).expect(0).json()
}

fn envelope(node: &Node, key: &str) -> Value {
    told(node, &["get", key])
}

#[tokio::test]
async fn lifetimes() {
    let node = Site::alone().node("n1", &[]).await;
    let said = on(&node, &["put", "k", "one", "--ttl", "1h"]).expect(0).text();
    let expires_at = text(&envelope(&node, "k")["expires_at"]);
    assert!(said.contains(&format!("  expires={expires_at}\n")), "{said}");
    // `keep` in a put and in a swap keeps the lifetime; a write without one clears it
    let kept = told(&node, &["put", "k", "two", "--ttl", "keep"]);
    assert_eq!(kept["expires_at"], json!(expires_at));
    let kept = told(&node, &["cas", "k", "three", "--expect-value", "two", "--ttl", "keep"]);
    assert_eq!(kept["expires_at"], json!(expires_at));
    let listed = on(&node, &["scan", "--wide"]).expect(0).text();
    assert!(listed.contains("EXPIRES") && listed.contains(&expires_at), "{listed}");
    let said = on(&node, &["cas", "k", "four", "--expect-exists"]).expect(0).text();
    assert!(!said.contains("expires"), "{said}");
    assert_eq!(envelope(&node, "k")["expires_at"], Value::Null);
    assert!(!on(&node, &["scan"]).expect(0).text().contains("EXPIRES"));
    // a short lifetime ends by itself
    on(&node, &["cas", "k", "five", "--expect-exists", "--ttl", "20ms"]).expect(0);
    eventually(SOON, "the value expires", async || {
        let read = on(&node, &["get", "k"]);
        ensure(read.code == 1 && read.err.contains("key_not_found"), || format!("{read:?}"))
    })
    .await;
    on(&node, &["cas", "k", "six", "--expect-exists"]).failed(1, &["precondition_failed"]);
    on(&node, &["cas", "k", "six", "--expect-absent"]).expect(0);
    on(&node, &["cas", "k", "--expect-exists", "--delete"]).expect(0);
    on(&node, &["get", "k"]).failed(1, &["key_not_found"]);
    for bad in ["0", "1w", "-1s", "1.5h", "36501d", "forever"] {
        let ttl = format!("--ttl={bad}");
        for command in [&["put", "k", "v"][..], &["cas", "k", "v", "--expect-absent"]] {
            let said = on(&node, &[command, &[&ttl]].concat()).expect(2);
            assert!(said.err.contains("1ms to 36500d"), "{bad}: {}", said.err);
        }
    }
}

#[tokio::test]
async fn the_same_command_with_the_same_uuid_is_done_once() {
    let node = Site::alone().node("n1", &[]).await;
    let put = ["put", "k", "one", "--ttl", "1h", "--uuid", UUID];
    let first = told(&node, &put);
    assert_eq!(first["uuid"], json!(UUID));
    on(&node, &["put", "k", "two"]).expect(0);
    assert_eq!(told(&node, &put), first);
    assert_eq!(on(&node, &["get", "k"]).expect(0).out, b"two");
    on(&node, &["put", "k", "other", "--uuid", UUID]).failed(1, &["idempotency_mismatch"]);
    let swap = ["cas", "k", "three", "--expect-value", "two", "--uuid", OTHER_UUID];
    let first = told(&node, &swap);
    assert_eq!((&first["uuid"], told(&node, &swap)), (&json!(OTHER_UUID), first.clone()));
    let gone = "67e55044-10b1-426f-9247-bb680e5fe0ca";
    let first = told(&node, &["del", "k", "--uuid", gone]);
    assert_eq!(told(&node, &["del", "k", "--uuid", gone]), first);
    on(&node, &["del", "k"]).failed(1, &["key_not_found"]);
}

/// The rows of a table below its header, by the words of a row's first cell.
fn rows(table: &str) -> BTreeMap<String, String> {
    let row = |line: &str| (line.split(' ').next().unwrap_or_default().to_owned(), line.to_owned());
    table.lines().skip(1).map(row).collect()
}

#[tokio::test]
async fn histories_and_restores() {
    let node = Site::alone().node("n1", &[]).await;
    let json_text = "{ \"n\" : 1.0e0 }";
    let one = told(&node, &["cas", "a b", json_text, "--json", "--expect-absent"]);
    let two = told(&node, &["put", "a b", "t\u{1b}wo", "--ttl", "1h"]);
    let gone = told(&node, &["del", "a b"]);
    let three = told(&node, &["put", "a b", "three", "--content-type", "text/plain"]);
    let uuid = |written: &Value| text(&written["uuid"]);
    let (one, two, gone, three) = (uuid(&one), uuid(&two), uuid(&gone), uuid(&three));
    // as a table
    let listed = on(&node, &["history", "a b", "--wide"]).expect(0).text();
    let order: Vec<_> = listed.lines().skip(1).map(|l| l.split(' ').next()).collect();
    assert_eq!(order, [&three, &gone, &two, &one].map(|uuid| Some(uuid.as_str())), "{listed}");
    let rows = rows(&listed);
    for (uuid, words) in [
        (&three, vec!["current", "three"]),
        (&gone, vec!["replaced", &three, "(deleted)"]),
        (&two, vec!["replaced", &gone, "t\\u{1b}wo", "2"]),
        (&one, vec!["replaced", &two, json_text, "15 B"]),
    ] {
        assert!(words.iter().all(|word| rows[uuid].contains(word)), "{words:?}: {}", rows[uuid]);
    }
    let two_of_them = told(&node, &["history", "a b", "--limit", "2"]);
    assert_eq!(two_of_them["revisions"].as_array().map(Vec::len), Some(2));
    assert_eq!(two_of_them["revisions"][1]["deleted"], json!(true));
    // the bytes of one revision
    assert_eq!(on(&node, &["history", "a b", "--get", &one]).expect(0).text(), json_text);
    on(&node, &["history", "a b", "--get", UUID]).failed(1, &["revision_not_found"]);
    // restores over a value and over an absent key
    let restore = |uuid: &str| on(&node, &["history", "a b", "--restore", uuid]);
    let said = restore(&one).expect(0).text();
    assert!(said.starts_with("restored a b  uuid=") && !said.contains("expires"), "{said}");
    let read = node.client.get("/kv/a%20b").await.expect(200);
    let json = Some("application/json");
    assert_eq!((read.text().as_str(), read.header("content-type")), (json_text, json));
    on(&node, &["del", "a b"]).expect(0);
    restore(&two).expect(0);
    let read = node.client.get("/kv/a%20b").await.expect(200);
    assert_eq!((read.text().as_str(), read.header("kvs-expires-at")), ("t\u{1b}wo", None));
    restore(&gone).failed(2, &["is a delete", "kvs del"]);
    restore(UUID).failed(1, &["revision_not_found"]);
    let restored = told(&node, &["history", "a b", "--restore", &one]);
    assert_eq!((&restored["swapped"], &restored["key"]), (&json!(true), &json!("a b")));
}

#[tokio::test]
async fn a_large_and_a_binary_revision_come_back_whole() {
    let node = Site::alone().node("n1", &[]).await;
    let large = crate::api::values::noise(16 << 20, 3);
    let first = on_with(&node, &["-o", "json", "put", "k", "-"], &large).expect(0).json();
    on(&node, &["put", "k", "small", "--ttl", "20ms"]).expect(0);
    let uuid = text(&first["uuid"]);
    assert!(on(&node, &["history", "k"]).expect(0).text().contains("(omitted)"));
    assert!(on(&node, &["history", "k", "--get", &uuid]).expect(0).out == large);
    eventually(SOON, "the small value expires", async || {
        let code = on(&node, &["get", "k"]).code;
        ensure(code == 1, || format!("exit status {code}"))
    })
    .await;
    // a restore over an expired value works too
    on(&node, &["history", "k", "--restore", &uuid]).expect(0);
    assert!(on(&node, &["get", "k"]).expect(0).out == large);
}

#[tokio::test]
async fn without_histories_the_refusal_names_the_setting() {
    let node = Site::alone().set("revision_history_enabled", false).node("n1", &[]).await;
    on(&node, &["put", "k", "v"]).expect(0);
    for more in [&[][..], &["--get", UUID], &["--restore", UUID]] {
        let arguments = [&["history", "k"], more].concat();
        on(&node, &arguments).failed(1, &["feature_disabled", "revision_history_enabled"]);
    }
}

#[tokio::test]
async fn transactions() {
    let site = Site::alone();
    let node = site.node("n1", &[]).await;
    let file = site.file("txn.json");
    let txn = json!({
        "compare": [{"key": "lock", "expected": {"absent": true}},
            {"key": "count", "expected": {"absent": true}}],
        "success": [{"put": {"key": "lock", "data": {"by": "me"}, "ttl": "1h"}},
            {"put": {"key": "count", "data_base64": "MQ==", "content_type": "text/plain"}},
            {"get": {"key": "count"}}, {"delete": {"key": "none"}}],
        "failure": [{"get": {"key": "lock"}}, {"get": {"key": "no\u{e9}"}}],
    });
    write(Path::new(&file), txn.to_string().as_bytes(), 0o600);
    let said = on(&node, &["txn", &file]).expect(0).text();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], "all 2 compares hold: ran `success`");
    assert_eq!(lines.len(), 6, "{said}");
    for (line, words) in lines[2..].iter().zip([
        &["put", "lock", "written"][..],
        &["put", "count", "written"],
        &["get", "count", "1"],
        &["delete", "none", "nothing to delete"],
    ]) {
        assert!(words.iter().all(|word| line.contains(word)), "{words:?}: {line}");
    }
    assert_eq!(on(&node, &["get", "lock"]).expect(0).text(), r#"{"by":"me"}"#);
    assert_ne!(envelope(&node, "lock")["expires_at"], Value::Null);
    // taking the other branch is no failure
    let said = on_with(&node, &["txn", "-"], txn.to_string().as_bytes()).expect(0).text();
    let verdict = "of 2 compares these do not hold: 0 (lock), 1 (count); ran `failure`";
    assert_eq!(said.lines().next(), Some(verdict));
    assert!(said.contains(r#"{"by":"me"}"#) && said.contains("no\u{e9}"), "{said}");
    assert!(said.contains("(no live value)"), "{said}");
    let answer = told(&node, &["txn", &file]);
    assert_eq!((&answer["succeeded"], &answer["failed"]), (&json!(false), &json!([0, 1])));
    // refused transactions
    let twice = r#"{"success":[{"delete":{"key":"a"}},{"delete":{"key":"a"}}]}"#;
    on_with(&node, &["txn", "-"], twice.as_bytes()).failed(1, &["bad_request"]);
    on_with(&node, &["txn", "-"], b"{\"a\":1}").failed(1, &["unknown_field"]);
    for bad in ["", "{", r#"{"compare":[],"compare":[]}"#] {
        on_with(&node, &["txn", "-"], bad.as_bytes()).failed(2, &["not acceptable JSON"]);
    }
    on(&node, &["txn", "/nonexistent"]).failed(2, &["/nonexistent"]);
}

#[tokio::test]
async fn an_import_keeps_the_rest_of_a_lifetime() {
    let site = Site::alone();
    let (from, to) = (site.node("n1", &[]).await, site.node("n2", &[]).await);
    on(&from, &["put", "day", "x", "--ttl", "1d"]).expect(0);
    on(&from, &["put", "ever", "x"]).expect(0);
    let mut exported = on(&from, &["export"]).expect(0).text();
    assert!(exported.lines().next().is_some_and(|line| line.contains("expires_at")), "{exported}");
    exported += "{\"key\":\"p\",\"data\":1,\"expires_at\":\"2020-01-01T00:00:00Z\"}\n";
    let said = on_with(&to, &["import", "-"], exported.as_bytes()).expect(0);
    assert!(said.text().contains("imported 2 records, 1 skipped"), "{said:?}");
    let words = "skipped line 3 (at key p): expired at 2020-01-01T00:00:00.000000Z";
    assert!(said.err.contains(words), "{}", said.err);
    on(&to, &["get", "p"]).failed(1, &["key_not_found"]);
    assert_eq!(envelope(&to, "ever")["expires_at"], Value::Null);
    // later by at most the duration of the import, or sooner by less than a millisecond
    let micros = |node: &Node| {
        let text = text(&envelope(node, "day")["expires_at"]);
        text.parse::<jiff::Timestamp>().expect("a time").as_microsecond()
    };
    let later = micros(&to) - micros(&from);
    assert!(later > -1_000 && later < 600_000_000, "{later}");
    let bad = b"{\"key\":\"q\",\"data\":1,\"expires_at\":\"soon\"}\n";
    on_with(&to, &["import", "-"], bad).failed(2, &["line 1", "bad expires_at"]);
}
