//! Checks of the kernel's settings. What they predict, the attempts decide: none of them is a failure by itself, as
//! distributions bring to their kernels what the version does not tell.

use super::facts::{Btf, Facts, chosen};
use crate::report::doctor::{
    Check, Group,
    Status::{self, Skip, Warn},
};

/// The oldest that iolag was tried on.
const OLDEST: (u32, u32) = (5, 10);
/// The first that has `bpf_loop`, with which delays wait.
const LOOPS: (u32, u32) = (5, 17);

/// All of them.
#[must_use]
pub fn checks(facts: &Facts) -> Vec<Check> {
    vec![
        release(facts),
        btf(facts),
        jit(facts),
        jit_harden(facts),
        lockdown(facts),
        kptr_restrict(facts),
        tracefs(facts),
    ]
}

fn check(name: &str, status: Status, value: impl Into<String>) -> Check {
    Check::new(Group::Host, name, status, value)
}

/// Major and minor number of `6.1.0-9-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn release(facts: &Facts) -> Check {
    let release = facts.release.as_deref().unwrap_or_default();
    match version(release) {
        None => check("kernel", Skip, "unknown").because("/proc does not tell its version"),
        Some(version) if version < OLDEST => check("kernel", Warn, release)
            .because("5.10 is the oldest that iolag was tried on")
            .remedy("boot a newer kernel"),
        Some(version) if version < LOOPS => check("kernel", Status::Ok, release).because(
            "before 5.17 (bpf_loop) waits are bounded loops, and --every and --max-hits may be off by one a CPU",
        ),
        Some(_) => check("kernel", Status::Ok, release),
    }
}

fn btf(facts: &Facts) -> Check {
    const LOST: &str =
        "without it there is no fentry, no measuring, no rule at fn:NAME, and no filter of rules";
    let remedy = "a kernel with CONFIG_DEBUG_INFO_BTF=y, and its /sys mounted";
    match &facts.btf {
        Btf::Bytes(bytes) => check("btf", Status::Ok, format!("{} KiB", bytes >> 10)),
        Btf::Missing => check("btf", Warn, "none").because(LOST).remedy(remedy),
        Btf::Unreadable(why) => check("btf", Warn, "unreadable")
            .because(format!("/sys/kernel/btf/vmlinux: {why}; {LOST}"))
            .remedy("let root read it"),
        Btf::Implausible(why) => check("btf", Warn, "broken")
            .because(format!("/sys/kernel/btf/vmlinux: {why}; {LOST}"))
            .remedy(remedy),
    }
}

/// The kernel takes callbacks, of which `bpf_loop` needs one, only from programs that it compiles
/// (`fixup_call_args`, kernel/bpf/verifier.c).
fn jit(facts: &Facts) -> Check {
    match facts.jit.as_deref() {
        None => {
            check("jit", Skip, "unknown").because("/proc does not tell net.core.bpf_jit_enable")
        }
        Some("0") => check("jit", Warn, "off")
            .because("the kernel then refuses bpf_loop, which all delays wait with")
            .remedy("sysctl net.core.bpf_jit_enable=1"),
        Some("1") => check("jit", Status::Ok, "on"),
        Some(mode) => check("jit", Warn, format!("on, mode {mode}"))
            .because("the kernel writes each program to its log, for debugging")
            .remedy("sysctl net.core.bpf_jit_enable=1"),
    }
}

fn jit_harden(facts: &Facts) -> Check {
    match facts.jit_harden.as_deref() {
        None => check("jit_harden", Skip, "unknown")
            .because("/proc does not tell net.core.bpf_jit_harden, or only to root"),
        Some("2") => check("jit_harden", Warn, "for all programs")
            .because("constants are hidden in root's programs too: each hit costs a little more")
            .remedy("sysctl net.core.bpf_jit_harden=1, where overhead matters"),
        Some("1") => check("jit_harden", Status::Ok, "not for root's programs"),
        Some(_) => check("jit_harden", Status::Ok, "off"),
    }
}

fn lockdown(facts: &Facts) -> Check {
    match facts.lockdown.as_deref().map(chosen) {
        None => check("lockdown", Skip, "unknown").because(
            "there is no /sys/kernel/security/lockdown: it is not built in, or securityfs is not mounted",
        ),
        Some(mode @ "confidentiality") => check("lockdown", Warn, mode)
            .because("programs may not read the kernel's memory, and kprobes are refused")
            .remedy("boot with lockdown=integrity, or without secure boot"),
        Some(mode) => check("lockdown", Status::Ok, mode),
    }
}

fn kptr_restrict(facts: &Facts) -> Check {
    match facts.kptr_restrict.as_deref() {
        None => check("kptr_restrict", Skip, "unknown")
            .because("/proc does not tell kernel.kptr_restrict"),
        Some("2") => check("kptr_restrict", Warn, "2")
            .because(
                "the kernel tells nobody its addresses: no rules at fn:NAME, and measuring by \
                 kprobe cannot count the returns that it loses",
            )
            .remedy("sysctl kernel.kptr_restrict=1"),
        Some(value) => check("kptr_restrict", Status::Ok, value),
    }
}

fn tracefs(facts: &Facts) -> Check {
    const USE: &str = "iolag attaches without it; it only tells why a function cannot be traced";
    match &facts.tracefs {
        Some(place) => check("tracefs", Status::Ok, place.display().to_string()),
        None => check("tracefs", Status::Ok, "not mounted").because(USE),
    }
}

#[cfg(test)]
mod tests {
    use iolag_tests::btf::{hostile, sound};

    use super::*;
    use crate::doctor::facts::fixture::{Fixture, facts};

    fn has(check: &Check, status: Status, words: &[&str]) {
        let text = format!("{check:?}");
        assert_eq!(check.status, status, "{text}");
        assert!(check.reason.is_some() || status == Status::Ok, "{text}");
        assert_eq!(check.remedy.is_some(), status == Warn, "{text}");
        for word in words {
            assert!(text.contains(word), "no {word} in {text}");
        }
    }

    #[test]
    fn old_kernels_are_told() {
        let of = |text| release(&facts(&[("proc/sys/kernel/osrelease", text)]));
        has(&of("6.18.44-fc\n"), Status::Ok, &["6.18.44-fc"]);
        has(&of("5.17-rc1\n"), Status::Ok, &[]);
        has(&of("5.14.0-503.el9.x86_64\n"), Status::Ok, &["bpf_loop"]);
        has(&of("4.19\n"), Warn, &["5.10"]);
        has(&of("plan9\n"), Skip, &[]);
        has(&release(&facts(&[])), Skip, &[]);
    }

    #[test]
    fn btf_is_there_missing_or_broken() {
        const FILE: &str = "sys/kernel/btf/vmlinux";
        has(&btf(&facts(&[])), Warn, &["none", "CONFIG_DEBUG_INFO_BTF"]);
        has(
            &btf(&facts(&[(FILE, "short")])),
            Warn,
            &["broken", "shorter"],
        );
        has(
            &btf(&facts(&[(FILE, &"x".repeat(100))])),
            Warn,
            &["does not begin"],
        );
        let of = |bytes: &[u8]| {
            let fixture = Fixture::new(&[]);
            fixture.write(FILE, bytes);
            btf(&fixture.facts())
        };
        has(&of(&sound().bytes()), Status::Ok, &["KiB"]);
        for (name, words, bytes) in hostile() {
            if bytes.len() < 1 << 20 {
                println!("{name}");
                has(&of(&bytes), Warn, &["broken", words]);
            }
        }
        let fixture = Fixture::new(&[]);
        fixture.write(&format!("{FILE}/directory"), b"");
        has(&btf(&fixture.facts()), Warn, &["unreadable"]);
    }

    #[test]
    fn the_jit_has_to_be_on() {
        let of = |text| jit(&facts(&[("proc/sys/net/core/bpf_jit_enable", text)]));
        has(&of("1\n"), Status::Ok, &["on"]);
        has(&of("0\n"), Warn, &["off", "bpf_jit_enable=1"]);
        has(&of("2\n"), Warn, &["log"]);
        has(&jit(&facts(&[])), Skip, &[]);
    }

    #[test]
    fn hardening_that_meets_root_is_told() {
        let of = |text| jit_harden(&facts(&[("proc/sys/net/core/bpf_jit_harden", text)]));
        has(&of("0\n"), Status::Ok, &["off"]);
        has(&of("1\n"), Status::Ok, &["root"]);
        has(&of("2\n"), Warn, &["costs"]);
        has(&jit_harden(&facts(&[])), Skip, &[]);
    }

    #[test]
    fn lockdown_is_the_word_in_brackets() {
        let of = |text| lockdown(&facts(&[("sys/kernel/security/lockdown", text)]));
        has(
            &of("[none] integrity confidentiality\n"),
            Status::Ok,
            &["none"],
        );
        has(
            &of("none [integrity] confidentiality\n"),
            Status::Ok,
            &["integrity"],
        );
        has(
            &of("none integrity [confidentiality]\n"),
            Warn,
            &["kprobes"],
        );
        has(&lockdown(&facts(&[])), Skip, &["securityfs"]);
    }

    #[test]
    fn hidden_addresses_are_told() {
        let of = |text| kptr_restrict(&facts(&[("proc/sys/kernel/kptr_restrict", text)]));
        has(&of("0\n"), Status::Ok, &["0"]);
        has(&of("1\n"), Status::Ok, &["1"]);
        has(&of("2\n"), Warn, &["fn:NAME"]);
        has(&kptr_restrict(&facts(&[])), Skip, &[]);
    }

    #[test]
    fn tracefs_is_no_need() {
        let mounts = "tracefs /sys/kernel/tracing tracefs rw 0 0\n";
        has(
            &tracefs(&facts(&[("proc/self/mounts", mounts)])),
            Status::Ok,
            &["/sys/kernel/tracing"],
        );
        has(
            &tracefs(&facts(&[])),
            Status::Ok,
            &["not mounted", "without it"],
        );
    }
}
