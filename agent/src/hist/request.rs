//! What `hist` is asked for.

use std::time::Duration;

use agent_common::probes::{Field, Probe};

use crate::{
    failure::{FAILED, Failure, USAGE},
    measure::{Target, default_fields, find_field, in_order, parse_fields, unknown},
    plan,
    report::{dump::Dump, probes::Row, tasks},
    units::parse_span,
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
    pub(super) fn fields(&self) -> Vec<Field> {
        let mut fields = self.by.clone();
        fields.extend(self.filters.iter().map(|(field, _)| *field));
        in_order(&fields)
    }

    /// Whether an agent with these probes has what was asked for. Where no keys were asked for, its own are
    /// taken.
    pub(super) fn serve_from(&mut self, rows: &[Row]) -> bool {
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

    pub(super) fn by_cpu(&self) -> bool {
        self.fields().contains(&Field::Cpu)
    }

    /// Whether this has what was asked for: an agent's probe may have been loaded anew, by other keys.
    ///
    /// # Errors
    /// A key is not there.
    pub(super) fn check(&self, dump: &Dump) -> Result<(), Failure> {
        let lacks = |field: &Field| {
            let mut labels = dump.series.iter().map(|series| &series.labels);
            labels.any(|labels| !labels.contains_key(field.name()))
        };
        match self.fields().into_iter().find(lacks) {
            Some(field) => Err(Failure::new(
                FAILED,
                format!(
                    "failed to tell series of {} apart by {}: the probe was loaded anew without",
                    self.target.name(),
                    field.name()
                ),
            )
            .hint("iolag probe list shows by what it is loaded")),
            None => Ok(()),
        }
    }

    /// Leaves what was asked for.
    pub(super) fn select(&self, mut dump: Dump) -> Dump {
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

/// The time that `flag` gives: with a unit, from 10 ms to a day.
///
/// # Errors
/// It is none; the flag is told.
pub fn parse_time(flag: &str, text: &str) -> Result<Duration, Failure> {
    const SHORTEST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_secs(24 * 3600);
    let time = Duration::from_nanos(parse_span(flag, text)?);
    if (SHORTEST..=LONGEST).contains(&time) {
        return Ok(time);
    }
    Err(
        Failure::new(USAGE, format!("{flag} {text} is not between 10ms and 24h"))
            .hint("write a number with a unit: 500ms, 30s, 10m, 1h"),
    )
}

fn parse_filter(probe: &Probe, text: &str) -> Result<(Field, String), Failure> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        Failure::new(USAGE, format!("{text:?} is not a filter")).hint("write KEY=VALUE: op=read")
    })?;
    let field = find_field(probe, key)?;
    if field == Field::Op && !probe.ops.is_empty() && !probe.ops.contains(&value) {
        return Err(unknown("op", value, probe.ops));
    }
    Ok((field, value.into()))
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
    fn a_time_of_a_flag_needs_a_unit() {
        assert_eq!(parse_time("--for", "30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_time("--for", "5m"), Ok(Duration::from_secs(300)));
        for text in ["30", "", "s", "25h", "-1s", "1ms"] {
            let told = parse_time("--for", text).unwrap_err();
            assert!(told.message.starts_with("--for "), "{told}");
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
