//! The meaning of bodies of `POST /txn`, the errors of bad ones, and the memory of answers.

use axum::body::Body;
use uuid::Uuid;

use super::*;
use crate::http::tests::rig;
use crate::model::{Condition, ContentType, Expected};
use crate::store::memory::Memory;
use crate::store::{Change, Lifetime};

const U: &str = "00000000-0000-0000-0000-00000000000a";
const LIMITS: TxnLimits = TxnLimits { entries_max: 3, value_bytes_max: 8 };

fn parse(body: &str) -> Result<Txn, Error> {
    request::parse(&Bytes::copy_from_slice(body.as_bytes()), LIMITS)
}

/// The refusal of a body: its code, and the part that its text names.
fn refused(body: &str) -> (String, String) {
    let Err(error) = parse(body) else { panic!("{body} is accepted") };
    let problem: serde_json::Value = serde_json::from_slice(&error.problem().1).unwrap();
    let text = |name: &str| problem[name].as_str().unwrap().to_owned();
    let detail = text("detail");
    let place = detail.strip_prefix("in `").and_then(|rest| rest.split_once('`'));
    (text("code"), place.map_or("", |(place, _)| place).to_owned())
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

#[test]
fn a_transaction_has_three_lists_and_each_may_be_missing() {
    let txn = parse("{}").unwrap();
    assert!(txn.compare.is_empty() && txn.success.is_empty() && txn.failure.is_empty());
    assert_eq!(txn.uuid, None);
    let txn = parse(&format!(
        r#"{{"compare":[{{"key":"a/b","expected":{{"absent":true}}}}],
            "success":[{{"put":{{"key":"a/b","data": [1] ,"ttl":5}}}},{{"get":{{"key":"a/b"}}}}],
            "failure":[{{"delete":{{"key":"ü"}}}}],"uuid":"{U}"}}"#
    ))
    .unwrap();
    assert_eq!(txn.compare, [(key("a/b"), Condition::Expect(Expected::Absent))]);
    let lifetime = Lifetime::For(std::time::Duration::from_secs(5));
    let put = Change::put(ContentType::json(), "[1]".into(), lifetime);
    let [Operation::Write(written, change), Operation::Get(read)] = &txn.success[..] else {
        panic!("{txn:?}")
    };
    assert_eq!((written, change, read), (&key("a/b"), &put, &key("a/b")));
    let [Operation::Write(deleted, Change::Delete)] = &txn.failure[..] else { panic!("{txn:?}") };
    assert_eq!((deleted, txn.uuid), (&key("ü"), Some(Uuid::from_u128(10))));
}

#[test]
fn unknown_members_are_refused_at_every_level_and_their_place_is_named() {
    for (body, place) in [
        (r#"{"x":1}"#, ""),
        (r#"{"Success":[]}"#, ""),
        (r#"{"success":[{"get":{"key":"a"}},{"swap":{"key":"b"}}]}"#, "success[1]"),
        (r#"{"compare":[{"key":"a","expected":{"absent":true},"x":1}]}"#, "compare[0]"),
        (r#"{"compare":[{"key":"a","expected":{"absent":true,"x":1}}]}"#, "compare[0].expected"),
        (r#"{"success":[{"get":{"key":"a"}},{"get":{"key":"a"},"x":1}]}"#, "success[1]"),
        (r#"{"success":[{"put":{"key":"a","data":1,"x":1}}]}"#, "success[0].put"),
        (r#"{"failure":[{"delete":{"key":"a","ttl":1}}]}"#, "failure[0].delete"),
        (r#"{"failure":[{"get":{"key":"a","expected":1}}]}"#, "failure[0].get"),
    ] {
        assert_eq!(refused(body), ("unknown_field".to_owned(), place.to_owned()), "{body}");
    }
}

#[test]
fn bad_members_are_refused_and_their_place_is_named() {
    for (body, code, place) in [
        ("", "bad_json", ""),
        ("[]", "bad_request", ""),
        (r#"{"success":[{"get":{"key":"b","key":"b"}}]}"#, "bad_json", ""),
        (r#"{"compare":{}}"#, "bad_request", ""),
        (r#"{"compare":null}"#, "bad_request", ""),
        (r#"{"success":{}}"#, "bad_request", ""),
        (r#"{"uuid":5}"#, "bad_request", ""),
        (r#"{"success":null}"#, "bad_request", ""),
        (r#"{"uuid":"x"}"#, "bad_request", ""),
        (r#"{"compare":[1]}"#, "bad_request", ""),
        (r#"{"compare":[{"expected":{"absent":true}}]}"#, "bad_request", "compare[0]"),
        (r#"{"compare":[{"key":"a"}]}"#, "bad_request", "compare[0]"),
        (r#"{"compare":[{"key":"a","expected":{}}]}"#, "bad_request", "compare[0].expected"),
        (r#"{"compare":[{"key":1,"expected":{"absent":true}}]}"#, "bad_request", "compare[0]"),
        (r#"{"compare":[{"key":"","expected":{"absent":true}}]}"#, "bad_key", "compare[0]"),
        (r#"{"success":[{}]}"#, "bad_request", "success[0]"),
        (
            r#"{"success":[{"get":{"key":"a"}},{"get":{"key":"a"},"delete":{"key":"a"}}]}"#,
            "bad_request",
            "success[1]",
        ),
        (r#"{"success":[{"get":"a"}]}"#, "bad_request", "success[0]"),
        (r#"{"success":[{"get":{}}]}"#, "bad_request", "success[0].get"),
        (r#"{"success":[{"get":{"key":"/a"}}]}"#, "bad_key", "success[0].get"),
        (r#"{"success":[{"get":{"key":"b/"}}]}"#, "bad_key", "success[0].get"),
        (r#"{"success":[{"put":{"key":"a"}}]}"#, "bad_request", "success[0].put"),
        (r#"{"success":[{"put":{"data":1}}]}"#, "bad_request", "success[0].put"),
        (
            r#"{"success":[{"put":{"key":"a","data":1,"data_base64":""}}]}"#,
            "bad_request",
            "success[0].put",
        ),
        (
            r#"{"success":[{"put":{"key":"a","data":1,"content_type":"a/b"}}]}"#,
            "bad_request",
            "success[0].put",
        ),
        (
            r#"{"failure":[{"put":{"key":"a","data":1,"ttl":"x"}}]}"#,
            "bad_duration",
            "failure[0].put",
        ),
        (
            r#"{"failure":[{"put":{"key":"a","data":123456789}}]}"#,
            "value_too_large",
            "failure[0].put",
        ),
        (
            r#"{"failure":[{"put":{"key":"a","data_base64":"MTIzNDU2Nzg5"}}]}"#,
            "value_too_large",
            "failure[0].put",
        ),
    ] {
        assert_eq!(refused(body), (code.to_owned(), place.to_owned()), "{body}");
    }
    let long = format!(r#"{{"success":[{{"get":{{"key":"{}"}}}}]}}"#, "x".repeat(1025));
    assert_eq!(refused(&long).0, "key_too_long");
}

#[test]
fn a_list_writes_a_key_once_and_reads_it_any_number_of_times() {
    let list = |name: &str, operations: &str| format!(r#"{{"{name}":[{operations}]}}"#);
    let put = r#"{"put":{"key":"a","data":1}}"#;
    let delete = r#"{"delete":{"key":"a"}}"#;
    let get = r#"{"get":{"key":"a"}}"#;
    for name in ["success", "failure"] {
        for (first, second) in [(put, put), (put, delete), (delete, put), (delete, delete)] {
            let twice = list(name, &format!("{first},{get},{second}"));
            assert_eq!(refused(&twice), ("bad_request".to_owned(), format!("{name}[2]")));
        }
        assert!(parse(&list(name, &format!("{get},{put},{get}"))).is_ok());
    }
    let both = format!(r#"{{"success":[{put}],"failure":[{put}]}}"#);
    assert!(parse(&both).is_ok(), "only one of the lists is done");
    let compare = r#"{"key":"a","expected":{"exists":true}}"#;
    assert_eq!(parse(&list("compare", &format!("{compare},{compare}"))).unwrap().compare.len(), 2);
}

#[test]
fn each_list_has_its_own_limit() {
    let get = r#"{"get":{"key":"a"}}"#;
    let compare = r#"{"key":"a","expected":{"exists":true}}"#;
    let body = |n: [usize; 3]| {
        let [compares, successes, failures] =
            [(compare, n[0]), (get, n[1]), (get, n[2])].map(|(entry, n)| vec![entry; n].join(","));
        format!(r#"{{"compare":[{compares}],"success":[{successes}],"failure":[{failures}]}}"#)
    };
    assert!(parse(&body([3, 3, 3])).is_ok());
    for (n, list) in [([4, 0, 0], "compare"), ([3, 4, 0], "success"), ([0, 0, 4], "failure")] {
        let Err(error) = parse(&body(n)) else { panic!("{n:?}") };
        let (status, problem) = error.problem();
        let problem = String::from_utf8(problem).unwrap();
        assert_eq!(status, 413);
        assert!(problem.contains("too_many_operations") && problem.contains(list), "{problem}");
    }
    // a list that is too long is not read in detail
    assert_eq!(refused(r#"{"success":[1,2,3,4]}"#).0, "too_many_operations");
}

const VALUE_BYTES: usize = 100 << 10;

async fn post(app: &Arc<App>, body: &str) -> Response {
    rig::send(app, rig::request("POST", "/txn", Body::from(body.to_owned()))).await
}

/// Paused time: waits that nothing ends time out at once.
#[tokio::test(start_paused = true)]
async fn small_reads_do_not_wait_for_the_memory_of_large_ones() {
    let app = rig::app(Arc::new(Memory::default()), |config| {
        config.limits.value_bytes_max = VALUE_BYTES;
        config.limits.body_bytes_max = 4 * VALUE_BYTES;
        config.limits.answer_memory_bytes_max = 12 * VALUE_BYTES + 4096;
    });
    for (path, bytes) in [("/kv/large", VALUE_BYTES), ("/kv/small", 1000)] {
        let put = rig::send(&app, rig::request("PUT", path, vec![7; bytes])).await;
        assert_eq!(put.status(), 201);
    }
    let large = r#"{"success":[{"get":{"key":"large"}},{"put":{"key":"n","data":1}}]}"#;
    let small = r#"{"success":[{"get":{"key":"small"}},{"get":{"key":"none"}}]}"#;
    let unread = post(&app, large).await;
    assert_eq!(unread.status(), 200);
    let reading = app.answers.permit(11 * VALUE_BYTES).await;
    let refused = post(&app, large).await;
    assert_eq!(refused.status(), 503, "no memory for its reads, and nothing was done");
    drop(unread);
    let answered = rig::json(post(&app, small).await).await;
    assert_eq!(answered["results"][0]["get"]["size"], 1000);
    assert_eq!(answered["results"][1], serde_json::json!({ "get": null }));
    drop(reading);
    let all = app.answers.permit(12 * VALUE_BYTES).await;
    assert!(all.is_ok(), "all memory was returned");
    drop(all);
    assert_eq!(post(&app, large).await.status(), 200);
    // a transaction whose answer would be too large does nothing
    let get = r#"{"get":{"key":"large"}}"#;
    let put = r#"{"put":{"key":"never","data":1}}"#;
    let most = format!(r#"{{"success":[{put},{}]}}"#, [get; 4].join(","));
    assert_eq!(post(&app, &most).await.status(), 200);
    let more = format!(r#"{{"success":[{put},{}]}}"#, [get; 5].join(",")).replace("never", "more");
    let problem = post(&app, &more).await;
    assert_eq!(problem.status(), 413);
    assert_eq!(rig::json(problem).await["code"], "body_too_large");
    let none = rig::send(&app, rig::request("GET", "/kv/more", Body::empty())).await;
    assert_eq!(none.status(), 404);
}
