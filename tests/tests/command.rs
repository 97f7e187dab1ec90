//! Commands in the scope of a rule, at something that answers as an agent does: takes no root.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::net::UnixListener,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use iolag_tests::{place::Place, refusal::assert_refused};

const NAMED: &str = r#"{"schema":1,"ok":true,"result":{"id":7,"name":"slow-1"}}"#;
const DONE: &str = r#"{"schema":1,"ok":true}"#;
const REFUSED: &str = r#"{"schema":1,"ok":false,"error":{"code":2,"message":"64 rules are in force","hint":"remove one"}}"#;

#[test]
fn a_rule_that_the_agent_refuses_starts_no_command() {
    let Some(place) = Place::new() else { return };
    let agent = place.agent(&[REFUSED]);
    let mark = place.dir.join("mark");
    let output = place.inject(&["--", "touch", mark.to_str().unwrap()]);
    assert_refused(&output, 2, &["64 rules are in force", "remove one"]);
    assert!(!mark.exists());
    agent.join().unwrap();
}

/// What a command in a rule's scope wrote, its exit code, and what the agent was asked.
fn in_scope(command: &[&str]) -> Option<(Output, Vec<String>)> {
    let place = Place::new()?;
    let agent = place.agent(&[NAMED, DONE]);
    let output = place.inject(&[&["--"], command].concat());
    Some((output, agent.join().unwrap()))
}

#[test]
fn a_command_keeps_its_output_and_its_exit_code() {
    for (script, code) in [
        ("echo $$; exit 7", 7),
        ("echo $$", 0),
        ("echo $$; kill -9 $$", 137),
        ("echo $$; kill -15 $$", 143),
    ] {
        let Some((output, asked)) = in_scope(&["sh", "-c", script]) else {
            return;
        };
        assert_eq!(output.status.code(), Some(code), "{script}");
        assert!(output.stderr.is_empty(), "{script}");
        let stdout = String::from_utf8_lossy(&output.stdout);
        let pid = stdout.trim();
        assert!(
            asked[0].contains(&format!(r#""pids":[{pid}],"children":true"#)),
            "{pid}: {}",
            asked[0]
        );
        assert!(
            asked[1].contains(r#""command":"end","id":7"#),
            "{}",
            asked[1]
        );
    }
}

#[test]
fn a_command_dies_of_a_closed_pipe_as_ever() {
    let Some((output, _)) = in_scope(&["sh", "-c", "kill -PIPE $$; echo alive"]) else {
        return;
    };
    assert_eq!(output.status.code(), Some(141));
}

#[test]
fn a_command_that_is_not_there_ends_the_rule() {
    for (command, code, word) in [
        ("no-such-command", 127, "No such file"),
        ("/dev/null", 126, "denied"),
    ] {
        let Some((output, asked)) = in_scope(&[command]) else {
            return;
        };
        assert_refused(&output, code, &[command, word]);
        assert!(asked[1].contains(r#""command":"end""#), "{}", asked[1]);
    }
}

#[test]
fn an_agent_that_goes_away_is_told_and_changes_nothing() {
    let Some(place) = Place::new() else { return };
    let agent = place.agent(&[NAMED]);
    let output = place.inject(&["--", "sh", "-c", "sleep 0.3; exit 5"]);
    agent.join().unwrap();
    assert_eq!(output.status.code(), Some(5));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("the agent went away"), "{stderr}");
}

const GONE: &str = r#"{"schema":1,"ok":false,"error":{"code":2,"message":"unknown rule","hint":"none is in force"}}"#;
const ABORTED: &str = r#"{"schema":1,"ok":true,"result":[{"id":7,"spec":{"name":"slow-1","points":["vfs.read"],"delay":{"kind":"fixed","ns":5000000},"cap_ns":1000000000},"age_ns":1,"left_ns":null,"ended":"--abort-if memory.oom > 0: 1 OOM kills","hooks":[],"counts":{"matches":0,"hits":0,"spared":0,"ended":0,"lease":0,"budget":0,"row":0,"exempt":0,"capped":0,"short":0,"missed":0,"asked_ns":0,"achieved_ns":0},"asked":{"mean":0,"p50":0,"p99":0,"p99.9":0},"achieved":{"mean":0,"p50":0,"p99":0,"p99.9":0}}]}"#;

#[test]
fn a_rule_that_a_condition_ended_is_told() {
    let Some(place) = Place::new() else { return };
    let agent = place.agent(&[NAMED, GONE, ABORTED]);
    let output = place.inject(&["--abort-if", "memory.oom > 0", "--", "true"]);
    agent.join().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("ended before the command: --abort-if memory.oom > 0"),
        "{stderr}"
    );
}

fn ends_within(child: &mut Child, patience: Duration) -> Option<i32> {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    None
}

#[test]
fn signals_are_the_commands() {
    for (signal, code) in [("-TERM", 143), ("-INT", 130), ("-HUP", 129)] {
        let Some(place) = Place::new() else { return };
        let agent = place.agent(&[NAMED, DONE]);
        let mut child = place
            .command(&[
                "inject",
                "vfs.read",
                "--delay",
                "5ms",
                "--",
                "sh",
                "-c",
                "echo up; exec sleep 60",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        let pid = child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(
            ends_within(&mut child, Duration::from_secs(5)),
            Some(code),
            "{signal}"
        );
        assert!(agent.join().unwrap()[1].contains(r#""command":"end""#));
    }
}

#[test]
fn a_killed_iolag_starts_no_command() {
    let Some(place) = Place::new() else { return };
    // Takes the request and says nothing.
    let listener = UnixListener::bind(place.socket()).unwrap();
    let mark = place.dir.join("mark");
    let mut child = place
        .command(&[
            "inject",
            "vfs.read",
            "--delay",
            "5ms",
            "--",
            "touch",
            mark.to_str().unwrap(),
        ])
        .spawn()
        .unwrap();
    let (stream, _) = listener.accept().unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    thread::sleep(Duration::from_millis(200));
    assert!(!mark.exists());
}
