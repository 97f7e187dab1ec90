//! What fuzzing begins with: input that is well formed, for each of its targets.

use std::sync::LazyLock;

use crate::{
    btf::{Btf, TYPEDEF, hostile, sound},
    mutated::{mutated, mutated_words},
};

/// Requests. None of them ends the agent.
const REQUESTS: [&str; 13] = [
    r#"{"schema":1,"command":"status"}"#,
    r#"{"schema":1,"command":"set","name":"set","points":["vfs.read","vfs.write","vfs.open"],"delay_ns":100000}"#,
    r#"{"schema":1,"command":"set","name":"set-blk","points":["block.issue"],"delay_ns":0}"#,
    r#"{"schema":1,"command":"inject","name":"a","points":["vfs.fsync"],"delay":{"kind":"fixed","ns":5000000},"cap_ns":1000000000}"#,
    r#"{"schema":1,"command":"inject","name":"","points":["block.issue","fn:ext4_*"],"delay":{"kind":"drawn","asked":"normal","quantiles":[1,2,3]},"filters":{"pids":[1,2],"children":true,"comms":["fio"],"cgroups":["/a"],"uids":[0],"devices":["vda"],"ops":["read"],"size":[4096,65536],"under":["/tmp"]},"chance":4294967296,"every":3,"for_ns":30000000000,"ramp_ns":10000000000,"max_hits":100,"cpu_budget":65536,"cap_ns":1000000000,"seed":7,"abort_if":["memory.oom > 0","psi.io.some > 50%"]}"#,
    r#"{"schema":1,"command":"rules"}"#,
    r#"{"schema":1,"command":"remove","name":"a"}"#,
    r#"{"schema":1,"command":"end","id":7}"#,
    r#"{"schema":1,"command":"probe-list"}"#,
    r#"{"schema":1,"command":"probe-load","probe":"block","by":["device","op"],"backend":"auto"}"#,
    r#"{"schema":1,"command":"dump","probe":"block","by_cpu":false}"#,
    r#"{"schema":1,"command":"events","follow":true}"#,
    r#"{"schema":1,"ok":false,"error":{"code":2,"message":"no","hint":"yes"}}"#,
];

/// Requests that no change makes one that delays anybody on this host, or ends the agent: the one point that rules are
/// for has no tracepoint, so where there are neither kprobes nor fentry they are refused last of all.
pub const SAFE_REQUESTS: [&str; 10] = [
    r#"{"schema":1,"command":"status"}"#,
    r#"{"schema":1,"command":"set","name":"set","points":["vfs.lookup"],"delay_ns":0}"#,
    r#"{"schema":1,"command":"inject","name":"a","points":["vfs.lookup"],"delay":{"kind":"fixed","ns":10},"filters":{"comms":["nobody"]},"cap_ns":1000}"#,
    r#"{"schema":1,"command":"inject","name":"","points":["vfs.lookup","vfs.lookup"],"delay":{"kind":"drawn","asked":"normal","quantiles":[1,2,3]},"filters":{"uids":[0],"ops":["read"],"size":[4096,65536]},"chance":42,"every":3,"for_ns":30,"cap_ns":1000,"seed":7,"abort_if":["memory.oom > 0"]}"#,
    r#"{"schema":1,"command":"rules"}"#,
    r#"{"schema":1,"command":"remove","name":"a"}"#,
    r#"{"schema":1,"command":"end","id":7}"#,
    r#"{"schema":1,"command":"probe-list"}"#,
    r#"{"schema":1,"command":"dump","probe":"block","by_cpu":false}"#,
    r#"{"schema":1,"command":"reset"}"#,
];

const PROFILES: [&str; 3] = [
    r#"{"schema":1,"kind":"iolag-profile","name":"a","source":"b","unit":"ns","count":3,"buckets":[[0,8,1],[80,88,2]]}"#,
    r#"{"schema":1,"kind":"iolag-profile","name":"block.vda.read","source":"fio","unit":"ns","count":9,"buckets":[[0,1,1],[1000,2000,3],[900000000,1000000000,5]]}"#,
    r#"{"schema":1,"kind":"iolag-profile","name":"a","source":"b","unit":"ns","count":1,"buckets":[[18446744073709551614,18446744073709551615,1]]}"#,
];

/// Command lines; words end at the end of the line.
const COMMANDS: [&str; 17] = [
    "iolag set 100us",
    "iolag --socket /tmp/a.sock -vv set-blk 1.5ms",
    "io-delayer-cli set 100",
    "iolag inject vfs.fsync,block.issue --delay 5ms --jitter 1ms --dist lognormal --cap 10ms --seed 7",
    "iolag inject vfs.read --delay 5ms --chance 10% --every 3 --pid 1 --children --comm fio --uid 1000",
    "iolag inject block.issue --like hdd-7200 --device 8:0 --op read,write --size 4k..64k --under /tmp",
    "iolag inject fn:ext4_* --delay 1ms --for 30s --ramp 10s --max-hits 9 --cpu-budget 30% --name a",
    "iolag inject vfs.open --delay 1us --cgroup /a --abort-if psi.io.some>50% -- dd if=/dev/zero",
    "iolag imitate --from ssd-sata --to hdd-7200 --device vda --op read --for 5s",
    "iolag hist block 5 2 --by device,op --filter op=read --backend tp --format json",
    "iolag hist fn:vfs_* 500ms",
    "iolag record block.vda.read --for 30s -o - --metric device",
    "iolag verify a --bound 5% --format json",
    "iolag remove --all",
    "iolag run --backend auto --detach --probes block,vfs",
    "iolag probe load block --by device",
    "iolag top 500ms",
];

/// What reads them, by the names of the agent's `fuzz::TARGETS` and of `fuzz/`, where a test compares them with these.
pub const TARGETS: [&str; 4] = ["protocol", "profile", "btf", "command-line"];

/// What the changes begin with, for each of [`TARGETS`].
static SEEDS: LazyLock<[Vec<Vec<u8>>; TARGETS.len()]> = LazyLock::new(|| {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    let words = COMMANDS.map(|line| line.replace(' ', "\n"));
    [
        texts(&REQUESTS),
        texts(&PROFILES),
        types(),
        words.map(String::into_bytes).to_vec(),
    ]
});

/// Sound BTF, and what is small of the hostile.
fn types() -> Vec<Vec<u8>> {
    let mut small = Btf::default();
    let word = small.integer(4);
    small.of(TYPEDEF, "pid_t", word);
    small.structure("task_struct", 8, &[("pid", 2, 0), ("tgid", 2, 4)]);
    let mut all = vec![small.bytes(), sound().bytes(), sound().bytes()];
    all.extend(
        hostile()
            .into_iter()
            .map(|(_, _, bytes)| bytes)
            .filter(|bytes| bytes.len() < 1000),
    );
    all
}

/// Well-formed inputs of a target.
///
/// # Panics
/// There is no target of that name.
#[must_use]
pub fn seeds(target: &str) -> &'static [Vec<u8>] {
    let place = TARGETS.iter().position(|name| *name == target);
    &SEEDS[place.expect("a target's name")]
}

/// The changed input of that number for a target.
///
/// # Panics
/// There is no target of that name.
#[must_use]
pub fn input(target: &str, number: u64) -> Vec<u8> {
    let seeds: Vec<&[u8]> = seeds(target).iter().map(Vec::as_slice).collect();
    match target {
        "btf" if !number.is_multiple_of(4) => mutated_words(&seeds, number),
        _ => mutated(&seeds, number),
    }
}
