use agent_common::catalogue::POINTS;
use clap::Parser;

use super::*;
use crate::rules::spec::Delay;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    inject: Inject,
}

fn read(args: &[&str]) -> Result<Spec, Failure> {
    let line = ["inject"].iter().chain(args);
    Line::try_parse_from(line)
        .map_err(|error| Failure::new(USAGE, error))?
        .inject
        .spec()
}

fn told(args: &[&str]) -> String {
    let failure = read(args).unwrap_err();
    assert_eq!(failure.code, USAGE, "{failure}");
    failure.to_string()
}

#[test]
fn a_rule_is_what_its_flags_say() {
    let line = "vfs.read,block.issue --delay 5ms --chance 50% --every 3 --pid 7 --pid 8 --children --comm fio \
                --uid 0 --device vda --op read,flush --size 4k..64k --for 30s --ramp 10s --max-hits 9 \
                --cpu-budget 25% --cap 100ms --seed 42 --name slow";
    let mut args: Vec<&str> = line.split_whitespace().collect();
    args.extend(["--abort-if", " memory.oom > 0 "]);
    let spec = read(&args).unwrap();
    assert_eq!(
        spec,
        Spec {
            name: "slow".into(),
            points: vec!["vfs.read".into(), "block.issue".into()],
            delay: Delay::Fixed { ns: 5_000_000 },
            filters: Filters {
                pids: vec![7, 8],
                children: true,
                comms: vec!["fio".into()],
                uids: vec![0],
                devices: vec!["vda".into()],
                ops: vec!["read".into(), "flush".into()],
                size: Some((4096, 65536)),
                ..Filters::default()
            },
            chance: ALWAYS / 2,
            every: 3,
            for_ns: Some(30_000_000_000),
            ramp_ns: Some(10_000_000_000),
            max_hits: Some(9),
            cpu_budget: WHOLE / 4,
            cap_ns: 100_000_000,
            seed: 42,
            abort_if: vec!["memory.oom > 0".into()],
        }
    );
}

#[test]
fn what_is_not_said_is_everyone_always() {
    let spec = read(&["vfs.write", "--delay", "1ms"]).unwrap();
    assert_eq!(spec.name, "");
    assert_eq!(spec.filters, Filters::default());
    assert_eq!(
        (spec.chance, spec.every, spec.cpu_budget),
        (ALWAYS, 1, WHOLE)
    );
    assert_eq!(spec.cap_ns, MAX_DELAY_NS);
    assert!(spec.seed < 1 << 32);
}

#[test]
fn every_point_is_taken() {
    for point in &POINTS {
        assert!(
            read(&[point.name, "--delay", "1ms"]).is_ok(),
            "{}",
            point.name
        );
    }
    assert!(read(&["fn:ext4_sync_*", "--delay", "1ms"]).is_ok());
}

#[test]
fn paths_and_users_are_this_hosts() {
    let with = |flag, value| read(&["vfs.open", "--delay", "1ms", flag, value]).unwrap();
    let spec = with("--under", "/usr/../usr");
    assert_eq!(spec.points, ["vfs.opened"]);
    assert_eq!(spec.filters.under, [Path::new("/usr")]);
    assert_eq!(
        with("--cgroup", "nobody.slice").filters.cgroups,
        [Path::new("/nobody.slice")]
    );
    assert_eq!(with("--uid", "root").filters.uids, [0]);
    assert_eq!(with("--uid", "1000").filters.uids, [1000]);
}

#[test]
fn what_contradicts_itself_is_refused() {
    for (args, words) in [
        (&["vfs.read"][..], ["needs --delay or --like", ""]),
        (
            &["vfs.read", "--delay", "5"],
            ["--delay 5 has no unit", "5ms"],
        ),
        (
            &["vfs.read", "--delay", "5ms", "--like", "x"],
            ["--delay contradicts --like", ""],
        ),
        (
            &["vfs.read", "--jitter", "5ms", "--like", "x"],
            ["--jitter contradicts --like", ""],
        ),
        (
            &["vfs.read", "--dist", "normal", "--like", "x"],
            ["--dist contradicts --like", ""],
        ),
        (
            &["vfs.read", "--delay", "5ms", "--dist", "normal"],
            ["--dist needs --jitter", ""],
        ),
        (
            &["vfs.read", "--delay", "5ms", "--cap", "1ms"],
            ["--delay 5ms is above --cap 1ms", ""],
        ),
        (
            &["vfs.read", "--delay", "5ms", "--chance", "101%"],
            ["--chance 101% is above 100%", ""],
        ),
        (
            &["vfs.read", "--delay", "5ms", "--children"],
            ["--children needs --pid", ""],
        ),
        (
            &["vfs.read", "--delay", "5ms", "--pid", "1", "--", "true"],
            ["--pid contradicts -- COMMAND", ""],
        ),
        (
            &["vfs.read", "--delay", "5ms", "--children", "--", "true"],
            ["--children is for --pid", "always included"],
        ),
        (
            &["vfs.read", "--delay", "5ms", "--uid", "no such user"],
            ["--uid", "no such user"],
        ),
        (
            &["vfs.read", "--delay", "5ms", "--under", "/no/such"],
            ["--under /no/such", "no such directory"],
        ),
        (
            &["vfs.read", "--delay", "5ms", "--name", ""],
            ["--name \"\" is empty", ""],
        ),
        (
            &["vfs.read,", "--delay", "5ms"],
            ["unknown point \"\"", "vfs.read"],
        ),
        (
            &["vfs.raed", "--delay", "5ms"],
            ["unknown point \"vfs.raed\"", "did you mean vfs.read"],
        ),
    ] {
        let told = told(args);
        for word in words {
            assert!(told.contains(word), "{args:?}: {told}");
        }
    }
}

#[test]
fn delays_that_vary_are_tables() {
    let drawn = |args: &[&str]| {
        let args = [&["vfs.read"], args].concat();
        match read(&args).unwrap().delay {
            Delay::Drawn { asked, quantiles } => (asked, quantiles.len()),
            Delay::Fixed { ns } => panic!("{ns}"),
        }
    };
    let knots = agent_common::quantiles::KNOTS;
    let normal = ("normal 5ms +-1ms".to_owned(), knots);
    assert_eq!(drawn(&["--delay", "5ms", "--jitter", "1ms"]), normal);
    let pareto = drawn(&["--delay", "5ms", "--jitter", "1ms", "--dist", "pareto"]);
    assert_eq!(pareto.0, "pareto 5ms +-1ms");
    let (like, length) = drawn(&["--like", "hdd-7200"]);
    assert!(like.starts_with("like "), "{like}");
    assert_eq!(length, knots);
    assert!(told(&["vfs.read", "--like", "/no/such/profile"]).contains("--like /no/such/profile"));
    assert!(told(&["vfs.read", "--delay", "1ms", "--jitter", "x"]).contains("--jitter"));
}
