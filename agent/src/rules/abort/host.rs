//! What the kernel tells of memory, pressure and softirqs, under a root path that tests replace.

use std::{fs, path::Path};

use crate::failure::{Failure, HOST};

/// Time of all CPUs since the boot (ticks).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    all: u64,
    softirq: u64,
}

impl CpuTime {
    /// Softirqs' share of the time since `before`, of `whole`; none if no tick passed.
    pub fn softirq_share(&self, before: &Self, whole: u64) -> Option<u64> {
        let all = self.all.checked_sub(before.all).filter(|all| *all > 0)?;
        let softirq = self.softirq.saturating_sub(before.softirq);
        Some((softirq.min(all) * whole) / all)
    }
}

fn read(root: &Path, file: &str, hint: &str) -> Result<String, Failure> {
    fs::read_to_string(root.join(file)).map_err(|error| {
        Failure::new(HOST, format!("--abort-if: failed to read /{file}: {error}")).hint(hint)
    })
}

fn unreadable(file: &str, hint: &str) -> Failure {
    Failure::new(
        HOST,
        format!("--abort-if: /{file} does not tell what is to be watched"),
    )
    .hint(hint)
}

/// OOM kills since the boot, of cgroups too (`oom_kill`, since Linux 4.13).
pub fn oom_kills(root: &Path) -> Result<u64, Failure> {
    const FILE: &str = "proc/vmstat";
    const HINT: &str = "watch psi.memory.full instead";
    let text = read(root, FILE, HINT)?;
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        .ok_or_else(|| unreadable(FILE, HINT))
}

/// Time of all CPUs: the first line of /proc/stat. Guests' time, the last two numbers, is in the others.
pub fn cpu_time(root: &Path) -> Result<CpuTime, Failure> {
    const FILE: &str = "proc/stat";
    const HINT: &str = "watch something else";
    let text = read(root, FILE, HINT)?;
    let numbers: Vec<u64> = text
        .lines()
        .find_map(|line| line.strip_prefix("cpu "))
        .map(|line| line.split_whitespace().map_while(|n| n.parse().ok()))
        .into_iter()
        .flatten()
        .take(8)
        .collect();
    match numbers.get(6) {
        Some(softirq) => Ok(CpuTime {
            all: numbers.iter().sum(),
            softirq: *softirq,
        }),
        None => Err(unreadable(FILE, HINT)),
    }
}

/// `avg10` of a line of /proc/pressure, of `whole`.
pub fn pressure(root: &Path, resource: &str, line: &str, whole: u64) -> Result<u64, Failure> {
    const HINT: &str =
        "this kernel keeps no such pressure: boot it with psi=1, or watch something else";
    let file = format!("proc/pressure/{resource}");
    let text = read(root, &file, HINT)?;
    text.lines()
        .find_map(|found| {
            let mut words = found.split_whitespace();
            let average = (words.next()? == line).then(|| words.next())??;
            average.strip_prefix("avg10=")?.parse::<f64>().ok()
        })
        .map(|percent| (percent.clamp(0.0, 100.0) / 100.0 * whole as f64).round() as u64)
        .ok_or_else(|| unreadable(&file, HINT))
}
