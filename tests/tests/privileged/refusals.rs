//! What the agent refuses, and what it survives: each with one clear line, the right exit code, and
//! nothing left attached.

use std::{
    ffi::OsStr,
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, symlink},
        net::UnixStream,
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use iolag_tests::{
    agent::scratch_dir,
    refusal::{assert_nothing_left, assert_refused, processes_with, program},
};
use serde_json::{Value, json};

const NOBODY: u32 = 65534;

/// A directory with a socket path in it, and the program to call. Dropping it ends every agent there.
struct Place {
    program: PathBuf,
    dir: PathBuf,
}

impl Place {
    /// Nothing, and the reason on stdout, where these tests cannot run.
    fn new() -> Option<Self> {
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

    fn socket(&self) -> PathBuf {
        self.dir.join("iolag.sock")
    }

    fn command_at(&self, socket: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).arg("--socket").arg(socket);
        command.env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    fn command(&self, args: &[&str]) -> Command {
        self.command_at(&self.socket(), args)
    }

    fn call(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    #[track_caller]
    fn done(&self, args: &[&str]) -> String {
        succeeded(&self.call(args))
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.done(&["status", "--format", "json"])).unwrap()
    }

    /// Starts an agent in the background and returns its process id.
    #[track_caller]
    fn start(&self) -> i32 {
        self.done(&["run", "--detach"]);
        self.pid()
    }

    fn pid(&self) -> i32 {
        self.status()["agent"]["pid"]
            .as_i64()
            .unwrap()
            .try_into()
            .unwrap()
    }

    /// A copy that nobody may run, and where it lies: the build's own directory may be closed to it.
    fn open_to_all(&mut self) {
        let copy = self.dir.join("iolag");
        fs::copy(&self.program, &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        self.program = copy;
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        let patience = Some(Duration::from_secs(15));
        stream.set_read_timeout(patience).unwrap();
        stream.set_write_timeout(patience).unwrap();
        stream
    }

    /// Sends a line as it is, and returns the answer.
    fn ask(&self, line: &[u8]) -> Value {
        let mut stream = self.connect();
        stream.write_all(line).unwrap();
        stream.write_all(b"\n").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    /// Ends an agent that is a child of this process, which has to be waited for.
    fn stop_child(&self, child: &mut Child) {
        self.done(&["stop"]);
        assert!(child.wait().unwrap().success());
        wait_ended(&self.socket());
        assert_nothing_left(&self.socket());
    }

    /// Ends the agent, and looks whether it is gone.
    fn stop(&self) {
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

fn end(pid: i32) {
    // SAFETY: kill has no memory to harm; the pid is that of an agent that the test started.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Waits until no process knows of the socket.
#[track_caller]
fn wait_ended(socket: &Path) {
    let start = Instant::now();
    while !processes_with(&socket.display().to_string()).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(5), "still there");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs the command as nobody.
fn as_nobody(command: &mut Command) -> Output {
    command.uid(NOBODY).gid(NOBODY).output().unwrap()
}

fn checked(result: i32) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives the command mounts of its own, with an empty tmpfs at each of these paths that exists.
fn hide(command: &mut Command, paths: &'static [&'static std::ffi::CStr], flags: u64) {
    let hide = move || {
        // SAFETY: system calls with C strings that live for ever; null where the kernel ignores it.
        unsafe {
            checked(libc::unshare(libc::CLONE_NEWNS))?;
            let private = libc::MS_REC | libc::MS_PRIVATE;
            checked(libc::mount(
                std::ptr::null(),
                c"/".as_ptr(),
                std::ptr::null(),
                private,
                std::ptr::null(),
            ))?;
            for path in paths {
                let tmpfs = c"tmpfs".as_ptr();
                let mounted = libc::mount(tmpfs, path.as_ptr(), tmpfs, flags, std::ptr::null());
                match checked(mounted) {
                    Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
    unsafe { command.pre_exec(hide) };
}

#[test]
fn without_root_nothing_is_tried() {
    let Some(mut place) = Place::new() else {
        return;
    };
    place.open_to_all();
    for args in [&["run"][..], &["run", "--detach"]] {
        let output = as_nobody(&mut place.command(args));
        assert_refused(&output, 3, &["must run as root", "sudo iolag run"]);
    }
    assert_nothing_left(&place.socket());
    assert!(!place.dir.join("iolag.log").exists());
}

#[test]
fn the_agent_is_commanded_by_root_alone() {
    let Some(mut place) = Place::new() else {
        return;
    };
    place.open_to_all();
    place.start();
    for args in [&["status"][..], &["set", "1"], &["reset"], &["stop"]] {
        let output = as_nobody(&mut place.command(args));
        assert_refused(&output, 3, &["only root", "use sudo"]);
    }
    // Even with the socket's mode opened by somebody, the agent looks at who is there.
    fs::set_permissions(place.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let output = as_nobody(&mut place.command(&["set", "1"]));
    assert_refused(&output, 1, &["only root"]);
    assert_eq!(place.status()["rules"], json!([]));
    place.stop();
}

#[test]
fn a_second_agent_is_refused_and_the_first_goes_on() {
    let Some(place) = Place::new() else { return };
    let first = place.start();
    place.done(&["set", "1us"]);
    for args in [&["run"][..], &["run", "--detach"]] {
        let words = ["another agent is running", "iolag stop"];
        assert_refused(&place.call(args), 3, &words);
    }
    let status = place.status();
    assert_eq!(status["agent"]["pid"], first);
    assert_eq!(status["rules"][0]["delay_ns"], 1000);
    place.stop();
}

#[test]
fn fentry_forced_on_a_kernel_that_refuses_it_is_told_with_the_reason() {
    force("fentry");
}

#[test]
fn kprobe_forced_on_a_kernel_that_refuses_it_is_told_with_the_reason() {
    force("kprobe");
}

fn force(backend: &str) {
    for detach in [&[][..], &["--detach"]] {
        let Some(place) = Place::new() else { return };
        let args = [&["run", "--backend", backend][..], detach].concat();
        let mut child = place
            .command(&args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() && !place.socket().exists() {
            assert!(start.elapsed() < Duration::from_secs(30));
            thread::sleep(Duration::from_millis(5));
        }
        if place.socket().exists() {
            println!("skipped: this kernel takes {backend}, so there is no refusal");
            place.stop_child(&mut child);
            return;
        }
        let output = child.wait_with_output().unwrap();
        assert_refused(&output, 3, &["failed to attach", backend, "--backend auto"]);
        assert_nothing_left(&place.socket());
    }
}

#[test]
fn without_btf_fentry_says_so() {
    let Some(place) = Place::new() else { return };
    let mut run = place.command(&["run", "--backend", "fentry"]);
    hide(&mut run, &[c"/sys/kernel/btf"], 0);
    let words = ["BTF", "CONFIG_DEBUG_INFO_BTF", "--backend auto"];
    assert_refused(&run.output().unwrap(), 3, &words);
    assert_nothing_left(&place.socket());
}

#[test]
fn without_btf_and_without_tracefs_the_tracepoints_serve() {
    let Some(place) = Place::new() else { return };
    for backend in ["tp", "auto"] {
        let mut run = place.command(&["run", "--detach", "--backend", backend]);
        let hidden = &[
            c"/sys/kernel/btf",
            c"/sys/kernel/tracing",
            c"/sys/kernel/debug",
        ];
        hide(&mut run, hidden, 0);
        succeeded(&run.output().unwrap());
        let status = place.status();
        let points = status["points"].as_array().unwrap();
        assert!(!points.is_empty());
        for point in points {
            assert_ne!(point["backend"], "fentry", "{point}");
        }
        place.done(&["set", "1us"]);
        place.stop();
    }
}

#[test]
fn a_kernel_that_refuses_every_backend_is_told_in_one_line() {
    let Some(place) = Place::new() else { return };
    if Command::new("setpriv").arg("--version").output().is_err() {
        println!("skipped: setpriv (util-linux) is not installed");
        return;
    }
    for args in [&["run"][..], &["run", "--detach"]] {
        let inner = place.command(args);
        // Root without any capability: to the kernel a user like any other.
        let mut run = Command::new("setpriv");
        run.args(["--bounding-set=-all", "--inh-caps=-all", "--"])
            .arg(inner.get_program())
            .args(inner.get_args())
            .env_remove("RUST_LOG");
        let output = run.output().unwrap();
        assert_refused(&output, 3, &["failed to", "CAP_BPF"]);
        assert_nothing_left(&place.socket());
    }
}

#[test]
fn a_directory_that_is_missing_is_named() {
    let Some(place) = Place::new() else { return };
    let socket = place.dir.join("missing/iolag.sock");
    for args in [&["run"][..], &["run", "--detach"]] {
        let output = place.command_at(&socket, args).output().unwrap();
        assert_refused(&output, 1, &["missing/iolag", "No such file", "--socket"]);
        assert_nothing_left(&socket);
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let Some(place) = Place::new() else { return };
    let socket = Path::new("/mnt/iolag-read-only.sock");
    for args in [&["run"][..], &["run", "--detach"]] {
        let mut run = place.command_at(socket, args);
        hide(&mut run, &[c"/mnt"], libc::MS_RDONLY);
        let output = run.output().unwrap();
        assert_refused(
            &output,
            1,
            &["/mnt/iolag-read-only", "Read-only", "--socket"],
        );
        assert_nothing_left(socket);
    }
}

#[test]
fn a_file_or_a_strangers_socket_in_the_way_is_left_alone() {
    let Some(place) = Place::new() else { return };
    fs::write(place.socket(), "precious").unwrap();
    for args in [&["run"][..], &["run", "--detach"]] {
        assert_refused(&place.call(args), 1, &["is not a socket", "--socket"]);
    }
    assert_eq!(fs::read_to_string(place.socket()).unwrap(), "precious");
    fs::remove_file(place.socket()).unwrap();
    let stranger = std::os::unix::net::UnixListener::bind(place.socket()).unwrap();
    for args in [&["run"][..], &["run", "--detach"]] {
        assert_refused(&place.call(args), 1, &["another program", "--socket"]);
    }
    assert!(UnixStream::connect(place.socket()).is_ok());
    drop(stranger);
    let left = processes_with(&place.socket().display().to_string());
    assert!(left.is_empty(), "processes {left:?} are left");
}

#[test]
fn a_socket_path_that_is_too_long_is_refused() {
    let Some(place) = Place::new() else { return };
    let socket = place.dir.join("x".repeat(120));
    for args in [&["run"][..], &["run", "--detach"]] {
        let output = place.command_at(&socket, args).output().unwrap();
        assert_refused(&output, 2, &["longer than 107 bytes", "--socket"]);
        assert_nothing_left(&socket);
    }
}

#[test]
fn after_kill_9_the_next_agent_takes_over_the_stale_socket() {
    let Some(place) = Place::new() else { return };
    end(place.start());
    wait_ended(&place.socket());
    assert!(place.socket().exists());
    assert_refused(&place.call(&["status"]), 3, &["is gone", "iolag run"]);
    place.start();
    place.done(&["set", "1us"]);
    place.stop();
}

#[test]
fn garbage_on_the_socket_gets_an_error_and_the_agent_serves_on() {
    let Some(place) = Place::new() else { return };
    let pid = place.start();
    let lines: [&[u8]; 9] = [
        b"",
        b"GET / HTTP/1.1",
        b"{",
        b"[]",
        b"\x00\xff\xfe",
        br#"{"schema":2,"command":"stop"}"#,
        br#"{"command":"stop"}"#,
        br#"{"schema":1,"command":"fly"}"#,
        br#"{"schema":1,"command":"set","name":"x","points":["vfs.read"],"delay_ns":-1}"#,
    ];
    for line in lines {
        let answer = place.ask(line);
        assert_eq!(answer["ok"], false, "{answer}");
        assert_eq!(answer["error"]["code"], 2, "{answer}");
        assert_eq!(place.pid(), pid);
    }
    place.stop();
}

#[test]
fn half_a_line_is_not_carried_out_and_holds_nobody_up() {
    let Some(place) = Place::new() else { return };
    let pid = place.start();
    let half = br#"{"schema":1,"command":"stop"}"#;
    let mut waiting = place.connect();
    waiting.write_all(half).unwrap();
    assert_eq!(place.pid(), pid);
    let mut closed = place.connect();
    closed.write_all(half).unwrap();
    closed.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    closed.read_to_end(&mut answer).unwrap();
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    // Silence is not served for ever either: the reader sees the end before its own patience does.
    assert_eq!(waiting.read(&mut [0; 16]).unwrap(), 0);
    assert_eq!(place.pid(), pid);
    place.stop();
}

#[test]
fn a_line_of_a_megabyte_is_cut_off() {
    let Some(place) = Place::new() else { return };
    let pid = place.start();
    let mut stream = place.connect();
    let sent = stream.write_all(&vec![b'x'; 1 << 20]);
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    // The agent closes with our bytes unread: we see its answer, or that the pipe broke.
    assert!(sent.is_err() || read.is_err() || !answer.is_empty());
    if !answer.is_empty() {
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["error"]["code"], 2, "{answer}");
    }
    assert_eq!(place.pid(), pid);
    place.stop();
}

#[test]
fn a_crowd_that_says_nothing_does_not_end_the_agent() {
    let Some(place) = Place::new() else { return };
    let pid = place.start();
    let crowd: Vec<_> = (0..40).map(|_| place.connect()).collect();
    assert_eq!(place.pid(), pid);
    drop(crowd);
    place.stop();
}

#[test]
fn a_refused_set_leaves_the_rules_as_they_were() {
    let Some(place) = Place::new() else { return };
    place.start();
    place.done(&["set", "1us"]);
    place.done(&["set-blk", "2us"]);
    let rules = place.status()["rules"].clone();
    assert_eq!(rules.as_array().unwrap().len(), 2);
    assert_refused(&place.call(&["set", "2s"]), 2, &["above 1 s"]);
    assert_refused(&place.call(&["set-blk", "-1"]), 2, &["below 0"]);
    for (points, delay_ns) in [
        (json!(["vfs.read"]), json!(1_000_000_001u64)),
        (json!(["vfs.read"]), json!(u64::MAX)),
        (json!(["vfs.read"]), json!(1.5)),
        (json!(["vfs.read", "vfs.fly"]), json!(1000)),
        (json!("vfs.read"), json!(1000)),
    ] {
        let request = json!({
            "schema": 1, "command": "set", "name": "set", "points": points, "delay_ns": delay_ns,
        });
        let answer = place.ask(request.to_string().as_bytes());
        assert_eq!(answer["ok"], false, "{request}: {answer}");
        assert_eq!(answer["error"]["code"], 2, "{request}: {answer}");
        assert_eq!(place.status()["rules"], rules, "{request}");
    }
    place.done(&["reset"]);
    assert_eq!(place.status()["rules"], json!([]));
    place.stop();
}

#[test]
fn the_commands_of_io_delayer_work_under_its_name() {
    let Some(mut place) = Place::new() else {
        return;
    };
    place.start();
    let iolag = place.program.clone();
    place.program = place.dir.join("io-delayer-cli");
    symlink(&iolag, &place.program).unwrap();
    assert_eq!(place.done(&["set", "1"]), "");
    assert_eq!(place.done(&["set-blk", "2"]), "");
    let rules = place.status()["rules"].clone();
    assert_eq!(rules[0]["delay_ns"], 1000, "{rules}");
    assert_eq!(rules[1]["delay_ns"], 2000, "{rules}");
    assert_refused(&place.call(&["reset"]), 2, &["reset"]);
    assert_eq!(place.status()["rules"], rules);
    place.done(&["set", "0"]);
    place.done(&["set-blk", "0"]);
    assert_eq!(place.status()["rules"], json!([]));
    place.program = iolag;
    place.stop();
}

#[test]
fn an_agent_that_is_stopped_by_a_signal_is_told_from_none() {
    let Some(place) = Place::new() else { return };
    let pid = place.start();
    // SAFETY: kill has no memory to harm; the pid is that of the agent that this test started.
    unsafe { libc::kill(pid, libc::SIGSTOP) };
    let start = Instant::now();
    let output = place.call(&["status"]);
    let took = start.elapsed();
    // SAFETY: as above.
    unsafe { libc::kill(pid, libc::SIGCONT) };
    assert_refused(&output, 1, &["no answer within 5 s", "hangs or is stopped"]);
    assert!(took < Duration::from_secs(7), "{took:?}");
    assert_eq!(place.pid(), pid);
    place.stop();
}

#[test]
fn a_socket_path_that_is_no_utf_8_is_taken_as_it_is() {
    let Some(place) = Place::new() else { return };
    let socket = place.dir.join(OsStr::from_bytes(b"\xff.sock"));
    for args in [&["run", "--detach"][..], &["status"]] {
        succeeded(&place.command_at(&socket, args).output().unwrap());
    }
    assert!(socket.exists());
    succeeded(&place.command_at(&socket, &["stop"]).output().unwrap());
    assert!(!socket.exists());
}
