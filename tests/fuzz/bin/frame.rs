//! libFuzzer on the target `frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: kvs_fuzz::write_seeds_if_asked("frame"),
    |data: &[u8]| (kvs_fuzz::target("frame").run)(data)
);
