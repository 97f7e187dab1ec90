//! What keeps an agent from starting: each with one clear line, the right exit code, and nothing left
//! attached.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, net::UnixStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use iolag_tests::{
    mounts::hide,
    refusal::{assert_nothing_left, assert_refused, processes_with},
};

use crate::place::{Place, as_nobody, end, succeeded, wait_ended};

#[test]
fn without_root_nothing_is_tried() {
    let Some(mut place) = Place::new() else {
        return;
    };
    place.open_to_all();
    for args in [&["run"][..], &["run", "--detach"]] {
        let output = as_nobody(&mut place.command(args));
        assert_refused(
            &output,
            3,
            &["CAP_BPF and CAP_PERFMON are missing", "sudo iolag run"],
        );
    }
    assert_nothing_left(&place.socket());
    assert!(!place.dir.join("iolag.log").exists());
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
    // A process loses its command line, by which `wait_ended` knows it, before its descriptors.
    let start = Instant::now();
    while UnixStream::connect(place.socket()).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(5), "it still listens");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(place.socket().exists());
    assert_refused(&place.call(&["status"]), 3, &["is gone", "iolag run"]);
    place.start();
    place.done(&["set", "1us"]);
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

/// The kernel side knows the agent by its id in the first PID namespace.
#[test]
fn a_pid_namespace_of_its_own_is_refused() {
    let Some(place) = Place::new() else {
        return;
    };
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc"])
        .arg(&place.program)
        .arg("run")
        .arg("--socket")
        .arg(place.socket())
        .output()
        .unwrap();
    assert_refused(&output, 3, &["PID namespace", "--pid=host"]);
    assert_nothing_left(&place.socket());
}

/// Of another kind than ours, so that a stream cannot be connected to it: it is not stale.
#[test]
fn another_programs_datagram_socket_is_left_alone() {
    let Some(place) = Place::new() else {
        return;
    };
    let _theirs = std::os::unix::net::UnixDatagram::bind(place.socket()).unwrap();
    let output = place.call(&["run"]);
    assert_refused(&output, 1, &["in use by another program", "--socket"]);
    assert!(place.socket().exists(), "the socket was removed");
}
