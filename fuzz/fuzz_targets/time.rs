#![no_main]
use reactor_fuzz::{models, targets};
libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::service::<models::Time>(data));
