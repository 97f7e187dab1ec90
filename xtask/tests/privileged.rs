//! Set-up on a disk that is too small, which takes a mount. `cargo xtask test` runs this as root.

use std::ffi::CString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A tmpfs, unmounted after the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(options: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("iolag-disk-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        mount(&dir, 0, options);
        Self(dir)
    }

    fn cache(&self) -> PathBuf {
        self.0.join("cache")
    }

    /// Takes the free space away, as another program would that fills the disk.
    fn shrink(&self, options: &str) {
        mount(&self.0, libc::MS_REMOUNT, options);
    }
}

fn mount(dir: &Path, flags: libc::c_ulong, options: &str) {
    let target = CString::new(dir.as_os_str().as_bytes()).unwrap();
    let options = CString::new(options).unwrap();
    // SAFETY: all arguments are C strings for the time of the call.
    let result = unsafe {
        libc::mount(
            c"tmpfs".as_ptr(),
            target.as_ptr(),
            c"tmpfs".as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    };
    let error = std::io::Error::last_os_error();
    assert_eq!(result, 0, "failed to mount: {error}");
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let target = CString::new(self.0.as_os_str().as_bytes()).unwrap();
        // SAFETY: `target` is a C string for the time of the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        let _ = fs::remove_dir(&self.0);
    }
}

fn privileged() -> bool {
    if std::env::var_os("IOLAG_PRIVILEGED").is_none() {
        println!("skipped: mounts need root; cargo xtask test sets IOLAG_PRIVILEGED");
        return false;
    }
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let bookworm = release.contains("ID=debian") && release.contains("VERSION_ID=\"12\"");
    if !bookworm {
        println!("skipped: set-up installs by itself on Debian 12 only");
    }
    bookworm
}

fn setup(disk: &SmallDisk) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command
        .args(["setup", "--toolchain", "debian"])
        .env("IOLAG_CACHE", disk.cache());
    command
}

fn setup_fails(disk: &SmallDisk) -> (String, String) {
    let output = setup(disk).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    error_and_hint(&String::from_utf8_lossy(&output.stderr))
}

fn error_and_hint(stderr: &str) -> (String, String) {
    let (error, hint) = stderr.split_once('\n').expect("an error and a hint");
    (error.to_owned(), hint.to_owned())
}

#[test]
fn a_small_disk_is_refused_with_both_figures() {
    if !privileged() {
        return;
    }
    let disk = SmallDisk::mount("size=8m");
    let (error, hint) = setup_fails(&disk);
    assert!(
        error.starts_with("error: failed to install eBPF toolchain: it needs "),
        "{error}"
    );
    assert!(error.ends_with(" has 8 MiB free"), "{error}");
    assert!(hint.contains("IOLAG_CACHE"), "{hint}");
}

#[test]
fn a_full_disk_is_named() {
    if !privileged() {
        return;
    }
    // Room for the mount point alone: not even the cache's directory fits.
    let disk = SmallDisk::mount("nr_inodes=1");
    let (error, hint) = setup_fails(&disk);
    assert!(
        error.starts_with("error: failed to open the cache "),
        "{error}"
    );
    assert!(error.ends_with(": no space left on device"), "{error}");
    assert!(hint.contains("IOLAG_CACHE"), "{hint}");
}

/// Set-up began with space enough, and another program took it: in the middle of the package lists, and in the
/// middle of the packages.
#[test]
fn a_disk_that_fills_up_midway_is_named_and_nothing_half_done_stays() {
    if !privileged() {
        return;
    }
    for left in ["size=4m", "size=100m"] {
        let disk = SmallDisk::mount("size=1100m");
        let mut command = setup(&disk);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        assert!(line.starts_with("installing  eBPF toolchain"), "{line}");
        disk.shrink(left);
        let mut stderr = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{stderr}");
        if stderr.contains("no network") {
            println!("skipped: set-up cannot download here");
            return;
        }
        let (error, hint) = error_and_hint(&stderr);
        assert!(
            error.starts_with("error: failed to install eBPF toolchain: failed to "),
            "{left}: {error}"
        );
        let figures = format!(
            ": no space left on device; it needs 1000 MiB, {} has ",
            disk.cache().display()
        );
        assert!(error.contains(&figures), "{left}: {error}");
        assert!(hint.contains("IOLAG_CACHE"), "{left}: {hint}");
        assert_eq!(hint.lines().count(), 1, "{left}: {hint}");
        assert_nothing_half_done(&disk);
    }
}

/// No part is left, and set-up still knows that the toolchain is missing.
fn assert_nothing_half_done(disk: &SmallDisk) {
    let mut left = fs::read_dir(disk.cache()).unwrap();
    assert!(!left.any(|entry| {
        let name = entry.unwrap().file_name();
        name.to_string_lossy().contains("partial") || name == "rust"
    }));
    let check = setup(disk).arg("--check").output().unwrap();
    let stdout = String::from_utf8_lossy(&check.stdout);
    assert_eq!(check.status.code(), Some(1), "{stdout}");
    assert!(stdout.starts_with("missing     eBPF toolchain"), "{stdout}");
}
