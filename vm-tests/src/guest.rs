//! What tests need of the machine: file systems, kernel modules and fio.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Where the kernel's modules lie, with `modules.dep`: one line `NAME: DEPENDENCY...` for each.
const MODULES: &str = "/modules";
/// The virtio disk, an ext4 that holds fio and stress-ng.
pub const DISK: &str = "/dev/vda";
pub const MOUNT: &str = "/mnt";
/// On the disk: fio reads it, and makes it the first time.
pub const FIO_FILE: &str = "/mnt/fio-file";

/// File systems to mount: type and place. Those that a kernel may lack are marked.
const FILE_SYSTEMS: &[(&str, &str, bool)] = &[
    ("proc", "/proc", true),
    ("sysfs", "/sys", true),
    ("devtmpfs", "/dev", true),
    ("tmpfs", "/run", true),
    ("tmpfs", "/tmp", true),
    ("tracefs", "/sys/kernel/tracing", false),
    ("debugfs", "/sys/kernel/debug", false),
    ("bpf", "/sys/fs/bpf", false),
    ("cgroup2", "/sys/fs/cgroup", false),
    ("securityfs", "/sys/kernel/security", false),
];

/// Mounts the file systems that tests and the agent look into.
pub fn mount_all() -> Result<()> {
    for (kind, target, required) in FILE_SYSTEMS {
        // A place below /sys is there if the kernel has the file system; the others we make.
        if *required {
            fs::create_dir_all(target).with_context(|| format!("failed to make {target}"))?;
        }
        match mount(kind, target, kind) {
            Err(error) if *required => {
                return Err(error).with_context(|| format!("failed to mount {target}"));
            }
            Err(error) => eprintln!("no {kind} at {target}: {error}"),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Loads the disk's driver and mounts the disk.
pub fn mount_disk() -> Result<()> {
    // Built in on some kernels, then there is no file and nothing to do.
    for module in ["virtio_pci", "virtio_blk", "crc32c_generic", "ext4"] {
        if fs::exists(format!("{MODULES}/{module}.ko"))? {
            load_module(module, "")?;
        }
    }
    wait_for(DISK, Duration::from_secs(10))?;
    fs::create_dir_all(MOUNT)?;
    mount(DISK, MOUNT, "ext4").with_context(|| format!("failed to mount {DISK}"))
}

/// Waits until a device or file is there.
pub fn wait_for(path: &str, limit: Duration) -> Result<()> {
    let end = Instant::now() + limit;
    while !fs::exists(path)? {
        if Instant::now() > end {
            bail!(
                "failed to find {path}: not there after {} s",
                limit.as_secs()
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// fio, from the disk: it is too large for the initramfs, which lies in memory.
pub fn fio() -> Command {
    on_disk("fio")
}

/// A program from the disk, by the loader and with the libraries that lie beside it.
pub fn on_disk(name: &str) -> Command {
    let dir = format!("{MOUNT}/{name}");
    let mut command = Command::new(format!("{dir}/ld.so"));
    command.args([
        "--library-path",
        &format!("{dir}/lib"),
        &format!("{dir}/{name}"),
    ]);
    command
}

/// Loads a kernel module and what it depends on. What is loaded already stays as it is.
pub fn load_module(name: &str, parameters: &str) -> Result<()> {
    let table = fs::read_to_string(format!("{MODULES}/modules.dep"))
        .context("failed to read modules.dep")?;
    load_with_dependencies(&table, name, parameters)
}

fn load_with_dependencies(table: &str, name: &str, parameters: &str) -> Result<()> {
    let needs = table
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let Some(needs) = needs else {
        bail!("failed to load {name}: this kernel has no such module")
    };
    for dependency in needs.split_whitespace() {
        load_with_dependencies(table, dependency, "")?;
    }
    let file = File::open(format!("{MODULES}/{name}.ko"))
        .with_context(|| format!("failed to open {name}.ko"))?;
    let parameters = CString::new(parameters)?;
    // SAFETY: the descriptor is open and `parameters` is a C string for the time of the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_finit_module,
            file.as_raw_fd(),
            parameters.as_ptr(),
            0,
        )
    };
    match (result, io::Error::last_os_error()) {
        (0, _) => Ok(()),
        (_, error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        (_, error) => Err(error).with_context(|| format!("failed to load {name}")),
    }
}

/// Unloads a kernel module.
pub fn unload_module(name: &str) -> Result<()> {
    let c_name = CString::new(name)?;
    // SAFETY: `c_name` is a C string for the time of the call.
    let result =
        unsafe { libc::syscall(libc::SYS_delete_module, c_name.as_ptr(), libc::O_NONBLOCK) };
    if result != 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("failed to unload {name}"));
    }
    Ok(())
}

pub fn mount(source: &str, target: &str, kind: &str) -> Result<()> {
    let [source, target, kind] =
        [source, target, kind].map(|text| CString::new(text).expect("no NUL in our names"));
    // SAFETY: all three are C strings for the time of the call; a null pointer stands for no options.
    let result = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            0,
            std::ptr::null(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error().into())
    }
}

const SECOND_CPU: &str = "/sys/devices/system/cpu/cpu1/online";

/// Only the first CPU runs while this lives: for tests that attach at the entry of system calls again and again.
/// The kernel patches its code there, and an emulator with a thread for each CPU now and then lets the other one
/// run into the breakpoint of a patch that is over (`Oops: int3` in `syscall_trace_enter`).
pub struct OneCpu(());

impl OneCpu {
    pub fn new() -> Result<Self> {
        fs::write(SECOND_CPU, "0").context("failed to take the second CPU offline")?;
        Ok(Self(()))
    }
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SECOND_CPU, "1") {
            eprintln!("failed to take the second CPU online: {error}");
        }
    }
}
