//! Client and setup commands against real nodes: effects, output and exit status.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::api::values::noise;
use crate::support::command::{Ended, binary, clean, finish, kvs, kvs_with, mode};
use crate::support::{Node, Site, client::text};

/// Runs a client command on `node`.
pub fn on(node: &Node, arguments: &[&str]) -> Ended {
    on_with(node, arguments, b"")
}

/// Runs a client command on `node` with `input` on standard input.
pub fn on_with(node: &Node, arguments: &[&str], input: &[u8]) -> Ended {
    let url = ["--url", node.url()];
    kvs_with(url.iter().chain(arguments), input)
}

/// Writes a file and creates its parent directories.
pub fn write(path: &Path, content: &[u8], mode: u32) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    fs::write(path, content).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
}

#[tokio::test]
async fn put_get_and_delete_handle_one_key() {
    let node = Site::alone().node("n1", &[]).await;
    let put = on(&node, &["-o", "json", "put", "a/b c", "hello"]).expect(0).json();
    assert_eq!((&put["key"], &put["scope"]), (&json!("a/b c"), &json!("local")));
    assert_eq!(on(&node, &["get", "a/b c"]).expect(0).out, b"hello");
    let envelope = on(&node, &["get", "a/b c", "-o", "json"]).expect(0).json();
    assert_eq!((&envelope["uuid"], &envelope["data_base64"]), (&put["uuid"], &json!("aGVsbG8=")));
    // from standard input, byte for byte
    let value = noise(100_000, 1);
    for from in [&["put", "bytes"][..], &["put", "bytes", "-"]] {
        on_with(&node, from, &value).expect(0);
        assert!(on(&node, &["get", "bytes"]).expect(0).out == value);
    }
    on_with(&node, &["put", "large", "-"], &noise(16 << 20, 1)).expect(0);
    on_with(&node, &["put", "large", "-"], &noise((16 << 20) + 1, 1)).failed(2, &["16 MiB"]);
    on(&node, &["put", "typed", "x", "--content-type", "text/plain"]).expect(0);
    let read = node.client.get("/kv/typed").await;
    assert_eq!(read.header("content-type"), Some("text/plain"));
    // conditions
    let uuid = text(&put["uuid"]);
    on(&node, &["put", "a/b c", "x", "--if-absent"]).failed(1, &["precondition_failed", &uuid]);
    on(&node, &["put", "a/b c", "two", "--if-uuid", &uuid]).expect(0);
    on(&node, &["put", "a/b c", "x", "--if-uuid", &uuid]).failed(1, &["precondition_failed"]);
    on(&node, &["del", "a/b c", "--if-uuid", &uuid]).failed(1, &["precondition_failed"]);
    let refused = on(&node, &["-o", "json", "put", "a/b c", "x", "--if-absent"]);
    let refused = refused.expect(1).json();
    assert_eq!(
        (&refused["code"], refused["current"]["key"].as_str()),
        (&json!("precondition_failed"), Some("a/b c"))
    );
    on(&node, &["del", "a/b c"]).expect(0);
    on(&node, &["del", "a/b c"]).failed(1, &["key_not_found"]);
    on(&node, &["get", "a/b c"]).failed(1, &["key_not_found"]);
    on(&node, &["put", "a/b c", "x", "--if-absent"]).expect(0);
    // refused before the client sends a request
    for bad in [&["get", "/a"][..], &["get", ""], &["put", "a//b", "x"], &["nonsense"], &["get"]] {
        let said = on(&node, bad).expect(2);
        assert!(!said.err.is_empty() && said.out.is_empty(), "{bad:?}");
    }
}

#[tokio::test]
async fn swaps() {
    let node = Site::alone().node("n1", &[]).await;
    let swap = |arguments: &[&str]| {
        let all = [&["-o", "json", "cas", "k"][..], arguments].concat();
        on(&node, &all)
    };
    let first = swap(&["one", "--expect-absent"]).expect(0).json();
    swap(&["x", "--expect-absent"]).expect(1);
    let (uuid, timestamp) = (text(&first["uuid"]), first["timestamp"].to_string());
    let second = swap(&["two", "--expect-uuid", &uuid]).expect(0).json();
    assert_eq!(second["previous"]["uuid"], first["uuid"]);
    let lost = swap(&["x", "--expect-uuid", &uuid]).expect(1).json();
    assert_eq!((&lost["swapped"], &lost["current"]["uuid"]), (&json!(false), &second["uuid"]));
    swap(&["x", "--expect-timestamp", &timestamp]).expect(1);
    let timestamp = second["timestamp"].to_string();
    swap(&["three", "--expect-timestamp", &timestamp]).expect(0);
    swap(&["x", "--expect-value", "two"]).expect(1);
    let fourth = swap(&["four", "--expect-value", "three"]).expect(0).json();
    let (uuid, timestamp) = (text(&fourth["uuid"]), fourth["timestamp"].to_string());
    let both = ["{\"n\": 5}", "--json", "--expect-uuid", &uuid, "--expect-timestamp", &timestamp];
    swap(&both).expect(0);
    let read = node.client.get("/kv/k").await;
    assert_eq!(
        (read.text().as_str(), read.header("content-type")),
        ("{\"n\": 5}", Some("application/json"))
    );
    on_with(&node, &["cas", "k", "-", "--expect-value", "{\"n\": 5}"], b"from stdin").expect(0);
    assert_eq!(node.client.get("/kv/k").await.text(), "from stdin");
    swap(&["--delete", "--expect-value", "from stdin"]).expect(0);
    node.client.get("/kv/k").await.refused(404, "key_not_found");
    swap(&["x"]).expect(2);
    swap(&["x", "--expect-absent", "--expect-uuid", &uuid]).expect(2);
    swap(&["not json", "--json", "--expect-absent"]).expect(2);
    swap(&["x", "--expect-uuid", "nonsense"]).expect(2);
}

#[tokio::test]
async fn a_directory_becomes_keys_and_an_export_is_the_same_from_every_node() {
    let cluster = Site::clustered().cluster(2).await;
    let (a, b) = (&cluster.nodes[0], &cluster.nodes[1]);
    let root = tempfile::tempdir().expect("a directory");
    let large = noise(3 << 20, 5);
    for (name, content, mode) in [
        ("app/name", &b"hello"[..], 0o644),
        ("app/empty", b"", 0o644),
        ("app/with space", b"x", 0o604),
        ("ünïcode/🦀", b"crab", 0o644),
        ("100%/+", b"signs", 0o644),
        ("large", &large, 0o644),
        ("private", b"secret", 0o600),
    ] {
        write(&root.path().join(name), content, mode);
    }
    symlink(root.path().join("app/name"), root.path().join("link")).expect("a link");
    symlink("/etc/passwd", root.path().join("out")).expect("a link");
    let dir = root.path().to_str().expect("text");
    let said = on(a, &["import", dir, "--prefix", "site/1"]).expect(0);
    assert!(said.text().contains("imported 7 records, 2 skipped"), "{}", said.text());
    assert!(said.err.contains("private") && said.err.contains("leads out"), "{}", said.err);
    assert_eq!(a.client.get("/kv/site/1/link").await.expect(200).text(), "hello");
    assert_eq!(a.client.get("/kv/site/1/app/name").await.expect(200).text(), "hello");
    a.client.get("/kv/site/1/private").await.refused(404, "key_not_found");
    assert!(a.client.get("/kv/site/1/large").await.body == large);
    cluster.converged().await;
    let exported = on(a, &["export"]).expect(0).out;
    assert!(exported == on(b, &["export"]).expect(0).out, "byte for byte");
    assert_eq!(exported.iter().filter(|b| **b == b'\n').count(), 7);
    let part = on(b, &["export", "site/1/app"]).expect(0).text();
    assert_eq!(part.lines().count(), 3);
    // once more, now with the private files
    let said = on(a, &["-o", "json", "import", dir, "--prefix", "site/1", "--private"]).expect(0);
    assert_eq!(said.json(), json!({ "imported": 8, "skipped": 1 }));
    assert_eq!(a.client.get("/kv/site/1/private").await.expect(200).text(), "secret");
    // the error names the file or line, and records stored before it stay
    on(a, &["import", "/nonexistent"]).failed(2, &["/nonexistent"]);
    let lines = b"{\"key\":\"n/1\",\"data\":1}\n{\"key\":\"/bad\",\"data\":1}\n";
    on_with(a, &["import", "-"], lines).failed(2, &["line 2", "1 record stored"]);
    assert_eq!(a.client.get("/kv/n/1").await.expect(200).text(), "1");
    let too_large = json!({ "key": "big", "data": "x".repeat(16 << 20) }).to_string();
    on_with(a, &["import", "-"], too_large.as_bytes()).failed(1, &["value_too_large", "big"]);
}

/// Values of every kind, and their content types.
fn awkward() -> Vec<(&'static str, Vec<u8>)> {
    let json = "application/json";
    vec![
        (json, b"{\n  \"a\": [1,\r\n 2.50],\n\t\"b\": \"\\n\"\n}".to_vec()),
        (json, b"{\"a\":1}\n".to_vec()),
        (json, b"  [ ]  ".to_vec()),
        (json, b"1e400".to_vec()),
        (json, b"18446744073709551617".to_vec()),
        (json, b"\"\\u0061\\ud83e\\udd80\"".to_vec()),
        (json, b"{\"a\":1,\"a\":2}".to_vec()),
        (json, b"{\"not\": json".to_vec()),
        (json, b"null".to_vec()),
        (json, b"".to_vec()),
        (json, format!("{}{}", "[".repeat(126), "]".repeat(126)).into_bytes()),
        (json, b"\xff\xfe".to_vec()),
        ("application/problem+json", b"{\"x\" :1}".to_vec()),
        ("text/plain; charset=utf-8", b"text\nlines\n".to_vec()),
        ("application/octet-stream", noise(70_000, 9).to_vec()),
        ("image/png", b"".to_vec()),
    ]
}

#[tokio::test]
async fn an_export_that_is_imported_again_has_the_same_bytes_and_types() {
    let site = Site::alone();
    let (from, to) = (site.node("n1", &[]).await, site.node("n2", &[]).await);
    let values = awkward();
    for (n, (content_type, value)) in values.iter().enumerate() {
        let headers = [("content-type", *content_type)];
        let path = format!("/kv/v/{n}");
        let put = from.client.send(reqwest::Method::PUT, &path, &headers, value.clone()).await;
        put.expect(201);
    }
    let exported = on(&from, &["export"]).expect(0).out;
    let file = site.file("export.ndjson");
    write(Path::new(&file), &exported, 0o600);
    for (arguments, input) in [(["import", "-"], &exported[..]), (["import", &file], b"")] {
        on_with(&to, &arguments, input).expect(0);
        for (n, (content_type, value)) in values.iter().enumerate() {
            let read = to.client.get(&format!("/kv/v/{n}")).await.expect(200);
            assert!(read.body == *value, "{n}: {:?}", read.text());
            assert_eq!(read.header("content-type"), Some(*content_type));
        }
    }
    // after a second import only the versions differ
    let content = |lines: &[u8]| -> Vec<Vec<Option<String>>> {
        let lines = String::from_utf8(lines.to_vec()).expect("text");
        let kept = ["key", "content_type", "size", "data", "data_base64"];
        let pick = |line: &str| {
            let line: BTreeMap<String, Box<RawValue>> = serde_json::from_str(line).expect("JSON");
            kept.iter().map(|name| line.get(*name).map(|raw| raw.get().to_owned())).collect()
        };
        lines.lines().map(pick).collect()
    };
    assert_eq!(content(&exported), content(&on(&to, &["export"]).expect(0).out));
}

#[tokio::test]
async fn listings_and_the_state_of_a_cluster() {
    let cluster = Site::clustered().cluster(2).await;
    let node = &cluster.nodes[0];
    let lines: String =
        (0..1200).map(|n| format!("{{\"key\":\"many/{n:04}\",\"data\":{n}}}\n")).collect();
    on_with(node, &["import", "-"], lines.as_bytes()).expect(0);
    // a listing of more than one page
    let listed = on(node, &["-o", "json", "scan", "many"]).expect(0).text();
    assert_eq!(listed.lines().count(), 1200);
    let keys: Vec<Value> =
        listed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&keys[0]["key"], &keys[1199]["key"]), (&json!("many/0000"), &json!("many/1199")));
    let some = on(node, &["scan", "many", "--limit", "3", "--values"]).expect(0);
    assert!(some.text().contains("many/0002") && !some.text().contains("many/0003"));
    assert!(some.err.contains("--limit"), "{}", some.err);
    on(node, &["scan", "none"]).expect(0);
    cluster.converged().await;
    let status = on(node, &["status"]).expect(0).text();
    for words in ["members          2: 2 alive", "keys             1200", "converged        yes"] {
        assert!(status.contains(words), "{words}: {status}");
    }
    assert_eq!(on(node, &["-o", "json", "status"]).expect(0).json()["keys"], json!(1200));
    let members = on(node, &["-o", "json", "members"]).expect(0).json();
    assert_eq!(members.as_array().map(Vec::len), Some(2));
    let members = on(node, &["members"]).expect(0).text();
    assert!(members.lines().all(|line| line.chars().count() <= 80), "{members}");
    assert!(members.contains("n1") && members.contains("n2") && members.contains("equal"));
    let sync = on(node, &["-o", "json", "sync"]).expect(0).json();
    assert_eq!(sync["peers"].as_array().map(Vec::len), Some(1));
    assert!(on(node, &["sync"]).expect(0).text().contains("done"));
}

#[tokio::test]
async fn exit_codes_distinguish_refused_from_unreachable() {
    let mut node = Site::alone().node("n1", &[]).await;
    on(&node, &["put", "a", "x"]).expect(0);
    on(&node, &["get", "b"]).failed(1, &["key_not_found"]);
    kvs(["--url", "nonsense", "get", "a"]).expect(2);
    // the environment names the node; the argument takes precedence
    let mut command = clean(binary());
    command.env("KVS_URL", node.url()).args(["get", "a"]);
    assert_eq!(finish(command, b"").expect(0).out, b"x");
    let mut command = clean(binary());
    command.env("KVS_URL", "http://127.0.0.1:1").args(["--url", node.url(), "get", "a"]);
    assert_eq!(finish(command, b"").expect(0).out, b"x");
    node.stop().await;
    for arguments in
        [&["get", "a"][..], &["put", "a", "x"], &["status"], &["sync"], &["export"], &["scan"]]
    {
        on(&node, arguments).failed(3, &["cannot reach", node.url(), "kvs serve"]);
    }
    let lines = b"{\"key\":\"a\",\"data\":1}\n";
    on_with(&node, &["import", "-"], lines).failed(3, &["0 records stored", "cannot reach"]);
}

#[test]
fn certificates_and_secrets_are_private_and_not_overwritten() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join("new").join(name);
    let at = path("").to_str().expect("text").to_owned();
    kvs(["cert", "node", "n1", "--dir", &at]).failed(2, &["kvs cert ca"]);
    kvs(["cert", "ca", "--dir", &at]).expect(0);
    kvs(["cert", "node", "n1", "--dir", &at, "--host", "10.0.0.1"]).expect(0);
    let secret = path("secret").to_str().expect("text").to_owned();
    kvs(["gossip-key", "new", "--file", &secret]).expect(0);
    for (name, private) in [
        ("ca.pem", false),
        ("ca-key.pem", true),
        ("n1.pem", false),
        ("n1-key.pem", true),
        ("secret", true),
    ] {
        let found = mode(&path(name));
        assert!(if private { found == 0o600 } else { found & 0o022 == 0 }, "{name}: {found:o}");
    }
    let read = |name: &str| fs::read(path(name)).expect("it is there");
    let all = ["ca.pem", "ca-key.pem", "n1.pem", "n1-key.pem", "secret"];
    let before = all.map(read);
    kvs(["cert", "ca", "--dir", &at]).failed(2, &["ca", "exists", "--force"]);
    kvs(["cert", "node", "n1", "--dir", &at]).failed(2, &["n1", "exists", "--force"]);
    kvs(["gossip-key", "new", "--file", &secret]).failed(2, &["secret", "exists", "--force"]);
    // a key whose certificate is missing is not overwritten
    fs::remove_file(path("n1.pem")).expect("removed");
    kvs(["cert", "node", "n1", "--dir", &at]).failed(2, &["n1-key.pem", "exists"]);
    assert!(!path("n1.pem").exists());
    fs::write(path("n1.pem"), &before[2]).expect("put back");
    assert_eq!(all.map(read), before);
    kvs(["cert", "node", "n1", "--dir", &at, "--force"]).expect(0);
    kvs(["gossip-key", "new", "--file", &secret, "--force"]).expect(0);
    assert_eq!(mode(&path("n1-key.pem")), 0o600);
    assert_eq!(mode(&path("secret")), 0o600);
    assert!(read("n1-key.pem") != before[3] && read("secret") != before[4]);
    let file = path("n1.pem").to_str().expect("text").to_owned();
    let shown = kvs(["-o", "json", "cert", "show", &file]).expect(0).json();
    assert_eq!((&shown["is_ca"], &shown["names"][0]), (&json!(false), &json!("n1")));
    kvs(["cert", "show", &secret]).failed(2, &["secret"]);
}

#[test]
fn configurations_are_printed_and_checked() {
    let printed = kvs(["config", "default"]).expect(0).text();
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("kvs.toml");
    let check = || kvs(["config", "check", file.to_str().expect("text")]);
    // the default is complete except for the files of a cluster
    fs::write(&file, &printed).expect("written");
    let said = check().expect(2).err;
    assert_eq!(said.lines().count(), 4, "all that is missing: {said}");
    for word in
        ["gossip.key_file", "peer.ca", "peer.cert", "peer.key", "clustering_enabled = false"]
    {
        assert!(said.contains(word), "{word}: {said}");
    }
    let alone = printed.replace("clustering_enabled = true", "clustering_enabled = false");
    fs::write(&file, alone).expect("written");
    assert!(check().expect(0).text().contains("ok"));
    fs::write(&file, "clustering_enabled = false\nhttp.lissten = \"x\"\n").expect("written");
    check().failed(2, &["http.lissten", "`http.listen`"]);
    // the environment overrides as it does for a node
    fs::write(&file, "clustering_enabled = false\n").expect("written");
    let mut command = clean(binary());
    command.env("KVS_HTTP__LISTEN", "nowhere").arg("config").arg("check").arg(&file);
    finish(command, b"").failed(2, &["listen"]);
    for asked in ["--help", "--version"] {
        assert!(kvs([asked]).expect(0).text().contains("kvs"));
    }
    kvs(Vec::<&str>::new()).expect(2);
}
