//! Functions of the kernel by name.

use anyhow::{Context as _, Result, ensure};

use super::{CALLS, Pair, Stage, calls, worker::Work};

/// By who calls them; and in an interrupt nobody is delayed.
pub fn functions(stage: &Stage) -> Result<()> {
    if stage.backend != "kprobe" {
        println!("skipped: fn: only kprobes are at functions by name");
        return Ok(());
    }
    let files = [
        stage.file(&stage.disk, "fn-1")?,
        stage.file(&stage.disk, "fn-2")?,
    ];
    let work = |place: usize, name| -> Result<Work> {
        Ok(Work::new(calls::sync(&files[place])?).set_up(move |_| calls::take_name(name)))
    };
    let mut pair = Pair::start(work(0, c"scope-yes")?, work(1, c"scope-no")?)?;
    pair.differ(stage, "fn:ext4_sync_file", &["--comm", "scope-yes"])?;
    drop(pair);
    in_interrupts(stage).context("in interrupts")
}

/// The disk's driver calls it for each request that is done, in its interrupt.
fn in_interrupts(stage: &Stage) -> Result<()> {
    let file = stage.file(&stage.disk, "fn-3")?;
    let mut worker = Work::new(calls::read_direct(&file, &[4096])?).start()?;
    let rule = stage.rule("fn:blk_mq_complete_request", &[])?;
    worker.begin(CALLS);
    worker.finish()?;
    let counts = rule.counts()?;
    let of = |name: &str| counts[name].as_u64().context("no count");
    ensure!(
        of("matches")? >= CALLS as u64 && of("exempt")? == of("matches")?,
        "{counts}"
    );
    Ok(())
}
