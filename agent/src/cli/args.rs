//! The definition of the command line.

use std::path::PathBuf;

use agent_common::catalogue::BACKENDS;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, builder::PossibleValuesParser};

use super::IO_DELAYER;
use crate::{
    control::DEFAULT_SOCKET,
    inject::{args::Inject, manage},
    record,
    render::Format,
    rules::imitate,
};

/// Slows real I/O down on purpose, precisely, and proves what it did.
#[derive(Parser)]
#[command(name = "iolag", version, arg_required_else_help = true)]
pub struct Iolag {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Verb,
}

/// The commands of io-delayer-cli, served by iolag.
#[derive(Parser)]
#[command(name = IO_DELAYER, version, arg_required_else_help = true)]
pub struct IoDelayer {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: IoDelayerVerb,
}

#[derive(Args)]
pub struct Common {
    /// Control socket of the agent
    #[arg(long, global = true, value_name = "PATH", env = "IOLAG_SOCKET", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// Say more on stderr: -v info, -vv debug, -vvv each delayed hit (RUST_LOG overrides)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Subcommand)]
pub enum Verb {
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
    /// Show the rules in force, and the last 32 that ended, with what came of each
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
    /// Remove all rules, those of set and set-blk too
    Reset,
    /// Detach everything and end the agent
    Stop,
    /// Print completions for a shell
    Completions { shell: clap_complete::Shell },
}

#[derive(Subcommand)]
pub enum IoDelayerVerb {
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
pub struct Run {
    /// How to attach: auto takes the cheapest that this kernel allows
    #[arg(long, default_value = "auto", value_parser = backends())]
    pub backend: String,
    /// Go to the background once ready, or fail with the reason
    #[arg(long)]
    pub detach: bool,
    /// Measuring probes to load: block,vfs; or `all`: those that this kernel can run, but for fn:NAME
    #[arg(long, value_name = "PROBES", value_delimiter = ',')]
    pub probes: Vec<String>,
    /// Where a detached agent reports that it is ready
    #[arg(long, hide = true, value_name = "FD")]
    pub ready_fd: Option<i32>,
}

#[derive(Args)]
pub struct Delay {
    /// Microseconds, or a time with a unit: 100, 100us, 5ms, 1s
    #[arg(allow_hyphen_values = true)]
    pub delay: String,
}

#[derive(Args)]
pub struct StatusArgs {
    #[arg(long, default_value = "text")]
    pub format: Format,
}

#[derive(Args)]
pub struct Hist {
    /// What to measure: see `iolag probe list`
    pub probe: String,
    /// Seconds between two prints, or a time with a unit: 5, 500ms. Without it: one print, of an agent's
    /// probe at once, else at Ctrl-C
    pub interval: Option<String>,
    /// How many prints
    pub count: Option<u64>,
    /// Keys by which series are told apart: device,op
    #[arg(long, value_name = "KEYS")]
    pub by: Option<String>,
    /// Only series with this label; may be given again
    #[arg(long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// How to attach, where the probe is loaded for this command
    #[arg(long, default_value = "auto", value_parser = backends())]
    pub backend: String,
    #[arg(long, default_value = "text")]
    pub format: HistFormat,
}

#[derive(Args)]
pub struct Events {
    /// Go on printing until Ctrl-C; without an agent that has the probe memory, load it for so long
    #[arg(short, long)]
    pub follow: bool,
    /// json: one object a line
    #[arg(long, default_value = "text")]
    pub format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum HistFormat {
    Text,
    /// One document a line
    Json,
    /// What was recorded since the probe was loaded; takes no INTERVAL
    Prometheus,
}

#[derive(Subcommand)]
pub enum ProbeVerb {
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
