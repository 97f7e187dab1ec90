//! The command `hist`: histograms of a probe, from a running agent or by loading the probe for as long as
//! it takes.

use std::{
    path::Path,
    time::{Duration, Instant},
};

pub use self::request::{Request, parse_interval, parse_time};
use self::source::Source;
use crate::{
    failure::{FAILED, Failure},
    report::dump::Dump,
    units::format_ns,
};

mod request;
mod source;

/// How often [`once`] tells of the time.
const TICK: Duration = Duration::from_secs(1);

/// Measures and hands each result to `print`, until the count is reached or Ctrl-C.
///
/// # Errors
/// The probe cannot be loaded, the agent is gone, `print` failed.
pub fn run(
    mut request: Request,
    socket: &Path,
    mut print: impl FnMut(&Dump) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let runtime = runtime()?;
    let endless = request.interval.is_none();
    let mut source = Source::open(&mut request, socket, "iolag hist", endless)?;
    let request = &request;
    if let (Source::Agent(_), None) = (&source, request.interval) {
        return print(&request.select(source.dump(request)?));
    }
    let mut before = source.dump(request)?;
    announce(request);
    let mut printed = 0;
    loop {
        let stopped = runtime.block_on(pause(request.interval))?;
        let now = source.dump(request)?;
        print(&between(request, &before, &now)?)?;
        before = now;
        printed += 1;
        if stopped || request.interval.is_none() || request.count == Some(printed) {
            return Ok(());
        }
    }
}

/// Measures once for `command`, for so long or until Ctrl-C, and returns what was recorded. `tick` hears of the
/// time that has gone by: when the probe is there, then each second.
///
/// # Errors
/// The probe cannot be loaded, the agent is gone.
pub fn once(
    command: &str,
    mut request: Request,
    time: Duration,
    socket: &Path,
    mut tick: impl FnMut(Duration),
) -> Result<Dump, Failure> {
    let runtime = runtime()?;
    let mut source = Source::open(&mut request, socket, command, false)?;
    let before = source.dump(&request)?;
    let start = Instant::now();
    runtime.block_on(async {
        let stopped = pause(None);
        tokio::pin!(stopped);
        loop {
            let gone = start.elapsed().min(time);
            tick(gone);
            if gone == time {
                return Ok(());
            }
            tokio::select! {
                stopped = &mut stopped => return stopped.map(|_| ()),
                () = tokio::time::sleep((time - gone).min(TICK)) => {}
            }
        }
    })?;
    between(&request, &before, &source.dump(&request)?)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(FAILED, format!("failed to start the event loop: {error}")))
}

/// What was recorded between two dumps, as it was asked for.
fn between(request: &Request, before: &Dump, now: &Dump) -> Result<Dump, Failure> {
    if let Some(line) = reloaded(now, before) {
        eprintln!("{line}");
    }
    request.check(now)?;
    Ok(request.select(now.since(before)))
}

/// Says so if the probe was loaded anew between two dumps.
fn reloaded(now: &Dump, before: &Dump) -> Option<String> {
    (!now.continues(before)).then(|| {
        format!(
            "the probe {} was loaded anew; this is all of the {} since then",
            now.probe,
            format_ns(now.interval_ns)
        )
    })
}

fn announce(request: &Request) {
    let name = request.target.name();
    match (request.interval, request.count) {
        (None, _) => eprintln!("measuring {name}; Ctrl-C stops and prints"),
        (Some(every), None) => eprintln!(
            "measuring {name}, printing every {} s; Ctrl-C prints the last and stops",
            every.as_secs_f64()
        ),
        (Some(every), Some(count)) => eprintln!(
            "measuring {name}, {count} times {} s; Ctrl-C stops earlier",
            every.as_secs_f64()
        ),
    }
}

/// Waits for the interval, or forever without one; `true` if it was asked to stop.
async fn pause(interval: Option<Duration>) -> Result<bool, Failure> {
    let failed = |error| Failure::new(FAILED, format!("failed to handle signals: {error}"));
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(failed)?;
    let elapsed = async {
        match interval {
            Some(interval) => tokio::time::sleep(interval).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = elapsed => Ok(false),
        pressed = tokio::signal::ctrl_c() => pressed.map(|()| true).map_err(failed),
        _ = terminated.recv() => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use agent_common::probes::PROBES;

    use super::*;
    use crate::report::dump::{Ledger, Series};

    fn dump(from_ns: u64) -> Dump {
        Dump::new(PROBES[0], from_ns, 2_000_000_000, Ledger::default())
    }

    #[test]
    fn a_probe_that_was_loaded_anew_is_told() {
        assert_eq!(reloaded(&dump(10), &dump(10)), None);
        let line = reloaded(&dump(1_500_000_000), &dump(10)).unwrap();
        assert!(line.ends_with("all of the 500ms since then"), "{line}");
    }

    #[test]
    fn keys_that_went_with_the_probe_are_told() {
        let request = Request::parse("block", None, None, Some("op"), &[], "auto").unwrap();
        let mut dump = dump(10);
        assert!(request.check(&dump).is_ok());
        dump.series = vec![Series {
            id: "1".into(),
            labels: [("device".to_owned(), "vda".to_owned())].into(),
            metrics: Vec::new(),
        }];
        let told = request.check(&dump).unwrap_err().to_string();
        assert!(told.contains("apart by op"), "{told}");
    }
}
