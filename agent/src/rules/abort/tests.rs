use std::{
    fs,
    path::{Path, PathBuf},
};

use super::*;

/// A host whose /proc says so.
struct Host(PathBuf);

impl Host {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("iolag-abort-{name}-{}", std::process::id()));
        fs::create_dir_all(root.join("proc/pressure")).unwrap();
        let host = Self(root);
        host.says("vmstat", "nr_free_pages 7\noom_kill 3\n");
        host.says("stat", "cpu  100 0 100 700 50 0 50 0 9 9\ncpu0 1 2 3\n");
        host.says(
            "pressure/io",
            "some avg10=12.50 avg60=0.71 avg300=0.47 total=7\nfull avg10=0.29 avg60=0 avg300=0 total=5\n",
        );
        host
    }

    fn says(&self, file: &str, text: &str) {
        fs::write(self.0.join("proc").join(file), text).unwrap();
    }

    fn watch(&self, conditions: &[&str]) -> Result<Watch, Failure> {
        let conditions: Vec<String> = conditions.iter().map(|text| (*text).into()).collect();
        Watch::new(&conditions, &self.0)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn look(watch: &mut Watch, root: &Path) -> Option<String> {
    watch.check(root, || None).unwrap()
}

#[test]
fn what_is_no_condition_is_refused() {
    for (text, told) in [
        ("", "compares nothing"),
        ("memory.oom", "compares nothing"),
        ("memory.oom < 1", "compares nothing"),
        ("memory.oom >", "has no bound"),
        ("memory.oom > 5%", "whole number"),
        ("memory.oom > -1", "whole number"),
        ("memory.oom >= 0", "always true"),
        ("memory.ooms > 0", "did you mean memory.oom?"),
        ("psi.disk.some > 5%", "psi.io.some"),
        ("psi.io.some > 101%", "above 100%"),
        ("psi.io.some > 100%", "never true"),
        ("psi.io.some > 50", "has no unit"),
        ("softirq > lots", "not a percentage"),
        ("sched.wait.p99 > 20", "has no unit"),
        ("sched.wait.p99 > 2s", "above 1 s"),
    ] {
        let failure = Condition::parse(text).unwrap_err();
        assert_eq!(failure.code, USAGE);
        let failure = failure.to_string();
        assert!(failure.contains(told), "{text}: {failure}");
        assert!(failure.contains("--abort-if"), "{text}: {failure}");
    }
    for text in [
        "memory.oom>0",
        " softirq  >=  100% ",
        "psi.io.full > 0%",
        "sched.wait.p99 >= 20ms",
    ] {
        assert!(Condition::parse(text).is_ok(), "{text}");
    }
}

#[test]
fn kills_count_from_when_the_rule_came() {
    let host = Host::new("oom");
    let mut watch = host.watch(&["memory.oom > 0"]).unwrap();
    assert_eq!(look(&mut watch, &host.0), None);
    host.says("vmstat", "oom_kill 5\n");
    assert_eq!(
        look(&mut watch, &host.0).unwrap(),
        "memory.oom > 0: 2 OOM kills since the rule came"
    );
}

#[test]
fn pressure_is_that_of_its_line() {
    let host = Host::new("psi");
    let mut some = host.watch(&["psi.io.some > 12%"]).unwrap();
    let told = look(&mut some, &host.0).unwrap();
    assert!(
        told.contains("some tasks were stalled on io for 12.5%"),
        "{told}"
    );
    let mut full = host.watch(&["psi.io.full >= 0.29%"]).unwrap();
    assert!(look(&mut full, &host.0).is_some());
    let mut full = host.watch(&["psi.io.full > 0.29%"]).unwrap();
    assert!(look(&mut full, &host.0).is_none());
    let absent = host.watch(&["psi.cpu.some > 1%"]).unwrap_err();
    assert_eq!(absent.code, crate::failure::HOST);
    assert!(absent.to_string().contains("psi=1"), "{absent}");
}

#[test]
fn softirqs_share_is_of_the_time_since_the_last_look() {
    let host = Host::new("softirq");
    let mut watch = host.watch(&["softirq > 30%"]).unwrap();
    assert_eq!(look(&mut watch, &host.0), None, "no time has passed");
    host.says("stat", "cpu  130 0 120 740 50 0 60 0 9 9\n");
    assert_eq!(look(&mut watch, &host.0), None, "10 of 100");
    host.says("stat", "cpu  150 0 120 740 50 0 100 0 9 9\n");
    let told = look(&mut watch, &host.0).unwrap();
    assert!(told.contains("softirqs took 66.67%"), "{told}");
    host.says("stat", "cpu 1 2\n");
    assert!(watch.check(&host.0, || None).is_err());
}

#[test]
fn waits_for_a_cpu_are_asked_for_only_if_wanted() {
    let host = Host::new("sched");
    let mut watch = host.watch(&["sched.wait.p99 > 20ms"]).unwrap();
    assert!(watch.needs_run_queue());
    assert_eq!(watch.check(&host.0, || Some(20_000_000)).unwrap(), None);
    let told = watch.check(&host.0, || Some(25_000_000)).unwrap().unwrap();
    assert!(told.contains("was 25ms"), "{told}");
    assert_eq!(look(&mut watch, &host.0), None, "nobody waited");
    let mut other = host.watch(&["memory.oom > 0"]).unwrap();
    assert!(!other.needs_run_queue());
    let never = || unreachable!("nobody wants it");
    assert_eq!(other.check(&host.0, never).unwrap(), None);
}
