//! The fuzz targets: for each decoder of bytes from outside, a function that must not panic
//! whatever it is handed.
//!
//! libFuzzer calls them (`tests/long.sh fuzz`), and so does the test `fuzz`, with the kept inputs
//! and with changes of them. Each has more to say than "no panic": what is decoded comes back,
//! takes bounded memory, means the same to a second reader, leaves the state behind it sane.

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

/// One target.
pub struct Target {
    /// Its name, also that of its directory below `kept`.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Inputs that mean something, to begin with.
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

/// The target of this name.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn target(name: &str) -> &'static Target {
    let named = TARGETS.iter().find(|target| target.name == name);
    named.unwrap_or_else(|| panic!("there is no target {name}"))
}

/// Runs `future` on this thread, in virtual time: what waits for nothing else goes on at once.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let builder = &mut tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(future)
}
