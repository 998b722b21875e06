//! The fuzz targets: for each decoder of bytes from outside, a function that must not panic for any
//! bytes.
//!
//! libFuzzer calls them (`tests/long.sh fuzz`), and so does the test `fuzz`, with the kept inputs
//! and changes of them. Each target checks more than "no panic": decoded values encode back, take
//! bounded memory, mean the same to a second reader, and leave the state behind them sane.

mod frame;
mod gossip;
mod http;
mod import;
mod json;
mod memory;
mod record;
mod script;
mod seal;
mod session;

/// A fuzz target.
pub struct Target {
    /// The name of the target and of its directory below `kept`.
    pub name: &'static str,
    /// Runs the target on any bytes.
    pub run: fn(&[u8]),
    /// Meaningful inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many changed inputs the test tries.
    pub changed: usize,
}

/// All targets.
pub const TARGETS: [Target; 8] = [
    Target { name: "seal", run: seal::run, seeds: seal::seeds, changed: 20_000 },
    Target { name: "gossip", run: gossip::run, seeds: gossip::seeds, changed: 500 },
    Target { name: "frame", run: frame::run, seeds: frame::seeds, changed: 3_000 },
    Target { name: "session", run: session::run, seeds: session::seeds, changed: 1_000 },
    Target { name: "record", run: record::run, seeds: record::seeds, changed: 50_000 },
    Target { name: "import", run: import::run, seeds: import::seeds, changed: 50_000 },
    Target { name: "http", run: http::run, seeds: http::seeds, changed: 3_000 },
    Target { name: "json", run: json::run, seeds: json::seeds, changed: 50_000 },
];

/// The target with this name.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn target(name: &str) -> &'static Target {
    let named = TARGETS.iter().find(|target| target.name == name);
    named.unwrap_or_else(|| panic!("there is no target {name}"))
}

/// Runs `future` on this thread in virtual time, which passes at once when all tasks wait for it.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let builder = &mut tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(future)
}
