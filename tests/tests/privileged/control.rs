//! Bad input on the socket of an agent that runs: it is refused, and the agent serves on.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    process::Stdio,
    time::{Duration, Instant},
};

use iolag_tests::{held::Held, refusal::assert_refused};
use serde_json::{Value, json};

use crate::place::{Place, as_nobody};

#[test]
fn the_agent_is_commanded_by_root_alone() {
    let Some(mut place) = Place::new() else {
        return;
    };
    place.open_to_all();
    place.start();
    for args in [
        &["status"][..],
        &["set", "1"],
        &["reset"],
        &["stop"],
        &["probe", "list"],
        &["events"],
        &["events", "--follow"],
    ] {
        let output = as_nobody(&mut place.command(args));
        assert_refused(&output, 3, &["only root", "use sudo"]);
    }
    // Even with the socket's mode opened by somebody, the agent looks at who is there.
    fs::set_permissions(place.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let output = as_nobody(&mut place.command(&["set", "1"]));
    assert_refused(&output, 3, &["only root"]);
    assert_eq!(place.status()["rules"], json!([]));
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

/// To read the kernel's types takes some tens of MB, which many would take many times.
#[test]
fn what_rules_need_of_the_kernel_is_read_once_for_all_who_ask() {
    const CLIENTS: usize = 12;
    let Some(place) = Place::new() else { return };
    let peak = |clients: usize| {
        let pid = place.start();
        let inject = |number: usize| {
            let name = format!("rule-{number}");
            let filter = ["--uid", "4242", "--delay", "1us", "--name", &name];
            let mut command = place.command(&[&["inject", "vfs.read"], &filter[..]].concat());
            command.stdout(Stdio::null()).spawn().unwrap()
        };
        let clients: Vec<_> = (0..clients).map(inject).collect();
        let done = clients.into_iter().map(|mut one| one.wait().unwrap());
        assert!(done.into_iter().all(|status| status.success()));
        let peak = Held::by(pid).unwrap().peak;
        place.stop();
        peak
    };
    let (one, many) = (peak(1), peak(CLIENTS));
    println!("an agent has {one} KiB at most for one client, {many} KiB for {CLIENTS}");
    assert!(many < one + one / 2, "{one} KiB, and {many} KiB for many");
}
