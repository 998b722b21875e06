//! Lines of an import: what is taken, and what is wrong with the rest.

use std::io;

use super::lines::{Lifetime, Line, Lines, Parsed};
use crate::model::Timestamp;

fn value(line: &str) -> Result<(String, String), String> {
    let line = Line::parse(line.as_bytes())?;
    let text = String::from_utf8(line.value).map_err(|e| e.to_string())?;
    Ok((line.content_type.to_string(), text))
}

#[test]
fn data_keeps_its_exact_text() {
    for data in
        ["1.0e0", "18446744073709551617", "{ \"b\":1, \"a\" : \"\\u00fc\" }", "null", "\"\""]
    {
        let parsed = value(&format!(r#"{{"key":"k","data":{data},"size":9}}"#));
        assert_eq!(parsed, Ok(("application/json".to_owned(), data.to_owned())));
    }
}

#[test]
fn a_whole_envelope_is_read_and_its_type_kept() {
    let line = r#"{"key":"a/ü","uuid":"u","timestamp":1,"origin":"o","origin_joined_at":1,
        "parent":null,"expires_at":null,"content_type":"text/plain","size":2,
        "data_base64":"aGk="}"#;
    let line = Line::parse(line.as_bytes()).unwrap();
    assert_eq!((line.key.as_str(), line.content_type.as_str()), ("a/ü", "text/plain"));
    assert_eq!((line.value.as_slice(), line.life), (b"hi".as_slice(), Lifetime::Endless));
    let expiring = br#"{"key":"k","data":1,"expires_at":"2023-11-14T22:13:20.000001Z"}"#;
    let until = Timestamp::new(1_700_000_000_000_001).map(Lifetime::Until).unwrap();
    assert_eq!(Line::parse(expiring).unwrap().life, until);
}

#[test]
fn a_ttl_is_taken_as_a_write_takes_it() {
    for (ttl, expected) in
        [(r#""1s""#, "1s"), ("90", "90s"), (r#""keep""#, "keep"), (r#""250ms""#, "250ms")]
    {
        let line = format!(r#"{{"key":"k","data":1,"ttl":{ttl}}}"#);
        let Lifetime::Ttl(found) = Line::parse(line.as_bytes()).unwrap().life else {
            panic!("{ttl} is a ttl");
        };
        assert_eq!(found.to_string(), expected);
    }
    let none = br#"{"key":"k","data":1,"ttl":null}"#;
    assert_eq!(Line::parse(none).unwrap().life, Lifetime::Endless);
}

#[test]
fn the_end_of_an_export_is_no_record() {
    assert_eq!(Parsed::parse(br#"{"end":true,"items":7}"#), Ok(Parsed::End(7)));
    for other in [r#"{"end":true}"#, r#"{"end":false,"items":7}"#, r#"{"items":7}"#] {
        let error = Parsed::parse(other.as_bytes()).expect_err(other);
        assert!(error.contains("unknown member"), "{other}: {error}");
    }
}

#[test]
fn errors_name_the_problem() {
    for (line, words) in [
        ("", "one JSON object"),
        ("[1]", "one JSON object"),
        ("{", "EOF"),
        (r#"["k",1]"#, "one JSON object"),
        (r#"{"data":1}"#, "missing field `key`"),
        (r#"{"key":"a//b","data":1}"#, "empty segment"),
        (r#"{"key":"k"}"#, "neither data nor data_base64"),
        (r#"{"key":"k","data":null,"data_base64":""}"#, "both data and data_base64"),
        (r#"{"key":"k","data_base64":"a"}"#, "bad data_base64"),
        (r#"{"key":"k","data":1,"content_type":""}"#, "content type"),
        (r#"{"key":"k","data":1,"expires_at":"tomorrow"}"#, "bad expires_at"),
        (r#"{"key":"k","data":1,"expires_at":1700000000000000}"#, "expected a string"),
        (r#"{"key":"k","data":1,"data":2}"#, "duplicate field `data`"),
        (r#"{"key":"k","data":1,"tll":"1s"}"#, "unknown member `tll`; did you mean `ttl`?"),
        (r#"{"key":"k","value":1}"#, "did you mean `data`?"),
        (r#"{"key":"k","Data":1}"#, "did you mean `data`?"),
        (r#"{"key":"k","data":1,"expires":1}"#, "did you mean `expires_at`?"),
        (r#"{"key":"k","data":1,"ttl":"1w"}"#, "bad ttl: `1w` is not a duration"),
        (r#"{"key":"k","data":1,"ttl":1.5}"#, "bad ttl"),
        (r#"{"key":"k","data":1,"ttl":[]}"#, "bad ttl"),
        (r#"{"key":"k","size":9,"omitted":true}"#, "was left out"),
        (r#"{"key":"k","data":1} x"#, "trailing characters"),
    ] {
        let error = Line::parse(line.as_bytes()).expect_err(line);
        assert!(error.contains(words) && !error.contains(" at line "), "{line}: {error}");
    }
}

#[test]
fn lines_are_counted_and_blank_ones_skipped() {
    let mut lines = Lines::new(b"a\n\n \r\nb\r\nlast".as_slice());
    for expected in [(b"a".as_slice(), 1), (b"b", 4), (b"last", 5)] {
        let line = lines.next_line().unwrap().map(<[u8]>::to_vec);
        assert_eq!((line.as_deref(), lines.number()), (Some(expected.0), expected.1));
    }
    assert!(lines.next_line().unwrap().is_none());
}

#[test]
fn a_line_without_end_does_not_fill_the_memory() {
    let mut lines = Lines::new(io::BufReader::new(io::repeat(b'x')));
    let error = lines.next_line().expect_err("too long");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}
