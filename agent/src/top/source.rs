//! Where `top` has its figures from.

use std::path::{Path, PathBuf};

use agent_common::probes::PROBES;

use super::state::Sample;
use crate::{
    control::{
        client::{call, call_if_any},
        protocol::Command,
    },
    failure::Failure,
    host::Facts,
    kernel::HostTypes,
    measure::{Measurement, Target, default_fields},
    plan,
    report::{Status, dump::Dump, probes::Row},
};

pub enum Source {
    Agent(PathBuf),
    /// Probes that were loaded for this command, and why others were not.
    Own(Vec<Measurement>, Vec<String>),
}

impl Source {
    /// The agent at `socket`; if there is none, the probes that this kernel can run are loaded.
    ///
    /// # Errors
    /// An agent that does not answer; no agent, and no probe that can be loaded.
    pub fn open(socket: &Path) -> Result<Self, Failure> {
        if call_if_any::<Status>(socket, &Command::Status)?.is_some() {
            return Ok(Self::Agent(socket.into()));
        }
        let facts = Facts::read(Path::new("/"));
        plan::may_load(&facts, "iolag top")?;
        let types = HostTypes::read(&facts)?;
        let mut loaded = Vec::new();
        let mut refused = Vec::new();
        for probe in PROBES.iter().filter(|probe| !probe.takes_function()) {
            let target = Target::parse(probe.name)?;
            match Measurement::start(&target, &default_fields(probe), &types, None) {
                Ok(measurement) => loaded.push(measurement),
                Err(failure) => refused.push(failure),
            }
        }
        match refused.pop() {
            Some(failure) if loaded.is_empty() => Err(failure),
            last => {
                let refused = refused.iter().chain(&last).map(|f| f.message.clone());
                Ok(Self::Own(loaded, refused.collect()))
            }
        }
    }

    /// What was recorded until now. A failure is part of the sample: it is shown, and the next may succeed.
    pub fn sample(&mut self) -> Sample {
        match self {
            Self::Agent(socket) => from_agent(socket).unwrap_or_else(|failure| Sample {
                notes: vec![failure.to_string()],
                failed: true,
                ..Sample::default()
            }),
            Self::Own(loaded, refused) => {
                let mut sample = Sample {
                    notes: refused.clone(),
                    ..Sample::default()
                };
                for measurement in loaded {
                    match measurement.dump(false) {
                        Ok(dump) => sample.dumps.push(dump),
                        Err(failure) => sample.notes.push(failure.to_string()),
                    }
                }
                sample
            }
        }
    }
}

fn from_agent(socket: &Path) -> Result<Sample, Failure> {
    let status: Status = call(socket, &Command::Status)?;
    let mut sample = Sample::default();
    for row in call::<Vec<Row>>(socket, &Command::ProbeList)? {
        if !row.loaded {
            continue;
        }
        let command = Command::Dump {
            probe: row.name,
            by_cpu: false,
        };
        // Another client may unload it between the two.
        match call::<Dump>(socket, &command) {
            Ok(dump) => sample.dumps.push(dump),
            Err(failure) => sample.notes.push(failure.to_string()),
        }
    }
    if sample.dumps.is_empty() {
        let hint = "the agent has no measuring probe loaded: iolag probe load block";
        sample.notes.push(hint.into());
    }
    sample.status = Some(status);
    Ok(sample)
}
