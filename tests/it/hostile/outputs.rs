//! Outputs for people that nobody reads: stderr and stdout are full, or their reader is gone. The
//! node serves, obeys signals, and counts the lines that are lost.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use futures_util::StreamExt;

use crate::support::node::{Place, Surroundings};
use crate::support::{SOON, Site, ensure, eventually};

/// `open(2)`: do not wait.
const O_NONBLOCK: i32 = 0o4000;

/// A named pipe in `place`, and its reading end, through which nothing is read yet.
fn pipe(place: &Place) -> (PathBuf, File) {
    let path = place.dir.join("pipe");
    let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo runs");
    assert!(made.success());
    let reader = read_end(&path);
    (path, reader)
}

fn read_end(path: &Path) -> File {
    OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path).expect("it opens")
}

#[tokio::test]
async fn a_node_outlives_the_reader_of_its_log() {
    let mut place = Site::clustered().place("n1", &[]);
    let (path, reader) = pipe(&place);
    place.surround(Surroundings::shell(&format!("exec \"$@\" 2>{}", path.display())));
    let mut node = place.start().await;
    drop(reader);
    node.signal("HUP");
    let stray = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let gossip = node.gossip.expect("a cluster");
    stray.send_to(b"what is this", gossip).expect("it is sent");
    eventually(SOON, "lines are lost", async || {
        let lost = node.client.metric("kvs_log_lines_lost_total", &[]).await;
        ensure(lost >= 2, || format!("{lost} lost"))
    })
    .await;
    node.client.put("/kv/a", "x").await.expect(201);
    assert!(node.runs());
    // somebody reads again, and is told
    let mut reader = read_end(&path);
    let mut log = String::new();
    eventually(SOON, "the log says what was lost", async || {
        node.signal("HUP");
        let mut bytes = [0; 4096];
        let length = reader.read(&mut bytes).unwrap_or_default();
        log += &String::from_utf8_lossy(&bytes[..length]);
        ensure(log.contains("log lines were lost") && log.contains("SIGHUP"), || log.clone())
    })
    .await;
    assert!(log.find("were lost") < log.find("SIGHUP"), "{log}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_signals_pass_a_log_that_nobody_reads() {
    let mut place = Site::alone().place("n1", &[]);
    let (path, _reader) = pipe(&place);
    let mut surroundings = Surroundings::shell(&format!("exec \"$@\" 2>{}", path.display()));
    surroundings.environment.push(("KVS_LOG".to_owned(), "debug".to_owned()));
    place.surround(surroundings);
    let mut node = place.start().await;
    // a line of the log has the path
    let path = format!("/kv/{}", "a/".repeat(500) + "b");
    let gets = futures_util::stream::iter(0..6000).map(|_| node.client.get(&path));
    let refused = gets.buffer_unordered(16).filter(|answer| {
        let expected = answer.status == 404;
        async move { !expected }
    });
    assert_eq!(refused.count().await, 0);
    let lost = node.client.metric("kvs_log_lines_lost_total", &[]).await;
    assert!(lost > 0, "all lines found room in the queue");
    node.stop().await;
}

#[tokio::test]
async fn a_node_serves_though_nobody_reads_its_ready_line() {
    let mut place = Site::alone().place("n1", &[]);
    let (path, _reader) = pipe(&place);
    let full = OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(&path);
    let mut full = full.expect("it opens");
    while full.write(&[b'x'; 4096]).is_ok() {}
    let mut surroundings = Surroundings::shell(&format!("exec \"$@\" >{}", path.display()));
    surroundings.ready_in_log = true;
    place.surround(surroundings);
    let mut node = place.start().await;
    node.client.put("/kv/a", "x").await.expect(201);
    node.stop().await;
}

#[tokio::test]
async fn the_log_takes_the_usual_names_of_levels_and_refuses_others() {
    for (level, shown) in [("warning", false), ("Information", true), ("", true)] {
        let mut place = Site::alone().place("n1", &[]);
        let environment = vec![("KVS_LOG".to_owned(), level.to_owned())];
        place.surround(Surroundings { environment, ..Surroundings::default() });
        place.bear("not a level");
        let mut node = place.start().await;
        fs::set_permissions(
            node.place.data_dir(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .expect("it is ours");
        node.stop().await;
        let mut node = node.restart().await;
        node.logs(&["WARN"]).await;
        if shown {
            node.logs(&["ready http="]).await;
        } else {
            // the end of the process waits for the last lines
            node.stop().await;
            assert!(!node.log().contains("ready http="), "{level}: {}", node.log());
        }
    }
    let mut place = Site::alone().place("n1", &[]);
    let environment = vec![("KVS_LOG".to_owned(), "loud".to_owned())];
    place.surround(Surroundings { environment, ..Surroundings::default() });
    place.start_in_vain().failed(2, &["KVS_LOG", "`loud`", "warn"]);
    assert!(!place.data_dir().exists(), "nothing was made");
}
