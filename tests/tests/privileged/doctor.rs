//! `iolag doctor`: what it claims of this host is what the agent does, and nothing of it stays or is felt.

use std::{
    ffi::CStr,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use iolag_tests::{
    doctor::{self, Diagnosis, nothing_stays},
    mounts::hide,
    programs,
    timing::{median, reads},
};
use serde_json::Value;

use crate::place::Place;

#[test]
fn doctor_says_of_each_point_what_the_agent_then_does() {
    let Some(place) = Place::new() else { return };
    doctor::points_are_the_agents(&place.program).unwrap();
}

#[test]
fn doctor_says_of_each_backend_whether_the_agent_can_be_forced_to_it() {
    let Some(place) = Place::new() else { return };
    doctor::backends_are_the_agents(&place.program).unwrap();
}

#[test]
fn doctor_says_of_each_probe_whether_the_agent_loads_it() {
    let Some(place) = Place::new() else { return };
    doctor::probes_are_the_agents(&place.program).unwrap();
}

#[test]
fn doctor_leaves_nothing_in_the_kernel() {
    let Some(place) = Place::new() else { return };
    doctor::it_leaves_nothing(&place.program).unwrap();
}

fn diagnosis(place: &Place) -> Diagnosis {
    Diagnosis::of(&place.program, &place.socket()).unwrap()
}

/// At several moments: whatever is attached just then goes with the process.
#[test]
fn doctor_that_is_interrupted_leaves_nothing_either() {
    let Some(place) = Place::new() else { return };
    for (signal, after) in [
        (libc::SIGINT, 100),
        (libc::SIGTERM, 300),
        (libc::SIGKILL, 500),
    ] {
        nothing_stays(|| {
            let before = programs::loaded().unwrap();
            let mut child = place
                .command(&["doctor"])
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            thread::sleep(Duration::from_millis(after));
            let during = programs::loaded().unwrap();
            println!(
                "{} programs at {after} ms",
                during.iter().filter(|id| !before.contains(id)).count()
            );
            // SAFETY: kill has no memory to harm; a child that was not waited for.
            unsafe { libc::kill(child.id() as i32, signal) };
            child.wait().unwrap();
            Ok(())
        })
        .unwrap();
    }
}

/// Reads for as long as `work` takes, and how long each took (ns).
fn reads_during(work: impl FnOnce()) -> Vec<u64> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut times = Vec::new();
            while !done.load(Ordering::Relaxed) {
                times
                    .extend(reads(Path::new("/dev/zero"), 10, Duration::from_micros(100)).unwrap());
            }
            times
        });
        work();
        done.store(true, Ordering::Relaxed);
        reading.join().unwrap()
    })
}

#[test]
fn doctor_delays_nothing() {
    let Some(place) = Place::new() else { return };
    let times = reads_during(|| drop(diagnosis(&place)));
    let middle = median(times.clone());
    println!("{} reads, median {middle} ns", times.len());
    assert!(middle < 50_000, "{middle}");
}

#[test]
fn doctor_does_not_disturb_a_running_agent() {
    const DELAY: Duration = Duration::from_millis(1);
    let Some(place) = Place::new() else { return };
    let pid = place.start();
    place.done(&["probe", "load", "sched"]);
    place.done(&["set", "1ms"]);
    let before = place.status();
    let start = Instant::now();
    let mut document = None;
    let times = reads_during(|| document = Some(diagnosis(&place)));
    let after = place.status();
    println!(
        "{} reads while doctor took {:?}, median {} ns",
        times.len(),
        start.elapsed(),
        median(times.clone())
    );
    // Each of them waited, and hardly one longer than it would have.
    assert!(times.iter().all(|ns| *ns >= DELAY.as_nanos() as u64));
    assert!(median(times) < 1_200_000);
    for (place, point) in after["points"].as_array().unwrap().iter().enumerate() {
        for loss in ["lease_expired", "short", "missed"] {
            assert_eq!(point[loss], before["points"][place][loss], "{point}");
        }
        assert_eq!(point["backend"], before["points"][place]["backend"]);
    }
    assert_eq!(after["rules"], before["rules"]);
    assert_eq!(after["agent"]["pid"], pid);
    // It tells of the agent and its rule, and takes its programs for nobody else's.
    let document = document.unwrap();
    let agent = document.check("agent").unwrap();
    assert_eq!(agent["status"], "warn", "{agent}");
    let told = agent["value"].as_str().unwrap();
    assert!(
        told.starts_with(&format!("pid {pid} at ")) && told.ends_with("rules in force: 1"),
        "{told}"
    );
    for others in ["other_iolag", "bpf_programs"] {
        let told = document.check(others).unwrap().to_string();
        assert!(!told.contains(&format!("pid {pid}")), "{told}");
    }
    place.done(&["reset"]);
    place.stop();
}

/// What `doctor` says with these mounted over by an empty file system.
fn without(place: &Place, paths: &'static [&'static CStr]) -> Diagnosis {
    let mut doctor = place.command(&["doctor", "--format", "json"]);
    hide(&mut doctor, paths, 0);
    let output = doctor.output().unwrap();
    let document: Result<Value, _> = serde_json::from_slice(&output.stdout);
    let document =
        document.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let fine = output.status.code() == Some(0);
    let document = Diagnosis(document);
    assert_eq!(document.works(), fine);
    document
}

#[test]
fn doctor_says_what_is_lost_without_btf_and_nothing_without_tracefs() {
    let Some(place) = Place::new() else { return };
    let works = diagnosis(&place).works();
    let document = without(&place, &[c"/sys/kernel/tracing", c"/sys/kernel/debug"]);
    let status = |document: &Diagnosis, name: &str| document.check(name).unwrap()["status"].clone();
    assert_eq!(document.works(), works);
    assert_eq!(status(&document, "btf"), "ok");
    let document = without(&place, &[c"/sys/kernel/btf"]);
    assert_eq!(status(&document, "btf"), "warn");
    assert_eq!(status(&document, "backend.fentry"), "skip");
    assert_eq!(status(&document, "filters"), "warn");
    for probe in ["block", "vfs", "sched", "irq", "memory", "fn"] {
        let row = document.check(&format!("probe.{probe}")).unwrap();
        assert_eq!(row["status"], "warn", "{row}");
        assert!(row["reason"].as_str().unwrap().contains("BTF"), "{row}");
    }
    // Tracepoints need none of both.
    let kprobes = document.value("backend.kprobe").unwrap() != "not there";
    let tracepoints = status(&document, "backend.tp") == "ok";
    assert_eq!(document.works(), kprobes || tracepoints);
}

/// As the agent refuses to start there.
#[test]
fn doctor_in_a_pid_namespace_of_its_own_tries_nothing() {
    let Some(place) = Place::new() else { return };
    let inner = place.command(&["doctor", "--format", "json"]);
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc"])
        .arg(inner.get_program())
        .args(inner.get_args())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let document = Diagnosis(serde_json::from_slice(&output.stdout).unwrap());
    assert_eq!(document.check("pid_namespace").unwrap()["status"], "fail");
    assert_eq!(document.0["counts"]["fail"], 1);
    assert_eq!(document.value("vfs.read").unwrap(), "not tried");
}
