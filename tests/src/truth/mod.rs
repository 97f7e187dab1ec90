//! The measuring probes against truths that iolag did not write. Each check is one function, run on this
//! host by `tests/tests/privileged/` and in QEMU by `vm-tests`.

pub mod block;
pub mod function;
pub mod vfs;
pub mod memory;
pub mod oom;
pub mod sched;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Where a check runs.
pub struct Place<'a> {
    /// The program under test.
    pub program: &'a Path,
    pub fio: fn() -> Command,
    /// A directory on a file system on a request-based disk.
    pub dir: PathBuf,
    /// The CPU is emulated: times are coarse, and everything takes longer.
    pub emulated: bool,
}
