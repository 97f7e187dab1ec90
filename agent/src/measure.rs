//! A measurement that runs: a probe in the kernel, and the names of what it saw.

use std::{os::fd::OwnedFd, path::Path};

use agent_common::probes::{FIELDS, Field, Loss, PROBES, Probe, probe};

use crate::{
    failure::{Failure, USAGE},
    functions,
    kernel::{HostTypes, MeasureProbe, RawSeries, boot_unix_ns, now_ns, page_bytes},
    names::{Names, in_flight},
    report::{
        dump::{Dump, Labels, Ledger, Metric, Series},
        events::{Event, OomKill},
        tasks::{self, Task},
    },
};

/// What is asked for: a probe of the catalogue, some with a function.
#[derive(Clone, Debug)]
pub struct Target {
    pub probe: &'static Probe,
    /// Of `fn:NAME`, the name.
    pub function: Option<String>,
}

impl Target {
    /// Reads `vfs` or `fn:vfs_read`.
    ///
    /// # Errors
    /// No such probe; a function where none belongs, or none where one does.
    pub fn parse(name: &str) -> Result<Self, Failure> {
        let (name, function) = match name.split_once(':') {
            Some((name, function)) => (name, Some(function)),
            None => (name, None),
        };
        let probe = find_probe(name)?;
        match function {
            None | Some("") if probe.takes_function() => Err(Failure::new(
                USAGE,
                format!("the probe {name} needs a function"),
            )
            .hint(format!("{name}:vfs_read"))),
            Some(_) if !probe.takes_function() => {
                Err(
                    Failure::new(USAGE, format!("the probe {name} takes no function")).hint(
                        format!("leave it away: {name}; fn:NAME measures a function"),
                    ),
                )
            }
            function => Ok(Self {
                probe,
                function: function.map(Into::into),
            }),
        }
    }

    /// As it is asked for.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.function {
            Some(function) => format!("{}:{function}", self.probe.name),
            None => self.probe.name.into(),
        }
    }
}

/// Stops when dropped.
pub struct Measurement {
    target: Target,
    probe: MeasureProbe,
    names: Names,
    loaded_ns: u64,
    /// Events that were reported as lost.
    lost_events: u64,
}

impl Measurement {
    /// Loads and attaches the probe; its series are told apart by `fields`.
    ///
    /// # Errors
    /// This kernel cannot run the probe; nothing stays attached.
    pub fn start(
        target: &Target,
        fields: &[Field],
        types: &HostTypes,
        backend: Option<&str>,
    ) -> Result<Self, Failure> {
        let root = Path::new("/");
        let function = target.function.as_deref();
        if let Some(function) = function {
            functions::Functions::read(root).check(function)?;
        }
        let probe = MeasureProbe::load(target.probe, function, fields, types, backend).map_err(
            |failure| match function {
                Some(function) => explain(root, function, failure),
                None => failure,
            },
        )?;
        Ok(Self {
            target: target.clone(),
            probe,
            names: Names::new(root),
            loaded_ns: now_ns(),
            lost_events: 0,
        })
    }

    /// What was asked for.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    #[must_use]
    pub fn probe(&self) -> &MeasureProbe {
        &self.probe
    }

    fn labels(&mut self, fields: &[Field], series: &RawSeries) -> Labels {
        let names = &mut self.names;
        let mut labels = names.labels(self.target.probe, fields, series.key.as_ref(), series.cpu);
        // The one function that the probe is attached to, whatever the series.
        if let Some(function) = &self.target.function
            && fields.contains(&Field::Function)
        {
            labels.insert(Field::Function.name().into(), function.clone());
        }
        labels
    }

    /// A descriptor that becomes readable when there are events; none if the probe sends none.
    #[must_use]
    pub fn events_descriptor(&self) -> Option<Result<OwnedFd, Failure>> {
        let ring = self.probe.events.as_ref()?;
        Some(ring.descriptor().map_err(Failure::from))
    }

    /// The events that came since the last call, and how many were lost.
    ///
    /// # Errors
    /// The kernel refuses a look-up.
    pub fn drain_events(&mut self) -> Result<Vec<Event>, Failure> {
        let Some(ring) = &mut self.probe.events else {
            return Ok(Vec::new());
        };
        let (page, boot) = (page_bytes(), boot_unix_ns());
        let mut events: Vec<Event> = ring
            .drain()
            .iter()
            .map(|raw| Event::OomKill(Box::new(OomKill::new(raw, page, boot))))
            .collect();
        let lost = self.probe.ledger()?[Loss::Events as usize];
        if lost > self.lost_events {
            events.push(Event::Lost {
                count: lost - self.lost_events,
            });
            self.lost_events = lost;
        }
        Ok(events)
    }

    /// What was recorded since the start, by all that the kernel side tells apart, and by CPU if `by_cpu`.
    /// Where not all of it was asked for, several series have the same labels.
    ///
    /// # Errors
    /// The kernel refuses a look-up.
    pub fn dump(&mut self, by_cpu: bool) -> Result<Dump, Failure> {
        let probe = self.probe.probe;
        // The ledger is read first: whatever it says was lost, the series are at least as new.
        let ledger = Ledger::new(&self.probe.ledger()?, self.probe.missed()?);
        let raw = self.probe.read(by_cpu)?;
        let mut dump = Dump::new(probe, self.loaded_ns, now_ns(), ledger);
        for part in &self.probe.parts {
            if let Err(reason) = &part.attached {
                dump.lacks(part.measures, reason);
            }
        }
        if let Some(known) = &self.probe.tasks {
            let tasks = known.read(tasks::KEPT)?;
            let root = Path::new("/");
            dump.tasks = tasks.iter().map(|task| Task::new(task, root)).collect();
        }
        let mut fields = self.probe.fields.clone();
        fields.retain(|field| *field != Field::Cpu);
        if by_cpu {
            fields.push(Field::Cpu);
        }
        self.names.look_again();
        dump.series = raw
            .iter()
            .map(|series| Series {
                id: series.id(),
                labels: self.labels(&fields, series),
                metrics: probe
                    .metrics
                    .iter()
                    .zip(&series.metrics)
                    .map(|(metric, counts)| Metric::new(metric.name, metric.unit, counts))
                    .collect(),
            })
            .collect();
        dump.in_flight = in_flight(probe, Path::new("/"));
        Ok(dump)
    }
}

/// The kernel's reasons, behind what its own lists say of the function.
fn explain(root: &Path, function: &str, failure: Failure) -> Failure {
    match functions::untraceable(root, function) {
        Some(why) => Failure::new(failure.code, format!("{why}: {}", failure.message))
            .hint("available_filter_functions, where tracefs is mounted, has those that can"),
        None => failure,
    }
}

/// The probe of that name.
///
/// # Errors
/// There is none; the nearest names are told.
pub fn find_probe(name: &str) -> Result<&'static Probe, Failure> {
    probe(name).ok_or_else(|| {
        let known: Vec<&str> = PROBES.iter().map(|probe| probe.name).collect();
        unknown("probe", name, &known)
    })
}

/// Reads `device,op`: fields by which the probe's series can be told apart.
///
/// # Errors
/// The probe has no such field; the nearest names are told.
pub fn parse_fields(probe: &Probe, names: &str) -> Result<Vec<Field>, Failure> {
    names
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| find_field(probe, name))
        .collect()
}

/// The probe's field of that name.
///
/// # Errors
/// As [`parse_fields`].
pub fn find_field(probe: &Probe, name: &str) -> Result<Field, Failure> {
    let of_probe = || probe.keys.iter().map(|key| key.field);
    of_probe()
        .find(|field| field.name() == name)
        .ok_or_else(|| {
            let known: Vec<&str> = of_probe().map(Field::name).collect();
            unknown(&format!("key of the probe {}", probe.name), name, &known)
        })
}

/// The fields by which a probe's series are told apart unless asked otherwise.
#[must_use]
pub fn default_fields(probe: &Probe) -> Vec<Field> {
    probe
        .keys
        .iter()
        .filter(|key| key.default)
        .map(|key| key.field)
        .collect()
}

/// In the order in which they are shown, each once.
#[must_use]
pub fn in_order(fields: &[Field]) -> Vec<Field> {
    FIELDS
        .into_iter()
        .filter(|field| fields.contains(field))
        .collect()
}

/// A name that is not among those known.
pub fn unknown(what: &str, name: &str, known: &[&str]) -> Failure {
    let nearest = known
        .iter()
        .map(|known| (strsim::jaro_winkler(name, known), *known))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let failure = Failure::new(USAGE, format!("unknown {what} {name:?}"));
    match nearest {
        Some((_, nearest)) => failure.hint(format!(
            "did you mean {nearest}? There are {}",
            known.join(", ")
        )),
        None => failure.hint(format!("there are {}", known.join(", "))),
    }
}
