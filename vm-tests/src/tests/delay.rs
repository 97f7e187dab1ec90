//! The delay probe on a stock kernel: each backend delivers what was asked, at each point, exactly as
//! often as the caller came by.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use iolag_tests::{agent::Agent, record::Interval};

use super::raised::{self, Raised, settled, timed};

const PROGRAM: &str = "/iolag";

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
    fs::write(raised::FILE, [0; 4096])?;
    for (point, symbol) in ["vfs.read", "vfs.write", "vfs.open", "block.issue"]
        .iter()
        .zip(symbols)
    {
        let point = agent.point(point)?;
        ensure!(point["symbol"] == *symbol, "{point}");
        ensure!(point["backend"] == backend, "{point}");
    }
    counts_are_exact(&agent, Path::new(raised::FILE))?;
    calls_take_longer(&agent)?;
    requests_take_longer(&agent)?;
    agent.call(&["stop"])?;
    Ok(())
}

/// Between two readings of the status, which themselves read, write and open: how often is measured first.
fn counts_are_exact(agent: &Agent, file: &Path) -> Result<()> {
    let hits = |point: &str, work: &mut dyn FnMut() -> Result<()>| -> Result<u64> {
        let before = agent.point(point)?;
        work()?;
        Interval::since(before, agent)?.gained("hits")
    };
    let exact = |point: &str, calls: u64, work: &mut dyn FnMut() -> Result<()>| -> Result<()> {
        // What a reading costs depends on how its pipe fills, and on a busy host that changes at times.
        settled(
            || Ok([hits(point, &mut || Ok(()))?, hits(point, work)?]),
            |[reading, all]| *all == reading + calls,
        )
        .with_context(|| format!("{point}: hits of a reading, and with {calls} calls"))
        .map(drop)
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

/// Delays (ms), calls, and by how much the median that the callers see may be off. An emulated CPU takes some
/// tens of us for what leads to the wait and back.
const DELAYS: [(u64, usize, f64); 3] = [(1, 100, 0.05), (10, 25, 0.02), (50, 9, 0.02)];
/// For fio, in one second.
const REQUEST_DELAY_MS: u64 = 50;

/// Read, write and open, as the caller times them.
fn calls_take_longer(agent: &Agent) -> Result<()> {
    for calls in raised::CALLS {
        for (delay_ms, number, bound) in DELAYS {
            timed(
                || raised::by_calls(agent, calls, delay_ms, number),
                |tried| tried.as_asked(bound),
            )
            .with_context(|| format!("{}: {delay_ms} ms", calls.0))?;
        }
    }
    Ok(())
}

/// fio's own latency of direct reads.
fn requests_take_longer(agent: &Agent) -> Result<()> {
    timed(
        || raised::by_fio(agent, REQUEST_DELAY_MS),
        |tried| tried.as_asked(0.05),
    )
    .context("block.issue")
    .map(drop)
}

/// fentry and kprobe deliver the same, by what the callers see: within 2 %, and 5 % by fio. Both are attached
/// at once and take turns.
pub fn same() -> Result<()> {
    fs::write(raised::FILE, [0; 4096])?;
    let start = |backend| Agent::start(Path::new(PROGRAM), &["--backend", backend]);
    let agents = [start("fentry")?, start("kprobe")?];
    for calls in raised::CALLS {
        alike(&agents, 0.02, |agent| {
            raised::by_calls(agent, calls, 20, 11)
        })
        .context(calls.0)?;
    }
    alike(&agents, 0.05, |agent| {
        raised::by_fio(agent, REQUEST_DELAY_MS)
    })
    .context("block.issue")
}

fn alike(
    agents: &[Agent; 2],
    bound: f64,
    measure: impl Fn(&Agent) -> Result<Raised>,
) -> Result<()> {
    timed(
        || Ok([measure(&agents[0])?, measure(&agents[1])?]),
        |[fentry, kprobe]| (fentry.seen_ns as f64 / kprobe.seen_ns as f64 - 1.0).abs() <= bound,
    )
    .map(drop)
}
