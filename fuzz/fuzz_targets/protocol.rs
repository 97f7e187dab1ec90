//! A line of the agent's socket.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _accepted = iolag::fuzz::protocol(bytes);
});
