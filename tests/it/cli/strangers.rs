//! What stands between a client and a node, or in its place: success is told by the node alone.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;

use super::commands::{on, on_with, write};
use crate::support::command::{Ended, binary, clean, finish, kvs, kvs_with};
use crate::support::{Node, Site};

/// A proxy that speaks HTTP/1.0 to the node, as many do: the end of the node's connection is the
/// end of the answer, and it passes on at most `bytes_max` of it. Then it closes in order.
fn old_proxy(node: SocketAddr, bytes_max: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for client in listener.incoming() {
            // fails when the test has ended
            let Ok(client) = client else { return };
            std::thread::spawn(move || drop(pass_on(client, node, bytes_max)));
        }
    });
    url
}

fn pass_on(mut client: TcpStream, node: SocketAddr, bytes_max: u64) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head).replacen("HTTP/1.1", "HTTP/1.0", 1);
    let mut upstream = TcpStream::connect(node)?;
    upstream.write_all(head.as_bytes())?;
    std::io::copy(&mut upstream.take(bytes_max), &mut client)?;
    Ok(())
}

async fn filled() -> (Site, Node) {
    let site = Site::alone();
    let node = site.node("n1", &[]).await;
    let lines: String = (0..60).map(|n| format!("{{\"key\":\"k/{n}\",\"data\":{n}}}\n")).collect();
    on_with(&node, &["import", "-"], lines.as_bytes()).expect(0);
    (site, node)
}

#[tokio::test]
async fn an_export_through_a_proxy_that_hides_a_cut_is_an_error() {
    let (_site, node) = filled().await;
    let export = |bytes_max| kvs(["--url", &old_proxy(node.http, bytes_max), "export"]);
    let whole = export(u64::MAX).expect(0);
    assert_eq!(whole.text().lines().count(), 60);
    assert!(!whole.text().contains("\"end\""), "the end is for the client");
    for bytes_max in [2_000, 5_000, whole.out.len() as u64] {
        let cut = export(bytes_max);
        assert!(cut.text().lines().count() < 60);
        cut.failed(3, &["cut short after", "so the export is incomplete"]);
    }
    let cut = export(20);
    assert!(cut.out.is_empty());
    cut.expect(3);
}

/// A server that answers every request with 200 and a page.
fn login_page() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        let page = "<html><title>Please log in</title></html>";
        let length = page.len();
        for client in listener.incoming() {
            let Ok(mut client) = client else { return };
            let mut some = [0; 4096];
            // the answer does not depend on the request
            let _ = client.read(&mut some);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close";
            let _ = write!(client, "{head}\r\nContent-Length: {length}\r\n\r\n{page}");
        }
    });
    url
}

#[test]
fn no_command_takes_a_login_page_for_an_answer() {
    let url = login_page();
    let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    for line in [
        &["get", "k"][..],
        &["put", "k", "v"],
        &["del", "k"],
        &["cas", "k", "v", "--expect-absent"],
        &["history", "k"],
        &["history", "k", "--get", uuid],
        &["history", "k", "--restore", uuid],
        &["txn", "-"],
        &["scan"],
        &["status"],
        &["members"],
        &["sync"],
        &["import", "-"],
        &["export"],
    ] {
        let input = if line[0] == "txn" { "{}" } else { "{\"key\":\"a\",\"data\":1}" };
        for format in ["text", "json"] {
            let line = [&["--url", &url, "-o", format][..], line].concat();
            let said: Ended = kvs_with(line.iter(), input.as_bytes()).expect(3);
            assert!(said.out.is_empty(), "{line:?}: {said:?}");
            assert!(said.err.contains("this is no kvs node: "), "{line:?}: {}", said.err);
            assert!(!said.err.contains("Please log in"), "{}", said.err);
        }
    }
}

#[tokio::test]
async fn a_refusal_is_json_for_programs_and_shows_the_value_to_people() {
    let node = Site::alone().node("n1", &[]).await;
    on(&node, &["put", "k", "green"]).expect(0);
    let swap = ["cas", "k", "blue", "--expect-value", "red"];
    on(&node, &swap).failed(1, &["precondition_failed", "uuid=", "value: green"]);
    on(&node, &["put", "k", "x", "--if-absent"]).failed(1, &["value: green"]);
    let said = on(&node, &["-o", "json", "get", "none"]).expect(1);
    let error: serde_json::Value = serde_json::from_str(&said.err).expect(&said.err);
    assert_eq!(
        (&error["code"], &error["problem"]["status"]),
        (&"key_not_found".into(), &404.into())
    );
}

#[tokio::test]
async fn files_keep_their_types_and_a_volume_of_kubernetes_is_imported() {
    let node = Site::alone().node("n1", &[]).await;
    let root = tempfile::tempdir().expect("a directory");
    let hidden = root.path().join("..2026_11_27_09_00_00.123");
    write(&hidden.join("app.yaml"), b"a: 1\n", 0o644);
    write(&hidden.join("limits.json"), b"{\n  \"n\": 5\n}\n", 0o644);
    symlink(hidden.file_name().expect("a name"), root.path().join("..data")).expect("a link");
    for name in ["app.yaml", "limits.json"] {
        symlink(format!("..data/{name}"), root.path().join(name)).expect("a link");
    }
    let dir = root.path().to_str().expect("text");
    let rehearsed = on(&node, &["import", dir, "--dry-run"]).expect(0).text();
    assert!(rehearsed.contains("app.yaml  5 B  application/yaml"), "{rehearsed}");
    node.client.get("/kv/app.yaml").await.refused(404, "key_not_found");
    let said = on(&node, &["import", dir]).expect(0);
    assert_eq!(said.text(), "imported 2 records, 2 skipped\n");
    assert!(said.err.contains("..data: a name that begins with `..`"), "{}", said.err);
    let read = node.client.get("/kv/app.yaml").await.expect(200);
    assert_eq!(
        (read.text().as_str(), read.header("content-type")),
        ("a: 1\n", Some("application/yaml"))
    );
    // once more, only what is missing
    fs::write(hidden.join("app.yaml"), "a: 2\n").expect("written");
    on(&node, &["del", "limits.json"]).expect(0);
    let said = on(&node, &["import", dir, "--if-absent"]).expect(0).text();
    assert_eq!(said, "imported 1 record, 2 skipped, 1 left as they were\n");
    assert_eq!(node.client.get("/kv/app.yaml").await.expect(200).text(), "a: 1\n");
    // a file as a value; what is exported and imported again has the same bytes
    let file = format!("@{dir}/limits.json");
    on(&node, &["put", "copy", &file]).expect(0);
    let exported = on(&node, &["export"]).expect(0).out;
    on(&node, &["put", "copy", "gone"]).expect(0);
    on_with(&node, &["import", "-"], &exported).expect(0);
    let read = node.client.get("/kv/copy").await.expect(200);
    assert_eq!(read.text(), "{\n  \"n\": 5\n}\n");
    assert_eq!(read.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn the_ready_line_shows_where_it_listens_and_an_open_node_warns() {
    let site = Site::alone().set("http.listen", "0.0.0.0:0").set("http.insecure", true);
    let node = site.node("n1", &[]).await;
    assert!(node.http.ip().is_unspecified(), "{}", node.http);
    node.logs(&["WARN", "http.insecure", "everybody"]).await;
    let named = Site::alone().set("http.listen", "localhost:0").node("n1", &[]).await;
    assert!(named.http.ip().is_loopback());
    assert!(!named.log().contains("http.insecure"));
}

#[test]
fn a_local_cluster_takes_nothing_from_its_callers_environment() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().to_str().expect("text");
    // ports below those that the system hands out by itself
    let base = (12_000..19_000).step_by(8).find(|base| {
        TcpListener::bind(("127.0.0.1", *base)).is_ok()
            && (base + 1000..base + 1002)
                .all(|port| std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok())
    });
    let base = base.expect("free ports").to_string();
    let bin = binary();
    let mut up = clean("bash");
    up.arg("deploy/local.sh").args(["up", "--nodes", "1", "--dir", at, "--http-base", &base]);
    up.arg("--bin").arg(&bin);
    up.env("KVS_NODE__NAME", "elsewhere").env("KVS_HTTP__LISTEN", "127.0.0.1:1");
    up.env("KVS_URL", "http://127.0.0.1:1").env("KVS_READ_ONLY", "true");
    let said = finish(up, b"");
    let status = kvs(["--url", &format!("http://127.0.0.1:{base}"), "status"]);
    let mut wipe = clean("bash");
    wipe.arg("deploy/local.sh").args(["wipe", "--dir", at]).arg("--bin").arg(&bin);
    finish(wipe, b"").expect(0);
    said.expect(0);
    assert!(status.expect(0).text().contains("n1 "), "its own name");
}
