#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| reactor_fuzz::targets::config(data));
