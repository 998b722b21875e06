//! The requests that `cas` sends, and how it shows the answers.

use super::*;
use crate::cli::canned::{Canned, answer, run};
use crate::cli::output::Format;
use serde_json::{Value, json};

const UUID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

fn swap() -> Cas {
    Cas {
        key: Key::parse("app/x y").unwrap(),
        value: Some("new".into()),
        expect_uuid: None,
        expect_timestamp: None,
        expect_value: None,
        expect_absent: false,
        expect_exists: false,
        delete: false,
        json: false,
        content_type: None,
        life: Life::default(),
        retry: Retry::default(),
    }
}

fn body(args: Cas) -> Value {
    let mut stdin: &[u8] = b"from stdin";
    serde_json::from_slice(&Swap::from_arguments(args, &mut stdin).unwrap().body().unwrap())
        .unwrap()
}

#[test]
fn the_body_of_a_swap_follows_the_contract() {
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
    let life = Life { ttl: Ttl::parse("keep").ok() };
    let exists = Cas { expect_exists: true, life, retry: Retry { uuid }, ..swap() };
    let expected = json!({"exists": true});
    let new = json!({"expected": expected, "data_base64": "bmV3", "content_type": octets,
        "ttl": "keep", "uuid": UUID});
    assert_eq!(body(exists), new);
}

#[test]
fn json_is_sent_exactly_as_written() {
    let json = |text: &str| {
        let args = Cas { expect_absent: true, json: true, value: Some(text.into()), ..swap() };
        let swap = Swap::from_arguments(args, &mut std::io::empty());
        swap.and_then(|swap| swap.body()).map(|body| serde_json::from_slice(&body).unwrap())
    };
    for text in ["{\"b\": 1.0e0, \"a\":18446744073709551617}\n", "null", " [ ] "] {
        let sent: Value = json(text).unwrap();
        assert_eq!(sent["data_base64"], BASE64_STANDARD.encode(text));
        assert_eq!(sent["content_type"], "application/json");
    }
    for bad in ["{", "nothing", r#"{"a":1,"a":2}"#] {
        assert_eq!(json(bad).map_err(|e| e.exit_code()), Err(2), "{bad}");
    }
}

#[test]
fn a_refused_swap_shows_the_current_version() {
    let problem = format!(
        r#"{{"code":"precondition_failed","detail":"no","swapped":false,
        "current":{{"uuid":"{UUID}","timestamp":9,"data_base64":"Z3JlZW4="}}}}"#
    );
    let sent = problem.clone();
    let node = Canned::new(move |_| answer("412 Precondition Failed", "", &sent));
    let args = || Cas { expect_absent: true, ..swap() };
    let (text, ended) = run(Format::Text, async |out| cas(&node.client(), args(), out).await);
    let error = ended.expect_err("refused");
    assert_eq!((text.as_str(), error.exit_code()), ("", 1));
    assert!(
        error.to_string().ends_with(&format!("uuid={UUID} timestamp=9, value: green")),
        "{error}"
    );
    let (json, ended) = run(Format::Json, async |out| cas(&node.client(), args(), out).await);
    assert_eq!(ended.map_err(|e| e.exit_code()), Err(1));
    assert_eq!(json, format!("{}\n", problem.replace('\n', " ")));
}
