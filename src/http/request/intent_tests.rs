//! The meaning of expectations, values and lifetimes, and the errors of bad ones.

use std::time::Duration;

use super::*;
use crate::http::answer::schema::LifetimeSchema;
use crate::model::Content;

const U: &str = "00000000-0000-0000-0000-00000000000a";
const BYTES_MAX: usize = 8;

fn json_text(text: &'static str) -> Expected {
    Expected::Json(Text::new(Bytes::from_static(text.as_bytes())).unwrap())
}

fn expected(text: &str) -> Result<Expected, Error> {
    let body = Bytes::copy_from_slice(text.as_bytes());
    super::expected(serde_json::from_slice(&body).unwrap(), &body)
}

fn change(members: &str) -> Result<Change, Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct OnlyValue<'a> {
        #[serde(borrow = "'a", default)]
        data: JsonMember<'a, AnySchema>,
        #[serde(borrow = "'a", default)]
        data_base64: JsonMember<'a, Base64Schema>,
        #[serde(borrow = "'a", default)]
        content_type: JsonMember<'a, String>,
        #[serde(borrow = "'a", default)]
        ttl: JsonMember<'a, LifetimeSchema>,
    }
    let body = Bytes::from(format!("{{{members}}}"));
    let given: OnlyValue<'_> = json::body(&body)?;
    let value = ValueMembers {
        data: given.data.text(),
        data_base64: given.data_base64.text(),
        content_type: given.content_type.text(),
        ttl: given.ttl.text(),
    };
    value.put(&body, BYTES_MAX)
}

#[test]
fn the_seven_forms_of_an_expectation() {
    let uuid = Uuid::from_u128(10);
    let timestamp = Timestamp::saturating(5);
    let forms = [
        (format!(r#"{{"uuid":"{U}"}}"#), Expected::Uuid(uuid)),
        (r#"{"timestamp":5}"#.to_owned(), Expected::Timestamp(timestamp)),
        (format!(r#"{{"timestamp":5,"uuid":"{U}"}}"#), Expected::Version { uuid, timestamp }),
        (r#"{"data":null}"#.to_owned(), json_text("null")),
        (r#"{"data":"x"}"#.to_owned(), json_text("\"x\"")),
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
    assert!(matches!(unknown, Err(Error::UnknownField { name, .. }) if name == "x"));
}

fn typed(change: Change) -> (String, Bytes) {
    match change {
        Change::Put { content: Content::Value { content_type, .. }, body, .. } => {
            (content_type.as_str().to_owned(), body)
        }
        change => panic!("{change:?}"),
    }
}

#[test]
fn data_is_stored_as_its_exact_text() {
    for text in ["null", "1.00", r#"{"a": 1}"#, r#""\u0041""#, "1E400"] {
        let put = typed(change(&format!(r#""data": {text} "#)).unwrap());
        assert_eq!(put, ("application/json".to_owned(), Bytes::from(text)));
    }
}

#[test]
fn base64_comes_with_a_content_type() {
    let put = typed(change(r#""data_base64":"aGk=""#).unwrap());
    assert_eq!(put, ("application/octet-stream".to_owned(), Bytes::from("hi")));
    let put = typed(change(r#""content_type":"text/plain","data_base64":"aGk=""#).unwrap());
    assert_eq!(put.0, "text/plain");
    for bad in [
        r#""content_type":"text/plain","data":1"#,
        r#""content_type":"text/plain""#,
        r#""content_type":"nonsense","data_base64":"aGk=""#,
        r#""content_type":null,"data_base64":"aGk=""#,
        r#""data":null,"data_base64":"""#,
        r#""ttl":5"#,
        "",
    ] {
        assert!(matches!(change(bad), Err(Error::BadRequest(_))), "{bad}");
    }
}

#[test]
fn a_value_lives_as_long_as_its_ttl_says() {
    let lifetime_of = |ttl: &str| match change(&format!(r#""data":1,"ttl":{ttl}"#)) {
        Ok(Change::Put { lifetime, .. }) => Ok(lifetime),
        Ok(change) => panic!("{change:?}"),
        Err(error) => Err(error),
    };
    let seconds = |n| Lifetime::For(Duration::from_secs(n));
    for (ttl, lifetime) in [
        ("5", seconds(5)),
        (r#""5""#, seconds(5)),
        (r#""5s""#, seconds(5)),
        (r#""\u0035m""#, seconds(300)),
        (r#""1ms""#, Lifetime::For(Duration::from_millis(1))),
        (r#""36500d""#, Lifetime::For(duration::DURATION_MAX)),
        ("3153600000", Lifetime::For(duration::DURATION_MAX)),
        (r#""keep""#, Lifetime::Keep),
    ] {
        assert_eq!(lifetime_of(ttl).unwrap(), lifetime, "{ttl}");
    }
    for bad in [
        "0",
        "-1",
        "5.0",
        "5e0",
        "3153600001",
        "true",
        "null",
        "[5]",
        "{}",
        r#""""#,
        r#""0s""#,
        r#""05s""#,
        r#""Keep""#,
        r#""5 s""#,
        r#"" 5s""#,
        r#""36501d""#,
        r#""forever""#,
    ] {
        assert!(matches!(lifetime_of(bad), Err(Error::BadDuration(_))), "{bad}");
    }
    let Ok(Change::Put { lifetime, .. }) = change(r#""data":1"#) else { panic!() };
    assert_eq!(lifetime, Lifetime::Unbounded);
    assert_eq!(lifetime_of_query("250ms").unwrap(), Lifetime::For(Duration::from_millis(250)));
    assert!(matches!(lifetime_of_query(""), Err(Error::BadDuration(_))));
}

fn lifetime_of_query(text: &str) -> Result<Lifetime, Error> {
    lifetime(text)
}

#[test]
fn the_limit_is_on_the_value_not_on_its_text() {
    assert!(change(r#""data":12345678"#).is_ok());
    assert!(matches!(change(r#""data":123456789"#), Err(Error::ValueTooLarge(8))));
    assert!(change(r#""data_base64":"MTIzNDU2Nzg=""#).is_ok());
    let large = change(r#""data_base64":"MTIzNDU2Nzg5""#);
    assert!(matches!(large, Err(Error::ValueTooLarge(8))));
}
