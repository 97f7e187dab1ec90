//! The rule that the flags of `iolag inject` make.

use std::{
    fs,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io,
    path::{Path, PathBuf},
};

use agent_common::{
    pod::MAX_DELAY_NS,
    rules::{ALWAYS, WHOLE},
};

use super::{args::Inject, delay::delay, user::uid};
use crate::{
    failure::{Failure, USAGE},
    rules::{
        check,
        points::meant,
        spec::{Filters, Spec},
    },
    units::{parse_percent, parse_share, parse_sizes, parse_span, parse_wait},
};

fn refused(what: impl std::fmt::Display, hint: &str) -> Failure {
    Failure::new(USAGE, what).hint(hint)
}

impl Inject {
    /// The rule. Of a COMMAND that is not started yet it lacks the process.
    ///
    /// # Errors
    /// What is nonsense, contradicts itself or could never match: with its flag and the reason.
    pub fn spec(&self) -> Result<Spec, Failure> {
        self.command_alone()?;
        if let Some(name) = &self.name {
            check::name(name)?;
        }
        let span = |flag: &str, text: &Option<String>| {
            text.as_deref()
                .map(|text| parse_span(flag, text))
                .transpose()
        };
        let chance = self.chance.as_deref();
        let budget = self.cpu_budget.as_deref();
        let cap = self.cap.as_deref();
        let cap_ns = cap.map_or(Ok(MAX_DELAY_NS), |text| parse_wait("--cap", text))?;
        let filters = self.filters()?;
        let points = self.points.split(',').map(|point| point.trim().into());
        let spec = Spec {
            name: self.name.clone().unwrap_or_default(),
            points: meant(points.collect(), &filters),
            delay: delay(self, cap_ns)?,
            filters,
            chance: chance.map_or(Ok(ALWAYS), |text| parse_share("--chance", text, ALWAYS))?,
            every: self.every,
            for_ns: span("--for", &self.duration)?,
            ramp_ns: span("--ramp", &self.ramp)?,
            max_hits: self.max_hits,
            cpu_budget: budget
                .map_or(Ok(WHOLE), |text| parse_percent("--cpu-budget", text, WHOLE))?,
            cap_ns,
            seed: self.seed.unwrap_or_else(any_seed),
            abort_if: self
                .abort_if
                .iter()
                .map(|text| text.trim().into())
                .collect(),
        };
        check::check(&spec)?;
        Ok(spec)
    }

    fn command_alone(&self) -> Result<(), Failure> {
        if self.command.is_empty() {
            return Ok(());
        }
        if !self.pid.is_empty() {
            return Err(refused(
                "--pid contradicts -- COMMAND, which is the only process that its rule is for",
                "leave one of them away",
            ));
        }
        if self.children {
            return Err(refused(
                "--children is for --pid: a COMMAND's children are always included",
                "leave it away",
            ));
        }
        Ok(())
    }

    fn filters(&self) -> Result<Filters, Failure> {
        let size = self.size.as_deref();
        let ops = self.op.iter().map(|op| op.trim().to_owned());
        Ok(Filters {
            pids: self.pid.clone(),
            children: self.children,
            comms: self.comm.clone(),
            cgroups: self.cgroup.iter().map(|path| cgroup(path)).collect(),
            uids: each(&self.uid, |user| uid(user))?,
            devices: self.device.clone(),
            ops: ops.collect(),
            size: size.map(|text| parse_sizes("--size", text)).transpose()?,
            under: each(&self.under, |path| under(path))?,
        })
    }
}

fn each<T, U>(values: &[T], read: impl Fn(&T) -> Result<U, Failure>) -> Result<Vec<U>, Failure> {
    values.iter().map(read).collect()
}

/// Short enough to be typed again.
fn any_seed() -> u64 {
    // The standard library's keys of hashes are random for each process.
    RandomState::new().build_hasher().finish() >> 32
}

/// The agent has another working directory, so paths go to it from `/` on.
fn under(path: &Path) -> Result<PathBuf, Failure> {
    match fs::canonicalize(path) {
        Ok(path) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(refused(
            format!("--under {}: there is no such directory", path.display()),
            "has it gone? Name one that is there",
        )),
        Err(error) => Err(refused(
            format!("--under {}: {error}", path.display()),
            "name a directory that can be reached",
        )),
    }
}

/// A directory, or else a path within cgroup v2.
fn cgroup(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| Path::new("/").join(path))
}

#[cfg(test)]
mod tests;
