//! libFuzzer on the target `seal`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: kvs_fuzz::write_seeds_if_asked("seal"),
    |data: &[u8]| (kvs_fuzz::target("seal").run)(data)
);
