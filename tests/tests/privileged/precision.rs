//! On this host, by whichever backend it allows: what an application sees, and what the kernel recorded.
//!
//! Machines that run tests are shared and noisy. The bounds here are those of a broken injector; the
//! figures that a quiet machine reaches are in docs/overhead.md and the README.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use iolag_tests::{
    agent::{Agent, scratch_dir},
    fio,
    timing::{median, reads},
};

use crate::place::Place;

const SPACING: Duration = Duration::from_micros(200);

/// A file on the disk that holds the workspace: /tmp may lie in memory, where no request is issued.
struct DiskFile(PathBuf);

impl Drop for DiskFile {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
}

#[test]
fn fio_sees_each_request_delayed_by_what_was_asked() {
    let Some(place) = Place::new() else {
        return;
    };
    let Some(fio_program) = std::env::var_os("IOLAG_FIO") else {
        println!("skipped: IOLAG_FIO is not set, run cargo xtask test");
        return;
    };
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = DiskFile(dir.join(format!("fio-{}", std::process::id())));
    let run =
        || fio::random_reads(Command::new(&fio_program), &file.0, Duration::from_secs(2)).unwrap();
    let agent = Agent::start(&place.program, &[]).unwrap();
    run();
    for delay_us in [100u64, 500, 2_000] {
        let plain = run().p50_ns;
        let before = agent.point("block.issue").unwrap();
        agent.call(&["set-blk", &delay_us.to_string()]).unwrap();
        let slow = run();
        agent.call(&["set-blk", "0"]).unwrap();
        let after = agent.point("block.issue").unwrap();
        if after["hits"] == before["hits"] {
            println!("skipped: {} is not on a block device", dir.display());
            return;
        }
        let raised = slow.p50_ns as f64 - plain as f64;
        let asked = (delay_us * 1_000) as f64;
        println!(
            "set-blk {delay_us}us: fio's median {plain} -> {} ns, {:+.1} % of what was asked; kernel error p50 {} ns, p99 {} ns",
            slow.p50_ns,
            (raised / asked - 1.0) * 100.0,
            after["error_ns"]["p50"],
            after["error_ns"]["p99"],
        );
        // The machine's own noise is some ten us either way, whatever the delay.
        assert!(
            (raised - asked).abs() <= asked * 0.05 + 30_000.0,
            "{raised} ns for {asked} ns"
        );
        let number = |point: &serde_json::Value, field: &str| point[field].as_u64().unwrap();
        let delayed = number(&after, "delayed") - number(&before, "delayed");
        assert!(
            delayed >= slow.ios,
            "{delayed} delayed of {} reads",
            slow.ios
        );
        let requested = number(&after, "requested_ns") - number(&before, "requested_ns");
        assert_eq!(requested, delayed * delay_us * 1_000);
    }
}

#[test]
fn a_read_takes_longer_by_what_was_asked() {
    let Some(place) = Place::new() else {
        return;
    };
    let dir = scratch_dir().unwrap();
    let file = dir.join("read");
    std::fs::write(&file, [0; 4096]).unwrap();
    let agent = Agent::start(&place.program, &[]).unwrap();
    for (delay, asked, calls) in [
        ("1us", 1_000.0, 5_000),
        ("100us", 100_000.0, 2_000),
        ("10ms", 10_000_000.0, 50),
    ] {
        let plain = median(reads(&file, calls, SPACING).unwrap());
        let before = agent.point("vfs.read").unwrap();
        agent.call(&["set", delay]).unwrap();
        let slow = median(reads(&file, calls, SPACING).unwrap());
        agent.call(&["set", "0"]).unwrap();
        let after = agent.point("vfs.read").unwrap();
        let raised = slow as f64 - plain as f64;
        println!(
            "set {delay}: the median read(2) {plain} -> {slow} ns: raised by {raised} ns; kernel error p50 {} ns, p99 {} ns",
            after["error_ns"]["p50"], after["error_ns"]["p99"],
        );
        assert!(
            (raised - asked).abs() <= asked * 0.02 + 2_000.0,
            "{delay}: raised by {raised} ns"
        );
        let delayed = after["delayed"].as_u64().unwrap() - before["delayed"].as_u64().unwrap();
        assert!(delayed >= calls as u64, "{delayed} of {calls} delayed");
    }
    let p50 = agent.point("vfs.read").unwrap()["error_ns"]["p50"]
        .as_u64()
        .unwrap();
    assert!(p50 <= 1_000, "the median error is {p50} ns");
    std::fs::remove_dir_all(dir).unwrap();
}
