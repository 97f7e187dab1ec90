//! The commands' side of the socket.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde::de::DeserializeOwned;

use super::protocol::{Command, MAX_LINE, parse_answer, request};
use crate::failure::{FAILED, Failure, HOST};

/// How long a command waits for an agent that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends one command and waits for its answer.
///
/// # Errors
/// No agent, an agent that hangs or is none, a refusal of the agent.
pub fn call<T: DeserializeOwned>(socket: &Path, command: &Command) -> Result<T, Failure> {
    let stream = connect(socket)?;
    let exchange = || -> io::Result<Vec<u8>> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        (&stream).write_all(format!("{}\n", request(command)).as_bytes())?;
        let mut line = Vec::new();
        BufReader::new((&stream).take(MAX_LINE as u64)).read_until(b'\n', &mut line)?;
        Ok(line)
    };
    let line = exchange().map_err(|error| unanswered(socket, &error))?;
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

fn unanswered(socket: &Path, error: &io::Error) -> Failure {
    let failure = |what: &str| Failure::new(FAILED, format!("{what} at {}", socket.display()));
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            failure(&format!("no answer within {} s from the agent", PATIENCE.as_secs()))
                .hint("it hangs or is stopped (its delays end by themselves); end it with kill, then: iolag run --detach")
        }
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            failure("connection closed by the agent").hint("only root may command it; see its log")
        }
        _ => failure(&format!("failed to talk to the agent: {error}")),
    }
}

/// Connects, or says why there is nobody.
fn connect(socket: &Path) -> Result<UnixStream, Failure> {
    UnixStream::connect(socket).map_err(|error| {
        let start = match socket.to_str() {
            Some(super::DEFAULT_SOCKET) | None => "start one: iolag run --detach".to_owned(),
            Some(path) => format!("start one: iolag run --detach --socket {path}"),
        };
        match error.raw_os_error() {
            Some(libc::ENOENT) => {
                Failure::new(HOST, format!("no agent is running at {}", socket.display()))
                    .hint(start)
            }
            Some(libc::ECONNREFUSED) if is_socket(socket) => Failure::new(
                HOST,
                format!(
                    "no agent is running: the one that made {} is gone",
                    socket.display()
                ),
            )
            .hint(start),
            Some(libc::ECONNREFUSED) => {
                Failure::new(FAILED, format!("{} is not a socket", socket.display()))
                    .hint("name the agent's own with --socket")
            }
            Some(libc::EACCES) => Failure::new(
                HOST,
                format!(
                    "failed to open {}: only root may command the agent",
                    socket.display()
                ),
            )
            .hint("use sudo"),
            _ => Failure::new(
                FAILED,
                format!("failed to open {}: {error}", socket.display()),
            ),
        }
    })
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    path.symlink_metadata()
        .is_ok_and(|metadata| metadata.file_type().is_socket())
}
