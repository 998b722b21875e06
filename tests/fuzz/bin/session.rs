//! libFuzzer on the target `session`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: kvs_fuzz::write_seeds_if_asked("session"),
    |data: &[u8]| (kvs_fuzz::target("session").run)(data)
);
