//! Black-box tests of the `iolag` binary.
