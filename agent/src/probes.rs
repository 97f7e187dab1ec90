//! The measuring probes of a running agent.

mod loading;

use std::{os::fd::OwnedFd, path::Path, rc::Rc};

use agent_common::probes::PROBES;
use tokio::sync::{Notify, broadcast};

use crate::{
    control::{client::call_if_any, protocol::Command},
    events::log::EventLog,
    failure::{FAILED, Failure},
    host::Facts,
    measure::{Measurement, Target},
    report::{dump::Dump, events::Event, probes::Row},
};

pub use loading::{Loading, Wanted};

/// What a request to load a probe comes to.
pub enum Asked {
    /// It is loaded as it was asked for.
    Loaded(Row),
    ToLoad(Loading),
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

    /// Reads a request to load a probe; one that is loaded stays as it is unless other fields are asked for.
    ///
    /// # Errors
    /// An unknown probe, field or backend; a probe that is loaded otherwise.
    pub fn ask(&self, name: &str, by: &[String], backend: &str) -> Result<Asked, Failure> {
        let loading = Loading::parse(name, by, backend, &self.facts)?;
        let Some(measurement) = self.find(name) else {
            return Ok(Asked::ToLoad(loading));
        };
        if loading.is_served_by(measurement) {
            return Ok(Asked::Loaded(loaded_row(measurement)));
        }
        Err(Failure::new(
            FAILED,
            format!("failed to load the probe {name}: it is loaded with other options"),
        )
        .hint(format!(
            "iolag probe unload {name} forgets what it recorded"
        )))
    }

    /// Takes a probe that was loaded.
    pub fn add(&mut self, measurement: Measurement) -> Row {
        let row = loaded_row(&measurement);
        self.loaded.push(measurement);
        self.changed.notify_one();
        row
    }

    /// Loads what `run --probes` asks for.
    ///
    /// # Errors
    /// As [`Wanted::start`].
    pub fn load_wanted(&mut self, wanted: Wanted) -> Result<(), Failure> {
        self.loaded.extend(wanted.start()?);
        self.changed.notify_one();
        Ok(())
    }

    /// Takes a probe out; it is unloaded when what is returned is dropped.
    ///
    /// # Errors
    /// It is unknown, or not loaded.
    pub fn take(&mut self, name: &str) -> Result<Measurement, Failure> {
        Target::parse(name)?;
        let of_name = |measurement: &Measurement| measurement.target().name() == name;
        let Some(place) = self.loaded.iter().position(of_name) else {
            return Err(
                Failure::new(FAILED, format!("the probe {name} is not loaded"))
                    .hint("iolag probe list shows which are"),
            );
        };
        let taken = self.loaded.remove(place);
        if self.events_descriptor().is_none() {
            // Followers are told by the end of it.
            self.events = EventLog::default();
        }
        self.changed.notify_one();
        Ok(taken)
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
    /// As there.
    pub fn follow_events(&mut self) -> Result<(Vec<Event>, broadcast::Receiver<Event>), Failure> {
        let kept = self.kept_events()?;
        Ok((kept, self.events.follow()))
    }

    /// What a loaded probe recorded.
    ///
    /// # Errors
    /// It is unknown, or not loaded; the kernel refuses a look-up.
    pub fn dump(&mut self, name: &str, by_cpu: bool) -> Result<Dump, Failure> {
        Target::parse(name)?;
        let found = self.loaded.iter_mut();
        let mut found = found.filter(|measurement| measurement.target().name() == name);
        let measurement = found.next().ok_or_else(|| {
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
