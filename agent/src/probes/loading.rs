//! Probes that are not loaded yet. What loads them needs nothing of a running agent, so that a thread can do it.

use std::{panic::resume_unwind, thread};

use agent_common::probes::{Field, PROBES};

use crate::{
    failure::{FAILED, Failure},
    host::Facts,
    kernel::{HostTypes, ReadingTypes},
    measure::{Measurement, Target, default_fields, find_field, in_order},
    plan::parse_choice,
};

/// A probe that an agent is asked to load.
pub struct Loading {
    target: Target,
    fields: Vec<Field>,
    backend: Option<&'static str>,
    facts: Facts,
}

impl Loading {
    /// Reads what `probe load` was given; without `by` the probe's own choice of fields.
    ///
    /// # Errors
    /// An unknown probe, field or backend.
    pub fn parse(name: &str, by: &[String], backend: &str, facts: &Facts) -> Result<Self, Failure> {
        let target = Target::parse(name)?;
        let fields = match by {
            [] => default_fields(target.probe),
            names => names
                .iter()
                .map(|name| find_field(target.probe, name))
                .collect::<Result<_, _>>()?,
        };
        Ok(Self {
            target,
            fields: in_order(&fields),
            backend: parse_choice(backend)?.map(|backend| backend.name()),
            facts: facts.clone(),
        })
    }

    /// Whether this probe, which is loaded, is what was asked for.
    #[must_use]
    pub fn is_served_by(&self, measurement: &Measurement) -> bool {
        measurement.probe().fields == self.fields && self.backend.is_none()
    }

    /// Loads and attaches it; takes from 100 ms to seconds.
    ///
    /// # Errors
    /// This kernel cannot run the probe; nothing stays attached.
    pub fn run(&self) -> Result<Measurement, Failure> {
        let types = HostTypes::read(&self.facts)?;
        let measurement = Measurement::start(&self.target, &self.fields, &types, self.backend);
        types.free();
        measurement
    }
}

/// Probes that are to be loaded, while the kernel's types are being read for them.
pub struct Wanted {
    /// With whether it was asked for by name, and not by `all`.
    targets: Vec<(Target, bool)>,
    /// None if there are no targets, or before they are wanted.
    types: Option<ReadingTypes>,
}

impl Wanted {
    /// Reads the names that `run --probes` was given; `all` stands for those that this kernel can run.
    ///
    /// # Errors
    /// An unknown probe.
    pub fn parse(names: &[String]) -> Result<Self, Failure> {
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
        let types = None;
        Ok(Self { targets, types })
    }

    /// Has a thread begin to read what they need to know of the kernel.
    #[must_use]
    pub fn prepare(mut self, facts: &Facts) -> Self {
        self.types = (!self.targets.is_empty()).then(|| HostTypes::begin(facts));
        self
    }

    /// Loads them. Those that were not asked for by name and that this kernel cannot run are left out.
    ///
    /// # Errors
    /// As [`Loading::run`], for a probe that was asked for by name.
    pub fn start(self) -> Result<Vec<Measurement>, Failure> {
        let Some(types) = self.types else {
            return Ok(Vec::new());
        };
        let started = types.wait().map(|types| {
            let started = start_all(&self.targets, &types);
            types.free();
            started
        });
        let started = match started {
            Ok(started) => started,
            Err(failure) if self.targets.iter().any(|(_, by_name)| *by_name) => {
                return Err(failure);
            }
            Err(failure) => {
                log::warn!("{failure}");
                return Ok(Vec::new());
            }
        };
        let mut loaded = Vec::new();
        for ((_, by_name), measurement) in self.targets.iter().zip(started) {
            match measurement {
                Ok(measurement) => loaded.push(measurement),
                Err(failure) if *by_name => return Err(failure),
                Err(failure) => log::warn!("{failure}"),
            }
        }
        Ok(loaded)
    }
}

/// Starts them side by side: most of the time goes by in the kernel's verifier, once for each.
fn start_all(targets: &[(Target, bool)], types: &HostTypes) -> Vec<Result<Measurement, Failure>> {
    thread::scope(|scope| {
        let starting: Vec<_> = targets
            .iter()
            .map(|(target, _)| {
                let fields = in_order(&default_fields(target.probe));
                let name = target.probe.name;
                thread::Builder::new()
                    .spawn_scoped(scope, move || {
                        Measurement::start(target, &fields, types, None)
                    })
                    .map_err(|error| {
                        let message =
                            format!("failed to load the probe {name}: no thread: {error}");
                        Failure::new(FAILED, message)
                    })
            })
            .collect();
        starting
            .into_iter()
            .map(|thread| thread?.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    })
}
