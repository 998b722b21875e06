//! The meaning of bodies of `POST /cas`, and the errors of bad ones.

use super::*;
use crate::model::Timestamp;
use crate::store::Lifetime;

const U: &str = "00000000-0000-0000-0000-00000000000a";

fn parse(body: &str) -> Result<Swap, Error> {
    Swap::parse(&Bytes::copy_from_slice(body.as_bytes()), 8)
}

/// The change of a swap that expects nothing to be there.
fn change(text: &str) -> Result<Change, Error> {
    parse(&format!(r#"{{"expected":{{"absent":true}},{text}}}"#)).map(|swap| swap.change)
}

#[test]
fn a_swap_has_an_expectation_and_a_change() {
    let swap = parse(r#"{"expected":{"timestamp":5},"data":[1]}"#).unwrap();
    assert_eq!(swap.expected, Expected::Timestamp(Timestamp::saturating(5)));
    let put = Change::put(crate::model::ContentType::json(), "[1]".into(), Lifetime::Unbounded);
    assert_eq!((swap.change, swap.uuid), (put, None));
    for bad in [r#"{"delete":true}"#, r#"{"expected":{"absent":true}}"#, r#"{"data":1}"#, "{}"] {
        assert!(matches!(parse(bad), Err(Error::BadRequest(_))), "{bad}");
    }
}

#[test]
fn there_is_exactly_one_change() {
    assert!(matches!(change(r#""delete":true"#), Ok(Change::Delete)));
    for bad in [
        r#""delete":false"#,
        r#""delete":null"#,
        r#""delete":true,"data":null"#,
        r#""delete":true,"data_base64":"""#,
        r#""data":null,"data_base64":"""#,
    ] {
        assert!(matches!(change(bad), Err(Error::BadRequest(_))), "{bad}");
    }
}

#[test]
fn a_delete_has_no_type_and_no_lifetime() {
    for member in ["content_type", "ttl"] {
        for delete in ["true", "false"] {
            let refused = change(&format!(r#""delete":{delete},"{member}":"5s""#));
            let Err(Error::BadRequest(detail)) = refused else { panic!("{refused:?}") };
            assert!(detail.contains(&format!("`{member}`")), "{detail}");
        }
    }
    let kept = change(r#""data":1,"ttl":"keep""#);
    assert!(matches!(kept, Ok(Change::Put { lifetime: Lifetime::Keep, .. })));
    assert!(matches!(change(r#""data":1,"ttl":"x""#), Err(Error::BadDuration(_))));
}

#[test]
fn a_swap_may_have_a_request_id() {
    let identified = |uuid: &str| {
        let body = format!(r#"{{"expected":{{"absent":true}},"data":1,"uuid":{uuid}}}"#);
        parse(&body).map(|swap| swap.uuid)
    };
    let uuid = Some(Uuid::from_u128(10));
    assert_eq!(identified(&format!("\"{U}\"")).unwrap(), uuid);
    assert_eq!(identified(&format!("\"{}\"", U.to_uppercase())).unwrap(), uuid);
    let compact = format!("\"{}\"", U.replace('-', ""));
    for bad in ["null", "10", r#""""#, r#""x""#, &compact] {
        assert!(matches!(identified(bad), Err(Error::BadRequest(_))), "{bad}");
    }
}

#[test]
fn unknown_members_are_refused() {
    for unknown in ["datum", "TTL", "if", "key"] {
        let refused = change(&format!(r#""delete":true,"{unknown}":1"#));
        assert!(matches!(refused, Err(Error::UnknownField { name, .. }) if name == unknown));
    }
    assert!(matches!(change(r#""data":1,"data":1"#), Err(Error::BadJson(_))));
    assert!(matches!(change(r#""data":{"a":1,"a":1}"#), Err(Error::BadJson(_))));
    assert!(matches!(change(r#""data":123456789"#), Err(Error::ValueTooLarge(8))));
}
