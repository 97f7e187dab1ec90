//! Reclaim and major faults, by the probe `memory`, against the kernel's own counts.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::fd::AsRawFd as _,
    path::Path,
    time::Instant,
};

use anyhow::{Result, ensure};

use super::Place;
use crate::{agent::Agent, memcg::MemoryCgroup};

const MIB: usize = 1 << 20;

/// Reclaim at a cgroup's limit: seen where it happens, in no longer than it can have taken, and the books
/// balance.
///
/// # Errors
/// They do not.
pub fn memcg_reclaim_is_seen_and_the_books_balance(place: &Place<'_>) -> Result<()> {
    let cgroup = MemoryCgroup::new("iolag-reclaim", 16 * MIB as u64)?;
    let agent = Agent::start(place.program, &[])?;
    agent.call(&["probe", "load", "memory", "--by", "comm"])?;
    let file = place.dir.join("iolag-reclaim");
    make_file(&file, 64 * MIB)?;
    let begun = Instant::now();
    let reader = cgroup.run("iolag-reclaim", || {
        let mut buffer = vec![0; MIB];
        let mut file = fs::File::open(&file).expect("made before");
        while file.read(&mut buffer).expect("it is a file") > 0 {}
    });
    let took = begun.elapsed();
    reader?;
    let dump = agent.dump("memory", &["--by", "comm"])?;
    let reclaims = dump.sum(&[("comm", "iolag-reclaim")], "memcg_reclaim");
    println!(
        "{} reclaims, {} ns in {took:?}",
        reclaims.count, reclaims.sum
    );
    ensure!(reclaims.count > 0, "nothing was reclaimed");
    ensure!(u128::from(reclaims.sum) <= took.as_nanos(), "too long");
    let [starts, ends, abandoned, lost] =
        ["starts", "completions", "abandoned", "lost"].map(|name| dump.ledger(name));
    ensure!(
        starts? == ends? + abandoned? + lost?,
        "{}",
        dump.0["ledger"]
    );
    fs::remove_file(&file)?;
    Ok(())
}

/// A file whose pages are on the disk and not in memory.
fn make_file(path: &Path, bytes: usize) -> Result<()> {
    let mut file = fs::File::create(path)?;
    for _ in 0..bytes / MIB {
        file.write_all(&vec![7; MIB])?;
    }
    file.sync_all()?;
    // SAFETY: no memory is involved.
    let result = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    ensure!(result == 0, "failed to drop the pages: {result}");
    Ok(())
}

/// Major faults of a thread, by its command: exactly as many as the kernel counted for it.
///
/// # Errors
/// The counts differ.
pub fn major_faults_are_as_many_as_getrusage_says(place: &Place<'_>) -> Result<()> {
    let agent = Agent::start(place.program, &[])?;
    agent.call(&["probe", "load", "memory", "--by", "comm"])?;
    let file = place.dir.join("iolag-faults");
    make_file(&file, 2 * MIB)?;
    let expected = std::thread::scope(|scope| scope.spawn(|| touch_all(&file, 2 * MIB)).join());
    let expected = expected.expect("it does not panic")?;
    let dump = agent.dump("memory", &["--by", "comm"])?;
    let ours = dump.sum(&[("comm", "iolag-faults")], "major_fault").count;
    println!("major faults: {ours}, by getrusage {expected}");
    ensure!(
        ours == expected,
        "{ours} major faults, the kernel counted {expected}"
    );
    ensure!(expected > 100, "hardly any page came from the disk");
    fs::remove_file(&file)?;
    Ok(())
}

/// Touches each page, one read each; returns the thread's major faults meanwhile.
fn touch_all(path: &Path, bytes: usize) -> Result<u64> {
    let file = fs::File::open(path)?;
    // SAFETY: a mapping of its own, read within its bounds; names are C strings.
    unsafe {
        let start = libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        );
        ensure!(
            start != libc::MAP_FAILED,
            "failed to map {}",
            path.display()
        );
        libc::madvise(start, bytes, libc::MADV_RANDOM);
        let before = thread_major_faults();
        libc::prctl(libc::PR_SET_NAME, c"iolag-faults".as_ptr());
        for place in (0..bytes).step_by(4096) {
            start.cast::<u8>().add(place).read_volatile();
        }
        libc::prctl(libc::PR_SET_NAME, c"iolag-done".as_ptr());
        let faults = thread_major_faults() - before;
        libc::munmap(start, bytes);
        Ok(faults)
    }
}

fn thread_major_faults() -> u64 {
    // SAFETY: room for the answer; zeros are a value.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage.ru_majflt.cast_unsigned()
    }
}
