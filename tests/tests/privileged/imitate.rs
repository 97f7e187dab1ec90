//! `record`, then `imitate`, against a disk that really was slower: made so by a rule. The disk is in memory and nobody
//! else's, so that all that is recorded is fio's.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use iolag_tests::{agent::Agent, fio};
use statrs::distribution::{ContinuousCDF as _, LogNormal};

use crate::place::Place;

/// Runs of what a shared disk may disturb.
const TRIES: usize = 5;
/// Some 8,000 requests, of which the 99th percentile is known to 2 %.
const LENGTH: Duration = Duration::from_secs(8);
/// What percentiles may be off.
const BOUND: f64 = 0.05;
const PERCENTILES: [&str; 3] = ["50.000000", "90.000000", "99.000000"];
/// Between two requests (us): the pace of the slow disk. At its own pace the fast one does not rest, and answers in two
/// thirds of the time that it takes when it is made to imitate. `thinktime_spin` is left out: see `iolag_tests::fio`.
const PACE: &str = "--thinktime=1000";

/// A disk in memory.
struct Loop {
    file: PathBuf,
    device: String,
}

impl Loop {
    /// None, and the reason on stdout, where there is no such driver.
    fn new() -> Option<Self> {
        let file = PathBuf::from(format!("/dev/shm/iolag-imitate-{}", std::process::id()));
        let made = File::create(&file).and_then(|file| file.set_len(64 << 20));
        made.unwrap();
        let output = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(&file)
            .output();
        match output {
            Ok(output) if output.status.success() => {
                let device = String::from_utf8(output.stdout).unwrap();
                let device = device.trim().into();
                Some(Self { file, device })
            }
            other => {
                println!("skipped: no loop device: {other:?}");
                fs::remove_file(file).unwrap();
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _gone = Command::new("losetup").args(["-d", &self.device]).status();
        let _gone = fs::remove_file(&self.file);
    }
}

struct Disk<'a> {
    agent: &'a Agent,
    iolag: &'a Path,
    fio: PathBuf,
    device: &'a str,
}

impl Disk<'_> {
    /// p50, p90 and p99 (ns) of 4k random reads at queue depth 1, by fio itself; under a rule, if one is given, else at
    /// the pace of the slow disk.
    fn read(&self, length: Duration, rule: &[&str]) -> [f64; 3] {
        // Others who want the CPU would be told from a slow disk by nothing.
        let urgent = ["chrt", "-f", "1"];
        let mut command = Command::new(urgent[0]);
        if !rule.is_empty() {
            command = Command::new(self.iolag);
            let socket = self.agent.socket();
            command.args(rule).arg("--socket").arg(socket);
            command.arg("--").arg(urgent[0]);
        }
        command.args(&urgent[1..]).arg(&self.fio).args([
            "--rw=randread",
            "--size=64M",
            "--time_based",
            "--percentile_list=50:90:99",
        ]);
        if rule.is_empty() {
            command.arg(PACE);
        }
        command.arg(format!("--filename={}", self.device));
        command.arg(format!("--runtime={}", length.as_secs()));
        let report = fio::psync_direct(command).unwrap();
        let percentiles = &report["jobs"][0]["read"]["clat_ns"]["percentile"];
        PERCENTILES.map(|p| percentiles[p].as_f64().unwrap())
    }

    /// As [`Self::read`], with a profile of the disk's reads meanwhile.
    fn record(&self, profile: &str, rule: &[&str]) -> [f64; 3] {
        let name = self.device.trim_start_matches("/dev/");
        let series = format!("block.{name}.read");
        let args = ["record", &series, "--for", "6s", "--force", "-o", profile];
        thread::scope(|scope| {
            let fio = scope.spawn(|| self.read(LENGTH, rule));
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
    let Some(fio) = std::env::var_os("IOLAG_FIO") else {
        println!("skipped: IOLAG_FIO is not set, run cargo xtask test");
        return;
    };
    let Some(memory) = Loop::new() else { return };
    let agent = Agent::start(&place.program, &["--probes", "block"]).unwrap();
    let disk = Disk {
        agent: &agent,
        iolag: &place.program,
        fio: fio.into(),
        device: &memory.device,
    };
    disk.read(Duration::from_secs(1), &[]);
    let file = |name: &str| place.dir.join(name).to_str().unwrap().to_owned();
    let (fast, slow) = (file("fast.json"), file("slow.json"));
    let shape = ["--delay", "1ms", "--jitter", "500us", "--dist", "lognormal"];
    let whom = ["--device", disk.device, "--op", "read", "--name", "rule"];
    let slower = [&["inject", "block.issue"], &shape[..], &whom].concat();
    let profiles = ["imitate", "--from", &fast, "--to", &slow];
    let imitate = [&profiles[..], &whom].concat();
    let variance = 0.25f64.ln_1p();
    let asked = LogNormal::new(1e6f64.ln() - variance / 2.0, variance.sqrt()).unwrap();
    let mut counted = 0;
    let like = (0..TRIES).any(|_| {
        let plain = disk.record(&fast, &[]);
        let wanted = disk.record(&slow, &slower);
        let had = disk.read(LENGTH, &imitate);
        let outcome = agent.rule("rule").unwrap();
        assert!(outcome.count("hits") > 100, "{}", outcome.0);
        let off = [0, 1, 2].map(|p| had[p] / wanted[p] - 1.0);
        let [p50, p90, p99] = off.map(|off| off * 100.0);
        println!(
            "fio's p50, p90, p99: {plain:?} ns, slow {wanted:?}, imitated {had:?}: off by {p50:+.1} %, {p90:+.1} %, {p99:+.1} %"
        );
        assert!(wanted[0] > 800_000.0, "the slow one is fast");
        if off.iter().all(|off| off.abs() <= BOUND) {
            return true;
        }
        // What others do to a request, they do to those of the slow disk and again to those that are to be like them.
        // Where that alone takes half of what may be off, the try tells of them.
        let due = [0.5, 0.9, 0.99].map(|p| asked.inverse_cdf(p) + plain[0]);
        if wanted.iter().zip(due).any(|(had, due)| had / due > 1.0 + BOUND / 2.0) {
            println!("the slow disk ought to have {due:.0?} ns: does not count");
            return false;
        }
        counted += 1;
        false
    });
    assert!(like || counted < 2, "never within 5 % of the slow disk");
    if !like {
        println!("skipped: this machine is too busy, {counted} tries count");
    }
}
