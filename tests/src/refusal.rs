//! What a refusal of the program has to look like.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

/// The program under test, or a line that says why there is none.
#[must_use]
pub fn program() -> Option<PathBuf> {
    let program = std::env::var_os("IOLAG_BIN").map(PathBuf::from);
    if program.is_none() {
        println!("skipped: IOLAG_BIN is not set, run cargo xtask test");
    }
    program
}

/// One line on stderr that says what was wrong (every word of `words`) and what to do, nothing on
/// stdout, and this exit code.
///
/// # Panics
/// It looks otherwise.
#[track_caller]
pub fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(
        output.stdout.is_empty(),
        "on stdout: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("error: "), "{stderr}");
    assert!(stderr.trim_end().ends_with(')'), "{stderr}");
    assert!(stderr.contains(" (hint: "), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "no {word:?} in: {stderr}");
    }
}

/// Processes other than this one with `text` in their command line. As an agent pins nothing, what
/// it attached lives exactly as long as it does.
#[must_use]
pub fn processes_with(text: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|pid| pid.parse().ok()) else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if pid != std::process::id() as i32 && String::from_utf8_lossy(&line).contains(text) {
            found.push(pid);
        }
    }
    found
}

/// No agent lives that was told of `socket`, and the socket is gone.
///
/// # Panics
/// Something is left.
#[track_caller]
pub fn assert_nothing_left(socket: &Path) {
    let left = processes_with(&socket.display().to_string());
    assert!(left.is_empty(), "processes {left:?} are left");
    assert!(
        socket.symlink_metadata().is_err(),
        "{} is left",
        socket.display()
    );
}
