use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixListener,
    thread,
};

use agent_common::probes;

use super::*;
use crate::{
    control::protocol::{Command, answer, parse_request},
    kernel::Counts,
    record::output::tests::Scratch,
    report::{
        dump::{Ledger, Series},
        probes::Row,
    },
};

type Example<'a> = (&'a [(&'a str, &'a str)], u64, u64);

/// Series with labels, and so many values of so many ns each.
fn dump(probe: &Probe, series: &[Example<'_>]) -> Dump {
    let mut dump = Dump::new(probe, 0, 30_000_000_000, Ledger::default());
    dump.series = series
        .iter()
        .map(|(labels, count, ns)| Series {
            id: String::new(),
            labels: labels
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect(),
            metrics: probe
                .metrics
                .iter()
                .map(|metric| {
                    let buckets = vec![(agent_common::bucket::index(*ns), *count)];
                    let counts = Counts {
                        sum: count * ns,
                        max: *ns,
                        buckets,
                    };
                    Metric::new(metric.name, metric.unit, &counts)
                })
                .collect(),
        })
        .collect();
    dump
}

fn block(series: &str) -> Result<Profile, Failure> {
    let probe = probes::probe("block").unwrap();
    let (_, values) = split(series);
    let wanted = Wanted {
        probe,
        name: series,
        values,
        metric: metric(probe, None)?,
    };
    let dump = dump(
        probe,
        &[
            (&[("device", "vda"), ("op", "read")], 5, 80_000),
            (&[("device", "vda"), ("op", "write")], 7, 90_000),
            (&[("device", "dm.0"), ("op", "read")], 11, 100_000),
            (&[("device", "vdb"), ("op", "flush")], 0, 0),
        ],
    );
    profile(&wanted, dump)
}

#[test]
fn a_series_is_found_by_its_name_or_parts_of_it() {
    for (series, count) in [
        ("block.vda.read", 5),
        ("block.vda", 12),
        ("block.read", 16),
        ("block.dm.0", 11),
        ("block.dm.0.read", 11),
    ] {
        let profile = block(series).unwrap();
        assert_eq!((profile.count, profile.name.as_str()), (count, series));
        assert!(
            profile.source.contains(" in 30s: total of "),
            "{}",
            profile.source
        );
    }
}

#[test]
fn what_was_not_seen_is_told_with_what_was() {
    let told = block("block.vdb.read").unwrap_err();
    assert_eq!(told.code, FAILED);
    assert!(told.message.contains("no such series in 30s"), "{told}");
    let hint = told.hint.unwrap();
    assert!(hint.contains("did you mean block.vda.read?"), "{hint}");
    assert!(hint.contains("block.vda.write, block.dm.0.read"), "{hint}");
    assert!(!hint.contains("flush"), "{hint}");
    let several = block("block").unwrap_err().to_string();
    assert!(several.contains("several series"), "{several}");
    assert!(block("block.").is_err() && block("block.read.vda").is_err());
}

#[test]
fn an_empty_recording_is_a_failure() {
    let probe = probes::probe("vfs").unwrap();
    let wanted = Wanted {
        probe,
        name: "vfs.read",
        values: "read",
        metric: "latency",
    };
    let told = profile(&wanted, dump(probe, &[])).unwrap_err();
    assert!(told.message.contains("nothing came by in 30s"), "{told}");
    assert!(told.hint.unwrap().contains("iolag hist vfs 5"));
}

#[test]
fn a_function_keeps_its_dots() {
    assert_eq!(split("fn:foo.isra.0"), ("fn:foo.isra.0", ""));
    assert_eq!(split("vfs.read.ext4"), ("vfs", "read.ext4"));
    assert_eq!(split("sched"), ("sched", ""));
}

#[test]
fn only_times_are_recorded() {
    let block = probes::probe("block").unwrap();
    assert_eq!(metric(block, None), Ok("total"));
    assert_eq!(metric(block, Some("device")), Ok("device"));
    assert!(
        metric(block, Some("size"))
            .unwrap_err()
            .message
            .contains("no time")
    );
    let told = metric(block, Some("totl")).unwrap_err().to_string();
    assert!(told.contains("did you mean total?"), "{told}");
    assert_eq!(metric(probes::probe("vfs").unwrap(), None), Ok("latency"));
}

#[test]
fn what_was_lost_is_written_down() {
    let probe = probes::probe("vfs").unwrap();
    let wanted = Wanted {
        probe,
        name: "vfs.read",
        values: "read",
        metric: "latency",
    };
    let mut dump = dump(probe, &[(&[("op", "read")], 5, 1_000)]);
    dump.ledger.missed = 3;
    assert!(
        profile(&wanted, dump)
            .unwrap()
            .source
            .ends_with("; incomplete: 3 missed")
    );
}

/// Answers as an agent that has `block` loaded: each dump has 1000 reads of vda more.
fn agent(listener: &UnixListener) {
    let probe = probes::probe("block").unwrap();
    let mut reads = 0;
    for stream in listener.incoming().take(3) {
        let mut stream = stream.unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        let result = match parse_request(line.trim().as_bytes()).unwrap() {
            Command::ProbeList => serde_json::to_value([Row {
                name: "block".into(),
                help: String::new(),
                loaded: true,
                by: vec!["device".into(), "op".into()],
                backends: Vec::new(),
            }]),
            _ => {
                reads += 1_000;
                let series = (&[("device", "vda"), ("op", "read")][..], reads, 80_000);
                serde_json::to_value(dump(probe, &[series]))
            }
        };
        let line = answer(Ok(result.unwrap()));
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

#[test]
fn what_an_agent_recorded_meanwhile_is_written() {
    let dir = Scratch::new("agent");
    let (socket, path) = (dir.file("iolag.sock"), dir.file("disk.json"));
    let listener = UnixListener::bind(&socket).unwrap();
    let serving = thread::spawn(move || agent(&listener));
    let args = Args {
        series: "block.vda.read".into(),
        time: "50ms".into(),
        output: path.clone(),
        metric: None,
        force: false,
    };
    run(&args, read(&args).unwrap(), Path::new(&socket), |_| {
        panic!("a file was asked for")
    })
    .unwrap();
    serving.join().unwrap();
    let profile = Profile::load("--like", &path).unwrap();
    assert_eq!(
        (profile.count, profile.name.as_str()),
        (1_000, "block.vda.read")
    );
    assert!((70_000..90_000).contains(&profile.curve().percentiles().p50));
    assert!(fs::read_to_string(&path).unwrap().ends_with("}\n"));
}
