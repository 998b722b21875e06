//! The fuzz targets without a fuzzer: kept inputs, seeds, and thousands of changes of both.
//!
//! Runs on any compiler, in seconds. The changes are drawn from a seed, so that a failure repeats.
//! `KVS_FUZZ_TARGET=NAME KVS_FUZZ_INPUT=FILE cargo test --test fuzz one_input` runs one input;
//! `tests/long.sh fuzz` prints that command when it finds something.

mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use targets::{TARGETS, Target, target};

/// The longest input.
const INPUT_BYTES_MAX: usize = 4096;
/// Bytes at which much changes: ends of ranges, marks of the encodings.
const TELLING: [u8; 16] =
    [0, 1, 2, 0x7f, 0x80, 0xff, 251, 252, 253, b'"', b'{', b'[', b'/', b'%', b'\n', b'\\'];

/// The kept inputs of a target, by name.
fn kept(target: &Target) -> Vec<(String, Vec<u8>)> {
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs this");
    let dir = PathBuf::from(root).join("tests/fuzz/kept").join(target.name);
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    let read = |path: &PathBuf| (path.display().to_string(), fs::read(path).expect("readable"));
    files.iter().map(read).collect()
}

/// Prints the input when it panics.
struct Named<'a>(&'a Target, &'a str, &'a [u8]);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex = self.2.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
            eprintln!("target {}, {}: {hex}", self.0.name, self.1);
        }
    }
}

fn run(target: &Target, name: &str, input: &[u8]) {
    let named = Named(target, name, input);
    (target.run)(input);
    drop(named);
}

/// `input` with some bytes changed, inserted, removed, moved, or taken from `other`.
fn changed(rng: &mut StdRng, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..1 << rng.random_range(0..4) {
        let at = rng.random_range(0..=bytes.len());
        let end = rng.random_range(at..=bytes.len().min(at + 16));
        match rng.random_range(0..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = rng.random(),
            2 => bytes.insert(at, TELLING[rng.random_range(0..TELLING.len())]),
            3 if at < bytes.len() => bytes[at] = TELLING[rng.random_range(0..TELLING.len())],
            4 => drop(bytes.drain(at..end)),
            5 => {
                let piece = bytes[at..end].to_vec();
                let to = rng.random_range(0..=bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => {
                let from = rng.random_range(0..=other.len());
                let end = rng.random_range(from..=other.len().min(from + 32));
                bytes.splice(at..at, other[from..end].iter().copied());
            }
        }
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

/// Kept inputs and seeds as they are, then changes of them.
fn replay(name: &str) {
    let target = target(name);
    let mut inputs = kept(target);
    let seeds = (target.seeds)().into_iter().enumerate();
    inputs.extend(seeds.map(|(number, seed)| (format!("seed {number}"), seed)));
    inputs.push(("nothing".to_owned(), Vec::new()));
    for (name, input) in &inputs {
        run(target, name, input);
    }
    let mut rng = StdRng::seed_from_u64(1);
    for number in 0..target.changed {
        let mut draw = || &inputs[rng.random_range(0..inputs.len())].1;
        let (input, other) = (draw(), draw());
        let input = changed(&mut rng, input, other);
        run(target, &format!("change {number}"), &input);
    }
    // Random bytes.
    for number in 0..target.changed / 10 {
        let mut input = vec![0; rng.random_range(0..200)];
        rng.fill_bytes(&mut input);
        run(target, &format!("noise {number}"), &input);
    }
}

macro_rules! replays {
    ($($name:ident),*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_replayed_and_fuzzed() {
            let names = TARGETS.map(|target| target.name);
            assert_eq!(names, [$(stringify!($name)),*]);
            let manifest = include_str!("Cargo.toml");
            for name in names {
                assert!(manifest.contains(&format!("[[bin]]\nname = \"{name}\"")), "{name}");
            }
        }
    };
}

replays!(seal, gossip, frame, session, record, import, http, json);

/// The name and version of every package of a lock file.
fn packages(lock: &str) -> BTreeSet<(String, String)> {
    let field = |package: &str, name: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim_matches([' ', '=', '"']).to_owned()
    };
    let packages = lock.split("[[package]]").skip(1);
    packages.map(|package| (field(package, "name"), field(package, "version"))).collect()
}

#[test]
fn what_is_fuzzed_is_what_is_shipped() {
    let shipped = packages(include_str!("../../Cargo.lock"));
    let fuzzed = packages(include_str!("Cargo.lock"));
    assert!(shipped.len() > 100 && fuzzed.len() > 100);
    let known = |name: &str| ["kvs-fuzz", "libfuzzer-sys", "arbitrary"].contains(&name);
    let others: Vec<_> =
        fuzzed.difference(&shipped).filter(|(name, _)| !known(name.as_str())).collect();
    let advice = "copy Cargo.lock to tests/fuzz, then `cargo metadata` there adds what is missing";
    assert!(others.is_empty(), "other versions of {others:?}: {advice}");
}

#[test]
fn one_input() {
    let asked = (std::env::var("KVS_FUZZ_TARGET"), std::env::var("KVS_FUZZ_INPUT"));
    let (Ok(name), Ok(path)) = asked else { return };
    let input = fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    run(target(&name), &path, &input);
}
