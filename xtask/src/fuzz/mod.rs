//! `cargo xtask fuzz`: changed input for all that reads what others wrote.
//!
//! The same numbers give the same input, so every run is the same; `--guided` lets libFuzzer look for more.

mod guided;

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use comfy_table::{Table, presets::NOTHING};
use iolag_tests::fuzz::TARGETS;
use serde_json::Value;

use crate::results::Results;
use crate::workspace;

/// Inputs for each target.
const LINES: u64 = 1_000_000;
/// More memory than reading input of a few KiB can need (KiB).
const GROWTH: u64 = 64 << 10;

#[derive(clap::Args)]
pub struct Args {
    /// Which readers; all without it
    #[arg(value_parser = TARGETS)]
    targets: Vec<String>,
    /// Inputs for each
    #[arg(long, value_name = "N", default_value_t = LINES)]
    lines: u64,
    /// Look for new input with libFuzzer instead, for so long each (needs a C++ compiler)
    #[arg(long, value_name = "SECONDS", conflicts_with = "lines")]
    guided: Option<u64>,
}

/// The command.
pub fn command(args: &Args) -> Result<()> {
    let targets: Vec<&str> = match args.targets.is_empty() {
        true => TARGETS.to_vec(),
        false => args.targets.iter().map(String::as_str).collect(),
    };
    if let Some(seconds) = args.guided {
        return guided::run(&targets, seconds);
    }
    let results = targets.iter().map(|target| run(target, args.lines));
    let results = results.collect::<Result<Vec<Value>>>()?;
    println!("{}", table(&results));
    match results.iter().find_map(fault) {
        Some(fault) => bail!("{fault}"),
        None => Ok(()),
    }
}

/// As many inputs for each target as the command feeds it: what passed, and rows of `docs/reliability.md`.
pub fn faults() -> Result<(Results, Vec<String>)> {
    let (mut results, mut rows) = (Results::default(), Vec::new());
    for target in TARGETS {
        let result = run(target, LINES)?;
        results += fault(&result).map_or_else(Results::passed, |fault| Results::failed(&fault));
        let of = |field| number(&result, field);
        rows.push(format!(
            "changed input: {target}\t\t{} inputs: {} refused, {} accepted, {} panics, memory {} to {} KiB",
            of("inputs"),
            of("refused"),
            of("accepted"),
            of("panics"),
            of("memory_before_kib"),
            of("memory_peak_kib")
        ));
    }
    Ok((results, rows))
}

/// The bench of the package `iolag` with these arguments; what it prints.
fn bench(arguments: &[&str]) -> Result<String> {
    let output = workspace::cargo()
        .args([
            "bench",
            "--quiet",
            "--package",
            "iolag",
            "--bench",
            "fuzz",
            "--",
        ])
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .context("failed to run cargo bench")?;
    if !output.status.success() {
        bail!("failed to fuzz {}: {}", arguments.join(" "), output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn run(target: &str, lines: u64) -> Result<Value> {
    let text = bench(&[target, &lines.to_string()])?;
    serde_json::from_str(&text).context("failed to read what the bench found")
}

fn number(result: &Value, field: &str) -> u64 {
    result[field].as_u64().unwrap_or_default()
}

/// What is wrong with the figures of a target.
fn fault(result: &Value) -> Option<String> {
    let target = result["target"].as_str().unwrap_or_default();
    let panics = number(result, "panics");
    if panics > 0 {
        return Some(format!("{target} panicked {panics} times: see above"));
    }
    let growth =
        number(result, "memory_peak_kib").saturating_sub(number(result, "memory_before_kib"));
    (growth > GROWTH).then(|| format!("{target} took {} MiB of memory", growth >> 10))
}

/// A row for each target.
fn table(results: &[Value]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header([
        "TARGET", "INPUTS", "REFUSED", "ACCEPTED", "PANICS", "SLOWEST", "MEMORY", "PEAK", "TOOK",
    ]);
    let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
    for result in results {
        table.add_row([
            result["target"].as_str().unwrap_or_default().to_owned(),
            number(result, "inputs").to_string(),
            number(result, "refused").to_string(),
            number(result, "accepted").to_string(),
            number(result, "panics").to_string(),
            format!("{:.1} ms", number(result, "slowest_us") as f64 / 1000.0),
            mib(number(result, "memory_before_kib")),
            mib(number(result, "memory_peak_kib")),
            format!("{:.0} s", result["seconds"].as_f64().unwrap_or_default()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn panics_and_memory_without_bounds_are_faults() {
        let of = |panics: u64, peak: u64| {
            fault(
                &json!({"target": "btf", "panics": panics, "memory_before_kib": 5000, "memory_peak_kib": peak}),
            )
        };
        assert_eq!(of(0, 6000), None);
        assert_eq!(of(2, 6000).unwrap(), "btf panicked 2 times: see above");
        assert_eq!(of(0, 205_000 + 4800).unwrap(), "btf took 200 MiB of memory");
    }
}
