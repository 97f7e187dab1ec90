//! Surroundings that lack something: each time the program works, or says in one line what it lacks.

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};

use super::{Place, machine::Machine, row};
use crate::{
    agent::scratch_dir,
    mounts::{self, checked},
};

/// What is done to the surroundings of one process, between fork and exec: system calls only.
type Change = fn(&CStr) -> io::Result<()>;

/// Those in which nothing can start, and a word of the line that has to say so.
const REFUSED: [(&str, Change, &str); 4] = [
    (
        "everything is read-only",
        read_only,
        "Read-only file system",
    ),
    ("the disk is full", full, "No space left on device"),
    (
        "there is no directory for the socket",
        |_| Ok(()),
        "No such file or directory",
    ),
    (
        "bpf(2) is refused, as SELinux and AppArmor do",
        no_bpf,
        "Permission denied",
    ),
];

/// Those in which everything works.
const FINE: [(&str, Change); 3] = [
    ("no /sys/fs/bpf", |_| without(c"/sys/fs/bpf")),
    ("no debugfs", |_| without(c"/sys/kernel/debug")),
    ("no tracefs", |_| without(c"/sys/kernel/tracing")),
];

/// # Errors
/// What has to work does not, or what cannot is not told in one line.
pub fn surroundings(place: &Place<'_>) -> Result<()> {
    let before = Machine::now()?;
    let dir = scratch_dir()?;
    let result = all(place, &dir);
    fs::remove_dir_all(&dir)?;
    result?;
    before.wait_back(std::time::Duration::from_secs(15))?;
    Ok(())
}

fn all(place: &Place<'_>, dir: &Path) -> Result<()> {
    let socket = dir.join("iolag.sock");
    for (what, change, word) in REFUSED {
        let socket = match word {
            "No such file or directory" => dir.join("missing/iolag.sock"),
            _ => socket.clone(),
        };
        for detach in [&[][..], &["--detach"]] {
            let args = [&["run"], detach].concat();
            let said = attempt(place, dir, &socket, change, &args)?;
            let line = one_line(&said, word).with_context(|| format!("{what}: {args:?}"))?;
            if detach.is_empty() {
                row(what, "auto", line.replace(&*dir.to_string_lossy(), "DIR"));
            }
        }
    }
    for (what, change) in FINE {
        let works = |args: &[&str]| -> Result<()> {
            let output = attempt(place, dir, &socket, change, args)?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.success(), "{what}: {args:?}: {said}");
            Ok(())
        };
        works(&["run", "--detach"])?;
        let worked = works(&["set", "1us"]).and_then(|()| works(&["hist", "irq", "1", "1"]));
        works(&["stop"])?;
        worked?;
        row(what, "auto", "works");
    }
    Ok(())
}

/// Runs the program in surroundings of its own.
fn attempt(
    place: &Place<'_>,
    dir: &Path,
    socket: &Path,
    change: Change,
    args: &[&str],
) -> Result<Output> {
    let dir = CString::new(dir.as_os_str().as_bytes())?;
    let mut command = Command::new(place.program);
    command.args(args).arg("--socket").arg(socket);
    let prepare = move || {
        mounts::own()?;
        change(&dir)
    };
    // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
    unsafe { command.pre_exec(prepare) };
    command
        .output()
        .context("failed to change the surroundings")
}

/// The one line that was said, with `word` in it and what to do.
fn one_line(output: &Output, word: &str) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stderr)
        .trim_end()
        .to_owned();
    ensure!(!output.status.success(), "it works");
    ensure!(said.lines().count() == 1, "not one line: {said}");
    ensure!(
        said.starts_with("error: ") && said.contains(" (hint: "),
        "{said}"
    );
    ensure!(said.contains(word), "no {word:?} in: {said}");
    Ok(said)
}

fn read_only(dir: &CStr) -> io::Result<()> {
    mounts::tmpfs(dir, libc::MS_RDONLY, c"")
}

/// One inode, which is the directory's.
fn full(dir: &CStr) -> io::Result<()> {
    mounts::tmpfs(dir, 0, c"nr_inodes=1")
}

/// What is mounted there goes, as far as it is.
fn without(path: &CStr) -> io::Result<()> {
    // SAFETY: a C string for the time of the call.
    match checked(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) }) {
        Err(error) if [Some(libc::EINVAL), Some(libc::ENOENT)].contains(&error.raw_os_error()) => {
            Ok(())
        }
        done => done,
    }
}

/// What a security module answers.
fn no_bpf(_: &CStr) -> io::Result<()> {
    const NUMBER: libc::__u32 = 0;
    let (load, jump, end) = (
        (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
        (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        (libc::BPF_RET | libc::BPF_K) as u16,
    );
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        step(load, 0, 0, NUMBER),
        step(jump, 0, 1, libc::SYS_bpf as u32),
        step(end, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EACCES as u32),
        step(end, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: a filter that lives for the time of the call.
    unsafe {
        checked(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        let filter = libc::SECCOMP_MODE_FILTER;
        checked(libc::prctl(
            libc::PR_SET_SECCOMP,
            filter,
            &raw const program,
        ))
    }
}
