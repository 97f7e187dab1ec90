//! What the ledger says when tasks die, and when they were there before the probe.

use std::{
    fs,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use super::{super::Place, agent, calls::as_command, no_losses};
use crate::{dump::Dump, many_cgroups::ManyCgroups};

/// Processes forked into a blocking read, without another program that a small machine may lack.
struct Blocked(Vec<libc::pid_t>);

impl Blocked {
    /// `count` children that read from a pipe whose other end stays open and silent.
    fn new(count: usize, pipe: &OwnedFd) -> Result<Self> {
        let mut children = Self(Vec::new());
        for _ in 0..count {
            let mut byte = 0u8;
            // SAFETY: the child makes system calls only.
            match unsafe { libc::fork() } {
                // SAFETY: one byte is writable, the descriptor is open.
                0 => unsafe {
                    libc::read(pipe.as_raw_fd(), (&raw mut byte).cast(), 1);
                    libc::_exit(0)
                },
                -1 => bail!("failed to fork: {}", std::io::Error::last_os_error()),
                pid => children.0.push(pid),
            }
        }
        Ok(children)
    }

    /// Waits until all of them are inside the read.
    fn settle(&self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(10);
        for pid in &self.0 {
            while !inside_read(&format!("/proc/{pid}/syscall")) {
                ensure!(Instant::now() < end, "{pid} does not get into its read");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        for pid in &self.0 {
            // SAFETY: our own child, which is waited for; a null status is allowed.
            unsafe {
                libc::kill(*pid, libc::SIGKILL);
                libc::waitpid(*pid, std::ptr::null_mut(), 0);
            }
        }
    }
}

/// Whether a task is in one of the system calls that the probe measures, by the kernel's own word.
fn inside_read(syscall: &str) -> bool {
    let numbers = [
        libc::SYS_read,
        libc::SYS_pread64,
        libc::SYS_write,
        libc::SYS_pwrite64,
        libc::SYS_openat,
        libc::SYS_fsync,
        libc::SYS_fdatasync,
    ];
    fs::read_to_string(syscall).is_ok_and(|text| {
        let number = text.split(' ').next().and_then(|word| word.parse().ok());
        number.is_some_and(|number: i64| numbers.contains(&number))
    })
}

/// Tasks of the machine that are inside such a call now.
fn tasks_inside() -> Vec<PathBuf> {
    let list = |path: &Path| {
        fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
    };
    list(Path::new("/proc"))
        .flat_map(|process| list(&process.join("task")).collect::<Vec<_>>())
        .filter(|task| inside_read(&task.join("syscall").to_string_lossy()))
        .collect()
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors, which nobody else owns.
    unsafe {
        ensure!(
            libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) == 0,
            "no pipe"
        );
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// Starts that have not ended, by the books.
fn in_flight(dump: &Dump) -> Result<i64> {
    let of = |name: &str| dump.ledger(name).map(|count| count as i64);
    Ok(of("starts")? - of("completions")? - of("abandoned")? - of("lost")?)
}

/// Anchor 6: entries of tasks that die leak. Starts = completions + in flight + ledger, after a thousand
/// tasks were killed inside a blocking read.
///
/// # Errors
/// The books do not balance.
pub fn anchor_6_books_balance_when_tasks_die_inside(
    place: &Place<'_>,
    backend: &str,
) -> Result<()> {
    const STAY: usize = 7;
    let before = tasks_inside();
    let agent = agent(place, backend, "op")?;
    let (reader, _writer) = pipe()?;
    for _ in 0..10 {
        Blocked::new(100, &reader)?.settle()?;
    }
    let stay = Blocked::new(STAY, &reader)?;
    stay.settle()?;
    let dump = agent.dump("vfs", &["--by", "op"])?;
    let open = in_flight(&dump)?;
    let mut inside = tasks_inside();
    inside.retain(|task| !before.contains(task));
    let inside = inside.len();
    println!(
        "{backend}: {open} in flight by the books, {inside} by /proc that were not inside before; {}",
        dump.0["ledger"]
    );
    ensure!(
        dump.ledger("starts")? > 1_000,
        "the stress was not measured"
    );
    // Of kretprobes, the kernel has room for ten calls at a time: the others are in the books as lost.
    let few = backend == "kprobe";
    let least = if few { 0 } else { STAY as i64 - 2 };
    // Tasks that were inside before may be inside again, and a few come and go while the books are read.
    ensure!(
        (least..=(inside + before.len()) as i64).contains(&open),
        "{open} in flight by the books, at least {STAY} and at most {inside} inside"
    );
    if few {
        ensure!(dump.ledger("lost")? >= 800, "nothing is booked as lost");
        ensure!(dump.losses()? == dump.ledger("lost")?, "other losses");
        return Ok(());
    }
    no_losses(&dump)
}

/// A read that began before the probe was attached ends without a start: that is no loss.
///
/// # Errors
/// It is booked as one.
pub fn operations_older_than_the_probe_are_no_loss(place: &Place<'_>, backend: &str) -> Result<()> {
    let (reader, writer) = pipe()?;
    let old = Blocked::new(5, &reader)?;
    old.settle()?;
    let agent = agent(place, backend, "op")?;
    // SAFETY: five bytes are readable.
    let written = unsafe { libc::write(writer.as_raw_fd(), c"xxxxx".as_ptr().cast(), 5) };
    ensure!(written == 5, "failed to write to the pipe");
    for pid in &old.0 {
        let end = Instant::now() + Duration::from_secs(5);
        while inside_read(&format!("/proc/{pid}/syscall")) {
            ensure!(Instant::now() < end, "{pid} stays in its read");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let dump = agent.dump("vfs", &["--by", "op"])?;
    println!("{backend}: {}", dump.0["ledger"]);
    // Where the probe is not yet on the way back of a function that was entered before, nothing is seen.
    ensure!(
        backend != "tp" || dump.ledger("early")? >= 5,
        "they are not in the books"
    );
    no_losses(&dump)
}

/// More cgroups than there is room for: those that found none are counted as `other`, and when all are gone the rest
/// still stands.
///
/// # Errors
/// An operation is missing.
pub fn ten_thousand_cgroups_lose_nothing(place: &Place<'_>, backend: &str) -> Result<()> {
    const COMM: &str = "iolag-cgroups";
    const KEYS: &str = "op,comm,cgroup";
    let count = if place.emulated { 2_000 } else { 10_000 };
    let agent = agent(place, backend, KEYS)?;
    let cgroups = ManyCgroups::new("iolag-many", count)?;
    as_command(COMM, || cgroups.write_in_each())?;
    let look = || -> Result<(u64, u64)> {
        let dump = agent.dump("vfs", &["--by", KEYS])?;
        let series = dump.series(&[("comm", COMM), ("op", "write")]).len() as u64;
        let named = dump
            .sum(&[("comm", COMM), ("op", "write")], "latency")
            .count;
        let other = dump.ledger("other")?;
        println!("{named} writes in {series} series, {other} operations found no room");
        // 64 series is the least there is room for, on a machine with very many CPUs.
        ensure!(
            series > 32 && series < count as u64 && named == series,
            "{named} writes in {series} series"
        );
        // The machine's other operations found no room either; the agent's too, which looks up the names of cgroups.
        ensure!(
            named + other >= count as u64,
            "{named} and {other} of {count}"
        );
        ensure!(
            dump.0["complete"] == false,
            "the dump says that it is complete"
        );
        let rest: u64 = ["lost", "missed", "overflowed", "negative"]
            .iter()
            .map(|name| dump.ledger(name))
            .sum::<Result<_>>()?;
        ensure!(rest == 0, "the ledger has losses: {}", dump.0["ledger"]);
        Ok((series, named))
    };
    let before = look()?;
    drop(cgroups);
    let after = look()?;
    ensure!(
        before == after,
        "{before:?} while they were there, {after:?} after"
    );
    Ok(())
}
