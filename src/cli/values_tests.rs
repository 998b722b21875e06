//! The requests that `get`, `put` and `del` send, and how they show the answers.

use super::*;
use crate::cli::canned::{Canned, answer, run};
use crate::cli::output::Format;

const UUID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

fn key() -> Key {
    Key::parse("app/x y").unwrap()
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
        json: false,
        content_type: None,
        life: Life::default(),
        retry: Retry::default(),
    };
    let (text, ended) = run(Format::Text, async |out| put(&node.client(), args(None), out).await);
    assert!(ended.is_ok());
    assert_eq!(text, format!("put app/x y  uuid={UUID}  timestamp=7\n"));
    let uuid = Some(UUID.parse().unwrap());
    let (json, ended) = run(Format::Json, async |out| put(&node.client(), args(uuid), out).await);
    assert!(ended.is_ok());
    assert_eq!(json, format!("{}\n", written()));
    let requests = node.requests();
    assert_eq!((requests[0].line.as_str(), requests[0].body.as_str()), ("PUT /kv/app/x%20y", "v"));
    assert!(requests[0].has("content-type: application/octet-stream"));
    assert!(
        requests[0].has("if-none-match: *") && requests[1].has(&format!("if-match: \"{UUID}\""))
    );
}

#[test]
fn ttl_and_uuid_are_sent_and_the_expiry_is_shown() {
    let at = "2026-11-25T23:00:00.000000Z";
    let expiring =
        format!(r#"{{"key":"app/x y","uuid":"{UUID}","timestamp":7,"expires_at":"{at}"}}"#);
    let node = Canned::new(move |_| answer("200 OK", "", &expiring));
    let retry = || Retry { uuid: Some(UUID.parse().unwrap()) };
    let args = Put {
        key: key(),
        value: Some("v".into()),
        if_uuid: None,
        if_absent: false,
        json: false,
        content_type: None,
        life: Life { ttl: Ttl::parse("15m").ok() },
        retry: retry(),
    };
    let (text, ended) = run(Format::Text, async |out| put(&node.client(), args, out).await);
    assert!(ended.is_ok());
    assert_eq!(text, format!("put app/x y  uuid={UUID}  timestamp=7  expires={at}\n"));
    let args = Del { key: key(), if_uuid: None, retry: retry() };
    let (_, ended) = run(Format::Text, async |out| del(&node.client(), &args, out).await);
    assert!(ended.is_ok());
    let requests = node.requests();
    assert_eq!(requests[0].line, "PUT /kv/app/x%20y?ttl=15m");
    assert_eq!(requests[1].line, "DELETE /kv/app/x%20y");
    assert!(requests.iter().all(|request| request.has(&format!("idempotency-key: {UUID}"))));
}

#[test]
fn a_value_is_printed_byte_for_byte_and_a_cut_one_is_an_error() {
    let node = Canned::new(|request| match request.line.as_str() {
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
    let args = Del { key: key(), if_uuid: None, retry: Retry::default() };
    let (text, ended) = run(Format::Text, async |out| del(&node.client(), &args, out).await);
    let error = ended.expect_err("refused");
    assert_eq!((text.as_str(), error.exit_code()), ("", 1));
    assert_eq!(error.to_string(), "key_not_found: no value under app/x y");
}

#[test]
fn json_and_files_are_stored_with_their_types() {
    let node = Canned::new(|_| answer("201 Created", "", &written()));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("app.yaml");
    std::fs::write(&file, "a: 1\n").unwrap();
    let at = format!("@{}", file.display());
    let send = |value: &str, json: bool, content_type: Option<&str>| {
        let args = Put {
            key: key(),
            value: Some(value.into()),
            if_uuid: None,
            if_absent: false,
            json,
            content_type: content_type.map(|text| ContentType::parse(text).unwrap()),
            life: Life::default(),
            retry: Retry::default(),
        };
        run(Format::Text, async |out| put(&node.client(), args, out).await).1
    };
    assert!(send("[1]\n", true, None).is_ok());
    assert!(send(&at, false, None).is_ok());
    assert!(send(&at, false, Some("text/plain")).is_ok());
    for bad in ["{", "no", ""] {
        assert_eq!(send(bad, true, None).map_err(|e| e.exit_code()), Err(2), "{bad}");
    }
    let requests = node.requests();
    let arrived = |n: usize, content_type: &str, body: &str| {
        requests[n].has(&format!("content-type: {content_type}")) && requests[n].body == body
    };
    assert_eq!(requests.len(), 3);
    assert!(arrived(0, "application/json", "[1]\n") && arrived(1, "application/yaml", "a: 1\n"));
    assert!(arrived(2, "text/plain", "a: 1\n"));
}

#[test]
fn a_terminal_gets_text_with_a_line_end_and_nothing_binary() {
    let node = Canned::new(|request| {
        let body = match request.line.as_str() {
            "GET /kv/plain" => "text",
            "GET /kv/ended" => "two\nlines\n",
            "GET /kv/escape" => "\u{1b}[31m",
            "GET /kv/empty" => "",
            _ => "a\u{0}b",
        };
        answer("200 OK", "Content-Type: image/png\r\n", body)
    });
    let get = |key: &str| {
        let args = Get { key: Key::parse(key).unwrap() };
        run(Format::Text, async |out| {
            out.set_screen(Some(80), false);
            super::get(&node.client(), &args, out).await
        })
    };
    assert_eq!(get("plain").0, "text\n");
    assert_eq!(get("ended").0, "two\nlines\n");
    assert_eq!(get("empty").0, "");
    for key in ["escape", "binary"] {
        let (text, ended) = get(key);
        let error = ended.expect_err(key);
        assert_eq!((text.as_str(), error.exit_code()), ("", 2));
        let words = "is not text (image/png, ";
        assert!(error.to_string().contains(words) && error.to_string().contains("> FILE"));
    }
}
