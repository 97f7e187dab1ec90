//! The probe `vfs` against the caller's own counts, fio and the injector. `backend` is the one that the
//! delays and the probe are both attached through.

use std::{
    ffi::CString,
    fs,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::Place;
use crate::{
    agent::Agent,
    dump::{Dump, Sum, width},
    fio,
    timing::median,
};

/// An agent with the probe loaded, its series told apart by `keys`.
fn agent(place: &Place<'_>, backend: &str, keys: &str) -> Result<Agent> {
    let agent = Agent::start(place.program, &["--backend", backend])?;
    agent.call(&["probe", "load", "vfs", "--by", keys, "--backend", backend])?;
    Ok(agent)
}

/// Runs `work` in a thread whose command is `comm`.
///
/// # Errors
/// Those of `work`.
pub fn as_command<T: Send>(comm: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let name = CString::new(comm)?;
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                // SAFETY: a C string for the time of the call, which copies it.
                unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
                work()
            })
            .join()
            .map_err(|_| anyhow::anyhow!("the thread {comm} panicked"))?
    })
}

/// A file opened for reading and writing, and its path.
pub struct Target {
    fd: OwnedFd,
    path: CString,
}

impl Target {
    fn new(path: &Path) -> Result<Self> {
        fs::write(path, [0; 4096])?;
        let file = fs::File::options().read(true).write(true).open(path)?;
        Ok(Self {
            fd: file.into(),
            path: CString::new(path.as_os_str().as_bytes())?,
        })
    }

    /// In memory: fsync is nothing there, and nothing else is slow.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn in_memory() -> Result<Self> {
        // SAFETY: a C string; the descriptor is ours alone.
        let fd = unsafe {
            let fd = libc::memfd_create(c"iolag".as_ptr(), libc::MFD_CLOEXEC);
            ensure!(fd >= 0, "no file in memory");
            OwnedFd::from_raw_fd(fd)
        };
        let path = CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
        let target = Self { fd, path };
        target.times("write", 1)?;
        Ok(target)
    }

    /// `count` plain system calls, and how long each took by the caller's clock (ns).
    ///
    /// # Errors
    /// One of them fails.
    pub fn times(&self, op: &str, count: usize) -> Result<Vec<u64>> {
        let fd = self.fd.as_raw_fd();
        let mut byte = 0u8;
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let start = Instant::now();
            // SAFETY: one byte is readable and writable, the path is a C string, the descriptor is open.
            let result = unsafe {
                match op {
                    "read" => libc::pread(fd, (&raw mut byte).cast(), 1, 0),
                    "write" => libc::pwrite(fd, (&raw const byte).cast(), 1, 0),
                    "fsync" => libc::fsync(fd) as isize,
                    "fdatasync" => libc::fdatasync(fd) as isize,
                    "open" => {
                        let opened = libc::open(self.path.as_ptr(), libc::O_RDONLY);
                        if opened >= 0 {
                            drop(OwnedFd::from_raw_fd(opened));
                        }
                        opened as isize
                    }
                    other => bail!("no operation {other}"),
                }
            };
            times.push(start.elapsed().as_nanos() as u64);
            ensure!(
                result >= 0,
                "{op} failed: {}",
                std::io::Error::last_os_error()
            );
        }
        Ok(times)
    }
}

/// # Errors
/// The ledger has losses.
pub fn no_losses(dump: &Dump) -> Result<()> {
    ensure!(
        dump.losses()? == 0,
        "the ledger has losses: {}",
        dump.0["ledger"]
    );
    Ok(())
}

/// Every call is counted once, under its operation, command, device and file system.
///
/// # Errors
/// A count is off by one or more.
pub fn counts_are_exact(place: &Place<'_>, backend: &str) -> Result<()> {
    const COMM: &str = "iolag-counts";
    let path = place.dir.join("iolag-vfs-counts");
    let target = Target::new(&path)?;
    let agent = agent(place, backend, "op,comm,device,fs")?;
    let calls = [("read", 1_000), ("write", 700), ("open", 300)];
    as_command(COMM, || {
        calls
            .iter()
            .try_for_each(|(op, count)| target.times(op, *count).map(drop))
    })?;
    let dump = agent.dump("vfs", &["--by", "op,comm,device,fs"])?;
    let (device, fs_type) = (device_of(&path)?, fs_of(&path)?);
    for (op, count) in calls {
        let all = dump.sum(&[("comm", COMM), ("op", op)], "latency").count;
        let labels = [
            ("comm", COMM),
            ("op", op),
            ("device", &device),
            ("fs", &fs_type),
        ];
        let here = dump.sum(&labels, "latency").count;
        println!("{backend} {op}: {here} of {count} on {device} ({fs_type}), {all} in all");
        ensure!(
            here == count as u64 && all == here,
            "{op}: {here} on {device} ({fs_type}) and {all} in all, not {count}"
        );
    }
    fs::remove_file(path)?;
    no_losses(&dump)
}

/// The name that the device of a file has in /sys, or its numbers.
fn device_of(path: &Path) -> Result<String> {
    let device = fs::metadata(path)?.dev();
    let numbers = format!("{}:{}", libc::major(device), libc::minor(device));
    Ok(fs::read_link(format!("/sys/dev/block/{numbers}"))
        .ok()
        .and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()))
        .unwrap_or(numbers))
}

/// The type of the file system that a file is on, by the longest mount point above it.
fn fs_of(path: &Path) -> Result<String> {
    let path = fs::canonicalize(path)?;
    let table = fs::read_to_string("/proc/self/mounts")?;
    table
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (_, target, kind) = (words.next()?, words.next()?, words.next()?);
            path.starts_with(target).then_some((target.len(), kind))
        })
        // Of two at the same place, the later one lies on top.
        .max_by_key(|(length, _)| *length)
        .map(|(_, kind)| kind.to_owned())
        .context("no mount point above the file")
}

/// Anchor 8: `vfs_fsync` is not on the path of fsync(2). Both calls are seen, each once.
///
/// # Errors
/// They are not.
pub fn anchor_8_fsync_and_fdatasync_are_seen(place: &Place<'_>, backend: &str) -> Result<()> {
    let path = place.dir.join("iolag-vfs-fsync");
    let target = Target::new(&path)?;
    let agent = agent(place, backend, "op,comm")?;
    for (op, comm) in [("fsync", "iolag-fsync"), ("fdatasync", "iolag-fdatasync")] {
        as_command(comm, || target.times(op, 10))?;
        let dump = agent.dump("vfs", &["--by", "op,comm"])?;
        let seen = dump
            .sum(&[("comm", comm), ("op", "fsync")], "latency")
            .count;
        ensure!(seen == 10, "{op}: {seen} seen of 10");
        no_losses(&dump)?;
    }
    fs::remove_file(path)?;
    Ok(())
}

const ORACLE_OPS: [&str; 4] = ["read", "write", "open", "fsync"];
const ORACLE: &str = "iolag-oracle";
const ORACLE_CALLS: usize = 40;

/// What the oracle's own command did with an operation.
struct Run {
    op: &'static str,
    ours: Sum,
    /// By the caller's clock.
    median_ns: u64,
}

/// Runs the oracle's command, with a delay if there is one.
fn oracle_run(agent: &Agent, target: &Target, delay: Option<(&Agent, &str)>) -> Result<Vec<Run>> {
    let args = ["--by", "op,comm", "--filter", "comm=iolag-oracle"];
    let before = agent.dump("vfs", &args)?;
    if let Some((injector, delay)) = delay {
        injector.call(&["set", delay])?;
    }
    let done = as_command(ORACLE, || {
        ORACLE_OPS
            .iter()
            .map(|op| target.times(op, ORACLE_CALLS))
            .collect::<Result<Vec<_>>>()
    });
    if let Some((injector, _)) = delay {
        injector.call(&["set", "0"])?;
    }
    let after = agent.dump("vfs", &args)?;
    Ok(ORACLE_OPS
        .iter()
        .zip(done?)
        .map(|(op, times)| {
            let of = |dump: &Dump| dump.sum(&[("op", op)], "latency");
            Run {
                op,
                ours: of(&after).since(&of(&before)),
                median_ns: median(times),
            }
        })
        .collect())
}

/// The injector is the oracle: read, write and open take longer by what it injects, within one bucket, and
/// fsync does not.
///
/// # Errors
/// They do not.
pub fn injected_delays_show_and_nowhere_else(place: &Place<'_>, backend: &str) -> Result<()> {
    let agent = agent(place, backend, "op,comm")?;
    let target = Target::in_memory()?;
    for (delay, delay_ns) in [("1ms", 1_000_000), ("5ms", 5_000_000)] {
        let plain = oracle_run(&agent, &target, None)?;
        let slow = oracle_run(&agent, &target, Some((&agent, delay)))?;
        for (plain, slow) in plain.iter().zip(&slow) {
            moved_by(place, delay_ns, plain, slow)
                .with_context(|| format!("{backend} {}, {delay}", plain.op))?;
        }
    }
    no_losses(&agent.dump("vfs", &["--by", "op"])?)
}

/// A wait burns the CPU, and where others want it too, a call that waited is often put aside before it ends.
/// So what was injected is looked for in the fastest tenth of the calls, and the median is compared with the
/// caller's own.
fn moved_by(place: &Place<'_>, delay_ns: u64, plain: &Run, slow: &Run) -> Result<()> {
    let (from, to) = (plain.ours.quantile(0.1), slow.ours.quantile(0.1));
    let middle = slow.ours.quantile(0.5);
    println!(
        "{}, {delay_ns} ns: {from:?} -> {to:?}, median {middle:?}, the caller's {} ns",
        slow.op, slow.median_ns
    );
    let count = slow.ours.count;
    ensure!(count == ORACLE_CALLS as u64, "{count} of {ORACLE_CALLS}");
    let slack = width(middle.1) + if place.emulated { 50_000 } else { 2_000 };
    ensure!(
        (middle.0.saturating_sub(slack)..=middle.1 + slack).contains(&slow.median_ns),
        "the median is {middle:?}, the caller's own {} ns",
        slow.median_ns
    );
    if slow.op == "fsync" {
        ensure!(to.1 < delay_ns / 2, "it moved to {to:?}");
        return Ok(());
    }
    let expected = (from.0 + delay_ns, from.1 + delay_ns);
    ensure!(
        within_one_bucket(to, expected),
        "{to:?} ns, expected {expected:?}"
    );
    Ok(())
}

/// Whether two ranges overlap, or lie one bucket apart at most.
fn within_one_bucket(bucket: (u64, u64), expected: (u64, u64)) -> bool {
    let slack = width(bucket.0).max(width(expected.1));
    bucket.0 <= expected.1 + slack && bucket.1 + slack >= expected.0
}

/// Programs at one place run in the order that the kernel chooses: at a tracepoint as attached, at a function
/// the last one first. One agent sees its own delays in either case; of another agent's, attached after the
/// probe, `tp` sees the delay, and the functions do not.
///
/// # Errors
/// It is otherwise.
pub fn delays_attached_later_show_at_tracepoints_only(
    place: &Place<'_>,
    backend: &str,
) -> Result<()> {
    let agent = agent(place, backend, "op,comm")?;
    let injector = Agent::start(place.program, &["--backend", backend])?;
    let slow = oracle_run(&agent, &Target::in_memory()?, Some((&injector, "1ms")))?;
    let (least, _) = slow[0].ours.quantile(0.1);
    let seen = least >= 875_000;
    ensure!(
        seen == (backend == "tp"),
        "{backend}: a delay attached later is seen: {seen} ({least} ns)"
    );
    Ok(())
}

/// Quantiles that fio is asked for.
const QUANTILES: [(&str, f64); 3] = [
    ("50.000000", 0.5),
    ("99.000000", 0.99),
    ("99.900000", 0.999),
];

/// fio's own completion latencies and ours agree within one bucket and 2 us, by operation.
///
/// # Errors
/// They do not.
pub fn latencies_agree_with_fio(place: &Place<'_>, backend: &str) -> Result<()> {
    let path = place.dir.join("iolag-vfs-fio");
    let job = || {
        let mut command = (place.fio)();
        command
            .args(["--rw=randrw", "--size=64M"])
            .arg(format!("--filename={}", path.display()));
        command
    };
    // What fio writes to lay the file out is no part of the job.
    let mut layout = job();
    layout.arg("--create_only=1");
    fio::psync_direct(layout)?;
    let agent = agent(place, backend, "op,comm,device")?;
    let mut command = job();
    let program = Path::new(command.get_program())
        .file_name()
        .context("fio has no name")?;
    let comm: String = program.to_string_lossy().chars().take(15).collect();
    command
        .args(["--time_based", "--percentile_list=50:99:99.9"])
        // Long enough for the tail on real hardware; in an emulator, to be run at all.
        .arg(if place.emulated {
            "--runtime=5"
        } else {
            "--runtime=30"
        });
    let report = fio::psync_direct(command)?;
    let device = device_of(&path)?;
    fs::remove_file(&path)?;
    let filter = format!("comm={comm}");
    let dump = agent.dump("vfs", &["--by", "op,comm,device", "--filter", &filter])?;
    // The emulator stops the clock of whoever reads it for as long as it translates code.
    let slack_ns = if place.emulated { 50_000 } else { 2_000 };
    for op in ["read", "write"] {
        let ours = dump.sum(&[("op", op), ("device", &device)], "latency");
        let theirs = &report["jobs"][0][op];
        let ios = theirs["total_ios"].as_u64().context("no total_ios")?;
        println!("{backend} {op}: fio did {ios}, {} seen", ours.count);
        ensure!(
            ours.count >= ios && ours.count <= ios + ios / 100 + 200,
            "{op}: {} seen of {ios}",
            ours.count
        );
        for (name, q) in QUANTILES {
            let fio_ns = theirs["clat_ns"]["percentile"][name]
                .as_u64()
                .with_context(|| format!("fio has no {name}"))?;
            let (low, high) = ours.quantile(q);
            println!("{backend} {op} p{name}: fio {fio_ns}, ours {low}..{high} ns");
            let slack = slack_ns + width(high);
            ensure!(
                (low.saturating_sub(slack)..=high + slack).contains(&fio_ns),
                "{op} p{name}: fio says {fio_ns} ns, we {low} to {high}"
            );
        }
    }
    no_losses(&dump)
}

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
