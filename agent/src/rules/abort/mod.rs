//! `--abort-if`: conditions of the host on which all rules end.

use std::path::Path;

use crate::{
    failure::{Failure, USAGE},
    measure::unknown,
    units::{format_ns, format_share, parse_share, parse_wait},
};

mod host;

use host::CpuTime;

/// How a condition is written.
const EXAMPLES: &str =
    "'memory.oom > 0', 'psi.io.some > 50%', 'softirq > 30%', 'sched.wait.p99 > 20ms'";

/// What the reason begins with for which all rules end.
pub const ABORTED: &str = "--abort-if";

/// What a share is kept as: 100%.
const WHOLE: u64 = 1_000_000;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// OOM kills since the rule came (count).
    Oom,
    /// Share of the last 10 s in which tasks were stalled, of `WHOLE`.
    Pressure {
        resource: &'static str,
        line: &'static str,
    },
    /// Softirqs' share of all CPUs' time since the last look, of `WHOLE`.
    Softirq,
    /// 99th percentile of the waits for a CPU since the last look (ns). Needs the probe `sched`.
    RunQueue,
}

/// All that can be watched, by name.
const SIGNALS: [(&str, Signal); 9] = [
    ("memory.oom", Signal::Oom),
    ("psi.cpu.some", pressure("cpu", "some")),
    ("psi.cpu.full", pressure("cpu", "full")),
    ("psi.io.some", pressure("io", "some")),
    ("psi.io.full", pressure("io", "full")),
    ("psi.memory.some", pressure("memory", "some")),
    ("psi.memory.full", pressure("memory", "full")),
    ("softirq", Signal::Softirq),
    ("sched.wait.p99", Signal::RunQueue),
];

const fn pressure(resource: &'static str, line: &'static str) -> Signal {
    Signal::Pressure { resource, line }
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// As it was written.
    text: String,
    pub signal: Signal,
    /// In the signal's unit.
    bound: u64,
    /// `>=` and not `>`.
    inclusive: bool,
}

impl Condition {
    /// Reads `memory.oom > 0`.
    ///
    /// # Errors
    /// Nonsense, a signal that there is not (the nearest is told), a bound in another unit than the signal's.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let nonsense = |what: &str| {
            Failure::new(USAGE, format!("--abort-if {text:?} {what}"))
                .hint(format!("conditions are like {EXAMPLES}"))
        };
        let (name, bound) = text
            .split_once('>')
            .ok_or_else(|| nonsense("compares nothing"))?;
        let (inclusive, bound) = match bound.strip_prefix('=') {
            Some(bound) => (true, bound.trim()),
            None => (false, bound.trim()),
        };
        let name = name.trim();
        let signal = SIGNALS.iter().find(|(known, _)| *known == name);
        let Some((_, signal)) = signal else {
            let known = SIGNALS.map(|(known, _)| known);
            return Err(unknown("condition of --abort-if:", name, &known));
        };
        if bound.is_empty() {
            return Err(nonsense("has no bound"));
        }
        let bound = match signal {
            Signal::Oom => bound
                .parse()
                .map_err(|_| nonsense("counts kills: its bound is a whole number"))?,
            Signal::RunQueue => parse_wait("--abort-if sched.wait.p99 >", bound)?,
            // It may be nothing at all: any is too much.
            Signal::Pressure { .. } | Signal::Softirq => {
                parse_share(&format!("--abort-if {name} >"), bound, WHOLE)?
            }
        };
        if !inclusive && bound == WHOLE && signal.is_share() {
            return Err(nonsense("is never true: no share is above 100%"));
        }
        if inclusive && bound == 0 {
            return Err(nonsense("is always true"));
        }
        Ok(Self {
            text: text.trim().into(),
            signal: *signal,
            bound,
            inclusive,
        })
    }

    const fn is_met(&self, value: u64) -> bool {
        if self.inclusive {
            value >= self.bound
        } else {
            value > self.bound
        }
    }
}

impl Signal {
    const fn is_share(self) -> bool {
        matches!(self, Self::Pressure { .. } | Self::Softirq)
    }

    fn told(self, value: u64) -> String {
        match self {
            Self::Oom => format!("{value} OOM kills since the rule came"),
            Self::Pressure { resource, line } => format!(
                "{line} tasks were stalled on {resource} for {} of the last 10 s",
                format_share(value as f64 / WHOLE as f64)
            ),
            Self::Softirq => format!(
                "softirqs took {} of all CPUs' time since the last look",
                format_share(value as f64 / WHOLE as f64)
            ),
            Self::RunQueue => format!(
                "the 99th percentile of waits for a CPU was {}",
                format_ns(value)
            ),
        }
    }
}

/// Conditions under watch, of one rule.
#[derive(Debug)]
pub struct Watch {
    conditions: Vec<Condition>,
    /// The kernel's count of OOM kills when the rule came.
    kills_before: u64,
    /// All CPUs' time at the last look.
    time_before: CpuTime,
}

impl Watch {
    /// Reads the conditions and takes the first look at what they watch.
    ///
    /// # Errors
    /// As [`Condition::parse`]; or this host does not tell what is to be watched.
    pub fn new(conditions: &[String], root: &Path) -> Result<Self, Failure> {
        let conditions: Vec<Condition> = conditions
            .iter()
            .map(|text| Condition::parse(text))
            .collect::<Result<_, _>>()?;
        let mut watch = Self {
            conditions,
            kills_before: 0,
            time_before: CpuTime::default(),
        };
        for condition in &watch.conditions {
            match condition.signal {
                Signal::Oom => watch.kills_before = host::oom_kills(root)?,
                Signal::Softirq => watch.time_before = host::cpu_time(root)?,
                Signal::Pressure { resource, line } => {
                    host::pressure(root, resource, line, WHOLE)?;
                }
                Signal::RunQueue => {}
            }
        }
        Ok(watch)
    }

    /// There is nothing to watch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Some condition needs the probe `sched`.
    #[must_use]
    pub fn needs_run_queue(&self) -> bool {
        self.conditions
            .iter()
            .any(|condition| condition.signal == Signal::RunQueue)
    }

    /// Looks. Returns the first condition that is met, with the figures; then all rules have to end.
    /// `run_queue_p99` gives the 99th percentile of the waits for a CPU since the last look (ns), none if
    /// there was none; it is called at most once, and only if a condition needs it.
    ///
    /// # Errors
    /// The host does not tell any more. Who cannot watch had better end the rules too.
    pub fn check(
        &mut self,
        root: &Path,
        mut run_queue_p99: impl FnMut() -> Option<u64>,
    ) -> Result<Option<String>, Failure> {
        let mut softirq = None;
        if self.watches(Signal::Softirq) {
            let now = host::cpu_time(root)?;
            softirq = now.softirq_share(&self.time_before, WHOLE);
            // An interval without a tick goes on: it has no share yet.
            if softirq.is_some() {
                self.time_before = now;
            }
        }
        let run_queue = if self.needs_run_queue() {
            run_queue_p99()
        } else {
            None
        };
        for condition in &self.conditions {
            let value = match condition.signal {
                Signal::Oom => Some(host::oom_kills(root)?.saturating_sub(self.kills_before)),
                Signal::Pressure { resource, line } => {
                    Some(host::pressure(root, resource, line, WHOLE)?)
                }
                Signal::Softirq => softirq,
                Signal::RunQueue => run_queue,
            };
            if let Some(value) = value.filter(|value| condition.is_met(*value)) {
                let told = condition.signal.told(value);
                return Ok(Some(format!("{}: {told}", condition.text)));
            }
        }
        Ok(None)
    }

    fn watches(&self, signal: Signal) -> bool {
        self.conditions
            .iter()
            .any(|condition| condition.signal == signal)
    }
}

#[cfg(test)]
mod tests;
