//! libFuzzer on the target `record`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: kvs_fuzz::write_seeds_if_asked("record"),
    |data: &[u8]| (kvs_fuzz::target("record").run)(data)
);
