//! A memory cgroup in which a process can run out of memory without harm to the machine, under either version
//! of the controller.

use std::{
    ffi::CString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// Dropping it kills what is left in it, and removes it.
#[derive(Debug)]
pub struct MemoryCgroup {
    dir: PathBuf,
    /// Below the hierarchy's root.
    path: String,
    unified: bool,
}

/// Where the memory controller's hierarchy is mounted, and whether it is the unified one.
fn hierarchy() -> Result<(PathBuf, bool)> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mut unified = None;
    for line in table.lines() {
        let (before, after) = line.split_once(" - ").context("mountinfo looks odd")?;
        let target = PathBuf::from(before.split(' ').nth(4).context("mountinfo looks odd")?);
        let mut after = after.split(' ');
        match after.next() {
            Some("cgroup") if after.any(|options| options.split(',').any(|o| o == "memory")) => {
                return Ok((target, false));
            }
            Some("cgroup2") if unified.is_none() => unified = Some(target),
            _ => {}
        }
    }
    Ok((unified.context("no cgroups are mounted")?, true))
}

impl MemoryCgroup {
    /// Makes one in which so many bytes are to be had, and no swap.
    ///
    /// # Errors
    /// There is no memory controller, or it may not be used.
    pub fn new(name: &str, bytes: u64) -> Result<Self> {
        let (top, unified) = hierarchy()?;
        let path = format!("/{name}-{}", std::process::id());
        let dir = top.join(&path[1..]);
        if unified {
            fs::write(top.join("cgroup.subtree_control"), "+memory")
                .context("failed to enable the memory controller")?;
        }
        fs::create_dir(&dir).with_context(|| format!("failed to make {}", dir.display()))?;
        let new = Self { dir, path, unified };
        if unified {
            new.write("memory.max", &bytes.to_string())?;
            // Absent where the kernel has no swap.
            let _absent = new.write("memory.swap.max", "0");
        } else {
            new.write("memory.limit_in_bytes", &bytes.to_string())?;
            new.write("memory.swappiness", "0")?;
        }
        Ok(new)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.dir.join(file);
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
    }

    /// Its path below the hierarchy's root.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether its hierarchy is the unified one.
    #[must_use]
    pub fn unified(&self) -> bool {
        self.unified
    }

    /// Processes killed in it, by the kernel's count.
    ///
    /// # Errors
    /// It has none of that name.
    pub fn oom_kills(&self) -> Result<u64> {
        let file = if self.unified {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        count_in(&self.dir.join(file), "oom_kill")
    }

    /// The file that moves a process here.
    fn procs(&self) -> CString {
        let path = self.dir.join("cgroup.procs");
        CString::new(path.to_str().expect("our own names")).expect("no NUL in our names")
    }

    /// Moves a process here. What it has stays where it was; what it takes from now on counts here.
    ///
    /// # Errors
    /// There is no such process.
    pub fn take_in(&self, pid: i32) -> Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Starts a process that moves here, takes so many bytes and keeps them, until it is killed.
    ///
    /// # Errors
    /// There can be no more processes.
    pub fn hog(&self, comm: &str, bytes: usize, oom_score_adj: i32) -> Result<Hog> {
        let procs = self.procs();
        let comm = CString::new(comm)?;
        let adjustment = oom_score_adj.to_string();
        let mut ready = [0; 2];
        // SAFETY: `ready` has room for two descriptors.
        if unsafe { libc::pipe2(ready.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
            bail!("failed to make a pipe");
        }
        // SAFETY: the child makes system calls only.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: C strings made before, and memory of its own.
            unsafe {
                write_to(&procs, b"0");
                write_to(c"/proc/self/oom_score_adj", adjustment.as_bytes());
                libc::prctl(libc::PR_SET_NAME, comm.as_ptr());
                take(bytes);
                libc::write(ready[1], b"!".as_ptr().cast(), 1);
                loop {
                    libc::pause();
                }
            }
        }
        // SAFETY: our own descriptor.
        unsafe { libc::close(ready[1]) };
        if pid < 0 {
            bail!("failed to fork");
        }
        Ok(Hog {
            pid,
            ready: ready[0],
        })
    }
}

/// What a thread of this process does in a [`MemoryCgroup`] of version 1, or a process in one of version 2, is
/// the same: a child that reads.
impl MemoryCgroup {
    /// Runs `work` here, in a process of its own, under that command.
    ///
    /// # Errors
    /// It failed.
    pub fn run(&self, comm: &str, work: impl FnOnce()) -> Result<()> {
        let procs = self.procs();
        let comm = CString::new(comm)?;
        // SAFETY: the child is alone in its copy; what it calls beyond system calls is the caller's choice.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: C strings made before.
            unsafe {
                write_to(&procs, b"0");
                libc::prctl(libc::PR_SET_NAME, comm.as_ptr());
            }
            work();
            // SAFETY: ends the child without what the parent registered for its own end.
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        // SAFETY: room for the answer.
        if pid < 0 || unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid || status != 0 {
            bail!("failed to run in {}: status {status:#x}", self.path);
        }
        Ok(())
    }
}

/// # Safety
/// System calls only.
unsafe fn write_to(path: &std::ffi::CStr, text: &[u8]) {
    // SAFETY: the path is a C string, the text is as long as it says.
    unsafe {
        let file = libc::open(path.as_ptr(), libc::O_WRONLY);
        if file < 0 || libc::write(file, text.as_ptr().cast(), text.len()) < 0 {
            libc::_exit(9);
        }
        libc::close(file);
    }
}

/// # Safety
/// System calls only.
unsafe fn take(bytes: usize) {
    // SAFETY: a mapping of its own, written within its bounds.
    unsafe {
        let start = libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if start == libc::MAP_FAILED {
            libc::_exit(9);
        }
        for place in (0..bytes).step_by(4096) {
            start.cast::<u8>().add(place).write_volatile(1);
        }
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        for _ in 0..100 {
            match fs::remove_dir(&self.dir) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                _ => return,
            }
        }
    }
}

/// A process in a [`MemoryCgroup`]. Dropping it kills it.
#[derive(Debug)]
pub struct Hog {
    pid: i32,
    ready: i32,
}

impl Hog {
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits until it has its memory; `false` if it was killed over it.
    #[must_use]
    pub fn has_its_memory(&self) -> bool {
        let mut byte = 0u8;
        // SAFETY: one byte of room, and a descriptor of its own.
        unsafe { libc::read(self.ready, (&raw mut byte).cast(), 1) == 1 }
    }

    /// Waits until somebody kills it.
    pub fn wait_killed(&self) {
        // SAFETY: our own child, left as a zombie for `drop`; room for the answer.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let flags = libc::WEXITED | libc::WNOWAIT;
            libc::waitid(libc::P_PID, self.pid.unsigned_abs(), &raw mut info, flags);
        }
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        // SAFETY: our own child and our own descriptor; a null status pointer is allowed.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
            libc::close(self.ready);
        }
    }
}

/// The number after `name` in a file of lines `NAME NUMBER`.
///
/// # Errors
/// There is no such line.
pub fn count_in(file: &Path, name: &str) -> Result<u64> {
    let text =
        fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
    text.lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix(' ')?
                .trim()
                .parse()
                .ok()
        })
        .with_context(|| format!("no {name} in {}", file.display()))
}
