//! Clients that ask an agent in bulk.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Longer than an agent waits for silence.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to an agent.
///
/// # Errors
/// There is none.
pub fn connect(socket: &Path) -> Result<UnixStream> {
    let stream = UnixStream::connect(socket).context("failed to connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends a line and reads its answer.
///
/// # Errors
/// The agent hangs up, or does not answer in time.
pub fn ask(mut stream: &UnixStream, line: &[u8]) -> Result<Value> {
    stream.write_all(&[line, b"\n"].concat())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if answer.is_empty() {
        bail!("the agent hung up");
    }
    serde_json::from_str(&answer).context("failed to read the answer")
}

/// Sends lines at once and reads an answer for each; how many were refused. Their answers must fit into the socket's
/// buffer: a few hundred.
///
/// # Errors
/// An answer is lacking, or is none.
pub fn ask_all(mut stream: &UnixStream, lines: &[u8]) -> Result<usize> {
    let count = lines.iter().filter(|byte| **byte == b'\n').count();
    let mut writer = stream.try_clone()?;
    let mut refused = 0;
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || writer.write_all(lines));
        let mut answers = BufReader::new(&mut stream);
        for number in 0..count {
            let mut answer = String::new();
            answers.read_line(&mut answer)?;
            let answer: Value = serde_json::from_str(&answer)
                .with_context(|| format!("answer {number} of {count}: {answer:?}"))?;
            refused += usize::from(answer["ok"] != true);
        }
        writing
            .join()
            .map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        Ok(refused)
    })
}

/// What is read until the other side closes; an end by force counts as one.
#[must_use]
pub fn rest(mut stream: &UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _reset = stream.read_to_end(&mut bytes);
    bytes
}
