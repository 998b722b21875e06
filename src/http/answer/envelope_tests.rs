//! The members of an envelope, and that its content survives.

use base64::Engine as _;

use super::*;
use crate::model::{ContentType, NodeId, Seen, Version};
use bytes::Bytes;

fn entry(content_type: &str, body: &'static [u8]) -> Entry {
    let header = Header {
        version: Version {
            timestamp: Timestamp::saturating(1_700_000_000_000_001),
            origin_joined_at: Timestamp::saturating(1_600_000_000_000_000),
            uuid: Uuid::from_u128(5),
        },
        origin: NodeId::from_u128(7),
        parent: None,
        seen: Seen::default(),
        expires_at: None,
        content: Content::value(ContentType::parse(content_type).unwrap(), body),
    };
    Entry { header, body: Some(Bytes::from_static(body)) }
}

fn text(entry: &Entry) -> String {
    shown_as(entry, ContentForm::Readable)
}

fn shown_as(entry: &Entry, form: ContentForm) -> String {
    let key = Key::parse("a/b").unwrap();
    serde_json::to_string(&Envelope::of(&key, entry, form)).unwrap()
}

fn line(entry: &Entry, form: ContentForm) -> Vec<u8> {
    let (key, mut line) = (Key::parse("k").unwrap(), Vec::new());
    Envelope::of_line(&key, entry, form).write_line(&mut line).unwrap();
    let end = line.iter().position(|b| matches!(b, b'\n' | b'\r'));
    assert_eq!(end, Some(line.len() - 1));
    line
}

#[test]
fn the_fields_come_in_the_order_of_the_contract_and_data_verbatim() {
    let expected = concat!(
        r#"{"key":"a/b","uuid":"00000000-0000-0000-0000-000000000005","#,
        r#""timestamp":1700000000000001,"origin":"00000000-0000-0000-0000-000000000007","#,
        r#""origin_joined_at":"2020-09-13T12:26:40.000000Z","parent":null,"expires_at":null,"#,
        r#""content_type":"application/json","size":12,"data":{"a" : 1.0 }}"#,
    );
    assert_eq!(text(&entry("application/json", br#"{"a" : 1.0 }"#)), expected);
    assert!(text(&entry("application/json", b"null")).ends_with(r#""data":null}"#));
}

#[test]
fn content_that_is_not_json_is_shown_in_base64() {
    for (content_type, body) in [
        ("text/plain", &b"1"[..]),
        ("application/json", b"{"),
        ("application/json", b""),
        ("application/json", br#"{"a":1,"a":2}"#),
        ("application/json", b"\"\xff\""),
    ] {
        let text = text(&entry(content_type, body));
        assert!(text.contains("data_base64") && !text.contains("\"data\""), "{text}");
    }
    assert!(text(&entry("text/plain", b"hi")).ends_with(r#""data_base64":"aGk="}"#));
}

#[test]
fn a_large_current_value_is_omitted() {
    let key = Key::parse("k").unwrap();
    let mut large = entry("application/json", b"1");
    large.body = None;
    let current = Envelope::of_current(&key, &large, ContentForm::Readable);
    let text = serde_json::to_string(&current).unwrap();
    assert!(text.ends_with(r#""omitted":true}"#), "{text}");
    let read = Envelope::of_read(&key, &large, ContentForm::Readable);
    assert_eq!(serde_json::to_string(&read).unwrap(), text, "no longer kept for a retry");
    let small = entry("application/json", b"1");
    let read = Envelope::of_read(&key, &small, ContentForm::Readable);
    assert!(serde_json::to_string(&read).unwrap().ends_with(r#""data":1}"#));
}

#[test]
fn white_space_around_json_is_dropped_unless_exact_content_is_asked_for() {
    for (body, shown) in [
        (&b" 1"[..], "1"),
        (b"1\n", "1"),
        (b"\t{}", "{}"),
        (b"[]\r\n", "[]"),
        (b" null ", "null"),
        (b"{\n  \"a\": 1\n}\n", "{\n  \"a\": 1\n}"),
    ] {
        let entry = entry("application/json", body);
        let text = text(&entry);
        assert!(text.ends_with(&format!(r#""data":{shown}}}"#)), "{text}");
        let exact = shown_as(&entry, ContentForm::Exact);
        let encoded = STANDARD.encode(body);
        assert!(exact.ends_with(&format!(r#""data_base64":"{encoded}"}}"#)), "{exact}");
    }
    // white space inside survives, line breaks too
    for form in [ContentForm::Readable, ContentForm::Exact] {
        let text = shown_as(&entry("application/json", b"[1,\n 2]"), form);
        assert!(text.ends_with("\"data\":[1,\n 2]}"), "{text}");
    }
}

#[test]
fn in_a_line_breaks_between_tokens_become_spaces() {
    for (body, shown) in [
        (&b"[\r\n1,\n2]\n"[..], r"[  1, 2]"),
        (b"{\"a\":\r1}", r#"{"a": 1}"#),
        (b"{\n  \"a b\": \"c\\nd\"\n}", r#"{   "a b": "c\nd" }"#),
        (b"\n1", "1"),
    ] {
        let line = line(&entry("application/json", body), ContentForm::Readable);
        let line = String::from_utf8(line).unwrap();
        assert!(line.ends_with(&format!("\"data\":{shown}}}\n")), "{line}");
    }
}

#[test]
fn an_exact_line_loses_nothing() {
    #[derive(serde::Deserialize)]
    struct Shown<'a> {
        #[serde(borrow)]
        data: Option<&'a RawValue>,
        data_base64: Option<String>,
    }
    for body in [&b"[\r\n1,\n2]"[..], b"{\"a\":\r1}", b"[1, 2]", b"\"\\n\"", b"1\n", b" 1", b""] {
        let line = line(&entry("application/json", body), ContentForm::Exact);
        let shown: Shown<'_> = serde_json::from_slice(&line).unwrap();
        let back = match (shown.data, shown.data_base64) {
            (Some(json), None) => json.get().as_bytes().to_vec(),
            (None, Some(text)) => STANDARD.decode(text).unwrap(),
            both => panic!("{both:?}"),
        };
        assert_eq!(back, body);
    }
}
