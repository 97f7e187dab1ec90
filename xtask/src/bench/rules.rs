//! What rules cost that match nothing.

use anyhow::Result;

use crate::workspace;

const HEAD: &str = "
Time per hit with 64 rules in force at the point, of which none matches, as above: by the kernel's own `run_time_ns /
run_cnt`, beside an empty program on the same load, which another process makes (400,000 `read(2)` of one byte; 4,000
direct reads of 4 KiB). One kind of filter at a time, with another value in each rule. A look-up serves all rules of a kind.
Over `tp` the file has to be found by its descriptor, which for `--device` and `--under` takes a dozen reads of the kernel's
memory; `--under` then reads three times for each directory above it, of which there are DEPTH here. A read takes 2 or 3 ns where
the kernel allows it without a call (since 6.17), else some 20.

| point | rules | iolag (ns) | empty (ns) | net per hit (ns) | goal | |
| --- | --- | --- | --- | --- | --- | --- |
";

/// The page's part.
pub fn measure() -> Result<String> {
    // The bench's file lies beside its program.
    let directory = workspace::root().join("target/release/deps");
    let head = HEAD.replace("DEPTH", &directory.components().count().to_string());
    let rows = super::bench(&["rules"], &[])?;
    Ok(format!(
        "{head}{rows}\nMeasured on Linux {}, over `tp`.\n",
        super::kernel()?
    ))
}
