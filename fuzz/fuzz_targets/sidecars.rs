#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| clusdb_fuzz::targets::sidecars(data));
