//! A command line, a word a line.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _accepted = iolag::fuzz::command_line(bytes);
});
