//! What `iolag events` shows: shared by the agent, which fills it, and the command, which prints it.

use agent_common::oom::{self, CgroupPath, UNKNOWN};
use serde::{Deserialize, Serialize};

use super::SCHEMA;

/// One line of `iolag events --format json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub schema: u32,
    #[serde(flatten)]
    pub event: Event,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    OomKill(Box<OomKill>),
    /// Events of which nothing else is known: the ring buffer was full, or the follower too slow.
    Lost {
        count: u64,
    },
}

impl Event {
    #[must_use]
    pub fn line(self) -> Line {
        Line {
            schema: SCHEMA,
            event: self,
        }
    }
}

/// A process that was killed for want of memory. What this kernel, or the way in which the probe is attached
/// to it, does not give is `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomKill {
    /// RFC 3339, UTC.
    pub time: String,
    /// `CLOCK_MONOTONIC`, ns.
    pub at_ns: u64,
    pub victim: Victim,
    /// The task that asked for the memory.
    pub asked_by: Task,
    /// `none`, `cpuset`, `memory-policy` or `memcg`; `null` unless attached to `oom_kill_process`.
    pub constraint: Option<String>,
    /// The cgroup that reached its limit, likewise.
    pub limit_cgroup: Option<String>,
    /// log2 of the pages that were asked for, likewise.
    pub order: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    pub pid: u64,
    pub tid: u64,
    pub comm: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Victim {
    #[serde(flatten)]
    pub task: Task,
    /// Path in the unified hierarchy.
    pub cgroup: Option<String>,
    /// Path in the memory controller's hierarchy: another one where that is version 1's.
    pub memory_cgroup: Option<String>,
    pub oom_score_adj: i64,
    pub total_vm_bytes: Option<u64>,
    /// As the next two, by the kernel's shared counters, which lag by some pages for each CPU.
    pub anon_rss_bytes: Option<u64>,
    pub file_rss_bytes: Option<u64>,
    pub shmem_rss_bytes: Option<u64>,
}

/// By `enum oom_constraint` (`include/linux/oom.h`).
const CONSTRAINTS: [&str; 4] = ["none", "cpuset", "memory-policy", "memcg"];

impl OomKill {
    /// From what the kernel side sent; `boot_unix_ns` is the time of day at which `CLOCK_MONOTONIC` was 0.
    #[must_use]
    pub fn new(raw: &oom::OomKill, page_bytes: u64, boot_unix_ns: u64) -> Self {
        let victim = &raw.victim;
        let bytes = |pages: u64| known(pages).map(|pages| pages * page_bytes);
        Self {
            time: rfc3339(boot_unix_ns + raw.at_ns),
            at_ns: raw.at_ns,
            victim: Victim {
                task: task(victim.pid, victim.tid, &victim.comm),
                cgroup: path(&victim.cgroup),
                memory_cgroup: path(&victim.memory_cgroup),
                oom_score_adj: victim.oom_score_adj.cast_signed(),
                total_vm_bytes: bytes(victim.total_vm),
                anon_rss_bytes: bytes(victim.anon),
                file_rss_bytes: bytes(victim.file),
                shmem_rss_bytes: bytes(victim.shmem),
            },
            asked_by: task(raw.asker_pid, raw.asker_tid, &raw.asker_comm),
            constraint: known(raw.cause.constraint).map(|number| {
                let name = CONSTRAINTS.get(usize::try_from(number).unwrap_or(usize::MAX));
                name.map_or_else(|| number.to_string(), |name| (*name).into())
            }),
            limit_cgroup: path(&raw.cause.limit),
            order: known(raw.cause.constraint).map(|_| raw.cause.order.cast_signed()),
        }
    }
}

fn known(number: u64) -> Option<u64> {
    (number != UNKNOWN).then_some(number)
}

fn task(pid: u64, tid: u64, comm: &[u8]) -> Task {
    Task {
        pid,
        tid,
        comm: text(comm),
    }
}

/// Up to the first NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

/// From the root, or from `...` where it is deeper than what was kept.
fn path(path: &CgroupPath) -> Option<String> {
    if path.id == 0 {
        return None;
    }
    let mut names: Vec<String> = path
        .names
        .iter()
        .map(|name| text(name))
        .take_while(|name| !name.is_empty())
        .collect();
    names.reverse();
    let start = if path.cut == 0 { "/" } else { ".../" };
    Some(format!("{start}{}", names.join("/")))
}

/// A time of day in ns since 1970, to the millisecond.
fn rfc3339(unix_ns: u64) -> String {
    let seconds = unix_ns / 1_000_000_000;
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let ms = unix_ns / 1_000_000 % 1_000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Year, month and day of a day since 1970 in the Gregorian calendar. Years begin in March here, so that the
/// leap day is a year's last.
const fn date(days: u64) -> (u64, u64, u64) {
    const FOUR_CENTURIES: u64 = 146_097;
    // From 0000-03-01.
    let days = days + 719_468;
    let (era, of_era) = (days / FOUR_CENTURIES, days % FOUR_CENTURIES);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / (FOUR_CENTURIES - 1)) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    // Months from March on have 31, 30, 31, 30, 31 days, again and again.
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_that_date_prints() {
        for (unix, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(unix * 1_000_000_000), text);
        }
        assert_eq!(rfc3339(1_234_567_890), "1970-01-01T00:00:01.234Z");
    }

    fn cgroup(names: &[&str], cut: bool) -> CgroupPath {
        let mut path = CgroupPath {
            id: 7,
            cut: cut.into(),
            names: [[0; oom::NAME]; oom::LEVELS],
        };
        for (place, name) in path.names.iter_mut().zip(names) {
            place[..name.len()].copy_from_slice(name.as_bytes());
            // What an earlier, longer name left.
            place[name.len() + 1..].fill(b'x');
        }
        path
    }

    #[test]
    fn paths_are_written_from_the_root() {
        assert_eq!(path(&cgroup(&["b", "a", ""], false)).unwrap(), "/a/b");
        assert_eq!(path(&cgroup(&[""], false)).unwrap(), "/");
        assert_eq!(
            path(&cgroup(&["h"; 8], true)).unwrap(),
            ".../h/h/h/h/h/h/h/h"
        );
        let none = CgroupPath {
            id: 0,
            ..cgroup(&["a"], false)
        };
        assert_eq!(path(&none), None);
    }

    #[test]
    fn what_is_not_known_is_null() {
        // SAFETY: integers only: zeros are a value.
        let mut raw: oom::OomKill = unsafe { std::mem::zeroed() };
        raw.cause.constraint = UNKNOWN;
        raw.cause.order = UNKNOWN;
        raw.victim.total_vm = UNKNOWN;
        raw.victim.anon = 3;
        raw.victim.oom_score_adj = (-5i64).cast_unsigned();
        let kill =
            serde_json::to_value(Event::OomKill(Box::new(OomKill::new(&raw, 4096, 0))).line());
        let kill = kill.unwrap();
        for field in ["constraint", "limit_cgroup", "order"] {
            assert!(kill[field].is_null(), "{kill}");
        }
        assert_eq!(kill["event"], "oom-kill");
        assert!(kill["victim"]["total_vm_bytes"].is_null());
        assert_eq!(kill["victim"]["anon_rss_bytes"], 12_288);
        assert_eq!(kill["victim"]["oom_score_adj"], -5);
    }
}
