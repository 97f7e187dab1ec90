//! Privileges that only some hosts ask for: the agent tries, and keeps what it cannot do without there.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    process::Command,
};

use iolag_tests::{mounts, privileges::Who, refusal::assert_refused};

use crate::{
    place::{NOBODY, Place, succeeded},
    privileges::{TWO, assert_true_of_all_threads, start_as, told},
};

/// A directory that is another's, and closed.
#[test]
fn a_closed_directory_is_looked_into_by_who_may() {
    let Some(place) = Place::new() else { return };
    let closed = place.dir.join("closed");
    fs::create_dir_all(closed.join("db")).unwrap();
    chown(&closed, Some(NOBODY), None).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let under = closed.join("db");
    let inject = ["inject", "vfs.read", "--delay", "1us", "--under"];
    let inject = [&inject[..], &[under.to_str().unwrap()]].concat();
    place.start();
    place.done(&inject);
    place.stop();
    let who = Who {
        uid: 0,
        capabilities: TWO,
    };
    start_as(&place, who);
    assert_refused(&place.call(&inject), 1, &["--under", "Permission denied"]);
    place.stop();
}

/// Gives the command a `/proc` of its own, which hides the processes of others.
fn hide_processes(command: &mut Command) {
    let hide = || {
        mounts::own()?;
        mounts::proc(c"hidepid=2")
    };
    // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
    unsafe { command.pre_exec(hide) };
}

/// Processes that /proc hides can be named by who may see them, and that is kept only where it hides any.
#[test]
fn what_proc_hides_is_seen_by_who_may() {
    let Some(mut place) = Place::new() else {
        return;
    };
    place.open_to_all();
    chown(&place.dir, Some(NOBODY), None).unwrap();
    let three = [TWO, &["CAP_SYS_PTRACE"]].concat();
    let pid = std::process::id().to_string();
    let inject = ["inject", "vfs.read", "--delay", "1us", "--pid", &pid];
    for (capabilities, hidden, kept) in [
        (&three[..], true, &three[..]),
        (&three, false, TWO),
        (TWO, true, TWO),
    ] {
        let mut run = place.command(&["run", "--detach", "--backend", "tp"]);
        if hidden {
            hide_processes(&mut run);
        }
        let uid = NOBODY;
        Who { uid, capabilities }.run(&mut run);
        succeeded(&run.output().unwrap());
        assert_eq!(told(&place), kept);
        assert_true_of_all_threads(&place);
        if hidden && kept == TWO {
            assert_refused(&place.call(&inject), 2, &["no such process"]);
        } else {
            place.done(&inject);
        }
        place.stop();
    }
}

/// What it takes to remove the socket from there is kept.
#[test]
fn a_socket_in_another_users_directory_goes_with_the_agent() {
    let Some(place) = Place::new() else { return };
    chown(&place.dir, Some(NOBODY), None).unwrap();
    place.start();
    let told = told(&place);
    assert!(told.contains(&"CAP_DAC_OVERRIDE".into()), "{told:?}");
    assert_true_of_all_threads(&place);
    place.stop();
    chown(&place.dir, Some(0), None).unwrap();
    place.start();
    assert_eq!(told.len(), self::told(&place).len() + 1);
    place.stop();
}
