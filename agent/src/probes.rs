//! The measuring probes of a running agent.

use std::{os::fd::OwnedFd, path::Path, rc::Rc};

use agent_common::probes::PROBES;
use tokio::sync::{Notify, broadcast};

use crate::{
    control::{client::call, protocol::Command},
    events::log::EventLog,
    failure::{FAILED, Failure, HOST},
    host::Facts,
    kernel::HostTypes,
    measure::{Measurement, Target, default_fields, find_field, in_order},
    plan::parse_choice,
    report::{dump::Dump, events::Event, probes::Row},
};

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
        let row = self.load_with(name, by, backend, &mut None);
        give_back_memory();
        row
    }

    /// As [`Self::load`]; the kernel's types are read once for all probes that are loaded together.
    fn load_with(
        &mut self,
        name: &str,
        by: &[String],
        backend: &str,
        types: &mut Option<HostTypes>,
    ) -> Result<Row, Failure> {
        let target = Target::parse(name)?;
        let probe = target.probe;
        let fields = match by {
            [] => default_fields(probe),
            names => names
                .iter()
                .map(|name| find_field(probe, name))
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
        let types = match types {
            Some(types) => types,
            none => none.insert(HostTypes::read(&self.facts)?),
        };
        let measurement = Measurement::start(&target, &fields, types, backend)?;
        let row = loaded_row(&measurement);
        self.loaded.push(measurement);
        self.changed.notify_one();
        Ok(row)
    }

    /// Loads the probes that `run --probes` names; `all` stands for those that this kernel can run.
    ///
    /// # Errors
    /// As [`Self::load`], for a probe that was asked for by name.
    pub fn load_named(&mut self, names: &[String]) -> Result<(), Failure> {
        let mut types = None;
        for name in names {
            if name != "all" {
                self.load_with(name, &[], "auto", &mut types)?;
                continue;
            }
            for probe in PROBES.iter().filter(|probe| !probe.takes_function()) {
                if let Err(failure) = self.load_with(probe.name, &[], "auto", &mut types) {
                    log::warn!("{failure}");
                }
            }
        }
        drop(types);
        give_back_memory();
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
/// The agent does not answer.
pub fn list(socket: &Path) -> Result<Vec<Row>, Failure> {
    match call(socket, &Command::ProbeList) {
        Err(failure) if failure.code == HOST => Ok(Probes::new(Facts::read(Path::new("/"))).rows()),
        answer => answer,
    }
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

/// The kernel's types took tens of MB, which the allocator would keep for an agent that needs them no more.
fn give_back_memory() {
    // SAFETY: no preconditions.
    unsafe { libc::malloc_trim(0) };
}
