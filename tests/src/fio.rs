//! fio as a witness.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What fio measured of its own reads: completion latency in ns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub ios: u64,
    pub p50_ns: u64,
    pub p99_ns: u64,
    /// `(upper edge in ns, count)` of fio's own bins.
    pub bins: Vec<(u64, u64)>,
}

/// The options of every run: psync 4k random reads, direct, queue depth 1. A device that idles between
/// requests answers slower, and a delay makes it idle: so each request comes 500 us after the one before
/// was done, delayed or not. `thinktime_spin` is left out on purpose: where the spin of fio 3.33 takes
/// longer than `thinktime`, the rest of the pause wraps around to centuries (`backend.c`,
/// `handle_thinktime`).
const OPTIONS: &[&str] = &[
    "--name=iolag",
    "--rw=randread",
    "--bs=4k",
    "--direct=1",
    "--ioengine=psync",
    "--iodepth=1",
    "--size=64M",
    "--time_based",
    "--thinktime=500",
    "--percentile_list=50:99",
    "--output-format=json+",
];

/// Runs fio on `file` (made if it is not there, and left behind) for `runtime`, in whole seconds: fio 3.33
/// takes `1000ms` for 1000 s.
///
/// # Errors
/// fio fails, or says something that is not its JSON.
pub fn random_reads(mut fio: Command, file: &Path, runtime: Duration) -> Result<Latency> {
    fio.args(OPTIONS)
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--runtime={}", runtime.as_secs().max(1)));
    parse(&report(fio)?)
}

/// Runs psync 4k direct I/O at queue depth 1, with what `fio` asks for besides, and returns fio's JSON.
///
/// # Errors
/// fio fails, or says something that is not its JSON.
pub fn psync_direct(mut fio: Command) -> Result<Value> {
    fio.args(["--name=iolag", "--bs=4k", "--direct=1", "--ioengine=psync"])
        .arg("--output-format=json");
    report(fio)
}

/// What fio reports in JSON, behind what else it prints.
fn report(mut fio: Command) -> Result<Value> {
    let output = fio.output().context("failed to run fio")?;
    if !output.status.success() {
        bail!(
            "failed to run fio: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let text = String::from_utf8(output.stdout)?;
    let start = text.find('{').context("fio printed no JSON")?;
    serde_json::from_str(&text[start..]).context("failed to read fio's JSON")
}

fn parse(report: &Value) -> Result<Latency> {
    let read = &report["jobs"][0]["read"];
    let clat = &read["clat_ns"];
    let number = |value: &Value| value.as_u64().context("a number is missing in fio's JSON");
    let mut bins = Vec::new();
    for (edge, count) in clat["bins"].as_object().into_iter().flatten() {
        bins.push((edge.parse()?, number(count)?));
    }
    bins.sort_unstable();
    let latency = Latency {
        ios: number(&read["total_ios"])?,
        p50_ns: number(&clat["percentile"]["50.000000"])?,
        p99_ns: number(&clat["percentile"]["99.000000"])?,
        bins,
    };
    ensure!(latency.ios > 0, "fio did no reads");
    Ok(latency)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_found_in_fios_report() {
        let report = serde_json::json!({"jobs": [{"read": {"total_ios": 3, "clat_ns": {
            "percentile": {"50.000000": 37_120, "99.000000": 90_624},
            "bins": {"37120": 2, "90624": 1}
        }}}]});
        assert_eq!(
            parse(&report).unwrap(),
            Latency {
                ios: 3,
                p50_ns: 37_120,
                p99_ns: 90_624,
                bins: vec![(37_120, 2), (90_624, 1)]
            }
        );
    }
}
