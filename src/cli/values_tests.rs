//! Requests that `get`, `put`, `del` and `cas` send, and what they make of the answers.

use super::*;
use crate::cli::canned::{Canned, answer, run};
use crate::cli::output::Format;
use serde_json::{Value, json};

const UUID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

fn key() -> Key {
    Key::parse("app/x y").unwrap()
}

fn swap() -> Cas {
    Cas {
        key: key(),
        value: Some("new".into()),
        expect_uuid: None,
        expect_timestamp: None,
        expect_value: None,
        expect_absent: false,
        delete: false,
        json: false,
        content_type: None,
    }
}

fn body(args: Cas) -> Value {
    let mut stdin: &[u8] = b"from stdin";
    serde_json::from_slice(&cas_body(args, &mut stdin).unwrap()).unwrap()
}

#[test]
fn the_bodies_of_a_swap_are_those_of_the_contract() {
    let octets = "application/octet-stream";
    let uuid = Some(UUID.parse().unwrap());
    let both = Cas { expect_uuid: uuid, expect_timestamp: Timestamp::new(7).ok(), ..swap() };
    let expected = json!({"uuid": UUID, "timestamp": 7});
    let new = json!({"expected": expected, "data_base64": "bmV3", "content_type": octets});
    assert_eq!(body(both), new);
    let value = Cas { expect_value: Some("old".into()), value: Some("-".into()), ..swap() };
    let stdin = BASE64_STANDARD.encode("from stdin");
    let expected = json!({"data_base64": "b2xk"});
    let new = json!({"expected": expected, "data_base64": stdin, "content_type": octets});
    assert_eq!(body(value), new);
    let delete = Cas { expect_value: Some(OsString::new()), delete: true, ..swap() };
    assert_eq!(body(delete), json!({"expected": {"data_base64": ""}, "delete": true}));
    let content_type = ContentType::parse("text/plain").ok();
    let typed = Cas { expect_absent: true, content_type, ..swap() };
    let expected = json!({"absent": true});
    let new = json!({"expected": expected, "data_base64": "bmV3", "content_type": "text/plain"});
    assert_eq!(body(typed), new);
}

#[test]
fn json_is_sent_as_it_was_written() {
    let json = |text: &str| {
        let args = Cas { expect_absent: true, json: true, value: Some(text.into()), ..swap() };
        cas_body(args, &mut std::io::empty()).map(|body| String::from_utf8(body).unwrap())
    };
    let text = r#"{"b": 1.0e0, "a":18446744073709551617}"#;
    assert_eq!(json(text).unwrap(), format!(r#"{{"expected":{{"absent":true}},"data":{text}}}"#));
    assert_eq!(json("null").unwrap(), r#"{"expected":{"absent":true},"data":null}"#);
    for bad in ["{", "nothing", r#"{"a":1,"a":2}"#] {
        assert_eq!(json(bad).map_err(|e| e.exit_code()), Err(2), "{bad}");
    }
}

#[test]
fn a_value_on_standard_input_is_bounded() {
    let read = |stdin: &mut dyn Read| value_or_stdin(None, stdin);
    let exact = read(&mut std::io::repeat(0).take(VALUE_BYTES_MAX as u64)).unwrap();
    assert_eq!(exact.len(), VALUE_BYTES_MAX);
    let error = read(&mut std::io::repeat(0)).expect_err("too large");
    assert!(error.exit_code() == 2 && error.to_string().contains("16 MiB"), "{error}");
}

fn written() -> String {
    format!(r#"{{"key":"app/x y","uuid":"{UUID}","timestamp":7,"origin":"o","scope":"local"}}"#)
}

#[test]
fn a_put_sends_the_bytes_and_prints_one_line() {
    let node = Canned::new(|_| answer("201 Created", "", &written()));
    let args = |if_uuid| Put {
        key: key(),
        value: Some("v".into()),
        if_uuid,
        if_absent: if_uuid.is_none(),
        content_type: None,
    };
    let (text, ended) = run(Format::Text, async |out| put(&node.client(), args(None), out).await);
    assert!(ended.is_ok());
    assert_eq!(text, format!("put app/x y  uuid={UUID}  timestamp=7\n"));
    let uuid = Some(UUID.parse().unwrap());
    let (json, ended) = run(Format::Json, async |out| put(&node.client(), args(uuid), out).await);
    assert!(ended.is_ok());
    assert_eq!(json, format!("{}\n", written()));
    let asked = node.asked();
    assert_eq!((asked[0].line.as_str(), asked[0].body.as_str()), ("PUT /kv/app/x%20y", "v"));
    assert!(asked[0].has("content-type: application/octet-stream"));
    assert!(asked[0].has("if-none-match: *") && asked[1].has(&format!("if-match: \"{UUID}\"")));
}

#[test]
fn a_failed_condition_is_told_with_the_current_version() {
    let problem = format!(
        r#"{{"code":"precondition_failed","detail":"no","swapped":false,
        "current":{{"uuid":"{UUID}","timestamp":9}}}}"#
    );
    let sent = problem.clone();
    let node = Canned::new(move |_| answer("412 Precondition Failed", "", &sent));
    let args = || Cas { expect_absent: true, ..swap() };
    let (text, ended) = run(Format::Text, async |out| cas(&node.client(), args(), out).await);
    let error = ended.expect_err("refused");
    assert_eq!((text.as_str(), error.exit_code()), ("", 1));
    assert!(error.to_string().ends_with(&format!("uuid={UUID} timestamp=9")), "{error}");
    let (json, ended) = run(Format::Json, async |out| cas(&node.client(), args(), out).await);
    assert_eq!(ended.map_err(|e| e.exit_code()), Err(1));
    assert_eq!(json, format!("{}\n", problem.replace('\n', " ")));
}

#[test]
fn a_value_is_printed_byte_for_byte_and_a_cut_one_is_an_error() {
    let node = Canned::new(|asked| match asked.line.as_str() {
        "GET /kv/cut" => answer("200 OK", "", "12345")[..].strip_suffix(b"45").unwrap().to_vec(),
        _ => answer("200 OK", "", "a\r\n\u{0}b"),
    });
    let get = |key: &str| {
        let args = Get { key: Key::parse(key).unwrap() };
        run(Format::Text, async |out| super::get(&node.client(), &args, out).await)
    };
    let (whole, ended) = get("k");
    assert!(ended.is_ok());
    assert_eq!(whole, "a\r\n\u{0}b");
    let (part, ended) = get("cut");
    let error = ended.expect_err("cut");
    assert_eq!((part.as_str(), error.exit_code()), ("123", 3));
    assert!(error.to_string().contains("cut short after 3 B"), "{error}");
}

#[test]
fn a_delete_of_nothing_is_refused() {
    let node = Canned::new(|_| {
        answer("404 Not Found", "", r#"{"code":"key_not_found","detail":"no value under app/x y"}"#)
    });
    let args = Del { key: key(), if_uuid: None };
    let (text, ended) = run(Format::Text, async |out| del(&node.client(), &args, out).await);
    let error = ended.expect_err("refused");
    assert_eq!((text.as_str(), error.exit_code()), ("", 1));
    assert_eq!(error.to_string(), "key_not_found: no value under app/x y");
}
