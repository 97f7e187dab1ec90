//! The flags of `iolag inject`, and the rule that they make.

use std::{
    ffi::OsString,
    fs,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io,
    path::{Path, PathBuf},
};

use agent_common::{
    pod::MAX_DELAY_NS,
    rules::{ALWAYS, WHOLE},
};
use clap::Args;
use nix::unistd::User;

use super::delay::delay;
use crate::{
    failure::{Failure, USAGE},
    rules::{
        check,
        points::meant,
        spec::{Filters, Spec},
    },
    units::{parse_percent, parse_sizes, parse_span, parse_wait},
};

/// Delays whoever satisfies each filter given, by any of its values.
#[derive(Args, Debug)]
pub struct Inject {
    /// Where: points of `iolag status`, or fn:NAME for a function of the kernel, by name or glob
    #[arg(value_name = "POINT[,POINT...]")]
    points: String,
    /// How long: 100us, 5ms; the mean of a distribution
    #[arg(
        long,
        value_name = "TIME",
        help_heading = "Delay",
        allow_hyphen_values = true
    )]
    pub(super) delay: Option<String>,
    /// Spread around the delay: 1ms
    #[arg(
        long,
        value_name = "TIME",
        help_heading = "Delay",
        allow_hyphen_values = true
    )]
    pub(super) jitter: Option<String>,
    /// Shape of the spread: normal, pareto, lognormal or uniform
    #[arg(long, value_name = "SHAPE", help_heading = "Delay")]
    pub(super) dist: Option<String>,
    /// Delays as they were recorded in a profile
    #[arg(long, value_name = "FILE", help_heading = "Delay")]
    pub(super) like: Option<PathBuf>,
    /// Longest delay of a hit, by all rules that match it together [default: 1s]
    #[arg(
        long,
        value_name = "TIME",
        help_heading = "Delay",
        allow_hyphen_values = true
    )]
    cap: Option<String>,
    /// What draws are computed from: the same seed, the same draws
    #[arg(
        long,
        value_name = "N",
        help_heading = "Delay",
        allow_negative_numbers = true
    )]
    seed: Option<u64>,
    /// Share of the matching hits: 10%
    #[arg(
        long,
        value_name = "PERCENT",
        help_heading = "How often",
        allow_hyphen_values = true
    )]
    chance: Option<String>,
    /// Each Nth matching hit
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        help_heading = "How often",
        allow_negative_numbers = true
    )]
    every: u64,
    /// A process with its threads; may be given again, as may all filters
    #[arg(
        long,
        value_name = "P",
        help_heading = "Whom",
        allow_negative_numbers = true
    )]
    pid: Vec<u32>,
    /// Also what those processes fork from now on
    #[arg(long, help_heading = "Whom")]
    children: bool,
    /// Name of a command, as in /proc/PID/comm
    #[arg(long, value_name = "NAME", help_heading = "Whom")]
    comm: Vec<String>,
    /// A cgroup with its sub-groups: its directory, or its path within cgroup v2
    #[arg(long, value_name = "PATH", help_heading = "Whom")]
    cgroup: Vec<PathBuf>,
    /// A user, by name or number
    #[arg(
        long,
        value_name = "U",
        help_heading = "Whom",
        allow_hyphen_values = true
    )]
    uid: Vec<String>,
    /// A block device, or files on it: vda, /dev/vda1, 8:0
    #[arg(long, value_name = "DEVICE", help_heading = "What")]
    device: Vec<String>,
    /// Operations: read,write,flush,discard,other
    #[arg(long, value_name = "OPS", value_delimiter = ',', help_heading = "What")]
    op: Vec<String>,
    /// Bytes: 4k..64k, ..64k, 4k.., 4096
    #[arg(
        long,
        value_name = "SIZES",
        help_heading = "What",
        allow_hyphen_values = true
    )]
    size: Option<String>,
    /// Files below a directory
    #[arg(long, value_name = "DIR", help_heading = "What")]
    under: Vec<PathBuf>,
    /// End after so long: 30s, 10m
    #[arg(
        long = "for",
        value_name = "TIME",
        help_heading = "Until when",
        allow_hyphen_values = true
    )]
    duration: Option<String>,
    /// Grow from nothing for so long: 10s
    #[arg(
        long,
        value_name = "TIME",
        help_heading = "Until when",
        allow_hyphen_values = true
    )]
    ramp: Option<String>,
    /// End after so many delayed hits
    #[arg(
        long,
        value_name = "N",
        help_heading = "Until when",
        allow_negative_numbers = true
    )]
    max_hits: Option<u64>,
    /// Largest share of each CPU's time that the rule may burn: 30%
    #[arg(
        long,
        value_name = "PERCENT",
        help_heading = "Until when",
        allow_hyphen_values = true
    )]
    cpu_budget: Option<String>,
    /// End all rules when this is so: 'memory.oom > 0', 'psi.io.some > 50%', 'softirq > 30%',
    /// 'sched.wait.p99 > 20ms'
    #[arg(long, value_name = "COND", help_heading = "Until when")]
    abort_if: Vec<String>,
    /// The rule's name [default: one that the agent chooses and this prints]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Start this, delay it and what it forks only, and end the rule and exit as it does
    #[arg(last = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

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
        let share = |flag: &str, text: &Option<String>, whole| {
            text.as_deref()
                .map_or(Ok(whole), |text| parse_percent(flag, text, whole))
        };
        let cap = self.cap.as_deref();
        let filters = self.filters()?;
        let points = self.points.split(',').map(|point| point.trim().into());
        let spec = Spec {
            name: self.name.clone().unwrap_or_default(),
            points: meant(points.collect(), &filters),
            delay: delay(self)?,
            filters,
            chance: share("--chance", &self.chance, ALWAYS)?,
            every: self.every,
            for_ns: span("--for", &self.duration)?,
            ramp_ns: span("--ramp", &self.ramp)?,
            max_hits: self.max_hits,
            cpu_budget: share("--cpu-budget", &self.cpu_budget, WHOLE)?,
            cap_ns: cap.map_or(Ok(MAX_DELAY_NS), |text| parse_wait("--cap", text))?,
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

fn uid(user: &str) -> Result<u32, Failure> {
    if let Ok(number) = user.parse() {
        return Ok(number);
    }
    match User::from_name(user) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(refused(
            format!("--uid {user:?}: there is no such user"),
            "write a name that getent passwd shows, or a number",
        )),
        Err(error) => Err(refused(
            format!("--uid {user:?} cannot be looked up: {error}"),
            "write the user's number",
        )),
    }
}

#[cfg(test)]
mod tests;
