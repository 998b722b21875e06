//! The same web pages in a real browser: headless Chromium shows them, and tells what it saw.
//!
//! A small web server here serves a page under a name of its own. The page tries to read and to
//! write at a node, then reports to its server what came of it. Without Chromium the test is
//! skipped, and says so.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::{Site, command, ensure, eventually};

/// Starting a browser on a busy machine takes a while.
const BROWSER_WAIT: Duration = Duration::from_secs(120);

/// How many requests of the page reach the node: a read, the question before a write, two forms, a
/// beacon, and one of a frame without an origin.
const TRIES: u64 = 6;

/// What every page does: tries, and reports each result under its name.
const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>page</title><body><script>
const node = "NODE", seen = {};
async function attempt(name, work) {
  try { seen[name] = await work(); } catch (error) { seen[name] = "failed"; }
}
const shown = async (answer) => {
  const got = await answer;
  return { status: got.status, etag: got.headers.get("etag"), text: await got.text() };
};
const txn = '{"success":[{"delete":{"key":"kept"}}]}';
function form(place, target) {
  const made = document.createElement("form");
  made.method = "POST"; made.enctype = "text/plain"; made.action = place; made.target = target;
  const field = document.createElement("input");
  field.name = '{"success":[{"put":{"key":"form';
  field.value = '","data":1}}]}';
  made.append(field); document.body.append(made); made.submit();
}
function frame(attributes) {
  const made = document.createElement("iframe");
  Object.assign(made, attributes);
  const loaded = new Promise((done) => { made.onload = () => done("loaded"); });
  document.body.append(made);
  return loaded;
}
(async () => {
  await attempt("read", () => shown(fetch(node + "/scan/?values=true")));
  await attempt("write", () => shown(fetch(node + "/kv/WRITTEN", {
    method: "PUT", headers: { "if-none-match": "*" }, body: "from a page" })));
  await attempt("blind", async () => (await fetch(node + "/txn", {
    method: "POST", mode: "no-cors", headers: { "content-type": "text/plain" }, body: txn })).type);
  await attempt("beacon", async () => navigator.sendBeacon(node + "/txn",
    new Blob([txn], { type: "text/plain" })));
  await attempt("form", async () => {
    const loaded = frame({ name: "target" });
    form(node + "/txn", "target");
    return loaded;
  });
  await attempt("null_origin", () => frame({ sandbox: "allow-scripts",
    srcdoc: `<script>fetch("${node}/txn", { method: "POST", mode: "no-cors",
      body: ${JSON.stringify(txn)} })<\/script>` }));
  await fetch("/report", { method: "POST", body: JSON.stringify(seen) });
})();
</script>"#;

/// The Chromium of this machine.
fn chromium() -> Option<&'static str> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let runs = |name: &&str| {
        let run = Command::new(name).arg("--version").stderr(Stdio::null()).output();
        run.is_ok_and(|run| run.status.success())
    };
    names.into_iter().find(runs)
}

/// A browser that shows one page until it is dropped.
struct Browser {
    child: Child,
    _profile: TempDir,
}

/// A command that starts the browser: every name below `example` is this machine.
fn browser(program: &str, profile: &TempDir) -> Command {
    let mut command = command::clean(program);
    let dir = PathBuf::from(profile.path());
    command.env("HOME", &dir).arg(format!("--user-data-dir={}", dir.display()));
    command.args([
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--no-proxy-server",
        "--host-resolver-rules=MAP *.example 127.0.0.1",
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

impl Browser {
    fn show(program: &str, url: &str) -> Self {
        let profile = TempDir::new().expect("a directory");
        let mut command = browser(program, &profile);
        command.args(["--remote-debugging-port=0", url]);
        let child = command.spawn().expect("the browser starts");
        Self { child, _profile: profile }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // its other processes end with this one
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers one request of the browser; the body of a report, if it was one.
async fn serve_one(mut stream: TcpStream, page: &str) -> Option<Value> {
    let mut bytes = Vec::new();
    let (head, length) = loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let field = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            });
            break (head.to_owned(), field.unwrap_or(0_usize));
        }
    };
    while bytes.len() < head.len() + 4 + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\
         \r\n{page}",
        page.len()
    );
    stream.write_all(answer.as_bytes()).await.ok()?;
    let body = bytes.get(head.len() + 4..)?;
    head.starts_with("POST /report ").then(|| serde_json::from_slice(body).ok())?
}

/// Serves `page` until it reports.
async fn report(listener: &TcpListener, page: &str) -> Value {
    let serving = async {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            // a browser also opens connections on which it sends nothing
            let served = timeout(Duration::from_secs(2), serve_one(stream, page)).await;
            if let Ok(Some(report)) = served {
                return report;
            }
        }
    };
    timeout(BROWSER_WAIT, serving).await.expect("the page reports")
}

#[tokio::test]
async fn a_page_in_a_browser_does_nothing_unless_its_origin_is_named() {
    let Some(program) = chromium() else {
        println!("SKIPPED: web pages in a browser, as there is no Chromium (chromium --headless)");
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    let friend = format!("http://app.example:{port}");
    let site = Site::alone().set("http.origins", vec![friend.clone()]);
    let node = site.node("n1", &[]).await;
    node.client.put("/kv/kept", "secret").await.expect(201);
    let page = |key: &str| PAGE.replace("NODE", node.url()).replace("WRITTEN", key);

    // a stranger, by its name and by that of this machine
    for (number, stranger) in [(1, "evil.example"), (2, "127.0.0.1")] {
        let shown = Browser::show(program, &format!("http://{stranger}:{port}/"));
        let seen = report(&listener, &page("evil")).await;
        // some of what it tried may still be on its way
        eventually(BROWSER_WAIT, "all that the page tries is refused", async || {
            let refused = node.client.metric("kvs_http_requests_total", &[("status", "403")]).await;
            ensure(refused >= number * TRIES, || refused.to_string())
        })
        .await;
        drop(shown);
        for tried in ["read", "write"] {
            assert_eq!(seen[tried], "failed", "{stranger}: {seen}");
        }
        assert!(!seen.to_string().contains("secret"), "{seen}");
    }
    // a name of the stranger's that was turned towards this node while its page was open
    let profile = TempDir::new().expect("a directory");
    let url = format!("http://rebound.evil.example:{}/scan/?values=true", node.http.port());
    let dumped = dump(browser(program, &profile).args(["--dump-dom", &url])).await;
    assert!(dumped.contains("misdirected") && !dumped.contains("secret"), "{dumped}");

    assert_eq!(node.client.get("/kv/kept").await.expect(200).text(), "secret");
    let keys = node.client.cluster().await["keys"].clone();
    assert_eq!(keys, json!(1), "nothing was written, by no form and no beacon");

    // the same page of a named origin is at home
    let shown = Browser::show(program, &format!("{friend}/"));
    let seen = report(&listener, &page("friendly")).await;
    drop(shown);
    assert_eq!(seen["read"]["status"], 200, "{seen}");
    assert!(seen["read"]["text"].as_str().is_some_and(|text| text.contains("kept")), "{seen}");
    assert_eq!(seen["write"]["status"], 201, "{seen}");
    assert!(seen["write"]["etag"].as_str().is_some_and(|tag| tag.starts_with('"')), "{seen}");
    assert_eq!(node.client.get("/kv/friendly").await.expect(200).text(), "from a page");
}

/// What the browser shows of a page, as text.
async fn dump(command: &mut Command) -> String {
    command.stdout(Stdio::piped());
    let child = command.spawn().expect("the browser starts");
    let waited = tokio::task::spawn_blocking(move || child.wait_with_output());
    let output = timeout(BROWSER_WAIT, waited).await.expect("it ends").expect("it ran");
    String::from_utf8_lossy(&output.expect("its output").stdout).into_owned()
}
