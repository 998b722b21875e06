//! Imports against a node that stores, refuses, is busy, or hangs up.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::cli::canned::{Canned, Request, answer, run, stranger};
use crate::cli::output::Format;
use crate::clock::Fixed;

/// 2023-11-14T22:13:20Z
const NOW: u64 = 1_700_000_000_000_000;

/// What a node answers to a write.
fn ok(request: &Request) -> Vec<u8> {
    let path = request.line.strip_prefix("PUT /kv/").unwrap();
    let key = path.split('?').next().unwrap();
    let key = percent_encoding::percent_decode_str(key).decode_utf8().unwrap();
    answer("200 OK", "", &format!(r#"{{"key":"{key}","uuid":"u","timestamp":7}}"#))
}

fn args(from: std::path::PathBuf, prefix: &str) -> Import {
    let prefix = Prefix::parse(prefix).unwrap();
    Import { from, prefix, private: false, if_absent: false, dry_run: false, keep_versions: false }
}

fn import_text(node: &Canned, text: &str, prefix: &str) -> (String, Result<(), CliError>) {
    import_at(node, text, prefix, &clock())
}

fn import_at(
    node: &Canned,
    text: &str,
    prefix: &str,
    clock: &Clock,
) -> (String, Result<(), CliError>) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let args = args(file.path().to_owned(), prefix);
    run(Format::Text, async |out| import(&node.client(), &args, clock, out).await)
}

fn clock() -> Clock {
    Clock::from_source(Fixed::new(NOW, 1))
}

fn stored(requests: &[Request]) -> BTreeMap<String, String> {
    requests.iter().map(|a| (a.line.clone(), a.body.clone())).collect()
}

#[test]
fn lines_are_written_with_their_types_and_exact_bytes() {
    let node = Canned::new(ok);
    let text = "{\"key\":\"a\",\"data\":{\"x\" : 1.0}}\n\n\
                {\"key\":\"b c\",\"data_base64\":\"aGk=\",\"content_type\":\"text/plain\"}";
    let (text, ended) = import_text(&node, text, "p/q/");
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(text, "imported 2 records, 0 skipped\n");
    let requests = node.requests();
    let stored = stored(&requests);
    assert_eq!(stored["PUT /kv/p/q/a"], "{\"x\" : 1.0}");
    assert_eq!(stored["PUT /kv/p/q/b%20c"], "hi");
    assert!(requests.iter().any(|a| a.has("content-type: application/json")));
    assert!(requests.iter().any(|a| a.has("content-type: text/plain")));
}

#[test]
fn records_keep_the_rest_of_their_time_to_live_and_expired_ones_are_skipped() {
    let node = Canned::new(ok);
    let line = |key: &str, at: &str| format!(r#"{{"key":"{key}","data":1,"expires_at":"{at}"}}"#);
    let lines = [
        line("minute", "2023-11-14T22:14:20.000000Z"),
        line("millis", "2023-11-14T22:13:20.002999Z"),
        line("one", "2023-11-14T22:13:20.001Z"),
        line("none", "2023-11-14T22:13:20.000999Z"),
        line("gone", "2023-11-14T22:13:19.000000Z"),
        line("far", "2255-01-01T00:00:00Z"),
        r#"{"key":"never","data":1,"expires_at":null}"#.to_owned(),
    ];
    let (text, ended) = import_text(&node, &lines.join("\n"), "");
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(text, "imported 5 records, 2 skipped\n");
    let mut requests: Vec<_> = node.requests().into_iter().map(|request| request.line).collect();
    requests.sort();
    assert_eq!(
        requests,
        [
            "PUT /kv/far?ttl=36500d",
            "PUT /kv/millis?ttl=2ms",
            "PUT /kv/minute?ttl=1m",
            "PUT /kv/never",
            "PUT /kv/one?ttl=1ms",
        ]
    );
}

#[test]
fn a_retry_sends_the_time_to_live_that_is_left() {
    let time = Fixed::new(NOW, 1);
    let (later, tries) = (time.clone(), AtomicUsize::new(0));
    let node = Canned::new(move |request| {
        later.set(NOW + 1_000_000);
        if tries.fetch_add(1, Ordering::SeqCst) == 0 { Vec::new() } else { ok(request) }
    });
    let clock = Clock::from_source(time);
    let line = |at: &str| format!(r#"{{"key":"a","data":1,"expires_at":"{at}"}}"#);
    let (text, ended) = import_at(&node, &line("2023-11-14T22:13:23Z"), "", &clock);
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(text, "imported 1 record, 0 skipped\n");
    let requests: Vec<_> = node.requests().into_iter().map(|request| request.line).collect();
    assert_eq!(requests, ["PUT /kv/a?ttl=3s", "PUT /kv/a?ttl=2s"]);
    // with nothing left, it has expired
    let (text, ended) = import_at(&node, &line("2023-11-14T22:13:21Z"), "", &clock);
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!((text.as_str(), node.requests().len()), ("imported 0 records, 1 skipped\n", 2));
}

#[test]
fn of_two_lines_with_one_key_the_later_wins() {
    let node = Canned::new(ok);
    let lines: Vec<_> = (0..40).map(|n| format!(r#"{{"key":"k","data":{n}}}"#)).collect();
    let (_, ended) = import_text(&node, &lines.join("\n"), "");
    assert!(ended.is_ok(), "{ended:?}");
    let bodies: Vec<_> = node.requests().iter().map(|a| a.body.clone()).collect();
    assert_eq!(bodies, (0..40).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_bad_line_stops_with_its_number() {
    let node = Canned::new(ok);
    let (text, ended) = import_text(&node, "{\"key\":\"a\",\"data\":1}\n\n{\"key\":\"b\"}\n", "");
    let error = ended.expect_err("a bad line");
    assert_eq!((text.as_str(), error.exit_code()), ("", 2));
    let words = "import stopped at line 3, 1 record stored: neither data";
    assert!(error.to_string().starts_with(words), "{error}");
}

#[test]
fn the_first_refusal_stops_and_names_the_key() {
    let node = Canned::new(|request| match request.line.as_str() {
        "PUT /kv/b" => {
            let problem = r#"{"code":"value_too_large","detail":"at most 1 byte"}"#;
            answer("413 Content Too Large", "", problem)
        }
        _ => ok(request),
    });
    let mut lines =
        vec![r#"{"key":"a","data":1}"#.to_owned(), r#"{"key":"b","data":2}"#.to_owned()];
    lines.extend((0..2000).map(|n| format!(r#"{{"key":"later/{n}","data":3}}"#)));
    let (_, ended) = import_text(&node, &lines.join("\n"), "");
    let error = ended.expect_err("refused");
    assert_eq!(error.exit_code(), 1);
    let text = error.to_string();
    assert!(text.contains("at line 2 (at key b)"), "{text}");
    assert!(text.ends_with("value_too_large: at most 1 byte"), "{text}");
    let sent = node.requests().len();
    assert!(
        text.contains(&format!(", {} stored", count(sent as u64 - 1, "record"))),
        "{sent} sent: {text}"
    );
    assert!(sent < 2000, "{sent}");
}

#[test]
fn a_write_is_retried_when_the_node_is_busy_or_the_connection_is_lost() {
    let tries = AtomicUsize::new(0);
    let node = Canned::new(move |request| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => answer("503 Service Unavailable", "Retry-After: 0\r\n", r#"{"code":"overloaded"}"#),
        1 => Vec::new(),
        _ => ok(request),
    });
    let (text, ended) = import_text(&node, "{\"key\":\"a\",\"data\":1}", "");
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!((text.as_str(), node.requests().len()), ("imported 1 record, 0 skipped\n", 3));
}

#[test]
fn a_refusal_without_retry_after_is_final() {
    let node = Canned::new(|_| answer("503 Service Unavailable", "", r#"{"code":"read_only"}"#));
    let (_, ended) = import_text(&node, "{\"key\":\"a\",\"data\":1}", "");
    assert_eq!((ended.map_err(|e| e.exit_code()), node.requests().len()), (Err(1), 1));
}

#[test]
fn a_directory_is_stored_and_skipped_entries_are_counted() {
    let node = Canned::new(ok);
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    std::fs::write(dir.path().join("etc/hosts"), "h").unwrap();
    std::os::unix::fs::symlink("etc", dir.path().join("link")).unwrap();
    let args = Import { private: true, ..args(dir.path().into(), "") };
    let (json, ended) =
        run(Format::Json, async |out| import(&node.client(), &args, &clock(), out).await);
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(json, "{\"imported\":1,\"skipped\":1}\n");
    assert_eq!(stored(&node.requests())["PUT /kv/etc/hosts"], "h");
}

#[test]
fn a_missing_source_is_a_usage_error() {
    let node = Canned::new(ok);
    let args = args("no/such/file".into(), "");
    let (_, ended) =
        run(Format::Text, async |out| import(&node.client(), &args, &clock(), out).await);
    assert_eq!(ended.map_err(|e| e.exit_code()), Err(2));
}

#[test]
fn a_stranger_that_answers_200_stores_nothing() {
    let page = "<html><title>Log in</title></html>";
    let login = Canned::new(|_| stranger("200 OK", "Content-Type: text/html\r\n", page));
    let (text, ended) = import_text(&login, "{\"key\":\"a\",\"data\":1}", "");
    let error = ended.expect_err("nothing was stored");
    assert_eq!((text.as_str(), error.exit_code()), ("", 3));
    let shown = error.to_string();
    assert!(shown.contains("0 records stored: this is no kvs node: ") && !shown.contains("Log in"));
    // a node that answers for something else has not stored it either
    for body in ["{}", "", r#"{"key":"b","uuid":"u","timestamp":7}"#] {
        let odd = Canned::new(move |_| answer("200 OK", "", body));
        let (_, ended) = import_text(&odd, "{\"key\":\"a\",\"data\":1}", "");
        assert_eq!(ended.map_err(|e| e.exit_code()), Err(3), "{body}");
    }
}

#[test]
fn an_unknown_member_stops_and_a_ttl_is_taken() {
    let node = Canned::new(ok);
    let lines =
        "{\"key\":\"a\",\"data\":1,\"ttl\":\"1s\"}\n{\"key\":\"b\",\"data\":1,\"tll\":\"1s\"}";
    let (_, ended) = import_text(&node, lines, "");
    let error = ended.expect_err("a member that is not known");
    assert_eq!(error.exit_code(), 2);
    let words = "at line 2, 1 record stored: unknown member `tll`; did you mean `ttl`?";
    assert!(error.to_string().contains(words), "{error}");
    let requests: Vec<_> = node.requests().into_iter().map(|request| request.line).collect();
    assert_eq!(requests, ["PUT /kv/a?ttl=1s"]);
}

#[test]
fn the_end_of_an_export_is_checked() {
    let record = |key: &str| format!("{{\"key\":\"{key}\",\"data\":1}}\n");
    let end = |items: u64| format!("{{\"end\":true,\"items\":{items}}}\n");
    let node = Canned::new(ok);
    let whole = record("a") + &record("b") + &end(2) + &record("c") + &end(1);
    let (text, ended) = import_text(&node, &whole, "");
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(text, "imported 3 records, 0 skipped\n");
    let (_, ended) = import_text(&node, &(record("a") + &end(2)), "");
    let error = ended.expect_err("a record is missing");
    assert!(error.to_string().contains("at line 2, 1 record stored: the export says"), "{error}");
}

#[test]
fn what_is_there_stays_with_if_absent() {
    let node = Canned::new(|request| match request.line.as_str() {
        "PUT /kv/there" => {
            let problem = r#"{"code":"precondition_failed","detail":"no","current":null}"#;
            answer("412 Precondition Failed", "", problem)
        }
        _ => ok(request),
    });
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"{\"key\":\"there\",\"data\":1}\n{\"key\":\"new\",\"data\":1}\n").unwrap();
    let args = Import { if_absent: true, ..args(file.path().to_owned(), "") };
    let with = |format| run(format, async |out| import(&node.client(), &args, &clock(), out).await);
    assert_eq!(with(Format::Text).0, "imported 1 record, 0 skipped, 1 left as they were\n");
    assert_eq!(with(Format::Json).0, "{\"imported\":1,\"skipped\":0,\"kept\":1}\n");
    assert!(node.requests().iter().all(|request| request.has("if-none-match: *")));
}

#[test]
fn a_rehearsal_checks_everything_and_sends_nothing() {
    let node = Canned::new(ok);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.json"), "{}").unwrap();
    std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
    let rehearse = |from: &std::path::Path| {
        let args = Import { dry_run: true, ..args(from.to_owned(), "p") };
        run(Format::Text, async |out| import(&node.client(), &args, &clock(), out).await)
    };
    let (text, ended) = rehearse(dir.path());
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(text, "p/a.json  2 B  application/json\nwould import 1 record, 1 skipped\n");
    let file = dir.path().join("lines");
    std::fs::write(&file, "{\"key\":\"a\",\"data\":1}\n{\"key\":\"b\"}\n").unwrap();
    assert_eq!(rehearse(&file).1.map_err(|e| e.exit_code()), Err(2));
    assert!(node.requests().is_empty());
}
