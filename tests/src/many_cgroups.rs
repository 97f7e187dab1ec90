//! Thousands of cgroups, each with a process for a moment.

use std::{
    fs::{self, File},
    os::fd::AsRawFd as _,
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail, ensure};

/// `include/uapi/linux/sched.h`; libc's own is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Cgroups of the unified hierarchy, without controllers. Dropping it removes them.
pub struct ManyCgroups {
    dir: PathBuf,
    count: usize,
}

/// Where the unified hierarchy is mounted.
fn unified() -> Result<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let line = table
        .lines()
        .find(|line| line.contains(" - cgroup2 "))
        .context("no unified cgroup hierarchy is mounted")?;
    Ok(line
        .split(' ')
        .nth(4)
        .context("mountinfo looks odd")?
        .into())
}

impl ManyCgroups {
    /// # Errors
    /// They cannot be made.
    pub fn new(name: &str, count: usize) -> Result<Self> {
        let dir = unified()?.join(format!("{name}-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("failed to make {}", dir.display()))?;
        // From here on dropping removes what was made.
        let new = Self { dir, count };
        for number in 0..count {
            fs::create_dir(new.member(number)).context("failed to make a cgroup")?;
        }
        Ok(new)
    }

    fn member(&self, number: usize) -> PathBuf {
        self.dir.join(number.to_string())
    }

    /// In each a process is born, writes one byte to `/dev/null`, and ends.
    ///
    /// # Errors
    /// A process cannot be made, or fails.
    pub fn write_in_each(&self) -> Result<()> {
        let null = File::options().write(true).open("/dev/null")?;
        for number in 0..self.count {
            let cgroup = File::open(self.member(number))?;
            let mut asked = libc::clone_args {
                flags: CLONE_INTO_CGROUP,
                exit_signal: libc::SIGCHLD as u64,
                cgroup: cgroup.as_raw_fd() as u64,
                // SAFETY: integers only.
                ..unsafe { std::mem::zeroed() }
            };
            // SAFETY: as fork(): the child has a copy of all, and makes system calls only.
            let pid =
                unsafe { libc::syscall(libc::SYS_clone3, &raw mut asked, size_of_val(&asked)) };
            if pid == 0 {
                // SAFETY: one byte is readable, the descriptor is open.
                unsafe {
                    let wrote = libc::write(null.as_raw_fd(), b"x".as_ptr().cast(), 1);
                    libc::_exit(i32::from(wrote != 1))
                }
            }
            if pid < 0 {
                bail!("failed to clone: {}", std::io::Error::last_os_error());
            }
            let mut status = 0;
            // SAFETY: our own child, and room for the answer.
            let waited = unsafe { libc::waitpid(pid as libc::pid_t, &raw mut status, 0) };
            ensure!(
                waited == pid as libc::pid_t && status == 0,
                "a child failed: {status:#x}"
            );
        }
        Ok(())
    }
}

impl Drop for ManyCgroups {
    fn drop(&mut self) {
        for number in 0..self.count {
            // Those that were never made are not there.
            let _absent = fs::remove_dir(self.member(number));
        }
        if let Err(error) = fs::remove_dir(&self.dir) {
            println!("{} is left: {error}", self.dir.display());
        }
    }
}
