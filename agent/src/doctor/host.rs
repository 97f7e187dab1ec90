//! Checks of the machine: what it is, and what of it makes delays or measurements coarse.

use std::path::Path;

use super::facts::Facts;
use crate::report::doctor::{
    Check, Group,
    Status::{self, Skip, Warn},
};

/// Clocks that take some 0.5 us or more to read, or stand still in between.
const SLOW_CLOCKS: [&str; 5] = ["hpet", "acpi_pm", "pit", "jiffies", "refined-jiffies"];

/// All of them; `wanted` is what all measuring probes together take (bytes).
#[must_use]
pub fn checks(facts: &Facts, wanted: u64, socket: &Path, made: Result<(), String>) -> Vec<Check> {
    vec![
        cpus(facts),
        clock(facts),
        memory(facts, wanted),
        disks(facts),
        cgroups(facts),
        socket_directory(socket, made),
    ]
}

fn check(name: &str, status: Status, value: impl Into<String>) -> Check {
    Check::new(Group::Host, name, status, value)
}

/// How many CPUs `0-3,8` are; none if it is no such list.
fn count(list: &str) -> Option<u32> {
    list.split(',')
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
            last.checked_sub(first)?.checked_add(1)
        })
        .sum()
}

fn cpus(facts: &Facts) -> Check {
    match facts.cpus.as_deref().and_then(count) {
        None => check("cpus", Skip, "unknown").because("/sys does not tell which are online"),
        Some(1) => check("cpus", Warn, "1")
            .because("a delay spins: while it waits, nothing else runs on this machine")
            .remedy("keep delays short, or give the machine a second CPU"),
        Some(count) => check("cpus", Status::Ok, count.to_string()),
    }
}

fn clock(facts: &Facts) -> Check {
    match facts.clock.as_deref() {
        None => check("clock", Skip, "unknown").because("/sys does not tell the clock source"),
        Some(clock) if SLOW_CLOCKS.contains(&clock) => check("clock", Warn, clock)
            .because(
                "it is slow to read: delays end up to some us late, and each value that is \
                 measured costs more",
            )
            .remedy(
                "see available_clocksource beside current_clocksource in \
                 /sys/devices/system/clocksource/clocksource0 for a faster one (tsc), and the \
                 kernel's log for why it was not taken",
            ),
        Some(clock) => check("clock", Status::Ok, clock),
    }
}

fn memory(facts: &Facts, wanted: u64) -> Check {
    let mib = |bytes: u64| bytes >> 20;
    let Some(available) = facts.available else {
        return check("free_memory", Skip, "unknown")
            .because("/proc/meminfo does not tell what is free");
    };
    let value = format!("{} MiB", mib(available));
    if available >= 2 * wanted {
        return check("free_memory", Status::Ok, value);
    }
    check("free_memory", Warn, value)
        .because(format!(
            "all measuring probes together take {} MiB of it for their histograms",
            mib(wanted)
        ))
        .remedy("load one probe at a time, or free memory")
}

/// The kernel need not stamp a request at its allocation where nobody asked for it (`blk_mq_need_time_stamp`,
/// block/blk-mq.c; since 6.13 `blk_account_io_start`), and the probe `block` then takes its start for unknown.
fn disks(facts: &Facts) -> Check {
    if facts.disks.is_empty() {
        return check("iostats", Skip, "no disk")
            .because("no block device here takes requests, so block.issue has nothing to delay");
    }
    let off = facts.disks.iter().filter(|disk| !disk.iostats);
    let off: Vec<&str> = off.map(|disk| disk.name.as_str()).collect();
    if off.is_empty() {
        return check("iostats", Status::Ok, "on for all disks");
    }
    check("iostats", Warn, format!("off for {}", off.join(", ")))
        .because(
            "the kernel need not stamp their requests, so queue and total of the probe block are \
             missing, nor does it count them in /proc/diskstats; delays, device and \
             size are as ever",
        )
        .remedy("echo 1 > /sys/block/DISK/queue/iostats")
}

fn cgroups(facts: &Facts) -> Check {
    let unified = facts.cgroups.iter().find(|(kind, ..)| kind == "cgroup2");
    let controllers = facts.cgroups.iter().filter(|(kind, ..)| kind == "cgroup");
    let controllers = controllers.count();
    let v2 = unified.map(|(_, place, _)| format!("v2 at {}", place.display()));
    match (v2, controllers) {
        (None, 0) => check("cgroups", Warn, "none mounted")
            .because("rules with --cgroup cannot be made, and --by cgroup has no names")
            .remedy("mount -t cgroup2 none /sys/fs/cgroup"),
        (Some(v2), 0) => check("cgroups", Status::Ok, v2),
        (v2, count) => {
            let v1 = format!("v1, {count} hierarchies");
            check(
                "cgroups",
                Status::Ok,
                v2.map_or(v1.clone(), |v2| format!("{v1}; {v2}")),
            )
        }
    }
}

/// `made` is whether files can be made beside the socket.
fn socket_directory(socket: &Path, made: Result<(), String>) -> Check {
    let directory = socket.parent().unwrap_or(Path::new("/"));
    let value = directory.display().to_string();
    match made {
        Ok(()) => check("socket", Status::Ok, value),
        Err(why) => check("socket", Warn, value)
            .because(format!("an agent cannot make its socket there: {why}"))
            .remedy("name one elsewhere: --socket PATH"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::facts::{fixture::facts, writeable};

    const CLOCK: &str = "sys/devices/system/clocksource/clocksource0/current_clocksource";

    fn has(check: &Check, status: Status, words: &[&str]) {
        let text = format!("{check:?}");
        assert_eq!(check.status, status, "{text}");
        assert_eq!(check.reason.is_some(), status != Status::Ok, "{text}");
        assert_eq!(check.remedy.is_some(), status == Warn, "{text}");
        for word in words {
            assert!(text.contains(word), "no {word} in {text}");
        }
    }

    #[test]
    fn cpus_are_counted() {
        let of = |list| cpus(&facts(&[("sys/devices/system/cpu/online", list)]));
        has(&of("0-3,8\n"), Status::Ok, &["\"5\""]);
        has(&of("0\n"), Warn, &["\"1\"", "nothing else runs"]);
        has(&of("3-0\n"), Skip, &[]);
        has(&cpus(&facts(&[])), Skip, &[]);
    }

    #[test]
    fn slow_clocks_are_told() {
        let of = |name| clock(&facts(&[(CLOCK, name)]));
        has(&of("tsc\n"), Status::Ok, &["tsc"]);
        has(&of("kvm-clock\n"), Status::Ok, &["kvm-clock"]);
        has(&of("hpet\n"), Warn, &["hpet", "available_clocksource"]);
        has(&of("acpi_pm\n"), Warn, &["acpi_pm"]);
        has(&clock(&facts(&[])), Skip, &[]);
    }

    #[test]
    fn memory_is_held_against_what_the_probes_take() {
        let of = |text| memory(&facts(&[("proc/meminfo", text)]), 200 << 20);
        has(
            &of("MemTotal: 9 kB\nMemAvailable:  1048576 kB\n"),
            Status::Ok,
            &["1024 MiB"],
        );
        has(&of("MemAvailable:   204800 kB\n"), Warn, &["200 MiB"]);
        has(&of("MemTotal: 9 kB\n"), Skip, &[]);
    }

    /// A disk with hardware queues, and one without, whose flag has nothing to do with us.
    fn of_disk(iostats: &str) -> Check {
        disks(&facts(&[
            ("sys/block/vda/mq/0/cpu_list", "0"),
            ("sys/block/vda/queue/iostats", iostats),
            ("sys/block/zram0/queue/iostats", "0"),
        ]))
    }

    #[test]
    fn disks_without_statistics_are_told_with_what_is_lost() {
        has(&of_disk("1\n"), Status::Ok, &[]);
        has(&of_disk("0\n"), Warn, &["off for vda", "queue and total"]);
        let bare = facts(&[("sys/block/zram0/queue/iostats", "0")]);
        has(&disks(&bare), Skip, &["no disk"]);
    }

    #[test]
    fn cgroups_are_where_they_are_mounted() {
        let of = |mounts| cgroups(&facts(&[("proc/self/mounts", mounts)]));
        has(
            &of("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"),
            Status::Ok,
            &["v2 at /sys/fs/cgroup"],
        );
        let both = "a /c/cpu cgroup rw,cpu 0 0\nb /c/u cgroup2 rw 0 0\n";
        has(&of(both), Status::Ok, &["v1, 1 hierarchies; v2 at /c/u"]);
        has(&of("proc /proc proc rw 0 0\n"), Warn, &["--cgroup"]);
    }

    #[test]
    fn the_sockets_directory_has_to_be_writeable() {
        let fixture = crate::doctor::facts::fixture::Fixture::new(&[("run/file", "")]);
        let of = |path: &str| {
            let path = Path::new(path);
            socket_directory(path, writeable(&fixture.0, path))
        };
        has(&of("/run/iolag.sock"), Status::Ok, &["/run"]);
        has(
            &of("/missing/iolag.sock"),
            Warn,
            &["No such file", "--socket"],
        );
        has(&of("/run/file/iolag.sock"), Warn, &["not a directory"]);
    }
}
