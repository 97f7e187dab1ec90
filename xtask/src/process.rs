//! Runs other programs, and says in one line why one failed.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::disk::free_mib;
use crate::explain::explained;

/// What programs print when they cannot reach the network: apt, cargo and rustup, in their own words.
const NO_NETWORK: &[&str] = &[
    "Could not connect",
    "Could not resolve",
    "Couldn't connect",
    "Couldn't resolve",
    "Cannot initiate the connection",
    "Temporary failure resolving",
    "Connection refused",
    "Connection timed out",
    "Connection failed",
    "Network is unreachable",
    "could not download file",
    "failed to download from",
    "error sending request",
    "Failed to connect",
    "dns error",
];

/// How our errors name a full disk.
const NO_SPACE: &str = "no space left on device";

/// What programs print when a disk is full.
const DISK_FULL: &[&str] = &["No space left on device", "enough free space in"];

/// Runs `command` to its end, quietly, and returns what it wrote to stdout.
///
/// `what` completes "failed to ...". A full disk and a missing network are told apart from the rest.
pub fn run(command: &mut Command, what: &str) -> Result<String> {
    run_within(command, what, Duration::from_secs(1800))
}

/// As [`run`], but ends the program when `deadline` is over.
pub fn run_within(command: &mut Command, what: &str, deadline: Duration) -> Result<String> {
    let end = Instant::now() + deadline;
    let program = command.get_program().to_string_lossy().into_owned();
    run_until(command, what, || {
        (Instant::now() >= end).then(|| {
            anyhow!(
                "failed to {what}: {program} did not end within {} s",
                deadline.as_secs()
            )
        })
    })
}

/// As [`run`], for a program that writes to the disk of `dir` and may wait for ever where that is full: apt does.
pub fn run_filling(command: &mut Command, what: &str, dir: &Path) -> Result<String> {
    let mut fullness = Fullness::default();
    run_until(command, what, || {
        // A disk that cannot be looked at is the program's to name.
        let free = free_mib(dir).unwrap_or(u64::MAX);
        fullness
            .lasts(free, Instant::now())
            .then(|| disk_full(what))
    })
}

/// How long a disk has been full.
#[derive(Default)]
struct Fullness {
    since: Option<Instant>,
}

impl Fullness {
    /// Longer than a program that does notice takes to say so.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// Whether less than 1 MiB has been free for too long.
    fn lasts(&mut self, free_mib: u64, now: Instant) -> bool {
        if free_mib > 0 {
            self.since = None;
            return false;
        }
        now.duration_since(*self.since.get_or_insert(now)) >= Self::PATIENCE
    }
}

/// As [`run`], but ends the program when `give_up` has an error.
fn run_until(
    command: &mut Command,
    what: &str,
    mut give_up: impl FnMut() -> Option<anyhow::Error>,
) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to {what}: {program}"))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = loop {
        if let Some(status) = child
            .try_wait()
            .with_context(|| format!("failed to {what}"))?
        {
            break status;
        }
        if let Some(error) = give_up() {
            // It may have ended by itself in between.
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let stdout = stdout.join().unwrap_or_default();
    let stderr = stderr.join().unwrap_or_default();
    if status.success() {
        return Ok(stdout);
    }
    Err(failure(
        what,
        &program,
        status,
        &format!("{stdout}\n{stderr}"),
    ))
}

fn collect(stream: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What was read before an error is still worth showing.
            let _ = stream.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The error for a program that failed and printed `output`.
fn failure(what: &str, program: &str, status: ExitStatus, output: &str) -> anyhow::Error {
    if DISK_FULL.iter().any(|words| output.contains(words)) {
        return disk_full(what);
    }
    if NO_NETWORK.iter().any(|words| output.contains(words)) {
        return explained(
            format!("failed to {what}: no network ({})", useful_line(output)),
            "connect this machine, or set http_proxy and https_proxy; what was finished is kept",
        );
    }
    anyhow!(
        "failed to {what}: {program}: {status}: {}",
        useful_line(output)
    )
}

/// The error for a disk that filled up while we wrote to it.
pub fn disk_full(what: &str) -> anyhow::Error {
    explained(
        format!("failed to {what}: {NO_SPACE}"),
        "free some space, or point IOLAG_CACHE at a directory on a larger disk; what was finished is kept",
    )
}

/// Whether a full disk is behind `error`, as the kernel or a program said it.
pub fn is_disk_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::kind);
        io == Some(std::io::ErrorKind::StorageFull) || cause.to_string().ends_with(NO_SPACE)
    })
}

/// The line of a program's output that says most: the first that speaks of an error, else the last.
fn useful_line(output: &str) -> &str {
    let lines = || {
        output
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
    };
    lines()
        .find(|line| {
            line.starts_with("E:") || line.starts_with("error") || line.starts_with("Err:")
        })
        .or_else(|| lines().next_back())
        .unwrap_or("it printed nothing")
}

/// Finds a program as the shell would, and in the sbin directories that a user's PATH may lack.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_full_disk_is_named() {
        let script = "echo 'tar: x: Cannot write: No space left on device' >&2; exit 2";
        let error = run(&mut sh(script), "unpack fio").unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to unpack fio: no space left on device"
        );
        assert!(
            error
                .downcast_ref::<crate::explain::Explained>()
                .unwrap()
                .hint
                .contains("IOLAG_CACHE")
        );
    }

    #[test]
    fn a_missing_network_is_named() {
        let script =
            "echo \"E: Failed to fetch x  Could not connect to 127.0.0.1:9\" >&2; exit 100";
        let error = run(&mut sh(script), "download fio").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("failed to download fio: no network ("),
            "{error}"
        );
    }

    #[test]
    fn other_failures_keep_the_useful_line() {
        let error = run(
            &mut sh("echo first; echo 'error: bad' >&2; echo last >&2; exit 4"),
            "do it",
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to do it: sh: exit status: 4: error: bad"
        );
    }

    #[test]
    fn a_disk_counts_as_full_when_it_stays_so() {
        let (start, mut fullness) = (Instant::now(), Fullness::default());
        let mut at = |seconds, free| fullness.lasts(free, start + Duration::from_secs(seconds));
        assert!(!at(0, 0) && !at(9, 0));
        assert!(!at(11, 1), "there is space again");
        assert!(!at(12, 0) && !at(21, 0));
        assert!(at(22, 0));
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let error =
            run_within(&mut sh("exec sleep 60"), "wait", Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("did not end within"), "{error}");
    }
}
