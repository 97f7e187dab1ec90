//! What a terminal is like after a panic.

use std::{
    env,
    fs::File,
    io::Read as _,
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    process::Command,
    ptr,
};

use super::Screen;

/// What takes and leaves the other screen.
const TAKE: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";
const SAID: &str = "as it was asked to";

/// Set for the process that is to panic.
const ASKED: &str = "IOLAG_TEST_PANICS";

#[test]
fn a_panic_restores_the_terminal() {
    if env::var_os(ASKED).is_some() {
        let _screen = Screen::take().unwrap();
        panic!("{SAID}");
    }
    let (mut ours, theirs) = terminal();
    let before = settings(&theirs);
    let ends = || theirs.try_clone().unwrap();
    let mut child = Command::new(env::current_exe().unwrap());
    let this = "top::tests::a_panic_restores_the_terminal";
    child.args(["--exact", this, "--nocapture"]);
    child.env(ASKED, "1").env("RUST_BACKTRACE", "0");
    child.stdin(ends()).stdout(ends()).stderr(ends());
    let status = child.status().unwrap();
    assert!(!status.success(), "it did not panic");
    assert_eq!(settings(&theirs), before, "modes of the terminal");
    drop((theirs, child));
    let mut sent = Vec::new();
    // A terminal without its other end fails the last read.
    let _end = ours.read_to_end(&mut sent);
    let sent = String::from_utf8_lossy(&sent);
    let place = |text: &str| sent.find(text);
    let (taken, left, said) = (place(TAKE), place(LEAVE), place(SAID));
    assert!(taken.is_some() && taken < left, "{sent:?}");
    // Else nobody could read it.
    assert!(left < said, "{sent:?}");
}

/// Both ends of a new terminal.
fn terminal() -> (File, OwnedFd) {
    let (mut ours, mut theirs) = (0, 0);
    // SAFETY: the descriptors are written; what is null is left at its default.
    let result = unsafe {
        libc::openpty(
            &raw mut ours,
            &raw mut theirs,
            ptr::null_mut(),
            ptr::null(),
            ptr::null(),
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: both were just opened, and nobody else owns them.
    unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) }
}

/// Modes of input, output, control and line.
fn settings(terminal: &OwnedFd) -> [libc::tcflag_t; 4] {
    let mut settings = MaybeUninit::<libc::termios>::uninit();
    // SAFETY: the descriptor is a terminal's, and the structure is written.
    let settings = unsafe {
        assert_eq!(
            libc::tcgetattr(terminal.as_raw_fd(), settings.as_mut_ptr()),
            0
        );
        settings.assume_init()
    };
    [
        settings.c_iflag,
        settings.c_oflag,
        settings.c_cflag,
        settings.c_lflag,
    ]
}
