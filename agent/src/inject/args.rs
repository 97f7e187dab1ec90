//! The flags of `iolag inject`.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;

use crate::rules::distribution::Shape;

/// Delays whoever satisfies each filter given, by any of its values.
#[derive(Args, Debug)]
pub struct Inject {
    /// Where: vfs.read, vfs.write, vfs.open, vfs.fsync, vfs.lookup, block.issue, or fn:NAME for a function of the kernel, by
    /// name or glob
    #[arg(value_name = "POINT[,POINT...]")]
    pub(super) points: String,
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
    /// Shape of the spread [default with --jitter: normal]
    #[arg(long, value_name = "SHAPE", help_heading = "Delay")]
    pub(super) dist: Option<Shape>,
    /// Delays as in a profile: a file that `iolag record` wrote, or one that is built in
    #[arg(long, value_name = "FILE", help_heading = "Delay")]
    pub(super) like: Option<String>,
    /// Longest delay of a hit, by all rules that match it together [default: 1s]
    #[arg(
        long,
        value_name = "TIME",
        help_heading = "Delay",
        allow_hyphen_values = true
    )]
    pub(super) cap: Option<String>,
    /// What draws are computed from: the same seed, the same draws
    #[arg(
        long,
        value_name = "N",
        help_heading = "Delay",
        allow_negative_numbers = true
    )]
    pub(super) seed: Option<u64>,
    /// Share of the matching hits: 10%
    #[arg(
        long,
        value_name = "PERCENT",
        help_heading = "How often",
        allow_hyphen_values = true
    )]
    pub(super) chance: Option<String>,
    /// Each Nth matching hit
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        help_heading = "How often",
        allow_negative_numbers = true
    )]
    pub(super) every: u64,
    /// A process with its threads; may be given again, as may all filters
    #[arg(
        long,
        value_name = "P",
        help_heading = "Whom",
        allow_negative_numbers = true
    )]
    pub(super) pid: Vec<u32>,
    /// Also what those processes fork from now on
    #[arg(long, help_heading = "Whom")]
    pub(super) children: bool,
    /// Name of a command, as in /proc/PID/comm
    #[arg(long, value_name = "NAME", help_heading = "Whom")]
    pub(super) comm: Vec<String>,
    /// A cgroup with its sub-groups: its directory, or its path within cgroup v2
    #[arg(long, value_name = "PATH", help_heading = "Whom")]
    pub(super) cgroup: Vec<PathBuf>,
    /// A user, by name or number: the real one of the process
    #[arg(
        long,
        value_name = "U",
        help_heading = "Whom",
        allow_hyphen_values = true
    )]
    pub(super) uid: Vec<String>,
    /// A block device, or files on it: vda, /dev/vda1, 8:0
    #[arg(long, value_name = "DEVICE", help_heading = "What")]
    pub(super) device: Vec<String>,
    /// Operations: read,write,flush,discard,other
    #[arg(long, value_name = "OPS", value_delimiter = ',', help_heading = "What")]
    pub(super) op: Vec<String>,
    /// Bytes: 4k..64k, ..64k, 4k.., 4096
    #[arg(
        long,
        value_name = "SIZES",
        help_heading = "What",
        allow_hyphen_values = true
    )]
    pub(super) size: Option<String>,
    /// Files below a directory
    #[arg(long, value_name = "DIR", help_heading = "What")]
    pub(super) under: Vec<PathBuf>,
    /// End after so long: 30s, 10m
    #[arg(
        long = "for",
        value_name = "TIME",
        help_heading = "Until when",
        allow_hyphen_values = true
    )]
    pub(super) duration: Option<String>,
    /// Grow from nothing for so long: 10s
    #[arg(
        long,
        value_name = "TIME",
        help_heading = "Until when",
        allow_hyphen_values = true
    )]
    pub(super) ramp: Option<String>,
    /// End after so many delayed hits
    #[arg(
        long,
        value_name = "N",
        help_heading = "Until when",
        allow_negative_numbers = true
    )]
    pub(super) max_hits: Option<u64>,
    /// Largest share of each CPU's time that the rule may burn: 30%
    #[arg(
        long,
        value_name = "PERCENT",
        help_heading = "Until when",
        allow_hyphen_values = true
    )]
    pub(super) cpu_budget: Option<String>,
    /// End all rules when this is so, looked at each second: 'memory.oom > 0', 'psi.io.some > 50%', 'softirq > 30%',
    /// 'sched.wait.p99 > 20ms' (with the probe sched loaded)
    #[arg(long, value_name = "COND", help_heading = "Until when")]
    pub(super) abort_if: Vec<String>,
    /// The rule's name [default: one that the agent chooses and this prints]
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// Start this, delay it and what it forks only, and end the rule and exit as it does
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}
