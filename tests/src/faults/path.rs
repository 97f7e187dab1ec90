//! Delays on everything, with services at work on the path that is slow, and the agent's own commands on it too.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::{Place, machine::Machine, row};
use crate::{agent::Agent, held::own_time, reader::Reader};

/// What is in force for everybody at every point.
const DELAY: &str = "50ms";
const DELAYED: Duration = Duration::from_millis(50);
/// A wait spins for longer than this, and no read of what is read does.
const SPINS: Duration = Duration::from_millis(1);
/// `reset` and `stop` take effect within this.
const EFFECT: Duration = Duration::from_secs(1);
/// Of a command that took effect later than that.
const TRIES: usize = 3;
/// A service gets on within this.
const SERVED: Duration = Duration::from_secs(10);
const GONE: Duration = Duration::from_secs(15);

/// What two services got done.
#[derive(Debug, Default)]
struct Done {
    records: AtomicU64,
    echoes: AtomicU64,
}

impl Done {
    /// Waits until both services got on.
    fn some_more(&self) -> Result<()> {
        let counts = || [&self.records, &self.echoes].map(|count| count.load(Ordering::Relaxed));
        let (start, before) = (Instant::now(), counts());
        while counts()
            .iter()
            .zip(before)
            .any(|(now, before)| *now <= before)
        {
            ensure!(start.elapsed() < SERVED, "a service stands still: {self:?}");
            thread::sleep(DELAYED);
        }
        Ok(())
    }
}

/// As a journal does: appends a record, syncs it.
fn journal(over: &AtomicBool, done: &Done) -> Result<()> {
    let path = std::env::temp_dir().join(format!("iolag-journal-{}", std::process::id()));
    let mut file = File::create(&path)?;
    let mut written = 0;
    while !over.load(Ordering::Relaxed) {
        writeln!(file, "record {written}")?;
        file.sync_data()?;
        written += 1;
        done.records.store(written, Ordering::Relaxed);
    }
    drop(file);
    let text = std::fs::read_to_string(&path)?;
    std::fs::remove_file(&path)?;
    let numbers = text
        .lines()
        .map(|line| line.strip_prefix("record ")?.parse().ok());
    ensure!(numbers.eq((0..written).map(Some)), "records are lost");
    Ok(())
}

/// As a shell far away does: a line goes there, and comes back.
fn echo(over: &AtomicBool, done: &Done) -> Result<()> {
    let (mut near, mut far) = UnixStream::pair()?;
    thread::scope(|scope| {
        let shell = scope.spawn(move || -> Result<()> {
            let mut byte = [0];
            while far.read(&mut byte)? > 0 {
                far.write_all(&byte)?;
            }
            Ok(())
        });
        let typed = (|| -> Result<()> {
            for number in (0..=u8::MAX).cycle() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                near.write_all(&[number])?;
                let mut byte = [0];
                near.read_exact(&mut byte)?;
                ensure!(byte == [number], "another byte came back");
                done.echoes.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })();
        near.shutdown(std::net::Shutdown::Both)?;
        shell.join().map_err(|_| anyhow!("the shell panicked"))??;
        typed
    })
}

/// Services go on, slowly, and `reset` and `stop` take effect within a second.
///
/// # Errors
/// They do not.
pub fn everybody_is_slow(place: &Place<'_>) -> Result<()> {
    let (over, done) = (AtomicBool::new(false), Done::default());
    let before = Machine::now()?;
    let [(reset, resets), (stop, stops)] = thread::scope(|scope| {
        let services = [
            scope.spawn(|| journal(&over, &done)),
            scope.spawn(|| echo(&over, &done)),
        ];
        let result = (|| -> Result<[(Duration, usize); 2]> {
            let reset = effect(place, &done, "reset")?;
            Ok([reset, effect(place, &done, "stop")?])
        })();
        over.store(true, Ordering::Relaxed);
        for service in services {
            service
                .join()
                .map_err(|_| anyhow!("a service panicked"))??;
        }
        result
    })?;
    before.wait_back(GONE)?;
    row(
        "everything slow, services and the agent's commands too",
        place.backend,
        format_args!(
            "{DELAY} at every point: reset takes effect after {} ms (try {resets}), stop after {} ms (try {stops}); {} records synced, {} lines echoed, 0 lost",
            reset.as_millis(),
            stop.as_millis(),
            done.records.load(Ordering::Relaxed),
            done.echoes.load(Ordering::Relaxed)
        ),
    );
    Ok(())
}

/// When the last slow read begins, from the command's start on, and which try that was: a busy host may hold the machine
/// meanwhile.
fn effect(place: &Place<'_>, done: &Done, command: &str) -> Result<(Duration, usize)> {
    let mut effect = Duration::MAX;
    for number in 1..=TRIES {
        let agent = Agent::start(place.program, &["--backend", place.backend])?;
        agent.call(&["set", DELAY])?;
        agent.call(&["set-blk", DELAY])?;
        done.some_more()?;
        effect = last_slow(&agent, command)?;
        if effect <= EFFECT {
            return Ok((effect, number));
        }
    }
    Err(anyhow!("{command} took effect after {effect:?}"))
}

fn last_slow(agent: &Agent, command: &str) -> Result<Duration> {
    let reader = Reader::open()?;
    ensure!(waits(&reader)?, "nothing is delayed");
    thread::scope(|scope| {
        let last = scope.spawn(move || -> Result<Option<Instant>> {
            let (begin, mut last) = (Instant::now(), None);
            while begin.elapsed() < 4 * EFFECT {
                let start = Instant::now();
                if waits(&reader)? {
                    last = Some(start);
                }
            }
            ensure!(!waits(&reader)?, "still slow");
            Ok(last)
        });
        // At least one read is under way.
        thread::sleep(DELAYED / 2);
        let start = Instant::now();
        agent.call(&[command])?;
        println!("{command}: answered after {:?}", start.elapsed());
        let last = last.join().map_err(|_| anyhow!("the reader panicked"))??;
        let last = last.context("no read was slow")?;
        Ok(last.saturating_duration_since(start))
    })
}

/// Whether one read waits: it takes as long as that, and this thread's own time too, as a wait spins. The latter tells it
/// from a read that is fast while others have the CPU.
fn waits(reader: &Reader) -> Result<bool> {
    let before = own_time();
    let took = reader.read().took;
    Ok(took >= DELAYED && own_time() - before >= SPINS)
}
