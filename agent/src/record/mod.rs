//! The command `record`: how long something took, as a profile that `--like` and `imitate` read.

use std::{io::IsTerminal as _, path::Path, time::Duration};

use agent_common::probes::{Probe, Unit};

use self::output::Output;
use crate::{
    failure::{FAILED, Failure, USAGE},
    hist::{self, parse_time},
    measure::{Target, default_fields, unknown},
    report::dump::{Dump, Labels, Metric},
    rules::profile::Profile,
    units::format_ns,
};

mod output;
#[cfg(test)]
mod tests;

/// What is recorded of a probe that has it.
const PREFERRED: &str = "total";

#[derive(clap::Args)]
pub struct Args {
    /// What to record, as `iolag hist` tells it apart: block.vda.read, vfs.read.ext4; of its parts
    /// behind the probe at least one, where it has several series: vfs.read
    #[arg(value_name = "PROBE.SERIES")]
    series: String,
    /// For how long: 30s; Ctrl-C ends it earlier and keeps what was seen
    #[arg(long = "for", value_name = "TIME")]
    time: String,
    /// Where to write it; - is stdout
    #[arg(short, long, value_name = "FILE")]
    output: String,
    /// Which time, where the probe measures several: queue, device, total
    #[arg(long, value_name = "NAME")]
    metric: Option<String>,
    /// Replace FILE if it is there
    #[arg(long)]
    force: bool,
}

/// A series by its name.
pub struct Wanted<'a> {
    probe: &'static Probe,
    /// As it was asked for: `block.vda.read`.
    name: &'a str,
    /// The part behind the probe; may be empty.
    values: &'a str,
    metric: &'static str,
}

/// What to record, and for how long.
///
/// # Errors
/// There is no such probe or metric, or it is no time.
pub fn read(args: &Args) -> Result<(Wanted<'_>, Duration), Failure> {
    let (probe, values) = split(&args.series);
    let target = Target::parse(probe)?;
    let wanted = Wanted {
        probe: target.probe,
        name: &args.series,
        values,
        metric: metric(target.probe, args.metric.as_deref())?,
    };
    Ok((wanted, parse_time("--for", &args.time)?))
}

/// Records what [`read`] gave, with the probe of the agent at `socket` or by loading it, and writes the profile; `print`
/// writes to stdout.
///
/// # Errors
/// The file may not be written, the probe cannot be loaded, nothing was recorded.
pub fn run(
    args: &Args,
    (wanted, time): (Wanted<'_>, Duration),
    socket: &Path,
    print: impl FnOnce(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let output = Output::parse(&args.output, args.force)?;
    // All that the names may be made of, whatever an agent's probe was loaded by.
    let by: Vec<&str> = default_fields(wanted.probe)
        .iter()
        .map(|field| field.name())
        .collect();
    let (probe, _) = split(&args.series);
    let request = hist::Request::parse(probe, None, None, Some(&by.join(",")), &[], "auto")?;
    let mut progress = Progress::new(&args.series, time);
    let dump = hist::once("iolag record", request, time, socket, |gone| {
        progress.tell(gone)
    });
    progress.end();
    let profile = profile(&wanted, dump?)?;
    let told = profile.curve().percentiles();
    match output {
        Output::Stdout => print(&profile.document())?,
        Output::File(file) => file.write(&profile.document())?,
    }
    eprintln!(
        "recorded {} of {}: p50 {}, p99 {}, p99.9 {}",
        profile.count,
        profile.name,
        format_ns(told.p50),
        format_ns(told.p99),
        format_ns(told.p999)
    );
    Ok(())
}

/// What stderr shows meanwhile: on a terminal a line that is kept up to date, else one line and no more.
struct Progress<'a> {
    name: &'a str,
    time: Duration,
    terminal: bool,
    told: bool,
}

impl<'a> Progress<'a> {
    fn new(name: &'a str, time: Duration) -> Self {
        Self {
            name,
            time,
            terminal: std::io::stderr().is_terminal(),
            told: false,
        }
    }

    fn tell(&mut self, gone: Duration) {
        let (name, time) = (self.name, self.time.as_secs_f64());
        if self.terminal {
            let gone = gone.as_secs_f64();
            eprint!("\rrecording {name}: {gone:.0} of {time} s; Ctrl-C keeps what was seen ");
        } else if !self.told {
            eprintln!("recording {name} for {time} s");
        }
        self.told = true;
    }

    fn end(&self) {
        if self.terminal && self.told {
            eprintln!();
        }
    }
}

/// `block.vda.read` is the probe `block` and the values `vda.read`; a function may have dots in its name.
fn split(series: &str) -> (&str, &str) {
    match series.split_once('.') {
        Some((probe, values)) if !probe.contains(':') => (probe, values),
        _ => (series, ""),
    }
}

/// The metric that is asked for, or the probe's main one.
fn metric(probe: &Probe, asked: Option<&str>) -> Result<&'static str, Failure> {
    let named = |name: &str| probe.metrics.iter().find(|metric| metric.name == name);
    let times = || {
        probe
            .metrics
            .iter()
            .filter(|metric| metric.unit == Unit::Nanoseconds)
    };
    let names: Vec<&str> = times().map(|metric| metric.name).collect();
    match asked {
        None => named(PREFERRED)
            .or_else(|| times().next())
            .map(|metric| metric.name)
            .ok_or_else(|| {
                Failure::new(USAGE, format!("the probe {} measures no time", probe.name))
                    .hint("iolag probe list shows what there is")
            }),
        Some(name) => match named(name) {
            Some(metric) if metric.unit == Unit::Nanoseconds => Ok(metric.name),
            Some(_) => Err(
                Failure::new(USAGE, format!("--metric {name}: it is no time"))
                    .hint(format!("there are {}", names.join(", "))),
            ),
            None => Err(unknown(
                &format!("metric of the probe {}", probe.name),
                name,
                &names,
            )),
        },
    }
}

/// The series that are meant, as one profile.
fn profile(wanted: &Wanted, mut dump: Dump) -> Result<Profile, Failure> {
    let time = format_ns(dump.interval_ns);
    let of = |metrics: &[Metric]| {
        metrics
            .iter()
            .find(|metric| metric.metric == wanted.metric)
            .cloned()
    };
    dump.series
        .retain(|series| of(&series.metrics).is_some_and(|metric| metric.count > 0));
    let seen: Vec<String> = dump
        .series
        .iter()
        .map(|series| name(wanted.probe, &series.labels))
        .collect();
    if seen.is_empty() {
        return Err(
            failed(wanted, &format!("nothing came by in {time}")).hint(format!(
                "let something run meanwhile; iolag hist {} 5 shows what comes by",
                probe(wanted)
            )),
        );
    }
    if wanted.values.is_empty() && seen.len() > 1 {
        return Err(failed(wanted, "it has several series").hint(format!(
            "name one, or a part of its name: {}",
            seen.join(", ")
        )));
    }
    dump.series.retain(|series| means(wanted, &series.labels));
    // What is left is one: the sum of all that are meant.
    dump.select(&[], &[]);
    let Some(metric) = dump.series.first().and_then(|series| of(&series.metrics)) else {
        let seen: Vec<&str> = seen.iter().map(String::as_str).collect();
        let hint = unknown("series", wanted.name, &seen)
            .hint
            .unwrap_or_default();
        return Err(failed(wanted, &format!("there was no such series in {time}")).hint(hint));
    };
    let losses = dump.ledger.losses();
    let lost: Vec<String> = losses
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    let mut source = format!(
        "recorded by iolag {} in {time}: {} of {}",
        env!("CARGO_PKG_VERSION"),
        wanted.metric,
        wanted.name
    );
    if !lost.is_empty() {
        log::warn!("the probe lost some: {}", lost.join(", "));
        source.push_str(&format!("; incomplete: {}", lost.join(", ")));
    }
    Profile::of_metric(wanted.name, &source, &metric)
}

fn failed(wanted: &Wanted, why: &str) -> Failure {
    Failure::new(FAILED, format!("failed to record {}: {why}", wanted.name))
}

fn probe<'a>(wanted: &Wanted<'a>) -> &'a str {
    split(wanted.name).0
}

/// The values of the labels, in the order of the probe's keys.
fn values<'a>(probe: &Probe, labels: &'a Labels) -> Vec<&'a str> {
    let fields = default_fields(probe).into_iter();
    fields
        .filter_map(|field| labels.get(field.name()))
        .map(String::as_str)
        .collect()
}

/// `block.vda.read`.
fn name(probe: &Probe, labels: &Labels) -> String {
    let mut parts = vec![probe.name];
    parts.extend(values(probe, labels));
    parts.join(".")
}

/// Whether the series is meant: what was asked for is its values, of which some may be left away. They may have dots
/// in them, so what was asked for is not split.
fn means(wanted: &Wanted, labels: &Labels) -> bool {
    let values = values(wanted.probe, labels);
    (0_u32..1 << values.len()).any(|kept| {
        let kept = |place: &usize| kept & 1 << place != 0;
        let places = (0..values.len()).filter(kept);
        places
            .map(|place| values[place])
            .collect::<Vec<_>>()
            .join(".")
            == wanted.values
    })
}
