//! Bad input that takes no root: each gives one clear line, the right exit code, and no agent.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{
        fs::symlink,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use iolag_tests::{
    agent::scratch_dir,
    refusal::{assert_nothing_left, assert_refused, program},
};

const COMMANDS: [&[&str]; 5] = [
    &["set", "100"],
    &["set-blk", "100"],
    &["status"],
    &["reset"],
    &["stop"],
];

/// A directory with a socket path in it, and the program to call.
struct Place {
    program: PathBuf,
    dir: PathBuf,
}

impl Place {
    fn new() -> Option<Self> {
        Some(Self {
            program: program()?,
            dir: scratch_dir().unwrap(),
        })
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("iolag.sock")
    }

    fn call(&self, args: &[&str]) -> Output {
        self.call_at(&self.socket(), args)
    }

    fn call_at(&self, socket: &Path, args: &[&str]) -> Output {
        Command::new(&self.program)
            .args(args)
            .arg("--socket")
            .arg(socket)
            .env_remove("RUST_LOG")
            .output()
            .unwrap()
    }

    /// What a command says to a program that is no agent, and how long it takes.
    fn meet(&self, answer: impl FnOnce(UnixStream) + Send + 'static) -> (Output, Duration) {
        let listener = UnixListener::bind(self.socket()).unwrap();
        let foreign = thread::spawn(move || answer(listener.accept().unwrap().0));
        let start = Instant::now();
        let output = self.call(&["status"]);
        let took = start.elapsed();
        foreign.join().unwrap();
        (output, took)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.dir);
    }
}

/// Answers `text` once the request is there, then closes.
fn says(text: &'static str) -> impl FnOnce(UnixStream) + Send + 'static {
    move |mut stream| {
        let mut request = [0; 256];
        let _read = stream.read(&mut request).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
    }
}

#[test]
fn without_an_agent_each_command_says_how_to_start_one() {
    let Some(place) = Place::new() else { return };
    for command in COMMANDS {
        assert_refused(
            &place.call(command),
            3,
            &["no agent is running", "iolag run --detach"],
        );
    }
    assert_nothing_left(&place.socket());
}

#[test]
fn the_socket_of_a_dead_agent_is_told_from_a_missing_one() {
    let Some(place) = Place::new() else { return };
    drop(UnixListener::bind(place.socket()).unwrap());
    for command in COMMANDS {
        assert_refused(
            &place.call(command),
            3,
            &["no agent is running", "is gone", "iolag run --detach"],
        );
    }
}

#[test]
fn a_file_is_no_socket() {
    let Some(place) = Place::new() else { return };
    fs::write(place.socket(), "precious").unwrap();
    for command in COMMANDS {
        assert_refused(&place.call(command), 1, &["is not a socket", "--socket"]);
    }
    assert_eq!(fs::read_to_string(place.socket()).unwrap(), "precious");
}

#[test]
fn a_socket_path_that_is_too_long_is_named() {
    let Some(place) = Place::new() else { return };
    let long = place.dir.join("x".repeat(120));
    for command in COMMANDS {
        assert_refused(
            &place.call_at(&long, command),
            2,
            &["longer than 107 bytes", "--socket"],
        );
    }
}

#[test]
fn a_foreign_greeting_is_no_answer() {
    let Some(place) = Place::new() else { return };
    let (output, _) = place.meet(says("220 hello\r\n"));
    assert_refused(&output, 1, &["another program"]);
}

#[test]
fn a_hang_up_is_no_answer() {
    let Some(place) = Place::new() else { return };
    let (output, _) = place.meet(drop);
    assert_refused(&output, 1, &["agent"]);
}

#[test]
fn silence_ends_the_wait_after_5_s() {
    let Some(place) = Place::new() else { return };
    let (output, took) = place.meet(|mut stream| {
        let _ended = stream.read_to_end(&mut Vec::new());
    });
    assert_refused(&output, 1, &["no answer within 5 s", "iolag run --detach"]);
    assert!(
        took >= Duration::from_secs(5) && took < Duration::from_secs(7),
        "{took:?}"
    );
}

#[test]
fn an_answer_in_drops_ends_the_wait_after_5_s_too() {
    let Some(place) = Place::new() else { return };
    let (output, took) = place.meet(|mut stream| {
        for _ in 0..100 {
            if stream.write_all(b" ").is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
    });
    assert_refused(&output, 1, &["no answer within 5 s"]);
    assert!(took < Duration::from_secs(7), "{took:?}");
}

#[test]
fn a_line_without_end_is_cut_off() {
    let Some(place) = Place::new() else { return };
    let (output, took) = place.meet(|mut stream| while stream.write_all(&[b'x'; 4096]).is_ok() {});
    assert_refused(&output, 1, &["another program"]);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn half_an_answer_and_answers_of_other_versions_are_refused() {
    for (text, word) in [
        ("{\"schema\":1,\"ok\":true,\"resu", "EOF"),
        ("{\"schema\":2,\"ok\":true}\n", "schema 2"),
        ("{\"schema\":1,\"ok\":true,\"result\":7}\n", "invalid type"),
        ("{\"schema\":1,\"ok\":false}\n", "neither"),
    ] {
        let Some(place) = Place::new() else { return };
        let (output, _) = place.meet(says(text));
        assert_refused(&output, 1, &[word, "another version"]);
    }
}

#[test]
fn a_foreign_refusal_is_one_line_and_never_exit_code_0() {
    let Some(place) = Place::new() else { return };
    let (output, _) = place.meet(says(
        "{\"schema\":1,\"ok\":false,\"error\":{\"code\":0,\"message\":\"a\\nb\",\"hint\":\"c\\nd\"}}\n",
    ));
    assert_refused(&output, 1, &["a b", "c d"]);
}

#[test]
fn delays_out_of_range_and_nonsense_are_refused() {
    let Some(place) = Place::new() else { return };
    for (delay, words) in [
        ("-5", ["delay -5 is below 0", "0 switches the delay off"]),
        (
            "-5ms",
            ["delay -5ms is below 0", "0 switches the delay off"],
        ),
        ("1000001", ["delay 1000001 is above 1 s", "1000000"]),
        ("2s", ["delay 2s is above 1 s", "1000000"]),
        ("99999999999999999999", ["is above 1 s", "1000000"]),
        ("5m", ["\"5m\" is not a delay", "5ms"]),
        ("abc", ["\"abc\" is not a delay", "5ms"]),
        ("1.5", ["\"1.5\" is not a delay", "whole number"]),
        ("", ["\"\" is not a delay", "whole number"]),
        ("5 ms\n6", ["is not a delay", "whole number"]),
    ] {
        for command in ["set", "set-blk"] {
            assert_refused(&place.call(&[command, delay]), 2, &words);
        }
    }
}

#[test]
fn a_command_line_that_makes_no_sense_is_refused() {
    let Some(place) = Place::new() else { return };
    let cases: [(&[&str], &str); 9] = [
        (&["set"], "<DELAY>"),
        (&["set-blk"], "<DELAY>"),
        (&["set", "1", "2"], "'2'"),
        (&["fly"], "'fly'"),
        (&["run", "--backend", "magic"], "'magic'"),
        (&["run", "--fly"], "'--fly'"),
        (&["status", "--format", "xml"], "'xml'"),
        (&["stop", "now"], "'now'"),
        (&["completions", "cmd"], "'cmd'"),
    ];
    for (args, word) in cases {
        assert_refused(&place.call(args), 2, &[word]);
    }
    assert_refused(
        &place.call(&["run", "--backend", "magic"]),
        2,
        &["auto", "fentry", "kprobe", "tp"],
    );
    assert_nothing_left(&place.socket());
}

#[test]
fn under_the_name_of_io_delayer_its_commands_and_no_others_are_taken() {
    let Some(mut place) = Place::new() else {
        return;
    };
    let other = place.dir.join("io-delayer-cli");
    symlink(&place.program, &other).unwrap();
    place.program = other;
    for command in &COMMANDS[..3] {
        assert_refused(
            &place.call(command),
            3,
            &["no agent is running", "iolag run --detach"],
        );
    }
    assert_refused(&place.call(&["set", "2s"]), 2, &["above 1 s"]);
    for command in ["reset", "stop", "run"] {
        assert_refused(&place.call(&[command]), 2, &[command]);
    }
    assert_nothing_left(&place.socket());
}

#[test]
fn results_that_cannot_be_written_are_a_failure() {
    let Some(place) = Place::new() else { return };
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(&place.program)
        .args(["completions", "bash"])
        .stdout(full)
        .output()
        .unwrap();
    assert_refused(&output, 1, &["stdout", "No space left on device"]);
}

#[test]
fn top_without_a_terminal_is_refused() {
    let Some(place) = Place::new() else { return };
    assert_refused(&place.call(&["top"]), 2, &["terminal", "iolag hist"]);
    assert_refused(&place.call(&["top", "5x"]), 2, &["5x", "interval"]);
}
