//! Reads of the kernel's memory without a call: where the kernel says that it has them, and nowhere else.

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use iolag_tests::btf::{BTF, Btf, FUNC, pretend, sound};
use serde_json::Value;

use crate::place::Place;

const CAST: &str = "bpf_rdonly_cast";
const FEATURE: &str = "BPF_FEAT_RDONLY_CAST_TO_VOID";
/// What the agent logs.
const DIRECT: &str = "reads of the kernel's memory are direct";
const REFUSED: &str = "not by direct reads";

/// What an agent logs that delays one read, whoever reads. Whom filters delay, with direct reads where the kernel has
/// them, is told by the tests of `scope`.
fn log(place: &Place, prepare: impl FnOnce(&mut Command)) -> String {
    let file = place.dir.join("stderr");
    let mut command = place.command(&["run"]);
    command
        .env("RUST_LOG", "iolag=debug")
        .stdout(fs::File::create(place.dir.join("stdout")).unwrap())
        .stderr(fs::File::create(&file).unwrap());
    prepare(&mut command);
    let mut agent = command.spawn().unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    while !place.call(&["status"]).status.success() {
        assert!(Instant::now() < patience, "no agent");
        assert!(agent.try_wait().unwrap().is_none(), "it ended");
        thread::sleep(Duration::from_millis(50));
    }
    place.done(&["inject", "vfs.read", "--delay", "20ms", "--max-hits", "1"]);
    let delayed = || -> bool {
        let rules: Value =
            serde_json::from_str(&place.done(&["rules", "--format", "json"])).unwrap();
        rules["rules"][0]["counts"]["hits"] == 1
    };
    while !delayed() {
        assert!(Instant::now() < patience, "no hit");
        fs::read("/proc/self/stat").unwrap();
    }
    place.stop_child(&mut agent);
    fs::read_to_string(file).unwrap()
}

#[test]
fn reads_are_direct_where_the_kernel_says_so() {
    let Some(place) = Place::new() else { return };
    let btf = fs::read(Path::new(BTF.to_str().unwrap())).unwrap_or_default();
    let says = |name: &str| {
        let name = [b"\0", name.as_bytes(), b"\0"].concat();
        btf.windows(name.len()).any(|bytes| bytes == name)
    };
    let log = log(&place, |_| {});
    assert_eq!(log.contains(DIRECT), says(FEATURE), "{log}");
    assert!(!log.contains(REFUSED), "{log}");
}

/// Its id is not the function's.
fn wrong() -> Btf {
    let mut btf = sound();
    let prototype = btf.prototype(2, 1);
    btf.of(FUNC, CAST, prototype);
    btf.enumeration(&[(FEATURE, 0)]);
    btf
}

#[test]
fn btf_that_promises_direct_reads_in_vain_costs_nothing_else() {
    let Some(place) = Place::new() else { return };
    if !Path::new(BTF.to_str().unwrap()).exists() {
        println!("skipped: this kernel has no BTF to mount a file over");
        return;
    }
    let file = place.dir.join("vmlinux");
    fs::write(&file, wrong().bytes()).unwrap();
    let log = log(&place, |command| pretend(command, &file));
    assert!(log.contains(REFUSED), "{log}");
    assert!(!log.contains(DIRECT), "{log}");
}
