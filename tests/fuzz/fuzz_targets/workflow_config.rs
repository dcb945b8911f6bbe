#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entropy_fuzz::targets::workflow_config(bytes));
