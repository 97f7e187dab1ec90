//! PID 1: set-up, one process per test, verdict, power off.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::guest;
use crate::tests::{SKIPPED, TESTS};

/// A test that takes longer than this hangs, and is ended. An emulated machine is several times slower than its host, and
/// slower again beside another: of `matrix` 100 s and 200 s were seen, on a host that is at times half as fast.
const TEST_LIMIT: Duration = Duration::from_secs(900);
/// The same where faults are tried as often as the documents say: half an hour of work, and what is around it.
const LONG_TEST_LIMIT: Duration = Duration::from_secs(3600);

#[derive(Default)]
struct Verdict {
    passed: usize,
    failed: usize,
    skipped: usize,
}

/// Runs the machine. Returns only where it cannot be powered off, and the kernel then panics, which the host sees.
pub fn main() -> ExitCode {
    println!("iolag-vm: start {}", kernel_release());
    let verdict = run().unwrap_or_else(|error| {
        println!("iolag-vm: test machine ... FAILED: {error:#}");
        Verdict {
            failed: 1,
            ..Verdict::default()
        }
    });
    println!(
        "iolag-vm: verdict: {} passed, {} failed, {} skipped",
        verdict.passed, verdict.failed, verdict.skipped
    );
    power_off()
}

fn run() -> Result<Verdict> {
    guest::mount_all()?;
    let arguments = std::fs::read_to_string("/proc/cmdline")
        .context("failed to read the kernel's command line")?;
    let wanted = wanted(&arguments);
    if wanted.contains(&"none") {
        // The host only wants to know whether a machine of this kind boots.
        return Ok(Verdict::default());
    }
    guest::mount_disk()?;
    // SAFETY: no other thread runs that could read the environment at the same time.
    unsafe { std::env::set_var("PATH", "/:/bin") };
    let long = arguments
        .split_whitespace()
        .any(|word| word == "iolag.long");
    if long {
        // SAFETY: as above.
        unsafe { std::env::set_var("IOLAG_LONG", "1") };
    }
    let limit = if long { LONG_TEST_LIMIT } else { TEST_LIMIT };
    let mut verdict = Verdict::default();
    if wanted == ["bench"] {
        bench()?;
        verdict.passed += 1;
        return Ok(verdict);
    }
    for test in TESTS
        .iter()
        .filter(|test| wanted.is_empty() || wanted.iter().any(|part| test.name.contains(part)))
    {
        match run_test(test.name, limit) {
            Ok(status) if status.success() => verdict.passed += 1,
            Ok(status) if status.code() == Some(SKIPPED.into()) => verdict.skipped += 1,
            Ok(status) => {
                // A test that failed said so by itself; one that was killed could not.
                if let Some(signal) = status.signal() {
                    println!(
                        "iolag-vm: test {} ... FAILED: killed by signal {signal}",
                        test.name
                    );
                }
                verdict.failed += 1;
            }
            Err(error) => {
                println!("iolag-vm: test {} ... FAILED: {error:#}", test.name);
                verdict.failed += 1;
            }
        }
    }
    Ok(verdict)
}

/// Runs the program that `cargo xtask bench` put into this machine; the host reads its rows off the console.
fn bench() -> Result<()> {
    let mut bench = Command::new("/bench");
    bench.args(["fentry", "kprobe", "tp", "--light"]);
    let status = bench
        .env("IOLAG_BENCH_DIR", guest::MOUNT)
        .status()
        .context("failed to run /bench")?;
    if !status.success() {
        bail!("/bench: {status}");
    }
    Ok(())
}

/// The names in `iolag.tests=a,b` on the kernel's command line; none stands for all.
fn wanted(arguments: &str) -> Vec<&str> {
    let list = arguments
        .split_whitespace()
        .find_map(|argument| argument.strip_prefix("iolag.tests="));
    list.unwrap_or_default()
        .split(',')
        .filter(|name| !name.is_empty())
        .collect()
}

/// Runs a test as a process of its own, so that a crash ends only that test, and ends what it leaves behind.
fn run_test(name: &str, limit: Duration) -> Result<ExitStatus> {
    let child = Command::new("/init")
        .args(["--test", name])
        .process_group(0)
        .spawn()
        .context("failed to start")?;
    let pid = i32::try_from(child.id()).context("failed to read the process id")?;
    let result = wait_for(pid, Instant::now() + limit)
        .with_context(|| format!("not done within {} s", limit.as_secs()));
    // SAFETY: signals have no memory effects; the group is the one of the test, whose number is not in use otherwise.
    unsafe { libc::kill(-pid, libc::SIGKILL) };
    result
}

/// Waits for one child, and reaps every orphan that ends meanwhile: all processes of the machine become children of
/// PID 1 when their parents die.
fn wait_for(pid: i32, end: Instant) -> Result<ExitStatus> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is valid for the time of the call.
        match unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) } {
            reaped if reaped == pid => return Ok(ExitStatus::from_raw(status)),
            0 => {
                if Instant::now() >= end {
                    bail!("timed out");
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            reaped if reaped < 0 => {
                return Err(io::Error::last_os_error()).context("failed to wait");
            }
            _ => {}
        }
    }
}

fn kernel_release() -> String {
    // Before anything is mounted, so not from /proc.
    let mut name = std::mem::MaybeUninit::<libc::utsname>::uninit();
    // SAFETY: `name` has room for the answer.
    if unsafe { libc::uname(name.as_mut_ptr()) } != 0 {
        return "unknown kernel".into();
    }
    // SAFETY: uname succeeded, so it filled `name`.
    let name = unsafe { name.assume_init() };
    let bytes: Vec<u8> = name
        .release
        .iter()
        .take_while(|c| **c != 0)
        .map(|c| c.cast_unsigned())
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn power_off() -> ExitCode {
    // SAFETY: neither call takes a pointer.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_named_on_the_command_line() {
        assert_eq!(wanted("console=ttyS0 iolag.tests=a,b quiet\n"), ["a", "b"]);
        assert!(wanted("console=ttyS0 quiet").is_empty());
    }
}
