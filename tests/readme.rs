//! What README.md says is true of the binary: its tour, command by command against three nodes, and
//! the demonstration.
//!
//! Promises that nothing is skipped: without bash, curl or free ports it fails. The scripts do the
//! work and carry the deadlines; must not know what they check.

use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Stdio};

/// Below the ports that the system hands out by itself.
const FIRST_PORT: u16 = 20_000;
const BASES: u16 = 1000;
/// A cluster of three takes this many TCP ports and, 1,000 above, twice as many UDP ports.
const NODES: u16 = 3;

/// A base of free ports for `tests/readme.sh`. Runs side by side begin to look at different places;
/// `lane` keeps the two tests of one run apart.
fn free_base(lane: u16) -> u16 {
    let start = u16::try_from(std::process::id() % u32::from(BASES / 2)).unwrap();
    let bases = (0..BASES / 2).map(|at| FIRST_PORT + ((start + at) % (BASES / 2) * 2 + lane) * 6);
    let tcp_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let udp_free = |port| UdpSocket::bind(("127.0.0.1", port)).is_ok();
    let free = |base: &u16| {
        (*base..base + NODES).all(tcp_free) && (base + 1000..base + 1000 + 2 * NODES).all(udp_free)
    };
    bases.into_iter().find(free).expect("there are no free ports from 20000 to 27000")
}

fn run(part: &str, lane: u16) {
    let base = free_base(lane).to_string();
    // cargo runs tests in the root of the package, wherever that was when this was compiled
    let output = Command::new("bash")
        .args(["tests/readme.sh", "--bin", env!("CARGO_BIN_EXE_kvs"), part, "--http-base", &base])
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    let (printed, noted) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success(),
        "tests/readme.sh {part}: {}\n{printed}\n{noted}",
        output.status
    );
}

#[test]
fn the_tour_shows_what_the_readme_says() {
    run("--tour", 0);
}

#[test]
fn the_demonstration_shows_what_it_says() {
    run("--demo", 1);
}
