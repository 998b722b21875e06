//! Transactions are sent unchanged, and their answers are shown as a table.

use std::io::Write;

use super::*;
use crate::cli::canned::{Canned, answer, run};
use crate::cli::output::Format;

const TXN: &str = r#"{ "compare": [{"key":"a","expected":{"absent":true}},
    {"key":"b\u001b","expected":{"exists":true}}, {"key":"c","expected":{"data":1.0e0}}],
  "success": [{"put":{"key":"a","data":18446744073709551617}}, {"delete":{"key":"b"}},
    {"get":{"key":"c"}}, {"get":{"key":"d"}}, {"delete":{"key":"e"}}],
  "failure": [{"get":{"key":"f"}}] }"#;

fn send(text: &str, format: Format, said: &str) -> (String, Result<(), CliError>, Vec<String>) {
    let said = said.to_owned();
    let node = Canned::new(move |_| answer("200 OK", "", &said));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let args = Txn { from: file.path().to_owned() };
    let (text, ended) = run(format, async |out| txn(&node.client(), &args, out).await);
    let requests = node.requests().into_iter();
    (text, ended, requests.map(|request| format!("{}\n{}", request.line, request.body)).collect())
}

fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn the_results_are_a_table_for_people() {
    let said = r#"{"succeeded":true,"failed":[],"results":[
        {"put":{"key":"a","uuid":"u1","timestamp":7}},{"delete":{"key":"b","deleted":true}},
        {"get":{"key":"c","uuid":"u2","timestamp":5,"expires_at":"2026-11-25T23:00:00.000000Z",
         "content_type":"application/json","size":5,"data":1.0e0}},
        {"get":null},{"delete":{"key":"e","deleted":false}}]}"#;
    let (text, ended, requests) = send(TXN, Format::Text, said);
    assert!(ended.is_ok(), "{ended:?}");
    let (verdict, table) = text.split_once('\n').unwrap();
    assert_eq!(verdict, "all 3 compares hold: ran `success`");
    let expected: [&[&str]; 6] = [
        &["OPERATION", "KEY", "UUID", "TIMESTAMP", "EXPIRES", "RESULT"],
        &["put", "a", "u1", "7", "written"],
        &["delete", "b", "-", "-", "-", "deleted"],
        &["get", "c", "u2", "5", "2026-11-25T23:00:00.000000Z", "1.0e0"],
        &["get", "d", "-", "-", "-", "(no", "live", "value)"],
        &["delete", "e", "-", "-", "-", "nothing", "to", "delete"],
    ];
    assert_eq!(rows(table), expected);
    assert_eq!(requests, [format!("POST /txn\n{TXN}")]);
}

#[test]
fn failed_compares_are_named_and_the_command_succeeds() {
    let said = r#"{"succeeded":false,"failed":[1,2],"results":[{"get":null}]}"#;
    let (text, ended, _) = send(TXN, Format::Text, said);
    assert!(ended.is_ok(), "{ended:?}");
    let verdict = "of 3 compares these do not hold: 1 (b\\u{1b}), 2 (c); ran `failure`";
    assert_eq!(text.lines().next(), Some(verdict));
    let table = text.split_once('\n').unwrap().1;
    assert_eq!(rows(table)[0], ["OPERATION", "KEY", "UUID", "TIMESTAMP", "RESULT"]);
    assert_eq!(rows(table)[1][..2], ["get", "f"]);
    let (json, ended, _) = send(TXN, Format::Json, said);
    assert!(ended.is_ok());
    assert_eq!(json, format!("{said}\n"));
}

#[test]
fn a_transaction_without_operations_prints_one_line() {
    let said = r#"{"succeeded":true,"failed":[],"results":[]}"#;
    let (text, ended, _) = send("{}", Format::Text, said);
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(text, "nothing to compare: ran `success`\n");
}

#[test]
fn input_that_is_not_json_is_not_sent() {
    for bad in ["", "{", "{} {}", r#"{"compare":[],"compare":[]}"#] {
        let (text, ended, requests) = send(bad, Format::Text, "{}");
        let error = ended.expect_err(bad);
        assert_eq!((text.as_str(), error.exit_code(), requests.len()), ("", 2, 0), "{bad}");
        assert!(error.to_string().contains("not acceptable JSON"), "{error}");
    }
    let node = Canned::new(|_| answer("200 OK", "", ""));
    let args = Txn { from: "no/such/file".into() };
    let (_, ended) = run(Format::Text, async |out| txn(&node.client(), &args, out).await);
    assert_eq!(ended.map_err(|e| e.exit_code()), Err(2));
}
