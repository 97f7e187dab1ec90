//! A script that was written for io-delayer, unchanged, with fio as its witness.

use std::{
    collections::BTreeMap,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    place::{Place, succeeded},
    precision::fio_on_a_disk,
};

/// Four delays (us) of either kind; each line of its output is a name and fio's report in one line.
const SCRIPT: &str = r#"
set -eu
run() {
    printf '%s ' "$1"
    "$FIO" --name=regress --filename="$FILE" --rw=randread --bs=4k --direct=1 --ioengine=psync \
        --size=16M --time_based --runtime=1 --output-format=json | tr -d '\n'
    echo
}
run make
run none
for delay in 100 500 1000 2000; do
    io-delayer-cli set "$delay"
    run "set-$delay"
done
io-delayer-cli set 0
for delay in 100 500 1000 2000; do
    io-delayer-cli set-blk "$delay"
    run "set-blk-$delay"
done
io-delayer-cli set 100
io-delayer-cli status > "$FILE.status"
run both
io-delayer-cli set 0
io-delayer-cli set-blk 0
run reset
"#;

#[test]
fn a_script_for_io_delayer_runs_unchanged() {
    let Some(place) = Place::new() else { return };
    let Some((fio, file)) = fio_on_a_disk() else {
        return;
    };
    place.start();
    symlink(&place.program, place.dir.join("io-delayer-cli")).unwrap();
    let path = std::env::var("PATH").unwrap();
    let output = Command::new("sh")
        .args(["-c", SCRIPT])
        .env("PATH", format!("{}:{path}", place.dir.display()))
        .env("IOLAG_SOCKET", place.socket())
        .env("FIO", fio)
        .env("FILE", &file.0)
        .stdin(Stdio::null())
        .output();
    let medians = medians(&succeeded(&output.unwrap()));
    println!("fio's medians in ns: {medians:?}");
    let status = format!("{}.status", file.0.display());
    let told = std::fs::read_to_string(Path::new(&status)).unwrap();
    std::fs::remove_file(status).unwrap();
    assert!(told.contains("2ms") && told.contains("100us"), "{told}");
    for delay in [100, 500, 1000, 2000] {
        for name in [format!("set-{delay}"), format!("set-blk-{delay}")] {
            assert!(medians[&name] >= delay * 1_000, "{name}: {medians:?}");
        }
    }
    assert!(medians["both"] >= 2_100_000, "{medians:?}");
    for name in ["none", "reset"] {
        assert!(medians[name] < 2_000_000, "{name}: {medians:?}");
    }
    assert_eq!(place.status()["rules"], json!([]));
    place.stop();
}

/// Of each run, what half of fio's reads took at most (ns).
fn medians(text: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (name, report) = line.split_once(' ')?;
        let report: Value = serde_json::from_str(&report[report.find('{')?..]).ok()?;
        let median = report["jobs"][0]["read"]["clat_ns"]["percentile"]["50.000000"].as_u64()?;
        Some((name.to_owned(), median))
    };
    let found = text
        .lines()
        .map(|text| line(text).unwrap_or_else(|| panic!("{text}")));
    found.collect()
}
