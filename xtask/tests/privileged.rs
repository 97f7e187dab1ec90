//! Set-up on a disk that is too small, which takes a mount. `cargo xtask test` runs this as root.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;

/// A tmpfs, unmounted after the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(options: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("iolag-disk-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let target = CString::new(dir.as_os_str().as_bytes()).unwrap();
        let options = CString::new(options).unwrap();
        // SAFETY: all arguments are C strings for the time of the call.
        let result = unsafe {
            libc::mount(
                c"tmpfs".as_ptr(),
                target.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                options.as_ptr().cast(),
            )
        };
        assert_eq!(
            result,
            0,
            "failed to mount: {}",
            std::io::Error::last_os_error()
        );
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let target = CString::new(self.0.as_os_str().as_bytes()).unwrap();
        // SAFETY: `target` is a C string for the time of the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn privileged() -> bool {
    let asked = std::env::var_os("IOLAG_PRIVILEGED").is_some();
    if !asked {
        println!("skipped: mounts need root; cargo xtask test sets IOLAG_PRIVILEGED");
    }
    asked
}

fn setup_fails(disk: &SmallDisk) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let output = command
        .args(["setup", "--toolchain", "debian"])
        .env("IOLAG_CACHE", disk.0.join("cache"))
        .output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
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
