//! The commands' side of the socket.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use serde::de::DeserializeOwned;

use super::{
    protocol::{Command, MAX_LINE, parse_answer, request},
    socket::check_length,
};
use crate::failure::{FAILED, Failure, HOST};

/// How long a command waits for an agent that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// As `PATIENCE`, for what makes the kernel read programs, or wait until none of them runs any more: seconds
/// on a slow machine.
const ATTACHING: Duration = Duration::from_secs(30);

fn patience(command: &Command) -> Duration {
    match command {
        Command::ProbeLoad { .. }
        | Command::ProbeUnload { .. }
        | Command::Inject(_)
        | Command::Remove { .. }
        | Command::End { .. }
        | Command::Stop => ATTACHING,
        _ => PATIENCE,
    }
}

/// Sends one command and waits for its answer.
///
/// # Errors
/// No agent, an agent that hangs or is none, a refusal of the agent.
pub fn call<T: DeserializeOwned>(socket: &Path, command: &Command) -> Result<T, Failure> {
    ask(socket, &connect(socket)?, command)
}

/// As [`call`]; none if there is nobody at `socket`. An agent that is there and may not be asked is a failure.
///
/// # Errors
/// An agent that hangs, is none or may not be commanded; a refusal of the agent.
pub fn call_if_any<T: DeserializeOwned>(
    socket: &Path,
    command: &Command,
) -> Result<Option<T>, Failure> {
    match connect(socket) {
        Ok(stream) => ask(socket, &stream, command).map(Some),
        Err(Unconnected::Nobody(_)) => Ok(None),
        Err(Unconnected::Failed(failure)) => Err(failure),
    }
}

fn ask<T: DeserializeOwned>(
    socket: &Path,
    stream: &UnixStream,
    command: &Command,
) -> Result<T, Failure> {
    let patience = patience(command);
    let line = exchange(stream, &request(command), patience)
        .map_err(|error| unanswered(socket, &error, patience))?;
    if line.is_empty() {
        return Err(Failure::new(
            FAILED,
            format!(
                "the agent at {} hung up without an answer",
                socket.display()
            ),
        )
        .hint("see its log, or start another: iolag run --detach"));
    }
    parse_answer(&line)
}

/// Sends a command whose answers the caller reads.
///
/// # Errors
/// No agent, or one that does not take it.
pub fn send(socket: &Path, command: &Command) -> Result<UnixStream, Failure> {
    let stream = connect(socket)?;
    put(&stream, &request(command)).map_err(|error| unanswered(socket, &error, PATIENCE))?;
    Ok(stream)
}

/// Sends a line. An agent refuses some before they have asked, and hangs up: its answer is there all the same.
fn put(mut stream: &UnixStream, request: &str) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    match stream.write_all(format!("{request}\n").as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        sent => sent,
    }
}

/// Sends a line and reads one, or what there is of it when the other side closes.
fn exchange(mut stream: &UnixStream, request: &str, patience: Duration) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + patience;
    put(stream, request)?;
    let mut line = Vec::new();
    let mut part = [0; 4096];
    while line.len() < MAX_LINE {
        // For the whole answer, not for each read: one that comes in drops is none either.
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let count = stream.read(&mut part)?;
        line.extend_from_slice(&part[..count]);
        if count == 0 || part[..count].contains(&b'\n') {
            break;
        }
    }
    Ok(line)
}

fn unanswered(socket: &Path, error: &io::Error, patience: Duration) -> Failure {
    let failure = |what: &str| Failure::new(FAILED, format!("{what} at {}", socket.display()));
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            failure(&format!("no answer within {} s from the agent", patience.as_secs()))
                .hint("it hangs or is stopped, and its delays have ended by themselves; end it with kill -9, then: iolag run --detach")
        }
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            failure("connection closed by the agent").hint("only root may command it; see its log")
        }
        _ => failure(&format!("failed to talk to the agent ({error})"))
            .hint("see its log, or start another: iolag run --detach"),
    }
}

/// Why there is no connection.
#[derive(Debug)]
enum Unconnected {
    /// No agent serves there.
    Nobody(Failure),
    /// Whether one does is not known, or it may not be commanded.
    Failed(Failure),
}

impl From<Unconnected> for Failure {
    fn from(unconnected: Unconnected) -> Self {
        match unconnected {
            Unconnected::Nobody(failure) | Unconnected::Failed(failure) => failure,
        }
    }
}

fn connect(socket: &Path) -> Result<UnixStream, Unconnected> {
    check_length(socket).map_err(Unconnected::Failed)?;
    UnixStream::connect(socket).map_err(|error| unconnected(socket, &error))
}

fn unconnected(socket: &Path, error: &io::Error) -> Unconnected {
    let path = socket.display();
    match error.raw_os_error() {
        Some(libc::ENOENT) => nobody(socket, format!("no agent is running at {path}")),
        Some(libc::ECONNREFUSED) if is_socket(socket) => nobody(
            socket,
            format!("no agent is running: the one that made {path} is gone"),
        ),
        Some(libc::ECONNREFUSED) => Unconnected::Failed(
            Failure::new(FAILED, format!("{path} is not a socket"))
                .hint("name the agent's own with --socket"),
        ),
        Some(libc::EACCES) => Unconnected::Failed(
            Failure::new(
                HOST,
                format!("failed to open {path}: only root may command the agent"),
            )
            .hint("use sudo"),
        ),
        _ => Unconnected::Failed(
            Failure::new(FAILED, format!("failed to open {path}: {error}"))
                .hint("name the agent's own with --socket"),
        ),
    }
}

fn nobody(socket: &Path, message: String) -> Unconnected {
    let start = match socket.to_str() {
        Some(super::DEFAULT_SOCKET) | None => "start one: iolag run --detach".to_owned(),
        Some(path) => format!("start one: iolag run --detach --socket {path}"),
    };
    Unconnected::Nobody(Failure::new(HOST, message).hint(start))
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    path.symlink_metadata()
        .is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_before_it_asks_reads_why() {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(b"no\n").unwrap();
        drop(far);
        assert_eq!(exchange(&near, "please", PATIENCE).unwrap(), b"no\n");
        assert_eq!(exchange(&near, "please", PATIENCE).unwrap(), b"");
    }

    #[test]
    fn what_attaches_or_detaches_is_given_the_time_that_the_kernel_takes() {
        let probe = || "vfs".to_owned();
        let load = Command::ProbeLoad {
            probe: probe(),
            by: Vec::new(),
            backend: "auto".into(),
        };
        for command in [load, Command::ProbeUnload { probe: probe() }, Command::Stop] {
            assert_eq!(patience(&command), ATTACHING, "{command:?}");
        }
        for command in [Command::Status, Command::Reset, Command::ProbeList] {
            assert_eq!(patience(&command), PATIENCE, "{command:?}");
        }
    }

    #[test]
    fn nobody_is_there_only_where_none_serves() {
        let at = Path::new("/nowhere/iolag.sock");
        let of = |code| unconnected(at, &io::Error::from_raw_os_error(code));
        assert!(matches!(of(libc::ENOENT), Unconnected::Nobody(_)));
        for code in [libc::EACCES, libc::ECONNREFUSED, libc::EMFILE] {
            assert!(matches!(of(code), Unconnected::Failed(_)), "{code}");
        }
        assert_eq!(Failure::from(of(libc::EACCES)).code, HOST);
        assert_eq!(call_if_any::<()>(at, &Command::Status), Ok(None));
    }
}
