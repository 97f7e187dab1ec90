//! What the measuring probes cost, against libbpf-tools.

use anyhow::Result;

use crate::{cache::Cache, setup};

const HEAD: &str = "
Time of iolag's programs and of those of libbpf-tools that answer the same question, by the kernel's own
`run_time_ns / run_cnt` (`BPF_ENABLE_STATS`), net of empty programs at the same tracepoints. All are attached at once
and see the same load: direct random reads of 4 KiB by fio, one after the other, for requests; two threads that wake
each other through pipes, and four that wait for timers, for switches; fio's reads and the four for interrupts. Who was
attached first runs first, and pays for what both find in no cache, so each is it for seven rounds; shown is the mean of
the two rounds with the median ratio. A cost per unit is the sum of one run at each of its tracepoints. `of it the clock`
is what programs cost that read the clock (`bpf_ktime_get_ns`) and do nothing else, once at each of these tracepoints: a
latency cannot be had for less, and the peers pay it too.

";

/// The page's part.
pub fn measure(cache: &Cache) -> Result<String> {
    let mut path = vec![setup::peers(cache)?];
    path.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    let variables = [
        ("PATH", std::env::join_paths(path)?.into()),
        ("IOLAG_FIO", cache.find("fio")?),
    ];
    let tables = super::bench(&["cost"], &variables)?;
    Ok(format!(
        "{HEAD}{tables}\nMeasured on Linux {} with {} CPUs.\n",
        super::kernel()?,
        std::thread::available_parallelism()?
    ))
}
