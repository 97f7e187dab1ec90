//! `record`, then `imitate`, against a disk that really was slower: made so by a rule.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use iolag_tests::{agent::Agent, fio, requests::disk_of};
use serde_json::Value;

use crate::{place::Place, precision::fio_on_a_disk};

/// Runs of what a shared disk may disturb.
const TRIES: usize = 5;
const PERCENTILES: [&str; 3] = ["50.000000", "90.000000", "99.000000"];

/// p50, p90 and p99 (ns) of 4k random reads at queue depth 1, by fio itself.
fn read_for(fio: &Path, file: &Path, length: Duration) -> [f64; 3] {
    // Others who want the CPU would be told from a slow disk by nothing.
    let mut command = Command::new("chrt");
    command
        .args(["-f", "1"])
        .arg(fio)
        .args([
            "--rw=randread",
            "--size=64M",
            "--time_based",
            "--percentile_list=50:90:99",
        ])
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--runtime={}", length.as_secs()));
    let report = fio::psync_direct(command).unwrap();
    let percentiles: &Value = &report["jobs"][0]["read"]["clat_ns"]["percentile"];
    PERCENTILES.map(|p| percentiles[p].as_f64().unwrap())
}

struct Disk<'a> {
    agent: &'a Agent,
    fio: PathBuf,
    file: PathBuf,
    name: String,
}

impl Disk<'_> {
    /// Records fio's reads, and says what fio itself saw.
    fn record(&self, profile: &Path) -> [f64; 3] {
        let (series, profile) = (
            format!("block.{}.read", self.name),
            profile.to_str().unwrap(),
        );
        let args = ["record", &series, "--for", "5s", "--force", "-o", profile];
        thread::scope(|scope| {
            let fio = scope.spawn(|| read_for(&self.fio, &self.file, Duration::from_secs(7)));
            // fio has to be on its way.
            thread::sleep(Duration::from_secs(1));
            self.agent.call(&args).unwrap();
            fio.join().unwrap()
        })
    }
}

#[test]
fn a_disk_answers_like_a_slower_one() {
    let Some(place) = Place::new() else { return };
    let Some((fio, file)) = fio_on_a_disk() else {
        return;
    };
    let agent = Agent::start(&place.program, &["--probes", "block"]).unwrap();
    // Makes the file, too.
    read_for(&fio, &file.0, Duration::from_secs(1));
    let name = disk_of(&file.0).unwrap();
    let disk = Disk {
        agent: &agent,
        fio,
        file: file.0.clone(),
        name,
    };
    let (fast, slow) = (place.dir.join("fast.json"), place.dir.join("slow.json"));
    let like = (0..TRIES).any(|_| {
        let plain = disk.record(&fast);
        let shape = ["--delay", "2ms", "--jitter", "1ms", "--dist", "lognormal"];
        let whom = ["--device", &disk.name, "--comm", "fio", "--name", "slow"];
        agent
            .call(&[&["inject", "block.issue"], &shape[..], &whom].concat())
            .unwrap();
        let wanted = disk.record(&slow);
        agent.call(&["remove", "slow"]).unwrap();
        let (from, to) = (fast.to_str().unwrap(), slow.to_str().unwrap());
        let args = [
            "imitate", "--from", from, "--to", to, "--device", &disk.name, "--op", "read",
        ];
        assert_eq!(agent.call(&args).unwrap(), "imitate\n");
        let had = read_for(&disk.fio, &disk.file, Duration::from_secs(5));
        let outcome = agent.rule("imitate").unwrap();
        assert!(outcome.count("hits") > 100, "{}", outcome.0);
        agent.call(&["remove", "imitate"]).unwrap();
        let off: Vec<f64> = had
            .iter()
            .zip(wanted)
            .map(|(had, wanted)| had / wanted - 1.0)
            .collect();
        println!(
            "fio's p50, p90, p99: {plain:?} ns, slow {wanted:?}, imitated {had:?}: off by {:?} %",
            off.iter()
                .map(|off| (off * 1000.0).round() / 10.0)
                .collect::<Vec<_>>()
        );
        assert!(
            wanted[0] > plain[0] + 1_000_000.0,
            "the slow one is not slow"
        );
        off.iter().all(|off| off.abs() <= 0.05)
    });
    assert!(like, "never within 5 % of the slow disk");
}
