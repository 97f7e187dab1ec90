//! Where this machine cannot run the agent: the same workloads in a virtual machine, whose kernel can.

use anyhow::{Context, Result};

use super::{interrupt, table};
use crate::build::Built;
use crate::cache::Cache;
use crate::vm;

/// The guest test that runs the workloads and prints the figures.
const TEST: &str = "demo";

const NOTE: &str = "\
This machine stops it now and then, most of all where QEMU has to emulate: means
such as ACHIEVED suffer from that, medians hardly.
";

/// Boots the virtual machine if `error` says that this host cannot; else it is the failure.
pub fn run(cache: &Cache, built: &Built, error: anyhow::Error) -> Result<()> {
    let reason = format!("{error:#}");
    if !host_cannot(&reason) {
        return Err(error);
    }
    // Nothing of ours is on this host now, and the kernel ends QEMU with us.
    interrupt::release()?;
    let kernel = vm::newest().name;
    eprintln!("this machine cannot: {reason}");
    eprintln!("doing the rest on Debian's kernel {kernel} in QEMU, which takes about a minute ...");
    print!("{}", page(kernel, &vm::figures(cache, built, TEST)?)?);
    Ok(())
}

/// Everything for stdout: the table of a demo on this host, under a line that says where it comes from.
fn page(kernel: &str, figures: &str) -> Result<String> {
    let results = serde_json::from_str(figures).context("failed to read the guest's figures")?;
    Ok(format!(
        "measured in a virtual machine with Debian's kernel {kernel}\n{NOTE}\n{}",
        table::render(&results)
    ))
}

/// Exit code 3 of `iolag`, as [`iolag_tests::agent::Agent::call`] words it.
fn host_cannot(reason: &str) -> bool {
    reason.contains("exit status: 3: ")
}

#[cfg(test)]
mod tests {
    use iolag_tests::demo::{Delta, Results, Row};
    use iolag_tests::fio::Latency;

    use super::*;

    #[test]
    fn what_the_guest_prints_becomes_the_table() {
        let latency = |p50_ns| Latency {
            ios: 7,
            p50_ns,
            p99_ns: p50_ns,
            bins: vec![(p50_ns, 7)],
        };
        let guest = Results {
            rows: vec![Row {
                point: "block.issue".into(),
                workload: "fio psync read".into(),
                asked_ns: 500_000,
                seen_ns: 510_000,
                kernel: Delta {
                    hits: 7,
                    delayed: 7,
                    achieved_ns: 3_500_700,
                    cpu_ns: 3_500_700,
                    error_p50_ns: 47,
                },
            }],
            fio_before: latency(90_000),
            fio_after: latency(600_000),
        };
        let page = page("6.12", &serde_json::to_string(&guest).unwrap()).unwrap();
        assert!(page.starts_with("measured in a virtual machine"), "{page}");
        let words = ["ACHIEVED", "510us", "500.1us", "47ns", "WITH set-blk 500"];
        for word in words {
            assert!(page.contains(word), "no {word}: {page}");
        }
        assert!(
            page.lines().all(|line| line.chars().count() <= 80),
            "{page}"
        );
    }

    #[test]
    fn figures_cut_short_are_told() {
        let error = page("6.12", "{\"rows\":[").unwrap_err();
        assert_eq!(error.to_string(), "failed to read the guest's figures");
    }

    #[test]
    fn only_a_host_that_cannot_falls_back() {
        assert!(host_cannot(
            "failed to run iolag run: exit status: 3: not root"
        ));
        assert!(!host_cannot(
            "failed to run iolag run: exit status: 1: no space"
        ));
    }
}
