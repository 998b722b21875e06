//! libFuzzer on the target `import`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: kvs_fuzz::write_seeds_if_asked("import"),
    |data: &[u8]| (kvs_fuzz::target("import").run)(data)
);
