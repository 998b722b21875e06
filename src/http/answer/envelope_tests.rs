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
    let key = Key::parse("a/b").unwrap();
    serde_json::to_string(&Envelope::of(&key, entry)).unwrap()
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
    let text = serde_json::to_string(&Envelope::of_current(&key, &large)).unwrap();
    assert!(text.ends_with(r#""omitted":true}"#), "{text}");
}

#[test]
fn white_space_around_json_survives_in_base64() {
    for body in [&b" 1"[..], b"1\n", b"\t{}", b"[]\r\n", b" null "] {
        let text = text(&entry("application/json", body));
        let encoded = STANDARD.encode(body);
        assert!(text.ends_with(&format!(r#""data_base64":"{encoded}"}}"#)), "{text}");
    }
    // white space inside survives, line breaks too
    let text = text(&entry("application/json", b"[1,\n 2]"));
    assert!(text.ends_with("\"data\":[1,\n 2]}"), "{text}");
}

#[test]
fn a_line_is_one_line_and_loses_nothing() {
    #[derive(serde::Deserialize)]
    struct Shown<'a> {
        #[serde(borrow)]
        data: Option<&'a RawValue>,
        data_base64: Option<String>,
    }
    let key = Key::parse("k").unwrap();
    for body in [&b"[\r\n1,\n2]"[..], b"{\"a\":\r1}", b"[1, 2]", b"\"\\n\"", b"1\n", b""] {
        let entry = entry("application/json", body);
        let mut line = Vec::new();
        Envelope::of_line(&key, &entry).write_line(&mut line).unwrap();
        let end = line.iter().position(|b| matches!(b, b'\n' | b'\r'));
        assert_eq!(end, Some(line.len() - 1));
        let shown: Shown<'_> = serde_json::from_slice(&line).unwrap();
        let back = match (shown.data, shown.data_base64) {
            (Some(json), None) => json.get().as_bytes().to_vec(),
            (None, Some(text)) => STANDARD.decode(text).unwrap(),
            both => panic!("{both:?}"),
        };
        assert_eq!(back, body);
    }
}
