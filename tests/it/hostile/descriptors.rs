//! Few file descriptors: strangers use up theirs, and data and writes keep those that they need.

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::support::node::Surroundings;
use crate::support::{Client, Node, SOON, Site, ensure, eventually, scale};

/// A node whose process may open `limit` files.
async fn node(limit: usize) -> Node {
    let mut place = Site::alone().place("n1", &[]);
    place.surround(Surroundings::shell(&format!("ulimit -n {limit}; exec \"$@\"")));
    place.start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_idle_connections_takes_no_descriptor_from_writes() {
    let (limit, crowd) = if scale() > 1 { (1024, 1100) } else { (160, 200) };
    let node = node(limit).await;
    node.logs(&["WARN", "limits.connections_max", &format!("may open {limit} files")]).await;
    let value = Bytes::from(vec![7; 256 << 10]);
    let (mut idle, connected) = (tokio::task::JoinSet::new(), Arc::new(Semaphore::new(0)));
    for _ in 0..crowd {
        let (to, connected) = (node.http, connected.clone());
        idle.spawn(async move {
            let _stream = TcpStream::connect(to).await.expect("a connection");
            connected.add_permits(1);
            std::future::pending::<()>().await;
        });
    }
    // Nobody comes later, whose connection would take the place of the one that puts.
    let all = connected.acquire_many(crowd);
    tokio::time::timeout(SOON, all).await.expect("all connect").expect("open").forget();
    eventually(SOON, "the crowd has all that is left", async || {
        let sockets = node.open_files(|path| path.starts_with("socket:"));
        ensure(sockets >= limit / 8, || format!("{sockets} sockets"))
    })
    .await;
    // That of the node's own client may have made room for the crowd; and the first request of this
    // one waits until all that came before are accepted.
    let client = Client::new(node.http);
    // enough for several files
    for number in 0..200 {
        let answer = client.put(&format!("/kv/{number}"), value.clone()).await;
        assert_eq!(answer.status, 201, "{number}: {}", answer.text());
    }
    let log = node.log();
    assert!(!log.contains("Too many open files") && !log.contains("cannot accept"), "{log}");
    drop(idle);
    for number in 0..200 {
        let answer = client.get(&format!("/kv/{number}")).await;
        assert_eq!(answer.status, 200, "{number}: {}", answer.text());
    }
    eventually(SOON, "the crowd is gone", async || {
        let open = client.metric("kvs_http_connections", &[]).await;
        ensure(open < 10, || format!("{open} connections"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_few_descriptors_serves_many_data_files() {
    let (limit, large, small) = if scale() > 1 { (256, 300, 1_000_000) } else { (144, 30, 2000) };
    let open_max = if scale() > 1 { 80 } else { 40 };
    let node = node(limit).await;
    let noise = crate::api::values::noise(16 << 20, 9);
    for number in 0..large {
        let mut value = noise.to_vec();
        value[0] = u8::try_from(number % 256).expect("small");
        node.client.put(&format!("/kv/large/{number}"), value).await.expect(201);
    }
    for from in (0..small).step_by(500) {
        let put =
            |number| serde_json::json!({"put": {"key": format!("small/{number}"), "data": number}});
        let puts: Vec<_> = (from..from + 500).map(put).collect();
        let txn = serde_json::json!({"compare": [], "success": puts, "failure": []});
        node.client.post_json("/txn", &txn).await.expect(200);
    }
    let files = fs::read_dir(node.place.data_dir().join("db")).expect("a directory").count();
    // several values may share a file
    assert!(files > large.min(open_max), "{files} files");
    let node = node.kill_and_restart().await;
    for number in 0..large {
        let answer = node.client.get(&format!("/kv/large/{number}")).await.expect(200);
        assert!(answer.body.len() == 16 << 20 && usize::from(answer.body[0]) == number % 256);
        let open = node.open_files(|path| path.ends_with(".sst") || path.ends_with(".blob"));
        assert!(open <= open_max, "{open} data files are open");
    }
    for number in (0..small).step_by(97) {
        let answer = node.client.get(&format!("/kv/small/{number}")).await.expect(200);
        assert_eq!(answer.text(), number.to_string());
    }
    node.client.put("/kv/last", "x").await.expect(201);
    assert!(!node.log().contains("Too many open files"), "{}", node.log());
}

#[tokio::test]
async fn a_limit_that_is_too_low_for_any_node_is_refused_with_the_cure() {
    let mut place = Site::alone().place("n1", &[]);
    place.surround(Surroundings::shell("ulimit -n 80; exec \"$@\""));
    place.start_in_vain().failed(2, &["open 80 files", "needs 144", "ulimit -n"]);
    assert!(!place.data_dir().exists(), "nothing was made");
}

#[tokio::test]
async fn a_soft_limit_is_raised_to_the_hard_one() {
    let mut place = Site::alone().place("n1", &[]);
    place.surround(Surroundings::shell("ulimit -Sn 64; exec \"$@\""));
    let node = place.start().await;
    node.client.put("/kv/a", "x").await.expect(201);
}
