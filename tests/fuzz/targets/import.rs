//! NDJSON import: any file for `kvs import`.

use std::io::BufReader;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kvs::cli::lines::{Lifetime, Line, Lines};
use kvs::model::{ContentType, Key, Timestamp};
use serde_json::Value;

use super::json::{Reader, Tree};
use super::memory::peak;

/// Reads the bytes as a file, whole and in small pieces, and each of its lines as an envelope.
pub fn run(data: &[u8]) {
    let piece = usize::from(data.first().copied().unwrap_or_default()) + 1;
    let text = data.get(1..).unwrap_or_default();
    let lines = read(text, 8192);
    assert_eq!(lines, read(text, piece), "it does not matter how the bytes come");
    let expected = (1..).zip(text.split(|b| *b == b'\n'));
    let expected = expected.map(|(number, line)| (number, line.trim_ascii().to_vec()));
    assert!(lines.iter().eq(&expected.filter(|(_, line)| !line.is_empty()).collect::<Vec<_>>()));
    for (_, line) in &lines {
        parse(line);
    }
}

fn read(text: &[u8], piece: usize) -> Vec<(u64, Vec<u8>)> {
    let (mut lines, mut found) = (Lines::new(BufReader::with_capacity(piece, text)), Vec::new());
    while let Some(line) = lines.next_line().expect("memory is readable").map(<[u8]>::to_vec) {
        found.push((lines.number(), line));
    }
    found
}

fn parse(bytes: &[u8]) {
    let (line, taken) = peak(|| Line::parse(bytes));
    assert!(taken <= 8 * bytes.len() + 4096, "{taken} bytes taken for {}", bytes.len());
    assert_eq!(Line::parse(bytes), line, "one line, one answer");
    let line = match line {
        Ok(line) => line,
        Err(problem) => {
            assert!(!is_sane(bytes), "{problem}: {}", String::from_utf8_lossy(bytes));
            assert!(!problem.is_empty() && problem.len() <= bytes.len() + 300, "{problem}");
            return;
        }
    };
    // Another JSON reader sees the same record, where it can read the line at all.
    if let Ok(Value::Object(members)) = serde_json::from_slice(bytes) {
        assert_eq!(members["key"], line.key.as_str());
        match (members.get("data"), members.get("data_base64")) {
            (Some(data), None) => {
                let value: Value = serde_json::from_slice(&line.value).expect("it is JSON");
                assert_eq!(value, *data);
            }
            (None, Some(Value::String(text))) => {
                assert_eq!(BASE64_STANDARD.encode(&line.value), *text);
            }
            other => panic!("a value from {other:?}"),
        }
        let type_given = members.get("content_type").and_then(Value::as_str);
        assert!(type_given.is_none_or(|given| given == line.content_type.as_str()));
        let expires_at = members.get("expires_at").and_then(Value::as_str);
        let until = match line.life {
            Lifetime::Until(at) => Some(at),
            Lifetime::Endless | Lifetime::Ttl(_) => None,
        };
        assert_eq!(expires_at.and_then(Timestamp::from_rfc3339), until);
    }
    // An export of the record reads back as the same record.
    let mut envelope = serde_json::json!({
        "key": line.key.as_str(),
        "content_type": line.content_type.as_str(),
        "data_base64": BASE64_STANDARD.encode(&line.value),
        "parent": null,
    });
    match line.life {
        Lifetime::Endless => {}
        Lifetime::Until(at) => envelope["expires_at"] = at.rfc3339().into(),
        Lifetime::Ttl(ttl) => envelope["ttl"] = ttl.to_string().into(),
    }
    assert_eq!(Line::parse(envelope.to_string().as_bytes()), Ok(line));
}

/// Whether a second reader accepts the line.
fn is_sane(line: &[u8]) -> bool {
    let Some(Tree::Object(members)) = Reader::read(line) else { return false };
    let given = |name: &str| members.get(name).filter(|value| **value != Tree::Word("null"));
    let text = |name: &str| match given(name) {
        Some(Tree::Text(text)) => Some(text.as_str()),
        _ => None,
    };
    let typed = match given("content_type") {
        None => true,
        Some(_) => text("content_type").is_some_and(|text| ContentType::parse(text).is_ok()),
    };
    let expiring = match given("expires_at") {
        None => true,
        Some(_) => text("expires_at").is_some_and(|at| Timestamp::from_rfc3339(at).is_some()),
    };
    let base64 = text("data_base64").is_some_and(|text| BASE64_STANDARD.decode(text).is_ok());
    const MEMBERS: [&str; 11] = [
        "key",
        "data",
        "data_base64",
        "content_type",
        "expires_at",
        "uuid",
        "timestamp",
        "origin",
        "origin_joined_at",
        "parent",
        "size",
    ];
    let known = members.keys().all(|name| MEMBERS.contains(&name.as_str()));
    let valued = match (members.contains_key("data"), given("data_base64")) {
        (false, Some(_)) => base64,
        (data, given) => data && given.is_none(),
    };
    known && text("key").is_some_and(|key| Key::parse(key).is_ok()) && typed && expiring && valued
}

pub fn seeds() -> Vec<Vec<u8>> {
    let lines = [
        r#"{"key":"a/b","data":{"x":[1,2.50,"\u00fc"]}}"#,
        r#"{"key":"k","data":null,"content_type":"application/json"}"#,
        r#"{"key":"a/ü","uuid":"u","timestamp":1,"parent":null,"expires_at":null,"size":2,
            "content_type":"text/plain","data_base64":"aGk="}"#,
        r#"{"key":"k","data":1,"expires_at":"2030-01-01T00:00:00Z"}"#,
        r#"{"key":"k","data":1,"expires_at":"tomorrow"}"#,
        r#"{"key":"k","data":1,"ttl":"15m"}"#,
        r#"{"key":"k","data":1,"ttl":90}"#,
        r#"{"key":"k","data":1,"tll":"1s"}"#,
        r#"{"key":"a//b","data":1}"#,
        r#"{"key":"k","data":1,"data":2}"#,
        r#"{"key":"k","data_base64":"a"}"#,
        r#"{"key":"k","data":18446744073709551617}"#,
        r#"{"key":"k"} x"#,
        " \t",
        "",
    ];
    // An envelope of several lines, joined into one.
    let lines = lines.map(|line| line.replace('\n', ""));
    let mut seeds: Vec<Vec<u8>> = lines.iter().map(|line| format!("\0{line}").into()).collect();
    seeds.push(format!("\x03{}\r\n", lines.join("\n")).into());
    seeds
}
