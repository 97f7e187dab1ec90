//! Processes: with their threads, their children, and what becomes of them.

use std::{ffi::CString, fs::File, os::fd::AsRawFd as _, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::{
    CALLS, DELAY_NS, Pair, Rule, Stage, calls,
    worker::{Work, succeeds},
};

/// The namespaces that are entered.
const NEW: libc::c_int = libc::CLONE_NEWPID | libc::CLONE_NEWNS;

fn pid_of(pair: &Pair) -> String {
    pair.first.pid().to_string()
}

/// Threads belong to it, children do not.
pub fn pid(stage: &Stage) -> Result<()> {
    let mut plain = Pair::start(Work::new(calls::zero()?), Work::new(calls::zero()?))?;
    plain.differ(stage, "vfs.read", &["--pid", &pid_of(&plain)])?;
    let (first, second) = (Work::new(calls::zero()?), Work::new(calls::zero()?));
    let mut threads = Pair::start(first.by_thread(), second.by_thread())?;
    let pid = pid_of(&threads);
    threads
        .differ(stage, "vfs.read", &["--pid", &pid])
        .context("threads")?;
    let (first, second) = (Work::new(calls::zero()?), Work::new(calls::zero()?));
    let mut children = Pair::start(first.by_child(), second.by_child())?;
    let pid = pid_of(&children);
    children
        .neither(stage, "vfs.read", &["--pid", &pid])
        .context("children")
}

/// Children that are forked later, and theirs; those of others are not.
pub fn children(stage: &Stage) -> Result<()> {
    let (first, second) = (Work::new(calls::zero()?), Work::new(calls::zero()?));
    let mut pair = Pair::start(first.by_child(), second.by_child())?;
    let pid = pid_of(&pair);
    pair.differ(stage, "vfs.read", &["--pid", &pid, "--children"])?;
    let grandchild = || -> Result<Work> {
        let mut zero = calls::zero()?;
        let call = move |number| {
            // SAFETY: the child makes system calls only, and ends.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let done = zero(number);
                // SAFETY: as above.
                unsafe { libc::_exit(i32::from(!done)) };
            }
            succeeds(child)
        };
        Ok(Work::new(call).by_child())
    };
    let mut pair = Pair::start(grandchild()?, grandchild()?)?;
    let pid = pid_of(&pair);
    // A fork for each call takes longer than a tenth of the delay in an emulated machine.
    let rule = stage.rule("vfs.read", &["--pid", &pid, "--children"])?;
    exact(&mut pair, &rule, CALLS, CALLS as u64).context("grandchildren")
}

/// A round in which the first makes so many hits, by calls that are not all alike.
fn exact(pair: &mut Pair, rule: &Rule<'_>, calls: usize, hits: u64) -> Result<()> {
    pair.first.begin(calls);
    pair.second.begin(calls);
    let (slow, fast) = (pair.first.finish()?, pair.second.finish()?);
    let found = rule.new_hits()?;
    ensure!(
        found == hits,
        "{found} hits instead of {hits}; calls took {slow:?} ns, others' {fast:?} ns"
    );
    let waited: u64 = slow.iter().sum();
    ensure!(waited >= hits * DELAY_NS, "calls took {slow:?} ns");
    Ok(())
}

/// A child that becomes another program stays what it is. fio reads the file in blocks of a size that nothing else
/// reads, by a child that it forks itself.
pub fn exec(stage: &Stage) -> Result<()> {
    let Some(fio) = stage.fio else {
        println!("skipped: exec: fio is not there to become");
        return Ok(());
    };
    let become_fio = |name: &str| -> Result<Work> {
        let file = stage.file(&stage.memory, name)?;
        let mut command = fio();
        command
            .args(["--name=scope", "--rw=read", "--bs=3k", "--size=30k"])
            .args(["--ioengine=psync", "--invalidate=0", "--output=/dev/null"])
            .arg(format!("--filename={}", file.display()));
        becoming(&command)
    };
    let mut pair = Pair::start(become_fio("exec-1")?, become_fio("exec-2")?)?;
    let pid = pid_of(&pair);
    let filters = ["--pid", &pid, "--children", "--size", "3072"];
    let rule = stage.rule("vfs.read", &filters)?;
    exact(&mut pair, &rule, 1, CALLS as u64)
}

/// Each call is a child that becomes the command, and its end.
fn becoming(command: &Command) -> Result<Work> {
    let words: Vec<CString> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| calls::c_path(Path::new(word)))
        .collect::<Result<_>>()?;
    let mut pointers: Vec<usize> = words.iter().map(|word| word.as_ptr().addr()).collect();
    pointers.push(0);
    Ok(Work::new(move |_| {
        // SAFETY: the child makes system calls only; the words live as long as `words`, and a zero ends the list.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: as above.
            unsafe {
                libc::execv(words[0].as_ptr(), pointers.as_ptr().cast());
                libc::_exit(127);
            }
        }
        succeeds(child)
    }))
}

/// Children in namespaces of their own, made after the rule came or entered; their process ids are others there.
pub fn namespaces(stage: &Stage) -> Result<()> {
    let unsharing = || -> Result<Work> {
        let work = Work::new(calls::zero()?).by_child();
        // SAFETY: a number only. Once: what a namespace's first process leaves behind cannot fork.
        Ok(work.before(|_| unsafe { libc::unshare(NEW) } == 0))
    };
    let mut pair = Pair::start(unsharing()?, unsharing()?)?;
    let pid = pid_of(&pair);
    let rule = stage.rule("vfs.read", &["--pid", &pid, "--children"])?;
    exact(&mut pair, &rule, CALLS, CALLS as u64).context("unshare")?;
    drop((pair, rule));

    let living = Work::new(|_| true).set_up(|_| {
        // SAFETY: the child only waits to be killed, as it is with the last process that its namespace is for.
        unsafe {
            libc::unshare(NEW) == 0
                && match libc::fork() {
                    0 => {
                        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                        loop {
                            libc::pause();
                        }
                    }
                    child => child > 0,
                }
        }
    });
    let home = living.start()?;
    let entering = || -> Result<Work> {
        let open = |name| File::open(format!("/proc/{}/ns/{name}", home.pid()));
        let spaces = [open("pid_for_children")?, open("mnt")?];
        let work = Work::new(calls::zero()?).by_child();
        let enter = move |_| {
            // SAFETY: open descriptors.
            let entered = |space: &File| unsafe { libc::setns(space.as_raw_fd(), 0) } == 0;
            spaces.iter().all(entered)
        };
        Ok(work.before(enter))
    };
    let mut pair = Pair::start(entering()?, entering()?)?;
    let pid = pid_of(&pair);
    pair.differ(stage, "vfs.read", &["--pid", &pid, "--children"])
        .context("setns")
}
