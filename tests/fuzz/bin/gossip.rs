//! libFuzzer on the target `gossip`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: kvs_fuzz::write_seeds_if_asked("gossip"),
    |data: &[u8]| (kvs_fuzz::target("gossip").run)(data)
);
