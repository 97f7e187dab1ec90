//! What is done while programs are measured.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::fs::FileExt as _, unix::fs::OpenOptionsExt as _},
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

/// A directory on a disk, where the one of this program is not on any.
const DIRECTORY: &str = "IOLAG_BENCH_DIR";
/// fio, if it is not on PATH.
const FIO: &str = "IOLAG_FIO";

/// Does it in a process of its own: this one is an agent to the programs, and exempt.
pub fn elsewhere(work: impl FnOnce() -> Result<()>) -> Result<()> {
    // SAFETY: the child does nothing but the work, whose memory it has a copy of, and ends without any clean-up.
    match unsafe { libc::fork() } {
        0 => {
            let code = i32::from(work().is_err());
            // SAFETY: no preconditions.
            unsafe { libc::_exit(code) }
        }
        child => {
            ensure!(child > 0, "failed to fork");
            let mut status = 0;
            // SAFETY: our child, and a word for its status.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            ensure!(waited == child && status == 0, "the load failed: {status}");
            Ok(())
        }
    }
}

/// Calls of read(2), one byte each.
pub fn reads(count: usize) -> Result<()> {
    let zero = File::open("/dev/zero")?;
    let mut byte = 0u8;
    for _ in 0..count {
        // SAFETY: one byte is writable.
        let read = unsafe { libc::read(zero.as_raw_fd(), (&raw mut byte).cast(), 1) };
        ensure!(read == 1, "failed to read /dev/zero");
    }
    Ok(())
}

/// Direct reads of 4 KiB.
pub fn requests(count: u64) -> Result<()> {
    let file = DirectFile::new()?;
    (0..count).try_for_each(|block| file.read(block))
}

/// A file of 1 MiB whose reads go to the disk; it has no name and goes when this does.
struct DirectFile(File);

impl DirectFile {
    fn new() -> Result<Self> {
        let path = path("bench-data");
        std::fs::write(&path, vec![1u8; 1 << 20])?;
        File::open(&path)?.sync_all()?;
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path);
        std::fs::remove_file(&path)?;
        Ok(Self(
            file.context("failed to open a file for direct reads")?,
        ))
    }

    fn read(&self, block: u64) -> Result<()> {
        let mut pages = [0u8; 8192];
        let offset = pages.as_ptr().align_offset(4096);
        self.0
            .read_exact_at(&mut pages[offset..offset + 4096], block % 256 * 4096)
            .context("failed to read directly")
    }
}

/// 10,000 direct random reads of 4 KiB by fio, one after the other.
pub fn fio() -> Result<()> {
    let program = std::env::var_os(FIO).unwrap_or_else(|| "fio".into());
    let status = Command::new(program)
        .args(["--name=bench", "--rw=randread", "--bs=4k", "--direct=1"])
        .args(["--ioengine=psync", "--size=64M", "--io_size=40M"])
        .arg(format!("--filename={}", path("fio-data").display()))
        .stdout(Stdio::null())
        .status()
        .context("failed to run fio")?;
    ensure!(status.success(), "failed to read with fio: {status}");
    Ok(())
}

/// Two threads that wake each other 20,000 times through pipes, and four that wait for timers meanwhile.
pub fn wakeups() -> Result<()> {
    with_sleepers(|| {
        let (mut from_here, mut to_there) = std::io::pipe()?;
        let (mut from_there, mut to_here) = std::io::pipe()?;
        let answers = std::thread::spawn(move || -> std::io::Result<()> {
            let mut byte = [0];
            while from_here.read(&mut byte)? > 0 {
                to_here.write_all(&byte)?;
            }
            Ok(())
        });
        let mut byte = [0];
        for _ in 0..20_000 {
            to_there.write_all(&byte)?;
            from_there.read_exact(&mut byte)?;
        }
        drop(to_there);
        Ok(answers.join().expect("passing a byte does not panic")?)
    })
}

/// fio's reads, while four threads wait for timers.
pub fn interrupts() -> Result<()> {
    with_sleepers(fio)
}

fn with_sleepers(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_micros(500));
                }
            });
        }
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

/// As many threads, one after the other, each with a name of its own and one direct read.
pub fn named_threads(count: usize) -> Result<()> {
    let file = DirectFile::new()?;
    for number in 0..count {
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name(format!("task-{number}"))
                .spawn_scoped(scope, || file.read(number as u64))
                .context("failed to start a thread")?
                .join()
                .expect("reading does not panic")
        })?;
    }
    Ok(())
}

/// A file beside this program, or in the directory that was given.
fn path(name: &str) -> PathBuf {
    match std::env::var_os(DIRECTORY) {
        Some(directory) => PathBuf::from(directory).join(name),
        None => std::env::current_exe()
            .unwrap_or_default()
            .with_extension(name),
    }
}
