//! Functions of the kernel by name.

use anyhow::Result;

use super::{Pair, Stage, calls, worker::Work};

/// By who calls them.
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
    pair.differ(stage, "fn:ext4_sync_file", &["--comm", "scope-yes"])
}
