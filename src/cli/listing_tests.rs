//! Pages of a scan, and exports that arrive whole or break off.

use std::fmt::Write as _;

use super::*;
use crate::cli::canned::{Canned, NODE, Request, answer, run};
use crate::cli::output::Format;

fn item(key: &str, content: &str) -> String {
    let time = 1_700_000_000_000_000_u64;
    format!(r#"{{"key":"{key}","uuid":"u","timestamp":{time},"origin":"o","size":5{content}}}"#)
}

/// Two pages: `a`, then `b`.
fn two_pages(request: &Request) -> Vec<u8> {
    let page = if request.line.contains("after=n%2B1") {
        format!(r#"{{"prefix":"app","items":[{}]}}"#, item("b", r#","data":null"#))
    } else {
        let first = item("a", r#","content_type":"text/plain","data_base64":"aGVsbG8=""#);
        format!(r#"{{"prefix":"app","items":[{first}],"next":"n+1"}}"#)
    };
    answer("200 OK", "", &page)
}

fn args(limit: Option<u64>) -> Scan {
    Scan { prefix: Prefix::parse("app").unwrap(), values: true, limit }
}

#[test]
fn pages_are_followed_to_the_end() {
    let node = Canned::new(two_pages);
    let (text, ended) = run(Format::Text, async |out| scan(&node.client(), &args(None), out).await);
    assert!(ended.is_ok(), "{ended:?}");
    let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    let time = "2023-11-14T22:13:20Z";
    assert_eq!(lines[0], ["KEY", "SIZE", "TYPE", "TIME", "VALUE"]);
    assert_eq!(lines[1], ["a", "5", "B", "text/plain", time, "hello"]);
    assert_eq!(lines[2], ["b", "5", "B", "-", time, "null"]);
    assert_eq!(node.requests()[0].line, "GET /scan/app?limit=1000&values=true");
    let (text, _) = run(Format::Text, async |out| {
        out.set_screen(Some(20), true);
        scan(&node.client(), &args(None), out).await
    });
    let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    let time = "2023-11-14T22:13:20.000000Z";
    assert_eq!(lines[1], ["a", "5", "B", "text/plain", time, "o", "hello"]);
}

#[test]
fn json_is_one_envelope_per_line_up_to_the_limit() {
    let node = Canned::new(two_pages);
    let scan = |limit| {
        run(Format::Json, async |out| super::scan(&node.client(), &args(limit), out).await).0
    };
    assert_eq!(scan(None).lines().count(), 2);
    let first = item("a", r#","content_type":"text/plain","data_base64":"aGVsbG8=""#);
    assert_eq!(scan(Some(1)), format!("{first}\n"));
    assert_eq!(node.requests().last().unwrap().line, "GET /scan/app?limit=1&values=true");
}

#[test]
fn the_first_expiry_adds_a_column() {
    let node = Canned::new(|request| {
        let page = if request.line.contains("after=2") {
            let at = r#","expires_at":"2026-11-25T23:00:00.000000Z""#;
            format!(r#"{{"items":[{},{}]}}"#, item("b", at), item("c", r#","expires_at":null"#))
        } else {
            format!(r#"{{"items":[{}],"next":"2"}}"#, item("a", ""))
        };
        answer("200 OK", "", &page)
    });
    let args = Scan { values: false, ..args(None) };
    let (text, ended) = run(Format::Text, async |out| scan(&node.client(), &args, out).await);
    assert!(ended.is_ok(), "{ended:?}");
    let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["KEY", "SIZE", "TYPE", "TIME"]);
    assert_eq!(lines[2], ["KEY", "SIZE", "TYPE", "TIME", "EXPIRES"]);
    assert_eq!((lines[1].len(), lines[3].len(), lines.len()), (5, 6, 5), "{text}");
    assert_eq!(lines[3].last(), Some(&"2026-11-25T23:00:00Z"));
    assert_eq!(lines[4].last(), Some(&"-"));
}

#[test]
fn pages_that_do_not_advance_are_an_error() {
    let node = Canned::new(|_| answer("200 OK", "", r#"{"items":[],"next":"same"}"#));
    let (_, ended) = run(Format::Json, async |out| scan(&node.client(), &args(None), out).await);
    assert_eq!(ended.map_err(|e| e.exit_code()), Err(3));
}

/// The body of an export, in chunks or as it comes before the connection closes.
fn exported(pieces: &[&str], chunked: bool) -> (String, Result<(), CliError>) {
    let mut body = String::new();
    for piece in pieces {
        if chunked {
            let _ = write!(body, "{:x}\r\n{piece}\r\n", piece.len());
        } else {
            body += piece;
        }
    }
    let encoding = if chunked { "Transfer-Encoding: chunked\r\n" } else { "" };
    let ending = if chunked { "0\r\n\r\n" } else { "" };
    let headers = format!("{NODE}Content-Type: application/x-ndjson\r\n{encoding}");
    let node = Canned::new(move |_| {
        format!("HTTP/1.1 200 OK\r\n{headers}Connection: close\r\n\r\n{body}{ending}").into()
    });
    let args = Export { prefix: Prefix::all() };
    let ended = run(Format::Text, async |out| export(&node.client(), &args, out).await);
    let request = &node.requests()[0];
    assert_eq!(request.line, "GET /scan/?values=true&exact=true&end=true");
    assert!(request.has("accept: application/x-ndjson"));
    ended
}

const END_2: &str = "{\"end\":true,\"items\":2}\n";

#[test]
fn an_export_is_copied_byte_for_byte_without_its_end() {
    for chunked in [true, false] {
        for pieces in
            [&["{ }\n{", " }\n", END_2][..], &["{ }\n{ }\n{\"end\":", "true,\"items\":2}", "\n"]]
        {
            let (text, ended) = exported(pieces, chunked);
            assert!(ended.is_ok(), "{ended:?}");
            assert_eq!(text, "{ }\n{ }\n");
        }
        let (empty, ended) = exported(&["{\"end\":true,\"items\":0}\n"], chunked);
        assert!(ended.is_ok() && empty.is_empty(), "{ended:?}");
    }
}

#[test]
fn an_export_that_breaks_off_is_an_error_whatever_the_connection_says() {
    // a proxy that speaks HTTP/1.0 to the node ends its answer in order when the node's broke off
    for chunked in [true, false] {
        for (cut, words) in [
            (&["{ }\n"][..], "its end is missing"),
            (&["{ }\n{"], "its last line has no end"),
            (&["{ }\n{\"end\":true,\"items\":1}"], "its last line has no end"),
            (&["{ }\n", END_2], "its end tells of 2 records"),
        ] {
            let (text, ended) = exported(cut, chunked);
            let error = ended.expect_err(words);
            assert_eq!((text.as_str(), error.exit_code()), ("{ }\n", 3), "{cut:?}");
            let shown = error.to_string();
            assert!(shown.contains("after 1 record, so") && shown.contains(words), "{shown}");
        }
        let (_, ended) = exported(&[], chunked);
        assert_eq!(ended.map_err(|e| e.exit_code()), Err(3), "an empty answer has no end");
        let (_, ended) = exported(&["{ }\n{ }\n", END_2, "{ }\n"], chunked);
        assert!(ended.expect_err("goes on").to_string().contains("goes on after its end"));
    }
}

#[test]
fn an_export_whose_connection_breaks_is_an_error() {
    let head = format!("HTTP/1.1 200 OK\r\n{NODE}Content-Type: application/x-ndjson\r\n");
    let cut = format!("{head}Transfer-Encoding: chunked\r\n\r\n4\r\n{{ }}\n\r\n");
    let node = Canned::new(move |_| cut.clone().into_bytes());
    let args = Export { prefix: Prefix::all() };
    let (text, ended) = run(Format::Text, async |out| export(&node.client(), &args, out).await);
    let error = ended.expect_err("cut");
    assert_eq!((text.as_str(), error.exit_code()), ("{ }\n", 3));
    assert!(error.to_string().contains("1 record,"), "{error}");
}

#[test]
fn an_export_must_have_one_record_per_line() {
    let node = Canned::new(|_| answer("200 OK", "Content-Type: application/json\r\n", "{}"));
    let args = Export { prefix: Prefix::all() };
    let (text, ended) = run(Format::Text, async |out| export(&node.client(), &args, out).await);
    assert_eq!((text.as_str(), ended.map_err(|e| e.exit_code())), ("", Err(3)));
}
