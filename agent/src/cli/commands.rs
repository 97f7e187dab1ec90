//! What each command does.

use std::{ffi::OsString, fs::File, io::Write as _, os::fd::FromRawFd as _, path::Path};

use agent_common::catalogue::{Layer, POINTS};
use clap::CommandFactory as _;

use super::args::{
    Common, Delay, Events, Hist, HistFormat, Iolag, ProbeVerb, Run, StatusArgs, Verb,
};
use crate::{
    agent,
    control::{client::call, protocol::Command},
    doctor, events,
    failure::{FAILED, Failure, USAGE},
    hist,
    host::Facts,
    inject::{self, manage},
    plan::{Choice, parse_choice},
    probes::{self, Wanted},
    record,
    render::{self, Format},
    report::{
        Rule, Status,
        probes::{List, Row},
    },
    rules::imitate,
    top,
    units::{format_ns, parse_delay},
};

/// What is left to do of a command line that makes sense. Returns the exit code: 0, or that of the command that it
/// started.
pub type Work<'a> = Box<dyn FnOnce() -> Result<u8, Failure> + 'a>;

/// Reads what clap left as text. Only the work that is returned asks anybody, or changes anything.
pub fn prepare<'a>(command: &'a Verb, common: &'a Common) -> Result<Work<'a>, Failure> {
    let socket = common.socket.as_path();
    Ok(match command {
        Verb::Run(run) => start(run, common)?,
        Verb::Set(delay) => set(socket, "set", Layer::Vfs, delay)?,
        Verb::SetBlk(delay) => set(socket, "set-blk", Layer::Block, delay)?,
        Verb::Inject(rule) => {
            let spec = rule.spec()?;
            Box::new(move || inject::send(spec, &rule.command, socket, print))
        }
        Verb::Imitate(args) => {
            let asked = imitate::read(args)?;
            let send = move |spec, command: &[_]| inject::send(spec, command, socket, print);
            Box::new(move || imitate::run(args, asked, send))
        }
        Verb::Rules(rules) => plain(move || print(&manage::rules(rules, socket)?)),
        Verb::Remove(rule) => {
            let command = rule.command()?;
            plain(move || call(socket, &command))
        }
        Verb::Verify(rules) => {
            let bound = rules.bound()?;
            plain(move || manage::verify(rules, bound, socket, print))
        }
        Verb::Status(status) => plain(move || print(&render_status(socket, status.format)?)),
        Verb::Doctor(args) => Box::new(move || doctor::run(socket, args.format, print)),
        Verb::Hist(hist) => show_histograms(socket, hist)?,
        Verb::Record(args) => {
            let asked = record::read(args)?;
            plain(move || record::run(args, asked, socket, print))
        }
        Verb::Top { interval } => {
            let interval = interval.as_deref().map(hist::parse_interval).transpose()?;
            plain(move || top::run(interval, socket))
        }
        Verb::Events(events) => plain(move || show_events(socket, events)),
        Verb::Probe(verb) => plain(move || probe(socket, verb)),
        Verb::Reset => plain(move || call(socket, &Command::Reset)),
        Verb::Stop => plain(move || call(socket, &Command::Stop)),
        Verb::Completions { shell } => plain(move || completions(*shell)),
    })
}

/// Work that has no exit code of its own.
fn plain<'a>(work: impl FnOnce() -> Result<(), Failure> + 'a) -> Work<'a> {
    Box::new(move || work().map(|()| 0))
}

fn start<'a>(run: &'a Run, common: &'a Common) -> Result<Work<'a>, Failure> {
    let choice: Choice = parse_choice(&run.backend)?;
    let wanted = Wanted::parse(&run.probes)?;
    let socket = std::path::absolute(&common.socket).map_err(|error| {
        Failure::new(USAGE, format!("failed to read the socket's path: {error}"))
    })?;
    Ok(plain(move || match run.detach {
        true => detach(run, common.verbose, choice, &socket),
        false => serve(run.ready_fd, choice, wanted, &socket),
    }))
}

fn detach(run: &Run, verbose: u8, choice: Choice, socket: &Path) -> Result<(), Failure> {
    // Who may not is told so before a log is opened, which it may not either.
    crate::plan::plan(choice, &Facts::read(Path::new("/")))?;
    let mut args: Vec<OsString> = vec!["--backend".into(), run.backend.clone().into()];
    if !run.probes.is_empty() {
        args.extend(["--probes".into(), run.probes.join(",").into()]);
    }
    args.extend(["--socket".into(), socket.into()]);
    args.extend((0..verbose.max(1)).map(|_| "-v".into()));
    let pid = agent::detach(&args, socket)?;
    log::info!("agent {pid} is ready");
    Ok(())
}

fn serve(
    ready_fd: Option<i32>,
    choice: Choice,
    wanted: Wanted,
    socket: &Path,
) -> Result<(), Failure> {
    // SAFETY: `--ready-fd` is passed by `detach` alone, with a pipe that this process owns.
    let mut report = ready_fd.map(|fd| unsafe { File::from_raw_fd(fd) });
    let result = agent::run(choice, wanted, socket, || match report.take() {
        Some(mut pipe) => drop(pipe.write_all(b"ready\n")),
        None => eprintln!(
            "iolag: ready at {} (Ctrl-C or `iolag stop` ends it)",
            socket.display()
        ),
    });
    if let (Err(failure), Some(mut pipe)) = (&result, report) {
        let reason = serde_json::to_string(failure).unwrap_or_else(|_| failure.to_string());
        drop(pipe.write_all(reason.as_bytes()));
    }
    result
}

fn set<'a>(
    socket: &'a Path,
    rule: &'a str,
    layer: Layer,
    delay: &Delay,
) -> Result<Work<'a>, Failure> {
    let delay_ns = parse_delay(&delay.delay)?;
    let points = POINTS
        .iter()
        .filter(|point| point.layer == layer)
        .map(|point| point.name.to_owned())
        .collect();
    let command = Command::Set(Rule {
        name: rule.into(),
        points,
        delay_ns,
    });
    Ok(plain(move || {
        call::<()>(socket, &command)?;
        log::info!("{rule}: {}", format_ns(delay_ns));
        Ok(())
    }))
}

fn show_histograms<'a>(socket: &'a Path, hist: &'a Hist) -> Result<Work<'a>, Failure> {
    if matches!(hist.format, HistFormat::Prometheus) {
        render::prometheus::refuse_interval(hist.interval.as_deref())?;
    }
    let request = request(hist)?;
    Ok(plain(move || {
        hist::run(request, socket, |dump| match hist.format {
            HistFormat::Text => print(&render::hist::dump(dump)),
            HistFormat::Json => print(&render::json::line(dump)?),
            HistFormat::Prometheus => print(&render::prometheus::dump(dump)),
        })
    }))
}

fn request(hist: &Hist) -> Result<hist::Request, Failure> {
    hist::Request::parse(
        &hist.probe,
        hist.interval.as_deref(),
        hist.count,
        hist.by.as_deref(),
        &hist.filter,
        &hist.backend,
    )
}

fn show_events(socket: &Path, args: &Events) -> Result<(), Failure> {
    events::run(args.follow, socket, |event| {
        events::write(&match args.format {
            Format::Text => render::events::line(&event),
            Format::Json => render::json::line(&event.line())?,
        })
    })
}

fn probe(socket: &Path, verb: &ProbeVerb) -> Result<(), Failure> {
    match verb {
        ProbeVerb::List(StatusArgs { format }) => {
            let rows = probes::list(socket)?;
            print(&match format {
                Format::Text => render::text::probes(&rows),
                Format::Json => render::json::document(&List::new(rows))?,
            })
        }
        ProbeVerb::Load { probe, by, backend } => {
            let by = by.as_deref().unwrap_or_default();
            let by = by.split(',').filter(|name| !name.is_empty());
            let command = Command::ProbeLoad {
                probe: probe.clone(),
                by: by.map(|name| name.trim().to_owned()).collect(),
                backend: backend.clone(),
            };
            call(socket, &command).map(|_: Row| ())
        }
        ProbeVerb::Unload { probe } => {
            let probe = probe.clone();
            call(socket, &Command::ProbeUnload { probe })
        }
    }
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Iolag::command(), "iolag", &mut text);
    print(&String::from_utf8_lossy(&text))
}

fn render_status(socket: &Path, format: Format) -> Result<String, Failure> {
    let status: Status = call(socket, &Command::Status)?;
    Ok(match format {
        Format::Text => render::text::status(&status),
        Format::Json => render::json::document(&status)?,
    })
}

/// Writes results to stdout; a reader that left early is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout();
    // What is left for the exit to flush, nobody hears of when it fails.
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(
            FAILED,
            format!("failed to write to stdout: {error}"),
        )
        .hint("make room where it goes, or send it elsewhere")),
        _ => Ok(()),
    }
}
