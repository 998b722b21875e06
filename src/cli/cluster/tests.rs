//! How `status`, `members` and `sync` show a node's report.

use super::*;
use crate::cli::canned::{Canned, answer, run};
use crate::cli::output::Format;
use serde_json::{Value, json};

fn report() -> Value {
    let print = "ab".repeat(32);
    json!({
        "cluster_id": "c1",
        "node": {"id": "i1", "name": "n1", "something": "new"},
        "members": [
            {"id": "i1", "name": "n1", "state": "alive", "fingerprint": print, "http": "h1:1"},
            {"id": "i2", "name": "n2", "state": "alive", "fingerprint": "cd".repeat(32),
             "gossip": "h2:2", "peer": "h2:3", "clock_skew_ms": -12,
             "last_sync_at": "2026-11-23T03:12:45.000000Z", "replication_lag_ms": 1500},
            {"id": "i3", "name": "n\u{1b}3", "state": "alive", "fingerprint": null},
            {"id": "i4", "name": "n4", "state": "down", "fingerprint": null},
        ],
        "fingerprint": print, "keys": 812, "tombstones": 3, "converged": false,
        "in_sync_through": null, "floor": 0, "floor_waits_for": [],
    })
}

fn cluster(value: &Value) -> Cluster {
    serde_json::from_str(&value.to_string()).unwrap()
}

fn words(report: &Value, name: &str) -> String {
    let lines = status_lines(&cluster(report));
    lines.into_iter().find(|(n, _)| *n == name).unwrap().1
}

#[test]
fn status_says_what_is_missing_for_convergence() {
    let mut report = report();
    assert_eq!(words(&report, "node"), "n1  i1");
    assert_eq!(words(&report, "members"), "4: 3 alive, 1 down");
    assert_eq!(words(&report, "fingerprint"), "abababababab");
    let lines = status_lines(&cluster(&report));
    assert!(lines.iter().all(|(name, _)| *name != "in sync through"), "not reported, not shown");
    let no = "no: n2 differs, n\\u{1b}3 has not reported yet";
    assert_eq!(words(&report, "converged"), no);
    report["converged"] = json!(true);
    report["in_sync_through"] = json!(1_700_000_000_000_000_u64);
    assert!(words(&report, "converged").starts_with("yes, every alive member"));
    assert_eq!(words(&report, "in sync through"), "2023-11-14T22:13:20.000000Z");
    report["members"] = json!([report["members"][0], report["members"][3]]);
    assert_eq!(words(&report, "converged"), "yes, with no other alive member");
    assert_eq!(words(&json!({}), "keys"), "unknown");
}

#[test]
fn status_succeeds_when_the_cluster_has_not_converged() {
    let body = report().to_string();
    let node = Canned::new(move |_| answer("200 OK", "", &body));
    let (text, ended) = run(Format::Text, async |out| status(&node.client(), out).await);
    assert!(ended.is_ok());
    assert!(
        text.contains("\nconverged        no: n2 differs") && !text.contains('\u{1b}'),
        "{text}"
    );
    let (json, ended) = run(Format::Json, async |out| status(&node.client(), out).await);
    assert!(ended.is_ok());
    assert_eq!(json, format!("{}\n", report()));
    assert_eq!(node.requests()[0].line, "GET /cluster");
}

#[test]
fn members_are_a_table() {
    let body = report().to_string();
    let node = Canned::new(move |_| answer("200 OK", "", &body));
    let (text, ended) = run(Format::Text, async |out| members(&node.client(), out).await);
    assert!(ended.is_ok());
    let lines: Vec<Vec<_>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "STATE", "HTTP", "DATA", "LAST", "SYNC", "LAG", "SKEW"]);
    assert_eq!(lines[1], ["n1", "alive", "h1:1", "(this", "node)", "-", "-", "-"]);
    assert_eq!(
        lines[2],
        ["n2", "alive", "-", "differs", "2026-11-23T03:12:45Z", "1500", "ms", "-12", "ms"]
    );
    assert_eq!((lines.len(), lines[4][3]), (5, "unknown"));
    assert!(text.lines().all(|line| line.len() <= 80) && !text.contains('\u{1b}'), "{text}");
    let (text, ended) = run(Format::Text, async |out| {
        out.set_screen(Some(40), true);
        members(&node.client(), out).await
    });
    assert!(ended.is_ok());
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[1].contains("(this node)") && lines[4].contains("unknown"), "{text}");
    let n2: Vec<_> = lines[2].split_whitespace().collect();
    let row = ["n2", "i2", "alive", "-", "h2:2", "h2:3", "differs:", "cdcdcdcdcdcd"];
    assert_eq!(n2[..8], row);
    assert_eq!(n2[8..], ["2026-11-23T03:12:45.000000Z", "1500", "ms", "-12", "ms"]);
    let (json, ended) = run(Format::Json, async |out| members(&node.client(), out).await);
    assert!(ended.is_ok());
    assert_eq!(json, format!("{}\n", report()["members"]));
}

#[test]
fn sync_shows_each_session_and_fails_when_one_did() {
    let body = json!({"peers": [
        {"id": "i2", "rounds": 3, "bytes_sent": 2048, "bytes_received": 10, "records_sent": 4,
         "records_received": 5, "duration_ms": 1200},
        {"id": "01a20695-77a2-7363-9f57-468ec2e1b55d", "error": "unreachable"},
    ]})
    .to_string();
    let node = Canned::new(move |request| match request.line.as_str() {
        "GET /cluster" => answer("200 OK", "", &report().to_string()),
        _ => answer("200 OK", "", &body),
    });
    let (text, ended) = run(Format::Text, async |out| sync(&node.client(), out).await);
    let error = ended.expect_err("one failed");
    assert_eq!(error.to_string(), "1 of 2 sessions failed; see RESULT in the table");
    assert_eq!(error.exit_code(), 1);
    let rows: Vec<Vec<_>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    let numbers = ["4", "(2.0", "KiB)", "5", "(10", "B)", "1.20", "s"];
    assert_eq!((rows[1][0], &rows[1][1..9], rows[1][9]), ("n2", &numbers[..], "done"));
    assert_eq!((rows[2][0], rows[2].last()), ("..c2e1b55d", Some(&"unreachable")));
    assert_eq!(node.requests()[0].line, "POST /cluster/sync");
}

#[test]
fn status_says_what_is_known_no_longer_and_what_is_wrong() {
    let mut report = report();
    let at = |time: &str| json!(format!("2026-11-23T03:{time}.000000Z"));
    report["converged"] = Value::Null;
    report["members"][0]["fingerprint_at"] = at("13:30");
    report["members"][1]["fingerprint"] = report["fingerprint"].clone();
    report["members"][1]["fingerprint_at"] = at("12:45");
    report["members"][1]["error"] = json!("unreachable: no answer within 5 s");
    let unknown = "unknown, n2 reported 45.00 s ago, n\\u{1b}3 has not reported yet";
    assert_eq!(words(&report, "converged"), unknown);
    assert_eq!(words(&report, "no sync with"), "n2: unreachable: no answer within 5 s");
    let cluster = cluster(&report);
    let row = wide_row(&cluster, &cluster.members[1]);
    assert_eq!((row[2].as_str(), row[6].as_str()), ("alive, no sync", "equal, 45.00 s ago"));
    let row = short_row(&cluster, &cluster.members[1]);
    assert_eq!((row[1].as_str(), row[3].as_str()), ("alive, no sync", "equal, 45.00 s ago"));
    let lines = status_lines(&cluster);
    let absent = ["syncing", "seeds", "certificate"];
    assert!(lines.iter().all(|(name, _)| !absent.contains(name)), "{lines:?}");
}

#[test]
fn status_shows_a_node_that_waits_is_alone_or_has_an_old_certificate() {
    let mut report = report();
    report["members"] = json!([report["members"][0], report["members"][3]]);
    report["members"][0]["fingerprint_at"] = json!("2026-11-23T03:13:30.000000Z");
    report["node"]["syncing"] = json!(true);
    report["node"]["waits_for"] = json!("n2 at h2:3 does not answer");
    report["node"]["seeds"] = json!([{"seed": "a:1", "error": "no answer"}, {"seed": "b:2"}]);
    let certificate = |day: &str| json!([{"door": "peer", "expires_at": day}]);
    report["node"]["certificates"] = certificate("2026-12-01T00:00:00.000000Z");
    assert_eq!(words(&report, "syncing"), "yes, waits: n2 at h2:3 does not answer");
    assert_eq!(words(&report, "seeds"), "alone; 1 of 2 seeds answer");
    assert_eq!(words(&report, "certificate"), "peer: expires at 2026-12-01T00:00:00.000000Z");
    report["node"]["seeds"][1]["error"] = json!("no answer");
    let none = "alone; none of 2 seeds answers: a:1 (no answer), b:2 (no answer)";
    assert_eq!(words(&report, "seeds"), none);
    report["node"]["certificates"] = certificate("2026-11-01T00:00:00.000000Z");
    assert!(words(&report, "certificate").starts_with("peer: expired at 2026-11-01"));
    report["node"]["certificates"] = certificate("2027-11-01T00:00:00.000000Z");
    assert!(status_lines(&cluster(&report)).iter().all(|(name, _)| *name != "certificate"));
}
