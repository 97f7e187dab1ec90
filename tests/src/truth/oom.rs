//! OOM kills, by the probe `memory`, against the kernel's own counts and its log.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Place;
use crate::{
    agent::Agent,
    dump::Dump,
    memcg::{Hog, MemoryCgroup, count_in},
};

const MIB: usize = 1 << 20;
/// What a victim holds, and what there is.
const VICTIM: usize = 24 * MIB;
const LIMIT: u64 = 32 * MIB as u64;

/// A victim that sleeps on its memory, and another that asks for more than is left. That one mostly lives; but
/// while the victim's memory is on its way back, the kernel may want a second victim.
fn kill_one(cgroup: &MemoryCgroup) -> Result<(Hog, Hog)> {
    let victim = cgroup.hog("iolag-victim", VICTIM, 1000)?;
    ensure!(victim.has_its_memory(), "the victim found no memory");
    let asker = cgroup.hog("iolag-asker", 16 * MIB, 0)?;
    let _lives = asker.has_its_memory();
    victim.wait_killed();
    Ok((victim, asker))
}

fn kills(dump: &Dump) -> u64 {
    dump.sum(&[], "oom_kill").count
}

fn events(agent: &Agent) -> Result<Vec<Value>> {
    let text = agent.call(&["events", "--format", "json"])?;
    let lines = text.lines();
    lines.map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Our count of kills, read between two readings of `oom_kill` in /proc/vmstat while kills happen, lies between
/// them; those of our cgroup are as many events as the cgroup counted kills.
///
/// # Errors
/// A count lies outside.
pub fn oom_kills_lie_between_two_readings(place: &Place<'_>) -> Result<()> {
    const ROUNDS: u64 = 6;
    let kernel = || count_in(Path::new("/proc/vmstat"), "oom_kill");
    let cgroup = MemoryCgroup::new("iolag-oom", LIMIT)?;
    let agent = Agent::start(place.program, &["--probes", "memory"])?;
    let start_high = kernel()?;
    let start = kills(&agent.dump("memory", &[])?);
    let start_low = kernel()?;
    std::thread::scope(|scope| -> Result<()> {
        let killer = scope.spawn(|| -> Result<()> {
            for _ in 0..ROUNDS {
                kill_one(&cgroup)?;
            }
            Ok(())
        });
        while !killer.is_finished() {
            between(&agent, start, start_low, start_high)?;
        }
        killer.join().expect("it does not panic")
    })?;
    between(&agent, start, start_low, start_high)?;
    let ours = events(&agent)?
        .iter()
        .filter(|event| event["victim"]["memory_cgroup"] == cgroup.path())
        .count() as u64;
    ensure!(
        ours == cgroup.oom_kills()? && ours >= ROUNDS,
        "{ours} events of our cgroup, which counted {} kills",
        cgroup.oom_kills()?
    );
    let end = agent.dump("memory", &[])?;
    ensure!(end.losses()? == 0, "losses: {}", end.0["ledger"]);
    Ok(())
}

fn between(agent: &Agent, start: u64, start_low: u64, start_high: u64) -> Result<()> {
    let kernel = || count_in(Path::new("/proc/vmstat"), "oom_kill");
    let low = kernel()?.saturating_sub(start_low);
    let ours = kills(&agent.dump("memory", &[])?) - start;
    let high = kernel()? - start_high;
    println!("OOM kills: {ours} in {low}..={high}");
    ensure!(
        (low..=high).contains(&ours),
        "{ours} kills, the kernel counted {low} to {high}"
    );
    Ok(())
}

/// ANCHORS 9: the event names who was killed, its cgroup and its memory, and apart from it who asked.
///
/// # Errors
/// It names somebody else.
pub fn anchor_9_oom_is_the_victims_not_the_askers(place: &Place<'_>) -> Result<()> {
    let cgroup = MemoryCgroup::new("iolag-victim", LIMIT)?;
    let agent = Agent::start(place.program, &[])?;
    agent.call(&["probe", "load", "memory", "--by", "comm"])?;
    let mut follower = follow(place, &agent.socket())?;
    let (victim, asker) = kill_one(&cgroup)?;
    let event = events(&agent)?;
    let event = event
        .iter()
        .find(|event| event["victim"]["pid"] == victim.pid())
        .with_context(|| format!("no event of the victim {}: {event:?}", victim.pid()))?;
    println!("{event}");
    for (what, is, expected) in [
        ("victim", &event["victim"]["comm"], "iolag-victim".into()),
        ("asker's pid", &event["asked_by"]["pid"], asker.pid().into()),
        ("asker", &event["asked_by"]["comm"], "iolag-asker".into()),
        ("adj", &event["victim"]["oom_score_adj"], 1000.into()),
        (
            "memory cgroup",
            &event["victim"]["memory_cgroup"],
            cgroup.path().into(),
        ),
    ] as [(&str, &Value, Value); 5]
    {
        ensure!(*is == expected, "{what} is {is}, not {expected}");
    }
    if cgroup.unified() {
        ensure!(event["victim"]["cgroup"] == cgroup.path(), "cgroup");
    }
    memory_is_as_the_kernel_says(event)?;
    cause_is_known_if_attached(&agent, event, &cgroup)?;
    let dump = agent.dump("memory", &["--by", "comm"])?;
    let of = |comm| dump.sum(&[("comm", comm)], "oom_kill").count;
    let others = cgroup.oom_kills()? - 1;
    ensure!(
        of("iolag-victim") == 1 && of("iolag-asker") == others,
        "the series are {} and {}, with {others} more kills",
        of("iolag-victim"),
        of("iolag-asker")
    );
    ensure!(
        next_line(&mut follower)? == *event,
        "the follower was told otherwise"
    );
    follower.kill()?;
    follower.wait()?;
    Ok(())
}

/// Without an agent, `iolag events --follow` loads the probe itself: also where the kernel is too old for delays.
///
/// # Errors
/// It does not load, or tells of somebody else.
pub fn a_kill_is_followed_without_an_agent(place: &Place<'_>) -> Result<()> {
    let cgroup = MemoryCgroup::new("iolag-alone", LIMIT)?;
    let mut follower = follow(place, Path::new("/nonexistent/iolag.sock"))?;
    let (victim, _asker) = kill_one(&cgroup)?;
    let event = next_line(&mut follower)?;
    println!("{event}");
    let found = [
        &event["victim"]["pid"],
        &event["victim"]["comm"],
        &event["asked_by"]["comm"],
        &event["victim"]["memory_cgroup"],
    ];
    let expected: [Value; 4] = [
        victim.pid().into(),
        "iolag-victim".into(),
        "iolag-asker".into(),
        cgroup.path().into(),
    ];
    ensure!(found.map(Clone::clone) == expected, "{event}");
    memory_is_as_the_kernel_says(&event)?;
    follower.kill()?;
    follower.wait()?;
    Ok(())
}

/// `iolag events --follow` of that agent, once it follows.
fn follow(place: &Place<'_>, socket: &Path) -> Result<Child> {
    let mut child = Command::new(place.program)
        .args(["events", "--follow", "--format", "json", "--socket"])
        .arg(socket)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    let stderr = child.stderr.as_mut().context("no stderr")?;
    BufReader::new(stderr).read_line(&mut said)?;
    ensure!(said.contains("Ctrl-C"), "{said}");
    Ok(child)
}

fn next_line(follower: &mut Child) -> Result<Value> {
    let mut line = String::new();
    let stdout = follower.stdout.as_mut().context("no stdout")?;
    BufReader::new(stdout).read_line(&mut line)?;
    serde_json::from_str(&line).with_context(|| format!("no event: {line:?}"))
}

/// Against `Killed process PID (COMM) total-vm:NkB, anon-rss:NkB` in the kernel's log.
fn memory_is_as_the_kernel_says(event: &Value) -> Result<()> {
    let text = kernel_log()?;
    let pid = &event["victim"]["tid"];
    let start = format!("Killed process {pid} (");
    let line = text
        .lines()
        .rfind(|line| line.contains(&start))
        .context("the kernel's log has no such kill")?;
    println!("{line}");
    for (name, field) in [
        ("total-vm:", "total_vm_bytes"),
        ("anon-rss:", "anon_rss_bytes"),
        ("file-rss:", "file_rss_bytes"),
        ("shmem-rss:", "shmem_rss_bytes"),
    ] {
        let said = line.split(name).nth(1).and_then(|t| t.split("kB").next());
        let said: u64 = said.context("the kernel's log looks odd")?.parse()?;
        let ours = event["victim"][field].as_u64().context("it is null")?;
        // Per-CPU parts of the counters are added up later, or by newer kernels for the log.
        ensure!(
            ours.abs_diff(said * 1024) <= MIB as u64,
            "{field} is {ours}, the kernel said {said} kB"
        );
    }
    ensure!(
        event["victim"]["anon_rss_bytes"].as_u64() >= Some((VICTIM - MIB) as u64),
        "the victim had more memory"
    );
    Ok(())
}

fn kernel_log() -> Result<String> {
    let mut bytes = vec![0; 4 << 20];
    // `SYSLOG_ACTION_READ_ALL` of syslog(2).
    // SAFETY: as much room as it says.
    let count = unsafe { libc::klogctl(3, bytes.as_mut_ptr().cast(), bytes.len() as i32) };
    bytes.truncate(usize::try_from(count).context("failed to read the kernel's log")?);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The constraint is `memcg` and the limit our cgroup's, or null with the reason in the dump.
fn cause_is_known_if_attached(agent: &Agent, event: &Value, cgroup: &MemoryCgroup) -> Result<()> {
    let dump = agent.dump("memory", &[])?;
    let missing = dump.0["not_measured"].as_array().context("no array")?;
    let missing = missing.iter().any(|part| {
        part["what"]
            .as_str()
            .is_some_and(|what| what.contains("constraint"))
    });
    let expected = if missing {
        [Value::Null, Value::Null]
    } else {
        ["memcg".into(), cgroup.path().into()]
    };
    let found = [&event["constraint"], &event["limit_cgroup"]].map(Clone::clone);
    println!("constraint and limit: {found:?}");
    ensure!(found == expected, "{found:?} instead of {expected:?}");
    Ok(())
}
