//! The program at a socket where somebody answers as an agent does.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixListener,
    path::PathBuf,
    process::{Command, Output},
    thread::{self, JoinHandle},
};

use crate::{agent::scratch_dir, refusal::program};

/// A directory with a socket path in it, and the program to call.
pub struct Place {
    program: PathBuf,
    pub dir: PathBuf,
}

impl Place {
    /// None where there is no program to test.
    ///
    /// # Panics
    /// No directory can be made.
    #[must_use]
    pub fn new() -> Option<Self> {
        Some(Self {
            program: program()?,
            dir: scratch_dir().unwrap(),
        })
    }

    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("iolag.sock")
    }

    /// The program at this socket; what follows `--` stays behind it.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--socket")
            .arg(self.socket())
            .args(args)
            .env_remove("RUST_LOG");
        command
    }

    /// What the program says.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn call(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// A rule at reads that is right but for what is added.
    #[must_use]
    pub fn inject(&self, more: &[&str]) -> Output {
        self.call(&[&["inject", "vfs.read", "--delay", "5ms"], more].concat())
    }

    /// Answers requests, in order; returns what was asked.
    ///
    /// # Panics
    /// The socket cannot be had; the thread, if somebody hangs up.
    #[must_use]
    pub fn agent(&self, answers: &'static [&'static str]) -> JoinHandle<Vec<String>> {
        let listener = UnixListener::bind(self.socket()).unwrap();
        thread::spawn(move || {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                asked.push(line);
                stream.write_all(answer.as_bytes()).unwrap();
                stream.write_all(b"\n").unwrap();
            }
            asked
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.dir);
    }
}
