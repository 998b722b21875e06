//! Parameters of scans, and scans against a store that changes under them.

use super::*;
use crate::http::tests::rig;
use crate::store::tests::racing::Racing;

fn parse(path: &str, query: &str) -> Result<ScanQuery, Error> {
    ScanQuery::parse(path, Some(query))
}

#[test]
fn parameters_are_checked() {
    let plain = parse("/scan", "").unwrap();
    assert!(plain.limit.is_none() && plain.after.is_none() && !plain.values && !plain.end);
    assert!(parse("/scan", "end=true").unwrap().end);
    let full = parse("/scan/a", "limit=1000&values=true&after=YS9i").unwrap();
    assert_eq!((full.limit, full.values), (Some(1000), true));
    assert_eq!(full.after.unwrap().as_str(), "a/b");
    assert_eq!(plain.form, ContentForm::Readable);
    assert_eq!(parse("/scan", "exact=true").unwrap().form, ContentForm::Exact);
    for bad in
        ["limit=0", "limit=1001", "limit=x", "limit=+1", "limit=", "values=1", "values", "end=1"]
    {
        assert!(matches!(parse("/scan", bad), Err(Error::BadRequest(_))), "{bad}");
    }
    for bad in ["exact", "exact=1", "exact=false"] {
        assert!(matches!(parse("/scan", bad), Err(Error::BadRequest(_))), "{bad}");
    }
    assert!(matches!(parse("/scan", "x=1"), Err(Error::UnknownField { .. })));
}

#[test]
fn a_cursor_is_a_key_below_the_prefix() {
    let key = Key::parse("a/ü").unwrap();
    let after = |cursor: &str| parse("/scan/a", &format!("after={cursor}")).map(|q| q.after);
    assert_eq!(after(&cursor(&key)).unwrap(), Some(key));
    let other = cursor(&Key::parse("b/c").unwrap());
    for bad in ["", "!", "YQ", "a/b", "YS9i=", "YS8v", &other] {
        assert!(matches!(after(bad), Err(Error::BadCursor)), "{bad}");
    }
}

#[test]
fn only_an_accept_that_names_ndjson_gets_lines() {
    let wants = |accept: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        wants_lines(&headers)
    };
    assert!(wants("application/x-ndjson"));
    assert!(wants("application/json;q=0.5, Application/X-NDJSON; q=1"));
    assert!(!wants("*/*") && !wants("application/json") && !wants("application/x-ndjson;q=0"));
    assert!(!wants_lines(&HeaderMap::new()));
}

/// Five values that are too large to be stored beside their headers.
async fn five(engine: &Arc<Racing>) -> Arc<App> {
    let app = rig::app(engine.clone(), |config| config.limits.body_bytes_max = 10_000);
    for n in 0..5 {
        let put = rig::request("PUT", &format!("/kv/p/{n}"), vec![n; 5000]);
        assert_eq!(rig::send(&app, put).await.status(), 201);
    }
    app
}

fn keys(listing: &serde_json::Value) -> Vec<String> {
    let items = listing["items"].as_array().unwrap().iter();
    items.map(|item| item["key"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_values_die_while_it_is_read_is_not_the_end() {
    let engine = Arc::new(Racing::default());
    let app = five(&engine).await;
    engine.remove_after_scan(&["p/1"]);
    let first = rig::request("GET", "/scan/p?values=true", Body::empty());
    let first = rig::json(rig::send(&app, first).await).await;
    assert_eq!(keys(&first), ["p/0"]);
    let next = first["next"].as_str().expect("there is more");
    engine.remove_after_scan(&["p/2", "p/3"]);
    let path = format!("/scan/p?values=true&after={next}");
    let rest = rig::json(rig::send(&app, rig::request("GET", &path, Body::empty())).await).await;
    assert_eq!(keys(&rest), ["p/4"], "an empty page is skipped");
    assert!(rest.get("next").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_after_a_step_whose_values_all_died() {
    let engine = Arc::new(Racing::default());
    let app = rig::app(engine.clone(), |_| ());
    for n in 0..4 {
        let put = rig::request("PUT", &format!("/kv/p/{n}"), vec![n; STEP_BYTES_MAX / 2]);
        assert_eq!(rig::send(&app, put).await.status(), 201);
    }
    engine.remove_after_scan(&["p/0", "p/1"]);
    let mut request = rig::request("GET", "/scan/p?values=true", Body::empty());
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static(NDJSON));
    let text = rig::body(rig::send(&app, request).await).await;
    let keys: Vec<_> = text
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice::<serde_json::Value>(line).unwrap()["key"].clone())
        .collect();
    assert_eq!(keys, ["p/2", "p/3"]);
}
