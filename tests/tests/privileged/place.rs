//! Where a privileged test runs its agents, and how it ends them.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use iolag_tests::{
    agent::scratch_dir,
    refusal::{assert_nothing_left, processes_with, program},
};
use serde_json::Value;

pub const NOBODY: u32 = 65534;

/// A directory with a socket path in it, and the program to call. Dropping it ends every agent there.
pub struct Place {
    pub program: PathBuf,
    pub dir: PathBuf,
}

impl Place {
    /// Nothing, and the reason on stdout, where these tests cannot run.
    pub fn new() -> Option<Self> {
        // SAFETY: geteuid cannot fail and has no arguments.
        let root = unsafe { libc::geteuid() } == 0;
        if !root || std::env::var_os("IOLAG_PRIVILEGED").is_none() {
            println!("skipped: needs root, cargo xtask test sets IOLAG_PRIVILEGED");
            return None;
        }
        let program = program()?;
        let dir = scratch_dir().unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        Some(Self { program, dir })
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("iolag.sock")
    }

    pub fn command_at(&self, socket: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).arg("--socket").arg(socket);
        command.env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    pub fn command(&self, args: &[&str]) -> Command {
        self.command_at(&self.socket(), args)
    }

    pub fn call(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    #[track_caller]
    pub fn done(&self, args: &[&str]) -> String {
        succeeded(&self.call(args))
    }

    pub fn status(&self) -> Value {
        serde_json::from_str(&self.done(&["status", "--format", "json"])).unwrap()
    }

    /// Starts an agent in the background and returns its process id.
    #[track_caller]
    pub fn start(&self) -> i32 {
        self.done(&["run", "--detach"]);
        self.pid()
    }

    pub fn pid(&self) -> i32 {
        self.status()["agent"]["pid"]
            .as_i64()
            .unwrap()
            .try_into()
            .unwrap()
    }

    /// A copy that nobody may run, and where it lies: the build's own directory may be closed to it.
    pub fn open_to_all(&mut self) {
        let copy = self.dir.join("iolag");
        fs::copy(&self.program, &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        self.program = copy;
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        let patience = Some(Duration::from_secs(15));
        stream.set_read_timeout(patience).unwrap();
        stream.set_write_timeout(patience).unwrap();
        stream
    }

    /// Sends a line as it is, and returns the answer.
    pub fn ask(&self, line: &[u8]) -> Value {
        let mut stream = self.connect();
        stream.write_all(line).unwrap();
        stream.write_all(b"\n").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    /// Ends an agent that is a child of this process, which has to be waited for.
    pub fn stop_child(&self, child: &mut Child) {
        self.done(&["stop"]);
        assert!(child.wait().unwrap().success());
        wait_ended(&self.socket());
        assert_nothing_left(&self.socket());
    }

    /// Ends the agent, and looks whether it is gone.
    pub fn stop(&self) {
        self.done(&["stop"]);
        wait_ended(&self.socket());
        assert_nothing_left(&self.socket());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // All that was started here has this directory's name, which is no other's, in its arguments.
        for pid in processes_with(&format!("{}/", self.dir.display())) {
            end(pid);
        }
        let _gone = fs::remove_dir_all(&self.dir);
    }
}

pub fn end(pid: i32) {
    // SAFETY: kill has no memory to harm; the pid is that of an agent that the test started.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

#[track_caller]
pub fn succeeded(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Waits until no process knows of the socket.
#[track_caller]
pub fn wait_ended(socket: &Path) {
    let start = Instant::now();
    while !processes_with(&socket.display().to_string()).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(5), "still there");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs the command as nobody.
pub fn as_nobody(command: &mut Command) -> Output {
    command.uid(NOBODY).gid(NOBODY).output().unwrap()
}
