//! The delay probe on a stock kernel: each backend delivers what was asked, at each point, exactly as
//! often as the caller came by.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use iolag_tests::{
    agent::Agent,
    fio,
    timing::{median, opens, reads, writes},
};
use serde_json::Value;

use crate::guest;

const PROGRAM: &str = "/iolag";
const SPACING: Duration = Duration::from_micros(200);

pub fn fentry() -> Result<()> {
    delivers(
        "fentry",
        &[
            "vfs_read",
            "vfs_write",
            "do_sys_openat2",
            "blk_mq_start_request",
        ],
    )
}

pub fn kprobe() -> Result<()> {
    delivers(
        "kprobe",
        &[
            "vfs_read",
            "vfs_write",
            "do_sys_openat2",
            "blk_mq_start_request",
        ],
    )
}

pub fn tp() -> Result<()> {
    delivers(
        "tp",
        &["sys_enter", "sys_enter", "sys_enter", "block_rq_issue"],
    )
}

/// `auto` takes fentry here, which every kernel of the table allows.
pub fn auto() -> Result<()> {
    let agent = Agent::start(Path::new(PROGRAM), &[])?;
    for point in ["vfs.read", "vfs.write", "vfs.open", "block.issue"] {
        let point = agent.point(point)?;
        ensure!(
            point["backend"] == "fentry",
            "auto took {}",
            point["backend"]
        );
    }
    Ok(())
}

fn delivers(backend: &str, symbols: &[&str]) -> Result<()> {
    let agent = Agent::start(Path::new(PROGRAM), &["--backend", backend])?;
    let file = PathBuf::from("/tmp/delayed");
    fs::write(&file, [0; 4096])?;
    for (point, symbol) in ["vfs.read", "vfs.write", "vfs.open", "block.issue"]
        .iter()
        .zip(symbols)
    {
        let point = agent.point(point)?;
        ensure!(point["symbol"] == *symbol, "{point}");
        ensure!(point["backend"] == backend, "{point}");
    }
    counts_are_exact(&agent, &file)?;
    calls_take_longer(&agent, &file)?;
    requests_take_longer(&agent)?;
    agent.call(&["stop"])?;
    Ok(())
}

fn count(point: &Value, field: &str) -> Result<u64> {
    point[field]
        .as_u64()
        .with_context(|| format!("no {field} in {point}"))
}

/// `field` of `point` now, less what it was in `before`.
fn gained(agent: &Agent, before: &Value, field: &str) -> Result<u64> {
    let name = before["point"].as_str().context("no name")?;
    Ok(count(&agent.point(name)?, field)? - count(before, field)?)
}

/// Between two readings of the status, which themselves read, write and open a fixed number of times:
/// that number is measured first and has to stay the same.
fn counts_are_exact(agent: &Agent, file: &Path) -> Result<()> {
    let overhead = |point: &str| -> Result<u64> {
        let before = agent.point(point)?;
        gained(agent, &before, "hits")
    };
    let exact = |point: &str, calls: u64, work: &mut dyn FnMut() -> Result<()>| -> Result<()> {
        let overhead = overhead(point)?;
        let before = agent.point(point)?;
        work()?;
        let hits = gained(agent, &before, "hits")?;
        ensure!(
            hits == overhead + calls,
            "{point}: {hits} hits, of which {overhead} are the reading's, for {calls} calls"
        );
        Ok(())
    };
    let mut input = File::open(file)?;
    let mut output = File::options().write(true).open(file)?;
    exact("vfs.read", 23, &mut || {
        (0..23).try_for_each(|_| Ok(input.read_exact(&mut [0])?))
    })?;
    exact("vfs.write", 17, &mut || {
        (0..17).try_for_each(|_| Ok(output.write_all(b"x")?))
    })?;
    exact("vfs.open", 11, &mut || {
        (0..11).try_for_each(|_| File::open(file).map(drop).map_err(Into::into))
    })
}

/// Read, write and open, as the caller times them, against a baseline with the same spacing.
fn calls_take_longer(agent: &Agent, file: &Path) -> Result<()> {
    type Loop = fn(&Path, usize, Duration) -> Result<Vec<u64>>;
    let loops: [(&str, Loop); 3] = [
        ("vfs.read", reads),
        ("vfs.write", writes),
        ("vfs.open", opens),
    ];
    for (point, calls) in loops {
        for (delay, delay_ns, number) in [("1ms", 1_000_000u64, 200), ("10ms", 10_000_000, 30)] {
            let plain = median(calls(file, number, SPACING)?);
            let before = agent.point(point)?;
            agent.call(&["set", delay])?;
            let slow = median(calls(file, number, SPACING)?);
            agent.call(&["set", "0"])?;
            let raised = slow.saturating_sub(plain);
            println!("{point}: asked {delay}, median {plain} -> {slow} ns");
            // An emulated CPU has a slower and coarser clock than a real one.
            ensure!(
                raised >= delay_ns * 99 / 100,
                "{point}: {delay} raised the median by {raised} ns"
            );
            ensure!(
                raised <= delay_ns * 110 / 100,
                "{point}: {delay} raised the median by {raised} ns"
            );
            ensure!(
                gained(agent, &before, "delayed")? >= number as u64,
                "{point}: not all were delayed"
            );
            achieved_is_what_was_requested(agent, &before)?;
        }
    }
    Ok(())
}

/// fio's own latency of direct reads from the virtio disk.
fn requests_take_longer(agent: &Agent) -> Result<()> {
    let file = Path::new("/mnt/fio-file");
    let second = Duration::from_secs(1);
    let plain = fio::random_reads(guest::fio(), file, second)?.p50_ns;
    let before = agent.point("block.issue")?;
    agent.call(&["set-blk", "5ms"])?;
    let slow = fio::random_reads(guest::fio(), file, second)?;
    agent.call(&["set-blk", "0"])?;
    let raised = slow.p50_ns.saturating_sub(plain);
    println!(
        "block.issue: asked 5ms, fio's median {plain} -> {} ns",
        slow.p50_ns
    );
    ensure!(
        raised >= 4_750_000,
        "5 ms raised fio's median by {raised} ns"
    );
    ensure!(
        raised <= 6_000_000,
        "5 ms raised fio's median by {raised} ns"
    );
    ensure!(
        gained(agent, &before, "delayed")? >= slow.ios,
        "fewer requests delayed than fio read"
    );
    achieved_is_what_was_requested(agent, &before)
}

/// By sums never less than was asked; by the median error hardly more. (The mean is at the mercy of the
/// emulator, which may stop the machine's clock-watchers for as long as the host likes.)
fn achieved_is_what_was_requested(agent: &Agent, before: &Value) -> Result<()> {
    let requested = gained(agent, before, "requested_ns")?;
    let achieved = gained(agent, before, "achieved_ns")?;
    ensure!(
        achieved >= requested,
        "achieved {achieved} ns of {requested}"
    );
    ensure!(gained(agent, before, "short")? == 0, "waits were cut short");
    let name = before["point"].as_str().context("no name")?;
    let error = &agent.point(name)?["error_ns"];
    let p50 = count(error, "p50")?;
    ensure!(p50 <= 50_000, "{name}: the median error is {p50} ns");
    Ok(())
}
