//! libFuzzer on the target `http`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: kvs_fuzz::write_seeds_if_asked("http"),
    |data: &[u8]| (kvs_fuzz::target("http").run)(data)
);
