//! The probe `fn` against the caller's own counts and the injector.

use anyhow::{Result, ensure};

use super::{
    Place,
    vfs::{
        calls::{Target, as_command},
        no_losses,
    },
};
use crate::{agent::Agent, dump::width, refusal::assert_refused};

const COMM: &str = "iolag-fn";

/// Two functions at once, each with its own counts, and with a delay injected the time that it takes longer.
///
/// # Errors
/// A count or a time is off.
pub fn functions_are_counted_and_timed(place: &Place<'_>, backend: &str) -> Result<()> {
    let agent = Agent::start(place.program, &["--backend", backend])?;
    for function in ["fn:vfs_read", "fn:vfs_write"] {
        let by = "function,comm";
        agent.call(&["probe", "load", function, "--by", by, "--backend", backend])?;
    }
    let target = Target::in_memory()?;
    as_command(COMM, || {
        target.times("read", 1_000)?;
        target.times("write", 700)
    })?;
    let of = |function: &str| -> Result<_> {
        let dump = agent.dump(&format!("fn:{function}"), &["--by", "function,comm"])?;
        let labels = [("comm", COMM), ("function", function)];
        no_losses(&dump)?;
        Ok(dump.sum(&labels, "latency"))
    };
    let (read, write) = (of("vfs_read")?, of("vfs_write")?);
    println!("{backend}: {} reads, {} writes", read.count, write.count);
    ensure!(read.count == 1_000, "{} reads of 1000", read.count);
    ensure!(write.count == 700, "{} writes of 700", write.count);

    agent.call(&["set", "5ms"])?;
    let done = as_command(COMM, || target.times("read", 40));
    agent.call(&["set", "0"])?;
    let theirs = crate::timing::median(done?);
    let slow = of("vfs_read")?.since(&read);
    let (low, high) = slow.quantile(0.5);
    println!(
        "{backend}: {} reads of 5 ms, median {low}..{high} ns",
        slow.count
    );
    ensure!(slow.count == 40, "{} slow reads of 40", slow.count);
    let slack = width(high) + 50_000;
    ensure!(
        high > 5_000_000 && low <= theirs + slack,
        "5 ms were injected, they take {low} to {high} ns, by the caller's clock {theirs}"
    );

    // Each is unloaded by itself.
    agent.call(&["probe", "unload", "fn:vfs_read"])?;
    let list = agent.call(&["probe", "list"])?;
    ensure!(
        !list.contains("fn:vfs_read") && list.contains("fn:vfs_write"),
        "{list}"
    );
    Ok(())
}

/// Functions that do not exist, or that the kernel does not let anybody trace, are refused with a reason.
///
/// # Errors
/// The program cannot be run.
///
/// # Panics
/// They are refused otherwise, or not at all.
pub fn functions_that_cannot_be_traced_are_refused(place: &Place<'_>) -> Result<()> {
    let agent = Agent::start(place.program, &[])?;
    let unknown = agent.output(&["probe", "load", "fn:vfs_reed"])?;
    assert_refused(&unknown, 2, &["unknown function", "vfs_read"]);
    // In `.noinstr.text`: neither ftrace nor kprobes may touch it.
    let refused = agent.output(&["probe", "load", "fn:exc_page_fault"])?;
    println!("{}", String::from_utf8_lossy(&refused.stderr).trim());
    assert_refused(
        &refused,
        3,
        &["exc_page_fault", "fentry", "kprobe", "does not let"],
    );
    // Nothing of it stays loaded.
    ensure!(
        !agent.call(&["probe", "list"])?.contains("exc_page_fault"),
        "a refused function is listed"
    );
    Ok(())
}
