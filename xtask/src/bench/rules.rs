//! What rules cost that match nothing.

use anyhow::Result;

const HEAD: &str = "
Time per hit with 64 rules in force at the point, of which none matches, as above: by the kernel's own `run_time_ns /
run_cnt`, beside an empty program on the same load, which another process makes (400,000 `read(2)` of one byte; 4,000
direct reads of 4 KiB). One kind of filter at a time, with another value in each rule. A look-up serves all rules of a kind.
Over `tp` the file has to be found by its descriptor, which for `--device` and `--under` takes a dozen reads of the kernel's
memory, at some 20 ns each; `--under` then reads five times for each directory above it.

| point | rules | iolag (ns) | empty (ns) | net per hit (ns) | goal | |
| --- | --- | --- | --- | --- | --- | --- |
";

/// The page's part.
pub fn measure() -> Result<String> {
    let rows = super::bench(&["rules"], &[])?;
    Ok(format!(
        "{HEAD}{rows}\nMeasured on Linux {}, over `tp`.\n",
        super::kernel()?
    ))
}
