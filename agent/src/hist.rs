//! The command `hist`: histograms of a probe, from a running agent or by loading the probe for as long as
//! it takes.

use std::{path::Path, time::Duration};

use agent_common::probes::{Field, Probe};

use crate::{
    control::{
        client::{call, call_if_any},
        protocol::Command,
    },
    failure::{FAILED, Failure, USAGE},
    host::Facts,
    kernel::HostTypes,
    measure::{Measurement, Target, default_fields, find_field, in_order, parse_fields},
    plan,
    report::{dump::Dump, probes::Row, tasks},
    session::SYSCALL_ENTRY,
};

/// What was asked.
#[derive(Clone, Debug)]
pub struct Request {
    pub target: Target,
    /// Between two prints; none: one print.
    pub interval: Option<Duration>,
    /// Number of prints; none: until stopped.
    pub count: Option<u64>,
    /// By what the series are told apart when shown.
    pub by: Vec<Field>,
    /// `by` was not asked for: an agent's own choice does as well.
    pub by_default: bool,
    /// Labels that a series must have.
    pub filters: Vec<(Field, String)>,
    pub backend: Option<String>,
}

impl Request {
    /// Reads what the command line has.
    ///
    /// # Errors
    /// An unknown probe or key, an interval or a count that is none.
    pub fn parse(
        probe: &str,
        interval: Option<&str>,
        count: Option<u64>,
        by: Option<&str>,
        filters: &[String],
        backend: &str,
    ) -> Result<Self, Failure> {
        let target = Target::parse(probe)?;
        let probe = target.probe;
        let asked_by = by;
        let by = match asked_by {
            Some(names) => parse_fields(probe, names)?,
            None => default_fields(probe),
        };
        let by_default = asked_by.is_none();
        if count == Some(0) {
            return Err(Failure::new(USAGE, "a count of 0 prints nothing").hint("leave it away"));
        }
        Ok(Self {
            target,
            interval: interval.map(parse_interval).transpose()?,
            count,
            by: in_order(&by),
            by_default,
            filters: filters
                .iter()
                .map(|filter| parse_filter(probe, filter))
                .collect::<Result<_, _>>()?,
            backend: plan::parse_choice(backend)?.map(|backend| backend.name().to_owned()),
        })
    }

    /// What the probe must tell apart: what is shown, and what is filtered by.
    fn fields(&self) -> Vec<Field> {
        let mut fields = self.by.clone();
        fields.extend(self.filters.iter().map(|(field, _)| *field));
        in_order(&fields)
    }

    /// Whether an agent with these probes has what was asked for. Where no keys were asked for, its own are
    /// taken.
    fn serve_from(&mut self, rows: &[Row]) -> bool {
        let name = self.target.name();
        let loaded = rows.iter().find(|row| row.name == name && row.loaded);
        let (Some(row), None) = (loaded, &self.backend) else {
            return false;
        };
        if self.by_default {
            let of_probe = self.target.probe.keys.iter().map(|key| key.field);
            self.by = of_probe
                .filter(|field| row.by.iter().any(|name| name == field.name()))
                .collect();
        }
        let has =
            |field: &Field| *field == Field::Cpu || row.by.iter().any(|name| name == field.name());
        self.fields().iter().all(has)
    }

    fn by_cpu(&self) -> bool {
        self.fields().contains(&Field::Cpu)
    }

    /// Leaves what was asked for.
    fn select(&self, mut dump: Dump) -> Dump {
        let filters: Vec<(String, String)> = self
            .filters
            .iter()
            .map(|(field, value)| (field.name().to_owned(), value.clone()))
            .collect();
        let keys: Vec<&str> = self.by.iter().map(|field| field.name()).collect();
        dump.select(&filters, &keys);
        tasks::filter(&mut dump.tasks, &filters);
        dump.tasks = tasks::first(dump.tasks);
        dump
    }
}

/// Seconds as `iostat` takes them, or a time with a unit.
///
/// # Errors
/// It is neither, or not between 10 ms and a day.
pub fn parse_interval(text: &str) -> Result<Duration, Failure> {
    let seconds: Option<f64> = match text.strip_suffix("ms") {
        Some(number) => number.parse().ok().map(|ms: f64| ms / 1_000.0),
        None => text.strip_suffix('s').unwrap_or(text).parse().ok(),
    };
    match seconds {
        Some(seconds) if (0.01..=86_400.0).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err(Failure::new(USAGE, format!("{text:?} is not an interval"))
            .hint("write seconds (5), or a time with a unit: 500ms, 5s; 10ms to one day")),
    }
}

fn parse_filter(probe: &Probe, text: &str) -> Result<(Field, String), Failure> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        Failure::new(USAGE, format!("{text:?} is not a filter")).hint("write KEY=VALUE: op=read")
    })?;
    let field = find_field(probe, key)?;
    if field == Field::Op && !probe.ops.is_empty() && !probe.ops.contains(&value) {
        return Err(crate::measure::unknown("op", value, probe.ops));
    }
    Ok((field, value.into()))
}

/// Where the figures come from.
enum Source<'a> {
    Agent(&'a Path),
    Own(Box<Measurement>),
}

impl<'a> Source<'a> {
    /// The agent at `socket`, if there is one whose probe tells apart what is needed; else the probe is
    /// loaded here.
    fn open(request: &mut Request, socket: &'a Path) -> Result<Self, Failure> {
        let mut agent = false;
        match call_if_any::<Vec<Row>>(socket, &Command::ProbeList) {
            Ok(Some(rows)) => {
                agent = true;
                if request.serve_from(&rows) {
                    return Ok(Self::Agent(socket));
                }
            }
            // No agent: that is fine.
            Ok(None) => {}
            Err(failure) => log::info!("the agent is not asked: {failure}"),
        }
        let facts = Facts::read(Path::new("/"));
        plan::may_load(&facts, "iolag hist")?;
        let types = HostTypes::read(&facts)?;
        let backend = request.backend.as_deref();
        let own = Measurement::start(&request.target, &request.fields(), &types, backend)?;
        if agent && own.probe().attached_at(SYSCALL_ENTRY) {
            log::warn!(
                "the running agent's delays end before this probe's clock starts: to measure them, \
                 iolag probe load {}",
                request.target.name()
            );
        }
        Ok(Self::Own(Box::new(own)))
    }

    fn dump(&self, request: &Request) -> Result<Dump, Failure> {
        match self {
            Self::Agent(socket) => call(
                socket,
                &Command::Dump {
                    probe: request.target.name(),
                    by_cpu: request.by_cpu(),
                },
            ),
            Self::Own(own) => own.dump(request.by_cpu()),
        }
    }
}

/// Measures and hands each result to `print`, until the count is reached or Ctrl-C.
///
/// # Errors
/// The probe cannot be loaded, the agent is gone, `print` failed.
pub fn run(
    mut request: Request,
    socket: &Path,
    mut print: impl FnMut(&Dump) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(FAILED, format!("failed to start the event loop: {error}"))
        })?;
    let source = Source::open(&mut request, socket)?;
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
        print(&request.select(now.since(&before)))?;
        before = now;
        printed += 1;
        if stopped || request.interval.is_none() || request.count == Some(printed) {
            return Ok(());
        }
    }
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
    use super::*;

    #[test]
    fn an_interval_is_seconds_or_has_a_unit() {
        for (text, ms) in [("5", 5_000), ("0.5", 500), ("250ms", 250), ("2s", 2_000)] {
            assert_eq!(parse_interval(text).unwrap(), Duration::from_millis(ms));
        }
        for text in ["", "0", "-1", "5m", "1e9", "nan", "inf", "ms"] {
            assert_eq!(parse_interval(text).unwrap_err().code, USAGE, "{text}");
        }
    }

    #[test]
    fn unknown_words_are_told_with_the_nearest() {
        let parse = |probe: &str, by: Option<&str>, filter: &str| {
            let filters: Vec<String> = vec![filter.to_owned()];
            let filters = if filter.is_empty() { &[] } else { &filters[..] };
            Request::parse(probe, None, None, by, filters, "auto")
        };
        let told = |result: Result<Request, Failure>| result.unwrap_err().to_string();
        assert!(told(parse("blok", None, "")).contains("did you mean block?"));
        assert!(told(parse("block", Some("devise"), "")).contains("did you mean device?"));
        assert!(told(parse("block", None, "op=reed")).contains("did you mean read?"));
        assert!(told(parse("block", None, "op")).contains("KEY=VALUE"));
        assert!(parse("block", Some("op,device"), "comm=fio").is_ok());
    }
}
