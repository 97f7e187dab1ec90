//! The command line: its definition and what each command does.

use std::{
    ffi::OsString,
    fs::File,
    io::Write as _,
    os::fd::FromRawFd as _,
    path::{Path, PathBuf},
};

use agent_common::catalogue::{BACKENDS, Layer, POINTS};
use clap::{
    ArgAction, Args, CommandFactory as _, Parser, Subcommand, ValueEnum,
    builder::PossibleValuesParser,
};

use crate::{
    agent,
    control::{DEFAULT_SOCKET, client::call, protocol::Command},
    doctor, events,
    failure::{FAILED, Failure, USAGE},
    hist,
    host::Facts,
    inject::{self, args::Inject, manage},
    plan::{Choice, parse_choice},
    probes, record,
    render::{self, Format},
    report::{
        Rule, Status,
        probes::{List, Row},
    },
    rules::imitate,
    top,
    units::{format_ns, parse_delay},
};

/// The name under which the program takes io-delayer's commands.
const IO_DELAYER: &str = "io-delayer-cli";

/// Slows real I/O down on purpose, precisely, and proves what it did.
#[derive(Parser)]
#[command(name = "iolag", version, arg_required_else_help = true)]
struct Iolag {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Verb,
}

/// The commands of io-delayer-cli, served by iolag.
#[derive(Parser)]
#[command(name = IO_DELAYER, version, arg_required_else_help = true)]
struct IoDelayer {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: IoDelayerVerb,
}

#[derive(Args)]
struct Common {
    /// Control socket of the agent
    #[arg(long, global = true, value_name = "PATH", env = "IOLAG_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Say more on stderr: -v info, -vv debug, -vvv each delayed hit (RUST_LOG overrides)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Verb {
    /// Load, attach and serve until stopped
    Run(Run),
    /// Delay read, write and open by so much; 0 switches off
    Set(Delay),
    /// Delay each request to a block device by so much; 0 switches off
    SetBlk(Delay),
    /// Put a rule in force: delay certain hits only; with -- COMMAND for as long as it runs
    Inject(Box<Inject>),
    /// Make a disk answer like another: add to each request what brings one profile to the other
    Imitate(Box<imitate::Args>),
    /// Show the rules in force, and what came of each
    Rules(manage::Rules),
    /// Remove a rule, or all
    Remove(manage::Remove),
    /// Check that the rules did what was asked of them; exit code 1 if not
    Verify(manage::Verify),
    /// Show the agent, the rules, and what was done at each point
    Status(StatusArgs),
    /// Try every backend and probe on this host and say what works, what not, and why; exit code 3 if delays cannot
    Doctor(StatusArgs),
    /// Histograms of a probe, every INTERVAL or at Ctrl-C
    Hist(Hist),
    /// Record how long something takes, as a profile for --like and imitate
    Record(record::Args),
    /// A live view of what the probes see and of the delays in force
    Top {
        /// Seconds between two samples, or a time with a unit: 5, 500ms
        interval: Option<String>,
    },
    /// OOM kills: those that the agent kept, and with --follow each one as it comes
    Events(Events),
    /// Load, unload and list measuring probes of the agent
    #[command(subcommand)]
    Probe(ProbeVerb),
    /// All delays to 0
    Reset,
    /// Detach everything and end the agent
    Stop,
    /// Print completions for a shell
    Completions { shell: clap_complete::Shell },
}

#[derive(Subcommand)]
enum IoDelayerVerb {
    /// Delay read, write and open by so many microseconds; 0 switches off
    Set(Delay),
    /// Delay each request to a block device by so many microseconds; 0 switches off
    SetBlk(Delay),
    /// Show the delays and what was done
    Status(StatusArgs),
}

/// `auto` and the names of all backends.
fn backends() -> PossibleValuesParser {
    PossibleValuesParser::new(
        ["auto"]
            .into_iter()
            .chain(BACKENDS.map(|backend| backend.name())),
    )
}

#[derive(Args)]
struct Run {
    /// How to attach: auto takes the cheapest that this kernel allows
    #[arg(long, default_value = "auto", value_parser = backends())]
    backend: String,
    /// Go to the background once ready, or fail with the reason
    #[arg(long)]
    detach: bool,
    /// Measuring probes to load: block,vfs; or all that this kernel can run
    #[arg(long, value_name = "PROBES", value_delimiter = ',')]
    probes: Vec<String>,
    /// Where a detached agent reports that it is ready
    #[arg(long, hide = true, value_name = "FD")]
    ready_fd: Option<i32>,
}

#[derive(Args)]
struct Delay {
    /// Microseconds, or a time with a unit: 100, 100us, 5ms, 1s
    #[arg(allow_hyphen_values = true)]
    delay: String,
}

#[derive(Args)]
struct StatusArgs {
    #[arg(long, default_value = "text")]
    format: Format,
}

#[derive(Args)]
struct Hist {
    /// What to measure: see `iolag probe list`
    probe: String,
    /// Seconds between two prints, or a time with a unit: 5, 500ms. Without it: one print, of an agent's
    /// probe at once, else at Ctrl-C
    interval: Option<String>,
    /// How many prints
    count: Option<u64>,
    /// Keys by which series are told apart: device,op
    #[arg(long, value_name = "KEYS")]
    by: Option<String>,
    /// Only series with this label; may be given again
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// How to attach, where the probe is loaded for this command
    #[arg(long, default_value = "auto", value_parser = backends())]
    backend: String,
    #[arg(long, default_value = "text")]
    format: HistFormat,
}

#[derive(Args)]
struct Events {
    /// Go on printing until Ctrl-C; without an agent that has the probe memory, load it for so long
    #[arg(short, long)]
    follow: bool,
    /// json: one object a line
    #[arg(long, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum HistFormat {
    Text,
    /// One document a line
    Json,
    /// What was recorded since the probe was loaded; takes no INTERVAL
    Prometheus,
}

#[derive(Subcommand)]
enum ProbeVerb {
    /// Show all probes, and which the agent has loaded
    List(StatusArgs),
    /// Load a probe into the running agent
    Load {
        probe: String,
        /// Keys by which series are told apart: device,op
        #[arg(long, value_name = "KEYS")]
        by: Option<String>,
        #[arg(long, default_value = "auto", value_parser = backends())]
        backend: String,
    },
    /// Unload a probe and forget what it recorded
    Unload { probe: String },
}

/// Runs the command line. Returns the exit code: 0, or that of the command that it started.
///
/// # Errors
/// The command failed; the failure holds the exit code.
pub fn main(args: impl Iterator<Item = OsString>) -> Result<u8, Failure> {
    let args: Vec<OsString> = args.collect();
    let name = args.first().map(Path::new).and_then(Path::file_name);
    let (common, command) = if name.is_some_and(|name| name == IO_DELAYER) {
        let IoDelayer { common, command } = parse(&args)?;
        let command = match command {
            IoDelayerVerb::Set(delay) => Verb::Set(delay),
            IoDelayerVerb::SetBlk(delay) => Verb::SetBlk(delay),
            IoDelayerVerb::Status(status) => Verb::Status(status),
        };
        (common, command)
    } else {
        let Iolag { common, command } = parse(&args)?;
        (common, command)
    };
    start_log(common.verbose);
    execute(command, &common)
}

/// clap prints help and version itself; a usage error becomes one line.
fn parse<T: Parser>(args: &[OsString]) -> Result<T, Failure> {
    T::try_parse_from(args).map_err(|error| {
        if !error.use_stderr() {
            error.exit();
        }
        if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            error.exit();
        }
        let text = error.to_string();
        let told = text.split("\n\nUsage:").next().unwrap_or(&text);
        let told = told
            .split("\n\nFor more information")
            .next()
            .unwrap_or(told);
        Failure::new(USAGE, told.trim_start_matches("error: ")).hint(
            match error
                .context()
                .find(|(kind, _)| *kind == clap::error::ContextKind::Usage)
            {
                Some((_, usage)) => usage.to_string().replace("Usage: ", "usage: "),
                None => "see --help".into(),
            },
        )
    })
}

fn start_log(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level)).init();
}

fn execute(command: Verb, common: &Common) -> Result<u8, Failure> {
    let socket = &common.socket;
    let done = match command {
        Verb::Run(run) => start(&run, common),
        Verb::Set(delay) => set(socket, "set", Layer::Vfs, &delay),
        Verb::SetBlk(delay) => set(socket, "set-blk", Layer::Block, &delay),
        Verb::Inject(rule) => return inject::run(&rule, socket, print),
        Verb::Imitate(args) => {
            return imitate::run(&args, |spec, command| {
                inject::send(spec, command, socket, print)
            });
        }
        Verb::Rules(rules) => print(&manage::rules(&rules, socket)?),
        Verb::Remove(rule) => manage::remove(&rule, socket),
        Verb::Verify(rules) => manage::verify(&rules, socket, print),
        Verb::Status(status) => print(&render_status(socket, status.format)?),
        Verb::Doctor(args) => return doctor::run(socket, args.format, print),
        Verb::Hist(hist) => show_histograms(socket, &hist),
        Verb::Record(args) => record::run(&args, socket, print),
        Verb::Top { interval } => {
            let interval = interval.as_deref().map(hist::parse_interval).transpose()?;
            top::run(interval, socket)
        }
        Verb::Events(events) => show_events(socket, &events),
        Verb::Probe(verb) => probe(socket, verb),
        Verb::Reset => call(socket, &Command::Reset),
        Verb::Stop => call(socket, &Command::Stop),
        Verb::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Iolag::command(), "iolag", &mut text);
            print(&String::from_utf8_lossy(&text))
        }
    };
    done.map(|()| 0)
}

fn start(run: &Run, common: &Common) -> Result<(), Failure> {
    let choice: Choice = parse_choice(&run.backend)?;
    let socket = std::path::absolute(&common.socket).map_err(|error| {
        Failure::new(USAGE, format!("failed to read the socket's path: {error}"))
    })?;
    if run.detach {
        // Who may not is told so before a log is opened, which it may not either.
        crate::plan::plan(choice, &Facts::read(Path::new("/")))?;
        let mut args: Vec<OsString> = vec!["--backend".into(), run.backend.clone().into()];
        if !run.probes.is_empty() {
            args.extend(["--probes".into(), run.probes.join(",").into()]);
        }
        args.extend(["--socket".into(), socket.clone().into()]);
        args.extend((0..common.verbose.max(1)).map(|_| "-v".into()));
        let pid = agent::detach(&args, &socket)?;
        log::info!("agent {pid} is ready");
        return Ok(());
    }
    // SAFETY: `--ready-fd` is passed by `detach` alone, with a pipe that this process owns.
    let mut report = run.ready_fd.map(|fd| unsafe { File::from_raw_fd(fd) });
    let result = agent::run(choice, &run.probes, &socket, || match report.take() {
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

fn set(socket: &Path, rule: &str, layer: Layer, delay: &Delay) -> Result<(), Failure> {
    let delay_ns = parse_delay(&delay.delay)?;
    let points = POINTS
        .iter()
        .filter(|point| point.layer == layer)
        .map(|point| point.name.to_owned())
        .collect();
    call::<()>(
        socket,
        &Command::Set(Rule {
            name: rule.into(),
            points,
            delay_ns,
        }),
    )?;
    log::info!("{rule}: {}", format_ns(delay_ns));
    Ok(())
}

fn show_histograms(socket: &Path, hist: &Hist) -> Result<(), Failure> {
    if matches!(hist.format, HistFormat::Prometheus) {
        render::prometheus::refuse_interval(hist.interval.as_deref())?;
    }
    let request = hist::Request::parse(
        &hist.probe,
        hist.interval.as_deref(),
        hist.count,
        hist.by.as_deref(),
        &hist.filter,
        &hist.backend,
    )?;
    hist::run(request, socket, |dump| match hist.format {
        HistFormat::Text => print(&render::hist::dump(dump)),
        HistFormat::Json => print(&render::json::line(dump)?),
        HistFormat::Prometheus => print(&render::prometheus::dump(dump)),
    })
}

fn show_events(socket: &Path, args: &Events) -> Result<(), Failure> {
    events::run(args.follow, socket, |event| {
        events::write(&match args.format {
            Format::Text => render::events::line(&event),
            Format::Json => render::json::line(&event.line())?,
        })
    })
}

fn probe(socket: &Path, verb: ProbeVerb) -> Result<(), Failure> {
    match verb {
        ProbeVerb::List(StatusArgs { format }) => {
            let rows = probes::list(socket)?;
            print(&match format {
                Format::Text => render::text::probes(&rows),
                Format::Json => render::json::document(&List::new(rows))?,
            })
        }
        ProbeVerb::Load { probe, by, backend } => {
            let by = by.unwrap_or_default();
            let by = by.split(',').filter(|name| !name.is_empty());
            let by = by.map(|name| name.trim().to_owned()).collect();
            call(socket, &Command::ProbeLoad { probe, by, backend }).map(|_: Row| ())
        }
        ProbeVerb::Unload { probe } => call(socket, &Command::ProbeUnload { probe }),
    }
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
