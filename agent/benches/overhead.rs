//! What an attached point with delay 0 costs per hit, against an empty program at the same hook:
//! both attached at once, on the same load, by the kernel's own `run_time_ns / run_cnt`.
//!
//! Prints rows of a Markdown table; `cargo xtask bench` puts them into docs/overhead.md. Needs root.
//! Arguments are backends (without any: `tp`) and, for an emulated machine, `--light`.

use std::{
    fs::File,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use agent_common::catalogue::{Backend, slot_of};
use anyhow::{Context as _, Result, ensure};
use iolag::{
    host::Facts,
    kernel::{DelayProbe, EmptyProbe, ProgStats, measure_programs},
    plan,
};

const ROUNDS: usize = 9;
/// A directory on a disk, where the one of this program is not on any.
const DIRECTORY: &str = "IOLAG_BENCH_DIR";

/// How much is done in a round.
struct Load {
    reads: usize,
    requests: u64,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let load = if arguments.iter().any(|argument| argument == "--light") {
        Load {
            reads: 10_000,
            requests: 1_500,
        }
    } else {
        Load {
            reads: 400_000,
            requests: 4_000,
        }
    };
    // cargo bench adds an option of its own.
    let mut backends: Vec<_> = arguments
        .iter()
        .filter(|argument| !argument.starts_with("--"))
        .map(|name| plan::parse_choice(name))
        .collect::<Result<_, _>>()?;
    if backends.is_empty() {
        backends.push(Some(Backend::Tp));
    }
    let _statistics = measure_programs()?;
    for choice in backends {
        measure(choice, &load)?;
    }
    Ok(())
}

/// Prints the rows of one backend.
fn measure(choice: plan::Choice, load: &Load) -> Result<()> {
    let facts = Facts::read(Path::new("/"));
    for (name, run) in [
        ("vfs.read", reads as fn(&Load) -> Result<()>),
        ("block.issue", requests as fn(&Load) -> Result<()>),
    ] {
        let slot = slot_of(name).context("no such point")?;
        let probe = || -> Result<_> {
            Ok(DelayProbe::load(plan::plan(choice, &facts)?, choice, &facts)?.0)
        };
        // The program that was attached first runs first, and pays for what both find in no cache: each
        // is it once.
        let first = probe()?;
        let attempt = first.points()[slot].attempt;
        let empty = || EmptyProbe::load(attempt, facts.btf.as_deref());
        let last = empty()?;
        let one = cost(&first, &last, slot, &|| run(load))?;
        drop((first, last));
        let first = empty()?;
        let other = cost(&probe()?, &first, slot, &|| run(load))?;
        let (ours, empty) = ((one.0 + other.0) / 2.0, (one.1 + other.1) / 2.0);
        println!(
            "| `{name}` | {} `{}` | {ours:.1} | {empty:.1} | {:.2} | {:.1} |",
            attempt.backend.name(),
            attempt.symbol,
            ours / empty,
            ours - empty
        );
    }
    Ok(())
}

/// What a run of either program costs: of some rounds, the one whose difference is the median.
fn cost(
    probe: &DelayProbe,
    empty: &EmptyProbe,
    slot: usize,
    run: &dyn Fn() -> Result<()>,
) -> Result<(f64, f64)> {
    let mut costs = Vec::new();
    for _ in 0..ROUNDS {
        let before = (probe.sample(slot)?.program, empty.stats()?);
        run()?;
        let after = (probe.sample(slot)?.program, empty.stats()?);
        costs.push((per_run(before.0, after.0)?, per_run(before.1, after.1)?));
    }
    costs.sort_by(|a, b| (a.0 - a.1).total_cmp(&(b.0 - b.1)));
    Ok(costs[ROUNDS / 2])
}

fn per_run(before: ProgStats, after: ProgStats) -> Result<f64> {
    let runs = after.run_count - before.run_count;
    ensure!(runs > 1_000, "only {runs} runs were measured");
    Ok((after.run_time_ns - before.run_time_ns) as f64 / runs as f64)
}

/// Calls of read(2), one byte each.
fn reads(load: &Load) -> Result<()> {
    let zero = File::open("/dev/zero")?;
    let mut byte = 0u8;
    for _ in 0..load.reads {
        // SAFETY: one byte is writable.
        let read = unsafe { libc::read(zero.as_raw_fd(), (&raw mut byte).cast(), 1) };
        ensure!(read == 1, "failed to read /dev/zero");
    }
    Ok(())
}

/// Direct reads of 4 KiB from a file.
fn requests(load: &Load) -> Result<()> {
    let path = scratch()?;
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path);
    std::fs::remove_file(&path)?;
    let file = file.context("failed to open a file for direct reads")?;
    let mut pages = vec![0u8; 8192];
    let offset = pages.as_ptr().align_offset(4096);
    for block in 0..load.requests {
        file.read_exact_at(&mut pages[offset..offset + 4096], block % 256 * 4096)
            .context("failed to read directly")?;
    }
    Ok(())
}

fn scratch() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let path = match std::env::var_os(DIRECTORY) {
        Some(directory) => PathBuf::from(directory).join("bench-data"),
        None => program.with_extension("bench-data"),
    };
    std::fs::write(&path, vec![1u8; 1 << 20])?;
    File::open(&path)?.sync_all()?;
    Ok(path)
}
