//! Large values from many clients at once: the node stays within the memory that its configuration
//! documents, whatever they do.

use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::api::values::noise;
use crate::support::{Node, Site, raw, scale};

/// The sample configuration for 512 MiB, as the operators' page shows it.
fn sample() -> toml::Table {
    let page = include_str!("../../../deploy/README.md");
    let section = page.split("### A machine with 512 MiB").nth(1).expect("a section");
    let block = section.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    block.expect("the page shows a sample").parse().expect("it is TOML")
}

fn leaves(table: &toml::Table) -> impl Iterator<Item = (String, toml::Value)> {
    table.iter().flat_map(|(name, value)| {
        let keys = value.as_table().into_iter().flatten();
        keys.map(move |(key, value)| (format!("{name}.{key}"), value.clone()))
    })
}

const LARGEST: usize = 16 << 20;

/// Writes the largest values over and over, reads them, scans them, and leaves answers unread.
async fn crowd(node: &Node, rounds: usize) {
    let value = noise(LARGEST, 6);
    let numbers = futures_util::stream::iter(0..rounds);
    let work = numbers.map(|number| {
        let (client, value) = (&node.client, value.clone());
        async move {
            let path = format!("/kv/{}", number % 24);
            let put = client.put(&path, value).await.status;
            assert!([200, 201, 503].contains(&put), "{put}");
            let read = client.get(&path).await;
            assert!([200, 404, 503].contains(&read.status), "{}", read.status);
            let envelope = client.get(&format!("{path}?format=envelope")).await.status;
            assert!([200, 404, 503].contains(&envelope), "{envelope}");
        }
    });
    work.buffer_unordered(24).for_each(async |()| ()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_configured_for_512_mib_stays_within_them() {
    let mut place = Site::alone().place("n1", &[]);
    for (key, value) in leaves(&sample()) {
        place.set(&key, value);
    }
    let node = place.start().await;
    let mut unread = Vec::new();
    node.client.put("/kv/0", noise(LARGEST, 6)).await.expect(201);
    for _ in 0..8 {
        let mut stream = TcpStream::connect(node.http).await.expect("a connection");
        let request = raw::head("GET", "/kv/0", &[]);
        stream.write_all(request.as_bytes()).await.expect("the node takes it");
        unread.push(stream);
    }
    crowd(&node, 72 * scale()).await;
    drop(unread);
    crowd(&node, 24 * scale()).await;
    let peak = node.memory_peak();
    println!("{} MiB at most", peak >> 20);
    assert!(peak < 512 << 20, "{} MiB", peak >> 20);
    node.client.put("/kv/small", "x").await.expect(201);
}
