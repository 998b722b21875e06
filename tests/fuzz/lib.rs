//! The fuzz targets for libFuzzer.

mod targets;

pub use targets::{TARGETS, Target, target};

/// Called as libFuzzer starts: with `KVS_FUZZ_SEEDS=DIR`, writes the seeds there and exits.
pub fn write_seeds_if_asked(name: &str) {
    let Some(dir) = std::env::var_os("KVS_FUZZ_SEEDS").map(std::path::PathBuf::from) else {
        return;
    };
    for (number, seed) in (target(name).seeds)().iter().enumerate() {
        std::fs::write(dir.join(format!("seed-{number}")), seed).expect("a writable directory");
    }
    std::process::exit(0);
}
