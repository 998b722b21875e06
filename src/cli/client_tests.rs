//! Paths, URLs, refusals, and nodes that are unreachable or answer oddly.

use super::*;
use crate::cli::canned::{Canned, NODE, answer, open, run, stranger};
use crate::cli::output::Format;

fn key(text: &str) -> String {
    key_path("kv", &Key::parse(text).unwrap())
}

#[test]
fn keys_are_encoded_segment_by_segment() {
    for (text, path) in [
        ("app/name", "/kv/app/name"),
        ("a b/c", "/kv/a%20b/c"),
        ("ü/日本", "/kv/%C3%BC/%E6%97%A5%E6%9C%AC"),
        ("100%", "/kv/100%25"),
        ("%2F", "/kv/%252F"),
        ("a?b#c+d", "/kv/a%3Fb%23c%2Bd"),
        ("a&b=c;d", "/kv/a%26b%3Dc%3Bd"),
        ("a\\b\t\n", "/kv/a%5Cb%09%0A"),
        (".../-._~", "/kv/.../-._~"),
        ("%2e%2e", "/kv/%252e%252e"),
    ] {
        assert_eq!(key(text), path, "{text}");
    }
    assert_eq!(prefix_path("scan", &Prefix::parse("a b/").unwrap()), "/scan/a%20b");
    assert_eq!(prefix_path("scan", &Prefix::all()), "/scan/");
}

#[test]
fn an_encoded_key_reaches_the_wire_unchanged() {
    let node = Canned::new(|_| answer("200 OK", "", ""));
    let text = "a b/%2e%2e/..%/\\//?#+ü\t".replace("//", "/");
    let (_, ended) = run(Format::Text, async |_| {
        let client = node.client();
        client.send(client.request(Method::GET, &key(&text))).await.map(|_| ())
    });
    assert!(ended.is_ok(), "{ended:?}");
    let request = &node.requests()[0];
    let path = request.line.strip_prefix("GET /kv/").unwrap();
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8().unwrap();
    assert_eq!(decoded, text);
}

#[test]
fn urls_are_checked_before_anything_is_sent() {
    assert_eq!(check_url("http://h:1/").unwrap(), "http://h:1");
    assert_eq!(check_url("http://[::1]:1/base/").unwrap(), "http://[::1]:1/base");
    assert_eq!(check_url("").unwrap(), DEFAULT_URL);
    for bad in
        ["h:1", "127.0.0.1:1", "https://h", "ftp://h", "http://", "http://h/?q", "http://h#f"]
    {
        let error = check_url(bad).expect_err(bad);
        assert!(error.exit_code() == 2 && error.to_string().contains(DEFAULT_URL), "{error}");
    }
}

#[test]
fn an_unreachable_node_gives_status_3_and_its_url() {
    // the listener is dropped at once, so nobody listens on its port
    let url = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let client = open(&url);
    let (_, ended) = run(Format::Text, async |_| {
        client.send(client.request(Method::GET, "/cluster")).await.map(|_| ())
    });
    let error = ended.expect_err("nobody listens");
    let text = error.to_string();
    assert_eq!(error.exit_code(), 3);
    assert!(text.contains(&url) && text.contains("refused") && text.contains("KVS_URL"), "{text}");
    assert!(matches!(error, CliError::Unreachable { connected: false, .. }));
}

#[test]
fn every_form_of_refusal_is_read() {
    let read = |status, body: &str| {
        read_refusal(status, Some(Duration::from_secs(1)), body.as_bytes().to_vec())
    };
    let problem = read(503, r#"{"title":"Busy","code":"syncing","detail":"not yet","status":503}"#);
    assert_eq!(problem.to_string(), "syncing: not yet; try again in 1 s");
    let current = |body| read(412, body).current;
    let version = r#"{"code":"precondition_failed","current":{"uuid":"u","timestamp":7,"data":1}}"#;
    let value = Some("1".to_owned());
    assert_eq!(current(version), Current::Version { uuid: "u".to_owned(), timestamp: 7, value });
    assert_eq!(current(r#"{"code":"precondition_failed","current":null}"#), Current::None);
    assert_eq!(current(r#"{"code":"precondition_failed"}"#), Current::Unknown);
    let text = "x".repeat(5000);
    assert!(read(502, &text).to_string().len() < 300);
    for no_reason in ["", "<html><title>Bad gateway</title>"] {
        assert!(read(404, no_reason).detail.contains("is this a kvs node?"));
    }
}

#[test]
fn a_redirect_is_not_followed() {
    let node = Canned::new(|_| stranger("307 Temporary Redirect", "Location: /other\r\n", ""));
    let (_, ended) = run(Format::Text, async |_| {
        let client = node.client();
        client.send(client.request(Method::PUT, "/kv/a")).await.map(|_| ())
    });
    let error = ended.expect_err("a redirect");
    assert!(error.to_string().contains("a redirect to /other") && error.exit_code() == 3);
    assert_eq!(node.requests().len(), 1);
}

#[test]
fn a_refusal_is_understood_with_any_current_value() {
    for data in [r#"{"$serde_json::private::Number":"x"}"#, "1E400", r#"{"a":[null]}"#] {
        let current = format!(r#"{{"uuid":"u","timestamp":5,"data":{data}}}"#);
        let body = format!(r#"{{"code":"precondition_failed","current":{current}}}"#);
        let refusal = read_refusal(412, None, body.into_bytes());
        assert_eq!(refusal.code.as_deref(), Some("precondition_failed"), "{data}");
        assert!(matches!(refusal.current, Current::Version { timestamp: 5, .. }), "{data}");
    }
}

#[test]
fn whoever_is_no_node_is_named_as_such_and_not_quoted() {
    let long = format!("<html>{}</html>", "secret page ".repeat(1000));
    for (status, headers, words) in [
        ("200 OK", "Content-Type: text/html; charset=utf-8\r\n", "200 OK with a page in HTML"),
        ("200 OK", "Content-Type: application/json\r\n", "200 OK with application/json"),
        ("200 OK", "Kvs-Node: nonsense\r\n", "200 OK"),
        ("502 Bad Gateway", "Content-Type: text/html\r\n", "502 Bad Gateway with a page"),
        ("404 Not Found", "", "404 Not Found"),
        ("401 Unauthorized", "Content-Type: text/plain\r\n", "401 Unauthorized with text/plain"),
    ] {
        let long = long.clone();
        let server = Canned::new(move |_| stranger(status, headers, &long));
        let client = server.client();
        let (_, ended) = run(Format::Text, async |_| {
            client.send(client.request(Method::GET, "/cluster")).await.map(|_| ())
        });
        let error = ended.expect_err(status);
        let text = error.to_string();
        assert!(text.starts_with("this is no kvs node: ") && text.contains(words), "{text}");
        assert!(!text.contains("secret page") && text.len() < 300, "{text}");
        assert_eq!((error.exit_code(), error.code()), (3, "no_kvs_node"));
    }
}

#[test]
fn a_value_whose_end_is_not_announced_is_no_value() {
    // as from a proxy that speaks HTTP/1.0, where a cut body looks like a whole one
    let node = Canned::new(|_| format!("HTTP/1.0 200 OK\r\n{NODE}\r\nhalf").into_bytes());
    let client = node.client();
    let (text, ended) = run(Format::Text, async |out| {
        let response = client.send(client.request(Method::GET, "/kv/a")).await?;
        client.copy(response, out).await
    });
    let error = ended.expect_err("perhaps cut");
    assert_eq!((text.as_str(), error.exit_code()), ("", 3));
    assert!(error.to_string().contains("HTTP/1.0"), "{error}");
    let (_, ended) = run(Format::Text, async |_| {
        let response = client.send(client.request(Method::GET, "/kv/a")).await?;
        client.value(response).await.map(|_| ())
    });
    assert!(ended.is_err());
}
