//! What an attached point costs per hit.

use anyhow::Result;

use crate::{build, cache::Cache, vm};

const HEAD: &str = "
Time per hit with delay 0, by the kernel's own `run_time_ns / run_cnt` (`BPF_ENABLE_STATS`), of iolag's
program and of an empty program at the same hook. Both are attached at once and see the same load
(400,000 `read(2)` of one byte; 4,000 direct reads of 4 KiB). The program that was attached first runs
first, and pays for what both find in no cache, so each is it for nine rounds; shown is the mean of the two
rounds with the median difference. The kernel's own measuring is part of both columns and falls out of the
last. The program at `sys_enter` also runs for every other system call, and returns after comparing its number.

### On hardware

| point | hook | iolag (ns) | empty (ns) | iolag / empty | net per hit (ns) |
| --- | --- | --- | --- | --- | --- |
";

/// The figures are those of `-icount shift=0`: the guest's clock, by which its kernel measures, adds one ns for
/// each instruction.
const EMULATED: &str = "
### In instructions

The same in a virtual machine that allows all backends, with 10,000 calls and 1,500 requests a round. Its CPU
is emulated, and its clock is the number of instructions executed so far (QEMU's `-icount shift=0`). So these
are instructions and not ns: exact and repeatable, but blind to what a miss of a cache or of a branch costs.

| point | hook | iolag (instructions) | empty (instructions) | iolag / empty | net per hit (instructions) |
| --- | --- | --- | --- | --- | --- |
";

/// The page's part.
pub fn measure(cache: &Cache) -> Result<String> {
    let rows = super::bench(&[], &[])?;
    let kernel = super::kernel()?;
    let (emulated, emulated_kernel) = vm::measure(cache, &build::build()?, &build::bench()?)?;
    Ok(format!(
        "{HEAD}{rows}\nMeasured on Linux {kernel}, with the backend that every host allows.\n\
         {EMULATED}{emulated}\nMeasured on Debian's Linux {emulated_kernel}.\n"
    ))
}
