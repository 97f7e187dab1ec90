//! The measuring probes of a running agent.

use std::{os::fd::OwnedFd, panic::resume_unwind, path::Path, rc::Rc, thread};

use agent_common::probes::PROBES;
use tokio::sync::{Notify, broadcast};

use crate::{
    control::{client::call_if_any, protocol::Command},
    events::log::EventLog,
    failure::{FAILED, Failure},
    host::Facts,
    kernel::{HostTypes, ReadingTypes},
    measure::{Measurement, Target, default_fields, find_field, in_order},
    plan::parse_choice,
    report::{dump::Dump, events::Event, probes::Row},
};

/// Probes that are to be loaded, while the kernel's types are being read for them.
pub struct Wanted {
    /// With whether it was asked for by name, and not by `all`.
    targets: Vec<(Target, bool)>,
    /// None if there are no targets.
    types: Option<ReadingTypes>,
}

impl Wanted {
    /// Reads the names that `run --probes` was given; `all` stands for those that this kernel can run.
    ///
    /// # Errors
    /// An unknown probe.
    pub fn parse(names: &[String], facts: &Facts) -> Result<Self, Failure> {
        let mut targets: Vec<(Target, bool)> = Vec::new();
        let mut add = |target: Target, by_name| match targets
            .iter_mut()
            .find(|(known, _)| known.name() == target.name())
        {
            Some((_, known_by_name)) => *known_by_name |= by_name,
            None => targets.push((target, by_name)),
        };
        for name in names {
            if name != "all" {
                add(Target::parse(name)?, true);
                continue;
            }
            for probe in PROBES.iter().filter(|probe| !probe.takes_function()) {
                add(Target::parse(probe.name)?, false);
            }
        }
        let types = (!targets.is_empty()).then(|| HostTypes::begin(facts));
        Ok(Self { targets, types })
    }
}

/// Starts them side by side: most of the time goes by in the kernel's verifier, once for each.
fn start_all(targets: &[(Target, bool)], types: &HostTypes) -> Vec<Result<Measurement, Failure>> {
    thread::scope(|scope| {
        let starting: Vec<_> = targets
            .iter()
            .map(|(target, _)| {
                let fields = in_order(&default_fields(target.probe));
                scope.spawn(move || Measurement::start(target, &fields, types, None))
            })
            .collect();
        starting
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    })
}

/// Dropping it unloads all.
pub struct Probes {
    facts: Facts,
    loaded: Vec<Measurement>,
    events: EventLog,
    changed: Rc<Notify>,
}

impl Probes {
    #[must_use]
    pub fn new(facts: Facts) -> Self {
        Self {
            facts,
            loaded: Vec::new(),
            events: EventLog::default(),
            changed: Rc::new(Notify::new()),
        }
    }

    fn find(&self, name: &str) -> Option<&Measurement> {
        self.loaded
            .iter()
            .find(|measurement| measurement.target().name() == name)
    }

    /// How many loaded probes have a program at `symbol`.
    #[must_use]
    pub fn attached_at(&self, symbol: &str) -> usize {
        self.loaded
            .iter()
            .filter(|measurement| measurement.probe().attached_at(symbol))
            .count()
    }

    /// A row for each probe of the catalogue, and for each function that is measured.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let functions = self
            .loaded
            .iter()
            .filter(|measurement| measurement.target().function.is_some());
        PROBES
            .iter()
            .map(|probe| match self.find(probe.name) {
                Some(measurement) => loaded_row(measurement),
                None => Row {
                    name: probe.name.into(),
                    help: probe.help.into(),
                    loaded: false,
                    by: probe
                        .keys
                        .iter()
                        .map(|key| key.field.name().into())
                        .collect(),
                    backends: Vec::new(),
                },
            })
            .chain(functions.map(loaded_row))
            .collect()
    }

    /// Loads a probe; one that is loaded stays as it is unless other fields are asked for.
    ///
    /// # Errors
    /// An unknown probe, field or backend; a probe that is loaded otherwise; a kernel that cannot.
    pub fn load(&mut self, name: &str, by: &[String], backend: &str) -> Result<Row, Failure> {
        let target = Target::parse(name)?;
        let fields = match by {
            [] => default_fields(target.probe),
            names => names
                .iter()
                .map(|name| find_field(target.probe, name))
                .collect::<Result<_, _>>()?,
        };
        let fields = in_order(&fields);
        let backend = parse_choice(backend)?.map(|backend| backend.name());
        if let Some(measurement) = self.find(name) {
            if measurement.probe().fields == fields && backend.is_none() {
                return Ok(loaded_row(measurement));
            }
            return Err(Failure::new(
                FAILED,
                format!("failed to load the probe {name}: it is loaded with other options"),
            )
            .hint(format!(
                "iolag probe unload {name} forgets what it recorded"
            )));
        }
        let types = HostTypes::read(&self.facts)?;
        let measurement = Measurement::start(&target, &fields, &types, backend);
        types.free();
        let measurement = measurement?;
        let row = loaded_row(&measurement);
        self.loaded.push(measurement);
        self.changed.notify_one();
        Ok(row)
    }

    /// Loads what `run --probes` asks for.
    ///
    /// # Errors
    /// As [`Self::load`], for a probe that was asked for by name.
    pub fn load_wanted(&mut self, wanted: Wanted) -> Result<(), Failure> {
        let Some(types) = wanted.types else {
            return Ok(());
        };
        let started = types.wait().map(|types| {
            let started = start_all(&wanted.targets, &types);
            types.free();
            started
        });
        let started = match started {
            Ok(started) => started,
            Err(failure) if wanted.targets.iter().any(|(_, by_name)| *by_name) => {
                return Err(failure);
            }
            Err(failure) => {
                log::warn!("{failure}");
                return Ok(());
            }
        };
        for ((_, by_name), measurement) in wanted.targets.iter().zip(started) {
            match measurement {
                Ok(measurement) => self.loaded.push(measurement),
                Err(failure) if *by_name => return Err(failure),
                Err(failure) => log::warn!("{failure}"),
            }
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Unloads a probe.
    ///
    /// # Errors
    /// It is unknown, or not loaded.
    pub fn unload(&mut self, name: &str) -> Result<(), Failure> {
        Target::parse(name)?;
        let before = self.loaded.len();
        self.loaded
            .retain(|measurement| measurement.target().name() != name);
        if self.loaded.len() == before {
            return Err(
                Failure::new(FAILED, format!("the probe {name} is not loaded"))
                    .hint("iolag probe list shows which are"),
            );
        }
        if self.events_descriptor().is_none() {
            // Followers are told by the end of it.
            self.events = EventLog::default();
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Wakes who waits for events when a probe was loaded or unloaded.
    #[must_use]
    pub fn changed(&self) -> Rc<Notify> {
        self.changed.clone()
    }

    /// A descriptor that becomes readable when there are events; none if no probe that sends any is loaded.
    #[must_use]
    pub fn events_descriptor(&self) -> Option<Result<OwnedFd, Failure>> {
        self.loaded.iter().find_map(Measurement::events_descriptor)
    }

    /// Keeps the events that came, and passes them on to who follows.
    ///
    /// # Errors
    /// The kernel refuses a look-up.
    pub fn drain_events(&mut self) -> Result<(), Failure> {
        for measurement in &mut self.loaded {
            for event in measurement.drain_events()? {
                self.events.push(event);
            }
        }
        Ok(())
    }

    /// The events that are kept, oldest first.
    ///
    /// # Errors
    /// No probe that sends events is loaded; the kernel refuses a look-up.
    pub fn kept_events(&mut self) -> Result<Vec<Event>, Failure> {
        if self.events_descriptor().is_none() {
            return Err(Failure::new(
                FAILED,
                "failed to list events: the probe memory is not loaded",
            )
            .hint("iolag probe load memory"));
        }
        self.drain_events()?;
        Ok(self.events.kept())
    }

    /// As [`Self::kept_events`], and all that will come.
    ///
    /// # Errors
    /// As there, or there are too many followers.
    pub fn follow_events(&mut self) -> Result<(Vec<Event>, broadcast::Receiver<Event>), Failure> {
        let kept = self.kept_events()?;
        Ok((kept, self.events.follow()?))
    }

    /// What a loaded probe recorded.
    ///
    /// # Errors
    /// It is unknown, or not loaded; the kernel refuses a look-up.
    pub fn dump(&self, name: &str, by_cpu: bool) -> Result<Dump, Failure> {
        Target::parse(name)?;
        let measurement = self.find(name).ok_or_else(|| {
            Failure::new(FAILED, format!("the probe {name} is not loaded"))
                .hint(format!("iolag probe load {name}"))
        })?;
        measurement.dump(by_cpu)
    }
}

/// The rows of the agent at `socket`, or of the catalogue if there is none.
///
/// # Errors
/// The agent does not answer, or may not be asked.
pub fn list(socket: &Path) -> Result<Vec<Row>, Failure> {
    let rows = call_if_any(socket, &Command::ProbeList)?;
    Ok(rows.unwrap_or_else(|| Probes::new(Facts::read(Path::new("/"))).rows()))
}

fn loaded_row(measurement: &Measurement) -> Row {
    let loaded = measurement.probe();
    Row {
        name: measurement.target().name(),
        help: loaded.probe.help.into(),
        loaded: true,
        by: loaded
            .fields
            .iter()
            .map(|field| field.name().into())
            .collect(),
        backends: loaded
            .parts
            .iter()
            .map(|part| match &part.attached {
                Ok(attached) => format!("{}: {}", part.measures, attached.backend),
                Err(reason) => format!("no {}: {reason}", part.measures),
            })
            .collect(),
    }
}
