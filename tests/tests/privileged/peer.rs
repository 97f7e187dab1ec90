//! Who may not command the agent gets a refusal and nothing else, whatever it sends, though the socket lets it in.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    thread,
};

use serde_json::{Value, json};

use crate::place::{NOBODY, Place};

/// More than the kernel takes from a process that sends to a socket which nobody reads.
const MEGABYTE: usize = 1 << 20;

/// An agent whose socket somebody opened to all.
fn open_to_all() -> Option<Place> {
    let place = Place::new()?;
    place.start();
    fs::set_permissions(place.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    Some(place)
}

/// Does it in a thread that is nobody to the kernel, which keeps credentials by thread.
fn by_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let become_nobody = || {
        // SAFETY: the system call itself takes numbers; libc's function would change all threads.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
        assert_eq!(changed, 0, "{}", std::io::Error::last_os_error());
        work()
    };
    thread::scope(|scope| scope.spawn(become_nobody).join().unwrap())
}

/// What nobody gets that sends these bytes, until the agent hangs up.
fn answer_to(place: &Place, bytes: &[u8]) -> Vec<u8> {
    by_nobody(|| {
        let mut stream = place.connect();
        let _hung_up = stream.write_all(bytes);
        all_of(&mut stream)
    })
}

/// A connection that was cut with bytes unread ends in an error, behind what had come.
fn all_of(stream: &mut UnixStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let _cut = stream.read_to_end(&mut answer);
    answer
}

#[track_caller]
fn assert_refusal(answer: &[u8]) {
    let text = std::str::from_utf8(answer).unwrap();
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    let refusal: Value = serde_json::from_str(text).unwrap();
    let only = json!({
        "schema": 1,
        "ok": false,
        "error": {
            "code": 3,
            "message": "only root may command the agent",
            "hint": "use sudo",
        },
    });
    assert_eq!(refusal, only);
}

#[test]
fn a_peer_that_is_not_root_gets_the_refusal_whatever_it_asks() {
    let Some(place) = open_to_all() else { return };
    let pid = place.pid();
    let rules = place.status()["rules"].clone();
    for command in ["status", "rules", "probe-list", "reset", "stop"] {
        let line = json!({"schema": 1, "command": command}).to_string();
        assert_refusal(&answer_to(&place, format!("{line}\n{line}\n").as_bytes()));
        // The same line is understood of root.
        if command != "stop" {
            assert_eq!(place.ask(line.as_bytes())["ok"], true, "{line}");
        }
    }
    for bytes in [&b""[..], b"\n", b"{", b"\xff\xfe\n"] {
        assert_refusal(&answer_to(&place, bytes));
    }
    assert_eq!(place.pid(), pid);
    assert_eq!(place.status()["rules"], rules);
    place.stop();
}

#[test]
fn a_peer_that_is_not_root_and_sends_a_megabyte_gets_no_more() {
    let Some(place) = open_to_all() else { return };
    let pid = place.pid();
    let mut lines = br#"{"schema":1,"command":"status"}"#.to_vec();
    lines.push(b'\n');
    for bytes in [vec![b'x'; MEGABYTE], lines.repeat(MEGABYTE / lines.len())] {
        assert_refusal(&answer_to(&place, &bytes));
    }
    assert_eq!(place.pid(), pid);
    place.stop();
}

/// More than are served at once: who has nothing to say holds no place that root needs.
#[test]
fn a_crowd_that_is_not_root_keeps_root_from_nothing() {
    let Some(place) = open_to_all() else { return };
    let pid = place.pid();
    let crowd: Vec<UnixStream> = by_nobody(|| (0..100).map(|_| place.connect()).collect());
    assert_eq!(place.pid(), pid);
    for mut stream in crowd {
        assert_refusal(&all_of(&mut stream));
    }
    place.stop();
}
