//! The agent's claim on its socket's path.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd as _,
        unix::{
            fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::net::UnixListener;

use crate::failure::{FAILED, Failure, HOST, USAGE};

/// How long a killed agent may still hold its lock.
const DYING: Duration = Duration::from_secs(1);

/// Holds the path: no other agent gets it while this lives. Dropping it removes the socket.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
    bound: bool,
}

impl Claim {
    /// Claims `path`, before anything is loaded. What a dead agent left is taken over.
    ///
    /// # Errors
    /// Another agent has it, something that is no socket is there, the directory cannot be written.
    pub fn new(path: &Path) -> Result<Self, Failure> {
        check_length(path)?;
        let lock = lock(path)?;
        match path.symlink_metadata() {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(Failure::new(
                    FAILED,
                    format!("{} exists and is not a socket", path.display()),
                )
                .hint("name another with --socket, or remove it"));
            }
            // Nobody who honours the lock listens there: what answers, or is a socket of another kind, is
            // another program's; what refuses was left by the dead.
            Ok(_) => match UnixStream::connect(path) {
                Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => {
                    fs::remove_file(path).map_err(|error| {
                        Failure::new(
                            FAILED,
                            format!("failed to remove the stale {}: {error}", path.display()),
                        )
                    })?;
                }
                _ => {
                    return Err(Failure::new(
                        FAILED,
                        format!("{} is in use by another program", path.display()),
                    )
                    .hint("name another with --socket"));
                }
            },
            Err(_) => {}
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
            bound: false,
        })
    }

    /// Listens; from here on commands reach the agent.
    ///
    /// # Errors
    /// The path cannot be bound.
    pub fn listen(&mut self) -> Result<UnixListener, Failure> {
        let cause = |error: io::Error| {
            Failure::new(
                FAILED,
                format!("failed to listen at {}: {error}", self.path.display()),
            )
        };
        // Nobody else may connect between bind and chmod.
        // SAFETY: umask cannot fail; no other thread of the agent creates files.
        let mask = unsafe { libc::umask(0o177) };
        let listener = UnixListener::bind(&self.path);
        // SAFETY: as above.
        unsafe { libc::umask(mask) };
        let listener = listener.map_err(cause)?;
        self.bound = true;
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o600)).map_err(cause)?;
        Ok(listener)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.bound {
            // The lock file stays: removing it would let two agents lock two files of one name.
            let _gone = fs::remove_file(&self.path);
        }
    }
}

/// Refuses a path that no socket can have.
///
/// # Errors
/// It is too long.
pub fn check_length(path: &Path) -> Result<(), Failure> {
    // sockaddr_un has room for 108 bytes, the last one a zero.
    if path.as_os_str().len() <= 107 {
        return Ok(());
    }
    Err(Failure::new(
        USAGE,
        format!("socket path {} is longer than 107 bytes", path.display()),
    )
    .hint("name a shorter one with --socket"))
}

fn lock(path: &Path) -> Result<File, Failure> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&name)
        .map_err(|error| {
            Failure::new(
                FAILED,
                format!("failed to open {}: {error}", name.display()),
            )
            .hint("name a socket in a directory that can be written: --socket PATH")
        })?;
    // An agent that was killed holds it until the kernel has closed what it had open before.
    let deadline = Instant::now() + DYING;
    loop {
        // SAFETY: a live descriptor; the lock goes with it, however the process ends.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(file);
        }
        if Instant::now() > deadline {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(Failure::new(
        HOST,
        format!("another agent is running at {}", path.display()),
    )
    .hint("use it, end it (iolag stop), or name another socket with --socket"))
}
