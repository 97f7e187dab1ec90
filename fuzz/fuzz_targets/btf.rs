//! The kernel's types.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _accepted = iolag::kernel::btf::exercise(bytes);
});
