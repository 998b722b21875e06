//! libFuzzer on the target `json`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: kvs_fuzz::write_seeds_if_asked("json"),
    |data: &[u8]| (kvs_fuzz::target("json").run)(data)
);
