//! A file for `--like`, `--from` or `--to`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _accepted = iolag::fuzz::profile(bytes);
});
