//! What bodies of `POST /cas` mean, and which ones are refused with what.

use super::*;
use crate::model::Content;

const U: &str = "00000000-0000-0000-0000-00000000000a";

fn parse(body: &str) -> Result<(Expected, Change), Error> {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let swap = Swap::parse(&body, 8)?;
    Ok((swap.expected, swap.change))
}

fn json(text: &'static str) -> Expected {
    Expected::Json(Text::new(Bytes::from_static(text.as_bytes())).unwrap())
}

fn expected(text: &str) -> Result<Expected, Error> {
    parse(&format!(r#"{{"expected":{text},"delete":true}}"#)).map(|(expected, _)| expected)
}

fn change(text: &str) -> Result<Change, Error> {
    parse(&format!(r#"{{"expected":{{"absent":true}},{text}}}"#)).map(|(_, change)| change)
}

/// Content type and bytes of a put.
fn put(change: Result<Change, Error>) -> (ContentType, Bytes) {
    let Ok(Change::Put { content: Content::Value { content_type, .. }, body, .. }) = change else {
        panic!("{change:?}")
    };
    (content_type, body)
}

#[test]
fn the_seven_forms_of_an_expectation() {
    let uuid = Uuid::from_u128(10);
    let timestamp = Timestamp::saturating(5);
    let forms = [
        (format!(r#"{{"uuid":"{U}"}}"#), Expected::Uuid(uuid)),
        (r#"{"timestamp":5}"#.to_owned(), Expected::Timestamp(timestamp)),
        (format!(r#"{{"timestamp":5,"uuid":"{U}"}}"#), Expected::Version { uuid, timestamp }),
        (r#"{"data":null}"#.to_owned(), json("null")),
        (r#"{"data":"x"}"#.to_owned(), json("\"x\"")),
        (r#"{"data_base64":"aGk="}"#.to_owned(), Expected::Bytes("hi".into())),
        (r#"{"data_base64":""}"#.to_owned(), Expected::Bytes(Bytes::new())),
        (r#"{"absent":true}"#.to_owned(), Expected::Absent),
        (r#"{"exists":true}"#.to_owned(), Expected::Exists),
    ];
    for (text, form) in forms {
        assert_eq!(expected(&text).unwrap(), form, "{text}");
    }
}

#[test]
fn other_expectations_are_refused() {
    for bad in [
        "{}",
        "null",
        "[]",
        r#"{"absent":false}"#,
        r#"{"absent":null}"#,
        r#"{"exists":1}"#,
        r#"{"absent":true,"exists":true}"#,
        r#"{"data":1,"timestamp":5}"#,
        r#"{"data":null,"absent":true}"#,
        r#"{"uuid":"x"}"#,
        r#"{"uuid":"0000000000000000000000000000000a"}"#,
        r#"{"uuid":null}"#,
        r#"{"timestamp":5.0}"#,
        r#"{"timestamp":-1}"#,
        r#"{"timestamp":"5"}"#,
        r#"{"timestamp":9007199254740992}"#,
        r#"{"data_base64":"aGk"}"#,
    ] {
        assert!(matches!(expected(bad), Err(Error::BadRequest(_))), "{bad}");
    }
    let unknown = expected(r#"{"absent":true,"x":1}"#);
    assert!(matches!(unknown, Err(Error::UnknownField(name)) if name == "x"));
}

#[test]
fn data_is_kept_as_its_exact_text() {
    for text in ["null", "1.00", r#"{"a": 1}"#, r#""\u0041""#, "1E400"] {
        let (content_type, body) = put(change(&format!(r#""data": {text} "#)));
        assert_eq!((content_type.as_str(), body.as_ref()), ("application/json", text.as_bytes()));
    }
}

#[test]
fn base64_has_a_type_of_its_own() {
    let (content_type, body) = put(change(r#""data_base64":"aGk=""#));
    assert_eq!((content_type.as_str(), &body[..]), ("application/octet-stream", &b"hi"[..]));
    let typed = change(r#""content_type":"text/plain","data_base64":"aGk=""#);
    let (content_type, _) = put(typed);
    assert_eq!(content_type.as_str(), "text/plain");
    for bad in [
        r#""content_type":"text/plain","data":1"#,
        r#""content_type":"text/plain","delete":true"#,
        r#""content_type":"nonsense","data_base64":"aGk=""#,
        r#""content_type":null,"data_base64":"aGk=""#,
    ] {
        assert!(matches!(change(bad), Err(Error::BadRequest(_))), "{bad}");
    }
}

#[test]
fn there_is_exactly_one_change() {
    assert!(matches!(change(r#""delete":true"#), Ok(Change::Delete)));
    for bad in [
        r#""delete":false"#,
        r#""delete":null"#,
        r#""delete":true,"data":null"#,
        r#""data":null,"data_base64":"""#,
    ] {
        assert!(matches!(change(bad), Err(Error::BadRequest(_))), "{bad}");
    }
    let none = parse(r#"{"expected":{"absent":true}}"#);
    assert!(matches!(none, Err(Error::BadRequest(_))));
    assert!(matches!(parse(r#"{"delete":true}"#), Err(Error::BadRequest(_))));
}

#[test]
fn unknown_members_and_what_comes_later_are_refused() {
    for later in ["ttl", "uuid", "datum"] {
        let unknown = change(&format!(r#""delete":true,"{later}":1"#));
        assert!(matches!(unknown, Err(Error::UnknownField(name)) if name == later));
    }
    assert!(matches!(change(r#""data":1,"data":1"#), Err(Error::BadJson(_))));
    assert!(matches!(change(r#""data":{"a":1,"a":1}"#), Err(Error::BadJson(_))));
}

#[test]
fn the_limit_is_that_of_the_value() {
    assert!(change(r#""data":12345678"#).is_ok());
    assert!(matches!(change(r#""data":123456789"#), Err(Error::ValueTooLarge(8))));
    assert!(change(r#""data_base64":"MTIzNDU2Nzg=""#).is_ok());
    let large = change(r#""data_base64":"MTIzNDU2Nzg5""#);
    assert!(matches!(large, Err(Error::ValueTooLarge(8))));
}
