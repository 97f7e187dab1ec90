//! Mounts of a process's own, which others see nothing of and which go with it. System calls only: they may be made
//! between fork and exec.

use std::{ffi::CStr, io, os::unix::process::CommandExt as _, process::Command, ptr::null};

/// Gives this process mounts of its own.
///
/// # Errors
/// The kernel refuses.
pub fn own() -> io::Result<()> {
    // SAFETY: a number only.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    // Else what is mounted here goes to where these come from.
    mounted(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE, None)
}

/// Mounts an empty file system there, with options of its own.
///
/// # Errors
/// The kernel refuses.
pub fn tmpfs(there: &CStr, flags: u64, options: &CStr) -> io::Result<()> {
    let kind = Some(c"tmpfs");
    mounted(kind, there, kind, flags, Some(options))
}

/// Shows a file or a directory there too.
///
/// # Errors
/// The kernel refuses.
pub fn bind(what: &CStr, there: &CStr) -> io::Result<()> {
    mounted(Some(what), there, None, libc::MS_BIND, None)
}

/// Mounts `/proc` anew, with these options.
///
/// # Errors
/// The kernel refuses.
pub fn proc(options: &CStr) -> io::Result<()> {
    let kind = Some(c"proc");
    mounted(kind, c"/proc", kind, 0, Some(options))
}

/// Gives the command mounts of its own, with an empty file system at each of these paths that exists.
pub fn hide(command: &mut Command, paths: &'static [&'static CStr], flags: u64) {
    let hide = move || {
        own()?;
        for path in paths {
            match tmpfs(path, flags, c"") {
                Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
    unsafe { command.pre_exec(hide) };
}

fn mounted(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: u64,
    options: Option<&CStr>,
) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(null(), CStr::as_ptr);
    // SAFETY: C strings for the time of the call; null where the kernel ignores it.
    checked(unsafe {
        libc::mount(
            pointer(source),
            target.as_ptr(),
            pointer(kind),
            flags,
            pointer(options).cast(),
        )
    })
}

/// What the C library says of a system call, as an error.
///
/// # Errors
/// It failed.
pub fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
