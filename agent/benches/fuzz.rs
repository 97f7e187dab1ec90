//! Runs one of `iolag::fuzz::TARGETS` on changed input, for `cargo xtask fuzz`: as a process of its own, as its peak of
//! memory is a result.
//!
//! `TARGET LINES` prints one line of JSON; `TARGET --seeds DIR` writes what the changes begin with, a file each, for
//! libFuzzer; `TARGET --input FILE` reads one file, as libFuzzer leaves them.

use std::{
    fs,
    panic::{catch_unwind, set_hook},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use iolag::fuzz::{TARGETS, Target};
use iolag_tests::{
    fuzz::{input, seeds},
    held::{Held, own_time},
};
use serde_json::json;

/// Between two lines of progress.
const STEP: Duration = Duration::from_secs(5);
/// Panics after which there is no point in going on.
const ENOUGH: u64 = 10;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        [target, "--seeds", dir] => write_seeds(target, Path::new(dir)),
        [target, "--input", file] => {
            let (name, read) = find(target)?;
            let accepted = read(&fs::read(file)?);
            println!("{name}: {}", if accepted { "accepted" } else { "refused" });
            Ok(())
        }
        [target, lines] => {
            let (name, read) = find(target)?;
            run(name, read, lines.parse().context("failed to read LINES")?)
        }
        // `cargo bench` without more, as `cargo test --benches` runs it.
        _ => Ok(()),
    }
}

fn find(target: &str) -> Result<(&'static str, Target)> {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    found
        .copied()
        .with_context(|| format!("failed to find the target {target}"))
}

fn run(name: &str, read: Target, lines: u64) -> Result<()> {
    // Told by its number; the input is made again from that.
    set_hook(Box::new(|panic| eprintln!("{panic}")));
    let (mut accepted, mut panics, mut done) = (0, 0, 0);
    let mut slowest = (Duration::ZERO, 0);
    drop(input(name, 0));
    // Making them took more than reading them may.
    let this = std::process::id() as i32;
    Held::forget_peak(this)?;
    let before = Held::by(this)?.memory;
    let start = Instant::now();
    let mut told = start;
    for number in 0..lines {
        let bytes = input(name, number);
        let began = own_time();
        match catch_unwind(|| read(&bytes)) {
            Ok(taken) => accepted += u64::from(taken),
            Err(_) => {
                panics += 1;
                eprintln!(
                    "{name}: input {number}: {:?}",
                    String::from_utf8_lossy(&bytes)
                );
            }
        }
        slowest = slowest.max((own_time().saturating_sub(began), number));
        done += 1;
        if told.elapsed() >= STEP {
            told = Instant::now();
            eprintln!("{name}: {done} of {lines}");
        }
        if panics >= ENOUGH {
            break;
        }
    }
    println!(
        "{}",
        json!({
            "target": name,
            "inputs": done,
            "accepted": accepted,
            "refused": done - accepted - panics,
            "panics": panics,
            "slowest_us": slowest.0.as_micros() as u64,
            "slowest_input": slowest.1,
            "memory_before_kib": before,
            "memory_peak_kib": Held::by(this)?.peak,
            "seconds": start.elapsed().as_secs_f64(),
        })
    );
    Ok(())
}

fn write_seeds(target: &str, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    for (number, seed) in seeds(target).iter().enumerate() {
        fs::write(dir.join(format!("seed-{number}")), seed)?;
    }
    Ok(())
}
