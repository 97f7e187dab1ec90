//! `iolag doctor`: what it claims of this host is what the agent does, and nothing of it stays or is felt.

use std::{
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use iolag_tests::{
    programs,
    timing::{median, reads},
};
use serde_json::Value;

use crate::place::{Place, succeeded};

const POINTS: [&str; 4] = ["vfs.read", "vfs.write", "vfs.open", "block.issue"];

/// The document, and whether the exit code is 0.
fn doctor(place: &Place) -> (Value, bool) {
    let output = place.call(&["doctor", "--format", "json"]);
    let code = output.status.code().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!([0, 3].contains(&code), "{stderr}");
    assert_eq!(stderr, "");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["schema"], 1);
    assert_eq!(document["main_job"], code == 0);
    let fails = document["counts"]["fail"].as_u64().unwrap();
    assert_eq!(fails == 0, code == 0, "{document:#}");
    (document, code == 0)
}

fn check<'a>(document: &'a Value, name: &str) -> &'a Value {
    let checks = document["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {document:#}"))
}

fn value<'a>(document: &'a Value, name: &str) -> &'a str {
    check(document, name)["value"].as_str().unwrap()
}

#[test]
fn doctor_says_of_each_point_what_the_agent_then_does() {
    let Some(place) = Place::new() else { return };
    let (document, works) = doctor(&place);
    if !works {
        let run = place.call(&["run", "--detach"]);
        assert_eq!(run.status.code(), Some(3));
        return;
    }
    place.start();
    let status = place.status();
    place.stop();
    let points = status["points"].as_array().unwrap();
    assert_eq!(points.len(), POINTS.len());
    for point in points {
        let name = point["point"].as_str().unwrap();
        let taken = format!(
            "{} at {}",
            point["backend"].as_str().unwrap(),
            point["symbol"].as_str().unwrap()
        );
        let claimed = value(&document, name);
        println!("{name}: {claimed}");
        assert_eq!(claimed.split(';').next(), Some(taken.as_str()));
        // What the agent was refused before, with the same reasons.
        let refused = &check(&document, name)["refused"];
        for refusal in point["refused"].as_array().unwrap() {
            let known = refused.as_array().unwrap();
            assert!(known.contains(refusal), "{refusal} is not in {refused}");
        }
    }
}

#[test]
fn doctor_says_of_each_backend_whether_the_agent_can_be_forced_to_it() {
    let Some(place) = Place::new() else { return };
    let (document, _) = doctor(&place);
    for backend in ["fentry", "kprobe", "tp"] {
        let claimed = POINTS.iter().all(|point| {
            let value = value(&document, point);
            value
                .split("; also ")
                .flat_map(|part| part.split(", "))
                .any(|one| one.starts_with(&format!("{backend} at ")))
        });
        let run = place.call(&["run", "--detach", "--backend", backend]);
        println!("{backend}: {claimed}");
        assert_eq!(run.status.success(), claimed, "{backend}");
        if claimed {
            place.stop();
        }
    }
}

#[test]
fn doctor_says_of_each_probe_whether_the_agent_loads_it() {
    let Some(place) = Place::new() else { return };
    let (document, works) = doctor(&place);
    if !works {
        return;
    }
    place.start();
    for probe in ["block", "vfs", "sched", "irq", "memory", "fn"] {
        let row = check(&document, &format!("probe.{probe}"));
        let claimed =
            ["ok", "warn"].contains(&row["status"].as_str().unwrap()) && row["value"] != "none";
        let name = if probe == "fn" { "fn:vfs_read" } else { probe };
        let load = place.call(&["probe", "load", name]);
        println!("{probe}: {claimed}, {}", row["value"]);
        assert_eq!(load.status.success(), claimed, "{row}");
        if !claimed {
            continue;
        }
        // A part that it lacks is told alike.
        let list: Value =
            serde_json::from_str(&place.done(&["probe", "list", "--format", "json"])).unwrap();
        let rows = list["probes"].as_array().unwrap();
        let loaded = rows.iter().find(|loaded| loaded["name"] == name).unwrap();
        let backends = loaded["backends"].as_array().unwrap();
        let lacks = backends
            .iter()
            .any(|backend| backend.as_str().unwrap().starts_with("no "));
        assert_eq!(lacks, row["status"] == "warn", "{loaded}");
    }
    place.stop();
}

type List = fn() -> anyhow::Result<Vec<u32>>;

const LISTS: [(&str, List); 3] = [
    ("programs", programs::loaded),
    ("links", programs::links),
    ("maps", programs::maps),
];

fn nothing_stays(work: impl FnOnce()) {
    let before = LISTS.map(|(_, list)| list().unwrap());
    work();
    for ((what, list), before) in LISTS.iter().zip(before) {
        let took = programs::wait_gone(*list, &before, Duration::from_secs(5));
        println!("{what} gone after {:?}", took.unwrap());
    }
}

#[test]
fn doctor_leaves_nothing_in_the_kernel() {
    let Some(place) = Place::new() else { return };
    nothing_stays(|| drop(doctor(&place)));
    assert!(!place.socket().exists());
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
        });
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
    let times = reads_during(|| drop(doctor(&place)));
    let middle = median(times.clone());
    println!("{} reads, median {middle} ns", times.len());
    assert!(middle < 50_000, "{middle}");
}

#[test]
fn doctor_does_not_disturb_a_running_agent() {
    const DELAY: Duration = Duration::from_millis(1);
    let Some(place) = Place::new() else { return };
    let pid = place.start();
    succeeded(&place.call(&["probe", "load", "sched"]));
    place.done(&["set", "1ms"]);
    let before = place.status();
    let start = Instant::now();
    let mut document = Value::Null;
    let times = reads_during(|| document = doctor(&place).0);
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
    let agent = check(&document, "agent");
    assert_eq!(agent["status"], "warn", "{agent}");
    let told = agent["value"].as_str().unwrap();
    assert!(
        told.starts_with(&format!("pid {pid} at ")) && told.ends_with("1 rules in force"),
        "{told}"
    );
    assert_eq!(check(&document, "other_iolag")["status"], "ok");
    assert_eq!(check(&document, "bpf_programs")["status"], "ok");
    place.done(&["reset"]);
    place.stop();
}
